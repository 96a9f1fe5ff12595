"""The two compressions of glTF: Draco for triangles, meshoptimizer for tables of any kind.

* `KHR_draco_mesh_compression`: one blob holds the faces and all attributes of a primitive; its accessors only describe
  what comes out. The edge breaker reorders vertices and may split some, so counts and bounds are those of the stream.
* `EXT_meshopt_compression`: each view is packed by itself and keeps its order. The view points into a second buffer
  that has a size and no bytes, and its extension says where the packed bytes lie. The extension fixes version 0 of the
  coding of attributes and version 1 of that of indices.

Nothing that is decoded may take more memory than its bytes could honestly hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from lumigraph.formats.gltf.document import INDICES, VERTICES, Document, Json, described
from lumigraph.scene.errors import FormatError

Array = npt.NDArray[Any]

DRACO, MESHOPT = "KHR_draco_mesh_compression", "EXT_meshopt_compression"
DRACO_LEVEL = 7  # of 10: above it the size hardly falls, and the time doubles
NORMAL_BITS, UV_BITS = 10, 12
DRACO_TYPES = {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2, "TEXCOORD_0": 3}
DRACO_SECONDS = 50e-6  # of the processor, that a face may take; usual is a microsecond
DRACO_VERSION = (2, 2)  # the one that the extension allows


def needed(package: str, where: str) -> ModuleType:
    """The module of an optional package. Raises FormatError where it is not installed."""
    try:
        return __import__(package)
    except ImportError as error:
        raise FormatError(f"{where}: needs the package {package}; pip install 'lumigraph[formats]'") from error


# --- Draco -----------------------------------------------------------------------------------------------------------


def draco_primitive(document: Document, tables: dict[str, Array], faces: Array, bits: int, where: str) -> Json:
    """A primitive of triangles: float32 tables, and COLOR_0 as bytes. Raises FormatError."""
    draco = needed("DracoPy", where)
    doubles = {name: tables[name].astype(np.float64) for name in ("NORMAL", "TEXCOORD_0") if name in tables}
    try:
        data: bytes = draco.encode(
            tables["POSITION"],
            faces.astype(np.uint32),
            quantization_bits=bits,
            compression_level=DRACO_LEVEL,
            preserve_order=False,
            normals=doubles.get("NORMAL"),  # which the wrapper wants as doubles
            normal_quantization_bits=NORMAL_BITS,
            tex_coord=doubles.get("TEXCOORD_0"),
            tex_coord_quantization_bits=UV_BITS,
            colors=tables.get("COLOR_0"),
        )
        stream = draco.decode(data)
    except (RuntimeError, ValueError) as error:  # EncodingFailedException is a RuntimeError
        raise FormatError(f"{where}: Draco cannot hold this mesh ({error}); write it without compression") from error
    document.use(DRACO, required=True)
    held = {part["attribute_type"]: part for part in stream.attributes}
    ids = {name: held[DRACO_TYPES[name]]["unique_id"] for name in tables}
    attributes = {}
    for name in tables:
        values = held[DRACO_TYPES[name]]["data"]
        said = described(values, normalized=name == "COLOR_0", bounds=name == "POSITION")
        attributes[name] = document.add("accessors", said)
    corners = np.asarray(stream.faces, np.uint32).reshape(-1, 1)
    return {
        "attributes": attributes,
        "indices": document.add("accessors", described(corners)),
        "extensions": {DRACO: {"bufferView": document.view(data), "attributes": ids}},
    }


def draco_decoded(data: memoryview, faces: int, vertices: int, where: str) -> tuple[Array, dict[int, Array]]:
    """The faces (F, 3) and the attributes by their unique id. Raises FormatError unless the stream itself announces
    as much: its decoder takes memory for whatever it announces.

    Within a stream stands one more number, of the sides that texture coordinates were predicted from, which the decoder
    believes up to 2^31: ten seconds and 270 MB from a hundred bytes, even where all else is whole. It cannot be found
    without decoding what lies before it; the reader's `Budget.hurry` sees to it that a file does this once at most.
    """
    draco = needed("DracoPy", where)
    said = _draco_counts(bytes(data[:64]), where)
    if said[0] > faces or said[1] > vertices or vertices > 3 * faces:
        raise FormatError(
            f"{where}: a Draco stream of {said[0]} faces and {said[1]} vertices, where the JSON says {faces} and"
            f" {vertices}; the file is damaged, fetch it again"
        )
    try:
        stream = draco.decode(bytes(data))
        corners = np.asarray(stream.faces, np.uint32).reshape(-1, 3)
        attributes = {int(part["unique_id"]): np.asarray(part["data"]) for part in stream.attributes}
    except Exception as error:  # the wrapper raises a handful of types, a few of them its own
        raise FormatError(f"{where}: the Draco stream is damaged ({error}); fetch the file again") from error
    if len(corners) != faces or any(len(values) != vertices for values in attributes.values()):
        raise FormatError(f"{where}: the Draco stream does not hold what the JSON says of it; fetch the file again")
    return corners, attributes


def _draco_counts(head: bytes, where: str) -> tuple[int, int]:
    """The faces and vertices that the head of a stream announces: "DRACO", version, kind, method, flags, then varints,
    before and in the order of which the two methods differ."""
    if (
        head[:5] != b"DRACO"
        or tuple(head[5:7]) != DRACO_VERSION
        or head[7:8] != b"\1"
        or head[8:9] not in (b"\0", b"\1")
    ):
        raise FormatError(f"{where}: no Draco stream of version 2.2 with triangles; compress the file again")
    if int.from_bytes(head[9:11], "little") & 0x8000:
        raise FormatError(f"{where}: a Draco stream with metadata, which is not read; compress the file again")
    by_edge_breaker = head[8] == 1
    first, at = _varint(head, 12 if by_edge_breaker else 11)
    second, _ = _varint(head, at)
    return (second, first) if by_edge_breaker else (first, second)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the place behind it."""
    number = 0
    for shift, byte in enumerate(data[at : at + 5]):
        number |= (byte & 127) << 7 * shift
        if byte < 128:
            return number, at + shift + 1
    return 1 << 62, at  # never ends: larger than anything that is allowed


