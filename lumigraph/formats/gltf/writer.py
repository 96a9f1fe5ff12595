"""Meshes, points and gaussians to glTF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from lumigraph.formats.gltf.compression import draco_primitive, needed, packed_faces, packed_table
from lumigraph.formats.gltf.document import INDICES, Document, Json
from lumigraph.formats.io import check_finite, to_numpy
from lumigraph.formats.texture_images import encoded, linear_from_srgb
from lumigraph.scene.assets import Mesh, Points, Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds

Array = npt.NDArray[Any]
Tables = dict[str, Array]  # one row per vertex, by the name of the attribute

SPLATS = "KHR_gaussian_splatting"
POINTS, TRIANGLES = 0, 4
LINEAR = linear_from_srgb(np.arange(256) / 255)


@dataclass(frozen=True)
class Options:
    """How a scene is put into glTF.

    compression: draco (meshes: the smallest files), meshopt (meshes and points: opens faster), or none (any reader)
    position_bits: bits per coordinate where the file is compressed; 14 are a 16000th of the scene's extent
    texture_format: png keeps every pixel as it is, jpeg is a fraction of the size
    jpeg_quality: 1 to 100, of a texture stored as jpeg
    unlit: show the captured colours as they are; without it a viewer lights the scene a second time, by its own lamps
    """

    compression: Literal["none", "draco", "meshopt"] = "none"
    position_bits: Annotated[int, Bounds(8, 16)] = 14
    texture_format: Literal["png", "jpeg"] = "png"
    jpeg_quality: Annotated[int, Bounds(1, 100)] = 90
    unlit: bool = True


def write(asset: Splats | Points | Mesh, path: Path, options: Options = Options()) -> None:
    """As .glb or .gltf by the suffix, whole or not at all. Raises FormatError."""
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


# --- what is written -------------------------------------------------------------------------------------------------


def _mesh(document: Document, node: Json, mesh: Mesh, path: Path, options: Options) -> Json:
    if not len(mesh):
        raise FormatError(f"{path}: not written, because the mesh has no triangles, and glTF cannot hold none")
    tables, faces = {"POSITION": to_numpy(mesh.vertices)}, to_numpy(mesh.faces)
    check_finite(path, vertices=tables["POSITION"])
    if mesh.normals is not None:
        check_finite(path, normals=to_numpy(mesh.normals))
        tables["NORMAL"] = _unit(to_numpy(mesh.normals))
    if mesh.texture is not None and mesh.uv is not None:
        check_finite(path, uv=to_numpy(mesh.uv))
        tables["TEXCOORD_0"] = to_numpy(mesh.uv)
    elif mesh.rgb is not None:  # beside a texture a viewer would multiply the two
        tables["COLOR_0"] = _light(to_numpy(mesh.rgb), np.uint16 if options.compression == "none" else np.uint8)
    if options.compression == "draco":
        primitive = draco_primitive(document, tables, faces, options.position_bits, str(path))
    elif options.compression == "meshopt":
        faces, tables = _in_order_of_use(faces, tables, path)
        primitive = _packed(document, node, tables, path, options.position_bits)
        primitive["indices"] = packed_faces(document, faces, len(tables["POSITION"]), str(path))
    else:
        primitive = {"attributes": _plain(document, tables)}
        # The largest 16-bit index is set aside for restarting strips.
        narrow = faces.astype(np.uint16 if len(mesh.vertices) < 65536 else np.uint32).reshape(-1, 1)
        primitive["indices"] = document.table(narrow, view=document.view(narrow, INDICES))
    return primitive | {"mode": TRIANGLES, "material": _material(document, mesh, options)}


def _material(document: Document, mesh: Mesh, options: Options) -> int:
    """Captured colours hold the light of the day already: unlit, unless asked. Without colours, light is all there is
    to see."""
    surface: Json = {"metallicFactor": 0, "roughnessFactor": 1}
    if mesh.texture is not None:
        data = encoded(mesh.texture, options.texture_format, options.jpeg_quality)
        surface["baseColorTexture"] = {"index": document.picture(data, options.texture_format)}
    material: Json = {"pbrMetallicRoughness": surface}
    if options.unlit and (mesh.texture is not None or mesh.rgb is not None):
        _unlit(document, material)
    return document.add("materials", material)


def _unlit(document: Document, material: Json) -> None:
    document.use("KHR_materials_unlit", required=False)
    material["extensions"] = {"KHR_materials_unlit": {}}


def _points(document: Document, node: Json, points: Points, path: Path, options: Options) -> Json:
    if not len(points):
        raise FormatError(f"{path}: not written, because there are no points, and glTF cannot hold none")
    if options.compression == "draco":
        raise FormatError(f"{path}: Draco in glTF holds triangles only; choose compression meshopt for points")
    tables = {"POSITION": to_numpy(points.xyz)}
    check_finite(path, points=tables["POSITION"])
    if points.normals is not None:
        check_finite(path, normals=to_numpy(points.normals))
        tables["NORMAL"] = _unit(to_numpy(points.normals))
    if points.rgb is not None:
        tables["COLOR_0"] = _light(to_numpy(points.rgb), np.uint16 if options.compression == "none" else np.uint8)
    primitive: Json = {"mode": POINTS}
    if points.normals is not None and points.rgb is not None and options.unlit:  # without normals nothing is lit
        material: Json = {}
        _unlit(document, material)
        primitive["material"] = document.add("materials", material)
    if options.compression == "meshopt":
        return primitive | _packed(document, node, tables, path, options.position_bits, sort=True)
    return primitive | {"attributes": _plain(document, tables)}


def _splats(document: Document, splats: Splats, path: Path) -> Json:
    """As KHR_gaussian_splatting says, with COLOR_0 for viewers that know only points."""
    if not len(splats):
        raise FormatError(f"{path}: not written, because there are no gaussians, and glTF cannot hold none")
    quats = to_numpy(torch.nn.functional.normalize(splats.quats.double(), dim=1, eps=1e-30)).astype(np.float32)
    if not (quats.any(axis=1)).all():
        raise FormatError(f"{path}: not written, because some gaussians have a rotation of zero; remove them first")
    tables = {
        "POSITION": to_numpy(splats.means),
        f"{SPLATS}:ROTATION": quats[:, [1, 2, 3, 0]],  # x y z w
        f"{SPLATS}:SCALE": to_numpy(splats.log_scales.exp()),
        f"{SPLATS}:OPACITY": to_numpy(torch.sigmoid(splats.logit_opacities))[:, None],
    }
    sh = to_numpy(splats.sh)
    names = [f"SH_DEGREE_{d}_COEF_{m}" for d in range(splats.sh_degree + 1) for m in range(2 * d + 1)]
    for k, name in enumerate(names):
        tables[f"{SPLATS}:{name}"] = sh[:, k]
    check_finite(path, **tables)
    rgb = np.rint(to_numpy(splats.colours()).clip(0, 1) * 255).astype(np.uint8)
    tables["COLOR_0"] = _light(rgb, np.uint16)
    tables["COLOR_0"][:, 3] = np.rint(tables[f"{SPLATS}:OPACITY"][:, 0] * 65535)
    document.use(SPLATS, required=False)
    meaning = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    return {"mode": POINTS, "attributes": _plain(document, tables), "extensions": {SPLATS: meaning}}


# --- how it is laid out ----------------------------------------------------------------------------------------------


def _plain(document: Document, tables: Tables) -> dict[str, int]:
    return {
        name: document.table(values, normalized=values.dtype.kind == "u", bounds=name == "POSITION")
        for name, values in tables.items()
    }


def _packed(document: Document, node: Json, tables: Tables, path: Path, bits: int, sort: bool = False) -> Json:
    """A primitive in the fewest bits, packed by meshoptimizer: positions as integers, which `node` scales and moves
    back, and with `sort` the rows along a curve through space, so that neighbours resemble each other."""
    low, high = tables["POSITION"].min(axis=0).astype(float), tables["POSITION"].max(axis=0).astype(float)
    step = float((high - low).max()) / (2**bits - 1) or 1.0
    small = {"POSITION": np.rint((tables["POSITION"] - low) / step).astype(np.uint16)}
    node |= {"translation": low.tolist(), "scale": [step] * 3}
    if "NORMAL" in tables:
        small["NORMAL"] = np.rint(tables["NORMAL"] * 127).astype(np.int8)
    if "TEXCOORD_0" in tables:
        uv = tables["TEXCOORD_0"]
        inside = uv.min() >= 0 and uv.max() <= 1
        small["TEXCOORD_0"] = np.rint(uv * 65535.0).astype(np.uint16) if inside else uv
    if "COLOR_0" in tables:
        small["COLOR_0"] = tables["COLOR_0"]
    order = _along_a_curve(small["POSITION"]) if sort else slice(None)
    document.use("KHR_mesh_quantization", required=True)
    attributes = {}
    for name, values in small.items():
        is_position = name == "POSITION"
        whole = not is_position and values.dtype.kind in "iu"
        rows = np.ascontiguousarray(values[order])
        attributes[name] = packed_table(document, rows, str(path), normalized=whole, bounds=is_position)
    return {"attributes": attributes}


def _in_order_of_use(faces: Array, tables: Tables, path: Path) -> tuple[Array, Tables]:
    """Triangles so that neighbours follow each other, and vertices as the triangles meet them; those that no triangle
    uses are left out."""
    meshopt = needed("meshoptimizer", str(path))
    count = len(tables["POSITION"])
    corners = np.empty(faces.size, np.uint32)
    meshopt.optimize_vertex_cache(corners, faces.astype(np.uint32).reshape(-1), faces.size, count)
    used, first, inverse = np.unique(corners, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place[inverse].reshape(-1, 3), {name: values[used[order]] for name, values in tables.items()}


def _along_a_curve(places: Array) -> npt.NDArray[np.int64]:
    """The order of 16-bit integer points (N, 3) along Morton's curve."""
    code = np.zeros(len(places), np.uint64)
    for axis in range(3):
        spread = places[:, axis].astype(np.uint64)
        for shift, mask in ((16, 0xFF0000FF), (8, 0xF00F00F00F), (4, 0xC30C30C30C3), (2, 0x249249249249)):
            spread = (spread | spread << np.uint64(shift)) & np.uint64(mask)
        code |= spread << np.uint64(axis)
    return np.argsort(code, kind="stable")


def _light(rgb: Array, kind: type[np.unsignedinteger[Any]]) -> Array:
    """(N, 3) sRGB bytes as opaque linear light (N, 4); 16 bits keep all of them apart, 8 merge the darkest ones."""
    top = np.iinfo(kind).max
    light = np.full((len(rgb), 4), top, kind)
    light[:, :3] = np.rint(LINEAR * top).astype(kind)[rgb]
    return light


def _unit(normals: Array) -> Array:
    """Of length one, as glTF wants them; a normal of no length points up."""
    lengths = np.linalg.norm(normals.astype(np.float64), axis=1, keepdims=True)
    up = np.array([0, 1, 0], np.float32)
    return np.where(lengths > 1e-20, normals / np.maximum(lengths, 1e-20), up).astype(np.float32)
