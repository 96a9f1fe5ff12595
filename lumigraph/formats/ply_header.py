"""The text in front of every PLY file, `ply` ... `end_header`, and whether what it announces can be there.

It declares elements (tables) of named properties (columns) whose rows follow, in text or in binary of either byte
order. Counts are compared with the bytes that remain here, before anybody takes memory for the rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lumigraph.formats.io import open_for_read
from lumigraph.scene.errors import FormatError

HEADER_LIMIT = 1 << 16  # bytes; the widest splat header in the wild takes 2 kB

NUMBER_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
BYTE_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class Element:
    """One declared table: `columns` maps a name to a numpy type code; `lists` names the columns of varying length."""

    name: str
    count: int
    columns: dict[str, str]
    lists: tuple[str, ...]
    line: int

    def row(self, byte_order: str) -> np.dtype[Any]:
        return np.dtype([(name, byte_order + code) for name, code in self.columns.items()])


@dataclass(frozen=True)
class Header:
    """What the text before the rows says. `size` is in bytes and `lines` in lines, both including `end_header`."""

    encoding: str
    elements: tuple[Element, ...]
    comments: tuple[str, ...]
    size: int
    lines: int


def read_header(path: Path) -> Header:
    """The declared tables and the comments (`SplatRenderMode: mip`, `Vertical axis: y`, ...). Raises FormatError."""
    with open_for_read(path) as stream:
        return parse_header(stream, path)


def parse_header(stream: BinaryIO, path: Path) -> Header:
    """As `read_header`, of an open file, which is left standing behind the header."""
    encoding = ""
    elements: list[Element] = []
    comments: list[str] = []
    size = 0
    for line, words in enumerate(_header_lines(stream, path), start=1):
        size = stream.tell()
        wrong = partial(_wrong, path, line)
        keyword = words[0] if words else ""
        if line == 1:
            if keyword != "ply":
                raise wrong("the first line of a PLY file must be 'ply'")
        elif keyword == "end_header":
            if not encoding:
                raise wrong("no 'format' line came before 'end_header'")
            return Header(encoding, tuple(elements), tuple(comments), size, line)
        elif keyword == "format":
            if len(words) != 3 or words[1] not in BYTE_ORDERS or words[2] != "1.0":
                raise wrong(f"unknown format {' '.join(words[1:])[:60]!r}")
            encoding = words[1]
        elif keyword in ("comment", "obj_info"):
            comments.append(" ".join(words[1:]))
        elif keyword == "element":
            if len(words) != 3 or not re.fullmatch("[0-9]{1,18}", words[2], re.ASCII):
                raise wrong("an element needs a name and a count")
            if any(words[1] == other.name for other in elements):
                raise wrong(f"element {words[1]!r} is declared twice")
            elements.append(Element(words[1], int(words[2]), {}, (), line))
        elif keyword == "property":
            if not elements:
                raise wrong("a property before any element")
            elements[-1] = _with_property(elements[-1], words, wrong)
        elif keyword:
            raise wrong(f"unknown keyword {keyword[:40]!r}")
    raise FormatError(f"{path}: byte {size}: the file ends inside its header; it was cut short, fetch it again")


def _wrong(path: Path, line: int, what: str) -> FormatError:
    return FormatError(f"{path}: line {line} of the header: {what}; the file is damaged or is no PLY file")


def _with_property(element: Element, words: Sequence[str], wrong: Callable[[str], FormatError]) -> Element:
    is_list = len(words) == 5 and words[1] == "list" and words[2] in NUMBER_TYPES
    kind, name = ("", "") if len(words) < 3 else words[-2:]
    if not (is_list or len(words) == 3) or kind not in NUMBER_TYPES:
        raise wrong(f"cannot read the property {' '.join(words[1:])[:60]!r}")
    if name in element.columns or name in element.lists:
        raise wrong(f"property {name!r} is declared twice")
    if is_list:
        return Element(element.name, element.count, element.columns, (*element.lists, name), element.line)
    columns = {**element.columns, name: NUMBER_TYPES[kind]}
    return Element(element.name, element.count, columns, element.lists, element.line)


def _header_lines(stream: BinaryIO, path: Path) -> Iterator[list[str]]:
    size = 0
    while text := stream.readline(HEADER_LIMIT + 1):
        size += len(text)
        if size > HEADER_LIMIT:
            raise FormatError(
                f"{path}: byte {HEADER_LIMIT}: no 'end_header' so far; this is no PLY file of points or splats"
            )
        if not text.endswith(b"\n"):
            return
        # latin-1 maps every byte to a character: a comment in any encoding is kept, and nothing can fail to decode.
        yield text.decode("latin-1").split()


def check_room(stream: BinaryIO, header: Header, element: Element, size: int, path: Path) -> None:
    """FormatError unless the rows of `element` can lie between here and the end of the file."""
    if header.encoding == "ascii":  # a digit and a blank a value, or at least a line end
        least = element.count * max(1, 2 * (len(element.columns) + len(element.lists))) - 1
    elif element.lists:
        # Rows of varying length can only be walked one by one; nobody writes them before the vertices.
        raise FormatError(
            f"{path}: line {element.line} of the header: element {element.name!r} of lists stands before the"
            " vertices; save the file again with the vertices first"
        )
    else:
        least = element.count * element.row(BYTE_ORDERS[header.encoding]).itemsize
    if least > size - stream.tell():
        raise FormatError(
            f"{path}: byte {stream.tell()}: the header announces {element.count} rows of {element.name!r}, at least"
            f" {least} bytes, but {size - stream.tell()} remain; the file was cut short, fetch it again"
        )
