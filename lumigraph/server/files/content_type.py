"""Is a file what its suffix says, and is its picture of a bearable size? Answered from its first bytes.

The server decodes nothing: that is the runner's work, in a process that may die. But what is plainly something else, or
a picture of a million megapixels, is refused before anybody opens it.
"""

from __future__ import annotations

import codecs
import os

from lumigraph.server.files.image_size import Read, size_of
from lumigraph.server.problems import Problem

HEAD = 64 << 10
HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"})
MOVIE_BOXES = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})  # old QuickTime files begin with these


def looks_like(head: bytes) -> str:
    """The kind of file that begins like this, by the word used for its suffixes in KINDS; '' if it is none of them."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"AVI "):
        return "WebP" if head[8:12] == b"WEBP" else "AVI"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[4:8] == b"ftyp":
        return "HEIF" if head[8:12] in HEIF_BRANDS else "MP4"
    if head[4:8] in MOVIE_BOXES:
        return "MP4"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "Matroska"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[:4] in (b"ply\n", b"ply\r"):
        return "PLY"
    if head[:6] == b"\x93NUMPY":
        return "NumPy"
    return ""


KINDS = {
    **dict.fromkeys(("jpg", "jpeg"), "JPEG"),
    "png": "PNG",
    "webp": "WebP",
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **dict.fromkeys(("heic", "heif"), "HEIF"),
    "zip": "zip",
    **dict.fromkeys(("mp4", "mov", "m4v"), "MP4"),
    **dict.fromkeys(("mkv", "webm"), "Matroska"),
    "avi": "AVI",
    "ply": "PLY",
    "npy": "NumPy",
}


def check(descriptor: int, suffix: str, pixels: int) -> None:
    """Raises Problem 415 where the open file is not what `suffix` says, 413 where its picture has over `pixels`."""

    def read(at: int, count: int) -> bytes:
        return os.pread(descriptor, count, at)

    check_head(read(0, HEAD), suffix)
    check_size(suffix, read, pixels)


def check_head(head: bytes, suffix: str) -> None:
    """Raises Problem 415 where a file that begins like this is not what `suffix` says. At least 16 bytes, or all."""
    found = looks_like(head)
    wanted = KINDS.get(suffix, "")
    if wanted and found != wanted:
        seems = f"it looks like {found}" if found else "it begins with other bytes"
        raise unlike(suffix, seems)
    if suffix in ("txt", "json") and not is_text(head):
        raise unlike(suffix, "it is not text in UTF-8")
    if suffix == "json" and head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] not in (b"{", b"["):
        raise unlike(suffix, "it begins with neither { nor [")


def check_size(suffix: str, read: Read, pixels: int) -> None:
    try:
        size = size_of(suffix, read)
    except (ValueError, OverflowError) as error:
        raise unlike(suffix, str(error)) from error
    if size is not None and size[0] * size[1] > pixels:
        raise Problem(
            413,
            "Too many pixels",
            f"The picture says that it has {size[0]} x {size[1]} pixels; at most {pixels:,} are taken.",
        )


def is_text(head: bytes) -> bool:
    """UTF-8 without NUL; a letter may be cut where the head ends."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return b"\0" not in head


def unlike(suffix: str, why: str) -> Problem:
    return Problem(415, "Not what its name says", f"The file is called .{suffix}, but {why}. It was not kept.")
