"""Programs and libraries of others, asked what is in a file: how many, where, and what they have against it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).parents[1]
NEW = (
    "MESH_PRIMITIVE_INVALID_ATTRIBUTE"  # what Khronos' validator says of KHR_gaussian_splatting, which it does not know
)


@dataclass(frozen=True)
class Verdict:
    """`places` (N, 3) as the judge has them, or only the two `bounds`; `said`: all its words but praise."""

    judge: str
    count: int
    bounds: Any  # (2, 3)
    said: str
    places: Any = None
    colours: Any = None  # (N, 3) uint8


def _points(judge: str, places: Any, said: str = "no complaint", colours: Any = None) -> Verdict:
    return Verdict(judge, len(places), np.stack([places.min(axis=0), places.max(axis=0)]), said, places, colours)


def plyfile(path: Path, judge: str = "") -> Verdict:
    from plyfile import PlyData

    rows = PlyData.read(str(path))["vertex"]
    return _points(judge or f"plyfile {version('plyfile')}", np.stack([rows[axis] for axis in "xyz"], axis=1))


def splat_transform(path: Path) -> Verdict:
    """PlayCanvas' program decodes the file to a plain PLY, which plyfile reads; it turns to the axes of that."""
    program = Path(tool("splat-transform"))
    asked = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    told = asked.stdout + asked.stderr
    out = path.parent / "read-by-splat-transform.ply"
    done = subprocess.run([program, "-w", path, out], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"splat-transform refuses {path}: {done.stdout[-500:]}{done.stderr[-500:]}")
    warned = re.findall(r".*\bwarn.*", done.stdout + done.stderr, re.IGNORECASE)
    found = re.search(r"\d+\.\d+\.\d+", told)
    verdict = plyfile(out, f"splat-transform {found[0] if found else ''}")
    return replace(verdict, said="; ".join(warned) or "no complaint")


def gltf(path: Path) -> Verdict:
    """The findings of Khronos' validator, and the contents as glTF-Transform decodes them."""
    modules = json.loads((TESTS / "gltf" / "package.json").read_text())["dependencies"]
    command = ["node", str(TESTS / "gltf" / "judge.mjs"), str(path)]
    seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    (part,) = seen["parts"]
    counted = part["indices"] // 3 if part["mode"] == 4 else part["vertices"]
    findings = seen["findings"]
    unknown = sum(one["code"] == NEW and "KHR_gaussian_splatting" in one["pointer"] for one in findings)
    errors = sum(one["severity"] == 0 for one in findings) - unknown
    words = [f"{errors} errors", f"{sum(one['severity'] == 1 for one in findings)} warnings"]
    words += [f"{unknown} attributes of an extension that it does not know"] if unknown else []
    remarks = sorted({one["code"] for one in findings if one["severity"] > 1 or (one["severity"] < 2 and not unknown)})
    words += [f"remarks: {', '.join(remarks)}"] if remarks else []
    judge = f"gltf-validator {modules['gltf-validator']}, glTF-Transform {modules['@gltf-transform/core']}"
    return Verdict(judge, counted, np.array([part["low"], part["high"]]), ", ".join(words))


def usd(path: Path) -> Verdict:
    from pxr import Usd, UsdGeom, UsdValidation

    held = Usd.Stage.Open(str(path))
    everyone = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    findings = [error.GetMessage() for error in UsdValidation.ValidationContext(everyone).Validate(held)]
    prim = next(one for one in held.Traverse() if one.GetTypeName() in ("Mesh", "Points", GAUSSIANS))
    places = np.array(prim.GetAttribute("positions" if prim.GetTypeName() == GAUSSIANS else "points").Get())
    verdict = _points("", places)
    count = len(UsdGeom.Mesh(prim).GetFaceVertexCountsAttr().Get()) if prim.IsA(UsdGeom.Mesh) else len(places)
    said = f"{len(everyone)} validators, {len(findings)} findings{''.join(f'; {one}' for one in findings)}"
    return Verdict(f"usd-core {version('usd-core')}", count, verdict.bounds, said)


GAUSSIANS = "ParticleField3DGaussianSplat"


def trimesh(path: Path) -> Verdict:
    import trimesh as library

    seen = library.load(path, process=False, maintain_order=True, force="mesh")
    visual = seen.visual
    picture = getattr(getattr(visual, "material", None), "image", None)
    said = "no texture" if picture is None else f"a texture of {picture.width} x {picture.height}"
    said += f", {'closed' if seen.is_watertight else 'open'}"
    return Verdict(f"trimesh {version('trimesh')}", len(seen.faces), seen.bounds, said)


def assimp(path: Path) -> Verdict:
    program = tool("assimp")
    told = subprocess.run([program, "info", path, "-v"], capture_output=True, text=True)
    numbers = {key: re.search(rf"{key}:\s+(\d+)", told.stdout) for key in ("Faces", "Meshes", "Textures \\(embed.\\)")}
    corners = [re.search(rf"{end} point\s+\(([^)]+)\)", told.stdout, re.IGNORECASE) for end in ("Minimum", "Maximum")]
    if told.returncode or None in corners or numbers["Faces"] is None:
        raise RuntimeError(f"assimp refuses {path}: {told.stdout[-500:]}")
    bounds = np.array([[float(x) for x in found[1].split()] for found in corners if found])
    release = re.search(r"Version (\S+)", subprocess.run([program, "version"], capture_output=True, text=True).stdout)
    within = numbers["Textures \\(embed.\\)"]
    said = f"{numbers['Meshes'][1] if numbers['Meshes'] else '?'} mesh, textures within: {within[1] if within else 0}"
    return Verdict(f"assimp {release[1] if release else ''}", int(numbers["Faces"][1]), bounds, said)


def pycolmap(model: Path, photos: int) -> str:
    """What COLMAP's library finds in a model of so many photos."""
    import pycolmap as library

    seen = library.Reconstruction(str(model))
    assert seen.num_reg_images() == photos, seen.summary()
    return f"pycolmap {version('pycolmap')}: {photos} photos, {seen.num_cameras()} camera"


def laspy(path: Path) -> Verdict:
    import laspy as library

    seen = library.read(path)
    light = np.stack([seen.red, seen.green, seen.blue], axis=1) >> 8
    said = f"LAS {seen.header.version}, point format {seen.header.point_format.id}"
    return _points(f"laspy {version('laspy')}", np.asarray(seen.xyz), said, light.astype(np.uint8))


def numpy(path: Path) -> Verdict:
    return _points(f"numpy {version('numpy')}", np.loadtxt(path, usecols=(0, 1, 2)))


def tool(name: str) -> str:
    """A program of others, which the environment says or PATH has."""
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is not on the PATH; see the head of tests/formats/gallery/__main__.py")
    return found


JUDGES: dict[str, Callable[[Path], Verdict]] = {
    "plyfile": plyfile,
    "splat-transform": splat_transform,
    "gltf": gltf,
    "usd": usd,
    "trimesh": trimesh,
    "assimp": assimp,
    "laspy": laspy,
    "numpy": numpy,
}
