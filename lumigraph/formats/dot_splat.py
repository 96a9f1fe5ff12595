"""The `.splat` of antimatter15's viewer (github.com/antimatter15/splat, MIT): 32 bytes a gaussian and nothing else.

x y z and the three standard deviations in floats (little-endian), red green blue opacity in bytes, and the quaternion
w x y z in bytes, (q + 1) * 128 of a unit one. The colour is C0 * DC + 0.5, clipped to 0..1: the format knows no
harmonics above DC. Gaussians stand in the order of their size (product of the deviations) times their opacity, the
largest first, so that what has arrived of a file already looks like the scene.
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
    LOG_SCALE_LIMIT,
    LOGITS,
    Floats,
    blocks,
    opacity_bytes,
    rounded_bytes,
    splats_of,
    unit,
)
from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.harmonics import C0

NAME = "splat (antimatter15)"
SUFFIXES = (".splat",)
HOLDS: tuple[type, ...] = (Splats,)
UP = "-y"
METRES = None

ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("turn", "u1", 4)])
SMALLEST, LARGEST = -40.0, 40.0  # natural logs of what is written: a deviation must neither vanish nor overflow


def read(path: Path) -> Splats:
    """The gaussians, with harmonics of degree 0. Raises FormatError for anything else."""
    asset: Splats = stream(path).gather()
    return asset


def stream(path: Path) -> Stream:
    """As `read`, in batches."""
    path = Path(path)
    with open_for_read(path) as file:
        size = os.fstat(file.fileno()).st_size
    if size % ROW.itemsize or not size:
        raise FormatError(
            f"{path}: {size} bytes are no whole number of gaussians of {ROW.itemsize}, so it is no .splat file or"
            " was cut short; fetch it again"
        )
    count = size // ROW.itemsize

    def broken(bad: int, first: int) -> FormatError:
        return FormatError(
            f"{path}: byte {first * ROW.itemsize}: {bad} of {count} gaussians have a place or size that is no finite"
            f" number, or no rotation (the first is number {first}); it is no .splat file, or damaged"
        )

    return Stream(empty_splats(0), count, lambda: check_rows(_batches(path, count), broken))


def _batches(path: Path, count: int) -> Iterator[tuple[Splats, Array]]:
    """Gaussians, and which of them are none."""
    with open_for_read(path) as file:
        for part in blocks(count):
            data = file.read((part.stop - part.start) * ROW.itemsize)
            if len(data) < (part.stop - part.start) * ROW.itemsize:
                raise FormatError(f"{path}: byte {file.tell()}: the file became shorter while it was read; try again")
            table = np.frombuffer(data, ROW)
            means = table["mean"].astype(np.float32)
            with np.errstate(divide="ignore", invalid="ignore"):  # zero and negative ones are judged below
                log_scales: Floats = np.log(table["scale"])
            # A flat gaussian has a deviation of zero, which has no logarithm; a point too small to see is the same.
            log_scales[np.isneginf(log_scales)] = SMALLEST
            quats: Floats = (table["turn"].astype(np.float32) - np.float32(128)) / np.float32(128)
            sh = ((table["rgba"][:, None, :3] / np.float32(255) - 0.5) / C0).astype(np.float32)
            broken = find_nonfinite(means, log_scales) | (log_scales.max(axis=1) > LOG_SCALE_LIMIT) | ~quats.any(axis=1)
            yield splats_of(means, log_scales, quats, LOGITS[table["rgba"][:, 3]], sh), broken


@dataclass(frozen=True)
class Options:
    """Nothing is left open."""


def write(asset: Splats, path: Path, options: Options = Options()) -> None:
    """Write atomically: `path` is complete or untouched.

    Lost are the harmonics above DC (colours no longer change with the view), the order, and colours beyond 0..1. Raises
    FormatError for anything but splats, for none of them, for NaN and infinity, and when the disk refuses.
    """
    drain(write_stream(Stream.from_asset(asset), path, options))


def write_stream(stream: Stream, path: Path, options: Options = Options()) -> Iterator[float]:
    """As `write`, while it is pulled; yields the share that is done."""
    path = Path(path)
    check_splats(stream, path, "a .splat file")
    if not stream.count:
        raise FormatError(
            f"{path}: not written, because the scene holds no gaussians and a .splat file of none is empty"
        )
    done = 0
    with open_atomic(path) as file, open_spool(path) as beside:
        ordered = ExternalSort(stream, _smallness, path, beside, drop_sh_rest)
        yield from (share / 2 for share in ordered.collect())
        for batch in ordered:
            file.write(_rows(batch).data)
            done += len(batch)
            yield (1 + done / stream.count) / 2


def _smallness(splats: Splats | Points) -> Array:
    """Minus the log of size * opacity: the product itself may overflow."""
    assert isinstance(splats, Splats)
    logits = to_numpy(splats.logit_opacities).astype(np.float64)
    smallness: Array = np.logaddexp(0, -logits) - to_numpy(splats.log_scales).astype(np.float64).sum(axis=1)
    return smallness


def _rows(splats: Splats) -> Array:
    table = np.empty(len(splats), ROW)
    table["mean"] = to_numpy(splats.means)
    table["scale"] = np.exp(to_numpy(splats.log_scales).clip(SMALLEST, LARGEST))
    table["rgba"][:, :3] = rounded_bytes((to_numpy(splats.sh)[:, 0] * C0 + 0.5) * 255)
    table["rgba"][:, 3] = opacity_bytes(to_numpy(splats.logit_opacities))
    table["turn"] = rounded_bytes(unit(to_numpy(splats.quats)) * 128 + 128)
    return table
