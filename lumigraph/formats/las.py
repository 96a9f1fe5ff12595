"""LAS, the format of laser scanners and survey software (ASPRS, "LAS Specification 1.4").

The header gives the offset, number and length of the point records; everything is little-endian. A position is three
32-bit integers, times a scale, plus an offset. Writes version 1.4, point format 7 (with 16-bit colours) or 6 (without).
Reads every version and point format that is not compressed. Normals cannot be stored.

The files have no coordinate reference system, so programs interpret coordinates as metres with z up.
"""

from __future__ import annotations

import datetime
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

import numpy as np

from lumigraph.formats.chunked import (
    BATCH_ROWS,
    Stream,
    check_batches,
    drain,
    drop_normals,
    empty_points,
    measure_extent,
)
from lumigraph.formats.io import Array, open_atomic, open_for_read, to_numpy, to_tensor
from lumigraph.formats.xyz import check_float32_precision
from lumigraph.scene.assets import Asset, Points
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds

NAME = "LAS point cloud"
SUFFIXES = (".las",)
HOLDS: tuple[type, ...] = (Points,)
UP = "+z"
METRES = 1.0

# Magic, source, encoding, GUID, version; system, software; day, year, header size, offset of the points, number of
# variable records, point format, record length, legacy count, legacy counts by return; scale, offset; max and min of
# each axis.
LEGACY_HEADER = struct.Struct("<4sHH16sBB32s32sHHHIIBHI20s3d3d6d")
# Offsets of waveforms and extended records, number of extended records, count, counts by return.
HEADER_EXTENSION = struct.Struct("<QQIQ15Q")
LAS_HEADER_BYTES = LEGACY_HEADER.size + HEADER_EXTENSION.size
WKT_FLAG = 1 << 4  # global encoding: formats 6 and newer must declare WKT for a coordinate reference system, if any
LAZ_FLAGS = 0xC0  # bits of the point format
MIN_RECORD_BYTES = (20, 28, 26, 34, 57, 63, 30, 36, 38, 59, 67)  # by point format
COLOUR_OFFSETS = {2: 20, 3: 28, 5: 28, 7: 30, 8: 30, 10: 30}  # bytes into a record, by point format
SINGLE_RETURN = 0x11  # first return of one
POINT_RECORD = np.dtype(
    [
        ("xyz", "<i4", 3),
        ("intensity", "<u2"),
        ("returns", "u1"),
        ("flags", "u1"),
        ("class", "u1"),
        ("user", "u1"),
        ("angle", "<i2"),
        ("source", "<u2"),
        ("time", "<f8"),
        ("rgb", "<u2", 3),
    ]
)
MAX_COORDINATE = 2**31 - 1


@dataclass(frozen=True)
class Options:
    """Precision of the coordinates.

    resolution: step between coordinates in metres; empty matches 32-bit floats
    """

    resolution: Annotated[float, Bounds(1e-9, 1e3)] | None = None


# --- writing ---------------------------------------------------------------------------------------------------------


def write(asset: Asset, path: Path, options: Options = Options()) -> None:
    """Write atomically.

    Raises FormatError for an asset that is not points, for NaN or infinity, for points more than 2^32 steps apart, and
    on disk errors.
    """
    drain(write_stream(Stream.from_asset(asset), path, options))


def write_stream(stream: Stream, path: Path, options: Options = Options()) -> Iterator[float]:
    """Write like `write` while it is pulled; yields the fraction completed."""
    path = Path(path)
    if not isinstance(stream.template, Points):
        raise FormatError(f"{path}: LAS holds points; choose .ply for gaussians, and .glb or .obj for a mesh")
    yield from (fraction / 2 for fraction in measure_extent(stream, path, drop_normals))
    low, high = to_numpy(stream.extent.bounds).astype(float)
    offset = np.rint((low + high) / 2)
    max_offset = float(np.abs([low - offset, high - offset]).max())
    step = options.resolution or _finest_step(max_offset)
    if max_offset / step >= MAX_COORDINATE:
        raise FormatError(
            f"{path}: not written, because the points extend over {2 * max_offset:.3g} m, more than LAS holds in steps"
            " of"
            f" {step:g} m; choose a coarser resolution"
        )
    point_format, row_count = 6 if stream.template.rgb is None else 7, 0
    with open_atomic(path) as file:
        file.write(_header(point_format, stream.count, step, offset, low, high))
        for batch in check_batches(stream, path, drop_normals):
            rows = np.zeros(len(batch), POINT_RECORD if point_format == 7 else POINT_RECORD.descr[:-1])
            rows["xyz"] = np.rint((to_numpy(batch.xyz) - offset) / step)
            rows["returns"] = SINGLE_RETURN
            if batch.rgb is not None:
                rows["rgb"] = to_numpy(batch.rgb).astype(np.uint16) * 257  # 255 to 65535
            file.write(rows.tobytes())
            row_count += len(batch)
            yield (1 + row_count / stream.count) / 2


def _finest_step(max_offset: float) -> float:
    """The power of ten below the precision of 32-bit floats at `max_offset`."""
    return 10.0 ** math.floor(math.log10(max(max_offset, 1e-2) * 2.0**-24))


