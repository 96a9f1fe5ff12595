"""Judges: external programs and libraries that report count, bounds and complaints for a file."""

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
# Reported by the Khronos validator for KHR_gaussian_splatting, which it does not support.
UNSUPPORTED_EXTENSION_CODE = "MESH_PRIMITIVE_INVALID_ATTRIBUTE"


@dataclass(frozen=True)
class Verdict:
    """Contents according to a judge. `positions` (N, 3) if available; `comments` are its complaints and facts."""

    judge: str
    count: int
    bounds: Any  # (2, 3)
    comments: str
    positions: Any = None
    colours: Any = None  # (N, 3) uint8


def make_verdict(judge: str, positions: Any, comments: str = "no complaint", colours: Any = None) -> Verdict:
    return Verdict(
        judge, len(positions), np.stack([positions.min(axis=0), positions.max(axis=0)]), comments, positions, colours
    )


def plyfile(path: Path, judge: str = "") -> Verdict:
    from plyfile import PlyData

    rows = PlyData.read(str(path))["vertex"]
    return make_verdict(judge or f"plyfile {version('plyfile')}", np.stack([rows[axis] for axis in "xyz"], axis=1))


def splat_transform(path: Path) -> Verdict:
    """Decode the file to a PLY with splat-transform, which also converts to PLY axes, and read it with plyfile."""
    program = Path(find_tool("splat-transform"))
    arguments = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    output = arguments.stdout + arguments.stderr
    out = path.parent / "read-by-splat-transform.ply"
    process = subprocess.run([program, "-w", path, out], capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(f"splat-transform rejects {path}: {process.stdout[-500:]}{process.stderr[-500:]}")
    warnings = re.findall(r".*\bwarn.*", process.stdout + process.stderr, re.IGNORECASE)
    match = re.search(r"\d+\.\d+\.\d+", output)
    verdict = plyfile(out, f"splat-transform {match[0] if match else ''}")
    return replace(verdict, comments="; ".join(warnings) or "no complaint")


def gltf(path: Path) -> Verdict:
    """Findings of the Khronos validator, and contents decoded by glTF-Transform."""
    modules = json.loads((TESTS / "gltf" / "package.json").read_text())["dependencies"]
    command = ["node", str(TESTS / "gltf" / "judge.mjs"), str(path)]
    loaded_file = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    (part,) = loaded_file["parts"]
    count = part["indices"] // 3 if part["mode"] == 4 else part["vertices"]
    findings = loaded_file["findings"]
    unknown = sum(
        finding["code"] == UNSUPPORTED_EXTENSION_CODE and "KHR_gaussian_splatting" in finding["pointer"]
        for finding in findings
    )
    errors = sum(finding["severity"] == 0 for finding in findings) - unknown
    words = [f"{errors} errors", f"{sum(finding['severity'] == 1 for finding in findings)} warnings"]
    words += [f"{unknown} attributes of an extension that it does not know"] if unknown else []
    remarks = sorted(
        {
            finding["code"]
            for finding in findings
            if finding["severity"] > 1 or (finding["severity"] < 2 and not unknown)
        }
    )
    words += [f"remarks: {', '.join(remarks)}"] if remarks else []
    judge = f"gltf-validator {modules['gltf-validator']}, glTF-Transform {modules['@gltf-transform/core']}"
    return Verdict(judge, count, np.array([part["low"], part["high"]]), ", ".join(words))


def usd(path: Path) -> Verdict:
    from pxr import Usd, UsdGeom, UsdValidation

    usd_stage = Usd.Stage.Open(str(path))
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    findings = [error.GetMessage() for error in UsdValidation.ValidationContext(validators).Validate(usd_stage)]
    prim = next(finding for finding in usd_stage.Traverse() if finding.GetTypeName() in ("Mesh", "Points", GAUSSIANS))
    positions = np.array(prim.GetAttribute("positions" if prim.GetTypeName() == GAUSSIANS else "points").Get())
    verdict = make_verdict("", positions)
    count = len(UsdGeom.Mesh(prim).GetFaceVertexCountsAttr().Get()) if prim.IsA(UsdGeom.Mesh) else len(positions)
    comments = (
        f"{len(validators)} validators, {len(findings)} findings{''.join(f'; {finding}' for finding in findings)}"
    )
    return Verdict(f"usd-core {version('usd-core')}", count, verdict.bounds, comments)


GAUSSIANS = "ParticleField3DGaussianSplat"


def trimesh(path: Path) -> Verdict:
    import trimesh as library

    loaded_file = library.load(path, process=False, maintain_order=True, force="mesh")
    visual = loaded_file.visual
    picture = getattr(getattr(visual, "material", None), "image", None)
    comments = "no texture" if picture is None else f"a texture of {picture.width} x {picture.height}"
    comments += f", {'closed' if loaded_file.is_watertight else 'open'}"
    return Verdict(f"trimesh {version('trimesh')}", len(loaded_file.faces), loaded_file.bounds, comments)


def assimp(path: Path) -> Verdict:
    program = find_tool("assimp")
    output = subprocess.run([program, "info", path, "-v"], capture_output=True, text=True)
    numbers = {
        key: re.search(rf"{key}:\s+(\d+)", output.stdout) for key in ("Faces", "Meshes", "Textures \\(embed.\\)")
    }
    corners = [re.search(rf"{end} point\s+\(([^)]+)\)", output.stdout, re.IGNORECASE) for end in ("Minimum", "Maximum")]
    if output.returncode or None in corners or numbers["Faces"] is None:
        raise RuntimeError(f"assimp rejects {path}: {output.stdout[-500:]}")
    bounds = np.array([[float(x) for x in match[1].split()] for match in corners if match])
    release = re.search(r"Version (\S+)", subprocess.run([program, "version"], capture_output=True, text=True).stdout)
    embedded_count = numbers["Textures \\(embed.\\)"]
    mesh_count = numbers["Meshes"]
    comments = (
        f"{mesh_count[1] if mesh_count else '?'} mesh, textures within: {embedded_count[1] if embedded_count else 0}"
    )
    return Verdict(f"assimp {release[1] if release else ''}", int(numbers["Faces"][1]), bounds, comments)


def pycolmap(model: Path, photos: int) -> str:
    """Check a model with COLMAP's library; returns a summary."""
    import pycolmap as library

    loaded_file = library.Reconstruction(str(model))
    assert loaded_file.num_reg_images() == photos, loaded_file.summary()
    return f"pycolmap {version('pycolmap')}: {photos} photos, {loaded_file.num_cameras()} camera"


def laspy(path: Path) -> Verdict:
    import laspy as library

    loaded_file = library.read(path)
    light = np.stack([loaded_file.red, loaded_file.green, loaded_file.blue], axis=1) >> 8
    comments = f"LAS {loaded_file.header.version}, point format {loaded_file.header.point_format.id}"
    return make_verdict(f"laspy {version('laspy')}", np.asarray(loaded_file.xyz), comments, light.astype(np.uint8))


def numpy(path: Path) -> Verdict:
    return make_verdict(f"numpy {version('numpy')}", np.loadtxt(path, usecols=(0, 1, 2)))


def find_tool(name: str) -> str:
    """Find an external program on the PATH."""
    match = shutil.which(name)
    if match is None:
        raise SystemExit(f"{name} is not on the PATH; see the head of tests/formats/gallery/__main__.py")
    return match


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
