"""The points that accompany a capture: positions and colours out of a PLY file (Turk 1994), text or binary."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.captures.readers.assemble import LARGEST
from lumigraph.scene.assets import Points
from lumigraph.scene.errors import CaptureError

TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4"}
TYPES |= {"double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
TYPES |= {"float32": "f4", "float64": "f8"}
ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
MAX_HEADER_LINES = 200


def read(file: Path) -> Points:
    """The `vertex` element of a PLY, which must come first: x y z, and red green blue (0..255) where given.

    Raises CaptureError when the file is damaged, holds a list or says it has more vertices than bytes.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        encoding, count, properties = _header(stream, file)
        row = np.dtype([(name, ORDERS[encoding] + kind) for name, kind in properties])
        least = row.itemsize if encoding != "ascii" else 2 * len(properties)
        if count * least > size:
            raise CaptureError(f"{file} says it holds {count} points, more than its {size} bytes can hold")
        table = _text(stream, file, count, row) if encoding == "ascii" else _binary(stream, file, count, row)
    names = row.names or ()
    xyz = np.stack([table[axis].astype(np.float64) for axis in "xyz"], axis=1)
    good = (np.abs(xyz) < LARGEST).all(axis=1)  # false for NaN as well
    rgb = None
    if {"red", "green", "blue"} <= set(names) and all(row[c] == np.uint8 for c in ("red", "green", "blue")):
        rgb = torch.from_numpy(np.stack([table[c] for c in ("red", "green", "blue")], axis=1)[good])
    return Points(xyz=torch.from_numpy(xyz[good].astype(np.float32)), rgb=rgb)


def _header(stream: BinaryIO, file: Path) -> tuple[str, int, list[tuple[str, str]]]:
    """(encoding, vertex count, [(property, numpy type)]); leaves the stream at the first vertex."""
    encoding, count, properties, element = "", -1, [], ""
    for number in range(1, MAX_HEADER_LINES):
        words = stream.readline(1024).decode("ascii", "replace").split()
        match words:
            case ["ply"] if number == 1:
                pass
            case ["format", name, "1.0"] if name in ORDERS:
                encoding = name
            case ["element", "vertex", digits] if digits.isascii() and digits.isdigit() and len(digits) < 16:
                element, count = "vertex", int(digits)
            case ["element", name, _]:
                if count < 0:
                    raise CaptureError(f"{file} puts the element {name[:40]} before its points, which is not supported")
                element = name
            case ["property", kind, name] if kind in TYPES and element == "vertex":
                properties.append((name, TYPES[kind]))
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
        raise CaptureError(f"{file} ends after {len(data) // row.itemsize} of {count} points: it was cut off")
    return np.frombuffer(data, dtype=row, count=count)


def _text(stream: BinaryIO, file: Path, count: int, row: np.dtype[np.void]) -> NDArray[np.void]:
    table = np.zeros(count, dtype=row)
    for i in range(count):
        try:
            table[i] = tuple(float(word) for word in stream.readline(4096).split())
        except (ValueError, TypeError, OverflowError) as error:
            raise CaptureError(f"{file}: point {i} is not {len(row.names or ())} numbers") from error
    return table
