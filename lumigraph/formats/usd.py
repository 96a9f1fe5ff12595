"""OpenUSD, for Omniverse, Blender, Houdini and Apple's Quick Look: gaussians, points and meshes.

One prim below the default prim `/scene`: UsdVol.ParticleField3DGaussianSplat (OpenUSD 26.03 and newer), UsdGeom.Points
or UsdGeom.Mesh. The stage says which axis is up and how long a unit is.

* Gaussians: scales and opacities are linear, quaternions of unit length, and the coefficients of the harmonics lie
  together for each gaussian; signs, order and the half that is added to the colour are those of 3DGS.
* Colours in USD are linear light; textures say that they are sRGB. Primvar `st` has its v upwards from the bottom row.
* `.usdz` is an uncompressed ZIP without the 64-bit extension, in which layer and texture lie side by side. Beside a
  `.usda`, `.usdc` or `.usd` (which is binary) the texture lies as a file of its own, in place before the scene is.
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
from lumigraph.formats.texture_images import encoded, linear_from_srgb, unique_name
from lumigraph.scene.assets import Asset, Mesh, Points, Splats
from lumigraph.scene.errors import FormatError

NAME = "OpenUSD"
SUFFIXES = (".usdz", ".usdc", ".usda", ".usd")
HOLDS: tuple[type, ...] = (Splats, Points, Mesh)
UP = "+y"
METRES = None  # the stage says it

METRES_PER_UNIT = {"m": 1.0, "cm": 0.01, "mm": 0.001}
MOST_BYTES = 2**32 - 2**20  # of a ZIP without its 64-bit extension, less room for its directory
REACH = 3  # standard deviations of a gaussian that count as its extent
LARGEST = 1e30  # of a scale: its square and its sum with a position must stay finite


@dataclass(frozen=True)
class Options:
    """How the stage describes itself.

    up: the axis that points up
    unit: the length of a unit
    """

    up: Literal["y", "z"] = "y"
    unit: Literal["m", "cm", "mm"] = "m"


def write(asset: Asset, path: Path, options: Options = Options()) -> None:
    """Write atomically: `path` is complete or untouched, and a texture beside it is there first.

    Raises FormatError for an asset without contents, for NaN and infinity, for a .usdz beyond 4 GB, and when the disk
    refuses.
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
    picture, name = b"", ""
    if isinstance(asset, Splats):
        _splats(pxr, stage, asset)
    elif isinstance(asset, Points):
        _points(pxr, stage, asset)
    else:
        if asset.texture is not None:
            picture = encoded(asset.texture, "png")
            name = unique_name(path, [picture], ".png")
        _mesh(pxr, stage, asset, name)
    _check_lengths(stage, path)
    _save(pxr, stage.GetRootLayer(), path, name, picture)


def _check(asset: Asset, path: Path) -> None:
    if not isinstance(asset, HOLDS):
        raise FormatError(f"{path}: USD holds gaussians, points and meshes here, not {type(asset).__name__}")
    if not len(asset):
        raise FormatError(f"{path}: not written, because there is nothing in it; USD needs something to show")
    if isinstance(asset, Splats):
        columns = {"means": asset.means, "scales": asset.log_scales.exp(), "rotations": asset.quats}
        columns |= {"opacities": asset.logit_opacities, "colours": asset.sh}
    elif isinstance(asset, Points):
        columns = {"points": asset.xyz} | ({} if asset.normals is None else {"normals": asset.normals})
    else:
        given = {"vertices": asset.vertices, "normals": asset.normals, "uv": asset.uv}
        columns = {name: values for name, values in given.items() if values is not None}
    check_finite(path, **{name: to_numpy(values) for name, values in columns.items()})
    if isinstance(asset, Splats):
        broken = (to_numpy(asset.quats.norm(dim=1)) < 1e-12) | (
            columns["scales"].amax(dim=1).numpy(force=True) > LARGEST
        )
        if broken.any():
            raise FormatError(
                f"{path}: not written, because {int(broken.sum())} of {len(asset)} gaussians have a rotation of zero"
                f" or a scale above {LARGEST:g}; remove them first"
            )


def _pxr(path: Path) -> Any:
    """The modules of usd-core, as attributes. Raises FormatError where they are missing or too old."""
    try:
        import pxr
        from pxr import Gf, Sdf, Usd, UsdGeom, UsdShade, UsdVol, Vt  # noqa: F401

        UsdVol.ParticleField3DGaussianSplat  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise FormatError(
            f"{path}: USD needs the package usd-core, 26.3 or newer; pip install 'lumigraph[formats]'"
        ) from error
    return pxr


# --- the prims -------------------------------------------------------------------------------------------------------


