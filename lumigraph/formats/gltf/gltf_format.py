"""glTF 2.0, as one binary file (`.glb`) or as JSON with its data beside (`.gltf`): meshes, points and gaussians.

Right-handed, y up, metres. Texture coordinates run down from the top row, as those of `Mesh` do. The colours of
vertices are linear light in the file. Gaussians go by `KHR_gaussian_splatting`: linear scales, opacities 0..1, unit
quaternions x y z w, and coefficients of spherical harmonics as `Splats` has them.
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
