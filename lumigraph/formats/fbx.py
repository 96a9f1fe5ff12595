"""FBX 7.4, the binary exchange format of Autodesk, for Unreal, Unity, Maya, 3ds Max and Blender: a mesh.

The scene is right-handed with y up and says how long its unit is, in centimetres (UnitScaleFactor). One geometry, one
model and one material; the texture lies within the file as a PNG, or beside it. Normals, texture coordinates and
colours are tables with an index for each corner of a triangle. Texture coordinates have v upwards from the bottom
row; colours are display values (sRGB). Strings that name an object carry its class behind two bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lumigraph.formats.fbx_nodes import CREATED, FILE_ID, VERSION, Id, Node, node, write_document
from lumigraph.formats.io import Array, check_finite, open_atomic, to_numpy
from lumigraph.formats.texture_images import encoded, unique_name
from lumigraph.scene.assets import Asset, Mesh
from lumigraph.scene.errors import FormatError

NAME = "Autodesk FBX"
SUFFIXES = (".fbx",)
HOLDS: tuple[type, ...] = (Mesh,)
UP = "+y"
METRES = None  # the file says it

CENTIMETRES_PER_UNIT = {"m": 100.0, "cm": 1.0, "mm": 0.1}
CREATOR = "Lumigraph"
UV_SET = "UVMap"
# Objects are known by numbers of our choice; 0 is the root of the scene.
ROOT, DOCUMENT, GEOMETRY, MODEL, MATERIAL, TEXTURE, VIDEO = map(Id, (0, 10, 11, 12, 13, 14, 15))


@dataclass(frozen=True)
class Options:
    """How the file describes itself.

    unit: the length of a unit
    embed: the texture lies within the file, instead of beside it
    """

    unit: Literal["m", "cm", "mm"] = "m"
    embed: bool = True


def write(asset: Asset, path: Path, options: Options = Options()) -> None:
    """Write atomically: `path` is complete or untouched, and a texture beside it is there first.

    Raises FormatError for anything but a mesh, for a mesh without triangles, for NaN and infinity, beyond 4 GB, and
    when the disk refuses.
    """
    path = Path(path)
    if not isinstance(asset, Mesh):
        raise FormatError(f"{path}: FBX holds a mesh; choose .ply, .usdz or .glb for gaussians and points")
    if not len(asset):
        raise FormatError(f"{path}: not written, because the mesh has no triangles; make it again with more detail")
    given = {"vertices": asset.vertices, "normals": asset.normals, "uv": asset.uv}
    check_finite(path, **{name: to_numpy(values) for name, values in given.items() if values is not None})
    picture, name = b"", ""
    if asset.texture is not None:
        picture = encoded(asset.texture, "png")
        name = unique_name(path, [picture], ".png")
        if not options.embed:
            with open_atomic(path.with_name(name)) as stream:
                stream.write(picture)
            picture = b""
    try:
        with open_atomic(path) as stream:
            write_document(stream, _document(asset, path.stem, CENTIMETRES_PER_UNIT[options.unit], name, picture))
    except OverflowError as error:
        raise FormatError(f"{path}: not written, because an FBX holds less than 4 GB; choose .glb") from error


def _document(mesh: Mesh, title: str, unit: float, name: str, picture: bytes) -> list[Node]:
    """The nodes of the file. `name` is that of the texture's file, "" where there is none; `picture` its bytes."""
    objects = [_geometry(mesh, title), _model(title), _material(title)]
    links = [("OO", MODEL, ROOT), ("OO", GEOMETRY, MODEL), ("OO", MATERIAL, MODEL)]
    connections = [node("C", *link) for link in links]
    if name:
        objects += [_texture(title, name), _video(title, name, picture)]
        connections += [node("C", "OP", TEXTURE, MATERIAL, "DiffuseColor"), node("C", "OO", VIDEO, TEXTURE)]
    return [
        _header(),
        node("FileId", FILE_ID),
        node("CreationTime", CREATED),
        node("Creator", CREATOR),
        _settings(unit),
        _documents(),
        node("References"),
        _definitions([each.name for each in objects]),
        node("Objects", inside=objects),
        node("Connections", inside=connections),
    ]


# --- what every file says --------------------------------------------------------------------------------------------


def _header() -> Node:
    numbers = {"FBXHeaderVersion": 1003, "FBXVersion": VERSION, "EncryptionType": 0}
    said = [node(name, value) for name, value in numbers.items()]
    return node("FBXHeaderExtension", inside=[*said, node("Creator", CREATOR)])


def _settings(unit: float) -> Node:
    """y up, x to the right and z to the front, all positive; the unit in centimetres."""
    axes = {"Up": 1, "Front": 2, "Coord": 0, "OriginalUp": 1}
    properties = []
    for axis, number in axes.items():
        properties.append(_integer(f"{axis}Axis", number))
        properties.append(_integer(f"{axis}AxisSign", 1))
    for name in ("UnitScaleFactor", "OriginalUnitScaleFactor"):
        properties.append(node("P", name, "double", "Number", "", unit))
    return node("GlobalSettings", inside=[node("Version", 1000), node("Properties70", inside=properties)])


