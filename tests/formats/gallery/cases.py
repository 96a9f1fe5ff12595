"""Files of the gallery: settings, judges and viewer of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One file of the gallery. `judges` are names in judges.py; `viewer` is a viewer of viewers.mjs or "blender"."""

    name: str
    file: str
    kind: str  # splats, mesh, points
    carries: str
    judges: tuple[str, ...]
    viewer: str
    settings: dict[str, object] = field(default_factory=dict)

    def path(self, folder: Path) -> Path:
        return folder / self.name.replace(" ", "-").lower() / self.file


ALL = "gaussians, colours to degree 3"

CASES = [
    Case("PLY", "scene.ply", "splats", f"{ALL}, nothing rounded", ("plyfile", "splat-transform"), "spark"),
    Case("compressed PLY", "scene.compressed.ply", "splats", ALL, ("splat-transform",), "spark"),
    Case("splat", "scene.splat", "splats", "gaussians, one colour each", ("splat-transform",), "spark"),
    *(
        Case(f"SPZ {version}", "scene.spz", "splats", ALL, ("splat-transform",), viewer, {"version": version})
        for version, viewer in ((2, "spark"), (3, "spark"), (4, "transform+spark"))
    ),
    Case("SOG", "scene.sog", "splats", ALL, ("splat-transform",), "spark"),
    Case("GLB splats", "scene.glb", "splats", f"{ALL}, nothing rounded", ("gltf",), "khr"),
    Case("USDZ splats", "scene.usdz", "splats", f"{ALL}, nothing rounded", ("usd",), "usd+spark"),
    Case("GLB", "scene.glb", "mesh", "triangles, texture", ("gltf",), "gltf"),
    Case("GLB Draco", "scene.glb", "mesh", "the same, packed", ("gltf",), "gltf", {"compression": "draco"}),
    Case("GLB meshopt", "scene.glb", "mesh", "the same, packed", ("gltf",), "gltf", {"compression": "meshopt"}),
    Case("glTF", "scene.gltf", "mesh", "the same, in files beside each other", ("gltf",), "gltf"),
    Case("OBJ", "scene.obj", "mesh", "triangles, texture", ("trimesh", "assimp"), "obj"),
    Case("STL", "scene.stl", "mesh", "triangles", ("trimesh",), "stl", {"allow_open": True, "unit": "m"}),
    Case("USDZ", "scene.usdz", "mesh", "triangles, texture", ("usd",), "usd"),
    Case("USDC", "scene.usdc", "mesh", "the same, its texture beside", ("usd",), "blender", {"up": "z"}),
    Case("FBX", "scene.fbx", "mesh", "triangles, texture within", ("assimp",), "fbx"),
    Case("FBX in cm", "scene.fbx", "mesh", "the same, in centimetres", ("assimp",), "blender", {"unit": "cm"}),
    Case("PLY mesh", "scene.ply", "mesh", "triangles, texture", ("trimesh",), "ply"),
    Case("PLY points", "scene.ply", "points", "points, colours, normals", ("plyfile",), "ply"),
    Case("GLB points", "scene.glb", "points", "points, colours, normals", ("gltf",), "gltf"),
    Case(
        "GLB points meshopt", "scene.glb", "points", "the same, packed", ("gltf",), "gltf", {"compression": "meshopt"}
    ),
    Case("LAS", "scene.las", "points", "points, colours", ("laspy",), "laspy+xyz"),
    Case("XYZ", "scene.xyz", "points", "points, colours, normals", ("numpy",), "xyz"),
    Case("USDZ points", "scene.usdz", "points", "points, colours, normals", ("usd",), "blender"),
]
