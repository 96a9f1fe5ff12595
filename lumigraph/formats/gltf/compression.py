"""The two compressions of glTF: Draco for triangles, meshoptimizer for tables of any type.

* `KHR_draco_mesh_compression`: one buffer view holds the faces and all attributes of a primitive; its accessors only
  describe the decoded data. The edge breaker reorders vertices and may split some, so counts and bounds are taken from
  the encoded stream.
* `EXT_meshopt_compression`: each buffer view is compressed separately and keeps its order. The view refers to a
  fallback buffer that has a size but no bytes, and its extension locates the compressed bytes. The extension fixes
  version 0 of the vertex codec and version 1 of the index codec.

Decoded data may not take more memory than its bytes can plausibly encode.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from lumigraph.formats.gltf.document import INDEX_TARGET, VERTEX_TARGET, Document, Json, make_accessor
from lumigraph.scene.errors import FormatError

Array = npt.NDArray[Any]

DRACO, MESHOPT = "KHR_draco_mesh_compression", "EXT_meshopt_compression"
DRACO_LEVEL = 7  # of 10; higher levels double the time and hardly reduce the size
NORMAL_BITS, UV_BITS = 10, 12
DRACO_TYPES = {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2, "TEXCOORD_0": 3}
DRACO_SECONDS_PER_FACE = 50e-6  # limit of processor time; a microsecond is usual
DRACO_VERSION = (2, 2)  # required by the extension


def import_optional(package: str, where: str) -> ModuleType:
    """Import an optional package. Raises FormatError if it is not installed."""
    try:
        return __import__(package)
    except ImportError as error:
        raise FormatError(f"{where}: needs the package {package}; pip install 'lumigraph[formats]'") from error


# --- Draco -----------------------------------------------------------------------------------------------------------


def encode_draco_primitive(document: Document, tables: dict[str, Array], faces: Array, bits: int, where: str) -> Json:
    """Encode triangles with Draco: float32 tables, COLOR_0 as bytes. Raises FormatError."""
    draco = import_optional("DracoPy", where)
    doubles = {name: tables[name].astype(np.float64) for name in ("NORMAL", "TEXCOORD_0") if name in tables}
    try:
        data: bytes = draco.encode(
            tables["POSITION"],
            faces.astype(np.uint32),
            quantization_bits=bits,
            compression_level=DRACO_LEVEL,
            preserve_order=False,
            normals=doubles.get("NORMAL"),  # the wrapper requires doubles
            normal_quantization_bits=NORMAL_BITS,
            tex_coord=doubles.get("TEXCOORD_0"),
            tex_coord_quantization_bits=UV_BITS,
            colors=tables.get("COLOR_0"),
        )
        stream = draco.decode(data)
    except (RuntimeError, ValueError) as error:  # EncodingFailedException is a RuntimeError
        raise FormatError(f"{where}: Draco cannot hold this mesh ({error}); write it without compression") from error
    document.use_extension(DRACO, required=True)
    draco_attributes = {part["attribute_type"]: part for part in stream.attributes}
    ids = {name: draco_attributes[DRACO_TYPES[name]]["unique_id"] for name in tables}
    attributes = {}
    for name in tables:
        values = draco_attributes[DRACO_TYPES[name]]["data"]
        accessor = make_accessor(values, normalized=name == "COLOR_0", bounds=name == "POSITION")
        attributes[name] = document.add("accessors", accessor)
    corners = np.asarray(stream.faces, np.uint32).reshape(-1, 1)
    return {
        "attributes": attributes,
        "indices": document.add("accessors", make_accessor(corners)),
        "extensions": {DRACO: {"bufferView": document.add_view(data), "attributes": ids}},
    }


def decode_draco(data: memoryview, faces: int, vertices: int, where: str) -> tuple[Array, dict[int, Array]]:
    """Decode the faces (F, 3), and the attributes by their unique id.

    Raises FormatError unless the counts in the stream match the JSON: the decoder allocates memory for any count.

    The stream has one more count, of the triangle sides that predict texture coordinates. The decoder trusts it up to
    2^31: ten seconds and 270 MB for a hundred bytes, even if all other data is valid. It can only be read by decoding
    all data before it. The reader's `Budget.limit_time` lets a file do this at most once.
    """
    draco = import_optional("DracoPy", where)
    header_counts = _draco_counts(bytes(data[:64]), where)
    if header_counts[0] > faces or header_counts[1] > vertices or vertices > 3 * faces:
        raise FormatError(
            f"{where}: a Draco stream of {header_counts[0]} faces and {header_counts[1]} vertices, where the JSON says"
            f" {faces} and"
            f" {vertices}; the file is damaged, fetch it again"
        )
    try:
        stream = draco.decode(bytes(data))
        corners = np.asarray(stream.faces, np.uint32).reshape(-1, 3)
        attributes = {int(part["unique_id"]): np.asarray(part["data"]) for part in stream.attributes}
    except Exception as error:  # the wrapper raises several types, some of its own
        raise FormatError(f"{where}: the Draco stream is damaged ({error}); fetch the file again") from error
    if len(corners) != faces or any(len(values) != vertices for values in attributes.values()):
        raise FormatError(f"{where}: the Draco stream does not match the JSON; fetch the file again")
    return corners, attributes


def _draco_counts(head: bytes, where: str) -> tuple[int, int]:
    """(faces, vertices) in the header of a stream.

    The header is "DRACO", version, type, method, flags, then varints. The two methods differ in the order of the counts
    and in the bytes before them.
    """
    if (
        head[:5] != b"DRACO"
        or tuple(head[5:7]) != DRACO_VERSION
        or head[7:8] != b"\1"
        or head[8:9] not in (b"\0", b"\1")
    ):
        raise FormatError(f"{where}: not a Draco stream of version 2.2 with triangles; compress the file again")
    if int.from_bytes(head[9:11], "little") & 0x8000:
        raise FormatError(f"{where}: a Draco stream with metadata, which is not read; compress the file again")
    by_edge_breaker = head[8] == 1
    first, offset = _varint(head, 12 if by_edge_breaker else 11)
    second, _ = _varint(head, offset)
    return (second, first) if by_edge_breaker else (first, second)


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    """Decode a number in groups of seven bits, lowest first; returns it and the offset after it."""
    number = 0
    for shift, byte in enumerate(data[offset : offset + 5]):
        number |= (byte & 127) << 7 * shift
        if byte < 128:
            return number, offset + shift + 1
    return 1 << 62, offset  # unterminated: return a number above every limit


# --- meshoptimizer ---------------------------------------------------------------------------------------------------


def pack_table(document: Document, values: Array, where: str, **header_counts: bool) -> int:
    """Compress an (N, 1..4) table; returns its accessor. `flags` are those of `make_accessor`. Pads rows to 4 bytes."""
    meshopt = import_optional("meshoptimizer", where)
    rows = values.view(np.uint8).reshape(len(values), -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    meshopt.encode_vertex_version(0)
    data = meshopt.encode_vertex_buffer(rows, len(rows), rows.shape[1])
    view = _packed_view(document, data, len(rows), rows.shape[1], "ATTRIBUTES", VERTEX_TARGET)
    return document.add("accessors", {"bufferView": view} | make_accessor(values, **header_counts))


def pack_faces(document: Document, faces: Array, vertices: int, where: str) -> int:
    """Compress the corners of triangles (F, 3); returns their accessor."""
    meshopt = import_optional("meshoptimizer", where)
    corners = np.ascontiguousarray(faces, np.uint32).reshape(-1)
    meshopt.encode_index_version(1)
    data = meshopt.encode_index_buffer(corners, len(corners), vertices)
    index_type = np.dtype(np.uint16 if vertices < 65536 else np.uint32)
    view = _packed_view(document, data, len(corners), index_type.itemsize, "TRIANGLES", INDEX_TARGET)
    return document.add("accessors", {"bufferView": view} | make_accessor(corners[:, None].astype(index_type)))


def _packed_view(document: Document, data: bytes, count: int, stride: int, mode: str, target: int) -> int:
    document.use_extension(MESHOPT, required=True)
    fallback = {"byteLength": 0, "extensions": {MESHOPT: {"fallback": True}}}
    fallback_buffer = document.tree.setdefault("buffers", [fallback])[0]
    view = {"buffer": 1, "byteOffset": fallback_buffer["byteLength"], "byteLength": count * stride, "target": target}
    fallback_buffer["byteLength"] += count * stride + -(count * stride) % 4
    if mode == "ATTRIBUTES":
        view["byteStride"] = stride
    packing = document.append_bytes(data) | {"byteStride": stride, "count": count, "mode": mode}
    return document.add("bufferViews", view | {"extensions": {MESHOPT: packing}})


@dataclass(frozen=True)
class Packing:
    """Compression parameters of a buffer view."""

    count: int
    stride: int  # bytes of a row
    mode: str  # ATTRIBUTES, TRIANGLES or INDICES
    filter: str  # NONE, OCTAHEDRAL, QUATERNION or EXPONENTIAL

    def can_hold(self, size: int) -> bool:
        """Whether `size` compressed bytes can encode the view.

        The codec spends at least two bits on 16 bytes of a column, and at least a byte on a triangle or an index.
        """
        if self.mode == "ATTRIBUTES":
            strides = range(4, 257, 4) if self.filter in ("NONE", "EXPONENTIAL") else (4, 8)
            return self.stride in strides and self.count * self.stride <= 64 * size
        triangles = self.mode == "TRIANGLES" and self.count % 3 == 0
        return self.stride in (2, 4) and self.filter == "NONE" and self.count <= (3 if triangles else 1) * size


def decode_meshopt(data: memoryview, packing: Packing, where: str) -> Array:
    """Decode the bytes of a compressed view. Raises FormatError."""
    meshopt = import_optional("meshoptimizer", where)
    first_bytes = {"ATTRIBUTES": (0xA0,), "TRIANGLES": (0xE0, 0xE1), "INDICES": (0xD0, 0xD1)}.get(packing.mode, ())
    if not len(data) or data[0] not in first_bytes or not packing.can_hold(len(data)):
        raise FormatError(f"{where}: impossible EXT_meshopt_compression parameters; compress the file again")
    try:
        if packing.mode == "ATTRIBUTES":
            row = np.dtype((np.void, packing.stride))
            rows = meshopt.decode_vertex_buffer(packing.count, packing.stride, data, row)
            return _apply_filter(meshopt, rows.view(np.uint8), packing)
        decode = meshopt.decode_index_buffer if packing.mode == "TRIANGLES" else meshopt.decode_index_sequence
        indices = decode(packing.count, 4, data)  # the wrapper allocates four bytes even for two
    except (RuntimeError, ValueError) as error:
        raise FormatError(f"{where}: the packed data is damaged ({error}); fetch the file again") from error
    if packing.stride == 2 and indices.max(initial=0) > 65535:
        raise FormatError(f"{where}: the packed indices do not fit their 16 bits; fetch the file again")
    narrow: Array = indices.astype(np.uint16 if packing.stride == 2 else np.uint32).view(np.uint8)
    return narrow


def _apply_filter(meshopt: ModuleType, rows: Array, packing: Packing) -> Array:
    if packing.filter == "NONE":
        return rows
    decode_filter = {
        "OCTAHEDRAL": meshopt.decode_filter_oct,
        "QUATERNION": meshopt.decode_filter_quat,
        "EXPONENTIAL": meshopt.decode_filter_exp,
    }.get(packing.filter)
    if decode_filter is None:
        raise ValueError(f"unknown filter {packing.filter}")
    decoded: Array = decode_filter(rows, packing.count, packing.stride)
    return decoded
