"""Depth maps of many views -> a truncated signed distance field (Curless and Levoy 1996) in sparse blocks of 8^3.

A view says of a voxel the distance along z to what it sees there / truncation, positive in front, where it is cut to 1
and weighs less; more than the truncation behind, a view says nothing. The value is the mean of what is said near the
weighted median. Depth maps (N, H, W): 0 where nothing is known, infinite where nothing is. Views are
rows of 16: cam_from_world (3, 4), focal x y, centre x y.

Compiled (csrc/tsdf.h) and several-threaded; the twin is reference/tsdf.py, on a dense volume. float32 on the CPU only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.kernels.native import native

BLOCK_SIDE = 8  # voxels of a block
BLOCK_UNKNOWN, BLOCK_OUTSIDE, BLOCK_INSIDE = -1, -2, -3  # what a block is that has no values


@dataclass(frozen=True)
class VoxelGrid:
    """Where the voxels are: the centre of voxel (0, 0, 0), the distance to the next, and blocks along x, y, z."""

    origin: tuple[float, float, float]
    voxel_size: float
    blocks: tuple[int, int, int]


@dataclass(frozen=True)
class TsdfVolume:
    """blocks (bz, by, bx) int32: the number of its values, or BLOCK_UNKNOWN, BLOCK_OUTSIDE, BLOCK_INSIDE; values (B,
    8, 8, 8) float32
    [z, y, x], NaN where nothing is known."""

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
    """depth, weight (N, H, W), views (N, 16). `truncation` in world units; a voxel is known by `min_weight` weight,
    and empty if `carving_views` views, and more than see a surface, see nothing through it."""
    fused = native.Fused()
    where = (list(lattice.origin), lattice.voxel_size, list(lattice.blocks))
    height, width = depth.shape[1:]
    maps = (depth.contiguous(), weight.contiguous(), views.contiguous())
    count = native.fuse(fused, *maps, width, height, *where, truncation, min_weight, carving_views, unseen_is_inside)
    bx, by, bz = lattice.blocks
    volume = TsdfVolume(
        torch.empty(bz, by, bx, dtype=torch.int32), torch.empty(count, BLOCK_SIDE, BLOCK_SIDE, BLOCK_SIDE)
    )
    native.unpack_fused(fused, volume.blocks, volume.values)
    return volume


def count_agreeing_views(depth: Tensor, views: Tensor, neighbours: Tensor, tolerance: Tensor) -> tuple[Tensor, Tensor]:
    """Of each pixel, how many of the views `neighbours` (N, K) its own (int64, -1 for none) see the same point there,
    closer than `tolerance` (N, H, W) along z, and how many see through it. Two (N, H, W) uint8."""
    agree, against = (torch.empty(depth.shape, dtype=torch.uint8) for _ in range(2))
    height, width = depth.shape[1:]
    given = (neighbours.contiguous(), tolerance.contiguous(), agree, against)
    native.support(depth.contiguous(), views.contiguous(), width, height, *given)
    return agree, against
