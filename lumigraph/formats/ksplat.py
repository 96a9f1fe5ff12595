"""`.ksplat` of mkkellogg's viewer (github.com/mkkellogg/GaussianSplats3D, MIT). Read-only.

The file is a header of 4096 bytes, a header of 1024 bytes for each section, and the sections. A section has its buckets
and then its gaussians: position, linear scales, quaternion w x y z, red green blue opacity in bytes, and the SH
coefficients above DC, by degree, within a degree all of red, then green, then blue. Level 0 stores floats. Level 1
stores half floats, and positions in 16 bits relative to the centre of a bucket. Level 2 is level 1 with SH coefficients
in bytes. A bucket holds a fixed number of gaussians; partial buckets come last, and their lengths precede the centres.
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
from lumigraph.formats.quantization import MAX_LOG_SCALE, OPACITY_LOGITS, Floats, block_slices, splats_from_arrays
from lumigraph.scene.assets import Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.harmonics import C0

NAME = "ksplat"
SUFFIXES = (".ksplat",)
HOLDS: tuple[type, ...] = ()
UP = "-y"
METRES = None

HEADER_BYTES, SECTION_HEADER_BYTES = 4096, 1024
HEADER_STRUCT = struct.Struct("<BBxxIIIIH14xff")
SECTION_STRUCT = struct.Struct("<IIIIfHxxIxxxxIIH")
DEFAULT_POSITION_RANGES = (1, 32767, 32767)  # by level, for a section without a range
FLAT_LOG_SCALE = -40.0  # replaces log(0) of a flat gaussian
SH_REST_COEFFICIENTS = (0, 3, 8, 15)  # number per channel, by degree
MAX_SECTIONS = 1 << 12


@dataclass(frozen=True)
class _Section:
    """Header of a section; `start` is the offset of its data."""

    start: int
    count: int
    bucket_size: int
    buckets: int
    step: float  # of a quantized position, world units
    position_offset: int
    full_buckets: int
    partial_buckets: int
    degree: int
    row: np.dtype[Any]

    @property
    def centres_start(self) -> int:
        return self.start + 4 * self.partial_buckets

    @property
    def rows_start(self) -> int:
        return self.centres_start + 12 * self.buckets


def read(path: Path) -> Splats:
    """Read gaussians. Sections of lower SH degree are padded with zeros. Raises FormatError for any other file."""
    asset: Splats = stream(path).gather()
    return asset


def stream(path: Path) -> Stream:
    """Read gaussians in batches. Checks the headers at once, and gaussians as they are pulled."""
    path = Path(path)
    with open_for_read(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(HEADER_BYTES)
        if len(head) < HEADER_BYTES:
            raise FormatError(f"{path}: not a .ksplat file: it ends inside its header of {HEADER_BYTES} bytes")
        major, minor, max_sections, section_count, _, count, level, low, high = HEADER_STRUCT.unpack_from(head)
        if (major, minor) != (0, 1) or level > 2 or max(max_sections, section_count) > MAX_SECTIONS:
            raise FormatError(f"{path}: byte 0: not a .ksplat of version 0.1 and level 0 to 2; save it again as a PLY")
        sections = _sections(file, max_sections, level, size, path)
    if sum(section.count for section in sections) != count or not count:
        raise FormatError(f"{path}: byte 16: {count} gaussians, which its sections do not hold; fetch it again")
    # Zeros mean that the bounds of the SH coefficients are not stored; these are the viewer's defaults.
    bounds = (low or -1.5, high or 1.5)
    max_degree = max(section.degree for section in sections)

    def make_error(bad: int, first: int) -> FormatError:
        return FormatError(
            f"{path}: {bad} of {count} gaussians have a position or size that is not finite, or no rotation (the"
            f" first is number {first}); the file is damaged, fetch it again"
        )

    def checked_batches() -> Iterator[tuple[Splats, Array]]:
        with open_for_read(path) as file:
            for section in sections:
                for parts in _gaussians(file, section, level, bounds, max_degree, path):
                    yield splats_from_arrays(*parts), _find_invalid(*parts)

    return Stream(empty_splats(max_degree), count, lambda: check_rows(checked_batches(), make_error))


def _find_invalid(means: Floats, log_scales: Floats, quats: Floats, logits: Floats, sh: Floats) -> Array:
    """(N,) mask of gaussians that cannot be rendered."""
    longest = np.abs(quats).max(axis=1)  # its square must neither vanish nor overflow
    is_invalid: Array = find_nonfinite(means, log_scales, quats, sh) | (log_scales.max(axis=1) > MAX_LOG_SCALE)
    is_invalid |= (longest < 1e-12) | (longest > 1e12)
    return is_invalid


def _sections(stream: BinaryIO, max_sections: int, level: int, size: int, path: Path) -> list[_Section]:
    """Read the headers of all sections; returns those with gaussians. Raises FormatError if their data is missing."""
    start = HEADER_BYTES + max_sections * SECTION_HEADER_BYTES
    sections = []
    for i in range(max_sections):
        data = stream.read(SECTION_HEADER_BYTES)
        if len(data) < SECTION_HEADER_BYTES:
            raise FormatError(
                f"{path}: byte {HEADER_BYTES + i * SECTION_HEADER_BYTES}: the file ends inside the header of a section"
            )
        (
            count,
            capacity,
            bucket_size,
            buckets,
            bucket_extent,
            bucket_bytes,
            position_range,
            full_buckets,
            partial_buckets,
            degree,
        ) = SECTION_STRUCT.unpack_from(data)
        position_range = position_range or DEFAULT_POSITION_RANGES[level]
        if degree > 3 or not count <= capacity or not np.isfinite(bucket_extent) or (buckets and bucket_bytes != 12):
            raise FormatError(
                f"{path}: byte {HEADER_BYTES + i * SECTION_HEADER_BYTES}: a section of an unknown type; fetch it again"
            )
        step = bucket_extent / 2 / position_range
        section = _Section(
            start,
            count,
            bucket_size,
            buckets,
            step,
            position_range,
            full_buckets,
            partial_buckets,
            degree,
            _row(level, degree),
        )
        start = section.rows_start + capacity * section.row.itemsize
        if start > size:
            raise FormatError(
                f"{path}: byte {HEADER_BYTES + i * SECTION_HEADER_BYTES}: a section announces {capacity} gaussians up"
                " to byte"
                f" {start} of a file of {size}; it was cut short, fetch it again"
            )
        if count:
            sections.append(section)
    return sections


def _row(level: int, degree: int) -> np.dtype[Any]:
    number_type, sh_rest = ("<f4", "<f4") if level == 0 else ("<f2", "<f2" if level == 1 else "u1")
    mean = "<f4" if level == 0 else "<u2"
    fields = [("mean", mean, 3), ("scale", number_type, 3), ("turn", number_type, 4), ("rgba", "u1", 4)]
    return np.dtype([*fields, ("rest", sh_rest, 3 * SH_REST_COEFFICIENTS[degree])])


SplatArrays = tuple[Floats, Floats, Floats, Floats, Floats]


def _gaussians(
    file: BinaryIO, section: _Section, level: int, bounds: tuple[float, float], max_degree: int, path: Path
) -> Iterator[SplatArrays]:
    """Yield means, log scales, quaternions, logits and SH coefficients up to `max_degree`, in blocks of a section."""
    centre_of = None if level == 0 else _centres(file, section, path)
    file.seek(section.rows_start)
    for part in block_slices(section.count):
        data = file.read((part.stop - part.start) * section.row.itemsize)
        if len(data) < (part.stop - part.start) * section.row.itemsize:
            raise FormatError(f"{path}: byte {file.tell()}: the file became shorter while it was read; try again")
        rows = np.frombuffer(data, section.row)
        means = rows["mean"].astype(np.float32)
        sh = np.zeros((len(rows), (max_degree + 1) ** 2, 3), np.float32)
        with np.errstate(all="ignore"):  # the caller checks for numbers that are not finite
            if centre_of is not None:
                offsets = (rows["mean"] - float(section.position_offset)) * section.step
                means = (offsets + centre_of(np.arange(part.start, part.stop))).astype(np.float32)
            log_scales = np.log(rows["scale"].astype(np.float32))
        log_scales[np.isneginf(log_scales)] = FLAT_LOG_SCALE  # flat gaussians
        sh[:, 0] = (rows["rgba"][:, :3] / np.float32(255) - 0.5) / C0
        sh_rest = rows["rest"].astype(np.float32)
        if level == 2:
            sh_rest = (bounds[0] + sh_rest / 255 * (bounds[1] - bounds[0])).astype(np.float32)
        for degree in range(1, section.degree + 1):
            first, last = SH_REST_COEFFICIENTS[degree - 1], SH_REST_COEFFICIENTS[degree]
            sh[:, 1 + first : 1 + last] = sh_rest[:, 3 * first : 3 * last].reshape(len(rows), 3, -1).transpose(0, 2, 1)
        yield means, log_scales, rows["turn"].astype(np.float32), OPACITY_LOGITS[rows["rgba"][:, 3]], sh


def _centres(file: BinaryIO, section: _Section, path: Path) -> Callable[[Array], Floats]:
    """Return a function that maps indices of gaussians (N,) to the centres of their buckets (N, 3)."""
    file.seek(section.start)
    lengths = np.frombuffer(file.read(4 * section.partial_buckets), "<u4").astype(np.int64)
    centres = np.frombuffer(file.read(12 * section.buckets), "<f4").reshape(-1, 3)
    full_count = min(section.full_buckets * section.bucket_size, section.count)
    ends = np.concatenate([[0], lengths.cumsum()])

    def centre_of(indices: Array) -> Floats:
        partial_index = section.full_buckets + np.searchsorted(ends, indices - full_count, side="right") - 1
        bucket_index = np.where(indices < full_count, indices // max(section.bucket_size, 1), partial_index)
        if bucket_index.max() >= len(centres):
            raise FormatError(
                f"{path}: byte {section.start}: gaussians in more buckets than there are; the file is damaged"
            )
        bucket_centres: Floats = centres[bucket_index].astype(np.float32)
        return bucket_centres

    return centre_of
