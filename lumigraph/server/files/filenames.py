"""Names that users give to files: what is taken, and what is not.

A name is a label of up to four parts, `photos/left/001.jpg`. It has been percent-decoded once, by the HTTP server, and
is not decoded again. Whatever could mean more than itself on some system is refused: parents, drives, devices, hidden
files, control characters. Names are brought to Unicode's composed form (NFC), so that a Mac and a PC mean the same.
"""

from __future__ import annotations

import re
import unicodedata

from lumigraph.server.problems import Problem

PARTS = 4
PART_BYTES = 120
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
    """The parts of a sound name. Raises Problem 422 that says what is wrong with any other."""
    if len(name) > PARTS * (PART_BYTES + 1):
        raise refused("it is too long")
    parts = tuple(unicodedata.normalize("NFC", name).split("/"))
    if len(parts) > PARTS:
        raise refused(f"it has more than {PARTS} parts")
    for part in parts:
        if wrong := fault(part):
            raise refused(wrong)
    return parts


def fault(part: str) -> str:
    """What is wrong with one part of a name; empty where nothing is."""
    if not part:
        return "a part of it is empty"
    if FORBIDDEN.search(part) or any(unicodedata.category(sign) in INVISIBLE for sign in part):
        return 'a part of it has a character that is not taken: \\ : < > " | ? * or one that cannot be seen'
    if len(part.encode()) > PART_BYTES:
        return f"a part of it is longer than {PART_BYTES} bytes"
    if part.startswith("."):
        return "a part of it begins with a dot"
    if part[-1] in ". " or part[0] == " ":
        return "a part of it begins or ends with a space, or ends with a dot"
    if DEVICE.fullmatch(part.split(".")[0].rstrip(" ")):
        return "a part of it is the name of a device on some systems"
    return ""


def refused(why: str) -> Problem:
    detail = f"The name is not taken: {why}."
    return Problem(422, "Name not accepted", detail, errors=[{"where": "path", "path": "$.name", "detail": why}])


def suffix_of(parts: Parts) -> str:
    """'jpg' of photos/001.JPG. Raises Problem 415, naming what is taken, where it is not one of SUFFIXES."""
    stem, dot, suffix = parts[-1].rpartition(".")
    if not (stem and dot and suffix.lower() in SUFFIXES):
        raise Problem(415, "Kind of file not accepted", f"Taken are: {', '.join(SUFFIXES)}.", accepted=list(SUFFIXES))
    return suffix.lower()


def key(part: str) -> str:
    """Equal for names that some file system would take for the same."""
    return part.lower() if part.isascii() else unicodedata.normalize("NFC", part.casefold())
