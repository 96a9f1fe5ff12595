"""Writer of meshes, points and gaussians to glTF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from lumigraph.formats.gltf.compression import encode_draco_primitive, import_optional, pack_faces, pack_table
from lumigraph.formats.gltf.document import INDEX_TARGET, Document, Json
from lumigraph.formats.io import check_finite, to_numpy
from lumigraph.formats.texture_images import encode_image, linear_from_srgb
from lumigraph.scene.assets import Mesh, Points, Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds

Array = npt.NDArray[Any]
Tables = dict[str, Array]  # attribute name -> one row for each vertex

SPLATS_EXTENSION = "KHR_gaussian_splatting"
POINTS_MODE, TRIANGLES_MODE = 0, 4
LINEAR_FROM_BYTE = linear_from_srgb(np.arange(256) / 255)


@dataclass(frozen=True)
class Options:
    """Compression, textures and shading.

    compression: draco (meshes: the smallest files), meshopt (meshes and points: opens faster), or none (any reader)
    position_bits: bits per coordinate of a compressed file; 14 bits are 1/16000 of the extent
    texture_format: png is lossless, jpeg is a fraction of the size
    jpeg_quality: 1 to 100, for texture_format jpeg
    unlit: show captured colours unchanged; otherwise a viewer adds its own lighting
    """

    compression: Literal["none", "draco", "meshopt"] = "none"
    position_bits: Annotated[int, Bounds(8, 16)] = 14
    texture_format: Literal["png", "jpeg"] = "png"
    jpeg_quality: Annotated[int, Bounds(1, 100)] = 90
    unlit: bool = True


def write(asset: Splats | Points | Mesh, path: Path, options: Options = Options()) -> None:
    """Write a .glb or .gltf by the suffix, atomically. Raises FormatError."""
    path = Path(path)
    document = Document()
    node: Json = {"mesh": 0}
    if isinstance(asset, Mesh):
        primitive = _mesh(document, node, asset, path, options)
    elif isinstance(asset, Points):
        primitive = _points(document, node, asset, path, options)
    elif options.compression != "none":
        raise FormatError(
            f"{path}: gaussians in glTF are not compressed; choose compression none, or write them as SPZ or SOG"
        )
    else:
        primitive = _splats(document, asset, path)
    document.tree |= {"scene": 0, "scenes": [{"nodes": [0]}], "nodes": [node], "meshes": [{"primitives": [primitive]}]}
    document.save(path)


# --- primitives ------------------------------------------------------------------------------------------------------


def _mesh(document: Document, node: Json, mesh: Mesh, path: Path, options: Options) -> Json:
    if not len(mesh):
        raise FormatError(f"{path}: not written, because the mesh has no triangles, and glTF cannot be empty")
    tables, faces = {"POSITION": to_numpy(mesh.vertices)}, to_numpy(mesh.faces)
    check_finite(path, vertices=tables["POSITION"])
    if mesh.normals is not None:
        check_finite(path, normals=to_numpy(mesh.normals))
        tables["NORMAL"] = _normalize(to_numpy(mesh.normals))
    if mesh.texture is not None and mesh.uv is not None:
        check_finite(path, uv=to_numpy(mesh.uv))
        tables["TEXCOORD_0"] = to_numpy(mesh.uv)
    elif mesh.rgb is not None:  # a viewer would multiply vertex colours with a texture
        tables["COLOR_0"] = _linear_colours(
            to_numpy(mesh.rgb), np.uint16 if options.compression == "none" else np.uint8
        )
    if options.compression == "draco":
        primitive = encode_draco_primitive(document, tables, faces, options.position_bits, str(path))
    elif options.compression == "meshopt":
        faces, tables = _optimize_order(faces, tables, path)
        primitive = _pack_tables(document, node, tables, path, options.position_bits)
        primitive["indices"] = pack_faces(document, faces, len(tables["POSITION"]), str(path))
    else:
        primitive = {"attributes": _add_tables(document, tables)}
        # The largest 16-bit index is reserved for restarting strips.
        index_rows = faces.astype(np.uint16 if len(mesh.vertices) < 65536 else np.uint32).reshape(-1, 1)
        primitive["indices"] = document.add_table(index_rows, view=document.add_view(index_rows, INDEX_TARGET))
    return primitive | {"mode": TRIANGLES_MODE, "material": _material(document, mesh, options)}


def _material(document: Document, mesh: Mesh, options: Options) -> int:
    """Add the material. Captured colours already include lighting, so they are unlit by default."""
    base_colour: Json = {"metallicFactor": 0, "roughnessFactor": 1}
    if mesh.texture is not None:
        data = encode_image(mesh.texture, options.texture_format, options.jpeg_quality)
        base_colour["baseColorTexture"] = {"index": document.add_texture(data, options.texture_format)}
    material: Json = {"pbrMetallicRoughness": base_colour}
    if options.unlit and (mesh.texture is not None or mesh.rgb is not None):
        _unlit(document, material)
    return document.add("materials", material)


def _unlit(document: Document, material: Json) -> None:
    document.use_extension("KHR_materials_unlit", required=False)
    material["extensions"] = {"KHR_materials_unlit": {}}


def _points(document: Document, node: Json, points: Points, path: Path, options: Options) -> Json:
    if not len(points):
        raise FormatError(f"{path}: not written, because there are no points, and glTF cannot be empty")
    if options.compression == "draco":
        raise FormatError(f"{path}: Draco in glTF holds triangles only; choose compression meshopt for points")
    tables = {"POSITION": to_numpy(points.xyz)}
    check_finite(path, points=tables["POSITION"])
    if points.normals is not None:
        check_finite(path, normals=to_numpy(points.normals))
        tables["NORMAL"] = _normalize(to_numpy(points.normals))
    if points.rgb is not None:
        tables["COLOR_0"] = _linear_colours(
            to_numpy(points.rgb), np.uint16 if options.compression == "none" else np.uint8
        )
    primitive: Json = {"mode": POINTS_MODE}
    if (
        points.normals is not None and points.rgb is not None and options.unlit
    ):  # viewers light only points with normals
        material: Json = {}
        _unlit(document, material)
        primitive["material"] = document.add("materials", material)
    if options.compression == "meshopt":
        return primitive | _pack_tables(document, node, tables, path, options.position_bits, sort=True)
    return primitive | {"attributes": _add_tables(document, tables)}


def _splats(document: Document, splats: Splats, path: Path) -> Json:
    """Primitive of KHR_gaussian_splatting, with COLOR_0 for viewers that only support points."""
    if not len(splats):
        raise FormatError(f"{path}: not written, because there are no gaussians, and glTF cannot be empty")
    quats = to_numpy(torch.nn.functional.normalize(splats.quats.double(), dim=1, eps=1e-30)).astype(np.float32)
    if not (quats.any(axis=1)).all():
        raise FormatError(f"{path}: not written, because some gaussians have a rotation of zero; remove them first")
    tables = {
        "POSITION": to_numpy(splats.means),
        f"{SPLATS_EXTENSION}:ROTATION": quats[:, [1, 2, 3, 0]],  # x y z w
        f"{SPLATS_EXTENSION}:SCALE": to_numpy(splats.log_scales.exp()),
        f"{SPLATS_EXTENSION}:OPACITY": to_numpy(torch.sigmoid(splats.logit_opacities))[:, None],
    }
    sh = to_numpy(splats.sh)
    names = [f"SH_DEGREE_{d}_COEF_{m}" for d in range(splats.sh_degree + 1) for m in range(2 * d + 1)]
    for k, name in enumerate(names):
        tables[f"{SPLATS_EXTENSION}:{name}"] = sh[:, k]
    check_finite(path, **tables)
    rgb = np.rint(to_numpy(splats.colours()).clip(0, 1) * 255).astype(np.uint8)
    tables["COLOR_0"] = _linear_colours(rgb, np.uint16)
    tables["COLOR_0"][:, 3] = np.rint(tables[f"{SPLATS_EXTENSION}:OPACITY"][:, 0] * 65535)
    document.use_extension(SPLATS_EXTENSION, required=False)
    splat_extension = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    return {
        "mode": POINTS_MODE,
        "attributes": _add_tables(document, tables),
        "extensions": {SPLATS_EXTENSION: splat_extension},
    }


# --- tables ----------------------------------------------------------------------------------------------------------


def _add_tables(document: Document, tables: Tables) -> dict[str, int]:
    return {
        name: document.add_table(values, normalized=values.dtype.kind == "u", bounds=name == "POSITION")
        for name, values in tables.items()
    }


def _pack_tables(document: Document, node: Json, tables: Tables, path: Path, bits: int, sort: bool = False) -> Json:
    """Quantized primitive compressed by meshoptimizer.

    Positions become integers; `node` gets the scale and translation that restore them. `sort` puts the rows in Morton
    order, so that consecutive rows are similar.
    """
    low, high = tables["POSITION"].min(axis=0).astype(float), tables["POSITION"].max(axis=0).astype(float)
    step = float((high - low).max()) / (2**bits - 1) or 1.0
    quantized = {"POSITION": np.rint((tables["POSITION"] - low) / step).astype(np.uint16)}
    node |= {"translation": low.tolist(), "scale": [step] * 3}
    if "NORMAL" in tables:
        quantized["NORMAL"] = np.rint(tables["NORMAL"] * 127).astype(np.int8)
    if "TEXCOORD_0" in tables:
        uv = tables["TEXCOORD_0"]
        is_unit_range = uv.min() >= 0 and uv.max() <= 1
        quantized["TEXCOORD_0"] = np.rint(uv * 65535.0).astype(np.uint16) if is_unit_range else uv
    if "COLOR_0" in tables:
        quantized["COLOR_0"] = tables["COLOR_0"]
    order = _morton_order(quantized["POSITION"]) if sort else slice(None)
    document.use_extension("KHR_mesh_quantization", required=True)
    attributes = {}
    for name, values in quantized.items():
        is_position = name == "POSITION"
        is_normalized = not is_position and values.dtype.kind in "iu"
        rows = np.ascontiguousarray(values[order])
        attributes[name] = pack_table(document, rows, str(path), normalized=is_normalized, bounds=is_position)
    return {"attributes": attributes}


def _optimize_order(faces: Array, tables: Tables, path: Path) -> tuple[Array, Tables]:
    """Order triangles by adjacency and vertices by first use; drops unused vertices."""
    meshopt = import_optional("meshoptimizer", str(path))
    count = len(tables["POSITION"])
    corners = np.empty(faces.size, np.uint32)
    meshopt.optimize_vertex_cache(corners, faces.astype(np.uint32).reshape(-1), faces.size, count)
    used_vertices, first, inverse = np.unique(corners, return_index=True, return_inverse=True)
    order = np.argsort(first)
    new_indices = np.empty_like(order)
    new_indices[order] = np.arange(len(order))
    return new_indices[inverse].reshape(-1, 3), {name: values[used_vertices[order]] for name, values in tables.items()}


def _morton_order(positions: Array) -> npt.NDArray[np.int64]:
    """Indices that sort 16-bit integer points (N, 3) in Morton order."""
    code = np.zeros(len(positions), np.uint64)
    for axis in range(3):
        bits = positions[:, axis].astype(np.uint64)
        for shift, mask in ((16, 0xFF0000FF), (8, 0xF00F00F00F), (4, 0xC30C30C30C3), (2, 0x249249249249)):
            bits = (bits | bits << np.uint64(shift)) & np.uint64(mask)
        code |= bits << np.uint64(axis)
    return np.argsort(code, kind="stable")


def _linear_colours(rgb: Array, kind: type[np.unsignedinteger[Any]]) -> Array:
    """(N, 3) sRGB bytes -> (N, 4) opaque linear light. 16 bits keep all colours distinct, 8 merge the darkest."""
    top = np.iinfo(kind).max
    light = np.full((len(rgb), 4), top, kind)
    light[:, :3] = np.rint(LINEAR_FROM_BYTE * top).astype(kind)[rgb]
    return light


def _normalize(normals: Array) -> Array:
    """Normals of length one, as glTF requires; a zero normal becomes +y."""
    lengths = np.linalg.norm(normals.astype(np.float64), axis=1, keepdims=True)
    up = np.array([0, 1, 0], np.float32)
    return np.where(lengths > 1e-20, normals / np.maximum(lengths, 1e-20), up).astype(np.float32)
