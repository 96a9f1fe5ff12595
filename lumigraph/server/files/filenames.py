"""Rules for the names of uploaded files.

A name has up to four parts: `photos/left/001.jpg`. The HTTP server has percent-decoded it once; it is not decoded
again. Parts with a special meaning on any system are rejected: parent folders, drives, devices, hidden files, control
characters. Names are normalized to Unicode NFC, so that macOS and Windows clients produce the same name.
"""

from __future__ import annotations

import re
import unicodedata

from lumigraph.server.problems import Problem

MAX_PARTS = 4
MAX_PART_BYTES = 120
IMAGES = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "heic", "heif")
ARCHIVES = ("zip",)
VIDEOS = ("mp4", "mov", "m4v", "mkv", "webm", "avi")
CAPTURES = ("json", "txt", "bin", "ply", "npy")  # posed captures: COLMAP's files, transforms.json, poses_bounds.npy
SUFFIXES = (*IMAGES, *ARCHIVES, *VIDEOS, *CAPTURES)

FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"\\|?*]')
DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})  # controls, right-to-left marks, surrogates

Parts = tuple[str, ...]


def parts_of(name: str) -> Parts:
    """Split a name into its parts. Raises Problem 422 with the reason if the name is not allowed."""
    if len(name) > MAX_PARTS * (MAX_PART_BYTES + 1):
        raise name_problem("it is too long")
    parts = tuple(unicodedata.normalize("NFC", name).split("/"))
    if len(parts) > MAX_PARTS:
        raise name_problem(f"it has more than {MAX_PARTS} parts")
    for part in parts:
        if reason := part_error(part):
            raise name_problem(reason)
    return parts


def part_error(part: str) -> str:
    """The reason why a part of a name is not allowed; empty if it is."""
    if not part:
        return "a part of it is empty"
    if FORBIDDEN.search(part) or any(unicodedata.category(sign) in INVISIBLE for sign in part):
        return 'a part of it has a forbidden character: \\ : < > " | ? * or an invisible one'
    if len(part.encode()) > MAX_PART_BYTES:
        return f"a part of it is longer than {MAX_PART_BYTES} bytes"
    if part.startswith("."):
        return "a part of it begins with a dot"
    if part[-1] in ". " or part[0] == " ":
        return "a part of it begins or ends with a space, or ends with a dot"
    if DEVICE.fullmatch(part.split(".")[0].rstrip(" ")):
        return "a part of it is the name of a device on some systems"
    return ""


def name_problem(reason: str) -> Problem:
    detail = f"The name is not accepted: {reason}."
    return Problem(422, "Name not accepted", detail, errors=[{"where": "path", "path": "$.name", "detail": reason}])


def suffix_of(parts: Parts) -> str:
    """'jpg' for photos/001.JPG. Raises Problem 415 if the suffix is not one of SUFFIXES."""
    stem, dot, suffix = parts[-1].rpartition(".")
    if not (stem and dot and suffix.lower() in SUFFIXES):
        raise Problem(
            415, "Kind of file not accepted", f"Accepted suffixes: {', '.join(SUFFIXES)}.", accepted=list(SUFFIXES)
        )
    return suffix.lower()


def collision_key(part: str) -> str:
    """A key that is equal for names that some file system treats as the same."""
    return part.lower() if part.isascii() else unicodedata.normalize("NFC", part.casefold())
