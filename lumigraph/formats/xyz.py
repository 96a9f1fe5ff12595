"""Points as plain text, a line each: `x y z`, then `r g b` (whole, 0 to 255), then `nx ny nz`.

Nobody ever fixed this format. Reading takes what is met in the wild: blanks, tabs, commas or semicolons in between,
lines of remarks (`#`, `//`), a line of names or of the count before the first point, an intensity as the fourth and
last column (left out), colours and normals in either order. Of three further columns, whole numbers from 0 to 255 are
colours and unit vectors are normals; what is both is told apart by the decimal points that we give normals.
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

CHUNK_BYTES = 1 << 20  # of text in flight
LINE_LIMIT = 1 << 12
FIRST_LINES = 100  # among which the first point must be
COLUMNS = (3, 4, 6, 9)
SEPARATORS = bytes.maketrans(b",;\t", b"   ")
REMARKS = (b"#", b"//")
UNIT_TOLERANCE = 0.02  # of the length of a normal that was written with two decimals

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """What follows the colours.

    normals: write the normals of points that have them
    """

    normals: bool = False


# --- writing ---------------------------------------------------------------------------------------------------------


def write(asset: Asset, path: Path, options: Options = Options()) -> None:
    """Write atomically; positions have the digits with which 32-bit floats come back bit for bit.

    Raises FormatError for anything but points, where there are none, for NaN and infinity, and when the disk refuses.
    """
    drain(write_stream(Stream.from_asset(asset), path, options))


def write_stream(stream: Stream, path: Path, options: Options = Options()) -> Iterator[float]:
    """As `write`, while it is pulled; yields the share that is done."""
    path = Path(path)
    if not isinstance(stream.template, Points):
        raise FormatError(f"{path}: XYZ holds points; choose .ply for gaussians, and .glb or .obj for a mesh")
    if not stream.count:
        raise FormatError(f"{path}: not written, because there are no points; an empty file says nothing")
    less, done = None if options.normals else drop_normals, 0
    with open_atomic(path) as file:
        for batch in check_batches(stream, path, less):
            file.write(_text(batch))
            done += len(batch)
            yield done / stream.count


def _text(points: Points) -> bytes:
    columns, layout = [to_numpy(points.xyz)], "%.9g %.9g %.9g"
    if points.rgb is not None:
        columns, layout = [*columns, to_numpy(points.rgb)], f"{layout} %d %d %d"
    if points.normals is not None:
        normals = to_numpy(points.normals)
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        columns, layout = [*columns, normals / np.maximum(length, 1e-30)], f"{layout} %.6f %.6f %.6f"
    lists = [axis for part in columns for axis in part.T.tolist()]
    rows = f"{layout}\n" * len(points)  # one formatting of many rows is several times as fast as many of one
    return (rows % tuple(chain.from_iterable(zip(*lists, strict=True)))).encode("ascii")


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> Points:
    """The points of a text file. Raises FormatError naming the line for anything that is not finite numbers.

    Memory: about ten bytes for each byte of the file at most, where the numbers have one digit.
    """
    path = Path(path)
    with open_for_read(path) as file:
        first = _first_point(file, path)
        tables = list(_tables(file, first, path))
    survey = _survey(iter(tables), first, path)
    asset: Points = Stream(survey.template, survey.count, lambda: map(survey.points, tables)).gather()
    return asset


def stream(path: Path) -> Stream:
    """As `read`, in batches, after a pass over the text: nothing else says how many points there are, and what the
    columns mean."""
    path = Path(path)
    with open_for_read(path) as file:
        first = _first_point(file, path)
        survey = _survey(_tables(file, first, path), first, path)

    def batches() -> Iterator[Points]:
        with open_for_read(path) as file:
            yield from map(survey.points, _tables(file, _first_point(file, path), path))

    return Stream(survey.template, survey.count, batches)


@dataclass(frozen=True)
class _Survey:
    """How many points there are, and in which columns their colours and normals begin."""

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


def _survey(tables: Iterator[Doubles], first: _First, path: Path) -> _Survey:
    count, low, high = 0, np.full(3, np.inf), np.full(3, -np.inf)
    starts = range(3, first.columns - 2, 3)
    whole, unit = dict.fromkeys(starts, True), dict.fromkeys(starts, True)
    for table in tables:
        count += len(table)
        low, high = np.minimum(low, table[:, :3].min(axis=0)), np.maximum(high, table[:, :3].max(axis=0))
        for start in starts:
            part = table[:, start : start + 3]
            whole[start] &= bool(((part >= 0) & (part <= 255) & (np.floor(part) == part)).all())
            length = np.linalg.norm(part, axis=1)
            unit[start] &= bool(((np.abs(length - 1) < UNIT_TOLERANCE) | (length == 0)).all())
    check_single(path, low, high)
    colours, normals = None, None
    for start in starts:
        if colours is None and whole[start] and not (unit[start] and first.decimal[start]):
            colours = start
        elif normals is None and unit[start]:
            normals = start
        else:
            raise FormatError(
                f"{path}: columns {start + 1} to {start + 3} are neither colours (whole, 0 to 255) nor normals (of unit"
                " length); save the file as x y z r g b"
            )
    return _Survey(count, colours, normals)


def check_single(path: Path, low: Doubles, high: Doubles) -> None:
    """FormatError where points within `low` and `high` (3,) lie so far from the origin that 32-bit floats, which
    everything here computes with, would move them by more than a ten thousandth of their extent."""
    far = float(np.abs([low, high]).max())
    if far > float(np.finfo(np.float32).max):
        raise FormatError(f"{path}: a coordinate of {far:.3g}, which is too large; scale the points down")
    step = math.ulp(far) * 2**29  # of a float with 24 bits instead of 53
    if step > 1e-4 * float((high - low).max()) > 0:
        raise FormatError(
            f"{path}: the points lie around {far:.7g}, where 32-bit floats have steps of {step:.2g}; subtract an offset"
            " from the coordinates first (CloudCompare proposes one as it opens the file)"
        )


@dataclass(frozen=True)
class _First:
    """The first point: how many columns it has, which have a decimal point, and how many lines come before."""

    columns: int
    decimal: tuple[bool, ...]
    lines: int


def _first_point(stream: BinaryIO, path: Path) -> _First:
    """The stream is left standing at it.

    Lines of remarks are passed over, and one line in front that is no point: names, or the count.
    """
    skipped = False
    for line in range(FIRST_LINES):
        start = stream.tell()
        text = stream.readline(LINE_LIMIT + 1)
        if not text:
            raise FormatError(f"{path}: holds no points; it was cut short, or is something else")
        if len(text) > LINE_LIMIT:
            raise FormatError(f"{path}: line {line + 1}: longer than {LINE_LIMIT} bytes; this is no text with points")
        words = text.translate(SEPARATORS).split()
        if not words or text.lstrip().startswith(REMARKS):
            continue
        if len(words) in COLUMNS and all(_is_number(word) for word in words):
            stream.seek(start)
            return _First(len(words), tuple(b"." in word for word in words), line)
        if skipped or (len(words) > 1 and any(_is_number(word) for word in words)):
            raise FormatError(
                f"{path}: line {line + 1}: {_shown(text)} is not x y z with or without r g b and a normal; save"
                " the file as x y z r g b"
            )
        skipped = True
    raise FormatError(f"{path}: no point in the first {FIRST_LINES} lines; save the file as x y z r g b")


def _shown(text: bytes) -> str:
    return repr(text[:40].decode("latin-1").strip())


def _is_number(word: bytes) -> bool:
    try:
        return math.isfinite(float(word)) and b"_" not in word
    except ValueError:
        return False


def _tables(stream: BinaryIO, first: _First, path: Path) -> Iterator[Doubles]:
    """(N, columns) finite, for about a megabyte of text each; `stream` stands at the first point."""
    size, rest, line = os.fstat(stream.fileno()).st_size, b"", first.lines
    while data := stream.read(CHUNK_BYTES):
        end = len(data) if stream.tell() >= size else data.rfind(b"\n") + 1
        if not end:
            raise FormatError(f"{path}: line {line + 1}: longer than {CHUNK_BYTES} bytes; the file is damaged")
        text, rest = rest + data[:end], data[end:]
        if len(table := _table(text, first.columns, line, path)):
            yield table
        line += text.count(b"\n")


def _table(text: bytes, columns: int, line: int, path: Path) -> Doubles:
    lines = text.translate(SEPARATORS)
    if any(mark in lines for mark in REMARKS):
        lines = b"\n".join(b"" if each.lstrip().startswith(REMARKS) else each for each in lines.split(b"\n"))
    if not lines.strip():
        return np.empty((0, columns))
    try:
        values = np.loadtxt(io.StringIO(lines.decode("latin-1")), comments=None, ndmin=2)
        if values.shape[1] == columns and np.isfinite(values).all():
            return values
    except ValueError:
        pass
    for number, each in enumerate(lines.split(b"\n"), start=line + 1):
        words = each.split()
        if words and not (len(words) == columns and all(_is_number(word) for word in words)):
            raise FormatError(
                f"{path}: line {number}: {_shown(each)} is not {columns} finite numbers, as the first"
                " point is; correct or remove the line"
            )
    raise FormatError(f"{path}: line {line + 1} or after: not {columns} finite numbers a line; save the file again")
