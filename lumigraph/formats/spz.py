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
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import zstandard

from lumigraph.formats.files import opened, writing
from lumigraph.formats.packing import (
    SQRT_HALF,
    Bytes,
    Floats,
    blocks,
    opacity_bytes,
    parts_of,
    rounded_bytes,
    splats_of,
    unit,
    with_largest,
    without_largest,
)
from lumigraph.scene.assets import Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Within

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
    sh_degree: Annotated[int, Within(0, 3)] | None = None


def write(asset: Splats, path: Path, options: Options = Options()) -> None:
    """Write atomically: `path` is complete or untouched.

    What does not fit is clipped: gaussians farther than 2^23 steps, for which the steps are widened unless they are a
    few outliers. Raises FormatError for points, for NaN and infinity, and when the disk refuses.
    """
    path = Path(path)
    means, log_scales, quats, logits, sh = parts_of(asset, path, NAME)
    degree = asset.sh_degree if options.sh_degree is None else min(asset.sh_degree, options.sh_degree)
    sh = sh[:, : (degree + 1) ** 2]
    bits = fractional_bits(means)
    body = [
        _each(means, lambda values: _positions(values, bits), 9),
        _each(logits, opacity_bytes, 1),
        _each(sh[:, 0], lambda values: rounded_bytes((values * COLOUR_SCALE + 0.5) * 255), 3),
        _each(log_scales, lambda values: rounded_bytes((values + 10) * 16), 3),
        _each(quats, _rotations, 3) if options.version == 2 else _each(quats, _words, 4),
        _each(sh[:, 1:], _harmonics, 3 * COEFFICIENTS[degree]),
    ]
    head = (MAGIC, options.version, len(means), degree, bits, 0)
    with writing(path) as stream:
        if options.version == 4:
            _write_streams(stream, head, [part for part in body if part.shape[1]])
        else:
            _write_gzip(stream, HEADER.pack(*head, 0), body)


def _each(values: Floats, pack: Callable[[Floats], Bytes], width: int) -> Bytes:
    """Packed to (N, width), a block at a time: most of what is computed in between is wider than what comes out."""
    packed = np.empty((len(values), width), np.uint8)
    for part in blocks(len(values)) if width else ():
        packed[part] = pack(values[part]).reshape(-1, width)
    return packed


def _write_gzip(stream: BinaryIO, head: bytes, parts: list[Bytes]) -> None:
    packer = zlib.compressobj(GZIP_LEVEL, wbits=zlib.MAX_WBITS + 16)  # + 16: in a gzip wrapper, without name and time
    stream.write(packer.compress(head))
    for part in parts:
        stream.write(packer.compress(part.data))
    stream.write(packer.flush())


def _write_streams(stream: BinaryIO, head: tuple[int, ...], parts: list[Bytes]) -> None:
    packer = zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=os.cpu_count() or 1)
    frames = [packer.compress(part.data) for part in parts]
    stream.write(HEADER_4.pack(*head, len(parts), HEADER_4.size))
    for part, frame in zip(parts, frames, strict=True):
        stream.write(TABLE.pack(len(frame), part.nbytes))
    for frame in frames:
        stream.write(frame)


def fractional_bits(means: Floats) -> int:
    """The most at which all of `means` (N, 3) fit, or all but a few outliers where these would leave fewer than 12."""
    far = np.abs(means).max(axis=1, initial=0.0)
    bits = _bits_for(float(far.max(initial=0.0)))
    if bits < 12:
        bits = min(12, _bits_for(float(np.quantile(far, 1 - OUTLIERS))))
    return bits


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
    def widths(self) -> list[int]:
        """Bytes of a gaussian in each attribute."""
        return [6 if self.version == 1 else 9, 1, 3, 3, 4 if self.version > 2 else 3, 3 * COEFFICIENTS[self.degree]]


