"""OpenUSD for Omniverse, Blender, Houdini and Apple's Quick Look: gaussians, points and meshes.

One prim below the default prim `/scene`: UsdVol.ParticleField3DGaussianSplat (OpenUSD 26.03 and newer), UsdGeom.Points
or UsdGeom.Mesh. The stage stores the up axis and the length of a unit.

* Gaussians: linear scales and opacities, unit quaternions, and the SH coefficients of each gaussian together. Their
  signs and order, and the offset of 0.5 in the colour, are those of 3DGS.
* Colours in USD are linear light; textures are marked as sRGB. Primvar `st` has v upwards from the bottom row.
* `.usdz` is an uncompressed ZIP without the 64-bit extension, which contains the layer and the texture. With `.usda`,
  `.usdc` or `.usd` (binary) the texture is a file in the same folder, written before the scene.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lumigraph.formats.io import Array, check_finite, open_atomic, to_numpy
from lumigraph.formats.texture_images import encode_image, linear_from_srgb, unique_name
from lumigraph.scene.assets import Asset, Mesh, Points, Splats
from lumigraph.scene.errors import FormatError

NAME = "OpenUSD"
SUFFIXES = (".usdz", ".usdc", ".usda", ".usd")
HOLDS: tuple[type, ...] = (Splats, Points, Mesh)
UP = "+y"
METRES = None  # stored in the stage

METRES_PER_UNIT = {"m": 1.0, "cm": 0.01, "mm": 0.001}
USDZ_MAX_BYTES = 2**32 - 2**20  # a ZIP without its 64-bit extension, less space for its directory
EXTENT_DEVIATIONS = 3  # standard deviations included in the extent of a gaussian
MAX_SCALE = 1e30  # its square and its sum with a position must stay finite


@dataclass(frozen=True)
class Options:
    """Up axis and unit of the stage.

    up: the axis that points up
    unit: length of one unit
    """

    up: Literal["y", "z"] = "y"
    unit: Literal["m", "cm", "mm"] = "m"


def write(asset: Asset, path: Path, options: Options = Options()) -> None:
    """Write atomically: `path` is complete or untouched. A separate texture is written first.

    Raises FormatError for an empty asset, for NaN or infinity, for a .usdz beyond 4 GB, and on disk errors.
    """
    path = Path(path)
    _check(asset, path)
    pxr = _pxr(path)
    stage = pxr.Usd.Stage.CreateInMemory()
    pxr.UsdGeom.SetStageUpAxis(stage, options.up.upper())
    pxr.UsdGeom.SetStageMetersPerUnit(stage, METRES_PER_UNIT[options.unit])
    root = pxr.UsdGeom.Xform.Define(stage, "/scene")
    stage.SetDefaultPrim(root.GetPrim())
    pxr.Usd.ModelAPI(root.GetPrim()).SetKind("component")
    image, name = b"", ""
    if isinstance(asset, Splats):
        _splats(pxr, stage, asset)
    elif isinstance(asset, Points):
        _points(pxr, stage, asset)
    else:
        if asset.texture is not None:
            image = encode_image(asset.texture, "png")
            name = unique_name(path, [image], ".png")
        _mesh(pxr, stage, asset, name)
    _check_lengths(stage, path)
    _save(pxr, stage.GetRootLayer(), path, name, image)


def _check(asset: Asset, path: Path) -> None:
    if not isinstance(asset, HOLDS):
        raise FormatError(f"{path}: USD holds gaussians, points and meshes here, not {type(asset).__name__}")
    if not len(asset):
        raise FormatError(f"{path}: not written, because the asset is empty")
    if isinstance(asset, Splats):
        columns = {"means": asset.means, "scales": asset.log_scales.exp(), "rotations": asset.quats}
        columns |= {"opacities": asset.logit_opacities, "colours": asset.sh}
    elif isinstance(asset, Points):
        columns = {"points": asset.xyz} | ({} if asset.normals is None else {"normals": asset.normals})
    else:
        attributes = {"vertices": asset.vertices, "normals": asset.normals, "uv": asset.uv}
        columns = {name: values for name, values in attributes.items() if values is not None}
    check_finite(path, **{name: to_numpy(values) for name, values in columns.items()})
    if isinstance(asset, Splats):
        is_invalid = (to_numpy(asset.quats.norm(dim=1)) < 1e-12) | (
            columns["scales"].amax(dim=1).numpy(force=True) > MAX_SCALE
        )
        if is_invalid.any():
            raise FormatError(
                f"{path}: not written, because {int(is_invalid.sum())} of {len(asset)} gaussians have a rotation of"
                " zero"
                f" or a scale above {MAX_SCALE:g}; remove them first"
            )


def _pxr(path: Path) -> Any:
    """The `pxr` package of usd-core, with its modules imported. Raises FormatError if it is missing or too old."""
    try:
        import pxr
        from pxr import Gf, Sdf, Usd, UsdGeom, UsdShade, UsdVol, Vt  # noqa: F401

        UsdVol.ParticleField3DGaussianSplat  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise FormatError(
            f"{path}: USD needs the package usd-core, 26.3 or newer; pip install 'lumigraph[formats]'"
        ) from error
    return pxr


# --- prims -----------------------------------------------------------------------------------------------------------


def _splats(pxr: Any, stage: Any, splats: Splats) -> None:
    prim = pxr.UsdVol.ParticleField3DGaussianSplat.Define(stage, "/scene/splats")
    means, scales = to_numpy(splats.means), np.exp(to_numpy(splats.log_scales))
    quats = to_numpy(splats.quats)
    unit_quats = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    sh = to_numpy(splats.sh)
    prim.CreatePositionsAttr(_vectors(pxr, means))
    # FromNumpy expects quaternions as x y z w.
    prim.CreateOrientationsAttr(pxr.Vt.QuatfArray.FromNumpy(_floats(np.roll(unit_quats, -1, axis=1))))
    prim.CreateScalesAttr(_vectors(pxr, scales))
    prim.CreateOpacitiesAttr(pxr.Vt.FloatArray.FromNumpy(_floats(to_numpy(splats.logit_opacities.sigmoid()))))
    prim.CreateRadianceSphericalHarmonicsDegreeAttr(splats.sh_degree)
    coefficients = prim.CreateRadianceSphericalHarmonicsCoefficientsAttr(_vectors(pxr, sh.reshape(-1, 3)))
    coefficients.SetMetadata("elementSize", sh.shape[1])
    radius = EXTENT_DEVIATIONS * scales.max(axis=1, keepdims=True)
    prim.CreateExtentAttr(_extent(pxr, means, radius))


def _points(pxr: Any, stage: Any, points: Points) -> None:
    prim = pxr.UsdGeom.Points.Define(stage, "/scene/points")
    xyz = to_numpy(points.xyz)
    width = _width(xyz)
    prim.CreatePointsAttr(_vectors(pxr, xyz))
    prim.CreateWidthsAttr(pxr.Vt.FloatArray([width]))
    prim.SetWidthsInterpolation("constant")
    if points.normals is not None:
        prim.CreateNormalsAttr(_vectors(pxr, to_numpy(points.normals)))
        prim.SetNormalsInterpolation("vertex")
    if points.rgb is not None:
        _display_colour(pxr, prim, to_numpy(points.rgb))
    prim.CreateExtentAttr(_extent(pxr, xyz, np.float32(width / 2)))


def _width(xyz: Array) -> float:
    """Width of the points: about the distance of neighbours if N points cover a surface as large as the diagonal."""
    low, high = np.quantile(xyz, [0.05, 0.95], axis=0)  # outliers must not enlarge all points
    diagonal = float(np.linalg.norm(high - low))
    return diagonal / len(xyz) ** 0.5 if diagonal > 0 else 0.01


def _mesh(pxr: Any, stage: Any, mesh: Mesh, texture: str) -> None:
    """Define the mesh prim. `texture` is the name of its file, "" if there is none."""
    prim = pxr.UsdGeom.Mesh.Define(stage, "/scene/mesh")
    vertices = to_numpy(mesh.vertices)
    prim.CreatePointsAttr(_vectors(pxr, vertices))
    prim.CreateFaceVertexCountsAttr(pxr.Vt.IntArray(len(mesh), 3))
    prim.CreateFaceVertexIndicesAttr(pxr.Vt.IntArray.FromNumpy(np.ascontiguousarray(to_numpy(mesh.faces).reshape(-1))))
    prim.CreateSubdivisionSchemeAttr("none")
    if mesh.normals is not None:
        prim.CreateNormalsAttr(_vectors(pxr, to_numpy(mesh.normals)))
        prim.SetNormalsInterpolation("vertex")
    if mesh.uv is not None:
        uv = to_numpy(mesh.uv)
        st = pxr.UsdGeom.PrimvarsAPI(prim).CreatePrimvar("st", pxr.Sdf.ValueTypeNames.TexCoord2fArray, "vertex")
        st.Set(pxr.Vt.Vec2fArray.FromNumpy(_floats(np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1))))
    if mesh.rgb is not None:
        _display_colour(pxr, prim, to_numpy(mesh.rgb))
    prim.CreateExtentAttr(_extent(pxr, vertices, np.float32(0)))
    if texture:
        material = _material(pxr, stage, texture)
        pxr.UsdShade.MaterialBindingAPI.Apply(prim.GetPrim()).Bind(material)


def _material(pxr: Any, stage: Any, texture: str) -> Any:
    """A matte surface (UsdPreviewSurface) with the texture."""
    types = pxr.Sdf.ValueTypeNames
    material = pxr.UsdShade.Material.Define(stage, "/scene/material")

    def shader(name: str, kind: str) -> Any:
        node = pxr.UsdShade.Shader.Define(stage, f"/scene/material/{name}")
        node.CreateIdAttr(kind)
        return node

    surface, texture_node = shader("surface", "UsdPreviewSurface"), shader("picture", "UsdUVTexture")
    reader = shader("st", "UsdPrimvarReader_float2")
    reader.CreateInput("varname", types.String).Set("st")
    texture_node.CreateInput("file", types.Asset).Set(f"./{texture}")
    texture_node.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
    for axis in ("wrapS", "wrapT"):
        texture_node.CreateInput(axis, types.Token).Set("clamp")
    texture_node.CreateInput("st", types.Float2).ConnectToSource(reader.ConnectableAPI(), "result")
    surface.CreateInput("diffuseColor", types.Color3f).ConnectToSource(texture_node.ConnectableAPI(), "rgb")
    surface.CreateInput("roughness", types.Float).Set(1.0)
    surface.CreateInput("metallic", types.Float).Set(0.0)
    material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
    return material


def _display_colour(pxr: Any, prim: Any, rgb: Array) -> None:
    colour = prim.CreateDisplayColorPrimvar("vertex")
    table = linear_from_srgb(np.arange(256) / 255).astype(np.float32)
    colour.Set(_vectors(pxr, table[rgb]))


def _extent(pxr: Any, centres: Array, reach: Array | np.float32) -> Any:
    return _vectors(pxr, np.stack([(centres - reach).min(axis=0), (centres + reach).max(axis=0)]))


def _vectors(pxr: Any, rows: Array) -> Any:
    return pxr.Vt.Vec3fArray.FromNumpy(_floats(rows))


def _floats(values: Array) -> Array:
    return np.ascontiguousarray(values, dtype=np.float32)


def _check_lengths(stage: Any, path: Path) -> None:
    """Raises FormatError unless all arrays of a prim match its number of elements; USD validators do not check this."""
    for prim in stage.Traverse():
        lengths = {
            a.GetName(): len(a.Get()) for a in prim.GetAttributes() if a.IsAuthored() and a.GetTypeName().isArray
        }
        count = lengths.get("positions", lengths.get("points", 0))
        degree = prim.GetAttribute("radiance:sphericalHarmonicsDegree")
        expected_lengths = {"extent": 2, "widths": 1, "xformOpOrder": 0}
        if degree:
            expected_lengths["radiance:sphericalHarmonicsCoefficients"] = count * (degree.Get() + 1) ** 2
        if "faceVertexCounts" in lengths:
            corners = lengths["faceVertexIndices"]
            expected_lengths |= {"faceVertexCounts": corners // 3, "faceVertexIndices": 3 * lengths["faceVertexCounts"]}
        for name, length in lengths.items():
            if length != expected_lengths.get(name, count):
                raise FormatError(f"{path}: {prim.GetPath()}.{name} has {length} values for {count} elements")


# --- files -----------------------------------------------------------------------------------------------------------


def _save(pxr: Any, layer: Any, path: Path, name: str, image: bytes) -> None:
    """Save the layer to `path` in the format of its suffix, and the texture `name` if `image` is not empty."""
    is_usdz = path.suffix.lower() == ".usdz"
    with _temporary_folder(path) as folder:
        scene_file = folder / f"scene{'.usdc' if is_usdz else path.suffix.lower()}"
        try:
            if not layer.Export(str(scene_file)):
                raise FormatError(f"{path}: not written; free some space or choose another folder")
            if is_usdz:
                scene_file = _pack_usdz(pxr, scene_file, path, name, image)
        except RuntimeError as error:  # the base class of pxr's exceptions
            raise FormatError(f"{path}: not written; free some space or choose another folder") from error
        with scene_file.open("rb+") as file:
            os.fsync(file.fileno())
        if image and not is_usdz:
            with open_atomic(path.with_name(name)) as file:
                file.write(image)
        scene_file.replace(path)


def _pack_usdz(pxr: Any, layer: Path, path: Path, name: str, image: bytes) -> Path:
    if layer.stat().st_size + len(image) > USDZ_MAX_BYTES:
        raise FormatError(f"{path}: not written, because a .usdz holds less than 4 GB; choose .usdc")
    scene_file = layer.with_name("scene.usdz")
    with pxr.Sdf.ZipFileWriter.CreateNew(str(scene_file)) as archive:
        archive.AddFile(str(layer), "scene.usdc")  # the first file of the archive is the root layer
        if image:
            layer.with_name(name).write_bytes(image)
            archive.AddFile(str(layer.with_name(name)), name)
    return scene_file


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """A temporary folder on the same file system, removed at the end of the block: USD opens files by path."""
    folder = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        folder.mkdir()
        yield folder
    except OSError as error:
        reason = error.strerror or error
        raise FormatError(f"{path}: not written ({reason}); free some space or choose another folder") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
