"""The `.splat` of antimatter15's viewer (github.com/antimatter15/splat, MIT): 32 bytes a gaussian and nothing else.

x y z and the three standard deviations in floats (little-endian), red green blue opacity in bytes, and the quaternion
w x y z in bytes, (q + 1) * 128 of a unit one. The colour is C0 * DC + 0.5, clipped to 0..1: the format knows no
harmonics above DC. Gaussians stand in the order of their size (product of the deviations) times their opacity, the
largest first, so that what has arrived of a file already looks like the scene.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lumigraph.formats.files import opened, writing
from lumigraph.formats.packing import (
    LOG_SCALE_LIMIT,
    LOGITS,
    blocks,
    opacity_bytes,
    parts_of,
    rounded_bytes,
    splats_of,
    unit,
)
from lumigraph.scene.assets import Splats
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
    path = Path(path)
    with opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size % ROW.itemsize or not size:
            raise FormatError(
                f"{path}: {size} bytes are no whole number of gaussians of {ROW.itemsize}, so it is no .splat file or"
                " was cut short; fetch it again"
            )
        count = size // ROW.itemsize
        means, log_scales = np.empty((count, 3), np.float32), np.empty((count, 3), np.float32)
        quats, logits = np.empty((count, 4), np.float32), np.empty(count, np.float32)
        sh = np.empty((count, 1, 3), np.float32)
        for part in blocks(count):
            rows = np.frombuffer(stream.read((part.stop - part.start) * ROW.itemsize), ROW)
            if len(rows) < part.stop - part.start:
                raise FormatError(f"{path}: byte {stream.tell()}: the file became shorter while it was read; try again")
            means[part] = rows["mean"]
            with np.errstate(divide="ignore", invalid="ignore"):  # zero and negative ones are judged below
                log_scales[part] = np.log(rows["scale"])
            quats[part] = (rows["turn"].astype(np.float32) - 128) / 128
            logits[part] = LOGITS[rows["rgba"][:, 3]]
            sh[part, 0] = (rows["rgba"][:, :3] / np.float32(255) - 0.5) / C0
    # A flat gaussian has a deviation of zero, which has no logarithm; a point too small to see is the same.
    log_scales[np.isneginf(log_scales)] = SMALLEST
    broken = ~(np.isfinite(means).all(axis=1) & np.isfinite(log_scales).all(axis=1))
    broken |= (log_scales.max(axis=1) > LOG_SCALE_LIMIT) | ~quats.any(axis=1)
    if broken.any():
        first = int(broken.argmax())
        raise FormatError(
            f"{path}: byte {first * ROW.itemsize}: {int(broken.sum())} of {count} gaussians have a place or size that"
            f" is no finite number, or no rotation (the first is number {first}); it is no .splat file, or damaged"
        )
    return splats_of(means, log_scales, quats, logits, sh)


@dataclass(frozen=True)
class Options:
    """Nothing is left open."""


def write(asset: Splats, path: Path, options: Options = Options()) -> None:
    """Write atomically: `path` is complete or untouched.

    Lost are the harmonics above DC (colours no longer change with the view), the order, and colours beyond 0..1. Raises
    FormatError for anything but splats, for none of them, for NaN and infinity, and when the disk refuses.
    """
    path = Path(path)
    means, log_scales, quats, logits, sh = parts_of(asset, path, "a .splat file")
    if not len(means):
        raise FormatError(
            f"{path}: not written, because the scene holds no gaussians and a .splat file of none is empty"
        )
    # log of size * opacity: the product itself may overflow
    weight = log_scales.astype(np.float64).sum(axis=1) - np.logaddexp(0, -logits.astype(np.float64))
    order = np.argsort(-weight, kind="stable")
    with writing(path) as stream:
        for part in blocks(len(order)):
            here = order[part]
            rows = np.empty(len(here), ROW)
            rows["mean"] = means[here]
            rows["scale"] = np.exp(log_scales[here].clip(SMALLEST, LARGEST))
            rows["rgba"][:, :3] = rounded_bytes((sh[here, 0] * C0 + 0.5) * 255)
            rows["rgba"][:, 3] = opacity_bytes(logits[here])
            rows["turn"] = rounded_bytes(unit(quats[here]) * 128 + 128)
            stream.write(rows.data)
