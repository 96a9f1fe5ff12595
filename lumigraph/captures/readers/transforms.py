"""transforms.json of instant-ngp and nerfstudio.

`transform_matrix` is world_from_cam with OpenGL camera axes (x right, y up, looks along -z). The axes are converted to
OpenCV's here; the world stays as it is. instant-ngp's `scale`, `offset` and `aabb_scale` describe its own unit cube
and are ignored. Intrinsics are at the top level or in each frame, in pixels with the first corner at (0, 0).
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lumigraph.captures.image_file import read_header
from lumigraph.captures.readers import points_ply
from lumigraph.captures.readers.assemble import (
    MAX_LISTED_NAMES,
    OPENGL_TO_OPENCV,
    Intrinsics,
    View,
    assemble,
    resolve_inside,
    sort_by_name,
)
from lumigraph.captures.readers.checked_json import parse_number, parse_pose, parse_text, read_json
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Lens
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import CaptureError

NAME = "transforms"
TRANSFORMS_FILE = "transforms.json"
MAX_FRAMES = 100_000
GUESSED_SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp", ".PNG", ".JPG", ".JPEG")  # `file_path` may have none

# camera_model -> lens and its coefficients, in the order of scene.cameras ("" = zero).
# nerfstudio's OPENCV has k3 as the r^6 term, as OpenCV; only FULL_OPENCV has a denominator (k4 k5 k6).
NERFSTUDIO_MODELS: dict[str, tuple[Lens, tuple[str, ...]]] = {
    "SIMPLE_PINHOLE": ("pinhole", ()),
    "PINHOLE": ("pinhole", ()),
    "SIMPLE_RADIAL": ("opencv", ("k1", "", "", "", "", "", "", "")),
    "RADIAL": ("opencv", ("k1", "k2", "", "", "", "", "", "")),
    "OPENCV": ("opencv", ("k1", "k2", "p1", "p2", "k3", "", "", "")),
    "FULL_OPENCV": ("opencv", ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")),
    "OPENCV_FISHEYE": ("fisheye", ("k1", "k2", "k3", "k4")),
    "SIMPLE_RADIAL_FISHEYE": ("fisheye", ("k1", "", "", "")),
    "RADIAL_FISHEYE": ("fisheye", ("k1", "k2", "", "")),
}


def accepts(path: Path) -> bool:
    """Return True for a folder with a transforms.json, or for such a file itself."""
    return (path / TRANSFORMS_FILE).is_file() or (path.is_file() and path.suffix.lower() == ".json")


def read(path: Path) -> Capture:
    """Read the capture that a transforms.json describes.

    Held out are `test_filenames` (or else `val_filenames`) if the file lists them, every eighth view otherwise. Missing
    photos are left out, with a note. Raises CaptureError, with the number of the frame, if anything is damaged.
    """
    file = path if path.is_file() else path / TRANSFORMS_FILE
    document = read_json(file)
    views, notes = read_views(document, file)
    views, unused_count = _split(document, views)
    if unused_count:
        notes.append(f"{unused_count} photos that {file.name} lists for neither training nor testing are left out")
    if not views:
        raise CaptureError(f"{file} lists no photo for training or testing")
    points = _points(document, file.parent, notes)
    return assemble(sort_by_name(views), file, NAME, points, notes)


def read_applied_transform(path: Path) -> Tensor | None:
    """(3, 4) float64: transform from the source's world to the file's world, [R | t] with R scaled by `applied_scale`.

    None if the file has none. Its inverse maps an export back into the frame of the original reconstruction.
    """
    file = path if path.is_file() else path / TRANSFORMS_FILE
    document = read_json(file)
    if "applied_transform" not in document and "applied_scale" not in document:
        return None
    transform = np.eye(4)[:3]
    if "applied_transform" in document:
        transform = parse_pose(document["applied_transform"], f"applied_transform in {file}")
    scale = parse_number(document.get("applied_scale", 1.0), f"applied_scale in {file}")
    return torch.from_numpy(transform * scale)


def read_views(document: dict[str, Any], file: Path) -> tuple[list[View], list[str]]:
    """(views with an existing photo, notes) of the frames in a parsed transforms file."""
    frames = document.get("frames")
    if not isinstance(frames, list) or not frames:
        raise CaptureError(f"{file} lists no frames")
    if len(frames) > MAX_FRAMES:
        raise CaptureError(f"{file} lists {len(frames)} frames (at most {MAX_FRAMES})")
    views, missing = [], []
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise CaptureError(f"frame {index} of {file} is not an object")
        name = _normalise_path(parse_text(frame.get("file_path"), f"file_path of frame {index} in {file}"))
        suffix = next((s for s in GUESSED_SUFFIXES if resolve_inside(file.parent, name + s).is_file()), None)
        if suffix is None:
            missing.append(name)
        else:
            views.append(_view(document, frame, file, name + suffix))
    if not views:
        raise CaptureError(f"none of the {len(frames)} photos that {file} lists exists: put them next to it")
    notes = []
    if missing:
        name_list = ", ".join(missing[:MAX_LISTED_NAMES]) + (", ..." if len(missing) > MAX_LISTED_NAMES else "")
        notes.append(
            f"{len(missing)} of {len(frames)} photos that {file.name} lists are missing and left out: {name_list}"
        )
    return views, notes


def _view(document: dict[str, Any], frame: dict[str, Any], file: Path, name: str) -> View:
    location, photo = f"{name} in {file}", resolve_inside(file.parent, name)
    pose = parse_pose(frame.get("transform_matrix"), f"transform_matrix of {location}")
    pose[:, :3] = pose[:, :3] @ OPENGL_TO_OPENCV
    mask = None
    if "mask_path" in frame:
        mask = resolve_inside(file.parent, parse_text(frame["mask_path"], f"mask_path of {location}"))
        if not mask.is_file():
            raise CaptureError(f"the mask {frame['mask_path']} of {location} does not exist")
    return View(name, photo, pose, _intrinsics({**document, **frame}, location, photo), mask)


def _normalise_path(file_path: str) -> str:
    """Forward slashes, no leading ./"""
    parts = [part for part in file_path.replace("\\", "/").split("/") if part != "."]
    return "/".join(parts)


def _intrinsics(entries: dict[str, Any], location: str, photo: Path) -> Intrinsics:
    """Intrinsics from `entries`, the keys of the file overridden by those of the frame; `location` is for messages."""

    def get(key: str, default: float) -> float:
        return parse_number(entries.get(key, default), f"{key} of {location}")

    if "w" in entries and "h" in entries:
        width, height = get("w", 0), get("h", 0)
    else:
        width, height, _ = read_header(photo)
    if "fl_x" in entries:
        fx = get("fl_x", 0)
    elif "camera_angle_x" in entries:
        fx = _focal(get("camera_angle_x", 0), width, location)
    else:
        raise CaptureError(f"{location} has neither fl_x nor camera_angle_x: its focal length is unknown")
    if "fl_y" in entries:
        fy = get("fl_y", 0)
    else:
        fy = (
            _focal(get("camera_angle_y", 0), height, location)
            if "camera_angle_y" in entries and "fl_x" not in entries
            else fx
        )
    model = entries.get("camera_model", "OPENCV_FISHEYE" if entries.get("is_fisheye") is True else "OPENCV")
    if not isinstance(model, str) or model not in NERFSTUDIO_MODELS:
        raise CaptureError(
            f"{location} has the camera model {str(model)[:40]}, which is not supported: undistort it first"
        )
    lens, keys = NERFSTUDIO_MODELS[model]
    if model == "OPENCV" and get("k4", 0) != 0:
        raise CaptureError(f"{location} has k4, which OPENCV does not define: is it OPENCV_FISHEYE or FULL_OPENCV?")
    return Intrinsics(
        size=(width, height),
        focal=(fx, fy),
        centre=(get("cx", width / 2), get("cy", height / 2)),
        lens=lens,
        distortion=tuple(get(key, 0) if key else 0.0 for key in keys),
    )


def _focal(angle: float, extent: float, location: str) -> float:
    if not 0 < angle < math.pi:
        raise CaptureError(f"the field of view of {location} must be between 0 and pi radians, not {angle}")
    return 0.5 * extent / math.tan(0.5 * angle)


def _split(document: dict[str, Any], views: list[View]) -> tuple[list[View], int]:
    """(views, with held_out set if the file lists a split; number of views outside of the split)."""
    train, val, test = (_filename_list(document, f"{part}_filenames") for part in ("train", "val", "test"))
    held_out = test or val
    if not train and not held_out:
        return views, 0
    if not held_out:  # a training list alone: every eighth view of it will be held out
        kept_views = [v for v in views if _is_listed(v, train)]
    else:
        # Without a training list, all views outside of the other lists are for training.
        is_in_split = [
            _is_listed(v, held_out) or (_is_listed(v, train) if train else not _is_listed(v, val)) for v in views
        ]
        kept_views = [
            replace(v, held_out=_is_listed(v, held_out)) for v, w in zip(views, is_in_split, strict=True) if w
        ]
    return kept_views, len(views) - len(kept_views)


def _is_listed(view: View, names: set[str]) -> bool:
    """Return True if `names` lists the view, with or without its suffix, as `file_path` does."""
    return view.name in names or view.name.rpartition(".")[0] in names


def _filename_list(document: dict[str, Any], key: str) -> set[str]:
    names = document.get(key, [])
    if not isinstance(names, list):
        raise CaptureError(f"{key} must be a list of file names")
    return {_normalise_path(parse_text(name, f"every entry of {key}")) for name in names}


def _points(document: dict[str, Any], root: Path, notes: list[str]) -> Points | None:
    """Read the points of `ply_file_path`, which nerfstudio stores in the world of the poses."""
    if not document.get("ply_file_path"):
        return None
    file = resolve_inside(root, parse_text(document["ply_file_path"], "ply_file_path"))
    if not file.is_file():
        notes.append(f"the points {document['ply_file_path']} are missing; training starts without them")
        return None
    return points_ply.read(file)
