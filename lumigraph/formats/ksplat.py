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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lumigraph.formats.chunked import Stream, check_rows, empty_splats, find_nonfinite
from lumigraph.formats.io import Array, open_for_read
from lumigraph.formats.quantization import LOG_SCALE_LIMIT, LOGITS, Floats, blocks, splats_of
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
    asset: Splats = stream(path).gather()
    return asset


def stream(path: Path) -> Stream:
    """As `read`, in batches: the headers are judged at once, the gaussians as they are pulled."""
    path = Path(path)
    with open_for_read(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(HEADER_SIZE)
        if len(head) < HEADER_SIZE:
            raise FormatError(f"{path}: no .ksplat file: it ends inside its header of {HEADER_SIZE} bytes")
        major, minor, most, sections, _, count, level, low, high = HEADER.unpack_from(head)
        if (major, minor) != (0, 1) or level > 2 or max(most, sections) > MOST_SECTIONS:
            raise FormatError(f"{path}: byte 0: no .ksplat of version 0.1 and level 0 to 2; save it again as a PLY")
        found = _sections(file, most, level, size, path)
    if sum(section.count for section in found) != count or not count:
        raise FormatError(f"{path}: byte 16: {count} gaussians, which its sections do not hold; fetch it again")
    # Zeros mean that nobody wrote the bounds down: those of the program then.
    bounds = (low or -1.5, high or 1.5)
    widest = max(section.degree for section in found)

    def broken(bad: int, first: int) -> FormatError:
        return FormatError(
            f"{path}: {bad} of {count} gaussians have a place or size that is no finite number, or no rotation (the"
            f" first is number {first}); the file is damaged, fetch it again"
        )

    def judged() -> Iterator[tuple[Splats, Array]]:
        with open_for_read(path) as file:
            for section in found:
                for parts in _gaussians(file, section, level, bounds, widest, path):
                    yield splats_of(*parts), _broken(*parts)

    return Stream(empty_splats(widest), count, lambda: check_rows(judged(), broken))


def _broken(means: Floats, log_scales: Floats, quats: Floats, logits: Floats, sh: Floats) -> Array:
    """(N,) which of them cannot be shown."""
    longest = np.abs(quats).max(axis=1)  # its square must neither vanish nor overflow
    broken: Array = find_nonfinite(means, log_scales, quats, sh) | (log_scales.max(axis=1) > LOG_SCALE_LIMIT)
    broken |= (longest < 1e-12) | (longest > 1e12)
    return broken


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


def _gaussians(
    file: BinaryIO, section: _Section, level: int, bounds: tuple[float, float], widest: int, path: Path
) -> Iterator[Part]:
    """Means, log scales, quaternions, logits and harmonics up to the degree `widest`, some rows of a section each."""
    centre_of = None if level == 0 else _centres(file, section, path)
    file.seek(section.rows)
    for part in blocks(section.count):
        data = file.read((part.stop - part.start) * section.row.itemsize)
        if len(data) < (part.stop - part.start) * section.row.itemsize:
            raise FormatError(f"{path}: byte {file.tell()}: the file became shorter while it was read; try again")
        rows = np.frombuffer(data, section.row)
        means = rows["mean"].astype(np.float32)
        sh = np.zeros((len(rows), (widest + 1) ** 2, 3), np.float32)
        with np.errstate(all="ignore"):  # what is no number is judged by the caller
            if centre_of is not None:
                offsets = (rows["mean"] - float(section.middle)) * section.step
                means = (offsets + centre_of(np.arange(part.start, part.stop))).astype(np.float32)
            log_scales = np.log(rows["scale"].astype(np.float32))
        log_scales[np.isneginf(log_scales)] = SMALLEST  # flat, of which there is no logarithm
        sh[:, 0] = (rows["rgba"][:, :3] / np.float32(255) - 0.5) / C0
        rest = rows["rest"].astype(np.float32)
        if level == 2:
            rest = (bounds[0] + rest / 255 * (bounds[1] - bounds[0])).astype(np.float32)
        for degree in range(1, section.degree + 1):
            first, last = COEFFICIENTS[degree - 1], COEFFICIENTS[degree]
            sh[:, 1 + first : 1 + last] = rest[:, 3 * first : 3 * last].reshape(len(rows), 3, -1).transpose(0, 2, 1)
        yield means, log_scales, rows["turn"].astype(np.float32), LOGITS[rows["rgba"][:, 3]], sh


def _centres(file: BinaryIO, section: _Section, path: Path) -> Callable[[Array], Floats]:
    """(N,) numbers of gaussians -> (N, 3) the centres of their buckets."""
    file.seek(section.start)
    lengths = np.frombuffer(file.read(4 * section.partial), "<u4").astype(np.int64)
    centres = np.frombuffer(file.read(12 * section.buckets), "<f4").reshape(-1, 3)
    within = min(section.full * section.bucket_size, section.count)
    ends = np.concatenate([[0], lengths.cumsum()])

    def centre_of(numbers: Array) -> Floats:
        partial = section.full + np.searchsorted(ends, numbers - within, side="right") - 1
        bucket = np.where(numbers < within, numbers // max(section.bucket_size, 1), partial)
        if bucket.max() >= len(centres):
            raise FormatError(
                f"{path}: byte {section.start}: gaussians in more buckets than there are; the file is damaged"
            )
        made: Floats = centres[bucket].astype(np.float32)
        return made

    return centre_of
