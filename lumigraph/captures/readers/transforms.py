"""transforms.json, as instant-ngp and nerfstudio write it.

`transform_matrix` is world_from_cam with OpenGL camera axes (x right, y up, looks along -z); it is turned to OpenCV's
here and otherwise kept as given. instant-ngp's `scale`, `offset` and `aabb_scale` describe its own unit cube and are
ignored. Intrinsics stand at the top or in each frame, pixels with the first corner at (0, 0).
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
from lumigraph.captures.readers.assemble import OPENGL_TO_OPENCV, Intrinsics, View, assemble, in_name_order, inside
from lumigraph.captures.readers.checked_json import matrix, number, read_json, text
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Lens
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import CaptureError

NAME = "transforms"
FILE = "transforms.json"
MAX_FRAMES = 100_000
SPOKEN_NAMES = 5
GUESSED_SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp", ".PNG", ".JPG", ".JPEG")  # `file_path` may lack its suffix

# camera_model -> lens and the coefficients that it reads, in the order of scene.cameras ("" = zero).
# nerfstudio's OPENCV has k3 as the r^6 term, as OpenCV; only FULL_OPENCV has a denominator (k4 k5 k6).
MODELS: dict[str, tuple[Lens, tuple[str, ...]]] = {
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
    """True for a folder with a transforms.json, or for such a file itself."""
    return (path / FILE).is_file() or (path.is_file() and path.suffix.lower() == ".json")


def read(path: Path) -> Capture:
    """The capture that a transforms.json describes.

    Held out: `test_filenames` (or else `val_filenames`) where the file lists them, every eighth view otherwise. Photos
    that do not exist are left out and noted. Raises CaptureError naming the frame for anything that is damaged.
    """
    file = path if path.is_file() else path / FILE
    document = read_json(file)
    views, notes = views_of(document, file)
    views, unused = _split(document, views)
    if unused:
        notes.append(f"{unused} photos that {file.name} lists for neither training nor testing are left out")
    if not views:
        raise CaptureError(f"{file} lists no photo for training or testing")
    points = _points(document, file.parent, notes)
    return assemble(in_name_order(views), file, NAME, points, notes)


def applied_transform(path: Path) -> Tensor | None:
    """(3, 4) float64: how the file's world came out of its source's world, [R | t] with R scaled by `applied_scale`.

    None where the file does not say. Its inverse takes an export back into the frame of the original reconstruction.
    """
    file = path if path.is_file() else path / FILE
    document = read_json(file)
    if "applied_transform" not in document and "applied_scale" not in document:
        return None
    applied = np.eye(4)[:3]
    if "applied_transform" in document:
        applied = matrix(document["applied_transform"], f"applied_transform in {file}")
    scale = number(document.get("applied_scale", 1.0), f"applied_scale in {file}")
    return torch.from_numpy(applied * scale)


def views_of(document: dict[str, Any], file: Path) -> tuple[list[View], list[str]]:
    """(views whose photos exist, notes) of the frames in a parsed transforms file."""
    frames = document.get("frames")
    if not isinstance(frames, list) or not frames:
        raise CaptureError(f"{file} lists no frames")
    if len(frames) > MAX_FRAMES:
        raise CaptureError(f"{file} lists {len(frames)} frames (at most {MAX_FRAMES})")
    views, missing = [], []
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise CaptureError(f"frame {index} of {file} is not an object")
        name = _normal(text(frame.get("file_path"), f"file_path of frame {index} in {file}"))
        suffix = next((s for s in GUESSED_SUFFIXES if inside(file.parent, name + s).is_file()), None)
        if suffix is None:
            missing.append(name)
        else:
            views.append(_view(document, frame, file, name + suffix))
    if not views:
        raise CaptureError(f"none of the {len(frames)} photos that {file} lists exists: put them beside it")
    notes = []
    if missing:
        named = ", ".join(missing[:SPOKEN_NAMES]) + (", ..." if len(missing) > SPOKEN_NAMES else "")
        notes.append(f"{len(missing)} of {len(frames)} photos that {file.name} lists are missing and left out: {named}")
    return views, notes


def _view(document: dict[str, Any], frame: dict[str, Any], file: Path, name: str) -> View:
    where, photo = f"{name} in {file}", inside(file.parent, name)
    pose = matrix(frame.get("transform_matrix"), f"transform_matrix of {where}")
    pose[:, :3] = pose[:, :3] @ OPENGL_TO_OPENCV
    mask = None
    if "mask_path" in frame:
        mask = inside(file.parent, text(frame["mask_path"], f"mask_path of {where}"))
        if not mask.is_file():
            raise CaptureError(f"the mask {frame['mask_path']} of {where} does not exist")
    return View(name, photo, pose, _intrinsics({**document, **frame}, where, photo), mask)


def _normal(file_path: str) -> str:
    """Forward slashes, no leading ./"""
    parts = [part for part in file_path.replace("\\", "/").split("/") if part != "."]
    return "/".join(parts)


def _intrinsics(said: dict[str, Any], where: str, photo: Path) -> Intrinsics:
    """Intrinsics from the keys of the file with those of the frame laid over them; `where` is for messages."""

    def get(key: str, default: float) -> float:
        return number(said.get(key, default), f"{key} of {where}")

    if "w" in said and "h" in said:
        width, height = get("w", 0), get("h", 0)
    else:
        width, height, _ = read_header(photo)
    if "fl_x" in said:
        fx = get("fl_x", 0)
    elif "camera_angle_x" in said:
        fx = _focal(get("camera_angle_x", 0), width, where)
    else:
        raise CaptureError(f"{where} has neither fl_x nor camera_angle_x: its focal length is unknown")
    if "fl_y" in said:
        fy = get("fl_y", 0)
    else:
        fy = _focal(get("camera_angle_y", 0), height, where) if "camera_angle_y" in said and "fl_x" not in said else fx
    model = said.get("camera_model", "OPENCV_FISHEYE" if said.get("is_fisheye") is True else "OPENCV")
    if not isinstance(model, str) or model not in MODELS:
        raise CaptureError(
            f"{where} has the camera model {str(model)[:40]}, which is not supported: undistort it first"
        )
    lens, keys = MODELS[model]
    if model == "OPENCV" and get("k4", 0) != 0:
        raise CaptureError(f"{where} has k4, which OPENCV does not define: is it OPENCV_FISHEYE or FULL_OPENCV?")
    return Intrinsics(
        size=(width, height),
        focal=(fx, fy),
        centre=(get("cx", width / 2), get("cy", height / 2)),
        lens=lens,
        distortion=tuple(get(key, 0) if key else 0.0 for key in keys),
    )


def _focal(angle: float, extent: float, where: str) -> float:
    if not 0 < angle < math.pi:
        raise CaptureError(f"the field of view of {where} must lie between 0 and pi radians, not {angle}")
    return 0.5 * extent / math.tan(0.5 * angle)


def _split(document: dict[str, Any], views: list[View]) -> tuple[list[View], int]:
    """(views with held_out set where the file lists a split, how many belong to no part of it)."""
    train, val, test = (_listed(document, f"{part}_filenames") for part in ("train", "val", "test"))
    held_out = test or val
    if not train and not held_out:
        return views, 0
    if not held_out:  # only the training list: every eighth of it will be held out
        kept = [v for v in views if _among(v, train)]
    else:
        # Where only the other parts are listed, the rest is for training.
        wanted = [_among(v, held_out) or (_among(v, train) if train else not _among(v, val)) for v in views]
        kept = [replace(v, held_out=_among(v, held_out)) for v, w in zip(views, wanted, strict=True) if w]
    return kept, len(views) - len(kept)


def _among(view: View, names: set[str]) -> bool:
    """Lists name photos as `file_path` does: with or without the suffix."""
    return view.name in names or view.name.rpartition(".")[0] in names


def _listed(document: dict[str, Any], key: str) -> set[str]:
    names = document.get(key, [])
    if not isinstance(names, list):
        raise CaptureError(f"{key} must be a list of file names")
    return {_normal(text(name, f"every entry of {key}")) for name in names}


def _points(document: dict[str, Any], root: Path, notes: list[str]) -> Points | None:
    """The points of `ply_file_path`, which nerfstudio stores in the same world as the poses."""
    if not document.get("ply_file_path"):
        return None
    file = inside(root, text(document["ply_file_path"], "ply_file_path"))
    if not file.is_file():
        notes.append(f"the points {document['ply_file_path']} are missing; training starts without them")
        return None
    return points_ply.read(file)