def read(path: Path) -> Splats:
    """The gaussians of a file of version 1 to 4, within its quantisation. Harmonics of degree 4 lose that degree: what
    remains is the same colour, less sharp. Raises FormatError for anything else.

    No more is unpacked than the header announces, and that must be plausible for a file of its size.
    """
    path = Path(path)
    with opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(8)
        stream.seek(0)
        try:
            if start == struct.pack("<II", MAGIC, 4):
                head, attributes = _streams(stream, size, path)
            elif start.startswith(struct.pack("<I", MAGIC)):
                head, attributes = _in_a_row(stream, size, path)
            else:
                with gzip.open(stream) as unpacked:
                    head, attributes = _in_a_row(unpacked, size, path)
        except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
            raise FormatError(f"{path}: cannot be read as SPZ ({error}); fetch it again") from error
    positions, alphas, colours, scales, rotations, rest = attributes
    kept = 3 * COEFFICIENTS[min(head.degree, 3)]
    means, log_scales = np.empty((head.count, 3), np.float32), np.empty((head.count, 3), np.float32)
    quats, sh = np.empty((head.count, 4), np.float32), np.empty((head.count, 1 + kept // 3, 3), np.float32)
    for part in blocks(head.count):
        means[part] = _means(positions[part], head)
        quats[part] = _unit_quats(rotations[part], head)
        log_scales[part] = SCALES[scales[part]]
        sh[part, 0] = COLOURS[colours[part]]
        sh[part, 1:] = HARMONICS[rest[part, :kept]].reshape(-1 if kept else part.stop - part.start, kept // 3, 3)
    if head.version == 1 and not np.isfinite(means).all():
        raise FormatError(f"{path}: some positions are NaN or infinity; the file is damaged, fetch it again")
    return splats_of(means, log_scales, quats, ALPHAS[alphas[:, 0]], sh)


BYTE = np.arange(256)
ALPHAS: Floats = np.log(BYTE.clip(0.5, 254.5) / (255 - BYTE.clip(0.5, 254.5))).astype(np.float32)
COLOURS: Floats = ((BYTE / 255 - 0.5) / COLOUR_SCALE).astype(np.float32)
SCALES: Floats = (BYTE / 16 - 10).astype(np.float32)
HARMONICS: Floats = ((BYTE - 128) / 128).astype(np.float32)


def _in_a_row(stream: BinaryIO | gzip.GzipFile, size: int, path: Path) -> tuple[_Head, list[Bytes]]:
    """Versions 1 to 3, already without their gzip (some programs never put it there)."""
    data = stream.read(HEADER.size)
    if len(data) < HEADER.size:
        raise FormatError(f"{path}: no SPZ file: it ends inside its header")
    magic, version, count, degree, bits, flags, _ = HEADER.unpack(data)
    if magic != MAGIC:
        raise FormatError(f"{path}: no SPZ file, though it is packed like one; check what it is")
    head = _checked(_Head(version, count, degree, bits, flags), (1, 2, 3), size, path)
    attributes = []
    for width in head.widths:
        body = stream.read(count * width)
        if len(body) < count * width:
            raise FormatError(
                f"{path}: the file ends before its {count} gaussians do; it was cut short, fetch it again"
            )
        attributes.append(np.frombuffer(body, np.uint8).reshape(count, width))
    if flags & HAS_EXTENSIONS:
        _check_extensions(stream.read(EXTENSIONS), path)
    return head, attributes


def _streams(stream: BinaryIO, size: int, path: Path) -> tuple[_Head, list[Bytes]]:
    data = stream.read(HEADER_4.size)
    if len(data) < HEADER_4.size:
        raise FormatError(f"{path}: no SPZ file: it ends inside its header")
    _, version, count, degree, bits, flags, number, table = HEADER_4.unpack(data)
    head = _checked(_Head(version, count, degree, bits, flags), (4,), size, path)
    widths = [width for width in head.widths if width]
    if number != len(widths) or not HEADER_4.size <= table <= size - number * TABLE.size:
        raise FormatError(
            f"{path}: byte 15: {number} streams listed at byte {table} are not those of SPZ; fetch it again"
        )
    if flags & HAS_EXTENSIONS:
        _check_extensions(stream.read(min(EXTENSIONS, table - HEADER_4.size)), path)
    stream.seek(table)
    sizes = list(TABLE.iter_unpack(stream.read(number * TABLE.size)))
    attributes = []
    for width, (packed, plain) in zip(widths, sizes, strict=True):
        if plain != count * width or packed > size - stream.tell():
            raise FormatError(
                f"{path}: byte {table}: streams that do not fit {count} gaussians or the file; it was cut short or"
                " damaged, fetch it again"
            )
        attributes.append(np.frombuffer(_unzstd(stream.read(packed), plain, path), np.uint8).reshape(count, width))
    if not degree:
        attributes.append(np.empty((count, 0), np.uint8))
    return head, attributes


def _unzstd(frame: bytes, plain: int, path: Path) -> bytes:
    """No more than `plain` bytes, whatever the frame says of itself."""
    with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(frame) as reader:
        data = reader.read(plain)
        if len(data) < plain:
            raise FormatError(
                f"{path}: a stream ends after {len(data)} of {plain} bytes; the file is damaged, fetch it again"
            )
    return data


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
    announced = head.count * sum(head.widths)
    if announced > max(FREE, size * MOST_RATIO):
        raise FormatError(
            f"{path}: byte 8: the header announces {head.count} gaussians, {announced} bytes, which no file of {size}"
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
