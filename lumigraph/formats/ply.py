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
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.files import written_beside

SUFFIXES = (".ply",)

Table = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

HEADER_LIMIT = 1 << 16  # bytes; the widest splat header in the wild takes 2 kB
LINE_LIMIT = 1 << 16  # bytes of one row of an ascii file
CHUNK_BYTES = 1 << 20  # of rows in flight: stays in the second-level cache
CHUNK_ROWS = 1 << 14
LOG_SCALE_LIMIT = 30.0  # e^30 units is no size of anything; beyond it float32 products overflow

NUMBER_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
BYTE_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}

POSITION = ["x", "y", "z"]
NORMAL = ["nx", "ny", "nz"]
COLOUR = ["red", "green", "blue"]
DC = [f"f_dc_{c}" for c in range(3)]
SCALE = [f"scale_{a}" for a in range(3)]
ROTATION = [f"rot_{a}" for a in range(4)]
REST_COUNTS = {3 * ((degree + 1) ** 2 - 1): degree for degree in range(4)}  # number of f_rest columns -> SH degree


# --- the header ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Element:
    """One declared table: `columns` maps a name to a numpy type code; `lists` names the columns of varying length."""

    name: str
    count: int
    columns: dict[str, str]
    lists: tuple[str, ...]
    line: int

    def row(self, byte_order: str) -> np.dtype[Any]:
        return np.dtype([(name, byte_order + code) for name, code in self.columns.items()])


@dataclass(frozen=True)
class Header:
    """What the text before the rows says. `size` is in bytes and `lines` in lines, both including `end_header`."""

    encoding: str
    elements: tuple[Element, ...]
    comments: tuple[str, ...]
    size: int
    lines: int


def read_header(path: Path) -> Header:
    """The declared tables and the comments (`SplatRenderMode: mip`, `Vertical axis: y`, ...). Raises FormatError."""
    with _opened(path) as stream:
        return _parse_header(stream, path)


def _parse_header(stream: BinaryIO, path: Path) -> Header:
    encoding = ""
    elements: list[Element] = []
    comments: list[str] = []
    size = 0
    for line, words in enumerate(_header_lines(stream, path), start=1):
        size = stream.tell()
        wrong = partial(_wrong, path, line)
        keyword = words[0] if words else ""
        if line == 1:
            if keyword != "ply":
                raise wrong("the first line of a PLY file must be 'ply'")
        elif keyword == "end_header":
            if not encoding:
                raise wrong("no 'format' line came before 'end_header'")
            return Header(encoding, tuple(elements), tuple(comments), size, line)
        elif keyword == "format":
            if len(words) != 3 or words[1] not in BYTE_ORDERS or words[2] != "1.0":
                raise wrong(f"unknown format {' '.join(words[1:])[:60]!r}")
            encoding = words[1]
        elif keyword in ("comment", "obj_info"):
            comments.append(" ".join(words[1:]))
        elif keyword == "element":
            if len(words) != 3 or not re.fullmatch("[0-9]{1,18}", words[2], re.ASCII):
                raise wrong("an element needs a name and a count")
            if any(words[1] == other.name for other in elements):
                raise wrong(f"element {words[1]!r} is declared twice")
            elements.append(Element(words[1], int(words[2]), {}, (), line))
        elif keyword == "property":
            if not elements:
                raise wrong("a property before any element")
            elements[-1] = _with_property(elements[-1], words, wrong)
        elif keyword:
            raise wrong(f"unknown keyword {keyword[:40]!r}")
    raise FormatError(f"{path}: byte {size}: the file ends inside its header; it was cut short, fetch it again")


def _wrong(path: Path, line: int, what: str) -> FormatError:
    return FormatError(f"{path}: line {line} of the header: {what}; the file is damaged or is no PLY file")


def _with_property(element: Element, words: Sequence[str], wrong: Callable[[str], FormatError]) -> Element:
    is_list = len(words) == 5 and words[1] == "list" and words[2] in NUMBER_TYPES
    kind, name = ("", "") if len(words) < 3 else words[-2:]
    if not (is_list or len(words) == 3) or kind not in NUMBER_TYPES:
        raise wrong(f"cannot read the property {' '.join(words[1:])[:60]!r}")
    if name in element.columns or name in element.lists:
        raise wrong(f"property {name!r} is declared twice")
    if is_list:
        return Element(element.name, element.count, element.columns, (*element.lists, name), element.line)
    columns = {**element.columns, name: NUMBER_TYPES[kind]}
    return Element(element.name, element.count, columns, element.lists, element.line)


