"""Marching cubes (Lorensen and Cline 1987) over the sparse voxel blocks of tsdf.py.

The surface is a closed manifold wherever voxels are known. On an ambiguous face the inside corners are separated, and
both cells that share the face decide alike. The surface ends at unknown voxels.

Compiled (csrc/marching_cubes.h), multi-threaded, float32 on the CPU only. Reference: reference/marching_cubes.py, on a
dense volume.
"""

import math

import torch
from torch import Tensor

from lumigraph.kernels.native import native
from lumigraph.kernels.tsdf import TsdfVolume


def march_cubes(volume: TsdfVolume, outside_value: float = math.nan) -> tuple[Tensor, Tensor]:
    """Extract the zero level set -> vertices (V, 3) x, y, z in voxels, faces (F, 3) int32, counter-clockwise outside.

    All voxels beyond the volume have the value `outside_value`: 1 closes the surface there, NaN leaves it open.
    Vertices at an open end may belong to no face.
    """
    surface = native.Surface()
    bz, by, bx = volume.blocks.shape
    sparse_volume = (volume.blocks.contiguous(), volume.values.contiguous(), [bx, by, bz])
    vertex_count, face_count = native.march_cubes(surface, *sparse_volume, outside_value)
    vertices, faces = torch.empty(vertex_count, 3), torch.empty(face_count, 3, dtype=torch.int32)
    native.unpack_surface(surface, vertices, faces)
    return vertices, faces
