"""What the small splat formats do alike: opacities in a byte, quaternions without their largest component, an order
in which neighbours in space are neighbours in the file, and the limits beyond which nothing can be shown.
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

LOG_SCALE_LIMIT = 30.0  # e^30 units is no size of anything; beyond it float32 products overflow
BLOCK = 1 << 14  # gaussians in flight: what is computed of them stays in the cache
SQRT_HALF = 0.5**0.5  # no component of a unit quaternion but the largest is larger
MORTON_BITS = 21  # of each axis: three fit into 64

# A quarter of a step inside the ends, so that 0 and 255 are finite logits and come back as 0 and 255.
_OPACITIES = np.arange(256).clip(0.25, 254.75) / 255
LOGITS: Floats = np.log(_OPACITIES / (1 - _OPACITIES)).astype(np.float32)  # of each byte


def parts_of(splats: object, path: Path, form: str) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Means, log scales, quaternions, logits and harmonics to write. Raises FormatError where they are not splats or
    not finite."""
    if not isinstance(splats, Splats):
        raise FormatError(f"{path}: {form} holds gaussians and no plain points or meshes; choose .ply or .glb")
    means, log_scales, quats = to_numpy(splats.means), to_numpy(splats.log_scales), to_numpy(splats.quats)
    logits, sh = to_numpy(splats.logit_opacities), to_numpy(splats.sh)
    for part in (means, log_scales, quats, logits, sh):
        check_finite(path, gaussians=part)
    return means, log_scales, quats, logits, sh


def splats_of(means: Floats, log_scales: Floats, quats: Floats, logits: Floats, sh: Floats) -> Splats:
    """Of arrays that nobody else writes to."""
    return Splats(*(torch.from_numpy(part) for part in (means, log_scales, quats, logits, sh)))


def blocks(count: int, step: int = BLOCK) -> Iterator[slice]:
    """Ranges that together are 0..count."""
    for first in range(0, count, step):
        yield slice(first, min(first + step, count))


def rounded_bytes(values: Array) -> Bytes:
    """To the nearest of 0..255."""
    rounded: Bytes = np.rint(values).clip(0, 255).astype(np.uint8)
    return rounded


def opacity_bytes(logits: Floats) -> Bytes:
    return rounded_bytes(255 / (1 + np.exp(-logits.clip(-80, 80))))


def unit(quats: Floats) -> Floats:
    """Of length one; those of no length stay zero."""
    made: Floats = quats / np.maximum(np.linalg.norm(quats, axis=1, keepdims=True), np.float32(1e-30))
    return made


def without_largest(quats: Floats) -> tuple[Indices, Floats]:
    """Unit quaternions (N, 4) -> (N,) which component is the largest, and (N, 3) the others in their order, of the one
    of q and -q (the same turn) in which the largest is positive."""
    largest = np.abs(quats).argmax(axis=1)
    sign = np.where(np.take_along_axis(quats, largest[:, None], 1) < 0, np.float32(-1), np.float32(1))
    return largest, np.take_along_axis(quats, _OTHERS[largest], 1) * sign


def with_largest(largest: Array, others: Array) -> Floats:
    """The inverse: (N,) 0..3 and (N, 3) -> (N, 4) float32."""
    quats = np.empty((len(others), 4), np.float32)
    np.put_along_axis(quats, _OTHERS[largest], others.astype(np.float32), 1)
    missing = np.sqrt((1 - (others**2).sum(axis=1)).clip(min=0))
    np.put_along_axis(quats, largest[:, None].astype(np.int64), missing[:, None].astype(np.float32), 1)
    return quats


_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


def morton_order(means: Floats) -> Indices:
    """(N,) the numbers of the gaussians along Morton's curve (the bits of x, y and z interleaved) through their box."""
    if not len(means):
        return np.zeros(0, np.int64)
    return np.argsort(morton_codes(means, means.min(axis=0), means.max(axis=0)), kind="stable")


def morton_codes(means: Floats, low: Array, high: Array) -> npt.NDArray[np.uint64]:
    """(N,) where on Morton's curve through the box from `low` to `high` (3,) they lie."""
    low, high = low.astype(np.float64), high.astype(np.float64)
    cells = (2**MORTON_BITS - 1) / np.maximum(high - low, 1e-30)
    code = np.zeros(len(means), np.uint64)
    for axis in range(3):
        spread = np.minimum((means[:, axis] - low[axis]) * cells[axis], 2**MORTON_BITS - 1).astype(np.uint64)
        for shift, mask in _SPREAD:
            spread = (spread | (spread << np.uint64(shift))) & np.uint64(mask)
        code |= spread << np.uint64(axis)
    return code


# Halves move apart, then quarters, ... until two empty places lie between all bits.
_SPREAD = [
    (32, 0x1F00000000FFFF),
    (16, 0x1F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
]
