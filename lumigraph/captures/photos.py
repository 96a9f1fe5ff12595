"""Photos in: a folder or a zip becomes a folder of upright, sound pictures, ready for structure from motion.

A photo that already is an upright 8-bit JPEG or PNG keeps its bytes (a hard link, or a copy across file systems). The
others are written once more: JPEG at quality 95 where the source was lossy, PNG where it was not. Everything downstream
may then forget about EXIF: what it said about the camera travels in the PhotoSet.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lumigraph.captures import archive, exif, image_file
from lumigraph.captures.thread_map import ordered_map
from lumigraph.scene.errors import CaptureError
from lumigraph.wire.events import Event, Note, Progress

JPEG_QUALITY = 95
MAX_PHOTOS = 10_000
SPOKEN_NOTES = 5  # files named one by one before the rest becomes a count
REDUCED_COPY = re.compile(r"images_\d+$")  # beside `images`: the same photos again, smaller
MASK_FOLDERS = ("masks", "mask")
NOT_PHOTOS = frozenset({"mask", "masks", "depth", "depths", "normals", "segmentation", "thumbnails", "__macosx"})

Place = tuple[float, float, float | None]


@dataclass(frozen=True)
class PhotoSet:
    """Upright photos, all directly in `folder`, in name order; the i-th entry of each tuple belongs to names[i]."""

    folder: Path
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]  # (width, height) pixels
    focal_px: tuple[float | None, ...]  # from EXIF, at this size; None where unknown
    gps: tuple[Place | None, ...]  # (degrees north, degrees east, metres of altitude or None)
    from_video: bool = False
    masks: tuple[Path | None, ...] = ()  # black where a photo is to be ignored, upright as it is; empty for none at all

    def __post_init__(self) -> None:
        if self.masks and len(self.masks) != len(self.names):
            raise ValueError("every tuple of a PhotoSet needs one entry per name")
        if {len(self.sizes), len(self.focal_px), len(self.gps)} != {len(self.names)}:
            raise ValueError("every tuple of a PhotoSet needs one entry per name")

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class _Found:
    """A file that may be a photo: where it lies, what its owner calls it, and why it is left out, if it is."""

    label: str
    path: Path | None
    reason: str = ""


@dataclass(frozen=True)
class _Ready:
    """A photo written to its place."""

    name: str
    size: tuple[int, int]
    focal_px: float | None
    gps: Place | None
    mask: str | None = None  # its name, of a file that is written beside the folder of photos


def find_photos(path: Path, work: Path) -> Generator[Event, None, PhotoSet]:
    """Gathers the photos of `path`, a folder (and its direct sub-folders) or a zip, into `work`/photos.

    Their masks come along into `work`/masks: of a folder `masks` or `mask` inside `path` or beside it, files named as
    COLMAP does (a.jpg.png for a.jpg) or like the photo.

    Yields Progress and Notes about files left out. Raises CaptureError when `path` is neither, when an archive breaks a
    bound, or when fewer than two photos remain. Nothing half-written stays behind.
    """
    work.mkdir(parents=True, exist_ok=True)
    made, masks = work / "photos", work / "masks"
    growing = work / f"photos.tmp-{os.getpid()}"
    growing_masks = work / f"masks.tmp-{os.getpid()}"
    unpacked = work / f"unpacked.tmp-{os.getpid()}"
    try:
        for folder in (growing, growing_masks, unpacked):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        found = yield from _find(path, work, unpacked)
        ready, skipped = yield from _gather(found, growing, growing_masks)
        yield from _notes(skipped)
        if len(ready) < 2:
            raise CaptureError(_too_few(path, len(ready), skipped))
        shutil.rmtree(made, ignore_errors=True)
        growing.replace(made)
        shutil.rmtree(masks, ignore_errors=True)
        if any(growing_masks.iterdir()):
            growing_masks.replace(masks)
    finally:
        shutil.rmtree(growing, ignore_errors=True)
        shutil.rmtree(growing_masks, ignore_errors=True)
        shutil.rmtree(unpacked, ignore_errors=True)
    return PhotoSet(
        folder=made,
        names=tuple(r.name for r in ready),
        sizes=tuple(r.size for r in ready),
        focal_px=tuple(r.focal_px for r in ready),
        gps=tuple(r.gps for r in ready),
        masks=tuple(masks / r.mask if r.mask else None for r in ready) if any(r.mask for r in ready) else (),
    )


def _find(path: Path, work: Path, unpacked: Path) -> Generator[Event, None, list[_Found]]:
    if path.is_dir():
        found = list(_walk(path, work.resolve()))
    elif path.is_file() and path.suffix.lower() == ".zip":
        found = []
        for label, file, reason in archive.unpack(path, unpacked, image_file.SUFFIXES | image_file.HEIC_SUFFIXES):
            if _hidden(label):
                continue
            found.append(_Found(label, file, reason))
            yield Progress(stage="unpack", done=len(found), total=None, unit="files")
    elif path.exists():
        raise CaptureError(f"{path} is neither a folder nor a zip of photos")
    else:
        raise CaptureError(f"{path} does not exist")
    if sum(f.path is not None for f in found) > MAX_PHOTOS:
        raise CaptureError(f"{path} holds more than {MAX_PHOTOS} photos: choose some of them")
    return found


def _walk(folder: Path, work: Path) -> Iterator[_Found]:
    """The files of a folder and of its direct sub-folders, in name order; our own `work` folder is not entered."""
    inside = sorted(p for p in folder.iterdir() if not _hidden(p.name))
    names = {p.name for p in inside}
    for entry in inside:
        if not entry.is_dir():
            yield _classify(entry, entry.name)
        elif "images" in names and REDUCED_COPY.match(entry.name):
            yield _Found(f"{entry.name}/", None, "holds reduced copies of images/")
        elif entry.name.lower() in NOT_PHOTOS:
            yield _Found(f"{entry.name}/", None, "does not hold photos, by its name")
        elif not work.is_relative_to(entry.resolve()):
            for file in sorted(entry.iterdir()):
                if file.is_file() and not _hidden(file.name):
                    yield _classify(file, f"{entry.name}/{file.name}")


def _classify(path: Path, label: str) -> _Found:
    if not path.is_file():
        return _Found(label, None, "is not a regular file")
    if path.suffix.lower() in image_file.SUFFIXES | image_file.HEIC_SUFFIXES:
        return _Found(label, path)
    return _Found(label, None, "is not a JPEG, PNG, WebP, TIFF or HEIC picture")


def _hidden(label: str) -> bool:
    """Leftovers of operating systems: not worth a word to the user."""
    parts = label.replace("\\", "/").split("/")
    hidden = any(p.startswith(".") and p not in (".", "..") for p in parts)
    return hidden or "__MACOSX" in parts or parts[-1] in ("Thumbs.db", "desktop.ini")


def _gather(
    found: list[_Found], folder: Path, masks: Path
) -> Generator[Event, None, tuple[list[_Ready], list[_Found]]]:
    """Checks every photo to its last byte and puts the sound ones into `folder`, under safe, unique names."""
    skipped = [f for f in found if f.path is None]
    photos = [f for f in found if f.path is not None]
    stems = _unique_stems([f.label for f in photos])

    def settle(job: tuple[_Found, str]) -> _Ready | _Found:
        photo, stem = job
        assert photo.path is not None
        try:
            return _settle(photo.path, folder, stem, masks)
        except CaptureError as error:
            return _Found(photo.label, None, str(error).removeprefix(f"{photo.path.name} "))

    ready: list[_Ready] = []
    results = ordered_map(settle, zip(photos, stems, strict=True))
    try:
        for done, result in enumerate(results, start=1):
            if isinstance(result, _Ready):
                ready.append(result)
            else:
                skipped.append(result)
            yield Progress(stage="photos", done=done, total=len(photos), unit="photos")
    finally:
        results.close()
    return sorted(ready, key=lambda r: r.name), skipped


def _unique_stems(labels: list[str]) -> list[str]:
    """Names without suffix that are safe on every file system and tell two photos apart, also where case is ignored."""
    stems: list[str] = []
    taken: set[str] = set()
    for label in labels:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", label.replace("\\", "/").rpartition(".")[0].replace("/", "__"))
        stem = plain.strip("._")[:100] or "photo"
        unique, number = stem, 2
        while unique.lower() in taken:
            unique, number = f"{stem}-{number}", number + 1
        taken.add(unique.lower())
        stems.append(unique)
    return stems


def _settle(source: Path, folder: Path, stem: str, masks: Path) -> _Ready:
    """Puts one photo, upright, into `folder` as `stem` plus suffix, and its mask, if it has one, into `masks`.

    Raises CaptureError if it is damaged, or its mask.
    """
    with image_file.open_photo(source) as picture:
        kind = picture.format or ""
        focal, gps, turned = exif.focal_pixels(picture), exif.place(picture), exif.turn(picture)
        if turned is None and _is_plain(picture):
            size = picture.size
            _check_all_bytes(picture, source.name)
            name = stem + (".png" if kind == "PNG" else ".jpg")
            _link(source, folder / name)
        else:
            upright = Image.fromarray(image_file.decode_pixels(picture, source.name))
            if turned is not None:  # a flip counts as 0
                upright = upright.transpose(turned)
            size = upright.size
            lossless = kind in ("PNG", "TIFF") or upright.mode == "RGBA"
            name = stem + (".png" if lossless else ".jpg")
            options: dict[str, Any] = {"compress_level": 3} if lossless else {"quality": JPEG_QUALITY, "subsampling": 0}
            upright.save(folder / name, **options)
    mask = _mask_of(source)
    if mask is not None:
        used = Image.fromarray(image_file.decode_mask(mask)[..., 0])
        (used if turned is None else used.transpose(turned)).save(masks / f"{name}.png")
    return _Ready(name, size, focal, gps, None if mask is None else f"{name}.png")


def _mask_of(photo: Path) -> Path | None:
    """The file of its mask: in a folder of masks inside the photo's own, or beside it."""
    for above in (photo.parent, photo.parent.parent):
        for folder in MASK_FOLDERS:
            for name in (f"{photo.name}.png", photo.name, f"{photo.stem}.png"):
                if (above / folder / name).is_file():
                    return above / folder / name
    return None


