"""glTF 2.0 as one binary file (`.glb`) or as JSON with companion files (`.gltf`): meshes, points and gaussians.

Right-handed, y up, metres. Texture coordinates have v downwards from the top row, as in `Mesh`. Vertex colours are
stored as linear light. Gaussians follow `KHR_gaussian_splatting`: linear scales, opacities 0..1, unit quaternions
x y z w, and SH coefficients as in `Splats`.
"""

from __future__ import annotations

from lumigraph.formats.gltf.reader import read
from lumigraph.formats.gltf.writer import Options, write
from lumigraph.scene.assets import Mesh, Points, Splats

__all__ = ["HOLDS", "METRES", "NAME", "SUFFIXES", "UP", "Options", "read", "write"]

NAME = "glTF"
SUFFIXES = (".glb", ".gltf")
HOLDS: tuple[type, ...] = (Mesh, Points, Splats)
UP = "+y"
METRES = 1.0
