"""Common parts of all dataset writers: an atomic folder, its photos, and the intrinsics of its cameras."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from PIL import Image
from torch import Tensor

from lumigraph.captures.image_file import PhotoFiles
from lumigraph.captures.readers.assemble import resolve_inside
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.capture import Capture, Photos, SelectedPhotos
from lumigraph.scene.errors import CaptureError
from lumigraph.wire.events import Event, Progress

DATASET_PHOTOS, DATASET_MASKS = "images", "masks"
UNKNOWN_COLOUR_GREY = 128  # of points without colour: other trainers require one


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A new folder that is renamed to `out` if the block succeeds, and removed if it fails.

    Raises CaptureError if `out` is not empty, or if the disk cannot be written.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CaptureError(f"{out} is not empty: choose another folder or remove it")
    tmp_folder = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    try:
        tmp_folder.mkdir(parents=True)
        yield tmp_folder
        if out.exists():
            out.rmdir()
        tmp_folder.replace(out)
    except OSError as error:
        reason = error.strerror or error
        raise CaptureError(f"{out}: not written ({reason}); free some space or choose another folder") from error
    finally:
        shutil.rmtree(tmp_folder, ignore_errors=True)


@contextmanager
def synced_file(path: Path) -> Iterator[BinaryIO]:
    """A new file that is synced to disk when the block ends; missing folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


# --- photos ----------------------------------------------------------------------------------------------------------


def photo_names(capture: Capture) -> list[str]:
    """Path of each photo within the folder of photos: the capture's name with the suffix of its file, .png if none.

    Raises CaptureError if a name leads out of the folder or two names are equal.
    """
    names = []
    for i, name in enumerate(capture.names):
        file = _photo_file(capture.photos, i)
        suffix = ".png" if file is None else file.suffix
        if not name.lower().endswith(suffix.lower()):
            name = f"{name.removesuffix(Path(name).suffix)}{suffix}"
        resolve_inside(Path(DATASET_PHOTOS), name)
        if any(character in name for character in "\0\r\n\\"):
            raise CaptureError(f"the name {name!r} holds characters that other programs cannot read: rename the photo")
        names.append(name)
    if len({name.casefold() for name in names}) != len(names):
        raise CaptureError("two photos of this capture have the same name: rename one of them")
    return names


def write_photos(capture: Capture, names: list[str], folder: Path) -> Generator[Event, None, None]:
    """Write photos into folder/images: files byte for byte, computed pixels as PNG. Masks go into folder/masks.

    A mask is NAME.png, by COLMAP's convention: grey, 0 = ignored, 255 elsewhere. Yields Progress. Raises CaptureError
    if a photo cannot be read.
    """
    start = time.monotonic()
    yield Progress(stage="photos", done=0, total=len(names), unit="photos")
    for i, name in enumerate(names):
        file = _photo_file(capture.photos, i)
        with synced_file(folder / DATASET_PHOTOS / name) as stream:
            if file is None:
                _save(capture.photo(i), stream)
            else:
                _copy(file, stream)
        if capture.masks is not None:
            with synced_file(folder / DATASET_MASKS / mask_name(name)) as stream:
                _save(capture.masks[i], stream)
        seconds_left = (time.monotonic() - start) / (i + 1) * (len(names) - i - 1)
        yield Progress(stage="photos", done=i + 1, total=len(names), unit="photos", seconds_left=seconds_left)


def mask_name(name: str) -> str:
    return f"{name}.png"


def _photo_file(photos: Photos, i: int) -> Path | None:
    """The image file of photo `i`, or None if the photo was computed."""
    if isinstance(photos, SelectedPhotos):
        return _photo_file(photos.photos, photos.indices[i])
    return photos.paths[i] if isinstance(photos, PhotoFiles) else None


def _copy(file: Path, stream: BinaryIO) -> None:
    try:
        source = file.open("rb")
    except OSError as error:
        raise CaptureError(f"{file} cannot be read ({error.strerror}): restore the photo") from error
    with source:
        shutil.copyfileobj(source, stream, 1 << 20)


def _save(pixels: Tensor, stream: BinaryIO) -> None:
    Image.fromarray(pixels.squeeze(-1).contiguous().numpy()).save(stream, "PNG", compress_level=1)


# --- cameras ---------------------------------------------------------------------------------------------------------


def distinct_intrinsics(cameras: Cameras) -> tuple[Cameras, list[int]]:
    """(distinct intrinsics, as cameras; the index of each camera's intrinsics)."""
    parts = [cameras.focal, cameras.centre, cameras.sizes]
    if cameras.distortion is not None:
        parts.append(cameras.distortion)
    rows = torch.cat([part.double() for part in parts], dim=1)
    _, kind_of = torch.unique(rows, dim=0, return_inverse=True)
    kinds: list[int] = kind_of.tolist()
    first = list(dict.fromkeys(kinds))  # in photo order
    return cameras[[kinds.index(kind) for kind in first]], [first.index(kind) for kind in kinds]


def colmap_model(cameras: Cameras) -> tuple[str, Tensor]:
    """(COLMAP's name of a lens that covers all of `cameras`, its coefficients (N, K) float64 in COLMAP's order)."""
    none = cameras.focal.new_zeros(len(cameras), 0).double()
    if cameras.distortion is None:
        return "PINHOLE", none
    k = cameras.distortion.double()
    if cameras.lens == "fisheye":
        return "OPENCV_FISHEYE", k
    return ("FULL_OPENCV", k) if bool(k[:, 4:].any()) else ("OPENCV", k[:, :4])