def _is_plain(picture: Image.Image) -> bool:
    """True for a file that every reader understands alike: 8-bit grey or RGB JPEG or PNG (PNG also with alpha)."""
    if picture.format in ("JPEG", "MPO"):
        return picture.mode in ("RGB", "L")
    return picture.format == "PNG" and picture.mode in ("RGB", "RGBA", "L")


def _check_all_bytes(picture: Image.Image, name: str) -> None:
    """Decodes the whole file once, a JPEG at an eighth of its size: cheap, and a truncated file still shows."""
    picture.draft("RGB", (max(1, picture.width // 8), max(1, picture.height // 8)))
    try:
        picture.load()
    except Exception as error:  # any decoder failure means one thing here
        raise CaptureError(f"{name} is damaged or truncated ({error})") from error


def _link(source: Path, target: Path) -> None:
    """The same bytes under a second name; a copy where links are not possible (file systems, permissions)."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _notes(skipped: list[_Found]) -> Iterator[Event]:
    for found in skipped[:SPOKEN_NOTES]:
        yield Note(text=f"left out: {found.label} {found.reason}", level="warning")
    if len(skipped) > SPOKEN_NOTES:
        yield Note(text=f"left out {len(skipped) - SPOKEN_NOTES} more files that are no usable photos", level="warning")


def _too_few(path: Path, count: int, skipped: list[_Found]) -> str:
    found = "no usable photo" if count == 0 else "only one usable photo"
    left_out = f" ({len(skipped)} left out, the first: {skipped[0].label} {skipped[0].reason})" if skipped else ""
    return f"{path} holds {found}{left_out}: give at least two, better 30 or more, overlapping photos of one place"
