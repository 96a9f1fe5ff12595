"""Extract voxels near the surface of a field: the signed distances behind a mesh, with colours.

The TSDF measures distance along the axes of the views, which is too large where a view grazes the surface. Divided by
its slope it is the distance to the surface, to first order. The grid is upright if the up direction is known.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lumigraph.extract.depth_maps import EDGE_WEIGHT, DepthMaps, compute_bounds, drop_inconsistent, render_depth_maps
from lumigraph.extract.mesh import MIN_CARVING_VIEWS, TRUNCATION_VOXELS, make_voxel_grid
from lumigraph.extract.points import surface_samples
from lumigraph.extract.view_selection import select_views
from lumigraph.kernels import tsdf
from lumigraph.scene.assets import VoxelGrid, Voxels
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds, Field
from lumigraph.scene.poses import Similarity
from lumigraph.wire.events import Event, Progress

MAX_VOXELS = 1 << 27  # as many as fill a cube of 512


@dataclass(frozen=True)
class VoxelsConfig:
    """Settings of voxels.

    resolution: voxels along the longest side of the visible surface
    unseen: space that no camera saw is open (for rooms) or inside (fills objects)
    views: cameras that the field is rendered from, chosen to be far apart
    size: pixels of the longer side of these renders
    """

    resolution: Annotated[int, Bounds(16, 1024)] = 128
    unseen: Literal["open", "inside"] = "open"
    views: Annotated[int, Bounds(1, 200)] = 60
    size: Annotated[int, Bounds(64, 2048)] = 512


def extract_voxels(
    field: Field, cameras: Cameras, config: VoxelsConfig = VoxelsConfig(), upright: Tensor | None = None
) -> Generator[Event, None, Voxels]:
    """Extract voxels at the surfaces of `field` that `cameras`, those of the photos, see.

    The grid follows the axes of the world after the rotation `upright` (3, 3). Raises FormatError if the cameras see
    no surface, or if there are too many voxels.
    """
    maps = yield from render_depth_maps(field, select_views(cameras, config.views, config.size))
    yield Progress(stage="fuse", done=0, total=1)
    rotation = torch.eye(3, dtype=torch.float64) if upright is None else upright.double()
    maps = _rotate(maps, rotation)
    box = compute_bounds(maps)
    voxel_grid = make_voxel_grid(box, config.resolution)
    maps = drop_inconsistent(maps, 2 * voxel_grid.voxel_size)
    truncation = TRUNCATION_VOXELS * voxel_grid.voxel_size
    volume = tsdf.fuse(
        maps.depth,
        maps.weight,
        maps.views.rows(),
        voxel_grid,
        truncation=truncation,
        min_weight=1e-3,
        carving_views=min(MIN_CARVING_VIEWS, len(maps.views)),
        unseen_is_inside=config.unseen == "inside",
    )
    index, distance, surface_index = _find_near_voxels(volume)
    if not len(index):
        raise FormatError("the views of this field do not form a surface; train it longer")
    bx, by, bz = (tsdf.BLOCK_SIDE * count for count in voxel_grid.blocks)
    grid = VoxelGrid(
        torch.tensor(voxel_grid.origin, dtype=torch.float64),
        torch.eye(3).double(),
        voxel_grid.voxel_size,
        (bx, by, bz),
        truncation,
    )
    samples = surface_samples(maps, box, EDGE_WEIGHT)
    if not len(samples):
        raise FormatError("no surface of this field looks the same to several cameras; train it longer")
    sample_index = ((samples[:, :3].double() - grid.origin) / grid.voxel).round().long()
    rgb = _average_colours(surface_index, sample_index, samples[:, 6:9], samples[:, 9])
    yield Progress(stage="fuse", done=1, total=1)
    voxels = Voxels(grid.centres(index), rgb, distance=distance * truncation, grid=grid)
    return voxels.transform(Similarity(1.0, rotation.T.contiguous(), torch.zeros(3, dtype=torch.float64)))


def _rotate(maps: DepthMaps, rotation: Tensor) -> DepthMaps:
    """Rotate the world of the views by `rotation` (3, 3)."""
    cameras = maps.views.cameras
    poses = (rotation @ cameras.world_from_cam.double()).to(cameras.world_from_cam)
    return replace(maps, views=replace(maps.views, cameras=replace(cameras, world_from_cam=poses)))


def _find_near_voxels(volume: tsdf.TsdfVolume) -> tuple[Tensor, Tensor, Tensor]:
    """Find the voxels with a known distance.

    Returns:
        index (N, 3) of x, y, z; distance (N,) / truncation; index (N, 3) of the voxel with the nearest surface point
    """
    inside_blocks = (volume.blocks == tsdf.BLOCK_INSIDE).nonzero()
    near = volume.values < 1  # so not NaN
    count = int(near.sum()) + len(inside_blocks) * tsdf.BLOCK_SIDE**3
    if count > MAX_VOXELS:
        raise FormatError(f"{count:,} voxels exceed the limit of {MAX_VOXELS:,}; use a lower resolution")
    corners = torch.empty(len(volume.values), 3, dtype=torch.int64)
    known_blocks = (volume.blocks >= 0).nonzero()
    corners[volume.blocks[volume.blocks >= 0].long()] = known_blocks * tsdf.BLOCK_SIDE  # z, y, x
    block, *inner = near.nonzero().T
    index = corners[block] + torch.stack(inner, 1)
    gradient = torch.stack(torch.gradient(volume.values, dim=(1, 2, 3)), -1)
    slope = TRUNCATION_VOXELS * gradient[near].nan_to_num(0.0)
    distance = volume.values[near] / slope.norm(dim=1).clamp(min=1)
    steps = normalize(slope, dim=1) * (distance * TRUNCATION_VOXELS)[:, None]
    surface_index = (index - steps).round().long()
    inner_cube = torch.cartesian_prod(*[torch.arange(tsdf.BLOCK_SIDE)] * 3)
    deep = (inside_blocks[:, None] * tsdf.BLOCK_SIDE + inner_cube).reshape(-1, 3)
    index, surface_index = torch.cat([index, deep]).flip(1), torch.cat([surface_index, deep]).flip(1)
    return index, torch.cat([distance, torch.full((len(deep),), -1.0)]), surface_index


def _average_colours(index: Tensor, sample_index: Tensor, rgb: Tensor, weight: Tensor) -> Tensor:
    """Average the samples in each voxel, or in the smallest cube of 2, 4, 8, ... voxels a side that has any.

    Args:
        index: (N, 3) int64 voxels to colour
        sample_index: (S, 3) int64 voxel of each sample
        rgb: (S, 3) of 0..255
        weight: (S,)

    Returns:
        (N, 3) uint8
    """
    colours = torch.zeros(len(index), 3)
    pending = torch.arange(len(index))
    low = torch.minimum(index.amin(0), sample_index.amin(0))
    index, sample_index = index - low, sample_index - low
    bits = int(torch.maximum(index.amax(), sample_index.amax())).bit_length()
    weighted_rgb = torch.cat([rgb * weight[:, None], weight[:, None]], 1)
    for level in range(bits + 1):
        keys, cell = torch.unique(_pack_index(sample_index >> level, bits), return_inverse=True)
        total = torch.zeros(len(keys), 4).index_add_(0, cell, weighted_rgb)
        pending_keys = _pack_index(index[pending] >> level, bits)
        position = torch.searchsorted(keys, pending_keys).clamp(max=len(keys) - 1)
        hit = keys[position] == pending_keys
        colours[pending[hit]] = (total[:, :3] / total[:, 3:].clamp(min=1e-12))[position[hit]]
        pending = pending[~hit]
        if not len(pending):
            break
    return (colours + 0.5).clamp(0, 255).to(torch.uint8)


def _pack_index(cells: Tensor, bits: int) -> Tensor:
    """Pack cells (N, 3) into one key (N,) int64."""
    return (cells[:, 0] << bits | cells[:, 1]) << bits | cells[:, 2]
