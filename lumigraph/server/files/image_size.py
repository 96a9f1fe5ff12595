"""Image sizes, read from the headers of files without decoding them.

The parsers take a function `read(at, count)` that returns up to `count` bytes from byte `at`. Each parser reads a few
bytes at a bounded number of offsets, so a malicious file costs no more than a valid one. Raises ValueError if the
header holds no size.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

ReadAt = Callable[[int, int], bytes]
Size = tuple[int, int]  # width, height

MAX_HEADER_STEPS = 4096  # segments of a JPEG, boxes of a HEIC, entries of a TIFF
MAX_TIFF_PAGES = 64
SOF_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


def size_of(suffix: str, read: ReadAt) -> Size | None:
    """(width, height) of an image; None if files with this suffix are not images."""
    parser = PARSERS.get(suffix)
    if parser is None:
        return None
    try:
        width, height = parser(read)
    except (struct.error, IndexError) as error:
        raise ValueError("the header ends too early") from error
    if width < 1 or height < 1:
        raise ValueError("the header gives no size")
    return width, height


def png(read: ReadAt) -> Size:
    head = read(0, 24)
    if head[12:16] != b"IHDR":
        raise ValueError("the first chunk is not IHDR")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def jpeg(read: ReadAt) -> Size:
    """The largest of all frame headers before the pixels: decoders disagree about which one counts."""
    at, largest = 2, (0, 0)
    for _ in range(MAX_HEADER_STEPS):
        head = read(at, 9)
        if len(head) < 4 or head[0] != 0xFF:
            break
        marker = head[1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in BARE_MARKERS:
            at += 2
        elif marker in (0xD9, 0xDA):
            break
        else:
            if marker in SOF_MARKERS:
                height, width = struct.unpack(">HH", head[5:9])
                largest = max(largest, (width, height), key=lambda size: size[0] * size[1])
            length = int.from_bytes(head[2:4], "big")
            if length < 2:
                raise ValueError("a segment without a length")
            at += 2 + length
    return largest


def webp(read: ReadAt) -> Size:
    head = read(0, 30)
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("an unknown kind of WebP")


def tiff(read: ReadAt) -> Size:
    """The largest of the first pages."""
    head = read(0, 16)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack(order + "H", head[2:4])[0] == 43
    (at,) = struct.unpack(order + ("Q" if big else "I"), head[8:16] if big else head[4:8])
    largest, pages = (0, 0), 0
    while at and pages < MAX_TIFF_PAGES:
        pages += 1
        (count,) = struct.unpack(order + ("Q" if big else "H"), read(at, 8 if big else 2))
        start = at + (8 if big else 2)
        step = 20 if big else 12
        if count > MAX_HEADER_STEPS:
            raise ValueError("too many entries")
        entries = read(start, count * step)
        size = {256: 0, 257: 0}
        for i in range(0, len(entries) - step + 1, step):
            tag, kind = struct.unpack(order + "HH", entries[i : i + 4])
            if tag in size:
                number_format = {3: "H", 4: "I", 16: "Q"}.get(kind)
                if number_format is None:
                    raise ValueError("a size that is not a number")
                value = entries[i + (12 if big else 8) : i + step]
                (size[tag],) = struct.unpack_from(order + number_format, value)
        largest = max(largest, (size[256], size[257]), key=lambda page: page[0] * page[1])
        next_offset = read(start + count * step, 8 if big else 4)
        (at,) = struct.unpack(order + ("Q" if big else "I"), next_offset)
    return largest


def heif(read: ReadAt) -> Size:
    """The largest size of the coded images and their grids: all are in `ispe` boxes of meta/iprp/ipco."""
    start, end = 0, None
    for kind, skip in ((b"meta", 4), (b"iprp", 0), (b"ipco", 0)):
        box = next(boxes(read, start, end, kind), None)
        if box is None:
            raise ValueError(f"no box {kind.decode()!r}")
        start, end = box[0] + skip, box[1]
    sizes = [(0, 0)]
    for ispe, _ in boxes(read, start, end, b"ispe"):
        width, height = struct.unpack(">II", read(ispe + 4, 8))
        sizes.append((width, height))
    return max(sizes, key=lambda size: size[0] * size[1])


def boxes(read: ReadAt, at: int, end: int | None, kind: bytes) -> Iterator[tuple[int, int | None]]:
    """(first byte, end) of the contents of each box of type `kind` from `at` to `end`."""
    for _ in range(MAX_HEADER_STEPS):
        head = read(at, 16)
        if len(head) < 8 or (end is not None and at >= end):
            return
        length, start = int.from_bytes(head[:4], "big"), at + 8
        if length == 1:
            length, start = int.from_bytes(head[8:16], "big"), at + 16
        if head[4:8] == kind:
            yield start, (at + length if length else end)
        if length < start - at:  # 0: to the end of the file
            return
        at += length


PARSERS: dict[str, Callable[[ReadAt], Size]] = {
    "png": png,
    "jpg": jpeg,
    "jpeg": jpeg,
    "webp": webp,
    "tif": tiff,
    "tiff": tiff,
    "heic": heif,
    "heif": heif,
}
