"""LAS, the format of laser scanners and of the programs that measure in their clouds (ASPRS, "LAS Specification 1.4").

A header says where the records of the points begin, how many there are and how long one is; all is little-endian. A
position is three 32-bit whole numbers, times a scale, plus an offset. Written is version 1.4, point format 7 (with
colours of 16 bits) or 6 (without); read is every version and format that is not compressed. Normals have no place.

Without a system of reference, which we never have, programs take coordinates to be metres with z up.
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
from lumigraph.formats.xyz import check_single
from lumigraph.scene.assets import Asset, Points
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds

NAME = "LAS point cloud"
SUFFIXES = (".las",)
HOLDS: tuple[type, ...] = (Points,)
UP = "+z"
METRES = 1.0

# Magic, source, encoding, GUID, version; system, software; day, year, header size, where the points begin, further
# records, point format, record length, legacy count, legacy counts by return; scale, offset; max and min of each axis.
OLD_HEADER = struct.Struct("<4sHH16sBB32s32sHHHIIBHI20s3d3d6d")
# Where waveforms and extended records begin, number of the latter, count, counts by return.
NEW_HEADER = struct.Struct("<QQIQ15Q")
HEADER_SIZE = OLD_HEADER.size + NEW_HEADER.size
WKT = 1 << 4  # of the encoding: formats 6 and newer promise this kind of reference system, if any
COMPRESSED = 0xC0  # of the point format: LAZ
SHORTEST = (20, 28, 26, 34, 57, 63, 30, 36, 38, 59, 67)  # bytes of a record, by point format
COLOURS_AT = {2: 20, 3: 28, 5: 28, 7: 30, 8: 30, 10: 30}  # bytes into a record, by point format
ONLY_RETURN = 0x11  # the first return of one
RECORD = np.dtype(
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
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Options:
    """How fine the coordinates are.

    resolution: the step between two coordinates, in metres; as fine as 32-bit floats where none is given
    """

    resolution: Annotated[float, Bounds(1e-9, 1e3)] | None = None


# --- writing ---------------------------------------------------------------------------------------------------------


def write(asset: Asset, path: Path, options: Options = Options()) -> None:
    """Write atomically. Raises FormatError for anything but points, for NaN and infinity, for points farther apart than
    2^32 steps, and when the disk refuses."""
    drain(write_stream(Stream.from_asset(asset), path, options))


def write_stream(stream: Stream, path: Path, options: Options = Options()) -> Iterator[float]:
    """As `write`, while it is pulled; yields the share that is done."""
    path = Path(path)
    if not isinstance(stream.template, Points):
        raise FormatError(f"{path}: LAS holds points; choose .ply for gaussians, and .glb or .obj for a mesh")
    yield from (share / 2 for share in measure_extent(stream, path, drop_normals))
    low, high = to_numpy(stream.extent.bounds).astype(float)
    offset = np.rint((low + high) / 2)
    reach = float(np.abs([low - offset, high - offset]).max())
    step = options.resolution or _finest(reach)
    if reach / step >= LARGEST:
        raise FormatError(
            f"{path}: not written, because the points reach over {2 * reach:.3g} m, more than LAS holds in steps of"
            f" {step:g} m; choose a coarser resolution"
        )
    kind, done = 6 if stream.template.rgb is None else 7, 0
    with open_atomic(path) as file:
        file.write(_header(kind, stream.count, step, offset, low, high))
        for batch in check_batches(stream, path, drop_normals):
            rows = np.zeros(len(batch), RECORD if kind == 7 else RECORD.descr[:-1])
            rows["xyz"] = np.rint((to_numpy(batch.xyz) - offset) / step)
            rows["returns"] = ONLY_RETURN
            if batch.rgb is not None:
                rows["rgb"] = to_numpy(batch.rgb).astype(np.uint16) * 257  # 255 to 65535
            file.write(rows.tobytes())
            done += len(batch)
            yield (1 + done / stream.count) / 2


def _finest(reach: float) -> float:
    """The power of ten below the steps of 32-bit floats at `reach`."""
    return 10.0 ** math.floor(math.log10(max(reach, 1e-2) * 2.0**-24))


def _header(kind: int, count: int, step: float, offset: Array, low: Array, high: Array) -> bytes:
    today = datetime.datetime.now(datetime.UTC)
    bounds = np.stack([high, low], axis=1).reshape(-1)
    return OLD_HEADER.pack(
        *(b"LASF", 0, WKT, bytes(16), 1, 4, b"", b"Lumigraph"),
        *(today.timetuple().tm_yday, today.year, HEADER_SIZE, HEADER_SIZE, 0),
        *(kind, SHORTEST[kind], 0, bytes(20)),
        *(step, step, step, *offset, *bounds),
    ) + NEW_HEADER.pack(0, 0, 0, count, count, *[0] * 14)


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    kind: int
    start: int
    record: int  # bytes
    count: int
    scale: Array  # (3,)
    offset: Array  # (3,)


def read(path: Path) -> Points:
    """The points with their colours, unless all are black. Peak memory: the result plus ~20 MB.

    Raises FormatError for what is damaged, cut short or compressed (LAZ), and for points so far from the origin that
    32-bit floats would move them.
    """
    asset: Points = stream(path).gather()
    return asset


def stream(path: Path) -> Stream:
    """As `read`, in batches, after a pass over the file: where all points lie, and how bright the brightest is, says
    what they mean."""
    path = Path(path)
    low, high, brightest = np.full(3, np.inf), np.full(3, -np.inf), 0
    with open_for_read(path) as file:
        header = _read_header(file, path)
        for exact, colours in _records(file, header, path):
            low, high = np.minimum(low, exact.min(axis=0)), np.maximum(high, exact.max(axis=0))
            brightest = max(brightest, 0 if colours is None else int(colours.max()))
    if header.count:
        check_single(path, low, high)

    def batches() -> Iterator[Points]:
        with open_for_read(path) as file:
            for exact, colours in _records(file, header, path):
                rgb = None if colours is None or not brightest else _bytes(colours, brightest)
                yield Points(to_tensor(exact), None if rgb is None else to_tensor(rgb, np.uint8))

    return Stream(empty_points(brightest > 0, False), header.count, batches)


def _records(file: BinaryIO, header: Header, path: Path) -> Iterator[tuple[Array, Array | None]]:
    """(N, 3) float64 positions and, of formats that have them, uint16 colours."""
    file.seek(header.start)
    for first in range(0, header.count, BATCH_ROWS):
        rows = _rows(file, header, min(BATCH_ROWS, header.count - first), path)
        with np.errstate(over="ignore"):  # what is too large is infinite, and an error of the caller
            exact = _numbers(rows, 0, "<i4") * header.scale + header.offset
        yield exact, _numbers(rows, COLOURS_AT[header.kind], "<u2") if header.kind in COLOURS_AT else None


def _read_header(stream: BinaryIO, path: Path) -> Header:
    size = os.fstat(stream.fileno()).st_size
    data = stream.read(HEADER_SIZE)
    if len(data) < OLD_HEADER.size or data[:4] != b"LASF":
        raise FormatError(f"{path}: byte 0: no header of a LAS file; this is something else, or was cut short")
    fields = OLD_HEADER.unpack_from(data)
    minor, (start, _, kind, record, count) = fields[5], fields[11:16]
    if minor >= 4:
        if len(data) < HEADER_SIZE:
            raise FormatError(f"{path}: byte {len(data)}: the file ends inside its header; fetch it again")
        count = NEW_HEADER.unpack_from(data, OLD_HEADER.size)[3]
    if kind & COMPRESSED:
        raise FormatError(f"{path}: byte 104: compressed (LAZ), which is not read here; unpack it with laszip or PDAL")
    if kind >= len(SHORTEST) or record < SHORTEST[kind]:
        raise FormatError(f"{path}: byte 104: point format {kind} with {record} bytes a point is unknown or damaged")
    if start < OLD_HEADER.size or start + count * record > size:
        raise FormatError(
            f"{path}: byte {start}: the header announces {count} points of {record} bytes there, but the file has"
            f" {size} bytes; it was cut short, fetch it again"
        )
    scale, offset = np.array(fields[17:20]), np.array(fields[20:23])
    if not (np.isfinite(scale).all() and np.isfinite(offset).all() and (np.abs(scale) < 1e30).all()):
        raise FormatError(f"{path}: byte 131: the scale or the offset is not finite; the file is damaged")
    return Header(kind, start, record, count, scale, offset)


def _rows(stream: BinaryIO, header: Header, count: int, path: Path) -> Array:
    """(count, bytes of a record) uint8."""
    data = stream.read(count * header.record)
    if len(data) < count * header.record:
        raise FormatError(f"{path}: byte {stream.tell()}: the file ends inside its points; fetch it again")
    return np.frombuffer(data, np.uint8).reshape(count, header.record)


def _numbers(rows: Array, at: int, kind: str) -> Array:
    """(N, 3) numbers that stand `at` bytes into each row."""
    return np.ascontiguousarray(rows[:, at : at + 3 * np.dtype(kind).itemsize]).view(kind)


def _bytes(colours: Array, brightest: int) -> Array:
    """The standard wants 16 bits; files with 8 are common, and known by having nothing above."""
    return colours if brightest <= 255 else (colours.astype(np.uint32) + 128) // 257
