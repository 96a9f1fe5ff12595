"""The `.splat` of antimatter15's viewer (github.com/antimatter15/splat, MIT): 32 bytes a gaussian, no header.

A row holds x y z and the three standard deviations as little-endian floats, red green blue opacity as bytes, and the
unit quaternion w x y z as bytes (q + 1) * 128. The colour is C0 * DC + 0.5, clipped to 0..1; the format has no SH
coefficients above DC. Gaussians are sorted by size (product of the deviations) times opacity, largest first, so that a
partly loaded file already resembles the scene.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lumigraph.formats.chunked import (
    Stream,
    check_rows,
    check_splats,
    drain,
    drop_sh_rest,
    empty_splats,
    find_nonfinite,
)
from lumigraph.formats.external_sort import ExternalSort
from lumigraph.formats.io import Array, open_atomic, open_for_read, open_spool, to_numpy
from lumigraph.formats.quantization import (
    MAX_LOG_SCALE,
    OPACITY_LOGITS,
    Floats,
    block_slices,
    normalize_quats,
    quantize_opacities,
    round_to_bytes,
    splats_from_arrays,
)
from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.harmonics import C0

NAME = "splat (antimatter15)"
SUFFIXES = (".splat",)
HOLDS: tuple[type, ...] = (Splats,)
UP = "-y"
METRES = None

SPLAT_ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("turn", "u1", 4)])
# Natural logs: a written deviation must neither vanish nor overflow.
MIN_WRITTEN_LOG_SCALE, MAX_WRITTEN_LOG_SCALE = -40.0, 40.0


def read(path: Path) -> Splats:
    """Read gaussians with SH degree 0. Raises FormatError for any other file."""
    asset: Splats = stream(path).gather()
    return asset


def stream(path: Path) -> Stream:
    """Read gaussians in batches."""
    path = Path(path)
    with open_for_read(path) as file:
        size = os.fstat(file.fileno()).st_size
    if size % SPLAT_ROW.itemsize or not size:
        raise FormatError(
            f"{path}: {size} bytes are not a whole number of gaussians of {SPLAT_ROW.itemsize}, so it is not a .splat"
            " file or"
            " was cut short; fetch it again"
        )
    count = size // SPLAT_ROW.itemsize

    def make_error(bad: int, first: int) -> FormatError:
        return FormatError(
            f"{path}: byte {first * SPLAT_ROW.itemsize}: {bad} of {count} gaussians have a position or size that is not"
            " a finite"
            f" number, or no rotation (the first is number {first}); it is not a .splat file, or damaged"
        )

    return Stream(empty_splats(0), count, lambda: check_rows(_batches(path, count), make_error))


def _batches(path: Path, count: int) -> Iterator[tuple[Splats, Array]]:
    """Yield gaussians and the (N,) mask of invalid ones."""
    with open_for_read(path) as file:
        for part in block_slices(count):
            data = file.read((part.stop - part.start) * SPLAT_ROW.itemsize)
            if len(data) < (part.stop - part.start) * SPLAT_ROW.itemsize:
                raise FormatError(f"{path}: byte {file.tell()}: the file became shorter while it was read; try again")
            table = np.frombuffer(data, SPLAT_ROW)
            means = table["mean"].astype(np.float32)
            with np.errstate(divide="ignore", invalid="ignore"):  # zeros and negative numbers are checked below
                log_scales: Floats = np.log(table["scale"])
            # A flat gaussian has a deviation of zero, whose log is -inf: use an invisibly small deviation.
            log_scales[np.isneginf(log_scales)] = MIN_WRITTEN_LOG_SCALE
            quats: Floats = (table["turn"].astype(np.float32) - np.float32(128)) / np.float32(128)
            sh = ((table["rgba"][:, None, :3] / np.float32(255) - 0.5) / C0).astype(np.float32)
            is_bad = find_nonfinite(means, log_scales) | (log_scales.max(axis=1) > MAX_LOG_SCALE) | ~quats.any(axis=1)
            yield splats_from_arrays(means, log_scales, quats, OPACITY_LOGITS[table["rgba"][:, 3]], sh), is_bad


@dataclass(frozen=True)
class Options:
    """No settings."""


def write(asset: Splats, path: Path, options: Options = Options()) -> None:
    """Write atomically: `path` is complete or untouched.

    Loses SH coefficients above DC (view-dependent colour), the order, and colours beyond 0..1. Raises FormatError for
    an asset that is not splats, for an empty one, for NaN or infinity, and on disk errors.
    """
    drain(write_stream(Stream.from_asset(asset), path, options))


def write_stream(stream: Stream, path: Path, options: Options = Options()) -> Iterator[float]:
    """Write like `write` while it is pulled; yields the fraction completed."""
    path = Path(path)
    check_splats(stream, path, "a .splat file")
    if not stream.count:
        raise FormatError(
            f"{path}: not written, because the scene holds no gaussians and the .splat file would be empty"
        )
    row_count = 0
    with open_atomic(path) as file, open_spool(path) as spool:
        sorted_batches = ExternalSort(stream, _negative_importance, path, spool, drop_sh_rest)
        yield from (fraction / 2 for fraction in sorted_batches.collect())
        for batch in sorted_batches:
            file.write(_rows(batch).data)
            row_count += len(batch)
            yield (1 + row_count / stream.count) / 2


def _negative_importance(splats: Splats | Points) -> Array:
    """-log(size * opacity) as a sort key; the product itself may overflow."""
    assert isinstance(splats, Splats)
    logits = to_numpy(splats.logit_opacities).astype(np.float64)
    negative_importance: Array = np.logaddexp(0, -logits) - to_numpy(splats.log_scales).astype(np.float64).sum(axis=1)
    return negative_importance


def _rows(splats: Splats) -> Array:
    table = np.empty(len(splats), SPLAT_ROW)
    table["mean"] = to_numpy(splats.means)
    table["scale"] = np.exp(to_numpy(splats.log_scales).clip(MIN_WRITTEN_LOG_SCALE, MAX_WRITTEN_LOG_SCALE))
    table["rgba"][:, :3] = round_to_bytes((to_numpy(splats.sh)[:, 0] * C0 + 0.5) * 255)
    table["rgba"][:, 3] = quantize_opacities(to_numpy(splats.logit_opacities))
    table["turn"] = round_to_bytes(normalize_quats(to_numpy(splats.quats)) * 128 + 128)
    return table
