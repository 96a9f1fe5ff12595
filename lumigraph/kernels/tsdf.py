"""Fusion of depth maps into a truncated signed distance field (Curless and Levoy 1996) in sparse blocks of 8^3 voxels.

Each view measures a voxel as its distance along z to the surface seen behind it, divided by the truncation. It is
positive in front of the surface, clipped to 1 with a lower weight. A voxel farther behind than the truncation gets no
measurement. The fused value is the mean of the measurements near their weighted median.

Depth maps (N, H, W) are 0 where the depth is unknown and infinite where the view shows no surface. A camera row has 16
values: cam_from_world (3, 4), focal x y, centre x y.

Compiled (csrc/tsdf.h), multi-threaded, float32 on the CPU only. Reference: reference/tsdf.py, on a dense volume.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.kernels.native import native

BLOCK_SIDE = 8  # voxels
BLOCK_UNKNOWN, BLOCK_OUTSIDE, BLOCK_INSIDE = -1, -2, -3  # states of a block without stored values


@dataclass(frozen=True)
class VoxelGrid:
    """Voxel positions: centre of voxel (0, 0, 0), voxel spacing in world units, blocks along x, y, z."""

    origin: tuple[float, float, float]
    voxel_size: float
    blocks: tuple[int, int, int]


@dataclass(frozen=True)
class TsdfVolume:
    """Sparse distance field.

    blocks (bz, by, bx) int32: index into `values`, or BLOCK_UNKNOWN, BLOCK_OUTSIDE, BLOCK_INSIDE.
    values (B, 8, 8, 8) float32 [z, y, x]: distance / truncation, NaN if unknown.
    """

    blocks: Tensor
    values: Tensor


def fuse(
    depth: Tensor,
    weight: Tensor,
    views: Tensor,
    lattice: VoxelGrid,
    *,
    truncation: float,
    min_weight: float,
    carving_views: int,
    unseen_is_inside: bool,
) -> TsdfVolume:
    """Fuse N depth maps.

    Args:
        depth, weight: (N, H, W) depth maps and pixel weights.
        views: (N, 16) camera rows.
        truncation: distance in world units at which measurements are clipped.
        min_weight: least total weight of a known voxel.
        carving_views: a voxel is empty if this many views, and more than see a surface there, see no surface behind it.
        unseen_is_inside: voxels that no view measures are inside instead of unknown.
    """
    fused_blocks = native.Fused()
    layout = (list(lattice.origin), lattice.voxel_size, list(lattice.blocks))
    height, width = depth.shape[1:]
    maps = (depth.contiguous(), weight.contiguous(), views.contiguous())
    rule = (truncation, min_weight, carving_views, unseen_is_inside)
    count = native.fuse(fused_blocks, *maps, width, height, *layout, *rule)
    bx, by, bz = lattice.blocks
    values = torch.empty(count, BLOCK_SIDE, BLOCK_SIDE, BLOCK_SIDE)
    volume = TsdfVolume(torch.empty(bz, by, bx, dtype=torch.int32), values)
    native.unpack_fused(fused_blocks, volume.blocks, volume.values)
    return volume


def count_agreeing_views(depth: Tensor, views: Tensor, neighbours: Tensor, tolerance: Tensor) -> tuple[Tensor, Tensor]:
    """Compare each pixel with neighbour views -> two (N, H, W) uint8: counts that agree, counts that see through it.

    Args:
        depth: (N, H, W) depth maps.
        views: (N, 16) camera rows.
        neighbours: (N, K) int64 view indices, -1 for none.
        tolerance: (N, H, W) largest difference along z, in world units, of depths that agree.
    """
    agree, against = (torch.empty(depth.shape, dtype=torch.uint8) for _ in range(2))
    height, width = depth.shape[1:]
    comparison = (neighbours.contiguous(), tolerance.contiguous(), agree, against)
    native.support(depth.contiguous(), views.contiguous(), width, height, *comparison)
    return agree, against
