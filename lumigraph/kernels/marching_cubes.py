"""Marching cubes (Lorensen and Cline 1987) over the sparse blocks of kernels/tsdf.py.

A closed manifold wherever voxels are known: on a face whose diagonals differ the inside corners are cut apart,
whichever of the two cells looks. Where a voxel is not known the surface ends.

Compiled (csrc/cubes.h) and several-threaded; the twin is reference/cubes.py, on a dense volume.
float32 on the CPU only.
"""

import math

import torch
from torch import Tensor

from lumigraph.kernels.native import native
from lumigraph.kernels.tsdf import TsdfVolume


def march_cubes(volume: TsdfVolume, beyond: float = math.nan) -> tuple[Tensor, Tensor]:
    """-> vertices (V, 3) x, y, z counted in voxels, faces (F, 3) int32, counter-clockwise from outside.

    Beside the volume all voxels have the value `beyond`: 1 closes the surface there, NaN leaves it open. Vertices where
    it ends may belong to no face."""
    surface = native.Surface()
    bz, by, bx = volume.blocks.shape
    given = (volume.blocks.contiguous(), volume.values.contiguous(), [bx, by, bz], beyond)
    corners, triangles = native.march_cubes(surface, *given)
    vertices, faces = torch.empty(corners, 3), torch.empty(triangles, 3, dtype=torch.int32)
    native.unpack_surface(surface, vertices, faces)
    return vertices, faces
