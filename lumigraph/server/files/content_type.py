"""Checks of uploaded files: magic bytes that match the suffix, and a limit on the number of pixels.

The server decodes no file: workers do, in processes that may crash. It rejects files of another type, and images with
too many pixels, by their first bytes.
"""

from __future__ import annotations

import codecs
import os

from lumigraph.server.files.image_size import ReadAt, size_of
from lumigraph.server.problems import Problem

HEAD_BYTES = 64 << 10
HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"})
MOVIE_BOXES = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})  # old QuickTime files begin with these


def detect_type(head: bytes) -> str:
    """The type of a file by its magic bytes, as named in FILE_TYPES; '' if unknown."""
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


FILE_TYPES = {
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
    """Raises Problem 415 if the open file does not match `suffix`, 413 if its image has more than `pixels` pixels."""

    def read(at: int, count: int) -> bytes:
        return os.pread(descriptor, count, at)

    check_head(read(0, HEAD_BYTES), suffix)
    check_size(suffix, read, pixels)


def check_head(head: bytes, suffix: str) -> None:
    """Raises Problem 415 if the first bytes of a file do not match `suffix`. Needs 16 bytes or the whole file."""
    file_type = detect_type(head)
    expected = FILE_TYPES.get(suffix, "")
    if expected and file_type != expected:
        reason = f"it looks like {file_type}" if file_type else "it begins with other bytes"
        raise mismatch(suffix, reason)
    if suffix in ("txt", "json") and not is_text(head):
        raise mismatch(suffix, "it is not text in UTF-8")
    if suffix == "json" and head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] not in (b"{", b"["):
        raise mismatch(suffix, "it begins with neither { nor [")


def check_size(suffix: str, read: ReadAt, pixels: int) -> None:
    try:
        size = size_of(suffix, read)
    except (ValueError, OverflowError) as error:
        raise mismatch(suffix, str(error)) from error
    if size is not None and size[0] * size[1] > pixels:
        raise Problem(
            413,
            "Too many pixels",
            f"The image has {size[0]} x {size[1]} pixels by its header; at most {pixels:,} are accepted.",
        )


def is_text(head: bytes) -> bool:
    """Whether the bytes are UTF-8 without NUL. The last character may be incomplete."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return b"\0" not in head


def mismatch(suffix: str, reason: str) -> Problem:
    return Problem(415, "Not what its name says", f"The file is called .{suffix}, but {reason}. It was not stored.")
