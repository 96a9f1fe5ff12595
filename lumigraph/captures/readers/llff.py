"""LLFF captures (Mildenhall et al. 2019): images/ and poses_bounds.npy, N x 17 float64.

A row contains a 3x5 matrix, row by row, and the near and far depth of the scene. The matrix is [down | right |
backwards | position | (height, width, focal)]. OpenCV's right, down, forward axes are its columns 1, 0 and minus 2.
The principal point is the image centre. Every eighth view is held out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumigraph.captures.image_file import IMAGE_SUFFIXES
from lumigraph.captures.readers.assemble import Intrinsics, View, assemble
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import CaptureError

NAME = "llff"
POSES_FILE = "poses_bounds.npy"
LLFF_PHOTO_FOLDERS = ("images", "images_2", "images_4", "images_8")


def accepts(path: Path) -> bool:
    return (path / POSES_FILE).is_file()


def read(path: Path) -> Capture:
    """Read the photos of images/ (or of the least reduced images_N) in name order; the poses have the same order.

    Raises CaptureError if the table is damaged or does not have one row for each photo.
    """
    table = _table(path / POSES_FILE)
    photos = _photos(path, len(table))
    views = []
    for photo, row in zip(photos, table, strict=True):
        matrix = row[:15].reshape(3, 5)
        height, width, focal = (float(v) for v in matrix[:, 4])
        pose = np.stack([matrix[:, 1], matrix[:, 0], -matrix[:, 2], matrix[:, 3]], axis=1)
        intrinsics = Intrinsics((width, height), (focal, focal), (width / 2, height / 2))
        views.append(View(photo.name, photo, pose, intrinsics))
    notes = [] if photos[0].parent.name == "images" else [f"images/ is missing, so {photos[0].parent.name}/ is used"]
    return assemble(views, path, NAME, notes=notes)


def _table(file: Path) -> NDArray[np.float64]:
    """Load the table as (N, 17), or (N, 15) if written without the depths; all values finite."""
    try:
        # Memory-mapped: numpy rejects a header that promises more than the file holds before it allocates.
        table = np.array(np.load(file, mmap_mode="r", allow_pickle=False), dtype=np.float64)
    except Exception as error:  # numpy's header parser raises a dozen exception types for damaged files
        raise CaptureError(f"{file} is not a valid table of numbers ({error})") from error
    if table.ndim != 2 or table.shape[1] not in (15, 17) or len(table) == 0:
        raise CaptureError(f"{file} has the shape {table.shape} but must be N x 17")
    if not np.isfinite(table).all():
        raise CaptureError(
            f"{file} holds a number that is not finite in row {int(np.argwhere(~np.isfinite(table))[0, 0])}"
        )
    return table


def _photos(path: Path, count: int) -> list[Path]:
    counts = {}
    for name in LLFF_PHOTO_FOLDERS:
        folder = path / name
        if folder.is_dir():
            photos = sorted(
                p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
            )
            if len(photos) == count:
                return photos
            counts[name] = len(photos)
    description = ", ".join(f"{name}/ has {n}" for name, n in counts.items()) or "there is no images/"
    raise CaptureError(
        f"{path / POSES_FILE} holds {count} poses but {description}: poses follow the photos' order, "
        "so none may be missing"
    )
