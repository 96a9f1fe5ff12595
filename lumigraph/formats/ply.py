"""Stanford PLY, with the layout of gaussian splatting or as a plain point cloud.

A PLY file is a text header, `ply` ... `end_header`, that declares elements (tables) of named properties (columns),
followed by the rows as text or binary. Two kinds of vertex tables are supported:

* **Splats**, the layout of Kerbl et al. 2023 ("3D Gaussian Splatting"): x y z, nx ny nz (unused, zero), f_dc_0..2,
  f_rest_0.., opacity, scale_0..2, rot_0..3. Values are raw: scales are logarithms, the opacity is a logit, the
  quaternion is w x y z and need not be of unit length. `f_rest` is channel-major (all red coefficients, then all
  green, then all blue), while `Splats.sh` is (N, K, 3): coefficient-major with the channel inside.
* **Points**: x y z with optional red green blue and nx ny nz.

The reader accepts all known variants: ascii or binary of either byte order, CRLF, columns in any order and of any
number type, unknown columns, missing normals. It trusts nothing: counts are checked against the remaining bytes before
memory is allocated, rows pass through one small buffer, and NaN or infinity rejects the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from lumigraph.formats import compressed_ply
from lumigraph.formats.chunked import (
    Stream,
    check_batches,
    check_rows,
    drain,
    empty_points,
    empty_splats,
    find_nonfinite,
)
from lumigraph.formats.io import open_atomic, open_for_read, to_numpy
from lumigraph.formats.ply_header import PLY_BYTE_ORDERS, Element, Header, check_row_space, parse_header
from lumigraph.formats.quantization import MAX_LOG_SCALE, splats_from_arrays
from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.errors import FormatError

NAME = "PLY"
SUFFIXES = (".ply",)
HOLDS: tuple[type, ...] = (Splats, Points)
UP = "-y"  # as trained: y down
METRES = None

Table = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

ASCII_LINE_MAX_BYTES = 1 << 16  # one row of an ascii file
READ_CHUNK_BYTES = 1 << 20  # fits into the second-level cache
READ_CHUNK_ROWS = 1 << 14

POSITION_COLUMNS = ["x", "y", "z"]
NORMAL_COLUMNS = ["nx", "ny", "nz"]
COLOUR_COLUMNS = ["red", "green", "blue"]
DC_COLUMNS = [f"f_dc_{c}" for c in range(3)]
SCALE_COLUMNS = [f"scale_{a}" for a in range(3)]
ROTATION_COLUMNS = [f"rot_{a}" for a in range(4)]
# Number of f_rest columns -> SH degree.
DEGREE_BY_REST_COLUMNS = {3 * ((degree + 1) ** 2 - 1): degree for degree in range(4)}


# --- rows ------------------------------------------------------------------------------------------------------------


def _vertex_rows(stream: BinaryIO, header: Header, size: int, path: Path) -> Iterator[Table]:
    """Yield all vertices in order, as structured arrays of a few thousand rows.

    `stream` is at the end of the header of a file of `size` bytes. Checks all counts when called, before the caller
    allocates memory for the rows.
    """
    order, line = PLY_BYTE_ORDERS[header.encoding], header.lines
    for element in header.elements:
        check_row_space(stream, header, element, size, path)
        if element.name == "vertex":
            break
        if header.encoding == "ascii":
            for number in range(line + 1, line + element.count + 1):
                _ascii_line(stream, number, path)
            line += element.count
        else:
            stream.seek(element.count * element.row(order).itemsize, os.SEEK_CUR)
    if header.encoding == "ascii":
        return _ascii_rows(stream, element, line, path)
    return _binary_rows(stream, element, order, path)


def _binary_rows(stream: BinaryIO, element: Element, order: str, path: Path) -> Iterator[Table]:
    row = element.row(order)
    for first in range(0, element.count, step := max(1, min(READ_CHUNK_ROWS, READ_CHUNK_BYTES // row.itemsize))):
        count = min(step, element.count - first)
        data = stream.read(count * row.itemsize)
        if len(data) < count * row.itemsize:
            raise FormatError(
                f"{path}: byte {stream.tell()}: the file ends inside vertex {first + len(data) // row.itemsize}"
            )
        yield np.frombuffer(data, row)


def _ascii_rows(stream: BinaryIO, element: Element, line: int, path: Path) -> Iterator[Table]:
    row, width = element.row("="), len(element.columns)
    for first in range(0, element.count, step := max(1, min(READ_CHUNK_ROWS, READ_CHUNK_BYTES // row.itemsize))):
        count = min(step, element.count - first)
        words: list[bytes] = []
        for number in range(line + first + 1, line + first + count + 1):
            line_words = _ascii_line(stream, number, path).split()
            if len(line_words) != width:
                raise FormatError(f"{path}: line {number}: {len(line_words)} values where the header announces {width}")
            words += line_words
        yield _ascii_table(words, row, line + first + 1, path)


def _ascii_line(stream: BinaryIO, number: int, path: Path) -> bytes:
    text = stream.readline(ASCII_LINE_MAX_BYTES + 1)
    if not text:
        raise FormatError(f"{path}: line {number}: the file ends before the rows that its header announces")
    if len(text) > ASCII_LINE_MAX_BYTES:
        raise FormatError(f"{path}: line {number}: longer than {ASCII_LINE_MAX_BYTES} bytes; the file is damaged")
    return text


def _ascii_table(words: list[bytes], row: np.dtype[Any], line: int, path: Path) -> Table:
    """Parse text to numbers. Integer columns must be in range; otherwise 300 would become a red of 44."""
    names = row.names or ()
    flat = np.empty(len(words))
    for i, word in enumerate(words):
        try:
            flat[i] = float(word)
        except ValueError:
            raise FormatError(f"{path}: line {line + i // len(names)}: {word[:40]!r} is not a number") from None
    values = flat.reshape(-1, len(names))
    table = np.empty(len(values), row)
    for j, name in enumerate(names):
        column, kind = values[:, j], row[name]
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            bad = ~((column >= limits.min) & (column <= limits.max) & (np.floor(column) == column))
            if bad.any():
                raise FormatError(f"{path}: line {line + int(bad.argmax())}: {name} does not fit its type {kind.name}")
        with np.errstate(over="ignore"):  # a double beyond float32 becomes infinity, which is rejected later
            table[name] = column
    return table


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> Splats | Points:
    """Read the vertices: Splats if the file has the columns of 3D gaussian splatting, else Points.

    Also reads PlayCanvas' compressed PLY. Ignores elements other than `vertex` (the faces of a mesh). Peak memory: the
    result plus ~20 MB. Raises FormatError, with the byte or line, for any other file and for NaN or infinity.
    """
    asset: Splats | Points = stream(path).gather()
    return asset


def stream(path: Path) -> Stream:
    """Read vertices in batches. Checks header and counts at once, rows as they are pulled."""
    path = Path(path)
    with open_for_read(path) as file:
        header = parse_header(file, path)
        if compressed_ply.is_packed(header):
            return compressed_ply.stream(path)
        vertex = _vertex_element(header, path)
        template, batches = _splats(vertex, path) if _looks_like_splats(vertex) else _points(vertex, path)
        _vertex_rows(file, header, os.fstat(file.fileno()).st_size, path)

    def read_batches() -> Iterator[Splats | Points]:
        with open_for_read(path) as file:
            file.seek(header.size)
            yield from batches(_vertex_rows(file, header, os.fstat(file.fileno()).st_size, path))

    return Stream(template, vertex.count, read_batches)


def _vertex_element(header: Header, path: Path) -> Element:
    vertex = next((element for element in header.elements if element.name == "vertex"), None)
    if vertex is None:
        raise FormatError(f"{path}: its header declares no 'vertex' element, so there is nothing to show")
    if vertex.lists:
        raise FormatError(
            f"{path}: line {vertex.line} of the header: a vertex with the list property {vertex.lists[0]!r} has no"
            " fixed size; save the file without it"
        )
    if missing := [name for name in POSITION_COLUMNS if name not in vertex.columns]:
        raise FormatError(f"{path}: line {vertex.line} of the header: the vertices have no {' '.join(missing)}")
    return vertex


def _looks_like_splats(vertex: Element) -> bool:
    return "f_dc_0" in vertex.columns or {"scale_0", "rot_0"} <= vertex.columns.keys()


Batches = Callable[[Iterator[Table]], Iterator[Splats | Points]]


def _splats(vertex: Element, path: Path) -> tuple[Splats, Batches]:
    required = [*DC_COLUMNS, "opacity", *SCALE_COLUMNS, *ROTATION_COLUMNS]
    if missing := [name for name in required if name not in vertex.columns]:
        hint = " (a 2D gaussian splatting file, which describes flat discs)" if missing == ["scale_2"] else ""
        raise FormatError(
            f"{path}: line {vertex.line} of the header: splats without {' '.join(missing)}{hint}; export it as a 3D"
            " gaussian splatting PLY"
        )
    rest_columns = sum(name.startswith("f_rest_") for name in vertex.columns)
    if rest_columns not in DEGREE_BY_REST_COLUMNS or any(
        f"f_rest_{i}" not in vertex.columns for i in range(rest_columns)
    ):
        raise FormatError(
            f"{path}: line {vertex.line} of the header: {rest_columns} columns f_rest_*, but spherical harmonics of"
            " degree"
            " 0 to 3 have 0, 9, 24 or 45, numbered from 0; export it with at most degree 3"
        )
    per_channel = rest_columns // 3
    sh = DC_COLUMNS + [f"f_rest_{c * per_channel + k}" for k in range(per_channel) for c in range(3)]
    groups = [POSITION_COLUMNS, SCALE_COLUMNS, ROTATION_COLUMNS, ["opacity"], sh]

    def make_error(bad: int, first: int) -> FormatError:
        return FormatError(
            f"{path}: {bad} of {vertex.count} splats have no usable shape (a scale above e^{MAX_LOG_SCALE:.0f} or a"
            f" rotation of zero; the first is vertex {first}); remove them in an editor such as SuperSplat"
        )

    def batches(rows: Iterator[Table]) -> Iterator[Splats]:
        column_groups = _read_column_groups(rows, groups, vertex, path)
        for means, log_scales, quats, logits, colour in check_rows(
            ((columns, _find_degenerate(columns[1], columns[2])) for columns in column_groups), make_error
        ):
            yield splats_from_arrays(means, log_scales, quats, logits[:, 0], colour.reshape(-1, per_channel + 1, 3))

    return empty_splats(DEGREE_BY_REST_COLUMNS[rest_columns]), batches


def _find_degenerate(log_scales: Floats, quats: Floats) -> npt.NDArray[np.bool_]:
    longest = np.abs(quats).max(1)  # its square must neither vanish nor overflow where the quaternion is normalised
    is_degenerate: npt.NDArray[np.bool_] = (log_scales.max(1) > MAX_LOG_SCALE) | (longest < 1e-12) | (longest > 1e12)
    return is_degenerate


def _points(vertex: Element, path: Path) -> tuple[Points, Batches]:
    has_colour = all(name in vertex.columns for name in COLOUR_COLUMNS)
    has_normal = all(name in vertex.columns for name in NORMAL_COLUMNS)
    groups = [POSITION_COLUMNS, COLOUR_COLUMNS if has_colour else [], NORMAL_COLUMNS if has_normal else []]

    def batches(rows: Iterator[Table]) -> Iterator[Points]:
        for xyz, colour, normals in _read_column_groups(rows, groups, vertex, path):
            yield Points(
                xyz=torch.from_numpy(xyz),
                rgb=torch.from_numpy(_colours_to_bytes(colour, vertex, path)) if has_colour else None,
                normals=torch.from_numpy(normals) if has_normal else None,
            )

    return empty_points(has_colour, has_normal), batches


def _colours_to_bytes(colour: Floats, vertex: Element, path: Path) -> npt.NDArray[np.uint8]:
    """Colours as bytes. Rounds 16-bit columns and float columns in 0..1; rejects others."""
    kinds = {vertex.columns[name] for name in COLOUR_COLUMNS}
    if kinds <= {"u1"}:
        return colour.astype(np.uint8)
    top = 65535.0 if kinds <= {"u2"} else 1.0
    if not (kinds <= {"u2"} or kinds <= {"f4", "f8"}) or colour.min(initial=0) < 0 or colour.max(initial=0) > top:
        raise FormatError(
            f"{path}: line {vertex.line} of the header: red green blue must be uchar 0..255, ushort 0..65535 or float"
            " 0..1; save the colours as uchar"
        )
    scaled: Floats = np.rint(colour * np.float32(255 / top))
    return scaled.astype(np.uint8)


def _read_column_groups(
    rows: Iterator[Table], groups: list[list[str]], vertex: Element, path: Path
) -> Iterator[list[Floats]]:
    """Yield a float32 array (N, len(group)) for each group of columns. Raises FormatError for NaN or infinity."""

    def make_error(bad: int, first: int) -> FormatError:
        return FormatError(
            f"{path}: {bad} of {vertex.count} vertices hold NaN or infinity (the first is vertex {first}); remove"
            " them, for example with splat-transform --filter-nan"
        )

    def column_groups(table: Table) -> list[Floats]:
        arrays = [np.empty((len(table), len(group)), np.float32) for group in groups]
        with np.errstate(over="ignore"):  # a double beyond float32 becomes infinity, which is rejected
            for group, column_array in zip(groups, arrays, strict=True):
                for j, name in enumerate(group):
                    column_array[:, j] = table[name]
        return arrays

    return check_rows(((arrays, find_nonfinite(*arrays)) for arrays in map(column_groups, rows)), make_error)


# --- writing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """No settings."""


def write(asset: Splats | Points, path: Path, options: Options = Options(), comments: Sequence[str] = ()) -> None:
    """Write little-endian binary, atomically: `path` is complete or untouched. `comments` follow the default ones.

    Splats are written bit for bit; Points lose `seen_by`, which PLY cannot store. Raises FormatError for NaN or
    infinity, which no reader accepts, and on disk errors.
    """
    drain(write_stream(Stream.from_asset(asset), path, options, comments))


def write_stream(
    stream: Stream, path: Path, options: Options = Options(), comments: Sequence[str] = ()
) -> Iterator[float]:
    """Write like `write` while it is pulled; yields the fraction completed."""
    path = Path(path)
    if not isinstance(stream.template, Splats | Points):
        raise FormatError(f"{path}: splats and points are written as PLY here; choose a .glb for a mesh")
    comment_lines = ["Generated by Lumigraph"]
    if isinstance(stream.template, Splats):
        comment_lines += [f"SH degree: {stream.template.sh_degree}"]
        if not any(text.startswith("SplatRenderMode:") for text in comments):
            comment_lines += ["SplatRenderMode: default"]
    comment_lines += comments
    groups = _column_groups(stream.template)
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"comment {' '.join(text.split())}" for text in comment_lines]
    header += [f"element vertex {stream.count}"]
    header += [f"property {'uchar' if kind == 'u1' else 'float'} {name}" for names, kind, _ in groups for name in names]
    # One field per group, not per column: copying whole blocks is several times faster.
    row = np.dtype([(names[0], "<" + kind, len(names)) for names, kind, _ in groups])
    row_count = 0
    with open_atomic(path) as file:
        file.write("\n".join([*header, "end_header", ""]).encode("latin-1", "replace"))
        for batch in check_batches(stream, path):
            table = np.empty(len(batch), row)
            for names, _, values in _column_groups(batch):
                table[names[0]] = values.reshape(len(table), len(names))
            file.write(table.data)
            row_count += len(batch)
            yield row_count / stream.count


ColumnGroup = tuple[list[str], str, Table]  # column names, number type, and (N, ...) values


def _column_groups(batch: Splats | Points) -> list[ColumnGroup]:
    return _splat_groups(batch) if isinstance(batch, Splats) else _point_groups(batch)


def _splat_groups(splats: Splats) -> list[ColumnGroup]:
    sh = to_numpy(splats.sh)
    rest_columns = [f"f_rest_{i}" for i in range(3 * (sh.shape[1] - 1))]
    groups: list[ColumnGroup] = [
        (POSITION_COLUMNS, "f4", to_numpy(splats.means)),
        (NORMAL_COLUMNS, "f4", np.broadcast_to(np.zeros(3, np.float32), (len(splats), 3))),
        (DC_COLUMNS, "f4", sh[:, 0]),
        (rest_columns, "f4", sh[:, 1:].transpose(0, 2, 1)),  # channel-major
        (["opacity"], "f4", to_numpy(splats.logit_opacities)),
        (SCALE_COLUMNS, "f4", to_numpy(splats.log_scales)),
        (ROTATION_COLUMNS, "f4", to_numpy(splats.quats)),
    ]
    return [group for group in groups if group[0]]


def _point_groups(points: Points) -> list[ColumnGroup]:
    groups: list[ColumnGroup] = [(POSITION_COLUMNS, "f4", to_numpy(points.xyz))]
    if points.normals is not None:
        groups.append((NORMAL_COLUMNS, "f4", to_numpy(points.normals)))
    if points.rgb is not None:
        groups.append((COLOUR_COLUMNS, "u1", to_numpy(points.rgb)))
    return groups
