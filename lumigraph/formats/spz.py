"""SPZ, the compressed gaussians of Niantic (github.com/nianticlabs/spz, MIT): a tenth of a PLY, for the web.

A header of 16 bytes (magic "NGSP", version, count, SH degree, fractional bits, flags, zero; little-endian) is followed
by the attributes of all gaussians, one attribute after the other:

* positions, 3 x 24-bit fixed point with `fractional bits` after the point (version 1: half floats)
* alphas, a byte: the sigmoid of the logit * 255
* colours, 3 bytes: (0.15 * DC + 0.5) * 255
* scales, 3 bytes: (natural log + 10) * 16, so from 4.5e-5 to 379 units in steps of 6 %
* rotations, of a unit quaternion. Versions 1 and 2: 3 bytes, x y z with w >= 0, v * 127.5 + 127.5. Versions 3 and 4:
  a word, 2 bits with the index of the largest of x y z w, then the others as a sign and 9 bits of 0 to sqrt(1/2)
* SH coefficients above DC, a byte each: v * 128 + 128, by coefficient with red green blue inside

Up to version 3 the file is one gzip stream (some programs do not compress it). Version 4 has an uncompressed header of
32 bytes and one Zstandard frame for each attribute. Byte 15 of the header is the number of frames, the next four bytes
are the offset of their table, which has two 64-bit sizes for each, compressed and plain. Extensions are records of a
type, a length and a payload. They follow the attributes up to version 3 and precede the table in version 4.

The axes of the file are right-up-back, those of a trainer's PLY are right-down-front. For the same scene they differ by
half a turn about x, as UP states. This module does not change the coordinates.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Annotated, Any, BinaryIO, Literal, cast

import numpy as np
import numpy.typing as npt
import zstandard

from lumigraph.formats.chunked import Stream, TopK, check_batches, check_splats, drain, empty_splats
from lumigraph.formats.io import Array, open_atomic, open_for_read, open_spool, to_numpy
from lumigraph.formats.quantization import (
    SQRT_HALF,
    Bytes,
    Floats,
    block_slices,
    drop_largest,
    normalize_quats,
    quantize_opacities,
    restore_largest,
    round_to_bytes,
    splats_from_arrays,
)
from lumigraph.scene.assets import Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds

NAME = "SPZ"
SUFFIXES = (".spz",)
HOLDS: tuple[type, ...] = (Splats,)
UP = "+y"
METRES = None

SPZ_MAGIC = 0x5053474E
HEADER_STRUCT = struct.Struct("<IIIBBBB")
HEADER_V4_STRUCT = struct.Struct("<IIIBBBBI12x")
TABLE_STRUCT = struct.Struct("<QQ")
EXTENSION_STRUCT = struct.Struct("<II")
GZIP_LEVEL = 1  # higher levels take longer and gain little on such data
ZSTD_LEVEL = 3
MIN_FRACTIONAL_BITS, MAX_FRACTIONAL_BITS = 4, 16  # steps of 1/16 to 1/65536 of a unit
MAX_FIXED_POINT = 2**23 - 1  # of a signed 24-bit integer
OUTLIER_FRACTION = 0.001  # fraction of far gaussians that must not reduce the precision of all others
COLOUR_SCALE = 0.15
# Quantization steps of SH bytes as in the reference implementation: finer ones are invisible and compress badly.
SH_STEP_DEGREE_1, SH_STEP_HIGHER = 8, 16
MAX_COMPRESSION_RATIO = 100  # no real scene compresses better; limits memory beyond FREE_BYTES
FREE_BYTES = 1 << 24
SKIP_BYTES = 1 << 20  # read size for skipped data
POSITION_FLOAT_BYTES = 12  # three floats
MIN_WINDOW_BYTES, MAX_WINDOW_BYTES = 1 << 23, 1 << 27  # Zstandard window
EXTENSIONS_MAX_BYTES = 1 << 16  # only this much of the extensions is read
HAS_EXTENSIONS_FLAG = 2  # bit of the flags
# The extension that declares the axes of the file, and its supported values; the default is right-up-back.
AXES_EXTENSION, SUPPORTED_AXES = 0xADBE0003, (0, 4)
SH_REST_COEFFICIENTS = (0, 3, 8, 15, 24)  # number per channel, by degree


# --- writing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """File version and SH degree.

    version: 2 is supported everywhere; 3 and 4 have finer rotations, and 4 decompresses faster
    sh_degree: keep SH coefficients (view-dependent colour) up to this degree; empty keeps all
    """

    version: Literal[2, 3, 4] = 2
    sh_degree: Annotated[int, Bounds(0, 3)] | None = None


def write(asset: Splats, path: Path, options: Options = Options()) -> None:
    """Write atomically: `path` is complete or untouched.

    Clips values out of range. The step of positions is enlarged so that all fit within 2^23 steps, except for a few
    outliers, which are clipped. Raises FormatError for an asset that is not splats, for NaN or infinity, and on
    disk errors.
    """
    drain(write_stream(Stream.from_asset(asset), path, options))


def write_stream(stream: Stream, path: Path, options: Options = Options()) -> Iterator[float]:
    """Write like `write` while it is pulled; yields the fraction completed.

    The attributes are first collected in a temporary file, each at its offset. Positions stay floats there, since their
    step depends on all of them.
    """
    path = Path(path)
    check_splats(stream, path, NAME)
    assert isinstance(stream.template, Splats)
    degree = (
        stream.template.sh_degree if options.sh_degree is None else min(stream.template.sh_degree, options.sh_degree)
    )
    header, row_count = _Header(options.version, stream.count, degree, 0, 0), 0
    with open_atomic(path) as file, open_spool(path) as spool:
        offsets = [
            stream.count * sum((POSITION_FLOAT_BYTES, *header.widths[1:])[:i]) for i in range(len(header.widths))
        ]
        farthest = TopK(1 + int(stream.count * OUTLIER_FRACTION))
        for batch in check_batches(stream, path):
            farthest.add(np.abs(to_numpy(batch.means)).max(axis=1))
            for i, column in enumerate(_quantize(batch, header)):
                spool.seek(offsets[i])
                offsets[i] += spool.write(column.tobytes())
            row_count += len(batch)
            yield row_count / stream.count / 2
        header = replace(header, bits=fractional_bits(*farthest.ends()))
        spool.seek(0)
        compress = _write_zstd_frames if header.version == 4 else _write_gzip
        yield from (0.5 + fraction / 2 for fraction in compress(spool, header, file))


def _quantize(splats: Splats, header: _Header) -> list[Array]:
    """Positions as floats, and the bytes of the other attributes."""
    sh = to_numpy(splats.sh)
    return [
        to_numpy(splats.means),
        quantize_opacities(to_numpy(splats.logit_opacities)),
        round_to_bytes((sh[:, 0] * COLOUR_SCALE + 0.5) * 255),
        round_to_bytes((to_numpy(splats.log_scales) + 10) * 16),
        (_quantize_rotations_v2 if header.version == 2 else _quantize_rotations_v3)(to_numpy(splats.quats)),
        _quantize_sh_rest(sh[:, 1 : 1 + SH_REST_COEFFICIENTS[header.degree]]),
    ]


def _write_gzip(spool: IO[bytes], header: _Header, file: BinaryIO) -> Iterator[float]:
    compressor = zlib.compressobj(GZIP_LEVEL, wbits=zlib.MAX_WBITS + 16)  # + 16: gzip format, without name and time
    file.write(compressor.compress(HEADER_STRUCT.pack(*header.fields, 0)))
    byte_count = 0
    for attribute in _attributes(spool, header):
        for data in attribute:
            file.write(compressor.compress(data))
            byte_count += len(data)
            yield byte_count / header.size
    file.write(compressor.flush())


def _write_zstd_frames(spool: IO[bytes], header: _Header, file: BinaryIO) -> Iterator[float]:
    widths = [width for width in header.widths if width]
    file.write(HEADER_V4_STRUCT.pack(*header.fields, len(widths), HEADER_V4_STRUCT.size))
    file.write(bytes(len(widths) * TABLE_STRUCT.size))  # filled in below
    table, byte_count = b"", 0
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=os.cpu_count() or 1)
    for width, attribute in zip(widths, _attributes(spool, header), strict=False):
        start, size = file.tell(), header.count * width
        with compressor.stream_writer(file, size=size, closefd=False) as frame:
            for data in attribute:
                frame.write(data)
                byte_count += len(data)
                yield byte_count / header.size
        table += TABLE_STRUCT.pack(file.tell() - start, size)
    file.seek(HEADER_V4_STRUCT.size)
    file.write(table)


def _attributes(spool: IO[bytes], header: _Header) -> Iterator[Iterator[bytes]]:
    """Yield for each attribute an iterator of its bytes, in blocks."""
    for i, width in enumerate((POSITION_FLOAT_BYTES, *header.widths[1:])):
        blocks = (spool.read((part.stop - part.start) * width) for part in block_slices(header.count))
        yield blocks if i else (_encode_position_block(data, header.bits) for data in blocks)


def _encode_position_block(data: bytes, bits: int) -> bytes:
    return _quantize_positions(np.frombuffer(data, "<f4").reshape(-1, 3), bits).tobytes()


def fractional_bits(farthest: float, nearer: float) -> int:
    """Largest number of fractional bits that fits all coordinates up to `farthest`.

    If that leaves fewer than 12 bits, fits only coordinates up to `nearer`, which excludes a few outliers.
    """
    bits = _bits_for(farthest)
    return bits if bits >= 12 else min(12, _bits_for(nearer))


def _bits_for(max_coordinate: float) -> int:
    if max_coordinate <= 0:
        return MAX_FRACTIONAL_BITS
    return min(max(math.floor(math.log2(MAX_FIXED_POINT / max_coordinate)), MIN_FRACTIONAL_BITS), MAX_FRACTIONAL_BITS)


def _quantize_positions(means: Floats, bits: int) -> Bytes:
    """(N, 3) -> (N, 3, 3): the three low bytes of little-endian integers."""
    fixed = np.rint(means.astype(np.float64) * 2**bits).clip(-MAX_FIXED_POINT, MAX_FIXED_POINT).astype("<i4")
    return np.ascontiguousarray(fixed).view(np.uint8).reshape(-1, 3, 4)[:, :, :3]


def _quantize_rotations_v2(quats: Floats) -> Bytes:
    """(N, 4) w x y z of any length -> (N, 3) bytes of versions 1 and 2.

    Half a turn about one of its own axes leaves a gaussian unchanged, and moves another component of its quaternion to
    w. The largest component is moved there: w is not stored, and its reconstruction is inaccurate if it is small.
    """
    unit_quats = normalize_quats(quats)
    largest = np.abs(unit_quats).argmax(axis=1)
    rotated = np.take_along_axis(unit_quats, HALF_TURN_COMPONENTS[largest], 1) * HALF_TURN_SIGNS[largest]
    rotated = np.where(rotated[:, :1] < 0, -rotated, rotated)
    return round_to_bytes(rotated[:, 1:] * 127.5 + 127.5)


# q, q i, q j and q k: source component and sign of each component.
HALF_TURN_COMPONENTS = np.array([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]])
HALF_TURN_SIGNS = np.array([[1, 1, 1, 1], [-1, 1, 1, -1], [-1, -1, 1, 1], [-1, 1, -1, 1]], np.float32)


def _quantize_rotations_v3(quats: Floats) -> Bytes:
    """(N, 4) w x y z of any length -> (N, 4) bytes of versions 3 and 4."""
    largest, components = drop_largest(np.roll(normalize_quats(quats), -1, axis=1))
    word: npt.NDArray[Any] = largest.astype(np.uint32)
    for j in range(3):
        magnitude = np.rint(np.abs(components[:, j]) * (511 / SQRT_HALF)).clip(0, 511).astype(np.uint32)
        word = word << 10 | (components[:, j] < 0).astype(np.uint32) << 9 | magnitude
    return word.astype("<u4").view(np.uint8).reshape(-1, 4)


def _quantize_sh_rest(sh_rest: Floats) -> Bytes:
    """(N, K - 1, 3) SH coefficients above DC -> bytes of the same shape."""
    step = np.where(np.arange(sh_rest.shape[1]) < 3, np.float32(SH_STEP_DEGREE_1), np.float32(SH_STEP_HIGHER))[
        None, :, None
    ]
    return round_to_bytes(128 + np.rint(sh_rest * (128 / step)) * step)


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Header:
    version: int
    count: int
    degree: int
    bits: int
    flags: int

    @property
    def fields(self) -> tuple[int, ...]:
        """Fields at the beginning of every file."""
        return SPZ_MAGIC, self.version, self.count, self.degree, self.bits, self.flags

    @property
    def widths(self) -> list[int]:
        """Bytes per gaussian of each attribute."""
        return [
            6 if self.version == 1 else 9,
            1,
            3,
            3,
            4 if self.version > 2 else 3,
            3 * SH_REST_COEFFICIENTS[self.degree],
        ]

    @property
    def size(self) -> int:
        """Bytes of all attributes."""
        return self.count * sum(self.widths)


def read(path: Path) -> Splats:
    """Read gaussians of versions 1 to 4, accurate to the quantization step. Raises FormatError for any other file.

    Drops the coefficients of SH degree 4, which only blurs view-dependent colour. Decompresses no more than the header
    announces, which must be plausible for the file size.
    """
    asset: Splats = _stream(Path(path), math.inf).gather()
    return asset


def stream(path: Path) -> Stream:
    """Read gaussians in batches. Up to version 3 a large file is decompressed once for each attribute."""
    return _stream(Path(path), FREE_BYTES)


def _stream(path: Path, max_bytes: float) -> Stream:
    """Read gaussians in batches; decompresses at most `max_bytes` into memory at once."""
    with _translate_errors(path), open_for_read(path) as file:
        header = _read_header(file, path)
    return Stream(empty_splats(min(header.degree, 3)), header.count, lambda: _batches(path, header, max_bytes))


def _batches(path: Path, header: _Header, max_bytes: float) -> Iterator[Splats]:
    rest_columns = 3 * SH_REST_COEFFICIENTS[min(header.degree, 3)]
    with _translate_errors(path), ExitStack() as stack:
        attributes = (
            _open_zstd_attributes(stack, header, path)
            if header.version == 4
            else _open_gzip_attributes(stack, header, max_bytes, path)
        )
        for part in block_slices(header.count):
            count = part.stop - part.start
            positions, alphas, colours, scales, rotations, sh_rest = (
                _rows(attribute, count, width, header, path)
                for attribute, width in zip(attributes, header.widths, strict=True)
            )
            means, sh = _decode_positions(positions, header), np.empty((count, 1 + rest_columns // 3, 3), np.float32)
            if header.version == 1 and not np.isfinite(means).all():
                raise FormatError(f"{path}: some positions are NaN or infinity; the file is damaged, fetch it again")
            sh[:, 0] = DC_BY_BYTE[colours]
            sh[:, 1:] = SH_BY_BYTE[sh_rest[:, :rest_columns]].reshape(count, rest_columns // 3, 3)
            yield splats_from_arrays(
                means, LOG_SCALE_BY_BYTE[scales], _decode_rotations(rotations, header), LOGIT_BY_BYTE[alphas[:, 0]], sh
            )
        if header.version < 4 and header.flags & HAS_EXTENSIONS_FLAG:
            _check_extensions(attributes[-1].read(EXTENSIONS_MAX_BYTES), path)


@contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise FormatError(f"{path}: cannot be read as SPZ ({error}); fetch it again") from error


BYTE_VALUES = np.arange(256)
LOGIT_BY_BYTE: Floats = np.log(BYTE_VALUES.clip(0.5, 254.5) / (255 - BYTE_VALUES.clip(0.5, 254.5))).astype(np.float32)
DC_BY_BYTE: Floats = ((BYTE_VALUES / 255 - 0.5) / COLOUR_SCALE).astype(np.float32)
LOG_SCALE_BY_BYTE: Floats = (BYTE_VALUES / 16 - 10).astype(np.float32)
SH_BY_BYTE: Floats = ((BYTE_VALUES - 128) / 128).astype(np.float32)


def _read_header(file: BinaryIO, path: Path) -> _Header:
    """Read and check the header; in version 4 also the frame table and the extensions."""
    size = os.fstat(file.fileno()).st_size
    if file.read(8) == struct.pack("<II", SPZ_MAGIC, 4):
        file.seek(0)
        data = file.read(HEADER_V4_STRUCT.size)
        if len(data) < HEADER_V4_STRUCT.size:
            raise FormatError(f"{path}: not an SPZ file: it ends inside its header")
        header = _check_header(_Header(*HEADER_V4_STRUCT.unpack(data)[1:6]), (4,), size, path)
        _check_table(file, header, size, path)
        return header
    with ExitStack() as stack:
        data = _open_plain(stack, path).read(HEADER_STRUCT.size)
    if len(data) < HEADER_STRUCT.size:
        raise FormatError(f"{path}: not an SPZ file: it ends inside its header")
    magic, *fields, _ = HEADER_STRUCT.unpack(data)
    if magic != SPZ_MAGIC:
        raise FormatError(f"{path}: not an SPZ file, though it is compressed like one; check its type")
    return _check_header(_Header(*fields), (1, 2, 3), size, path)


def _open_plain(stack: ExitStack, path: Path) -> IO[bytes]:
    """Open versions 1 to 3 and undo the gzip compression, which some programs do not apply."""
    file = stack.enter_context(open_for_read(path))
    is_plain = file.read(4) == struct.pack("<I", SPZ_MAGIC)
    file.seek(0)
    return file if is_plain else cast(IO[bytes], stack.enter_context(gzip.open(file)))


def _open_gzip_attributes(stack: ExitStack, header: _Header, max_bytes: float, path: Path) -> list[IO[bytes]]:
    """Open the attributes of versions 1 to 3: in memory if small, else one decompressed file positioned at each."""
    if header.size <= max_bytes:
        plain = _open_plain(stack, path)
        plain.read(HEADER_STRUCT.size)
        sizes = [header.count * width for width in header.widths]
        return [io.BytesIO(plain.read(size)) for size in (*sizes[:-1], sizes[-1] + EXTENSIONS_MAX_BYTES)]
    attributes: list[IO[bytes]] = []
    start = HEADER_STRUCT.size
    for width in header.widths:
        attributes.append(plain := _open_plain(stack, path))
        for first in range(0, start, SKIP_BYTES):
            plain.read(min(SKIP_BYTES, start - first))
        start += header.count * width
    return attributes


def _check_table(file: BinaryIO, header: _Header, size: int, path: Path) -> list[int]:
    """Check the frame table of version 4; returns the offset of each frame."""
    file.seek(HEADER_STRUCT.size - 1)
    stream_count, table = struct.unpack("<BI", file.read(5))
    widths = [width for width in header.widths if width]
    if stream_count != len(widths) or not HEADER_V4_STRUCT.size <= table <= size - stream_count * TABLE_STRUCT.size:
        raise FormatError(
            f"{path}: byte 15: {stream_count} streams listed at byte {table} are not those of SPZ; fetch it again"
        )
    if header.flags & HAS_EXTENSIONS_FLAG:
        file.seek(HEADER_V4_STRUCT.size)
        _check_extensions(file.read(min(EXTENSIONS_MAX_BYTES, table - HEADER_V4_STRUCT.size)), path)
    file.seek(table)
    starts = [table + stream_count * TABLE_STRUCT.size]
    for width, (column, plain) in zip(
        widths, TABLE_STRUCT.iter_unpack(file.read(stream_count * TABLE_STRUCT.size)), strict=True
    ):
        if plain != header.count * width or column > size - starts[-1]:
            raise FormatError(
                f"{path}: byte {table}: streams that do not fit {header.count} gaussians or the file; it was cut short"
                " or"
                " damaged, fetch it again"
            )
        starts.append(starts[-1] + column)
    return starts[:-1]


def _open_zstd_attributes(stack: ExitStack, header: _Header, path: Path) -> list[IO[bytes]]:
    """Open the attributes of version 4. Decompresses no more of a frame than is read."""
    with open_for_read(path) as file:
        starts = _check_table(file, header, os.fstat(file.fileno()).st_size, path)
    attributes: list[IO[bytes]] = []
    for start, width in zip(starts, header.widths, strict=False):
        file = stack.enter_context(open_for_read(path))
        file.seek(start)
        window = min(max(header.count * width, MIN_WINDOW_BYTES), MAX_WINDOW_BYTES)
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << (window - 1).bit_length())
        attributes.append(stack.enter_context(decompressor.stream_reader(file)))
    return attributes if header.degree else [*attributes, io.BytesIO()]


def _rows(attribute: IO[bytes], count: int, width: int, header: _Header, path: Path) -> Bytes:
    data = attribute.read(count * width)
    if len(data) < count * width:
        raise FormatError(
            f"{path}: the file ends before its {header.count} gaussians do; it was cut short, fetch it again"
        )
    return np.frombuffer(data, np.uint8).reshape(count, width)


def _check_header(header: _Header, versions: tuple[int, ...], size: int, path: Path) -> _Header:
    if header.version not in versions:
        raise FormatError(
            f"{path}: SPZ of version {header.version}, but {', '.join(map(str, versions))} is expected; update"
            " Lumigraph or"
            " save it as a PLY"
        )
    if header.degree > 4 or header.bits > 24:
        raise FormatError(
            f"{path}: byte 12: harmonics of degree {header.degree} and {header.bits} fractional bits are not SPZ; the"
            " file is damaged, fetch it again"
        )
    if header.size > max(FREE_BYTES, size * MAX_COMPRESSION_RATIO):
        raise FormatError(
            f"{path}: byte 8: the header announces {header.count} gaussians, {header.size} bytes, which no file of"
            f" {size}"
            " bytes holds; it is damaged, fetch it again"
        )
    return header


def _check_extensions(data: bytes, path: Path) -> None:
    """Raises FormatError if an extension declares axes other than those of the format."""
    for kind, payload in _iterate_extensions(data):
        axes = int.from_bytes(payload[:4], "little")
        if kind == AXES_EXTENSION and axes not in SUPPORTED_AXES:
            raise FormatError(
                f"{path}: its axes are rotated (SPZ_ADOBE_coordinate_system {axes}), which is not supported; save it"
                " without that extension"
            )


def _iterate_extensions(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + EXTENSION_STRUCT.size <= len(data):
        kind, length = EXTENSION_STRUCT.unpack_from(data, offset)
        offset += EXTENSION_STRUCT.size
        yield kind, data[offset : offset + length]
        offset += length


def _decode_positions(data: Bytes, header: _Header) -> Floats:
    """(N, 9 or 6) bytes -> (N, 3) positions."""
    if header.version == 1:
        return np.ascontiguousarray(data).view("<f2").astype(np.float32)
    fixed = np.zeros((len(data), 3, 4), np.uint8)
    fixed[:, :, 1:] = data.reshape(-1, 3, 3)
    means: Floats = ((fixed.view("<i4")[:, :, 0] >> 8) / 2**header.bits).astype(np.float32)
    return means


def _decode_rotations(data: Bytes, header: _Header) -> Floats:
    """(N, 3 or 4) bytes -> (N, 4) quaternions w x y z."""
    if header.version < 3:
        xyz = data / 127.5 - 1
        w = np.sqrt((1 - (xyz**2).sum(axis=1, keepdims=True)).clip(min=0))
        return np.concatenate([w, xyz], axis=1).astype(np.float32)
    word = np.ascontiguousarray(data).view("<u4")[:, 0]
    components = np.empty((len(word), 3), np.float32)
    for j, shift in enumerate((20, 10, 0)):
        magnitude = (word >> shift & 511) * np.float32(SQRT_HALF / 511)
        components[:, j] = np.where(word >> shift & 512, -magnitude, magnitude)
    return np.roll(restore_largest(word >> 30, components), 1, axis=1)
