"""Binary STL, for 3D printing: an 80-byte header, a count, and fifty bytes a triangle (normal, corners, two unused).

The format knows neither unit nor colour. Printing programs take the numbers for millimetres, and z for up; both are
said in the header, which only people read. Corners are stored by value, so that reading joins those that are equal.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from lumigraph.formats.io import check_finite, open_atomic, open_for_read, to_numpy, to_tensor
from lumigraph.formats.triangles import joined, open_edges
from lumigraph.scene.assets import Mesh
from lumigraph.scene.errors import FormatError

Array = npt.NDArray[Any]

NAME = "STL"
SUFFIXES = (".stl",)
HOLDS: tuple[type, ...] = (Mesh,)
UP = "+z"
METRES = None

TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])
HEADER = 80
CHUNK = 1 << 16  # triangles in flight
CORNER = re.compile(rb"\bvertex[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """How a mesh is put into STL.

    unit: what one unit of the coordinates is; printing programs expect millimetres
    allow_open: write a surface with holes as well, which has no inside to print
    """

    unit: Literal["m", "cm", "mm"] = "mm"
    allow_open: bool = False


def write(asset: Mesh, path: Path, options: Options = Options()) -> None:
    """Raises FormatError for a surface that is not closed, unless that is allowed, and when the disk refuses."""
    path = Path(path)
    if not isinstance(asset, Mesh):
        raise FormatError(f"{path}: STL holds meshes only; write points and gaussians as PLY or GLB")
    vertices = to_numpy(asset.vertices)
    check_finite(path, vertices=vertices)
    places, number = joined(vertices)
    faces = number[to_numpy(asset.faces)]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]  # a triangle on a line has no side to print
    if not len(faces) or len(faces) >= 2**32:
        raise FormatError(f"{path}: not written, because an STL holds 1 to 4 billion triangles, not {len(faces)}")
    if not options.allow_open and (holes := open_edges(faces, len(places))):
        raise FormatError(
            f"{path}: not written, because {holes} of {3 * len(faces)} edges have no neighbour: the surface is"
            " not closed and has no inside to print; extract it closed, or allow it with the option allow_open"
        )
    with open_atomic(path) as file:
        file.write(f"Lumigraph, unit {options.unit}, z up".encode().ljust(HEADER))
        file.write(len(faces).to_bytes(4, "little"))
        for first in range(0, len(faces), CHUNK):
            rows = np.zeros(min(CHUNK, len(faces) - first), TRIANGLE)
            rows["corners"] = places[faces[first : first + CHUNK]]
            rows["normal"] = _normals(rows["corners"].astype(np.float64))
            file.write(rows.data)


def _normals(corners: Array) -> Array:
    """(N, 3, 3) to unit (N, 3); zero where a triangle has no area."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    unit: Array = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    return unit


def read(path: Path) -> Mesh:
    """Binary or text. Raises FormatError, naming what is wrong. Peak memory: some five times the file."""
    path = Path(path)
    with open_for_read(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(HEADER + 4)
        count = int.from_bytes(head[HEADER:], "little")
        if len(head) == HEADER + 4 and size == HEADER + 4 + count * TRIANGLE.itemsize:
            rows = np.frombuffer(stream.read(), TRIANGLE)
            corners = rows["corners"].reshape(-1, 3)
        elif head.lstrip()[:5].lower() == b"solid":
            stream.seek(0)
            corners = _text_corners(stream, path)
        else:
            wanted = HEADER + 4 + count * TRIANGLE.itemsize
            raise FormatError(
                f"{path}: byte {HEADER}: announces {count} triangles, {wanted} bytes in all, but the file has {size};"
                " it was cut short or is no STL, fetch it again"
            )
    if not len(corners):
        raise FormatError(f"{path}: holds no triangles, so there is nothing to show")
    bad = ~np.isfinite(corners).all(axis=1)
    if bad.any():
        raise FormatError(f"{path}: triangle {int(bad.argmax()) // 3} holds NaN or infinity; repair it, as in MeshLab")
    places, number = joined(np.ascontiguousarray(corners))
    if len(places) >= 2**31:
        raise FormatError(f"{path}: {len(places)} corners are more than a mesh can have; split it")
    return Mesh(to_tensor(places), to_tensor(number.reshape(-1, 3), np.int32))


def _text_corners(stream: BinaryIO, path: Path) -> Array:
    """(3 F, 3) float32 of the lines `vertex x y z`."""
    numbers: list[Array] = []
    while block := stream.read(1 << 22) + stream.readline(1 << 16):
        words = [word for corner in CORNER.findall(block) for word in corner]
        if block.lower().count(b"vertex") * 3 != len(words):
            raise FormatError(f"{path}: near byte {stream.tell()}: a 'vertex' without three numbers; fetch it again")
        try:
            with np.errstate(over="ignore"):  # what is too large becomes infinity, and is refused as such
                numbers.append(np.array(list(map(float, words))).astype(np.float32))
        except ValueError as error:
            raise FormatError(f"{path}: near byte {stream.tell()}: no number ({error}); fetch it again") from error
    flat = np.concatenate([np.zeros(0, np.float32), *numbers])
    if len(flat) % 9:
        raise FormatError(f"{path}: ends inside a triangle; it was cut short, fetch it again")
    return flat.reshape(-1, 3)
