"""`.ksplat` of mkkellogg's viewer (github.com/mkkellogg/GaussianSplats3D, MIT), which is read and never written.

A header of 4096 bytes, one of 1024 bytes a section, and the sections, each with its buckets and then its gaussians:
position, scales (linear), quaternion w x y z, red green blue opacity in bytes, and the harmonics above DC, degree by
degree and within a degree all of red, then green, then blue. Level 0 has floats; level 1 half floats, and positions in
16 bits around the centre of a bucket; level 2 is level 1 with harmonics in bytes. A bucket holds a fixed number of
gaussians; those that are not full come last, and their lengths stand before the centres.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from lumigraph.formats.files import opened
from lumigraph.formats.packing import LOG_SCALE_LIMIT, LOGITS, Floats, blocks, splats_of
from lumigraph.scene.assets import Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.harmonics import C0

NAME = "ksplat"
SUFFIXES = (".ksplat",)
HOLDS: tuple[type, ...] = ()
UP = "-y"
METRES = None

HEADER_SIZE, SECTION_SIZE = 4096, 1024
HEADER = struct.Struct("<BBxxIIIIH14xff")
SECTION = struct.Struct("<IIIIfHxxIxxxxIIH")
RANGES = (1, 32767, 32767)  # of a 16-bit position where a section names none, by level
SMALLEST = -40.0  # the log of a deviation of zero
COEFFICIENTS = (0, 3, 8, 15)  # of a channel above DC, by degree
MOST_SECTIONS = 1 << 12


@dataclass(frozen=True)
class _Section:
    """What its header says; `start` is where its bytes begin."""

    start: int
    count: int
    bucket_size: int
    buckets: int
    step: float  # of a position, world units
    middle: int
    full: int
    partial: int
    degree: int
    row: np.dtype[Any]

    @property
    def centres(self) -> int:
        return self.start + 4 * self.partial

    @property
    def rows(self) -> int:
        return self.centres + 12 * self.buckets


def read(path: Path) -> Splats:
    """The gaussians. Raises FormatError for anything else. Sections of a lower degree get zeros above it."""
    path = Path(path)
    with opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(HEADER_SIZE)
        if len(head) < HEADER_SIZE:
            raise FormatError(f"{path}: no .ksplat file: it ends inside its header of {HEADER_SIZE} bytes")
        major, minor, most, sections, _, count, level, low, high = HEADER.unpack_from(head)
        if (major, minor) != (0, 1) or level > 2 or max(most, sections) > MOST_SECTIONS:
            raise FormatError(f"{path}: byte 0: no .ksplat of version 0.1 and level 0 to 2; save it again as a PLY")
        found = _sections(stream, most, level, size, path)
        if sum(section.count for section in found) != count or not count:
            raise FormatError(f"{path}: byte 16: {count} gaussians, which its sections do not hold; fetch it again")
        # Zeros mean that nobody wrote the bounds down: those of the program then.
        bounds = (low or -1.5, high or 1.5)
        parts = [_gaussians(stream, section, level, bounds, path) for section in found]
    widest = max(part[4].shape[1] for part in parts)
    for i, part in enumerate(parts):
        more = np.zeros((len(part[4]), widest - part[4].shape[1], 3), np.float32)
        parts[i] = (*part[:4], np.concatenate([part[4], more], axis=1))
    means, log_scales, quats, logits, sh = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    finite = [np.isfinite(values).reshape(count, -1).all(axis=1) for values in (means, log_scales, quats, sh)]
    longest = np.abs(quats).max(axis=1)  # its square must neither vanish nor overflow
    broken = ~np.logical_and.reduce(finite) | (log_scales.max(axis=1) > LOG_SCALE_LIMIT)
    broken |= (longest < 1e-12) | (longest > 1e12)
    if broken.any():
        raise FormatError(
            f"{path}: {int(broken.sum())} of {count} gaussians have a place or size that is no finite number, or no"
            f" rotation (the first is number {int(broken.argmax())}); the file is damaged, fetch it again"
        )
    return splats_of(means, log_scales, quats, logits, sh)


def _sections(stream: BinaryIO, most: int, level: int, size: int, path: Path) -> list[_Section]:
    """Those that hold anything. Raises FormatError unless their bytes are there."""
    start = HEADER_SIZE + most * SECTION_SIZE
    found = []
    for i in range(most):
        data = stream.read(SECTION_SIZE)
        if len(data) < SECTION_SIZE:
            raise FormatError(
                f"{path}: byte {HEADER_SIZE + i * SECTION_SIZE}: the file ends inside the header of a section"
            )
        count, room, bucket, buckets, block, storage, reach, full, partial, degree = SECTION.unpack_from(data)
        reach = reach or RANGES[level]
        if degree > 3 or not count <= room or not np.isfinite(block) or (buckets and storage != 12):
            raise FormatError(
                f"{path}: byte {HEADER_SIZE + i * SECTION_SIZE}: a section of an unknown form; fetch it again"
            )
        step = block / 2 / reach
        section = _Section(start, count, bucket, buckets, step, reach, full, partial, degree, _row(level, degree))
        start = section.rows + room * section.row.itemsize
        if start > size:
            raise FormatError(
                f"{path}: byte {HEADER_SIZE + i * SECTION_SIZE}: a section announces {room} gaussians up to byte"
                f" {start} of a file of {size}; it was cut short, fetch it again"
            )
        if count:
            found.append(section)
    return found


def _row(level: int, degree: int) -> np.dtype[Any]:
    number, rest = ("<f4", "<f4") if level == 0 else ("<f2", "<f2" if level == 1 else "u1")
    mean = "<f4" if level == 0 else "<u2"
    fields = [("mean", mean, 3), ("scale", number, 3), ("turn", number, 4), ("rgba", "u1", 4)]
    return np.dtype([*fields, ("rest", rest, 3 * COEFFICIENTS[degree])])


Part = tuple[Floats, Floats, Floats, Floats, Floats]


def _gaussians(stream: BinaryIO, section: _Section, level: int, bounds: tuple[float, float], path: Path) -> Part:
    """Means, log scales, quaternions, logits and harmonics of one section."""
    count, channel = section.count, COEFFICIENTS[section.degree]
    means, log_scales = np.empty((count, 3), np.float32), np.empty((count, 3), np.float32)
    quats, logits = np.empty((count, 4), np.float32), np.empty(count, np.float32)
    sh = np.zeros((count, 1 + channel, 3), np.float32)
    centres = None if level == 0 else _centres(stream, section, path)
    stream.seek(section.rows)
    for part in blocks(count):
        rows = np.frombuffer(stream.read((part.stop - part.start) * section.row.itemsize), section.row)
        if len(rows) < part.stop - part.start:
            raise FormatError(f"{path}: byte {stream.tell()}: the file became shorter while it was read; try again")
        with np.errstate(all="ignore"):  # what is no number is judged by the caller
            means[part] = rows["mean"]
            if centres is not None:
                means[part] = (rows["mean"] - float(section.middle)) * section.step + centres[part]
            log_scales[part] = np.log(rows["scale"].astype(np.float32))
        quats[part] = rows["turn"]
        logits[part] = LOGITS[rows["rgba"][:, 3]]
        sh[part, 0] = (rows["rgba"][:, :3] / np.float32(255) - 0.5) / C0
        rest = rows["rest"].astype(np.float32)
        if level == 2:
            rest = (bounds[0] + rest / 255 * (bounds[1] - bounds[0])).astype(np.float32)
        for degree in range(1, section.degree + 1):
            first, last = COEFFICIENTS[degree - 1], COEFFICIENTS[degree]
            sh[part, 1 + first : 1 + last] = rest[:, 3 * first : 3 * last].reshape(len(rows), 3, -1).transpose(0, 2, 1)
    log_scales[np.isneginf(log_scales)] = SMALLEST  # flat, of which there is no logarithm
    return means, log_scales, quats, logits, sh


def _centres(stream: BinaryIO, section: _Section, path: Path) -> Floats:
    """(N, 3) of the bucket of each gaussian."""
    stream.seek(section.start)
    lengths = np.frombuffer(stream.read(4 * section.partial), "<u4").astype(np.int64)
    centres = np.frombuffer(stream.read(12 * section.buckets), "<f4").reshape(-1, 3)
    within = min(section.full * section.bucket_size, section.count)
    ends = np.concatenate([[0], lengths.cumsum()])
    numbers: npt.NDArray[np.int64] = np.arange(section.count)
    bucket = numbers // max(section.bucket_size, 1)
    bucket[within:] = section.full + np.searchsorted(ends, numbers[within:] - within, side="right") - 1
    if bucket.max() >= len(centres):
        raise FormatError(
            f"{path}: byte {section.start}: gaussians in more buckets than there are; the file is damaged"
        )
    made: Floats = centres[bucket].astype(np.float32)
    return made
