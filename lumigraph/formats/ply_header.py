"""Header of a PLY file, `ply` ... `end_header`.

It declares elements (tables) of named properties (columns). Their rows follow as text or as binary of either byte
order. Counts are checked against the remaining bytes, before memory is allocated for the rows.
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

PLY_HEADER_MAX_BYTES = 1 << 16  # the longest known splat header takes 2 kB

PLY_NUMBER_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
PLY_BYTE_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class Element:
    """A declared table: `columns` maps names to numpy type codes; `lists` names the columns of varying length."""

    name: str
    count: int
    columns: dict[str, str]
    lists: tuple[str, ...]
    line: int

    def row(self, byte_order: str) -> np.dtype[Any]:
        return np.dtype([(name, byte_order + code) for name, code in self.columns.items()])


@dataclass(frozen=True)
class Header:
    """Parsed header. `size` in bytes and `lines` include `end_header`."""

    encoding: str
    elements: tuple[Element, ...]
    comments: tuple[str, ...]
    size: int
    lines: int


def read_header(path: Path) -> Header:
    """Read the header with its comments (`SplatRenderMode: mip`, `Vertical axis: y`, ...). Raises FormatError."""
    with open_for_read(path) as stream:
        return parse_header(stream, path)


def parse_header(stream: BinaryIO, path: Path) -> Header:
    """Parse the header of an open file; leaves the position at the first row. Raises FormatError."""
    encoding = ""
    elements: list[Element] = []
    comments: list[str] = []
    size = 0
    for line, words in enumerate(_header_lines(stream, path), start=1):
        size = stream.tell()
        make_error = partial(_header_error, path, line)
        keyword = words[0] if words else ""
        if line == 1:
            if keyword != "ply":
                raise make_error("the first line of a PLY file must be 'ply'")
        elif keyword == "end_header":
            if not encoding:
                raise make_error("no 'format' line came before 'end_header'")
            return Header(encoding, tuple(elements), tuple(comments), size, line)
        elif keyword == "format":
            if len(words) != 3 or words[1] not in PLY_BYTE_ORDERS or words[2] != "1.0":
                raise make_error(f"unknown format {' '.join(words[1:])[:60]!r}")
            encoding = words[1]
        elif keyword in ("comment", "obj_info"):
            comments.append(" ".join(words[1:]))
        elif keyword == "element":
            if len(words) != 3 or not re.fullmatch("[0-9]{1,18}", words[2], re.ASCII):
                raise make_error("an element needs a name and a count")
            if any(words[1] == element.name for element in elements):
                raise make_error(f"element {words[1]!r} is declared twice")
            elements.append(Element(words[1], int(words[2]), {}, (), line))
        elif keyword == "property":
            if not elements:
                raise make_error("a property before any element")
            elements[-1] = _add_property(elements[-1], words, make_error)
        elif keyword:
            raise make_error(f"unknown keyword {keyword[:40]!r}")
    raise FormatError(f"{path}: byte {size}: the file ends inside its header; it was cut short, fetch it again")


def _header_error(path: Path, line: int, reason: str) -> FormatError:
    return FormatError(f"{path}: line {line} of the header: {reason}; the file is damaged or is not a PLY file")


def _add_property(element: Element, words: Sequence[str], make_error: Callable[[str], FormatError]) -> Element:
    is_list = len(words) == 5 and words[1] == "list" and words[2] in PLY_NUMBER_TYPES
    number_type, name = ("", "") if len(words) < 3 else words[-2:]
    if not (is_list or len(words) == 3) or number_type not in PLY_NUMBER_TYPES:
        raise make_error(f"cannot read the property {' '.join(words[1:])[:60]!r}")
    if name in element.columns or name in element.lists:
        raise make_error(f"property {name!r} is declared twice")
    if is_list:
        return Element(element.name, element.count, element.columns, (*element.lists, name), element.line)
    columns = {**element.columns, name: PLY_NUMBER_TYPES[number_type]}
    return Element(element.name, element.count, columns, element.lists, element.line)


def _header_lines(stream: BinaryIO, path: Path) -> Iterator[list[str]]:
    size = 0
    while text := stream.readline(PLY_HEADER_MAX_BYTES + 1):
        size += len(text)
        if size > PLY_HEADER_MAX_BYTES:
            raise FormatError(
                f"{path}: byte {PLY_HEADER_MAX_BYTES}: no 'end_header' so far; this is not a PLY file of points or"
                " splats"
            )
        if not text.endswith(b"\n"):
            return
        # latin-1 decodes every byte, so comments in any encoding are kept and no decoding error can occur.
        yield text.decode("latin-1").split()


def check_row_space(stream: BinaryIO, header: Header, element: Element, size: int, path: Path) -> None:
    """Raises FormatError unless the rows of `element` fit between the current position and the end of the file."""
    if header.encoding == "ascii":  # at least a digit and a space per value, or a line end
        min_bytes = element.count * max(1, 2 * (len(element.columns) + len(element.lists))) - 1
    elif element.lists:
        # Rows of varying length cannot be skipped at once; in practice they follow the vertices.
        raise FormatError(
            f"{path}: line {element.line} of the header: element {element.name!r} of lists precedes the"
            " vertices; save the file again with the vertices first"
        )
    else:
        min_bytes = element.count * element.row(PLY_BYTE_ORDERS[header.encoding]).itemsize
    if min_bytes > size - stream.tell():
        raise FormatError(
            f"{path}: byte {stream.tell()}: the header announces {element.count} rows of {element.name!r}, at least"
            f" {min_bytes} bytes, but {size - stream.tell()} remain; the file was cut short, fetch it again"
        )
