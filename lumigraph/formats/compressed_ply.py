"""Compressed PLY, PlayCanvas' quarter of a splat PLY: 16 bytes a gaussian, and one for each harmonic above DC.

Gaussians lie in chunks of 256, neighbours in space; the element `chunk` holds the bounds of each in floats, and
`vertex` where in them a gaussian lies, in four 32-bit words, the first component in the highest bits:

* packed_position, packed_scale: 11 + 10 + 11 bits from min_x.. to max_x.., of natural logs for scales
* packed_rotation: 2 bits say which of w x y z is the largest; 3 x 10 bits hold the others, from -sqrt(1/2) to sqrt(1/2)
* packed_color: 3 x 8 bits from min_r.. to max_r.. (0 to 1 where a chunk has no such bounds) of C0 * DC + 0.5, then
  the opacity * 255

`sh`, where there is one, has a byte for each f_rest_* (channel-major as in any PLY): steps of 1/32 between -4 and 4.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from lumigraph.formats.chunked import (
    Stream,
    check_rows,
    check_splats,
    drain,
    empty_splats,
    find_nonfinite,
    measure_extent,
    positions_of,
)
from lumigraph.formats.external_sort import ExternalSort
from lumigraph.formats.io import Array, open_atomic, open_for_read, open_spool, to_numpy
from lumigraph.formats.ply_header import BYTE_ORDERS, Element, Header, check_room, parse_header
from lumigraph.formats.quantization import (
    LOG_SCALE_LIMIT,
    LOGITS,
    SQRT_HALF,
    Bytes,
    Floats,
    blocks,
    morton_codes,
    opacity_bytes,
    splats_of,
    unit,
    with_largest,
    without_largest,
)
from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.harmonics import C0

NAME = "compressed PLY (PlayCanvas)"
SUFFIXES = (".compressed.ply",)
HOLDS: tuple[type, ...] = (Splats,)
UP = "-y"
METRES = None

Words = npt.NDArray[np.uint32]

CHUNK = 256
BLOCK = 64 * CHUNK  # as many as in a sorted batch
BOUNDS = [
    *("min_x", "min_y", "min_z", "max_x", "max_y", "max_z"),
    *("min_scale_x", "min_scale_y", "min_scale_z", "max_scale_x", "max_scale_y", "max_scale_z"),
    *("min_r", "min_g", "min_b", "max_r", "max_g", "max_b"),
]
PACKED = ["packed_position", "packed_rotation", "packed_scale", "packed_color"]
SCALE_BOUND = 20.0  # of what is written, as other writers do: e^-20 units are as good as nothing
REST_COUNTS = {0: 0, 9: 3, 24: 8, 45: 15}  # f_rest columns -> coefficients of a channel
REST_DEGREES = {columns: degree for degree, columns in enumerate(REST_COUNTS)}
REST_RANGE = 8.0
REST: Floats = ((np.concatenate([[0], np.arange(1, 255) + 0.5, [256]]) / 256 - 0.5) * REST_RANGE).astype(np.float32)


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tables:
    """Where the rows of the three elements begin, in bytes, and what they are."""

    chunk: tuple[int, np.dtype[Any]]
    vertex: tuple[int, np.dtype[Any]]
    sh: tuple[int, np.dtype[Any]] | None
    count: int
    chunks: int


def is_packed(header: Header) -> bool:
    return any(element.name == "vertex" and "packed_position" in element.columns for element in header.elements)


def read(path: Path) -> Splats:
    """The gaussians, within the quantisation. Raises FormatError for anything else. Peak memory: the result and a few
    megabytes."""
    asset: Splats = stream(path).gather()
    return asset


def stream(path: Path) -> Stream:
    """As `read`, in batches. The bounds of all chunks are judged at once, the gaussians in them as they are pulled."""
    path = Path(path)
    with open_for_read(path) as file:
        header = parse_header(file, path)
        if not is_packed(header):
            raise FormatError(f"{path}: its vertices have no packed_position, so it is no compressed PLY; name it .ply")
        tables = _tables(file, header, path)
        for _ in _bounds(file, tables, path):
            pass
    rest = 0 if tables.sh is None else len(_rest_names(tables.sh[1]))
    return Stream(empty_splats(REST_DEGREES[rest]), tables.count, lambda: _batches(path, tables, rest))


def _batches(path: Path, tables: _Tables, rest: int) -> Iterator[Splats]:
    with open_for_read(path) as file:
        for part, bounds in zip(blocks(tables.count, BLOCK), _bounds(file, tables, path), strict=False):
            count = part.stop - part.start
            vertices = _rows(file, tables.vertex, part.start, count, path)
            words = [vertices[name].astype(np.uint32) for name in PACKED]
            of = np.repeat(bounds, CHUNK, axis=0)[:count]
            means = _between(of[:, 0:3], of[:, 3:6], _unpacked(words[0], 11, 10, 11))
            log_scales = _between(of[:, 6:9], of[:, 9:12], _unpacked(words[2], 11, 10, 11))
            quats = with_largest(words[1] >> 30, (_unpacked(words[1], 10, 10, 10) * 2 - 1) * SQRT_HALF)
            sh = np.empty((count, 1 + rest // 3, 3), np.float32)
            sh[:, 0] = (_between(of[:, 12:15], of[:, 15:18], _unpacked(words[3] >> 8, 8, 8, 8)) - 0.5) / C0
            if tables.sh is not None:
                harmonics = _rows(file, tables.sh, part.start, count, path)
                columns = np.stack([harmonics[name] for name in _rest_names(tables.sh[1])], axis=1)
                sh[:, 1:] = REST[columns].reshape(-1, 3, rest // 3).transpose(0, 2, 1)
            if find_nonfinite(means, log_scales, sh).any():
                raise FormatError(f"{path}: the bounds of some chunks are no numbers for a scene; the file is damaged")
            yield splats_of(means, log_scales, quats, LOGITS[words[3] & 255], sh)


def _tables(stream: BinaryIO, header: Header, path: Path) -> _Tables:
    """Raises FormatError unless everything announced is there and of a known form."""
    order = BYTE_ORDERS[header.encoding]
    if header.encoding == "ascii":
        raise FormatError(f"{path}: a compressed PLY in text; save it in binary")
    size, found = os.fstat(stream.fileno()).st_size, dict[str, tuple[int, Element]]()
    for element in header.elements:
        check_room(stream, header, element, size, path)
        found[element.name] = stream.tell(), element
        stream.seek(element.count * element.row(order).itemsize, os.SEEK_CUR)
    if "chunk" not in found:
        raise FormatError(f"{path}: its header declares no 'chunk' element, without which nothing can be unpacked")
    (_, chunk), (_, vertex) = found["chunk"], found["vertex"]
    if missing := [name for name in BOUNDS[:12] if name not in chunk.columns]:
        raise _wrong(path, chunk, f"chunks without {' '.join(missing)}")
    if missing := [name for name in PACKED if not vertex.columns.get(name, "").endswith("4")]:
        raise _wrong(path, vertex, f"vertices without {' '.join(missing)} of 32 bits")
    if chunk.count < -(-vertex.count // CHUNK):
        raise _wrong(path, chunk, f"{chunk.count} chunks of {CHUNK} for {vertex.count} vertices")
    places = {name: (start, element.row(order)) for name, (start, element) in found.items()}
    if "sh" in found:
        sh = found["sh"][1]
        names = _rest_names(places["sh"][1])
        if len(names) not in REST_COUNTS or any(sh.columns.get(name) != "u1" for name in names):
            raise _wrong(path, sh, "harmonics of degree 1 to 3 are 9, 24 or 45 columns of uchar f_rest_*, from 0")
        if sh.count != vertex.count:
            raise _wrong(path, sh, f"harmonics of {sh.count} gaussians for {vertex.count} vertices")
    return _Tables(places["chunk"], places["vertex"], places.get("sh"), vertex.count, chunk.count)


def _wrong(path: Path, element: Element, what: str) -> FormatError:
    return FormatError(f"{path}: line {element.line} of the header: {what}; the file is damaged, fetch it again")


def _rest_names(row: np.dtype[Any]) -> list[str]:
    return [f"f_rest_{i}" for i in range(sum(name.startswith("f_rest_") for name in row.names or ()))]


def _rows(stream: BinaryIO, table: tuple[int, np.dtype[Any]], first: int, count: int, path: Path) -> npt.NDArray[Any]:
    start, row = table
    stream.seek(start + first * row.itemsize)
    data = stream.read(count * row.itemsize)
    if len(data) < count * row.itemsize:
        raise FormatError(f"{path}: byte {stream.tell()}: the file became shorter while it was read; try again")
    return np.frombuffer(data, row)


def _bounds(file: BinaryIO, tables: _Tables, path: Path) -> Iterator[Floats]:
    """(chunks of a BLOCK, 18); colours without bounds lie between 0 and 1."""

    def judged() -> Iterator[tuple[Floats, Array]]:
        for part in blocks(tables.chunks, BLOCK // CHUNK):
            table = _rows(file, tables.chunk, part.start, part.stop - part.start, path)
            bounds = np.zeros((len(table), len(BOUNDS)), np.float32)
            bounds[:, 15:] = 1
            for i, name in enumerate(BOUNDS):
                if name in (table.dtype.names or ()):
                    with np.errstate(over="ignore"):
                        bounds[:, i] = table[name]
            yield bounds, find_nonfinite(bounds) | (bounds[:, 6:12].max(axis=1) > LOG_SCALE_LIMIT)

    def broken(bad: int, first: int) -> FormatError:
        return FormatError(
            f"{path}: the bounds of {bad} of {tables.chunks} chunks (the first is chunk {first}) are not finite or of a"
            f" scale above e^{LOG_SCALE_LIMIT:.0f}; the file is damaged"
        )

    return check_rows(judged(), broken)


def _unpacked(words: npt.NDArray[Any], *bits: int) -> Floats:
    """(N,) -> (N, 3) between 0 and 1, the first component from the highest bits."""
    parts = np.empty((len(words), len(bits)), np.float32)
    below = sum(bits)
    for i, width in enumerate(bits):
        below -= width
        parts[:, i] = (words >> below & (2**width - 1)) / np.float32(2**width - 1)
    return parts


def _between(low: Floats, high: Floats, share: Floats) -> Floats:
    return low * (1 - share) + high * share


# --- writing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """Nothing is left open."""


def write(asset: Splats, path: Path, options: Options = Options()) -> None:
    """Write atomically: `path` is complete or untouched. The order of the gaussians changes: neighbours share bounds.

    Scales beyond e^-20 and e^20 and harmonics beyond -4 and 4 are clipped. Raises FormatError for anything but splats,
    for none of them, for NaN and infinity, and when the disk refuses.
    """
    drain(write_stream(Stream.from_asset(asset), path, options))


def write_stream(stream: Stream, path: Path, options: Options = Options()) -> Iterator[float]:
    """As `write`, while it is pulled; yields the share that is done."""
    path = Path(path)
    check_splats(stream, path, NAME)
    assert isinstance(stream.template, Splats)
    if not stream.count:
        raise FormatError(f"{path}: not written, because the scene holds no gaussians and viewers refuse such files")
    yield from (share * 0.2 for share in measure_extent(stream, path))
    low, high = to_numpy(stream.extent.bounds)
    rest, chunks, done = 3 * (stream.template.sh.shape[1] - 1), -(-stream.count // CHUNK), 0

    def place(batch: Splats | Points) -> Array:
        return morton_codes(positions_of(batch), low, high)

    with open_atomic(path) as file, open_spool(path) as beside:
        ordered = ExternalSort(stream, place, path, beside)
        yield from (0.2 + share * 0.4 for share in ordered.collect())
        file.write(_header(stream.count, chunks, rest).encode())
        # One table stands behind the other; their sizes are known, so each block goes to its place in all of them.
        sizes = (file.tell(), 4 * len(BOUNDS) * chunks, 4 * len(PACKED) * stream.count)
        ends = [sum(sizes[: i + 1]) for i in range(3)]
        for batch in ordered:
            bounds, words = _packed_chunks(batch)
            harmonics = _rest_bytes(to_numpy(batch.sh)[:, 1:].transpose(0, 2, 1).reshape(len(batch), rest))
            for i, table in enumerate((bounds.astype("<f4"), words.astype("<u4"), harmonics)):
                file.seek(ends[i])
                file.write(table.tobytes())
                ends[i] = file.tell()
            done += len(batch)
            yield 0.6 + 0.4 * done / stream.count


def _packed_chunks(splats: Splats) -> tuple[Floats, Words]:
    """Bounds of the chunks, (chunks, 18), and the words of the gaussians in them, (N, 4)."""
    colours = to_numpy(splats.sh)[:, 0] * np.float32(C0) + np.float32(0.5)
    scales = to_numpy(splats.log_scales).clip(-SCALE_BOUND, SCALE_BOUND)
    within = [_within(values) for values in (to_numpy(splats.means), scales, colours)]
    (_, place), (_, scale), (_, colour) = within
    largest, others = without_largest(unit(to_numpy(splats.quats)))
    turn = largest.astype(np.uint32) << 30 | _packed(others / (2 * SQRT_HALF) + 0.5, 10, 10, 10)
    shade = _packed(colour, 8, 8, 8) << 8 | opacity_bytes(to_numpy(splats.logit_opacities))
    words = np.stack([_packed(place, 11, 10, 11), turn, _packed(scale, 11, 10, 11), shade], axis=1)
    return np.concatenate([bound for bounds, _ in within for bound in bounds], axis=1), words


def _header(count: int, chunks: int, rest: int) -> str:
    lines = ["ply", "format binary_little_endian 1.0", "comment Generated by Lumigraph", f"element chunk {chunks}"]
    lines += [f"property float {name}" for name in BOUNDS]
    lines += [f"element vertex {count}", *(f"property uint {name}" for name in PACKED)]
    lines += [f"element sh {count}"] * bool(rest) + [f"property uchar f_rest_{i}" for i in range(rest)]
    return "\n".join([*lines, "end_header", ""])


def _within(values: Floats) -> tuple[tuple[Floats, Floats], Floats]:
    """(N, 3) -> the bounds of each chunk (chunks, 3), and where between them the values lie, 0 to 1."""
    starts = np.arange(0, len(values), CHUNK)
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    each = np.arange(len(values)) // CHUNK
    room = np.where(high > low, high.astype(np.float64) - low, 1)
    share: Floats = ((values - low[each]) / room[each]).astype(np.float32)
    return (low, high), share


def _packed(shares: Floats, *bits: int) -> Words:
    """(N, 3) between 0 and 1 -> (N,), the first component in the highest bits."""
    word = np.zeros(len(shares), np.uint32)
    for i, width in enumerate(bits):
        most = 2**width - 1
        word = word << width | np.rint(shares[:, i] * most).clip(0, most).astype(np.uint32)
    return word


def _rest_bytes(rest: Floats) -> Bytes:
    """The byte whose value is nearest: bytes 1 to 254 stand in the middle of their step, 0 and 255 at the ends."""
    filled = np.floor((rest / REST_RANGE + 0.5) * 256).clip(0, 255)
    made: Bytes = filled.astype(np.uint8)
    return made