def _integer(name: str, value: int) -> Node:
    return node("P", name, "int", "Integer", "", value)


def _documents() -> Node:
    document = node("Document", DOCUMENT, "", "Scene", inside=[node("Properties70"), node("RootNode", ROOT)])
    return node("Documents", inside=[node("Count", 1), document])


def _definitions(classes: Sequence[str]) -> Node:
    kinds = ["GlobalSettings", *classes]
    counts = [node("ObjectType", kind, inside=[node("Count", 1)]) for kind in kinds]
    return node("Definitions", inside=[node("Version", 100), node("Count", len(kinds)), *counts])


# --- the objects -----------------------------------------------------------------------------------------------------


def _named(title: str, kind: str) -> str:
    return f"{title}\x00\x01{kind}"


def _geometry(mesh: Mesh, title: str) -> Node:
    faces = to_numpy(mesh.faces)
    corners = faces.copy()
    corners[:, 2] = ~corners[:, 2]  # marks the last corner of a polygon
    layers = [_layer("Material", "", "AllSame", Materials=np.zeros(1, np.int32))]
    if mesh.normals is not None:
        layers.append(_corners("Normal", "", faces, Normals=to_numpy(mesh.normals), NormalsIndex=None))
    if mesh.uv is not None:
        uv = to_numpy(mesh.uv).astype(np.float64)
        uv[:, 1] = 1 - uv[:, 1]
        layers.append(_corners("UV", UV_SET, faces, UV=uv, UVIndex=None))
    if mesh.rgb is not None and mesh.texture is None:
        rgba = np.concatenate([to_numpy(mesh.rgb) / 255, np.ones((len(mesh.rgb), 1))], axis=1)
        layers.append(_corners("Color", "Col", faces, Colors=rgba, ColorIndex=None))
    used = [node("LayerElement", inside=[node("Type", each.name), node("TypedIndex", 0)]) for each in layers]
    inside = [
        node("Properties70"),
        node("GeometryVersion", 124),
        node("Vertices", to_numpy(mesh.vertices).astype(np.float64).reshape(-1)),
        node("PolygonVertexIndex", corners.reshape(-1)),
        *layers,
        node("Layer", 0, inside=[node("Version", 100), *used]),
    ]
    return node("Geometry", GEOMETRY, _named(title, "Geometry"), "Mesh", inside=inside)


def _corners(kind: str, title: str, faces: Array, **tables: Array | None) -> Node:
    """A table for vertices, and the index into it for each corner, which is that of the vertex."""
    filled = {
        name: faces.reshape(-1) if table is None else table.astype(np.float64).reshape(-1)
        for name, table in tables.items()
    }
    return _layer(kind, title, "ByPolygonVertex", **filled)


def _layer(kind: str, title: str, mapping: str, **tables: Array) -> Node:
    said = [
        node("Version", 101),
        node("Name", title),
        node("MappingInformationType", mapping),
        node("ReferenceInformationType", "IndexToDirect"),
    ]
    return node(f"LayerElement{kind}", 0, inside=[*said, *(node(name, table) for name, table in tables.items())])


def _model(title: str) -> Node:
    scaling = node("P", "Lcl Scaling", "Lcl Scaling", "", "A", 1.0, 1.0, 1.0)
    properties = node("Properties70", inside=[scaling, _integer("DefaultAttributeIndex", 0)])
    inside = [node("Version", 232), properties, node("Shading", True), node("Culling", "CullingOff")]
    return node("Model", MODEL, _named(title, "Model"), "Mesh", inside=inside)


def _material(title: str) -> Node:
    colours = {"DiffuseColor": 1.0, "SpecularColor": 0.0}
    properties = [node("P", name, "Color", "", "A", grey, grey, grey) for name, grey in colours.items()]
    inside = [
        node("Version", 102),
        node("ShadingModel", "Phong"),
        node("MultiLayer", 0),
        node("Properties70", inside=properties),
    ]
    return node("Material", MATERIAL, _named(title, "Material"), "", inside=inside)


def _texture(title: str, name: str) -> Node:
    properties = [node("P", "UVSet", "KString", "", "", UV_SET), node("P", "UseMaterial", "bool", "", "", 1)]
    inside = [
        node("Type", "TextureVideoClip"),
        node("Version", 202),
        node("TextureName", _named(title, "Texture")),
        node("Media", _named(title, "Video")),
        node("FileName", name),
        node("RelativeFilename", name),
        node("Properties70", inside=properties),
    ]
    return node("Texture", TEXTURE, _named(title, "Texture"), "", inside=inside)


def _video(title: str, name: str, picture: bytes) -> Node:
    """The picture's file, within this one where `picture` holds its bytes."""
    path = node("P", "Path", "KString", "XRefUrl", "", name)
    inside = [
        node("Type", "Clip"),
        node("Properties70", inside=[path]),
        node("UseMipMap", 0),
        node("Filename", name),
        node("RelativeFilename", name),
    ]
    if picture:
        inside.append(node("Content", picture))
    return node("Video", VIDEO, _named(title, "Video"), "Clip", inside=inside)
