"""Binary STL for 3D printing: an 80-byte header, a count, and 50 bytes a triangle (normal, corners, two unused).

The format has no unit and no colours. Printing programs assume millimetres and z up; the header states both for human
readers. Corners are stored by value, so reading merges equal ones.
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
from lumigraph.formats.triangles import count_open_edges, merge_equal_rows
from lumigraph.scene.assets import Mesh
from lumigraph.scene.errors import FormatError

Array = npt.NDArray[Any]

NAME = "STL"
SUFFIXES = (".stl",)
HOLDS: tuple[type, ...] = (Mesh,)
UP = "+z"
METRES = None

TRIANGLE_ROW = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])
STL_HEADER_BYTES = 80
TRIANGLES_PER_WRITE = 1 << 16  # triangles in flight
VERTEX_PATTERN = re.compile(rb"\bvertex[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """Unit, and whether open surfaces are allowed.

    unit: length of one unit; printing programs expect millimetres
    allow_open: also write a surface with holes, which has no inside to print
    """

    unit: Literal["m", "cm", "mm"] = "mm"
    allow_open: bool = False


def write(asset: Mesh, path: Path, options: Options = Options()) -> None:
    """Write atomically. Raises FormatError for an open surface unless allowed, and on disk errors."""
    path = Path(path)
    if not isinstance(asset, Mesh):
        raise FormatError(f"{path}: STL holds meshes only; write points and gaussians as PLY or GLB")
    vertices = to_numpy(asset.vertices)
    check_finite(path, vertices=vertices)
    positions, indices = merge_equal_rows(vertices)
    faces = indices[to_numpy(asset.faces)]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]  # drop degenerate triangles
    if not len(faces) or len(faces) >= 2**32:
        raise FormatError(f"{path}: not written, because an STL holds 1 to 4 billion triangles, not {len(faces)}")
    if not options.allow_open and (holes := count_open_edges(faces, len(positions))):
        raise FormatError(
            f"{path}: not written, because {holes} of {3 * len(faces)} edges have no neighbour: the surface is"
            " not closed and has no inside to print; extract it closed, or allow it with the option allow_open"
        )
    with open_atomic(path) as file:
        file.write(f"Lumigraph, unit {options.unit}, z up".encode().ljust(STL_HEADER_BYTES))
        file.write(len(faces).to_bytes(4, "little"))
        for first in range(0, len(faces), TRIANGLES_PER_WRITE):
            rows = np.zeros(min(TRIANGLES_PER_WRITE, len(faces) - first), TRIANGLE_ROW)
            rows["corners"] = positions[faces[first : first + TRIANGLES_PER_WRITE]]
            rows["normal"] = _normals(rows["corners"].astype(np.float64))
            file.write(rows.data)


def _normals(corners: Array) -> Array:
    """(N, 3, 3) corners -> (N, 3) unit normals; zero for a triangle without area."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    unit_normals: Array = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    return unit_normals


def read(path: Path) -> Mesh:
    """Read binary or text STL. Peak memory: about five times the file. Raises FormatError."""
    path = Path(path)
    with open_for_read(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(STL_HEADER_BYTES + 4)
        count = int.from_bytes(head[STL_HEADER_BYTES:], "little")
        if len(head) == STL_HEADER_BYTES + 4 and size == STL_HEADER_BYTES + 4 + count * TRIANGLE_ROW.itemsize:
            rows = np.frombuffer(stream.read(), TRIANGLE_ROW)
            corners = rows["corners"].reshape(-1, 3)
        elif head.lstrip()[:5].lower() == b"solid":
            stream.seek(0)
            corners = _text_corners(stream, path)
        else:
            expected_size = STL_HEADER_BYTES + 4 + count * TRIANGLE_ROW.itemsize
            raise FormatError(
                f"{path}: byte {STL_HEADER_BYTES}: announces {count} triangles, {expected_size} bytes in all, but the"
                f" file has {size};"
                " it was cut short or is not an STL, fetch it again"
            )
    if not len(corners):
        raise FormatError(f"{path}: holds no triangles, so there is nothing to show")
    bad = ~np.isfinite(corners).all(axis=1)
    if bad.any():
        raise FormatError(f"{path}: triangle {int(bad.argmax()) // 3} holds NaN or infinity; repair it, as in MeshLab")
    positions, indices = merge_equal_rows(np.ascontiguousarray(corners))
    if len(positions) >= 2**31:
        raise FormatError(f"{path}: {len(positions)} corners are more than a mesh can hold; split it")
    return Mesh(to_tensor(positions), to_tensor(indices.reshape(-1, 3), np.int32))


def _text_corners(stream: BinaryIO, path: Path) -> Array:
    """(3 F, 3) float32 corners, from the lines `vertex x y z`."""
    numbers: list[Array] = []
    while block := stream.read(1 << 22) + stream.readline(1 << 16):
        words = [word for corner in VERTEX_PATTERN.findall(block) for word in corner]
        if block.lower().count(b"vertex") * 3 != len(words):
            raise FormatError(f"{path}: near byte {stream.tell()}: a 'vertex' without three numbers; fetch it again")
        try:
            with np.errstate(over="ignore"):  # an overflow becomes infinity, which `read` rejects
                numbers.append(np.array(list(map(float, words))).astype(np.float32))
        except ValueError as error:
            raise FormatError(f"{path}: near byte {stream.tell()}: not a number ({error}); fetch it again") from error
    flat = np.concatenate([np.zeros(0, np.float32), *numbers])
    if len(flat) % 9:
        raise FormatError(f"{path}: ends inside a triangle; it was cut short, fetch it again")
    return flat.reshape(-1, 3)
