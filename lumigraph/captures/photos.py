"""Import of photos: a folder or a zip becomes a folder of upright, intact images for structure from motion.

An upright 8-bit JPEG or PNG keeps its bytes (a hard link, or a copy across file systems). Other photos are re-encoded:
JPEG at quality 95 from lossy sources, PNG from lossless ones. Later stages need no EXIF: the PhotoSet has its camera
facts.
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
from lumigraph.captures.sfm.image_pairs import GpsPosition
from lumigraph.captures.thread_map import ordered_map
from lumigraph.scene.errors import CaptureError
from lumigraph.wire.events import Event, Note, Progress

JPEG_QUALITY = 95
MAX_PHOTOS = 10_000
MAX_NOTES = 5  # rejected files named one by one; the rest is a count
REDUCED_COPY = re.compile(r"images_\d+$")  # next to `images`: downscaled copies of the same photos
MASK_FOLDERS = ("masks", "mask")
NON_PHOTO_FOLDERS = frozenset({"mask", "masks", "depth", "depths", "normals", "segmentation", "thumbnails", "__macosx"})


@dataclass(frozen=True)
class PhotoSet:
    """Upright photos in `folder`, in name order; entry i of each tuple belongs to names[i]."""

    folder: Path
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]  # (width, height) pixels
    focal_px: tuple[float | None, ...]  # from EXIF, at this size; None where unknown
    gps: tuple[GpsPosition | None, ...]
    from_video: bool = False
    masks: tuple[Path | None, ...] = ()  # upright, black = ignored; empty if no photo has a mask

    def __post_init__(self) -> None:
        if self.masks and len(self.masks) != len(self.names):
            raise ValueError("every tuple of a PhotoSet needs one entry per name")
        if {len(self.sizes), len(self.focal_px), len(self.gps)} != {len(self.names)}:
            raise ValueError("every tuple of a PhotoSet needs one entry per name")

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class _Candidate:
    """A file that may be a photo, or a rejected one with its reason. `label`: its name for the user."""

    label: str
    path: Path | None
    reason: str = ""


@dataclass(frozen=True)
class _StoredPhoto:
    """An upright photo in the output folder."""

    name: str
    size: tuple[int, int]
    focal_px: float | None
    gps: GpsPosition | None
    mask: str | None = None  # file name in the folder of masks


def find_photos(path: Path, work: Path) -> Generator[Event, None, PhotoSet]:
    """Import the photos of `path`, a folder (and its direct sub-folders) or a zip, into `work`/photos.

    Masks are imported into `work`/masks. They are files in a folder `masks` or `mask` in or next to the photo's folder,
    with COLMAP's name (a.jpg.png for a.jpg) or the photo's.

    Yields Progress, and Notes about rejected files. Raises CaptureError if `path` is neither a folder nor a zip, if the
    archive exceeds a bound, or if fewer than two photos remain. No partial output remains.
    """
    work.mkdir(parents=True, exist_ok=True)
    photo_folder, mask_folder = work / "photos", work / "masks"
    tmp_photos = work / f"photos.tmp-{os.getpid()}"
    tmp_masks = work / f"masks.tmp-{os.getpid()}"
    unpack_folder = work / f"unpacked.tmp-{os.getpid()}"
    try:
        for folder in (tmp_photos, tmp_masks, unpack_folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        candidates = yield from _find_candidates(path, work, unpack_folder)
        photos, rejects = yield from _store_all(candidates, tmp_photos, tmp_masks)
        yield from _reject_notes(rejects)
        if len(photos) < 2:
            raise CaptureError(_too_few_photos(path, len(photos), rejects))
        shutil.rmtree(photo_folder, ignore_errors=True)
        tmp_photos.replace(photo_folder)
        shutil.rmtree(mask_folder, ignore_errors=True)
        if any(tmp_masks.iterdir()):
            tmp_masks.replace(mask_folder)
    finally:
        shutil.rmtree(tmp_photos, ignore_errors=True)
        shutil.rmtree(tmp_masks, ignore_errors=True)
        shutil.rmtree(unpack_folder, ignore_errors=True)
    return PhotoSet(
        folder=photo_folder,
        names=tuple(r.name for r in photos),
        sizes=tuple(r.size for r in photos),
        focal_px=tuple(r.focal_px for r in photos),
        gps=tuple(r.gps for r in photos),
        masks=tuple(mask_folder / r.mask if r.mask else None for r in photos) if any(r.mask for r in photos) else (),
    )


def _find_candidates(path: Path, work: Path, unpack_folder: Path) -> Generator[Event, None, list[_Candidate]]:
    if path.is_dir():
        candidates = list(_walk(path, work.resolve()))
    elif path.is_file() and path.suffix.lower() == ".zip":
        candidates = []
        for label, file, reason in archive.unpack(
            path, unpack_folder, image_file.IMAGE_SUFFIXES | image_file.HEIC_SUFFIXES
        ):
            if _is_hidden(label):
                continue
            candidates.append(_Candidate(label, file, reason))
            yield Progress(stage="unpack", done=len(candidates), total=None, unit="files")
    elif path.exists():
        raise CaptureError(f"{path} is neither a folder nor a zip of photos")
    else:
        raise CaptureError(f"{path} does not exist")
    if sum(f.path is not None for f in candidates) > MAX_PHOTOS:
        raise CaptureError(f"{path} holds more than {MAX_PHOTOS} photos: choose some of them")
    return candidates


def _walk(folder: Path, work: Path) -> Iterator[_Candidate]:
    """Yield the files of a folder and of its direct sub-folders, in name order, except our own `work` folder."""
    entries = sorted(p for p in folder.iterdir() if not _is_hidden(p.name))
    names = {p.name for p in entries}
    for entry in entries:
        if not entry.is_dir():
            yield _classify(entry, entry.name)
        elif "images" in names and REDUCED_COPY.match(entry.name):
            yield _Candidate(f"{entry.name}/", None, "holds reduced copies of images/")
        elif entry.name.lower() in NON_PHOTO_FOLDERS:
            yield _Candidate(f"{entry.name}/", None, "does not hold photos, by its name")
        elif not work.is_relative_to(entry.resolve()):
            for file in sorted(entry.iterdir()):
                if file.is_file() and not _is_hidden(file.name):
                    yield _classify(file, f"{entry.name}/{file.name}")


def _classify(path: Path, label: str) -> _Candidate:
    if not path.is_file():
        return _Candidate(label, None, "is not a regular file")
    if path.suffix.lower() in image_file.IMAGE_SUFFIXES | image_file.HEIC_SUFFIXES:
        return _Candidate(label, path)
    return _Candidate(label, None, "is not a JPEG, PNG, WebP, TIFF or HEIC image")


def _is_hidden(label: str) -> bool:
    """Return True for hidden files and leftovers of operating systems, which are not worth a note."""
    parts = label.replace("\\", "/").split("/")
    has_hidden_part = any(p.startswith(".") and p not in (".", "..") for p in parts)
    return has_hidden_part or "__MACOSX" in parts or parts[-1] in ("Thumbs.db", "desktop.ini")


def _store_all(
    candidates: list[_Candidate], folder: Path, mask_folder: Path
) -> Generator[Event, None, tuple[list[_StoredPhoto], list[_Candidate]]]:
    """Store every photo that decodes completely in `folder`, under a safe, unique name."""
    rejects = [f for f in candidates if f.path is None]
    files = [f for f in candidates if f.path is not None]
    stems = _unique_stems([f.label for f in files])

    def store(job: tuple[_Candidate, str]) -> _StoredPhoto | _Candidate:
        file, stem = job
        assert file.path is not None
        try:
            return _store_photo(file.path, folder, stem, mask_folder)
        except CaptureError as error:
            return _Candidate(file.label, None, str(error).removeprefix(f"{file.path.name} "))

    photos: list[_StoredPhoto] = []
    results = ordered_map(store, zip(files, stems, strict=True))
    try:
        for count, result in enumerate(results, start=1):
            if isinstance(result, _StoredPhoto):
                photos.append(result)
            else:
                rejects.append(result)
            yield Progress(stage="photos", done=count, total=len(files), unit="photos")
    finally:
        results.close()
    return sorted(photos, key=lambda r: r.name), rejects


def _unique_stems(labels: list[str]) -> list[str]:
    """File stems that are safe on every file system and unique, also if case is ignored."""
    stems: list[str] = []
    used_stems: set[str] = set()
    for label in labels:
        safe_label = re.sub(r"[^A-Za-z0-9._-]+", "_", label.replace("\\", "/").rpartition(".")[0].replace("/", "__"))
        stem = safe_label.strip("._")[:100] or "photo"
        unique, number = stem, 2
        while unique.lower() in used_stems:
            unique, number = f"{stem}-{number}", number + 1
        used_stems.add(unique.lower())
        stems.append(unique)
    return stems


def _store_photo(source: Path, folder: Path, stem: str, mask_folder: Path) -> _StoredPhoto:
    """Store one photo, upright, in `folder` as `stem` plus suffix, and its mask, if any, in `masks`.

    Raises CaptureError if the photo or its mask is damaged.
    """
    with image_file.open_photo(source) as image:
        file_format = image.format or ""
        focal, gps, transpose = exif.focal_px(image), exif.gps_position(image), exif.orientation_transpose(image)
        if transpose is None and _is_plain(image):
            size = image.size
            _check_all_bytes(image, source.name)
            name = stem + (".png" if file_format == "PNG" else ".jpg")
            _link(source, folder / name)
        else:
            upright = Image.fromarray(image_file.decode_pixels(image, source.name))
            if transpose is not None:  # FLIP_LEFT_RIGHT is 0, hence not a truth test
                upright = upright.transpose(transpose)
            size = upright.size
            lossless = file_format in ("PNG", "TIFF") or upright.mode == "RGBA"
            name = stem + (".png" if lossless else ".jpg")
            options: dict[str, Any] = {"compress_level": 3} if lossless else {"quality": JPEG_QUALITY, "subsampling": 0}
            upright.save(folder / name, **options)
    mask = _mask_of(source)
    if mask is not None:
        mask_image = Image.fromarray(image_file.decode_mask(mask)[..., 0])
        (mask_image if transpose is None else mask_image.transpose(transpose)).save(mask_folder / f"{name}.png")
    return _StoredPhoto(name, size, focal, gps, None if mask is None else f"{name}.png")


def _mask_of(photo: Path) -> Path | None:
    """Path of the photo's mask, in a folder of masks in or next to the photo's folder; None if it has none."""
    for above in (photo.parent, photo.parent.parent):
        for folder in MASK_FOLDERS:
            for name in (f"{photo.name}.png", photo.name, f"{photo.stem}.png"):
                if (above / folder / name).is_file():
                    return above / folder / name
    return None


def _is_plain(image: Image.Image) -> bool:
    """Return True for a file that needs no conversion: 8-bit grey or RGB JPEG or PNG (PNG also with alpha)."""
    if image.format in ("JPEG", "MPO"):
        return image.mode in ("RGB", "L")
    return image.format == "PNG" and image.mode in ("RGB", "RGBA", "L")


def _check_all_bytes(image: Image.Image, name: str) -> None:
    """Decode the whole file to find truncation; a JPEG at an eighth of its size, which is cheap."""
    image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
    try:
        image.load()
    except Exception as error:
        raise CaptureError(f"{name} is damaged or truncated ({error})") from error


def _link(source: Path, target: Path) -> None:
    """Hard-link a file; copy it where links are impossible (file systems, permissions)."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _reject_notes(rejects: list[_Candidate]) -> Iterator[Event]:
    for reject in rejects[:MAX_NOTES]:
        yield Note(text=f"left out: {reject.label} {reject.reason}", level="warning")
    if len(rejects) > MAX_NOTES:
        yield Note(text=f"left out {len(rejects) - MAX_NOTES} more files that are not usable photos", level="warning")


def _too_few_photos(path: Path, count: int, rejects: list[_Candidate]) -> str:
    content = "no usable photo" if count == 0 else "only one usable photo"
    left_out = f" ({len(rejects)} left out, the first: {rejects[0].label} {rejects[0].reason})" if rejects else ""
    return f"{path} holds {content}{left_out}: give at least two, better 30 or more, overlapping photos of one scene"
