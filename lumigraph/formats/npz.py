"""Voxels as NumPy arrays (`.npz`), stored without compression and without pickle: `numpy.load` opens it.

The centre of voxel (i, j, k) lies at origin + voxel * axes @ (i, j, k): right-handed, z up, metres. In every file:

* origin (3,), axes (3, 3), voxel (), truncation (): float64; column a of axes is the direction of index a
* shape (3,) int64: voxels along each axis

and of the layout `dense`, indexed [i, j, k]:

* distance (i, j, k) float32: to the surface, positive outside, never beyond the truncation; where nothing is known of
  one, it is the truncation
* color (i, j, k, 3) uint8: sRGB; and known (i, j, k) bool: whether there is a surface near

or of the layout `sparse`, a row for each voxel near the surface: index (N, 3) int32, distance (N,), color (N, 3).
"""

from __future__ import annotations

import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lumigraph.formats.io import Array, check_finite, open_atomic, open_for_read, to_numpy, to_tensor
from lumigraph.scene.assets import VoxelGrid, Voxels
from lumigraph.scene.errors import FormatError

NAME = "NumPy voxels"
SUFFIXES = (".npz",)
HOLDS: tuple[type, ...] = (Voxels,)
UP = "+z"
METRES = 1.0

MOST = 1 << 27  # voxels of a dense grid: a gigabyte
HEADER_LIMIT = 10_000  # bytes
UNSEEN = 128  # grey, of voxels whose colour nobody knows
TYPES = {"index": "i4", "distance": "f4", "color": "u1", "known": "b1", "shape": "i8"}  # all others are f8


@dataclass(frozen=True)
class Options:
    """How the grid is stored.

    layout: dense is a value for every voxel, ready for a network or a viewer; sparse has only those near the surface
    """

    layout: Literal["dense", "sparse"] = "dense"


# --- writing ---------------------------------------------------------------------------------------------------------


def write(asset: Voxels, path: Path, options: Options = Options()) -> None:
    """Whole or not at all. Raises FormatError, before memory is taken for a grid that is too large."""
    path = Path(path)
    if not isinstance(asset, Voxels):
        raise FormatError(f"{path}: .npz holds voxels; write points, meshes or gaussians as .ply or .glb")
    grid, size = asset.grid, math.prod(asset.grid.shape)
    if options.layout == "dense" and size > MOST:
        shape = " x ".join(map(str, grid.shape))
        raise FormatError(
            f"{path}: a dense grid of {shape} voxels takes {8 * size / 1e9:.1f} GB, where {8 * MOST / 1e9:.1f} can be"
            " written; ask for a lower resolution, or the layout sparse"
        )
    check_finite(path, voxels=to_numpy(asset.xyz), distances=to_numpy(asset.distance))
    index, distance = to_numpy(asset.index), to_numpy(asset.distance)
    if len(index) and (index.min() < 0 or (index >= np.array(grid.shape)).any()):
        raise FormatError(f"{path}: not written, because some voxels do not lie on the grid")
    color = np.full((len(index), 3), UNSEEN, np.uint8) if asset.rgb is None else to_numpy(asset.rgb)
    columns: dict[str, Array] = {
        "origin": to_numpy(grid.origin),
        "axes": to_numpy(grid.axes).round(6) + 0.0,  # turned there and back, no zero stays one; no -0
        "voxel": np.array(grid.voxel),
        "truncation": np.array(grid.truncation),
        "shape": np.array(grid.shape, np.int64),
    }
    if options.layout == "dense":
        columns |= _dense(index, distance, color, grid)
    else:
        columns |= {"index": index.astype(np.int32), "distance": distance, "color": color}
    with open_atomic(path) as stream, zipfile.ZipFile(stream, "w") as bundle:
        for name, values in columns.items():
            with bundle.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:  # dated 1980
                np.lib.format.write_array(entry, np.asarray(values, order="C"), allow_pickle=False)


def _dense(index: Array, distance: Array, color: Array, grid: VoxelGrid) -> dict[str, Array]:
    where = tuple(index.T)
    values: dict[str, Array] = {
        "distance": np.full(grid.shape, grid.truncation, np.float32),
        "color": np.zeros((*grid.shape, 3), np.uint8),
        "known": np.zeros(grid.shape, bool),
    }
    values["distance"][where], values["color"][where], values["known"][where] = distance, color, True
    return values


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> Voxels:
    """A file of this layout, in memory of a few times its size. Raises FormatError for any other."""
    path = Path(path)
    with open_for_read(path) as stream:
        try:
            with zipfile.ZipFile(stream) as bundle:
                return _voxels(_Arrays(path, bundle, os.fstat(stream.fileno()).st_size))
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
            raise FormatError(f"{path}: cannot be read as the zip that .npz is ({error}); fetch it again") from error


