"""SPZ, the packed gaussians of Niantic (github.com/nianticlabs/spz, MIT): a tenth of a PLY, for the web.

A header of 16 bytes (magic "NGSP", version, count, degree of the harmonics, fractional bits, flags, zero;
little-endian) and then one attribute of all gaussians after the other:

* positions, 3 x 24-bit fixed point with `fractional bits` after the point (version 1: half floats)
* alphas, a byte: the sigmoid of the logit * 255
* colours, 3 bytes: (0.15 * DC + 0.5) * 255
* scales, 3 bytes: (natural log + 10) * 16, so from 4.5e-5 to 379 units in steps of 6 %
* rotations, of a unit quaternion. Versions 1 and 2: 3 bytes, x y z with w >= 0, v * 127.5 + 127.5. Versions 3 and 4:
  a word, 2 bits that say which of x y z w is the largest, then the others in a sign and 9 bits of 0 to sqrt(1/2)
* harmonics above DC, a byte each: v * 128 + 128, coefficient by coefficient with red green blue inside

Up to version 3 all of it is one gzip stream (or, from some programs, bare). Version 4 has a plain header of 32 bytes,
whose last byte of the first 16 counts the streams and whose next four say where their table stands (two 64-bit sizes
each, packed and plain), and one Zstandard frame an attribute. Extensions, records of a type, a length and a payload,
stand behind the attributes up to version 3 and before the table in version 4.

A file is right-up-back, where the PLY of a trainer is right-down-front: of one scene, the two are half a turn about x
apart, as UP says. Here coordinates are read and written as they stand.
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
    blocks,
    opacity_bytes,
    rounded_bytes,
    splats_of,
    unit,
    with_largest,
    without_largest,
)
from lumigraph.scene.assets import Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds

NAME = "SPZ"
SUFFIXES = (".spz",)
HOLDS: tuple[type, ...] = (Splats,)
UP = "+y"
METRES = None

MAGIC = 0x5053474E
HEADER = struct.Struct("<IIIBBBB")
HEADER_4 = struct.Struct("<IIIBBBBI12x")
TABLE = struct.Struct("<QQ")
RECORD = struct.Struct("<II")
GZIP_LEVEL = 1  # higher ones take longer and gain little on such bytes
ZSTD_LEVEL = 3
FEWEST_BITS, MOST_BITS = 4, 16  # after the point: steps of 1/16 to 1/65536 of a unit
LARGEST = 2**23 - 1  # of a 24-bit number
OUTLIERS = 0.001  # the share of gaussians, far away, that must not cost all others their precision
COLOUR_SCALE = 0.15
# Of a byte of the harmonics, as in the reference: what is finer is not seen, and does not compress.
FIRST_STEP, OTHER_STEP = 8, 16
MOST_RATIO = 100  # no scene is packed smaller; beyond it, and beyond FREE bytes, a file only wants our memory
FREE = 1 << 24
PIECE = 1 << 20  # bytes that are passed over at once
POSITION = 12  # bytes of three floats
FEWEST_WINDOW, MOST_WINDOW = 1 << 23, 1 << 27  # bytes that a frame may look back
EXTENSIONS = 1 << 16  # bytes of them that are looked at
HAS_EXTENSIONS = 2  # among the flags
# The extension that says in which axes the file stands, and those that are read: unsaid, right-up-back.
AXES, AXES_READ = 0xADBE0003, (0, 4)
COEFFICIENTS = (0, 3, 8, 15, 24)  # of a channel above DC, by degree


# --- writing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """What the file is to be like.

    version: 2 is read everywhere; 3 and 4 have finer rotations, and 4 unpacks faster.
    sh_degree: keep the harmonics, colours that change with the view, up to this degree; empty keeps all.
    """

    version: Literal[2, 3, 4] = 2
    sh_degree: Annotated[int, Bounds(0, 3)] | None = None


def write(asset: Splats, path: Path, options: Options = Options()) -> None:
    """Write atomically: `path` is complete or untouched.

    What does not fit is clipped: gaussians farther than 2^23 steps, for which the steps are widened unless they are a
    few outliers. Raises FormatError for points, for NaN and infinity, and when the disk refuses.
    """
    drain(write_stream(Stream.from_asset(asset), path, options))


def write_stream(stream: Stream, path: Path, options: Options = Options()) -> Iterator[float]:
    """As `write`, while it is pulled; yields the share that is done. The file has one attribute after the other, so
    they are laid down beside it first, each in its place; positions as they are, until all of them are known."""
    path = Path(path)
    check_splats(stream, path, NAME)
    assert isinstance(stream.template, Splats)
    degree = (
        stream.template.sh_degree if options.sh_degree is None else min(stream.template.sh_degree, options.sh_degree)
    )
    head, done = _Head(options.version, stream.count, degree, 0, 0), 0
    with open_atomic(path) as file, open_spool(path) as beside:
        ends = [stream.count * sum((POSITION, *head.widths[1:])[:i]) for i in range(len(head.widths))]
        farthest = TopK(1 + int(stream.count * OUTLIERS))
        for batch in check_batches(stream, path):
            farthest.add(np.abs(to_numpy(batch.means)).max(axis=1))
            for i, packed in enumerate(_packed(batch, head)):
                beside.seek(ends[i])
                ends[i] += beside.write(packed.tobytes())
            done += len(batch)
            yield done / stream.count / 2
        head = replace(head, bits=fractional_bits(*farthest.ends()))
        beside.seek(0)
        squeezed = _squeezed_in_frames if head.version == 4 else _squeezed
        yield from (0.5 + share / 2 for share in squeezed(beside, head, file))


def _packed(splats: Splats, head: _Head) -> list[Array]:
    """Positions in floats, and the bytes of the other attributes."""
    sh = to_numpy(splats.sh)
    return [
        to_numpy(splats.means),
        opacity_bytes(to_numpy(splats.logit_opacities)),
        rounded_bytes((sh[:, 0] * COLOUR_SCALE + 0.5) * 255),
        rounded_bytes((to_numpy(splats.log_scales) + 10) * 16),
        (_rotations if head.version == 2 else _words)(to_numpy(splats.quats)),
        _harmonics(sh[:, 1 : 1 + COEFFICIENTS[head.degree]]),
    ]


def _squeezed(beside: IO[bytes], head: _Head, file: BinaryIO) -> Iterator[float]:
    packer = zlib.compressobj(GZIP_LEVEL, wbits=zlib.MAX_WBITS + 16)  # + 16: in a gzip wrapper, without name and time
    file.write(packer.compress(HEADER.pack(*head.fields, 0)))
    done = 0
    for attribute in _attributes(beside, head):
        for data in attribute:
            file.write(packer.compress(data))
            done += len(data)
            yield done / head.size
    file.write(packer.flush())


def _squeezed_in_frames(beside: IO[bytes], head: _Head, file: BinaryIO) -> Iterator[float]:
    widths = [width for width in head.widths if width]
    file.write(HEADER_4.pack(*head.fields, len(widths), HEADER_4.size))
    file.write(bytes(len(widths) * TABLE.size))  # filled in when it is known
    table, done = b"", 0
    packer = zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=os.cpu_count() or 1)
    for width, attribute in zip(widths, _attributes(beside, head), strict=False):
        start, size = file.tell(), head.count * width
        with packer.stream_writer(file, size=size, closefd=False) as frame:
            for data in attribute:
                frame.write(data)
                done += len(data)
                yield done / head.size
        table += TABLE.pack(file.tell() - start, size)
    file.seek(HEADER_4.size)
    file.write(table)


def _attributes(beside: IO[bytes], head: _Head) -> Iterator[Iterator[bytes]]:
    """The bytes of each attribute, piece by piece."""
    for i, width in enumerate((POSITION, *head.widths[1:])):
        pieces = (beside.read((part.stop - part.start) * width) for part in blocks(head.count))
        yield (
            pieces if i else (_positions(np.frombuffer(it, "<f4").reshape(-1, 3), head.bits).tobytes() for it in pieces)
        )


def fractional_bits(farthest: float, nearer: float) -> int:
    """The most at which everything fits, up to the `farthest` coordinate; or all but the few outliers beyond `nearer`,
    where those would leave fewer than 12."""
    bits = _bits_for(farthest)
    return bits if bits >= 12 else min(12, _bits_for(nearer))


def _bits_for(reach: float) -> int:
    if reach <= 0:
        return MOST_BITS
    return min(max(math.floor(math.log2(LARGEST / reach)), FEWEST_BITS), MOST_BITS)


def _positions(means: Floats, bits: int) -> Bytes:
    """(N, 3) -> (N, 3, 3): the three low bytes of little-endian integers."""
    fixed = np.rint(means.astype(np.float64) * 2**bits).clip(-LARGEST, LARGEST).astype("<i4")
    return np.ascontiguousarray(fixed).view(np.uint8).reshape(-1, 3, 4)[:, :, :3]


def _rotations(quats: Floats) -> Bytes:
    """(N, 4) w x y z of any length -> (N, 3).

    A gaussian turned by half a turn about one of its own axes is the same gaussian, and that moves each component of
    its quaternion to w in turn. The largest goes there: w is not stored, and what is computed of the others is poor
    where it is small.
    """
    turned = unit(quats)
    largest = np.abs(turned).argmax(axis=1)
    chosen = np.take_along_axis(turned, HALF_TURNS[largest], 1) * HALF_TURN_SIGNS[largest]
    chosen = np.where(chosen[:, :1] < 0, -chosen, chosen)
    return rounded_bytes(chosen[:, 1:] * 127.5 + 127.5)


# q, q i, q j and q k: which component of q stands where, and its sign.
HALF_TURNS = np.array([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]])
HALF_TURN_SIGNS = np.array([[1, 1, 1, 1], [-1, 1, 1, -1], [-1, -1, 1, 1], [-1, 1, -1, 1]], np.float32)


def _words(quats: Floats) -> Bytes:
    """(N, 4) w x y z of any length -> (N, 4): versions 3 and 4."""
    largest, others = without_largest(np.roll(unit(quats), -1, axis=1))
    word: npt.NDArray[Any] = largest.astype(np.uint32)
    for j in range(3):
        size = np.rint(np.abs(others[:, j]) * (511 / SQRT_HALF)).clip(0, 511).astype(np.uint32)
        word = word << 10 | (others[:, j] < 0).astype(np.uint32) << 9 | size
    return word.astype("<u4").view(np.uint8).reshape(-1, 4)


def _harmonics(rest: Floats) -> Bytes:
    """(N, K - 1, 3) -> the same shape."""
    step = np.where(np.arange(rest.shape[1]) < 3, np.float32(FIRST_STEP), np.float32(OTHER_STEP))[None, :, None]
    return rounded_bytes(128 + np.rint(rest * (128 / step)) * step)


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Head:
    version: int
    count: int
    degree: int
    bits: int
    flags: int

    @property
    def fields(self) -> tuple[int, ...]:
        """As they stand at the beginning of every file."""
        return MAGIC, self.version, self.count, self.degree, self.bits, self.flags

    @property
    def widths(self) -> list[int]:
        """Bytes of a gaussian in each attribute."""
        return [6 if self.version == 1 else 9, 1, 3, 3, 4 if self.version > 2 else 3, 3 * COEFFICIENTS[self.degree]]

    @property
    def size(self) -> int:
        """Bytes of all attributes."""
        return self.count * sum(self.widths)


def read(path: Path) -> Splats:
    """The gaussians of a file of version 1 to 4, within its quantisation. Harmonics of degree 4 lose that degree: what
    remains is the same colour, less sharp. Raises FormatError for anything else.

    No more is unpacked than the header announces, and that must be plausible for a file of its size.
    """
    asset: Splats = _stream(Path(path), math.inf).gather()
    return asset


def stream(path: Path) -> Stream:
    """As `read`, in batches. Up to version 3 a large file is unpacked for each attribute, up to where that ends."""
    return _stream(Path(path), FREE)


def _stream(path: Path, most: float) -> Stream:
    """No more than `most` bytes are unpacked at once."""
    with _unpacking(path), open_for_read(path) as file:
        head = _head_of(file, path)
    return Stream(empty_splats(min(head.degree, 3)), head.count, lambda: _batches(path, head, most))


def _batches(path: Path, head: _Head, most: float) -> Iterator[Splats]:
    kept = 3 * COEFFICIENTS[min(head.degree, 3)]
    with _unpacking(path), ExitStack() as stack:
        attributes = _frames(stack, head, path) if head.version == 4 else _in_a_row(stack, head, most, path)
        for part in blocks(head.count):
            count = part.stop - part.start
            positions, alphas, colours, scales, rotations, rest = (
                _rows(attribute, count, width, head, path)
                for attribute, width in zip(attributes, head.widths, strict=True)
            )
            means, sh = _means(positions, head), np.empty((count, 1 + kept // 3, 3), np.float32)
            if head.version == 1 and not np.isfinite(means).all():
                raise FormatError(f"{path}: some positions are NaN or infinity; the file is damaged, fetch it again")
            sh[:, 0] = COLOURS[colours]
            sh[:, 1:] = HARMONICS[rest[:, :kept]].reshape(count, kept // 3, 3)
            yield splats_of(means, SCALES[scales], _unit_quats(rotations, head), ALPHAS[alphas[:, 0]], sh)
        if head.version < 4 and head.flags & HAS_EXTENSIONS:
            _check_extensions(attributes[-1].read(EXTENSIONS), path)


@contextmanager
def _unpacking(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise FormatError(f"{path}: cannot be read as SPZ ({error}); fetch it again") from error


BYTE = np.arange(256)
ALPHAS: Floats = np.log(BYTE.clip(0.5, 254.5) / (255 - BYTE.clip(0.5, 254.5))).astype(np.float32)
COLOURS: Floats = ((BYTE / 255 - 0.5) / COLOUR_SCALE).astype(np.float32)
SCALES: Floats = (BYTE / 16 - 10).astype(np.float32)
HARMONICS: Floats = ((BYTE - 128) / 128).astype(np.float32)


def _head_of(file: BinaryIO, path: Path) -> _Head:
    """Judged; of version 4 with what stands before its frames."""
    size = os.fstat(file.fileno()).st_size
    if file.read(8) == struct.pack("<II", MAGIC, 4):
        file.seek(0)
        data = file.read(HEADER_4.size)
        if len(data) < HEADER_4.size:
            raise FormatError(f"{path}: no SPZ file: it ends inside its header")
        head = _checked(_Head(*HEADER_4.unpack(data)[1:6]), (4,), size, path)
        _check_table(file, head, size, path)
        return head
    with ExitStack() as stack:
        data = _plain(stack, path).read(HEADER.size)
    if len(data) < HEADER.size:
        raise FormatError(f"{path}: no SPZ file: it ends inside its header")
    magic, *fields, _ = HEADER.unpack(data)
    if magic != MAGIC:
        raise FormatError(f"{path}: no SPZ file, though it is packed like one; check what it is")
    return _checked(_Head(*fields), (1, 2, 3), size, path)


def _plain(stack: ExitStack, path: Path) -> IO[bytes]:
    """Versions 1 to 3, without their gzip (some programs never put it there)."""
    file = stack.enter_context(open_for_read(path))
    bare = file.read(4) == struct.pack("<I", MAGIC)
    file.seek(0)
    return file if bare else cast(IO[bytes], stack.enter_context(gzip.open(file)))


def _in_a_row(stack: ExitStack, head: _Head, most: float, path: Path) -> list[IO[bytes]]:
    """The attributes of versions 1 to 3: unpacked, or the file as often as there are any, standing at each of them."""
    if head.size <= most:
        plain = _plain(stack, path)
        plain.read(HEADER.size)
        sizes = [head.count * width for width in head.widths]
        return [io.BytesIO(plain.read(size)) for size in (*sizes[:-1], sizes[-1] + EXTENSIONS)]
    attributes: list[IO[bytes]] = []
    start = HEADER.size
    for width in head.widths:
        attributes.append(plain := _plain(stack, path))
        for first in range(0, start, PIECE):
            plain.read(min(PIECE, start - first))
        start += head.count * width
    return attributes


def _check_table(file: BinaryIO, head: _Head, size: int, path: Path) -> list[int]:
    """Where the frame of each attribute begins."""
    file.seek(HEADER.size - 1)
    number, table = struct.unpack("<BI", file.read(5))
    widths = [width for width in head.widths if width]
    if number != len(widths) or not HEADER_4.size <= table <= size - number * TABLE.size:
        raise FormatError(
            f"{path}: byte 15: {number} streams listed at byte {table} are not those of SPZ; fetch it again"
        )
    if head.flags & HAS_EXTENSIONS:
        file.seek(HEADER_4.size)
        _check_extensions(file.read(min(EXTENSIONS, table - HEADER_4.size)), path)
    file.seek(table)
    starts = [table + number * TABLE.size]
    for width, (packed, plain) in zip(widths, TABLE.iter_unpack(file.read(number * TABLE.size)), strict=True):
        if plain != head.count * width or packed > size - starts[-1]:
            raise FormatError(
                f"{path}: byte {table}: streams that do not fit {head.count} gaussians or the file; it was cut short or"
                " damaged, fetch it again"
            )
        starts.append(starts[-1] + packed)
    return starts[:-1]


def _frames(stack: ExitStack, head: _Head, path: Path) -> list[IO[bytes]]:
    """The attributes of version 4; no more of a frame is unpacked than is asked for, whatever it says of itself."""
    with open_for_read(path) as file:
        starts = _check_table(file, head, os.fstat(file.fileno()).st_size, path)
    attributes: list[IO[bytes]] = []
    for start, width in zip(starts, head.widths, strict=False):
        file = stack.enter_context(open_for_read(path))
        file.seek(start)
        window = min(max(head.count * width, FEWEST_WINDOW), MOST_WINDOW)
        unpacker = zstandard.ZstdDecompressor(max_window_size=1 << (window - 1).bit_length())
        attributes.append(stack.enter_context(unpacker.stream_reader(file)))
    return attributes if head.degree else [*attributes, io.BytesIO()]


def _rows(attribute: IO[bytes], count: int, width: int, head: _Head, path: Path) -> Bytes:
    data = attribute.read(count * width)
    if len(data) < count * width:
        raise FormatError(
            f"{path}: the file ends before its {head.count} gaussians do; it was cut short, fetch it again"
        )
    return np.frombuffer(data, np.uint8).reshape(count, width)


def _checked(head: _Head, versions: tuple[int, ...], size: int, path: Path) -> _Head:
    if head.version not in versions:
        raise FormatError(
            f"{path}: SPZ of version {head.version}, where {', '.join(map(str, versions))} can be; update Lumigraph or"
            " save it as a PLY"
        )
    if head.degree > 4 or head.bits > 24:
        raise FormatError(
            f"{path}: byte 12: harmonics of degree {head.degree} and {head.bits} fractional bits are not SPZ; the"
            " file is damaged, fetch it again"
        )
    if head.size > max(FREE, size * MOST_RATIO):
        raise FormatError(
            f"{path}: byte 8: the header announces {head.count} gaussians, {head.size} bytes, which no file of {size}"
            " bytes holds; it is damaged, fetch it again"
        )
    return head


def _check_extensions(data: bytes, path: Path) -> None:
    """FormatError where one says that the axes are others than those of the format."""
    for kind, payload in _records(data):
        axes = int.from_bytes(payload[:4], "little")
        if kind == AXES and axes not in AXES_READ:
            raise FormatError(
                f"{path}: its axes are turned (SPZ_ADOBE_coordinate_system {axes}), which is not undone here; save it"
                " without that extension"
            )


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + RECORD.size <= len(data):
        kind, length = RECORD.unpack_from(data, place)
        place += RECORD.size
        yield kind, data[place : place + length]
        place += length


def _means(data: Bytes, head: _Head) -> Floats:
    """(N, 9 or 6) bytes -> (N, 3)."""
    if head.version == 1:
        return np.ascontiguousarray(data).view("<f2").astype(np.float32)
    fixed = np.zeros((len(data), 3, 4), np.uint8)
    fixed[:, :, 1:] = data.reshape(-1, 3, 3)
    made: Floats = ((fixed.view("<i4")[:, :, 0] >> 8) / 2**head.bits).astype(np.float32)
    return made


def _unit_quats(data: Bytes, head: _Head) -> Floats:
    """(N, 3 or 4) bytes -> (N, 4) w x y z."""
    if head.version < 3:
        xyz = data / 127.5 - 1
        w = np.sqrt((1 - (xyz**2).sum(axis=1, keepdims=True)).clip(min=0))
        return np.concatenate([w, xyz], axis=1).astype(np.float32)
    word = np.ascontiguousarray(data).view("<u4")[:, 0]
    others = np.empty((len(word), 3), np.float32)
    for j, shift in enumerate((20, 10, 0)):
        size = (word >> shift & 511) * np.float32(SQRT_HALF / 511)
        others[:, j] = np.where(word >> shift & 512, -size, size)
    return np.roll(with_largest(word >> 30, others), 1, axis=1)
