"""Binary FBX 7.4: a tree of named nodes with typed values.

There is no public specification; the readers of Autodesk, Blender and assimp agree on this layout. A node is: u32 end
(bytes from the start of the file), u32 number of values, u32 bytes of values, u8 length of the name, the name, the
values, its children, and 13 zero bytes if it can have children. A value is a letter for its type and the little-endian
value; arrays are compressed with zlib. A fixed header and a fixed footer enclose the tree.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

FBX_VERSION = 7400
FBX_MAX_BYTES = 2**32 - 2**16  # offsets have 32 bits; version 7.5 has 64, but fewer readers
FILE_HEADER = b"Kaydara FBX Binary  \x00\x1a\x00" + struct.pack("<I", FBX_VERSION)
NODE_HEADER = struct.Struct("<IIIB")
ZLIB_LEVEL = 6

# Readers may check these three values against each other. Many exporters write exactly this combination.
FILE_ID = bytes.fromhex("28b32aebb624ccc2bfc8b02aa92bfcf1")
CREATION_TIME = "1970-01-01 10:00:00:000"
FOOTER_ID = bytes.fromhex("fabcab09d0c8d466b176fb831cf7267e")
FOOTER_MAGIC = bytes.fromhex("f85a8c6adef5d97eece90ce3758f290b")

ARRAY_TYPES = {"f8": b"d", "f4": b"f", "i4": b"i", "i8": b"l"}


class Id(int):
    """Number of an object, stored in 64 bits; other integers take 32."""


Value = bool | int | float | str | bytes | npt.NDArray[Any]


@dataclass(frozen=True)
class Node:
    """One node. Types distinguish the values: bool, int, Id, float, str, bytes (raw) and arrays."""

    name: str
    values: Sequence[Value] = ()
    children: Sequence[Node] = ()


def make_node(name: str, *values: Value, children: Sequence[Node] = ()) -> Node:
    return Node(name, values, children)


def write_document(stream: BinaryIO, nodes: Sequence[Node]) -> None:
    """Write a complete file to a seekable stream at its start. Raises OverflowError beyond 4 GB."""
    stream.write(FILE_HEADER)
    for node in nodes:
        _write_node(stream, node)
    stream.write(bytes(NODE_HEADER.size) + FOOTER_ID + bytes(4))
    stream.write(bytes(16 - stream.tell() % 16) + struct.pack("<I", FBX_VERSION) + bytes(120) + FOOTER_MAGIC)


def _write_node(stream: BinaryIO, node: Node) -> None:
    """Write a node, then seek back to fill in its header, whose sizes are known last."""
    start, name = stream.tell(), node.name.encode("ascii")
    stream.write(bytes(NODE_HEADER.size) + name)
    for value in node.values:
        for part in _encode_value(value):
            stream.write(part)
    size = stream.tell() - start - NODE_HEADER.size - len(name)
    for child in node.children:
        _write_node(stream, child)
    if node.children or not node.values:
        stream.write(bytes(NODE_HEADER.size))
    end = stream.tell()
    if end > FBX_MAX_BYTES:
        raise OverflowError("a file of FBX 7.4 holds less than 4 GB")
    stream.seek(start)
    stream.write(NODE_HEADER.pack(end, len(node.values), size, len(name)))
    stream.seek(end)


def _encode_value(value: Value) -> list[bytes]:
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
            compressed = zlib.compress(value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes(), ZLIB_LEVEL)
            return [ARRAY_TYPES[value.dtype.str[1:]], struct.pack("<III", value.size, 1, len(compressed)), compressed]