def _header(point_format: int, count: int, step: float, offset: Array, low: Array, high: Array) -> bytes:
    today = datetime.datetime.now(datetime.UTC)
    bounds = np.stack([high, low], axis=1).reshape(-1)
    return LEGACY_HEADER.pack(
        *(b"LASF", 0, WKT_FLAG, bytes(16), 1, 4, b"", b"Lumigraph"),
        *(today.timetuple().tm_yday, today.year, LAS_HEADER_BYTES, LAS_HEADER_BYTES, 0),
        *(point_format, MIN_RECORD_BYTES[point_format], 0, bytes(20)),
        *(step, step, step, *offset, *bounds),
    ) + HEADER_EXTENSION.pack(0, 0, 0, count, count, *[0] * 14)


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    point_format: int
    data_start: int
    record_bytes: int  # bytes
    count: int
    scale: Array  # (3,)
    offset: Array  # (3,)


def read(path: Path) -> Points:
    """Read points, with their colours unless all are black. Peak memory: the result plus ~20 MB.

    Raises FormatError for a damaged, truncated or compressed (LAZ) file, and for points so far from the origin that
    32-bit floats would move them.
    """
    asset: Points = stream(path).gather()
    return asset


def stream(path: Path) -> Stream:
    """Read points in batches. A first pass finds the bounds and the brightest colour, which sets the colour range."""
    path = Path(path)
    low, high, brightest = np.full(3, np.inf), np.full(3, -np.inf), 0
    with open_for_read(path) as file:
        header = _read_header(file, path)
        for positions, colours in _records(file, header, path):
            low, high = np.minimum(low, positions.min(axis=0)), np.maximum(high, positions.max(axis=0))
            brightest = max(brightest, 0 if colours is None else int(colours.max()))
    if header.count:
        check_float32_precision(path, low, high)

    def batches() -> Iterator[Points]:
        with open_for_read(path) as file:
            for positions, colours in _records(file, header, path):
                rgb = None if colours is None or not brightest else _bytes(colours, brightest)
                yield Points(to_tensor(positions), None if rgb is None else to_tensor(rgb, np.uint8))

    return Stream(empty_points(brightest > 0, False), header.count, batches)


def _records(file: BinaryIO, header: Header, path: Path) -> Iterator[tuple[Array, Array | None]]:
    """Yield (N, 3) float64 positions and, if the point format has colours, (N, 3) uint16."""
    file.seek(header.data_start)
    for first in range(0, header.count, BATCH_ROWS):
        rows = _rows(file, header, min(BATCH_ROWS, header.count - first), path)
        with np.errstate(over="ignore"):  # the caller checks for infinity
            positions = _read_triples(rows, 0, "<i4") * header.scale + header.offset
        colour_offset = COLOUR_OFFSETS.get(header.point_format)
        yield positions, None if colour_offset is None else _read_triples(rows, colour_offset, "<u2")


def _read_header(stream: BinaryIO, path: Path) -> Header:
    size = os.fstat(stream.fileno()).st_size
    data = stream.read(LAS_HEADER_BYTES)
    if len(data) < LEGACY_HEADER.size or data[:4] != b"LASF":
        raise FormatError(f"{path}: byte 0: not a LAS header; the file is of another type or was cut short")
    fields = LEGACY_HEADER.unpack_from(data)
    minor, (data_start, _, point_format, record_bytes, count) = fields[5], fields[11:16]
    if minor >= 4:
        if len(data) < LAS_HEADER_BYTES:
            raise FormatError(f"{path}: byte {len(data)}: the file ends inside its header; fetch it again")
        count = HEADER_EXTENSION.unpack_from(data, LEGACY_HEADER.size)[3]
    if point_format & LAZ_FLAGS:
        raise FormatError(f"{path}: byte 104: compressed (LAZ), which is not supported; unpack it with laszip or PDAL")
    if point_format >= len(MIN_RECORD_BYTES) or record_bytes < MIN_RECORD_BYTES[point_format]:
        raise FormatError(
            f"{path}: byte 104: point format {point_format} with {record_bytes} bytes a point is unknown or damaged"
        )
    if data_start < LEGACY_HEADER.size or data_start + count * record_bytes > size:
        raise FormatError(
            f"{path}: byte {data_start}: the header announces {count} points of {record_bytes} bytes there, but the"
            " file has"
            f" {size} bytes; it was cut short, fetch it again"
        )
    scale, offset = np.array(fields[17:20]), np.array(fields[20:23])
    if not (np.isfinite(scale).all() and np.isfinite(offset).all() and (np.abs(scale) < 1e30).all()):
        raise FormatError(f"{path}: byte 131: the scale or the offset is not finite; the file is damaged")
    return Header(point_format, data_start, record_bytes, count, scale, offset)


def _rows(stream: BinaryIO, header: Header, count: int, path: Path) -> Array:
    """(count, bytes of a record) uint8."""
    data = stream.read(count * header.record_bytes)
    if len(data) < count * header.record_bytes:
        raise FormatError(f"{path}: byte {stream.tell()}: the file ends inside its points; fetch it again")
    return np.frombuffer(data, np.uint8).reshape(count, header.record_bytes)


def _read_triples(rows: Array, offset: int, number_type: str) -> Array:
    """(N, 3) numbers at a byte offset in each row."""
    return np.ascontiguousarray(rows[:, offset : offset + 3 * np.dtype(number_type).itemsize]).view(number_type)


def _bytes(colours: Array, brightest: int) -> Array:
    """The standard wants 16 bits; files with 8 are common, and known by having nothing above."""
    return colours if brightest <= 255 else (colours.astype(np.uint32) + 128) // 257
