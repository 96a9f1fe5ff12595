"""FBX 7.4, Autodesk's binary exchange format for Unreal, Unity, Maya, 3ds Max and Blender. Holds a mesh.

The scene is right-handed with y up; UnitScaleFactor is its unit in centimetres. It has one geometry, one model and one
material. The texture is a PNG, embedded or in its own file. Normals, texture coordinates and colours are tables with an
index for each corner of a triangle. Texture coordinates have v upwards from the bottom row; colours are display values
(sRGB). The name of an object is followed by two separator bytes and its class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lumigraph.formats.fbx_nodes import CREATION_TIME, FBX_VERSION, FILE_ID, Id, Node, make_node, write_document
from lumigraph.formats.io import Array, check_finite, open_atomic, to_numpy
from lumigraph.formats.texture_images import encode_image, unique_name
from lumigraph.scene.assets import Asset, Mesh
from lumigraph.scene.errors import FormatError

NAME = "Autodesk FBX"
SUFFIXES = (".fbx",)
HOLDS: tuple[type, ...] = (Mesh,)
UP = "+y"
METRES = None  # stored in the file

CENTIMETRES_PER_UNIT = {"m": 100.0, "cm": 1.0, "mm": 0.1}
CREATOR = "Lumigraph"
UV_SET = "UVMap"
# Object numbers are arbitrary; 0 is the root of the scene.
ROOT, DOCUMENT, GEOMETRY, MODEL, MATERIAL, TEXTURE, VIDEO = map(Id, (0, 10, 11, 12, 13, 14, 15))


@dataclass(frozen=True)
class Options:
    """Unit and texture storage.

    unit: length of one unit
    embed: store the texture within the file instead of next to it
    """

    unit: Literal["m", "cm", "mm"] = "m"
    embed: bool = True


def write(asset: Asset, path: Path, options: Options = Options()) -> None:
    """Write atomically: `path` is complete or untouched. A separate texture is written first.

    Raises FormatError for an asset that is not a mesh, for a mesh without triangles, for NaN or infinity, for more than
    4 GB, and on disk errors.
    """
    path = Path(path)
    if not isinstance(asset, Mesh):
        raise FormatError(f"{path}: FBX holds a mesh; choose .ply, .usdz or .glb for gaussians and points")
    if not len(asset):
        raise FormatError(f"{path}: not written, because the mesh has no triangles; extract it again with more detail")
    attributes = {"vertices": asset.vertices, "normals": asset.normals, "uv": asset.uv}
    check_finite(path, **{name: to_numpy(values) for name, values in attributes.items() if values is not None})
    image, name = b"", ""
    if asset.texture is not None:
        image = encode_image(asset.texture, "png")
        name = unique_name(path, [image], ".png")
        if not options.embed:
            with open_atomic(path.with_name(name)) as stream:
                stream.write(image)
            image = b""
    try:
        with open_atomic(path) as stream:
            write_document(stream, _build_document(asset, path.stem, CENTIMETRES_PER_UNIT[options.unit], name, image))
    except OverflowError as error:
        raise FormatError(f"{path}: not written, because an FBX holds less than 4 GB; choose .glb") from error


def _build_document(mesh: Mesh, title: str, unit: float, name: str, image: bytes) -> list[Node]:
    """Nodes of the file. `name` is the texture file ("" if none), `image` its bytes if embedded."""
    objects = [_geometry_node(mesh, title), _model_node(title), _material_node(title)]
    links = [("OO", MODEL, ROOT), ("OO", GEOMETRY, MODEL), ("OO", MATERIAL, MODEL)]
    connections = [make_node("C", *link) for link in links]
    if name:
        objects += [_texture_node(title, name), _video_node(title, name, image)]
        connections += [make_node("C", "OP", TEXTURE, MATERIAL, "DiffuseColor"), make_node("C", "OO", VIDEO, TEXTURE)]
    return [
        _header_extension(),
        make_node("FileId", FILE_ID),
        make_node("CreationTime", CREATION_TIME),
        make_node("Creator", CREATOR),
        _global_settings(unit),
        _documents_node(),
        make_node("References"),
        _definitions_node([object_node.name for object_node in objects]),
        make_node("Objects", children=objects),
        make_node("Connections", children=connections),
    ]


# --- header and settings ---------------------------------------------------------------------------------------------


def _header_extension() -> Node:
    numbers = {"FBXHeaderVersion": 1003, "FBXVersion": FBX_VERSION, "EncryptionType": 0}
    fields = [make_node(name, value) for name, value in numbers.items()]
    return make_node("FBXHeaderExtension", children=[*fields, make_node("Creator", CREATOR)])


def _global_settings(unit: float) -> Node:
    """Axes: y up, x right, z front, all positive; the unit in centimetres."""
    axes = {"Up": 1, "Front": 2, "Coord": 0, "OriginalUp": 1}
    properties = []
    for axis, number in axes.items():
        properties.append(_integer_property(f"{axis}Axis", number))
        properties.append(_integer_property(f"{axis}AxisSign", 1))
    for name in ("UnitScaleFactor", "OriginalUnitScaleFactor"):
        properties.append(make_node("P", name, "double", "Number", "", unit))
    return make_node(
        "GlobalSettings", children=[make_node("Version", 1000), make_node("Properties70", children=properties)]
    )


def _integer_property(name: str, value: int) -> Node:
    return make_node("P", name, "int", "Integer", "", value)


def _documents_node() -> Node:
    document = make_node(
        "Document", DOCUMENT, "", "Scene", children=[make_node("Properties70"), make_node("RootNode", ROOT)]
    )
    return make_node("Documents", children=[make_node("Count", 1), document])


def _definitions_node(classes: Sequence[str]) -> Node:
    kinds = ["GlobalSettings", *classes]
    counts = [make_node("ObjectType", kind, children=[make_node("Count", 1)]) for kind in kinds]
    return make_node("Definitions", children=[make_node("Version", 100), make_node("Count", len(kinds)), *counts])


# --- objects ---------------------------------------------------------------------------------------------------------


def _object_name(title: str, kind: str) -> str:
    return f"{title}\x00\x01{kind}"


def _geometry_node(mesh: Mesh, title: str) -> Node:
    faces = to_numpy(mesh.faces)
    corners = faces.copy()
    corners[:, 2] = ~corners[:, 2]  # marks the last corner of a polygon
    layers = [_layer_node("Material", "", "AllSame", Materials=np.zeros(1, np.int32))]
    if mesh.normals is not None:
        layers.append(_corner_layer("Normal", "", faces, Normals=to_numpy(mesh.normals), NormalsIndex=None))
    if mesh.uv is not None:
        uv = to_numpy(mesh.uv).astype(np.float64)
        uv[:, 1] = 1 - uv[:, 1]
        layers.append(_corner_layer("UV", UV_SET, faces, UV=uv, UVIndex=None))
    if mesh.rgb is not None and mesh.texture is None:
        rgba = np.concatenate([to_numpy(mesh.rgb) / 255, np.ones((len(mesh.rgb), 1))], axis=1)
        layers.append(_corner_layer("Color", "Col", faces, Colors=rgba, ColorIndex=None))
    layer_refs = [
        make_node("LayerElement", children=[make_node("Type", layer.name), make_node("TypedIndex", 0)])
        for layer in layers
    ]
    children = [
        make_node("Properties70"),
        make_node("GeometryVersion", 124),
        make_node("Vertices", to_numpy(mesh.vertices).astype(np.float64).reshape(-1)),
        make_node("PolygonVertexIndex", corners.reshape(-1)),
        *layers,
        make_node("Layer", 0, children=[make_node("Version", 100), *layer_refs]),
    ]
    return make_node("Geometry", GEOMETRY, _object_name(title, "Geometry"), "Mesh", children=children)


def _corner_layer(kind: str, title: str, faces: Array, **tables: Array | None) -> Node:
    """A table by vertex, and an index table by corner (None in `tables`), which holds the vertex numbers."""
    columns = {
        name: faces.reshape(-1) if table is None else table.astype(np.float64).reshape(-1)
        for name, table in tables.items()
    }
    return _layer_node(kind, title, "ByPolygonVertex", **columns)


def _layer_node(kind: str, title: str, mapping: str, **tables: Array) -> Node:
    fields = [
        make_node("Version", 101),
        make_node("Name", title),
        make_node("MappingInformationType", mapping),
        make_node("ReferenceInformationType", "IndexToDirect"),
    ]
    return make_node(
        f"LayerElement{kind}", 0, children=[*fields, *(make_node(name, table) for name, table in tables.items())]
    )


def _model_node(title: str) -> Node:
    scaling = make_node("P", "Lcl Scaling", "Lcl Scaling", "", "A", 1.0, 1.0, 1.0)
    properties = make_node("Properties70", children=[scaling, _integer_property("DefaultAttributeIndex", 0)])
    children = [make_node("Version", 232), properties, make_node("Shading", True), make_node("Culling", "CullingOff")]
    return make_node("Model", MODEL, _object_name(title, "Model"), "Mesh", children=children)


def _material_node(title: str) -> Node:
    colours = {"DiffuseColor": 1.0, "SpecularColor": 0.0}
    properties = [make_node("P", name, "Color", "", "A", grey, grey, grey) for name, grey in colours.items()]
    children = [
        make_node("Version", 102),
        make_node("ShadingModel", "Phong"),
        make_node("MultiLayer", 0),
        make_node("Properties70", children=properties),
    ]
    return make_node("Material", MATERIAL, _object_name(title, "Material"), "", children=children)


def _texture_node(title: str, name: str) -> Node:
    properties = [make_node("P", "UVSet", "KString", "", "", UV_SET), make_node("P", "UseMaterial", "bool", "", "", 1)]
    children = [
        make_node("Type", "TextureVideoClip"),
        make_node("Version", 202),
        make_node("TextureName", _object_name(title, "Texture")),
        make_node("Media", _object_name(title, "Video")),
        make_node("FileName", name),
        make_node("RelativeFilename", name),
        make_node("Properties70", children=properties),
    ]
    return make_node("Texture", TEXTURE, _object_name(title, "Texture"), "", children=children)


def _video_node(title: str, name: str, image: bytes) -> Node:
    """The image file of the texture; `image` holds its bytes if it is embedded."""
    path = make_node("P", "Path", "KString", "XRefUrl", "", name)
    children = [
        make_node("Type", "Clip"),
        make_node("Properties70", children=[path]),
        make_node("UseMipMap", 0),
        make_node("Filename", name),
        make_node("RelativeFilename", name),
    ]
    if image:
        children.append(make_node("Content", image))
    return make_node("Video", VIDEO, _object_name(title, "Video"), "Clip", children=children)
