"""Points as plain text, one a line: `x y z`, then `r g b` (integers 0 to 255), then `nx ny nz`.

This format has no standard. The reader accepts common variants: spaces, tabs, commas or semicolons as separators,
comment lines (`#`, `//`), a line of names or of the count before the first point, an intensity as the fourth and last
column (ignored), colours and normals in either order. Three further columns are colours if they are integers from 0 to
255, and normals if they are unit vectors. If both are possible, a decimal point marks normals.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from lumigraph.formats.chunked import Stream, check_batches, drain, drop_normals, empty_points
from lumigraph.formats.io import open_atomic, open_for_read, to_numpy, to_tensor
from lumigraph.scene.assets import Asset, Points
from lumigraph.scene.errors import FormatError

NAME = "XYZ text"
SUFFIXES = (".xyz",)
HOLDS: tuple[type, ...] = (Points,)
UP = "+z"
METRES = None

TEXT_CHUNK_BYTES = 1 << 20  # text processed at once
XYZ_LINE_MAX_BYTES = 1 << 12
MAX_HEADER_LINES = 100  # the first point must be within these lines
COLUMN_COUNTS = (3, 4, 6, 9)
SEPARATORS_TO_SPACE = bytes.maketrans(b",;\t", b"   ")
COMMENT_MARKS = (b"#", b"//")
UNIT_LENGTH_TOLERANCE = 0.02  # allows for normals written with two decimals

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """Optional columns.

    normals: write the normals of points that have them
    """

    normals: bool = False


# --- writing ---------------------------------------------------------------------------------------------------------


def write(asset: Asset, path: Path, options: Options = Options()) -> None:
    """Write atomically; positions have enough digits to restore 32-bit floats bit for bit.

    Raises FormatError for an asset that is not points, for an empty one, for NaN or infinity, and on disk errors.
    """
    drain(write_stream(Stream.from_asset(asset), path, options))


def write_stream(stream: Stream, path: Path, options: Options = Options()) -> Iterator[float]:
    """Write like `write` while it is pulled; yields the fraction completed."""
    path = Path(path)
    if not isinstance(stream.template, Points):
        raise FormatError(f"{path}: XYZ holds points; choose .ply for gaussians, and .glb or .obj for a mesh")
    if not stream.count:
        raise FormatError(f"{path}: not written, because there are no points, and the file would be empty")
    transform, row_count = None if options.normals else drop_normals, 0
    with open_atomic(path) as file:
        for batch in check_batches(stream, path, transform):
            file.write(_format_rows(batch))
            row_count += len(batch)
            yield row_count / stream.count


def _format_rows(points: Points) -> bytes:
    columns, layout = [to_numpy(points.xyz)], "%.9g %.9g %.9g"
    if points.rgb is not None:
        columns, layout = [*columns, to_numpy(points.rgb)], f"{layout} %d %d %d"
    if points.normals is not None:
        normals = to_numpy(points.normals)
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        columns, layout = [*columns, normals / np.maximum(length, 1e-30)], f"{layout} %.6f %.6f %.6f"
    lists = [axis for part in columns for axis in part.T.tolist()]
    rows = f"{layout}\n" * len(points)  # formatting many rows at once is several times faster than one by one
    return (rows % tuple(chain.from_iterable(zip(*lists, strict=True)))).encode("ascii")


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> Points:
    """Read points. Raises FormatError, with the line, for numbers that are not finite and for other text.

    Memory: at most about ten bytes for each byte of the file, if the numbers have one digit.
    """
    path = Path(path)
    with open_for_read(path) as file:
        first_point = _first_point(file, path)
        tables = list(_tables(file, first_point, path))
    survey = _survey_columns(iter(tables), first_point, path)
    asset: Points = Stream(survey.template, survey.count, lambda: map(survey.points, tables)).gather()
    return asset


def stream(path: Path) -> Stream:
    """Read points in batches. A first pass counts them and determines the meaning of the columns."""
    path = Path(path)
    with open_for_read(path) as file:
        first_point = _first_point(file, path)
        survey = _survey_columns(_tables(file, first_point, path), first_point, path)

    def batches() -> Iterator[Points]:
        with open_for_read(path) as file:
            yield from map(survey.points, _tables(file, _first_point(file, path), path))

    return Stream(survey.template, survey.count, batches)


@dataclass(frozen=True)
class _Survey:
    """Number of points, and the first columns of their colours and normals."""

    count: int
    colours: int | None
    normals: int | None

    @property
    def template(self) -> Points:
        return empty_points(self.colours is not None, self.normals is not None)

    def points(self, table: Doubles) -> Points:
        rgb = None if self.colours is None else to_tensor(table[:, self.colours : self.colours + 3], np.uint8)
        normals = None if self.normals is None else to_tensor(table[:, self.normals : self.normals + 3])
        return Points(to_tensor(table[:, :3]), rgb, normals)


def _survey_columns(tables: Iterator[Doubles], first_point: _FirstPoint, path: Path) -> _Survey:
    count, low, high = 0, np.full(3, np.inf), np.full(3, -np.inf)
    starts = range(3, first_point.columns - 2, 3)
    is_integer, is_unit = dict.fromkeys(starts, True), dict.fromkeys(starts, True)
    for table in tables:
        count += len(table)
        low, high = np.minimum(low, table[:, :3].min(axis=0)), np.maximum(high, table[:, :3].max(axis=0))
        for start in starts:
            part = table[:, start : start + 3]
            is_integer[start] &= bool(((part >= 0) & (part <= 255) & (np.floor(part) == part)).all())
            length = np.linalg.norm(part, axis=1)
            is_unit[start] &= bool(((np.abs(length - 1) < UNIT_LENGTH_TOLERANCE) | (length == 0)).all())
    check_float32_precision(path, low, high)
    colours, normals = None, None
    for start in starts:
        if colours is None and is_integer[start] and not (is_unit[start] and first_point.decimal[start]):
            colours = start
        elif normals is None and is_unit[start]:
            normals = start
        else:
            raise FormatError(
                f"{path}: columns {start + 1} to {start + 3} are neither colours (integers 0 to 255) nor normals (of"
                " unit"
                " length); save the file as x y z r g b"
            )
    return _Survey(count, colours, normals)


def check_float32_precision(path: Path, low: Doubles, high: Doubles) -> None:
    """Raises FormatError if 32-bit floats would move points within `low` and `high` (3,) by over 1/10,000 of their
    extent.

    This happens if the points are far from the origin compared to their extent.
    """
    max_coordinate = float(np.abs([low, high]).max())
    if max_coordinate > float(np.finfo(np.float32).max):
        raise FormatError(f"{path}: a coordinate of {max_coordinate:.3g}, which is too large; scale the points down")
    step = math.ulp(max_coordinate) * 2**29  # a float32 has 24 bits of precision, a float64 has 53
    if step > 1e-4 * float((high - low).max()) > 0:
        raise FormatError(
            f"{path}: the points are around {max_coordinate:.7g}, where 32-bit floats have steps of {step:.2g};"
            " subtract an offset"
            " from the coordinates first (CloudCompare proposes one as it opens the file)"
        )


@dataclass(frozen=True)
class _FirstPoint:
    """Line of the first point: number of columns, which of them have a decimal point, and number of lines before."""

    columns: int
    decimal: tuple[bool, ...]
    lines: int


def _first_point(stream: BinaryIO, path: Path) -> _FirstPoint:
    """Find the first point, and leave the stream at its line.

    Skips comment lines, and one other line before it: column names, or the count.
    """
    has_skipped_line = False
    for line in range(MAX_HEADER_LINES):
        start = stream.tell()
        text = stream.readline(XYZ_LINE_MAX_BYTES + 1)
        if not text:
            raise FormatError(f"{path}: holds no points; it was cut short or is of another type")
        if len(text) > XYZ_LINE_MAX_BYTES:
            raise FormatError(
                f"{path}: line {line + 1}: longer than {XYZ_LINE_MAX_BYTES} bytes; this is not a text file of points"
            )
        words = text.translate(SEPARATORS_TO_SPACE).split()
        if not words or text.lstrip().startswith(COMMENT_MARKS):
            continue
        if len(words) in COLUMN_COUNTS and all(_is_number(word) for word in words):
            stream.seek(start)
            return _FirstPoint(len(words), tuple(b"." in word for word in words), line)
        if has_skipped_line or (len(words) > 1 and any(_is_number(word) for word in words)):
            raise FormatError(
                f"{path}: line {line + 1}: {_quote(text)} is not x y z with or without r g b and a normal; save"
                " the file as x y z r g b"
            )
        has_skipped_line = True
    raise FormatError(f"{path}: no point in the first {MAX_HEADER_LINES} lines; save the file as x y z r g b")


def _quote(text: bytes) -> str:
    return repr(text[:40].decode("latin-1").strip())


def _is_number(word: bytes) -> bool:
    try:
        return math.isfinite(float(word)) and b"_" not in word
    except ValueError:
        return False


def _tables(stream: BinaryIO, first_point: _FirstPoint, path: Path) -> Iterator[Doubles]:
    """Yield tables (N, columns) of finite numbers, for about a megabyte of text each.

    `stream` is at the first point.
    """
    size, partial_line, line = os.fstat(stream.fileno()).st_size, b"", first_point.lines
    while data := stream.read(TEXT_CHUNK_BYTES):
        end = len(data) if stream.tell() >= size else data.rfind(b"\n") + 1
        if not end:
            raise FormatError(f"{path}: line {line + 1}: longer than {TEXT_CHUNK_BYTES} bytes; the file is damaged")
        text, partial_line = partial_line + data[:end], data[end:]
        if len(table := _table(text, first_point.columns, line, path)):
            yield table
        line += text.count(b"\n")


def _table(text: bytes, columns: int, line: int, path: Path) -> Doubles:
    lines = text.translate(SEPARATORS_TO_SPACE)
    if any(mark in lines for mark in COMMENT_MARKS):
        lines = b"\n".join(
            b"" if text_line.lstrip().startswith(COMMENT_MARKS) else text_line for text_line in lines.split(b"\n")
        )
    if not lines.strip():
        return np.empty((0, columns))
    try:
        values = np.loadtxt(io.StringIO(lines.decode("latin-1")), comments=None, ndmin=2)
        if values.shape[1] == columns and np.isfinite(values).all():
            return values
    except ValueError:
        pass
    for number, text_line in enumerate(lines.split(b"\n"), start=line + 1):
        words = text_line.split()
        if words and not (len(words) == columns and all(_is_number(word) for word in words)):
            raise FormatError(
                f"{path}: line {number}: {_quote(text_line)} is not {columns} finite numbers, as the first"
                " point is; correct or remove the line"
            )
    raise FormatError(f"{path}: line {line + 1} or after: not {columns} finite numbers a line; save the file again")
