"""What all written datasets share: a folder that is whole or absent, its photos, and the lenses of its cameras."""

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
from lumigraph.captures.readers.assemble import inside
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.capture import Capture, Photos, SelectedPhotos
from lumigraph.scene.errors import CaptureError
from lumigraph.wire.events import Event, Progress

PHOTOS, MASKS = "images", "masks"
GREY = 128  # of points whose colour nobody knows: trainers want one


@contextmanager
def folder_beside(out: Path) -> Iterator[Path]:
    """A new folder that becomes `out` in one step when the block ends well, and vanishes when it does not.

    Raises CaptureError where `out` already holds something, and where the disk refuses anything in the block.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CaptureError(f"{out} already holds something: choose another folder or remove it")
    beside = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    try:
        beside.mkdir(parents=True)
        yield beside
        if out.exists():
            out.rmdir()
        beside.replace(out)
    except OSError as error:
        reason = error.strerror or error
        raise CaptureError(f"{out}: not written ({reason}); free some space or choose another folder") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def synced(path: Path) -> Iterator[BinaryIO]:
    """A new file that lies on the disk when the block ends, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


# --- photos ----------------------------------------------------------------------------------------------------------


def photo_names(capture: Capture) -> list[str]:
    """Where each photo will lie within the folder of photos: by the capture's name for it, with the suffix of its file,
    or .png where there is none. Raises CaptureError for names that lead out of the folder or do not differ."""
    names = []
    for i, name in enumerate(capture.names):
        file = _file(capture.photos, i)
        suffix = ".png" if file is None else file.suffix
        if not name.lower().endswith(suffix.lower()):
            name = f"{name.removesuffix(Path(name).suffix)}{suffix}"
        inside(Path(PHOTOS), name)
        if any(character in name for character in "\0\r\n\\"):
            raise CaptureError(f"the name {name!r} holds characters that other programs cannot read: rename the photo")
        names.append(name)
    if len({name.casefold() for name in names}) != len(names):
        raise CaptureError("two photos of this capture have the same name: rename one of them")
    return names


def write_photos(capture: Capture, names: list[str], folder: Path) -> Generator[Event, None, None]:
    """The photos into folder/images, byte for byte where they are files and as PNG where they are only pixels; masks
    into folder/masks as NAME.png, COLMAP's convention: grey, 0 where the photo is to be ignored and 255 elsewhere.

    Yields Progress. Raises CaptureError where a photo cannot be read.
    """
    start = time.monotonic()
    yield Progress(stage="photos", done=0, total=len(names), unit="photos")
    for i, name in enumerate(names):
        file = _file(capture.photos, i)
        with synced(folder / PHOTOS / name) as stream:
            if file is None:
                _save(capture.photo(i), stream)
            else:
                _copy(file, stream)
        if capture.masks is not None:
            with synced(folder / MASKS / mask_name(name)) as stream:
                _save(capture.masks[i], stream)
        left = (time.monotonic() - start) / (i + 1) * (len(names) - i - 1)
        yield Progress(stage="photos", done=i + 1, total=len(names), unit="photos", seconds_left=left)


def mask_name(name: str) -> str:
    return f"{name}.png"


def _file(photos: Photos, i: int) -> Path | None:
    """The picture file that photo `i` is, None for one that was computed."""
    if isinstance(photos, SelectedPhotos):
        return _file(photos.photos, photos.indices[i])
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


def lenses(cameras: Cameras) -> tuple[Cameras, list[int]]:
    """(the different intrinsics, as cameras; which of them each camera has)."""
    parts = [cameras.focal, cameras.centre, cameras.sizes]
    if cameras.distortion is not None:
        parts.append(cameras.distortion)
    rows = torch.cat([part.double() for part in parts], dim=1)
    _, kind_of = torch.unique(rows, dim=0, return_inverse=True)
    kinds: list[int] = kind_of.tolist()
    first = list(dict.fromkeys(kinds))  # in the order of the photos
    return cameras[[kinds.index(kind) for kind in first]], [first.index(kind) for kind in kinds]


def model_of(cameras: Cameras) -> tuple[str, Tensor]:
    """(COLMAP's name of a lens that covers all of `cameras`, (N, K) float64 its coefficients in COLMAP's order)."""
    none = cameras.focal.new_zeros(len(cameras), 0).double()
    if cameras.distortion is None:
        return "PINHOLE", none
    k = cameras.distortion.double()
    if cameras.lens == "fisheye":
        return "OPENCV_FISHEYE", k
    return ("FULL_OPENCV", k) if bool(k[:, 4:].any()) else ("OPENCV", k[:, :4])
