"""Stanford PLY as gaussian splatting uses it, and as a plain point cloud.

A PLY file is a text header, `ply` ... `end_header`, that declares elements (tables) of named properties (columns),
followed by the rows, in text or in binary. Two tables of vertices mean something here:

* **Splats**, the layout of Kerbl et al. 2023 ("3D Gaussian Splatting"): x y z, nx ny nz (unused, zero), f_dc_0..2,
  f_rest_0.., opacity, scale_0..2, rot_0..3. Values are raw: scales are logarithms, the opacity is a logit, the
  quaternion is w x y z and need not be of unit length. `f_rest` is channel-major (all red coefficients, then all
  green, then all blue), while `Splats.sh` is (N, K, 3): coefficient-major with the channel inside.
* **Points**: x y z with optional red green blue and nx ny nz.

Reading takes every spelling met in the wild (ascii or binary of either byte order, CRLF, columns in any order or of any
number type, unknown columns, missing normals) and nothing on trust: a count is compared with the bytes that remain
before memory is taken for it, rows pass through one small buffer, and NaN or infinity anywhere refuses the file.
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
from lumigraph.formats.ply_header import BYTE_ORDERS, Element, Header, check_room, parse_header
from lumigraph.formats.quantization import LOG_SCALE_LIMIT, splats_of
from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.errors import FormatError

NAME = "PLY"
SUFFIXES = (".ply",)
HOLDS: tuple[type, ...] = (Splats, Points)
UP = "-y"  # as trained: the axes of the first photos, y down
METRES = None

Table = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

LINE_LIMIT = 1 << 16  # bytes of one row of an ascii file
CHUNK_BYTES = 1 << 20  # of rows in flight: stays in the second-level cache
CHUNK_ROWS = 1 << 14

POSITION = ["x", "y", "z"]
NORMAL = ["nx", "ny", "nz"]
COLOUR = ["red", "green", "blue"]
DC = [f"f_dc_{c}" for c in range(3)]
SCALE = [f"scale_{a}" for a in range(3)]
ROTATION = [f"rot_{a}" for a in range(4)]
REST_COUNTS = {3 * ((degree + 1) ** 2 - 1): degree for degree in range(4)}  # number of f_rest columns -> SH degree


# --- the rows --------------------------------------------------------------------------------------------------------


def _vertex_rows(stream: BinaryIO, header: Header, size: int, path: Path) -> Iterator[Table]:
    """Structured arrays of a few thousand rows each, all vertices in order. `stream` stands behind the header of a file
    of `size` bytes. All counts are judged here and now, before the caller takes memory for the rows."""
    order, line = BYTE_ORDERS[header.encoding], header.lines
    for element in header.elements:
        check_room(stream, header, element, size, path)
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
    for first in range(0, element.count, step := max(1, min(CHUNK_ROWS, CHUNK_BYTES // row.itemsize))):
        count = min(step, element.count - first)
        data = stream.read(count * row.itemsize)
        if len(data) < count * row.itemsize:
            raise FormatError(
                f"{path}: byte {stream.tell()}: the file ends inside vertex {first + len(data) // row.itemsize}"
            )
        yield np.frombuffer(data, row)


def _ascii_rows(stream: BinaryIO, element: Element, line: int, path: Path) -> Iterator[Table]:
    row, width = element.row("="), len(element.columns)
    for first in range(0, element.count, step := max(1, min(CHUNK_ROWS, CHUNK_BYTES // row.itemsize))):
        count = min(step, element.count - first)
        words: list[bytes] = []
        for number in range(line + first + 1, line + first + count + 1):
            here = _ascii_line(stream, number, path).split()
            if len(here) != width:
                raise FormatError(f"{path}: line {number}: {len(here)} values where the header announces {width}")
            words += here
        yield _ascii_table(words, row, line + first + 1, path)


def _ascii_line(stream: BinaryIO, number: int, path: Path) -> bytes:
    text = stream.readline(LINE_LIMIT + 1)
    if not text:
        raise FormatError(f"{path}: line {number}: the file ends before the rows that its header announces")
    if len(text) > LINE_LIMIT:
        raise FormatError(f"{path}: line {number}: longer than {LINE_LIMIT} bytes; the file is damaged")
    return text


def _ascii_table(words: list[bytes], row: np.dtype[Any], line: int, path: Path) -> Table:
    """Text to numbers; an integer column must hold integers of its range, lest 300 become a red of 44."""
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
        with np.errstate(over="ignore"):  # a double too large becomes infinity and is counted as such
            table[name] = column
    return table


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> Splats | Points:
    """The vertices of a PLY file: Splats when it has the columns of 3D gaussian splatting, else Points.

    PlayCanvas' compressed PLY is read as well. Elements other than `vertex` (the faces of a mesh) are left out. Raises
    FormatError, naming the byte or line and what to do, for anything that is not a readable PLY file of finite numbers.
    Peak memory: the result plus ~20 MB.
    """
    asset: Splats | Points = stream(path).gather()
    return asset


def stream(path: Path) -> Stream:
    """As `read`, a few thousand vertices at a time. Header and counts are judged at once, rows as they are pulled."""
    path = Path(path)
    with open_for_read(path) as file:
        header = parse_header(file, path)
        if compressed_ply.is_packed(header):
            return compressed_ply.stream(path)
        vertex = _vertex_element(header, path)
        like, batches = _splats(vertex, path) if _looks_like_splats(vertex) else _points(vertex, path)
        _vertex_rows(file, header, os.fstat(file.fileno()).st_size, path)

    def pulled() -> Iterator[Splats | Points]:
        with open_for_read(path) as file:
            file.seek(header.size)
            yield from batches(_vertex_rows(file, header, os.fstat(file.fileno()).st_size, path))

    return Stream(like, vertex.count, pulled)


def _vertex_element(header: Header, path: Path) -> Element:
    vertex = next((element for element in header.elements if element.name == "vertex"), None)
    if vertex is None:
        raise FormatError(f"{path}: its header declares no 'vertex' element, so there is nothing to show")
    if vertex.lists:
        raise FormatError(
            f"{path}: line {vertex.line} of the header: a vertex with the list property {vertex.lists[0]!r} has no"
            " fixed size; save the file without it"
        )
    if missing := [name for name in POSITION if name not in vertex.columns]:
        raise FormatError(f"{path}: line {vertex.line} of the header: the vertices have no {' '.join(missing)}")
    return vertex


def _looks_like_splats(vertex: Element) -> bool:
    return "f_dc_0" in vertex.columns or {"scale_0", "rot_0"} <= vertex.columns.keys()


Batches = Callable[[Iterator[Table]], Iterator[Splats | Points]]


def _splats(vertex: Element, path: Path) -> tuple[Splats, Batches]:
    needed = [*DC, "opacity", *SCALE, *ROTATION]
    if missing := [name for name in needed if name not in vertex.columns]:
        hint = " (a 2D gaussian splatting file, which describes flat discs)" if missing == ["scale_2"] else ""
        raise FormatError(
            f"{path}: line {vertex.line} of the header: splats without {' '.join(missing)}{hint}; export it as a 3D"
            " gaussian splatting PLY"
        )
    rest = sum(name.startswith("f_rest_") for name in vertex.columns)
    if rest not in REST_COUNTS or any(f"f_rest_{i}" not in vertex.columns for i in range(rest)):
        raise FormatError(
            f"{path}: line {vertex.line} of the header: {rest} columns f_rest_*, but spherical harmonics of degree"
            " 0 to 3 have 0, 9, 24 or 45, numbered from 0; export it with at most degree 3"
        )
    per_channel = rest // 3
    sh = DC + [f"f_rest_{c * per_channel + k}" for k in range(per_channel) for c in range(3)]
    groups = [POSITION, SCALE, ROTATION, ["opacity"], sh]

    def broken(bad: int, first: int) -> FormatError:
        return FormatError(
            f"{path}: {bad} of {vertex.count} splats have no usable shape (a scale above e^{LOG_SCALE_LIMIT:.0f} or a"
            f" rotation of zero; the first is vertex {first}); remove them in an editor such as SuperSplat"
        )

    def batches(rows: Iterator[Table]) -> Iterator[Splats]:
        gathered = _gathered(rows, groups, vertex, path)
        for means, log_scales, quats, logits, colour in check_rows(
            ((it, _shapeless(it[1], it[2])) for it in gathered), broken
        ):
            yield splats_of(means, log_scales, quats, logits[:, 0], colour.reshape(-1, per_channel + 1, 3))

    return empty_splats(REST_COUNTS[rest]), batches


def _shapeless(log_scales: Floats, quats: Floats) -> npt.NDArray[np.bool_]:
    longest = np.abs(quats).max(1)  # its square must neither vanish nor overflow where the quaternion is normalised
    broken: npt.NDArray[np.bool_] = (log_scales.max(1) > LOG_SCALE_LIMIT) | (longest < 1e-12) | (longest > 1e12)
    return broken


def _points(vertex: Element, path: Path) -> tuple[Points, Batches]:
    has_colour = all(name in vertex.columns for name in COLOUR)
    has_normal = all(name in vertex.columns for name in NORMAL)
    groups = [POSITION, COLOUR if has_colour else [], NORMAL if has_normal else []]

    def batches(rows: Iterator[Table]) -> Iterator[Points]:
        for xyz, colour, normals in _gathered(rows, groups, vertex, path):
            yield Points(
                xyz=torch.from_numpy(xyz),
                rgb=torch.from_numpy(_bytes_of_colour(colour, vertex, path)) if has_colour else None,
                normals=torch.from_numpy(normals) if has_normal else None,
            )

    return empty_points(has_colour, has_normal), batches


def _bytes_of_colour(colour: Floats, vertex: Element, path: Path) -> npt.NDArray[np.uint8]:
    """Colours are bytes by custom; 16-bit and unit-range float columns are rounded to bytes, others refused."""
    kinds = {vertex.columns[name] for name in COLOUR}
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


def _gathered(rows: Iterator[Table], groups: list[list[str]], vertex: Element, path: Path) -> Iterator[list[Floats]]:
    """One (N, len(group)) float32 array per group of columns. Raises FormatError when a value is not finite."""

    def broken(bad: int, first: int) -> FormatError:
        return FormatError(
            f"{path}: {bad} of {vertex.count} vertices hold NaN or infinity (the first is vertex {first}); remove"
            " them, for example with splat-transform --filter-nan"
        )

    def gathered(table: Table) -> list[Floats]:
        made = [np.empty((len(table), len(group)), np.float32) for group in groups]
        with np.errstate(over="ignore"):  # a double beyond float32 becomes infinity and is refused
            for group, part in zip(groups, made, strict=True):
                for j, name in enumerate(group):
                    part[:, j] = table[name]
        return made

    return check_rows(((made, find_nonfinite(*made)) for made in map(gathered, rows)), broken)


# --- writing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """Nothing is left open."""


def write(asset: Splats | Points, path: Path, options: Options = Options(), comments: Sequence[str] = ()) -> None:
    """Write little-endian binary, atomically: `path` is complete or untouched. `comments` follow our own.

    Splats go out bit for bit as they are held; Points lose `seen_by`, for which PLY has no place. Raises FormatError
    for NaN or infinity (nobody could read them back) and when the disk refuses.
    """
    drain(write_stream(Stream.from_asset(asset), path, options, comments))


def write_stream(
    stream: Stream, path: Path, options: Options = Options(), comments: Sequence[str] = ()
) -> Iterator[float]:
    """As `write`, while it is pulled; yields the share that is done."""
    path = Path(path)
    if not isinstance(stream.template, Splats | Points):
        raise FormatError(f"{path}: splats and points are written as PLY here; choose a .glb for a mesh")
    said = ["Generated by Lumigraph"]
    if isinstance(stream.template, Splats):
        said += [f"SH degree: {stream.template.sh_degree}"]
        if not any(text.startswith("SplatRenderMode:") for text in comments):
            said += ["SplatRenderMode: default"]
    said += comments
    groups = _groups(stream.template)
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"comment {' '.join(text.split())}" for text in said]
    header += [f"element vertex {stream.count}"]
    header += [f"property {'uchar' if kind == 'u1' else 'float'} {name}" for names, kind, _ in groups for name in names]
    # One field a group, not one a column: whole blocks are copied, which is several times faster.
    row = np.dtype([(names[0], "<" + kind, len(names)) for names, kind, _ in groups])
    done = 0
    with open_atomic(path) as file:
        file.write("\n".join([*header, "end_header", ""]).encode("latin-1", "replace"))
        for batch in check_batches(stream, path):
            table = np.empty(len(batch), row)
            for names, _, values in _groups(batch):
                table[names[0]] = values.reshape(len(table), len(names))
            file.write(table.data)
            done += len(batch)
            yield done / stream.count


Group = tuple[list[str], str, Table]  # names of columns, their number type, and (N, ...) values, one a column


def _groups(batch: Splats | Points) -> list[Group]:
    return _splat_groups(batch) if isinstance(batch, Splats) else _point_groups(batch)


def _splat_groups(splats: Splats) -> list[Group]:
    sh = to_numpy(splats.sh)
    rest = [f"f_rest_{i}" for i in range(3 * (sh.shape[1] - 1))]
    groups: list[Group] = [
        (POSITION, "f4", to_numpy(splats.means)),
        (NORMAL, "f4", np.broadcast_to(np.zeros(3, np.float32), (len(splats), 3))),
        (DC, "f4", sh[:, 0]),
        (rest, "f4", sh[:, 1:].transpose(0, 2, 1)),  # channel-major
        (["opacity"], "f4", to_numpy(splats.logit_opacities)),
        (SCALE, "f4", to_numpy(splats.log_scales)),
        (ROTATION, "f4", to_numpy(splats.quats)),
    ]
    return [group for group in groups if group[0]]


def _point_groups(points: Points) -> list[Group]:
    groups: list[Group] = [(POSITION, "f4", to_numpy(points.xyz))]
    if points.normals is not None:
        groups.append((NORMAL, "f4", to_numpy(points.normals)))
    if points.rgb is not None:
        groups.append((COLOUR, "u1", to_numpy(points.rgb)))
    return groups