def _voxels(arrays: _Arrays) -> Voxels:
    if "distance.npy" not in arrays.names:
        raise FormatError(f"{arrays.path}: holds no distances of voxels; only files that Lumigraph wrote are read")
    shape = arrays.of("shape", (3,))
    if shape.min() < 1 or math.prod(shape.tolist()) > 1 << 40:
        raise arrays.wrong("a shape of no grid")
    size = (int(shape[0]), int(shape[1]), int(shape[2]))
    voxel, truncation = float(arrays.of("voxel", ())), float(arrays.of("truncation", ()))
    origin, axes = arrays.of("origin", (3,)), arrays.of("axes", (3, 3))
    if not (0 < voxel < 1e30 and 0 < truncation < 1e30) or np.abs(origin).max() > 1e30:
        raise arrays.wrong("voxels of no size")
    if np.abs(axes @ axes.T - np.eye(3)).max() > 1e-5:
        raise arrays.wrong("axes that are not at right angles")
    if "index.npy" in arrays.names:
        index = arrays.of("index", (None, 3))
        distance, color = arrays.of("distance", (len(index),)), arrays.of("color", (len(index), 3))
        if len(index) and (index.min() < 0 or (index >= shape).any()):
            raise arrays.wrong("voxels beyond its shape")
    else:
        known = arrays.of("known", size)
        index = np.argwhere(known)
        distance, color = arrays.of("distance", size)[known], arrays.of("color", (*size, 3))[known]
    if not (np.abs(distance) <= truncation * 1.001).all():
        raise arrays.wrong("distances beyond its truncation")
    grid = VoxelGrid(to_tensor(origin, np.float64), to_tensor(axes, np.float64), voxel, size, truncation)
    xyz = grid.centres(torch.from_numpy(index.astype(np.int64)))
    return Voxels(xyz, to_tensor(color, np.uint8), distance=to_tensor(distance), grid=grid)


@dataclass(frozen=True)
class _Arrays:
    """A zip that nobody vouches for; `size` is that of the file in bytes."""

    path: Path
    bundle: zipfile.ZipFile
    size: int

    @property
    def names(self) -> set[str]:
        return set(self.bundle.namelist())

    def wrong(self, what: str) -> FormatError:
        return FormatError(f"{self.path}: has {what}; it is damaged, export it again")

    def of(self, name: str, shape: tuple[int | None, ...]) -> Array:
        """The array of that name. No memory is taken before it was found to be of this shape, and as large as it says.
        None in a shape is any number."""
        try:
            entry = self.bundle.getinfo(f"{name}.npy")
        except KeyError:
            raise self.wrong(f"no array {name!r}") from None
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > self.size or entry.flag_bits & 1:
            raise FormatError(f"{self.path}: {name!r} is compressed, which is not read; save it by numpy.savez")
        kind = np.dtype("<" + TYPES.get(name, "f8"))
        with self.bundle.open(entry) as stream:
            found, fortran, stored = _header(stream)
            fits = len(found) == len(shape) and all(b in (None, a) for a, b in zip(found, shape, strict=True))
            if not fits or stored != kind or fortran:
                raise self.wrong(f"an array {name!r} of {stored} {found}, where {kind} {shape} is wanted")
            data = stream.read(entry.file_size)
        if len(data) != math.prod(found) * kind.itemsize:
            raise self.wrong(f"{len(data)} bytes of {name!r}, which is {found}")
        values: Array = np.frombuffer(data, kind).reshape(found)
        if kind.kind == "f" and not np.isfinite(values).all():
            raise self.wrong(f"NaN or infinity in {name!r}")
        return values


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, whether the first index runs fastest, type). Raises ValueError."""
    version = np.lib.format.read_magic(stream)
    reads = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in reads:
        raise ValueError(f"an array of the version {version}")
    shape, fortran, kind = reads[version](stream, max_header_size=HEADER_LIMIT)
    return tuple(map(int, shape)), fortran, kind