# --- meshoptimizer ---------------------------------------------------------------------------------------------------


def packed_table(document: Document, values: Array, where: str, **said: bool) -> int:
    """The accessor of an (N, 1..4) table, `normalized` or with `bounds` as `described` says; rows are padded."""
    meshopt = needed("meshoptimizer", where)
    rows = values.view(np.uint8).reshape(len(values), -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    meshopt.encode_vertex_version(0)
    data = meshopt.encode_vertex_buffer(rows, len(rows), rows.shape[1])
    view = _packed_view(document, data, len(rows), rows.shape[1], "ATTRIBUTES", VERTICES)
    return document.add("accessors", {"bufferView": view} | described(values, **said))


def packed_faces(document: Document, faces: Array, vertices: int, where: str) -> int:
    """The accessor of the corners of triangles (F, 3)."""
    meshopt = needed("meshoptimizer", where)
    corners = np.ascontiguousarray(faces, np.uint32).reshape(-1)
    meshopt.encode_index_version(1)
    data = meshopt.encode_index_buffer(corners, len(corners), vertices)
    kind = np.dtype(np.uint16 if vertices < 65536 else np.uint32)
    view = _packed_view(document, data, len(corners), kind.itemsize, "TRIANGLES", INDICES)
    return document.add("accessors", {"bufferView": view} | described(corners[:, None].astype(kind)))


def _packed_view(document: Document, data: bytes, count: int, stride: int, mode: str, target: int) -> int:
    document.use(MESHOPT, required=True)
    fallback = {"byteLength": 0, "extensions": {MESHOPT: {"fallback": True}}}
    nowhere = document.tree.setdefault("buffers", [fallback])[0]
    view = {"buffer": 1, "byteOffset": nowhere["byteLength"], "byteLength": count * stride, "target": target}
    nowhere["byteLength"] += count * stride + -(count * stride) % 4
    if mode == "ATTRIBUTES":
        view["byteStride"] = stride
    packing = document.place(data) | {"byteStride": stride, "count": count, "mode": mode}
    return document.add("bufferViews", view | {"extensions": {MESHOPT: packing}})


@dataclass(frozen=True)
class Packing:
    """What the extension says of a view."""

    count: int
    stride: int  # bytes of a row
    mode: str  # ATTRIBUTES, TRIANGLES or INDICES
    filter: str  # NONE, OCTAHEDRAL, QUATERNION or EXPONENTIAL

    def fits(self, size: int) -> bool:
        """Whether `size` packed bytes can hold it: in 16 bytes of one column at least two bits are spent, on a triangle
        or an index at least a byte."""
        if self.mode == "ATTRIBUTES":
            strides = range(4, 257, 4) if self.filter in ("NONE", "EXPONENTIAL") else (4, 8)
            return self.stride in strides and self.count * self.stride <= 64 * size
        triangles = self.mode == "TRIANGLES" and self.count % 3 == 0
        return self.stride in (2, 4) and self.filter == "NONE" and self.count <= (3 if triangles else 1) * size


def meshopt_decoded(data: memoryview, packing: Packing, where: str) -> Array:
    """The bytes of a packed view. Raises FormatError."""
    meshopt = needed("meshoptimizer", where)
    heads = {"ATTRIBUTES": (0xA0,), "TRIANGLES": (0xE0, 0xE1), "INDICES": (0xD0, 0xD1)}.get(packing.mode, ())
    if not len(data) or data[0] not in heads or not packing.fits(len(data)):
        raise FormatError(f"{where}: what EXT_meshopt_compression says of it cannot be; compress the file again")
    try:
        if packing.mode == "ATTRIBUTES":
            row = np.dtype((np.void, packing.stride))
            rows = meshopt.decode_vertex_buffer(packing.count, packing.stride, data, row)
            return _filtered(meshopt, rows.view(np.uint8), packing)
        unpack = meshopt.decode_index_buffer if packing.mode == "TRIANGLES" else meshopt.decode_index_sequence
        indices = unpack(packing.count, 4, data)  # asked for two bytes, the wrapper would still make room for four
    except (RuntimeError, ValueError) as error:
        raise FormatError(f"{where}: the packed data is damaged ({error}); fetch the file again") from error
    if packing.stride == 2 and indices.max(initial=0) > 65535:
        raise FormatError(f"{where}: the packed indices do not fit their 16 bits; fetch the file again")
    narrow: Array = indices.astype(np.uint16 if packing.stride == 2 else np.uint32).view(np.uint8)
    return narrow


def _filtered(meshopt: ModuleType, rows: Array, packing: Packing) -> Array:
    if packing.filter == "NONE":
        return rows
    apply = {
        "OCTAHEDRAL": meshopt.decode_filter_oct,
        "QUATERNION": meshopt.decode_filter_quat,
        "EXPONENTIAL": meshopt.decode_filter_exp,
    }.get(packing.filter)
    if apply is None:
        raise ValueError(f"unknown filter {packing.filter}")
    done: Array = apply(rows, packing.count, packing.stride)
    return done
