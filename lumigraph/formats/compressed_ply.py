"""Compressed PLY of PlayCanvas, a quarter the size of a splat PLY: 16 bytes a gaussian, and 1 for each SH coefficient
above DC.

Gaussians are in chunks of 256 spatial neighbours. The element `chunk` holds the bounds of each chunk as floats. The
element `vertex` holds each gaussian within these bounds in four 32-bit words, first component in the highest bits:

* packed_position, packed_scale: 11 + 10 + 11 bits from min_x.. to max_x.., scales as natural logs
* packed_rotation: 2 bits index the largest of w x y z; 3 x 10 bits hold the other three, from -sqrt(1/2) to sqrt(1/2)
* packed_color: 3 x 8 bits from min_r.. to max_r.. (0 to 1 if a chunk has no such bounds) of C0 * DC + 0.5, then
  opacity * 255

The optional element `sh` has a byte for each f_rest_* (channel-major as in any PLY): steps of 1/32 between -4 and 4.
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
from lumigraph.formats.ply_header import PLY_BYTE_ORDERS, Element, Header, check_row_space, parse_header
from lumigraph.formats.quantization import (
    MAX_LOG_SCALE,
    OPACITY_LOGITS,
    SQRT_HALF,
    Bytes,
    Floats,
    block_slices,
    drop_largest,
    morton_codes,
    normalize_quats,
    quantize_opacities,
    restore_largest,
    splats_from_arrays,
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

CHUNK_ROWS = 256
CHUNKED_BLOCK_ROWS = 64 * CHUNK_ROWS  # equal to a batch of `ExternalSort`
BOUNDS = [
    *("min_x", "min_y", "min_z", "max_x", "max_y", "max_z"),
    *("min_scale_x", "min_scale_y", "min_scale_z", "max_scale_x", "max_scale_y", "max_scale_z"),
    *("min_r", "min_g", "min_b", "max_r", "max_g", "max_b"),
]
PACKED = ["packed_position", "packed_rotation", "packed_scale", "packed_color"]
WRITTEN_LOG_SCALE_LIMIT = 20.0  # as in other writers; e^-20 units are invisible
COEFFICIENTS_BY_COLUMNS = {0: 0, 9: 3, 24: 8, 45: 15}  # number of f_rest columns -> coefficients of a channel
DEGREE_BY_COLUMNS = {columns: degree for degree, columns in enumerate(COEFFICIENTS_BY_COLUMNS)}
SH_REST_RANGE = 8.0
SH_REST_VALUES: Floats = ((np.concatenate([[0], np.arange(1, 255) + 0.5, [256]]) / 256 - 0.5) * SH_REST_RANGE).astype(
    np.float32
)


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tables:
    """First byte and row type of the three elements."""

    chunk: tuple[int, np.dtype[Any]]
    vertex: tuple[int, np.dtype[Any]]
    sh: tuple[int, np.dtype[Any]] | None
    count: int
    chunks: int


def is_packed(header: Header) -> bool:
    return any(element.name == "vertex" and "packed_position" in element.columns for element in header.elements)


def read(path: Path) -> Splats:
    """Read gaussians, accurate to the quantization step. Peak memory: the result and a few megabytes.

    Raises FormatError for any other file.
    """
    asset: Splats = stream(path).gather()
    return asset


def stream(path: Path) -> Stream:
    """Read gaussians in batches. Checks the bounds of all chunks at once, and gaussians as they are pulled."""
    path = Path(path)
    with open_for_read(path) as file:
        header = parse_header(file, path)
        if not is_packed(header):
            raise FormatError(f"{path}: its vertices have no packed_position, so it is no compressed PLY; name it .ply")
        tables = _tables(file, header, path)
        for _ in _bounds(file, tables, path):
            pass
    rest_columns = 0 if tables.sh is None else len(_rest_names(tables.sh[1]))
    return Stream(
        empty_splats(DEGREE_BY_COLUMNS[rest_columns]), tables.count, lambda: _batches(path, tables, rest_columns)
    )


def _batches(path: Path, tables: _Tables, rest_columns: int) -> Iterator[Splats]:
    with open_for_read(path) as file:
        for part, bounds in zip(
            block_slices(tables.count, CHUNKED_BLOCK_ROWS), _bounds(file, tables, path), strict=False
        ):
            count = part.stop - part.start
            vertices = _rows(file, tables.vertex, part.start, count, path)
            words = [vertices[name].astype(np.uint32) for name in PACKED]
            chunk_bounds = np.repeat(bounds, CHUNK_ROWS, axis=0)[:count]
            means = _interpolate(chunk_bounds[:, 0:3], chunk_bounds[:, 3:6], _unpack_bits(words[0], 11, 10, 11))
            log_scales = _interpolate(chunk_bounds[:, 6:9], chunk_bounds[:, 9:12], _unpack_bits(words[2], 11, 10, 11))
            quats = restore_largest(words[1] >> 30, (_unpack_bits(words[1], 10, 10, 10) * 2 - 1) * SQRT_HALF)
            sh = np.empty((count, 1 + rest_columns // 3, 3), np.float32)
            sh[:, 0] = (
                _interpolate(chunk_bounds[:, 12:15], chunk_bounds[:, 15:18], _unpack_bits(words[3] >> 8, 8, 8, 8)) - 0.5
            ) / C0
            if tables.sh is not None:
                sh_rows = _rows(file, tables.sh, part.start, count, path)
                columns = np.stack([sh_rows[name] for name in _rest_names(tables.sh[1])], axis=1)
                sh[:, 1:] = SH_REST_VALUES[columns].reshape(-1, 3, rest_columns // 3).transpose(0, 2, 1)
            if find_nonfinite(means, log_scales, sh).any():
                raise FormatError(f"{path}: the bounds of some chunks are not valid numbers; the file is damaged")
            yield splats_from_arrays(means, log_scales, quats, OPACITY_LOGITS[words[3] & 255], sh)


def _tables(stream: BinaryIO, header: Header, path: Path) -> _Tables:
    """Locate the elements. Raises FormatError unless all announced rows are present and of a known type."""
    order = PLY_BYTE_ORDERS[header.encoding]
    if header.encoding == "ascii":
        raise FormatError(f"{path}: a compressed PLY in text; save it in binary")
    size, elements = os.fstat(stream.fileno()).st_size, dict[str, tuple[int, Element]]()
    for element in header.elements:
        check_row_space(stream, header, element, size, path)
        elements[element.name] = stream.tell(), element
        stream.seek(element.count * element.row(order).itemsize, os.SEEK_CUR)
    if "chunk" not in elements:
        raise FormatError(f"{path}: its header declares no 'chunk' element, which is needed to unpack the rest")
    (_, chunk), (_, vertex) = elements["chunk"], elements["vertex"]
    if missing := [name for name in BOUNDS[:12] if name not in chunk.columns]:
        raise _wrong(path, chunk, f"chunks without {' '.join(missing)}")
    if missing := [name for name in PACKED if not vertex.columns.get(name, "").endswith("4")]:
        raise _wrong(path, vertex, f"vertices without {' '.join(missing)} of 32 bits")
    if chunk.count < -(-vertex.count // CHUNK_ROWS):
        raise _wrong(path, chunk, f"{chunk.count} chunks of {CHUNK_ROWS} for {vertex.count} vertices")
    row_layouts = {name: (start, element.row(order)) for name, (start, element) in elements.items()}
    if "sh" in elements:
        sh = elements["sh"][1]
        names = _rest_names(row_layouts["sh"][1])
        if len(names) not in COEFFICIENTS_BY_COLUMNS or any(sh.columns.get(name) != "u1" for name in names):
            raise _wrong(path, sh, "harmonics of degree 1 to 3 are 9, 24 or 45 columns of uchar f_rest_*, from 0")
        if sh.count != vertex.count:
            raise _wrong(path, sh, f"harmonics of {sh.count} gaussians for {vertex.count} vertices")
    return _Tables(row_layouts["chunk"], row_layouts["vertex"], row_layouts.get("sh"), vertex.count, chunk.count)


def _wrong(path: Path, element: Element, reason: str) -> FormatError:
    return FormatError(f"{path}: line {element.line} of the header: {reason}; the file is damaged, fetch it again")


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
    """Yield (chunks of a block, 18) bounds; colour bounds default to 0 and 1."""

    def checked_bounds() -> Iterator[tuple[Floats, Array]]:
        for part in block_slices(tables.chunks, CHUNKED_BLOCK_ROWS // CHUNK_ROWS):
            table = _rows(file, tables.chunk, part.start, part.stop - part.start, path)
            bounds = np.zeros((len(table), len(BOUNDS)), np.float32)
            bounds[:, 15:] = 1
            for i, name in enumerate(BOUNDS):
                if name in (table.dtype.names or ()):
                    with np.errstate(over="ignore"):
                        bounds[:, i] = table[name]
            yield bounds, find_nonfinite(bounds) | (bounds[:, 6:12].max(axis=1) > MAX_LOG_SCALE)

    def make_error(bad: int, first: int) -> FormatError:
        return FormatError(
            f"{path}: the bounds of {bad} of {tables.chunks} chunks (the first is chunk {first}) are not finite or of a"
            f" scale above e^{MAX_LOG_SCALE:.0f}; the file is damaged"
        )

    return check_rows(checked_bounds(), make_error)


def _unpack_bits(words: npt.NDArray[Any], *bits: int) -> Floats:
    """(N,) words -> (N, 3) numbers from 0 to 1, the first component from the highest bits."""
    parts = np.empty((len(words), len(bits)), np.float32)
    shift = sum(bits)
    for i, width in enumerate(bits):
        shift -= width
        parts[:, i] = (words >> shift & (2**width - 1)) / np.float32(2**width - 1)
    return parts


def _interpolate(low: Floats, high: Floats, fraction: Floats) -> Floats:
    return low * (1 - fraction) + high * fraction


# --- writing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """No settings."""


def write(asset: Splats, path: Path, options: Options = Options()) -> None:
    """Write atomically: `path` is complete or untouched.

    Gaussians are reordered, because neighbours share bounds. Clips scales to e^-20..e^20 and SH coefficients above DC
    to -4..4. Raises FormatError for an asset that is not splats, for an empty one, for NaN or infinity, and on disk
    errors.
    """
    drain(write_stream(Stream.from_asset(asset), path, options))


def write_stream(stream: Stream, path: Path, options: Options = Options()) -> Iterator[float]:
    """Write like `write` while it is pulled; yields the fraction completed."""
    path = Path(path)
    check_splats(stream, path, NAME)
    assert isinstance(stream.template, Splats)
    if not stream.count:
        raise FormatError(f"{path}: not written, because the scene holds no gaussians and viewers reject such files")
    yield from (fraction * 0.2 for fraction in measure_extent(stream, path))
    low, high = to_numpy(stream.extent.bounds)
    rest_columns, chunks, row_count = 3 * (stream.template.sh.shape[1] - 1), -(-stream.count // CHUNK_ROWS), 0

    def morton_key(batch: Splats | Points) -> Array:
        return morton_codes(positions_of(batch), low, high)

    with open_atomic(path) as file, open_spool(path) as spool:
        sorted_batches = ExternalSort(stream, morton_key, path, spool)
        yield from (0.2 + fraction * 0.4 for fraction in sorted_batches.collect())
        file.write(_header(stream.count, chunks, rest_columns).encode())
        # The tables follow each other and their sizes are known, so each block is written to its offset in every table.
        sizes = (file.tell(), 4 * len(BOUNDS) * chunks, 4 * len(PACKED) * stream.count)
        offsets = [sum(sizes[: i + 1]) for i in range(3)]
        for batch in sorted_batches:
            bounds, words = _pack_chunks(batch)
            sh_rows = _rest_bytes(to_numpy(batch.sh)[:, 1:].transpose(0, 2, 1).reshape(len(batch), rest_columns))
            for i, table in enumerate((bounds.astype("<f4"), words.astype("<u4"), sh_rows)):
                file.seek(offsets[i])
                file.write(table.tobytes())
                offsets[i] = file.tell()
            row_count += len(batch)
            yield 0.6 + 0.4 * row_count / stream.count


def _pack_chunks(splats: Splats) -> tuple[Floats, Words]:
    """Bounds of the chunks (chunks, 18), and packed words of their gaussians (N, 4)."""
    colours = to_numpy(splats.sh)[:, 0] * np.float32(C0) + np.float32(0.5)
    scales = to_numpy(splats.log_scales).clip(-WRITTEN_LOG_SCALE_LIMIT, WRITTEN_LOG_SCALE_LIMIT)
    normalized = [_normalize_in_chunks(values) for values in (to_numpy(splats.means), scales, colours)]
    (_, position), (_, scale), (_, colour) = normalized
    largest, components = drop_largest(normalize_quats(to_numpy(splats.quats)))
    rotation = largest.astype(np.uint32) << 30 | _pack_bits(components / (2 * SQRT_HALF) + 0.5, 10, 10, 10)
    colour_word = _pack_bits(colour, 8, 8, 8) << 8 | quantize_opacities(to_numpy(splats.logit_opacities))
    words = np.stack([_pack_bits(position, 11, 10, 11), rotation, _pack_bits(scale, 11, 10, 11), colour_word], axis=1)
    return np.concatenate([bound for bounds, _ in normalized for bound in bounds], axis=1), words


def _header(count: int, chunks: int, rest_columns: int) -> str:
    lines = ["ply", "format binary_little_endian 1.0", "comment Generated by Lumigraph", f"element chunk {chunks}"]
    lines += [f"property float {name}" for name in BOUNDS]
    lines += [f"element vertex {count}", *(f"property uint {name}" for name in PACKED)]
    lines += [f"element sh {count}"] * bool(rest_columns) + [f"property uchar f_rest_{i}" for i in range(rest_columns)]
    return "\n".join([*lines, "end_header", ""])


def _normalize_in_chunks(values: Floats) -> tuple[tuple[Floats, Floats], Floats]:
    """(N, 3) -> bounds of each chunk, two of (chunks, 3), and (N, 3) the values as fractions of them, 0 to 1."""
    starts = np.arange(0, len(values), CHUNK_ROWS)
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    chunk_index = np.arange(len(values)) // CHUNK_ROWS
    span = np.where(high > low, high.astype(np.float64) - low, 1)
    fractions: Floats = ((values - low[chunk_index]) / span[chunk_index]).astype(np.float32)
    return (low, high), fractions


def _pack_bits(fractions: Floats, *bits: int) -> Words:
    """(N, 3) numbers from 0 to 1 -> (N,) words, the first component in the highest bits."""
    word = np.zeros(len(fractions), np.uint32)
    for i, width in enumerate(bits):
        max_value = 2**width - 1
        word = word << width | np.rint(fractions[:, i] * max_value).clip(0, max_value).astype(np.uint32)
    return word


def _rest_bytes(sh_rest: Floats) -> Bytes:
    """The byte with the nearest value: bytes 1 to 254 are the middle of their step, 0 and 255 are the ends."""
    levels: Bytes = np.floor((sh_rest / SH_REST_RANGE + 0.5) * 256).clip(0, 255).astype(np.uint8)
    return levels
