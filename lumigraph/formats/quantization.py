"""Quantization shared by the compact splat formats: opacities in a byte, quaternions without their largest component,
Morton order, and limits for plausible scenes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lumigraph.formats.io import check_finite, to_numpy
from lumigraph.scene.assets import Splats
from lumigraph.scene.errors import FormatError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]

MAX_LOG_SCALE = 30.0  # e^30 units is not a plausible size, and float32 products overflow beyond it
BLOCK_ROWS = 1 << 14  # gaussians processed at once; intermediate results stay in the cache
SQRT_HALF = 0.5**0.5  # bound of the components of a unit quaternion except the largest
MORTON_BITS = 21  # per axis; three fit into 64 bits

# The ends are moved inwards by a quarter of a step: their logits are finite and still round to 0 and 255.
_OPACITIES = np.arange(256).clip(0.25, 254.75) / 255
OPACITY_LOGITS: Floats = np.log(_OPACITIES / (1 - _OPACITIES)).astype(np.float32)  # by byte


def splat_arrays(splats: object, path: Path, format_name: str) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Means, log scales, quaternions, logit opacities and SH coefficients of an asset to write.

    Raises FormatError if the asset is not splats or holds NaN or infinity.
    """
    if not isinstance(splats, Splats):
        raise FormatError(f"{path}: {format_name} holds gaussians and no plain points or meshes; choose .ply or .glb")
    means, log_scales, quats = to_numpy(splats.means), to_numpy(splats.log_scales), to_numpy(splats.quats)
    logits, sh = to_numpy(splats.logit_opacities), to_numpy(splats.sh)
    for part in (means, log_scales, quats, logits, sh):
        check_finite(path, gaussians=part)
    return means, log_scales, quats, logits, sh


def splats_from_arrays(means: Floats, log_scales: Floats, quats: Floats, logits: Floats, sh: Floats) -> Splats:
    """Wrap arrays without a copy; the caller must not write to them afterwards."""
    return Splats(*(torch.from_numpy(array) for array in (means, log_scales, quats, logits, sh)))


def block_slices(count: int, block_rows: int = BLOCK_ROWS) -> Iterator[slice]:
    """Consecutive slices that cover 0..count."""
    for first in range(0, count, block_rows):
        yield slice(first, min(first + block_rows, count))


def round_to_bytes(values: Array) -> Bytes:
    """Round to the nearest of 0..255."""
    levels: Bytes = np.rint(values).clip(0, 255).astype(np.uint8)
    return levels


def quantize_opacities(logits: Floats) -> Bytes:
    return round_to_bytes(255 / (1 + np.exp(-logits.clip(-80, 80))))


def normalize_quats(quats: Floats) -> Floats:
    """Scale quaternions to length one; zero quaternions stay zero."""
    normalized: Floats = quats / np.maximum(np.linalg.norm(quats, axis=1, keepdims=True), np.float32(1e-30))
    return normalized


def drop_largest(quats: Floats) -> tuple[Indices, Floats]:
    """Drop the largest component of unit quaternions (N, 4), after flipping the sign so that it is positive.

    Returns (N,) the index of the largest component and (N, 3) the others in order. q and -q are the same rotation.
    """
    largest = np.abs(quats).argmax(axis=1)
    sign = np.where(np.take_along_axis(quats, largest[:, None], 1) < 0, np.float32(-1), np.float32(1))
    return largest, np.take_along_axis(quats, _OTHER_COMPONENTS[largest], 1) * sign


def restore_largest(largest: Array, components: Array) -> Floats:
    """Inverse of `drop_largest`: (N,) 0..3 and (N, 3) -> (N, 4) float32."""
    quats = np.empty((len(components), 4), np.float32)
    np.put_along_axis(quats, _OTHER_COMPONENTS[largest], components.astype(np.float32), 1)
    missing = np.sqrt((1 - (components**2).sum(axis=1)).clip(min=0))
    np.put_along_axis(quats, largest[:, None].astype(np.int64), missing[:, None].astype(np.float32), 1)
    return quats


_OTHER_COMPONENTS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


def morton_order(means: Floats) -> Indices:
    """(N,) indices that sort the gaussians in Morton order (interleaved bits of x, y, z) within their bounds."""
    if not len(means):
        return np.zeros(0, np.int64)
    return np.argsort(morton_codes(means, means.min(axis=0), means.max(axis=0)), kind="stable")


def morton_codes(means: Floats, low: Array, high: Array) -> npt.NDArray[np.uint64]:
    """(N,) Morton codes of the means within the box from `low` to `high` (3,)."""
    low, high = low.astype(np.float64), high.astype(np.float64)
    steps_per_unit = (2**MORTON_BITS - 1) / np.maximum(high - low, 1e-30)
    code = np.zeros(len(means), np.uint64)
    for axis in range(3):
        bits = np.minimum((means[:, axis] - low[axis]) * steps_per_unit[axis], 2**MORTON_BITS - 1).astype(np.uint64)
        for shift, mask in _MORTON_SPREAD_STEPS:
            bits = (bits | (bits << np.uint64(shift))) & np.uint64(mask)
        code |= bits << np.uint64(axis)
    return code


# Each step spreads the bits further, until two zero bits separate all of them.
_MORTON_SPREAD_STEPS = [
    (32, 0x1F00000000FFFF),
    (16, 0x1F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
]