def _splats(pxr: Any, stage: Any, splats: Splats) -> None:
    prim = pxr.UsdVol.ParticleField3DGaussianSplat.Define(stage, "/scene/splats")
    means, scales = to_numpy(splats.means), np.exp(to_numpy(splats.log_scales))
    quats = to_numpy(splats.quats)
    unit = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    sh = to_numpy(splats.sh)
    prim.CreatePositionsAttr(_vectors(pxr, means))
    # FromNumpy takes the rows of quaternions as x y z w.
    prim.CreateOrientationsAttr(pxr.Vt.QuatfArray.FromNumpy(_floats(np.roll(unit, -1, axis=1))))
    prim.CreateScalesAttr(_vectors(pxr, scales))
    prim.CreateOpacitiesAttr(pxr.Vt.FloatArray.FromNumpy(_floats(to_numpy(splats.logit_opacities.sigmoid()))))
    prim.CreateRadianceSphericalHarmonicsDegreeAttr(splats.sh_degree)
    coefficients = prim.CreateRadianceSphericalHarmonicsCoefficientsAttr(_vectors(pxr, sh.reshape(-1, 3)))
    coefficients.SetMetadata("elementSize", sh.shape[1])
    reach = REACH * scales.max(axis=1, keepdims=True)
    prim.CreateExtentAttr(_extent(pxr, means, reach))


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
    """About the distance between neighbours of points that lie on surfaces, which fill a box as its side squared."""
    low, high = np.quantile(xyz, [0.05, 0.95], axis=0)  # a few points far away shall not make all others balls
    across = float(np.linalg.norm(high - low))
    return across / len(xyz) ** 0.5 if across > 0 else 0.01


def _mesh(pxr: Any, stage: Any, mesh: Mesh, texture: str) -> None:
    """`texture` names its file, "" where there is none."""
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
    """A matt surface (UsdPreviewSurface) with the picture on it."""
    types = pxr.Sdf.ValueTypeNames
    material = pxr.UsdShade.Material.Define(stage, "/scene/material")

    def shader(name: str, kind: str) -> Any:
        made = pxr.UsdShade.Shader.Define(stage, f"/scene/material/{name}")
        made.CreateIdAttr(kind)
        return made

    surface, picture = shader("surface", "UsdPreviewSurface"), shader("picture", "UsdUVTexture")
    reader = shader("st", "UsdPrimvarReader_float2")
    reader.CreateInput("varname", types.String).Set("st")
    picture.CreateInput("file", types.Asset).Set(f"./{texture}")
    picture.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
    for axis in ("wrapS", "wrapT"):
        picture.CreateInput(axis, types.Token).Set("clamp")
    picture.CreateInput("st", types.Float2).ConnectToSource(reader.ConnectableAPI(), "result")
    surface.CreateInput("diffuseColor", types.Color3f).ConnectToSource(picture.ConnectableAPI(), "rgb")
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
    """FormatError unless all arrays of a prim fit its number of elements, which no validator of USD looks at."""
    for prim in stage.Traverse():
        lengths = {
            a.GetName(): len(a.Get()) for a in prim.GetAttributes() if a.IsAuthored() and a.GetTypeName().isArray
        }
        count = lengths.get("positions", lengths.get("points", 0))
        degree = prim.GetAttribute("radiance:sphericalHarmonicsDegree")
        wanted = {"extent": 2, "widths": 1, "xformOpOrder": 0}
        if degree:
            wanted["radiance:sphericalHarmonicsCoefficients"] = count * (degree.Get() + 1) ** 2
        if "faceVertexCounts" in lengths:
            corners = lengths["faceVertexIndices"]
            wanted |= {"faceVertexCounts": corners // 3, "faceVertexIndices": 3 * lengths["faceVertexCounts"]}
        for name, length in lengths.items():
            if length != wanted.get(name, count):
                raise FormatError(f"{path}: {prim.GetPath()}.{name} has {length} values for {count} elements")


# --- the files -------------------------------------------------------------------------------------------------------


def _save(pxr: Any, layer: Any, path: Path, name: str, picture: bytes) -> None:
    """The layer, and the picture of that name where there is one, to `path`, in the form that its suffix says."""
    packed = path.suffix.lower() == ".usdz"
    with _folder_beside(path) as folder:
        made = folder / f"scene{'.usdc' if packed else path.suffix.lower()}"
        try:
            if not layer.Export(str(made)):
                raise FormatError(f"{path}: not written; free some space or choose another folder")
            if packed:
                made = _packed(pxr, made, path, name, picture)
        except RuntimeError as error:  # what pxr's own exceptions are
            raise FormatError(f"{path}: not written; free some space or choose another folder") from error
        with made.open("rb+") as file:
            os.fsync(file.fileno())
        if picture and not packed:
            with open_atomic(path.with_name(name)) as beside:
                beside.write(picture)
        made.replace(path)


def _packed(pxr: Any, layer: Path, path: Path, name: str, picture: bytes) -> Path:
    if layer.stat().st_size + len(picture) > MOST_BYTES:
        raise FormatError(f"{path}: not written, because a .usdz holds less than 4 GB; choose .usdc")
    made = layer.with_name("scene.usdz")
    with pxr.Sdf.ZipFileWriter.CreateNew(str(made)) as archive:
        archive.AddFile(str(layer), "scene.usdc")  # the first in the archive is the one that opens
        if picture:
            layer.with_name(name).write_bytes(picture)
            archive.AddFile(str(layer.with_name(name)), name)
    return made


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """An empty folder on the same file system, gone when the block ends: USD wants to open its files itself."""
    folder = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        folder.mkdir()
        yield folder
    except OSError as error:
        reason = error.strerror or error
        raise FormatError(f"{path}: not written ({reason}); free some space or choose another folder") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
