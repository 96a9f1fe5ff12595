"""A capture as transforms.json with its photos, for nerfstudio and instant-ngp.

    transforms.json    images/NAME    masks/NAME.png    sparse_pc.ply

`transform_matrix` is world_from_cam with OpenGL's camera axes (x right, y up, looks along -z). The world is unchanged:
nerfstudio rotates and scales it by itself, so no `applied_transform` is needed. If all photos share one lens, its
intrinsics are at the top level, otherwise in each frame.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lumigraph.captures.readers.assemble import OPENGL_TO_OPENCV
from lumigraph.captures.readers.transforms import TRANSFORMS_FILE
from lumigraph.captures.writers.dataset_folder import (
    DATASET_MASKS,
    DATASET_PHOTOS,
    UNKNOWN_COLOUR_GREY,
    atomic_folder,
    colmap_model,
    distinct_intrinsics,
    mask_name,
    photo_names,
    synced_file,
    write_photos,
)
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.capture import Capture
from lumigraph.wire.events import Event, Note

POINTS_FILE = "sparse_pc.ply"
PLY_ROW_DTYPE = np.dtype([(axis, "<f4") for axis in "xyz"] + [(colour, "u1") for colour in ("red", "green", "blue")])
NERFSTUDIO_COEFFICIENTS = {  # by the name of the lens, in the order of scene.cameras
    "PINHOLE": (),
    "OPENCV": ("k1", "k2", "p1", "p2", "k3"),
    "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
}


def write(capture: Capture, out: Path) -> Generator[Event, None, None]:
    """Write the folder `out`, which appears once it is complete.

    Yields Progress over the photos, and a Note about a lens that nerfstudio does not support. Raises CaptureError if
    `out` is not empty, if a photo cannot be read, or if the disk cannot be written.
    """
    out, names = Path(out), photo_names(capture)
    document = _document(capture, names)
    with atomic_folder(out) as folder:
        with synced_file(folder / TRANSFORMS_FILE) as stream:
            stream.write(json.dumps(document, indent=1).encode())
        if capture.points is not None:
            with synced_file(folder / POINTS_FILE) as stream:
                stream.write(_ply(capture.points))
        yield from write_photos(capture, names, folder)
    if document["camera_model"] == "FULL_OPENCV":
        yield Note(
            text="nerfstudio does not support this lens (k4 to k6 of OpenCV); undistort the photos first.",
            level="warning",
        )


def _document(capture: Capture, names: list[str]) -> dict[str, Any]:
    intrinsics, intrinsics_index = distinct_intrinsics(capture.cameras)
    model = _model(intrinsics)
    intrinsics_entries = [_intrinsics_entries(intrinsics, i, model) for i in range(len(intrinsics))]
    poses = capture.cameras.world_from_cam.double().numpy()
    frames = []
    for name, pose, index in zip(names, poses, intrinsics_index, strict=True):
        matrix = np.eye(4)
        matrix[:3] = pose
        matrix[:3, :3] = matrix[:3, :3] @ OPENGL_TO_OPENCV
        frame = {"file_path": f"{DATASET_PHOTOS}/{name}", "transform_matrix": matrix.tolist()}
        if capture.masks is not None:
            frame["mask_path"] = f"{DATASET_MASKS}/{mask_name(name)}"
        frames.append(frame | (intrinsics_entries[index] if len(intrinsics_entries) > 1 else {}))
    document: dict[str, Any] = {
        "camera_model": model,
        **(intrinsics_entries[0] if len(intrinsics_entries) == 1 else {}),
    }
    if capture.points is not None:
        document["ply_file_path"] = POINTS_FILE
    return document | _split(capture, frames) | {"frames": frames}


def _model(intrinsics: Cameras) -> str:
    """Name of the lens model. nerfstudio's OPENCV has k3, COLMAP's does not."""
    name, coefficients = colmap_model(intrinsics)
    return "OPENCV" if name == "FULL_OPENCV" and not bool(coefficients[:, 5:].any()) else name


def _intrinsics_entries(intrinsics: Cameras, i: int, model: str) -> dict[str, float]:
    width, height = intrinsics.size(i)
    (fx, fy), (cx, cy) = intrinsics.focal[i].tolist(), intrinsics.centre[i].tolist()
    entries: dict[str, float] = {"w": width, "h": height, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}
    values = [] if intrinsics.distortion is None else intrinsics.distortion[i].tolist()
    return entries | dict(zip(NERFSTUDIO_COEFFICIENTS[model], values, strict=False))


def _split(capture: Capture, frames: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The photos of each split; nerfstudio expects all three lists or none."""
    if not bool(capture.held_out.any()):
        return {}
    paths: dict[bool, list[str]] = {False: [], True: []}
    for held_out, frame in zip(capture.held_out.tolist(), frames, strict=True):
        paths[held_out].append(frame["file_path"])
    return {"train_filenames": paths[False], "val_filenames": paths[True], "test_filenames": paths[True]}


def _ply(points: Points) -> bytes:
    rgb = torch.full((len(points), 3), UNKNOWN_COLOUR_GREY, dtype=torch.uint8) if points.rgb is None else points.rgb
    table = np.zeros(len(points), PLY_ROW_DTYPE)
    for names, values in ((("x", "y", "z"), points.xyz), (("red", "green", "blue"), rgb)):
        for name, column in zip(names, values.T.numpy(), strict=True):
            table[name] = column
    types = [
        f"property {'float' if PLY_ROW_DTYPE[name].kind == 'f' else 'uchar'} {name}"
        for name in PLY_ROW_DTYPE.names or ()
    ]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *types, "end_header", ""]
    return "\n".join(header).encode() + table.tobytes()
