"""The binary form of FBX 7.4: a tree of named nodes with typed values. There is no public specification; this layout
is what Autodesk's, Blender's and assimp's readers agree on.

A node is: u32 where it ends (bytes from the start of the file), u32 number of values, u32 bytes of values, u8 length of
the name, the name, the values, its children, and 13 zero bytes where children may end. A value is one letter for its
type and the value, little-endian; arrays are packed with zlib. The tree stands between a fixed start and a fixed end.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

VERSION = 7400
MOST_BYTES = 2**32 - 2**16  # 7.4 counts bytes with 32 bits; 7.5 has more, and fewer readers
START = b"Kaydara FBX Binary  \x00\x1a\x00" + struct.pack("<I", VERSION)
HEAD = struct.Struct("<IIIB")
LEVEL = 6  # of zlib

# Three values that a reader may check against each other; these belong together (they are those of many exporters).
FILE_ID = bytes.fromhex("28b32aebb624ccc2bfc8b02aa92bfcf1")
CREATED = "1970-01-01 10:00:00:000"
FOOT_ID = bytes.fromhex("fabcab09d0c8d466b176fb831cf7267e")
END = bytes.fromhex("f85a8c6adef5d97eece90ce3758f290b")

ARRAYS = {"f8": b"d", "f4": b"f", "i4": b"i", "i8": b"l"}


class Id(int):
    """The number of an object, which takes 64 bits; other numbers take 32."""


Value = bool | int | float | str | bytes | npt.NDArray[Any]


@dataclass(frozen=True)
class Node:
    """Values are told apart by their types: bool, int, Id, float, str, bytes (raw) and arrays."""

    name: str
    values: Sequence[Value] = ()
    children: Sequence[Node] = ()


def node(name: str, *values: Value, inside: Sequence[Node] = ()) -> Node:
    return Node(name, values, inside)


def write_document(stream: BinaryIO, nodes: Sequence[Node]) -> None:
    """A whole file, to a stream that stands at its start and can seek. Raises OverflowError beyond 4 GB."""
    stream.write(START)
    for each in nodes:
        _write(stream, each)
    stream.write(bytes(HEAD.size) + FOOT_ID + bytes(4))
    stream.write(bytes(16 - stream.tell() % 16) + struct.pack("<I", VERSION) + bytes(120) + END)


def _write(stream: BinaryIO, each: Node) -> None:
    """The head is known last: room is left for it, and the stream comes back to it."""
    start, name = stream.tell(), each.name.encode("ascii")
    stream.write(bytes(HEAD.size) + name)
    for value in each.values:
        for part in _parts(value):
            stream.write(part)
    size = stream.tell() - start - HEAD.size - len(name)
    for child in each.children:
        _write(stream, child)
    if each.children or not each.values:
        stream.write(bytes(HEAD.size))
    end = stream.tell()
    if end > MOST_BYTES:
        raise OverflowError("a file of FBX 7.4 holds less than 4 GB")
    stream.seek(start)
    stream.write(HEAD.pack(end, len(each.values), size, len(name)))
    stream.seek(end)


def _parts(value: Value) -> list[bytes]:
    match value:
        case bool():
            return [b"C", struct.pack("<B", value)]
        case Id():
            return [b"L", struct.pack("<q", value)]
        case int():
            return [b"I", struct.pack("<i", value)]
        case float():
            return [b"D", struct.pack("<d", value)]
        case str():
            text = value.encode(errors="replace")
            return [b"S", struct.pack("<I", len(text)), text]
        case bytes():
            return [b"R", struct.pack("<I", len(value)), value]
        case np.ndarray():
            packed = zlib.compress(value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes(), LEVEL)
            return [ARRAYS[value.dtype.str[1:]], struct.pack("<III", value.size, 1, len(packed)), packed]
