"""A capture as transforms.json with its photos, for nerfstudio and instant-ngp.

    transforms.json    images/NAME    masks/NAME.png    sparse_pc.ply

`transform_matrix` is world_from_cam with OpenGL's camera axes (x right, y up, looks along -z). The world stays as it
is: nerfstudio turns and scales it by itself, so there is no `applied_transform` to undo. Where all photos have one lens
its numbers stand at the top, otherwise in each frame.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lumigraph.captures.readers.assemble import OPENGL_TO_OPENCV
from lumigraph.captures.readers.transforms import FILE
from lumigraph.captures.writers.dataset_folder import (
    GREY,
    MASKS,
    PHOTOS,
    folder_beside,
    lenses,
    mask_name,
    model_of,
    photo_names,
    synced,
    write_photos,
)
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.capture import Capture
from lumigraph.wire.events import Event, Note

POINTS = "sparse_pc.ply"
ROW = np.dtype([(axis, "<f4") for axis in "xyz"] + [(colour, "u1") for colour in ("red", "green", "blue")])
COEFFICIENTS = {  # by the name of the lens, in the order of scene.cameras
    "PINHOLE": (),
    "OPENCV": ("k1", "k2", "p1", "p2", "k3"),
    "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
}


def write(capture: Capture, out: Path) -> Generator[Event, None, None]:
    """Write the folder `out`, which appears whole when all photos are in it.

    Yields Progress over the photos, and a Note about a lens that nerfstudio does not know. Raises CaptureError where
    `out` already holds something, where a photo cannot be read, and where the disk refuses.
    """
    out, names = Path(out), photo_names(capture)
    document = _document(capture, names)
    with folder_beside(out) as folder:
        with synced(folder / FILE) as stream:
            stream.write(json.dumps(document, indent=1).encode())
        if capture.points is not None:
            with synced(folder / POINTS) as stream:
                stream.write(_ply(capture.points))
        yield from write_photos(capture, names, folder)
    if document["camera_model"] == "FULL_OPENCV":
        yield Note(
            text="nerfstudio does not know this lens (k4 to k6 of OpenCV); undistort the photos first.", level="warning"
        )


def _document(capture: Capture, names: list[str]) -> dict[str, Any]:
    kinds, kind_of = lenses(capture.cameras)
    model = _model(kinds)
    numbers = [_numbers(kinds, i, model) for i in range(len(kinds))]
    poses = capture.cameras.world_from_cam.double().numpy()
    frames = []
    for name, pose, kind in zip(names, poses, kind_of, strict=True):
        matrix = np.eye(4)
        matrix[:3] = pose
        matrix[:3, :3] = matrix[:3, :3] @ OPENGL_TO_OPENCV
        frame = {"file_path": f"{PHOTOS}/{name}", "transform_matrix": matrix.tolist()}
        if capture.masks is not None:
            frame["mask_path"] = f"{MASKS}/{mask_name(name)}"
        frames.append(frame | (numbers[kind] if len(numbers) > 1 else {}))
    document: dict[str, Any] = {"camera_model": model, **(numbers[0] if len(numbers) == 1 else {})}
    if capture.points is not None:
        document["ply_file_path"] = POINTS
    return document | _split(capture, frames) | {"frames": frames}


def _model(kinds: Cameras) -> str:
    """nerfstudio's OPENCV knows k3, which COLMAP's does not."""
    name, coefficients = model_of(kinds)
    return "OPENCV" if name == "FULL_OPENCV" and not bool(coefficients[:, 5:].any()) else name


def _numbers(kinds: Cameras, i: int, model: str) -> dict[str, float]:
    width, height = kinds.size(i)
    (fx, fy), (cx, cy) = kinds.focal[i].tolist(), kinds.centre[i].tolist()
    said: dict[str, float] = {"w": width, "h": height, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}
    values = [] if kinds.distortion is None else kinds.distortion[i].tolist()
    return said | dict(zip(COEFFICIENTS[model], values, strict=False))


def _split(capture: Capture, frames: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Which photos are for what; nerfstudio wants all three lists or none."""
    if not bool(capture.held_out.any()):
        return {}
    paths: dict[bool, list[str]] = {False: [], True: []}
    for held_out, frame in zip(capture.held_out.tolist(), frames, strict=True):
        paths[held_out].append(frame["file_path"])
    return {"train_filenames": paths[False], "val_filenames": paths[True], "test_filenames": paths[True]}


def _ply(points: Points) -> bytes:
    rgb = torch.full((len(points), 3), GREY, dtype=torch.uint8) if points.rgb is None else points.rgb
    table = np.zeros(len(points), ROW)
    for names, values in ((("x", "y", "z"), points.xyz), (("red", "green", "blue"), rgb)):
        for name, column in zip(names, values.T.numpy(), strict=True):
            table[name] = column
    types = [f"property {'float' if ROW[name].kind == 'f' else 'uchar'} {name}" for name in ROW.names or ()]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *types, "end_header", ""]
    return "\n".join(header).encode() + table.tobytes()
