"""Point clouds of a capture: positions and colours from a PLY file (Turk 1994), text or binary."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.captures.readers.assemble import MAX_COORDINATE
from lumigraph.scene.assets import Points
from lumigraph.scene.errors import CaptureError

PLY_TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4"}
PLY_TYPES |= {"double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
PLY_TYPES |= {"float32": "f4", "float64": "f8"}
BYTE_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
MAX_HEADER_LINES = 200


def read(file: Path) -> Points:
    """Read the `vertex` element, which must come first: x y z, and red green blue (0..255) if present.

    Raises CaptureError if the file is damaged, has list properties or promises more vertices than its bytes can hold.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        encoding, count, properties = _header(stream, file)
        row = np.dtype([(name, BYTE_ORDERS[encoding] + kind) for name, kind in properties])
        min_row_bytes = row.itemsize if encoding != "ascii" else 2 * len(properties)
        if count * min_row_bytes > size:
            raise CaptureError(f"{file} promises {count} points, more than its {size} bytes can hold")
        table = _text(stream, file, count, row) if encoding == "ascii" else _binary(stream, file, count, row)
    names = row.names or ()
    xyz = np.stack([table[axis].astype(np.float64) for axis in "xyz"], axis=1)
    is_valid = (np.abs(xyz) < MAX_COORDINATE).all(axis=1)  # false for NaN as well
    rgb = None
    if {"red", "green", "blue"} <= set(names) and all(row[c] == np.uint8 for c in ("red", "green", "blue")):
        rgb = torch.from_numpy(np.stack([table[c] for c in ("red", "green", "blue")], axis=1)[is_valid])
    return Points(xyz=torch.from_numpy(xyz[is_valid].astype(np.float32)), rgb=rgb)


def _header(stream: BinaryIO, file: Path) -> tuple[str, int, list[tuple[str, str]]]:
    """(encoding, vertex count, [(property, numpy type)]); the stream is then at the first vertex."""
    encoding, count, properties, element = "", -1, [], ""
    for number in range(1, MAX_HEADER_LINES):
        words = stream.readline(1024).decode("ascii", "replace").split()
        match words:
            case ["ply"] if number == 1:
                pass
            case ["format", name, "1.0"] if name in BYTE_ORDERS:
                encoding = name
            case ["element", "vertex", digits] if digits.isascii() and digits.isdigit() and len(digits) < 16:
                element, count = "vertex", int(digits)
            case ["element", name, _]:
                if count < 0:
                    raise CaptureError(f"{file} puts the element {name[:40]} before its points, which is not supported")
                element = name
            case ["property", kind, name] if kind in PLY_TYPES and element == "vertex":
                properties.append((name, PLY_TYPES[kind]))
            case ["property", *_] if element and element != "vertex":
                pass
            case ["comment" | "obj_info", *_]:
                pass
            case ["end_header"]:
                break
            case _:
                raise CaptureError(f"{file}, line {number}: this is not the header of a PLY file with points")
    names = [name for name, _ in properties]
    if not encoding or count < 0 or not {"x", "y", "z"} <= set(names) or len(set(names)) != len(names):
        raise CaptureError(f"{file} is not a PLY file with x, y and z for each point")
    return encoding, count, properties


def _binary(stream: BinaryIO, file: Path, count: int, row: np.dtype[np.void]) -> NDArray[np.void]:
    data = stream.read(count * row.itemsize)
    if len(data) < count * row.itemsize:
        raise CaptureError(f"{file} ends after {len(data) // row.itemsize} of {count} points: it is truncated")
    return np.frombuffer(data, dtype=row, count=count)


def _text(stream: BinaryIO, file: Path, count: int, row: np.dtype[np.void]) -> NDArray[np.void]:
    table = np.zeros(count, dtype=row)
    for i in range(count):
        try:
            table[i] = tuple(float(word) for word in stream.readline(4096).split())
        except (ValueError, TypeError, OverflowError) as error:
            raise CaptureError(f"{file}: point {i} is not {len(row.names or ())} numbers") from error
    return table
