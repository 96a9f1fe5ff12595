"""Voxels as NumPy arrays (`.npz`), stored without compression and without pickle: `numpy.load` opens it.

The centre of voxel (i, j, k) is at origin + voxel * axes @ (i, j, k): right-handed, z up, metres. Every file has:

* origin (3,), axes (3, 3), voxel (), truncation (): float64; column a of axes is the direction of index a
* shape (3,) int64: number of voxels along each axis

The layout `dense` has arrays indexed [i, j, k]:

* distance (i, j, k) float32: to the surface, positive outside, clamped to the truncation, which is also the value of
  unknown voxels
* color (i, j, k, 3) uint8: sRGB; and known (i, j, k) bool: whether the voxel is near a surface

The layout `sparse` has a row for each voxel near the surface: index (N, 3) int32, distance (N,), color (N, 3).
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

MAX_DENSE_VOXELS = 1 << 27  # voxels of a dense grid: a gigabyte
NPY_HEADER_MAX_BYTES = 10_000  # bytes
UNKNOWN_GREY = 128  # colour of voxels without a known colour
ARRAY_TYPES = {"index": "i4", "distance": "f4", "color": "u1", "known": "b1", "shape": "i8"}  # all others are f8


@dataclass(frozen=True)
class Options:
    """Grid layout.

    layout: dense stores every voxel, for networks and viewers; sparse stores only voxels near the surface
    """

    layout: Literal["dense", "sparse"] = "dense"


# --- writing ---------------------------------------------------------------------------------------------------------


def write(asset: Voxels, path: Path, options: Options = Options()) -> None:
    """Write atomically. Raises FormatError; checks the size before it allocates a dense grid."""
    path = Path(path)
    if not isinstance(asset, Voxels):
        raise FormatError(f"{path}: .npz holds voxels; write points, meshes or gaussians as .ply or .glb")
    grid, size = asset.grid, math.prod(asset.grid.shape)
    if options.layout == "dense" and size > MAX_DENSE_VOXELS:
        shape = " x ".join(map(str, grid.shape))
        raise FormatError(
            f"{path}: a dense grid of {shape} voxels takes {8 * size / 1e9:.1f} GB, but at most"
            f" {8 * MAX_DENSE_VOXELS / 1e9:.1f} GB can be"
            " written; choose a lower resolution or the layout sparse"
        )
    check_finite(path, voxels=to_numpy(asset.xyz), distances=to_numpy(asset.distance))
    index, distance = to_numpy(asset.index), to_numpy(asset.distance)
    if len(index) and (index.min() < 0 or (index >= np.array(grid.shape)).any()):
        raise FormatError(f"{path}: not written, because some voxels are outside the grid")
    color = np.full((len(index), 3), UNKNOWN_GREY, np.uint8) if asset.rgb is None else to_numpy(asset.rgb)
    columns: dict[str, Array] = {
        "origin": to_numpy(grid.origin),
        "axes": to_numpy(grid.axes).round(6) + 0.0,  # rotating there and back leaves rounding errors, and -0
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
            # A fixed date (1980) makes the file reproducible.
            with bundle.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(values, order="C"), allow_pickle=False)


def _dense(index: Array, distance: Array, color: Array, grid: VoxelGrid) -> dict[str, Array]:
    voxel_index = tuple(index.T)
    values: dict[str, Array] = {
        "distance": np.full(grid.shape, grid.truncation, np.float32),
        "color": np.zeros((*grid.shape, 3), np.uint8),
        "known": np.zeros(grid.shape, bool),
    }
    values["distance"][voxel_index], values["color"][voxel_index], values["known"][voxel_index] = distance, color, True
    return values


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> Voxels:
    """Read a file of this layout. Memory: a few times its size. Raises FormatError for any other file."""
    path = Path(path)
    with open_for_read(path) as stream:
        try:
            with zipfile.ZipFile(stream) as bundle:
                return _voxels(_Arrays(path, bundle, os.fstat(stream.fileno()).st_size))
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
            raise FormatError(f"{path}: cannot be read as the zip that .npz is ({error}); fetch it again") from error


def _voxels(arrays: _Arrays) -> Voxels:
    if "distance.npy" not in arrays.names:
        raise FormatError(f"{arrays.path}: holds no distances of voxels; only files written by Lumigraph are supported")
    shape = arrays.read_array("shape", (3,))
    if shape.min() < 1 or math.prod(shape.tolist()) > 1 << 40:
        raise arrays.error("an invalid grid shape")
    size = (int(shape[0]), int(shape[1]), int(shape[2]))
    voxel, truncation = float(arrays.read_array("voxel", ())), float(arrays.read_array("truncation", ()))
    origin, axes = arrays.read_array("origin", (3,)), arrays.read_array("axes", (3, 3))
    if not (0 < voxel < 1e30 and 0 < truncation < 1e30) or np.abs(origin).max() > 1e30:
        raise arrays.error("an invalid voxel size")
    if np.abs(axes @ axes.T - np.eye(3)).max() > 1e-5:
        raise arrays.error("axes that are not at right angles")
    if "index.npy" in arrays.names:
        index = arrays.read_array("index", (None, 3))
        distance, color = arrays.read_array("distance", (len(index),)), arrays.read_array("color", (len(index), 3))
        if len(index) and (index.min() < 0 or (index >= shape).any()):
            raise arrays.error("voxels beyond its shape")
    else:
        is_known = arrays.read_array("known", size)
        index = np.argwhere(is_known)
        distance, color = (
            arrays.read_array("distance", size)[is_known],
            arrays.read_array("color", (*size, 3))[is_known],
        )
    if not (np.abs(distance) <= truncation * 1.001).all():
        raise arrays.error("distances beyond its truncation")
    grid = VoxelGrid(to_tensor(origin, np.float64), to_tensor(axes, np.float64), voxel, size, truncation)
    xyz = grid.centres(torch.from_numpy(index.astype(np.int64)))
    return Voxels(xyz, to_tensor(color, np.uint8), distance=to_tensor(distance), grid=grid)


@dataclass(frozen=True)
class _Arrays:
    """An untrusted zip of arrays; `size` is the file size in bytes."""

    path: Path
    bundle: zipfile.ZipFile
    size: int

    @property
    def names(self) -> set[str]:
        return set(self.bundle.namelist())

    def error(self, reason: str) -> FormatError:
        return FormatError(f"{self.path}: has {reason}; it is damaged, export it again")

    def read_array(self, name: str, shape: tuple[int | None, ...]) -> Array:
        """Read an array by name. Checks shape (None matches any number) and size before it allocates memory."""
        try:
            entry = self.bundle.getinfo(f"{name}.npy")
        except KeyError:
            raise self.error(f"no array {name!r}") from None
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > self.size or entry.flag_bits & 1:
            raise FormatError(f"{self.path}: {name!r} is compressed, which is not supported; save it with numpy.savez")
        kind = np.dtype("<" + ARRAY_TYPES.get(name, "f8"))
        with self.bundle.open(entry) as stream:
            stored_shape, fortran, stored_type = _header(stream)
            shape_matches = len(stored_shape) == len(shape) and all(
                b in (None, a) for a, b in zip(stored_shape, shape, strict=True)
            )
            if not shape_matches or stored_type != kind or fortran:
                raise self.error(f"an array {name!r} of {stored_type} {stored_shape}, where {kind} {shape} is required")
            data = stream.read(entry.file_size)
        if len(data) != math.prod(stored_shape) * kind.itemsize:
            raise self.error(f"{len(data)} bytes of {name!r}for the shape {stored_shape}")
        values: Array = np.frombuffer(data, kind).reshape(stored_shape)
        if kind.kind == "f" and not np.isfinite(values).all():
            raise self.error(f"NaN or infinity in {name!r}")
        return values


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, Fortran order, type) in the header of an array. Raises ValueError."""
    version = np.lib.format.read_magic(stream)
    header_readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in header_readers:
        raise ValueError(f"an array of the version {version}")
    shape, fortran, kind = header_readers[version](stream, max_header_size=NPY_HEADER_MAX_BYTES)
    return tuple(map(int, shape)), fortran, kind