def _header_lines(stream: BinaryIO, path: Path) -> Iterator[list[str]]:
    size = 0
    while text := stream.readline(HEADER_LIMIT + 1):
        size += len(text)
        if size > HEADER_LIMIT:
            raise FormatError(
                f"{path}: byte {HEADER_LIMIT}: no 'end_header' so far; this is no PLY file of points or splats"
            )
        if not text.endswith(b"\n"):
            return
        # latin-1 maps every byte to a character: a comment in any encoding is kept, and nothing can fail to decode.
        yield text.decode("latin-1").split()


# --- the rows --------------------------------------------------------------------------------------------------------


def _vertex_rows(stream: BinaryIO, header: Header, size: int, path: Path) -> Iterator[Table]:
    """Structured arrays of a few thousand rows each, all vertices in order. `stream` stands behind the header of a file
    of `size` bytes. All counts are judged here and now, before the caller takes memory for the rows."""
    order, line = BYTE_ORDERS[header.encoding], header.lines
    for element in header.elements:
        _check_room(stream, header, element, size, path)
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


def _check_room(stream: BinaryIO, header: Header, element: Element, size: int, path: Path) -> None:
    """FormatError unless the rows of `element` can lie between here and the end of the file."""
    if header.encoding == "ascii":  # a digit and a blank a value, or at least a line end
        least = element.count * max(1, 2 * (len(element.columns) + len(element.lists))) - 1
    elif element.lists:
        # Rows of varying length can only be walked one by one; nobody writes them before the vertices.
        raise FormatError(
            f"{path}: line {element.line} of the header: element {element.name!r} of lists stands before the"
            " vertices; save the file again with the vertices first"
        )
    else:
        least = element.count * element.row(BYTE_ORDERS[header.encoding]).itemsize
    if least > size - stream.tell():
        raise FormatError(
            f"{path}: byte {stream.tell()}: the header announces {element.count} rows of {element.name!r}, at least"
            f" {least} bytes, but {size - stream.tell()} remain; the file was cut short, fetch it again"
        )


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

    Elements other than `vertex` (the faces of a mesh) are left out. Raises FormatError, naming the byte or line and
    what to do, for anything that is not a readable PLY file of finite numbers. Peak memory: the result plus ~20 MB.
    """
    path = Path(path)
    with _opened(path) as stream:
        header = _parse_header(stream, path)
        vertex = _vertex_element(header, path)
        rows = _vertex_rows(stream, header, os.fstat(stream.fileno()).st_size, path)
        return _splats(rows, vertex, path) if _looks_like_splats(vertex) else _points(rows, vertex, path)


def _opened(path: Path) -> BinaryIO:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise FormatError(f"{path}: cannot be opened ({error.strerror or error}); check the name") from error
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise FormatError(f"{path}: not a regular file; give the path of a .ply file")
    return stream


def _vertex_element(header: Header, path: Path) -> Element:
    vertex = next((element for element in header.elements if element.name == "vertex"), None)
    if vertex is None:
        raise FormatError(f"{path}: its header declares no 'vertex' element, so there is nothing to show")
    if "packed_position" in vertex.columns:
        raise FormatError(
            f"{path}: line {vertex.line} of the header: a compressed splat PLY (PlayCanvas), which is not read here;"
            " open it in SuperSplat or splat-transform and save it as an uncompressed PLY"
        )
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


def _splats(rows: Iterator[Table], vertex: Element, path: Path) -> Splats:
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
    means, log_scales, quats, logits, colour = _gather(rows, groups, vertex, path)
    longest = np.abs(quats).max(1)  # its square must neither vanish nor overflow where the quaternion is normalised
    broken = (log_scales.max(1) > LOG_SCALE_LIMIT) | (longest < 1e-12) | (longest > 1e12)
    if broken.any():
        raise FormatError(
            f"{path}: {int(broken.sum())} of {vertex.count} splats have no usable shape (a scale above"
            f" e^{LOG_SCALE_LIMIT:.0f} or a rotation of zero; the first is vertex {int(broken.argmax())}); remove them"
            " in an editor such as SuperSplat"
        )
    return Splats(
        means=torch.from_numpy(means),
        log_scales=torch.from_numpy(log_scales),
        quats=torch.from_numpy(quats),
        logit_opacities=torch.from_numpy(logits[:, 0]),
        sh=torch.from_numpy(colour.reshape(-1, per_channel + 1, 3)),
    )


def _points(rows: Iterator[Table], vertex: Element, path: Path) -> Points:
    has_colour = all(name in vertex.columns for name in COLOUR)
    has_normal = all(name in vertex.columns for name in NORMAL)
    groups = [POSITION, COLOUR if has_colour else [], NORMAL if has_normal else []]
    xyz, colour, normals = _gather(rows, groups, vertex, path)
    return Points(
        xyz=torch.from_numpy(xyz),
        rgb=torch.from_numpy(_bytes_of_colour(colour, vertex, path)) if has_colour else None,
        normals=torch.from_numpy(normals) if has_normal else None,
    )


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


def _gather(rows: Iterator[Table], groups: list[list[str]], vertex: Element, path: Path) -> list[Floats]:
    """One (N, len(group)) float32 array per group of columns. Raises FormatError when a value is not finite."""
    made = [np.empty((vertex.count, len(group)), np.float32) for group in groups]
    first, bad, first_bad = 0, 0, -1
    for table in rows:
        broken = np.zeros(len(table), bool)
        for group, array in zip(groups, made, strict=True):
            part = array[first : first + len(table)]
            with np.errstate(over="ignore"):  # a double beyond float32 becomes infinity and is counted below
                for j, name in enumerate(group):
                    part[:, j] = table[name]
            broken |= ~np.isfinite(part).all(1)
        if broken.any() and first_bad < 0:
            first_bad = first + int(broken.argmax())
        bad += int(broken.sum())
        first += len(table)
    if bad:
        raise FormatError(
            f"{path}: {bad} of {vertex.count} vertices hold NaN or infinity (the first is vertex {first_bad}); remove"
            " them, for example with splat-transform --filter-nan"
        )
    return made


# --- writing ---------------------------------------------------------------------------------------------------------


def write(asset: Splats | Points, path: Path, comments: Sequence[str] = ()) -> None:
    """Write little-endian binary, atomically: `path` is complete or untouched. `comments` follow our own.

    Splats go out bit for bit as they are held; Points lose `seen_by`, for which PLY has no place. Raises FormatError
    for NaN or infinity (nobody could read them back) and when the disk refuses.
    """
    path = Path(path)
    names, kinds, columns = _splat_columns(asset) if isinstance(asset, Splats) else _point_columns(asset)
    for array in columns:
        if bad := int((~np.isfinite(array).all(1)).sum()):
            raise FormatError(
                f"{path}: not written, because {bad} of {len(array)} rows hold NaN or infinity; remove them first"
            )
    said = ["Generated by Lumigraph"]
    if isinstance(asset, Splats):
        said += [f"SH degree: {asset.sh_degree}"]
        if not any(text.startswith("SplatRenderMode:") for text in comments):
            said += ["SplatRenderMode: default"]
    said += comments
    count = len(columns[0])
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"comment {' '.join(text.split())}" for text in said]
    header += [f"element vertex {count}"]
    header += [
        f"property {'uchar' if kind == 'u1' else 'float'} {name}" for name, kind in zip(names, kinds, strict=True)
    ]
    row = np.dtype([(name, "<" + kind) for name, kind in zip(names, kinds, strict=True)])
    try:
        with written_beside(path) as stream:
            stream.write("\n".join([*header, "end_header", ""]).encode("latin-1", "replace"))
            for first in range(0, count, CHUNK_ROWS):
                table = np.empty(min(CHUNK_ROWS, count - first), row)
                parts = [array[first : first + CHUNK_ROWS, j] for array in columns for j in range(array.shape[1])]
                for name, part in zip(names, parts, strict=True):
                    table[name] = part
                stream.write(table.tobytes())
    except OSError as error:
        reason = error.strerror or error
        raise FormatError(f"{path}: not written ({reason}); free some space or choose another folder") from error


def _splat_columns(splats: Splats) -> tuple[list[str], list[str], list[Table]]:
    count, per_channel = len(splats), splats.sh.shape[1] - 1
    rest = [f"f_rest_{i}" for i in range(3 * per_channel)]
    names = [*POSITION, *NORMAL, *DC, *rest, "opacity", *SCALE, *ROTATION]
    sh = _array(splats.sh)
    channel_major = sh[:, 1:].transpose(0, 2, 1).reshape(count, 3 * per_channel)
    columns = [
        _array(splats.means),
        np.broadcast_to(np.zeros(3, np.float32), (count, 3)),
        sh[:, 0],
        channel_major,
        _array(splats.logit_opacities)[:, None],
        _array(splats.log_scales),
        _array(splats.quats),
    ]
    return names, ["f4"] * len(names), columns


def _point_columns(points: Points) -> tuple[list[str], list[str], list[Table]]:
    names, kinds, columns = list(POSITION), ["f4"] * 3, [_array(points.xyz)]
    if points.normals is not None:
        names, kinds, columns = [*names, *NORMAL], [*kinds, *["f4"] * 3], [*columns, _array(points.normals)]
    if points.rgb is not None:
        names, kinds = [*names, *COLOUR], [*kinds, *["u1"] * 3]
        columns = [*columns, points.rgb.detach().cpu().numpy()]
    return names, kinds, columns


def _array(tensor: torch.Tensor) -> Floats:
    return tensor.detach().to("cpu", torch.float32).numpy()
