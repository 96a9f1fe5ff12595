"""A field -> voxels near its surface: the signed distances of the mesh, before it is cut out of them, with colours.

What the views say of a voxel is a distance along their axes, too large where they look along the surface: divided by
its slope it is that to the surface, to first order. The grid stands upright where it is told which way that is.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lumigraph.extract.depth_maps import EDGE, Maps, agreed, box_of, look
from lumigraph.extract.mesh import CARVED, TRUNCATION, lattice_of
from lumigraph.extract.points import samples_of
from lumigraph.extract.view_selection import choose
from lumigraph.kernels import tsdf
from lumigraph.scene.assets import VoxelGrid, Voxels
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds, Field
from lumigraph.scene.poses import Similarity
from lumigraph.wire.events import Event, Progress

MOST = 1 << 27  # voxels: as many as fill a cube of 512


@dataclass(frozen=True)
class VoxelsConfig:
    """Settings of voxels.

    resolution: voxels along the longest side of what is seen
    unseen: what no camera saw is open, which suits rooms, or inside, which fills objects
    views: cameras that the field is looked at from, chosen to be far apart
    size: pixels of the longer side of what they see
    """

    resolution: Annotated[int, Bounds(16, 1024)] = 128
    unseen: Literal["open", "inside"] = "open"
    views: Annotated[int, Bounds(1, 200)] = 60
    size: Annotated[int, Bounds(64, 2048)] = 512


def voxels(
    field: Field, cameras: Cameras, config: VoxelsConfig = VoxelsConfig(), upright: Tensor | None = None
) -> Generator[Event, None, Voxels]:
    """What `cameras`, those of the photos, see of `field`, on a grid along the axes of the world as `upright` (3, 3)
    turns it. Raises FormatError where they see no surface, or there are too many voxels."""
    maps = yield from look(field, choose(cameras, config.views, config.size))
    yield Progress(stage="fuse", done=0, total=1)
    turn = torch.eye(3, dtype=torch.float64) if upright is None else upright.double()
    maps = _turned(maps, turn)
    box = box_of(maps)
    lattice = lattice_of(box, config.resolution)
    maps = agreed(maps, 2 * lattice.voxel_size)
    truncation = TRUNCATION * lattice.voxel_size
    volume = tsdf.fuse(
        maps.depth,
        maps.weight,
        maps.views.rows(),
        lattice,
        truncation=truncation,
        min_weight=1e-3,
        carving_views=min(CARVED, len(maps.views)),
        unseen_is_inside=config.unseen == "inside",
    )
    index, distance, feet = _near(volume)
    if not len(index):
        raise FormatError("what the cameras see of this field does not make a surface; train it longer")
    bx, by, bz = (tsdf.BLOCK_SIDE * count for count in lattice.blocks)
    grid = VoxelGrid(
        torch.tensor(lattice.origin, dtype=torch.float64),
        torch.eye(3).double(),
        lattice.voxel_size,
        (bx, by, bz),
        truncation,
    )
    samples = samples_of(maps, box, EDGE)
    if not len(samples):
        raise FormatError("no surface that several cameras see the same is in this field; train it longer")
    at = ((samples[:, :3].double() - grid.origin) / grid.voxel).round().long()
    rgb = _colours(feet, at, samples[:, 6:9], samples[:, 9])
    yield Progress(stage="fuse", done=1, total=1)
    made = Voxels(grid.centres(index), rgb, distance=distance * truncation, grid=grid)
    return made.transform(Similarity(1.0, turn.T.contiguous(), torch.zeros(3, dtype=torch.float64)))


def _turned(maps: Maps, turn: Tensor) -> Maps:
    """The same, seen in a world that is turned."""
    cameras = maps.views.cameras
    poses = (turn @ cameras.world_from_cam.double()).to(cameras.world_from_cam)
    return replace(maps, views=replace(maps.views, cameras=replace(cameras, world_from_cam=poses)))


def _near(volume: tsdf.TsdfVolume) -> tuple[Tensor, Tensor, Tensor]:
    """index (N, 3) of x, y, z of the voxels whose distance is known, distance (N,) / truncation, and the index (N, 3)
    of the voxel that holds the nearest of the surface."""
    filled = (volume.blocks == tsdf.BLOCK_INSIDE).nonzero()
    near = volume.values < 1  # so not NaN
    count = int(near.sum()) + len(filled) * tsdf.BLOCK_SIDE**3
    if count > MOST:
        raise FormatError(f"{count:,} voxels are more than the {MOST:,} that can be held; ask for a lower resolution")
    corners = torch.empty(len(volume.values), 3, dtype=torch.int64)
    known = (volume.blocks >= 0).nonzero()
    corners[volume.blocks[volume.blocks >= 0].long()] = known * tsdf.BLOCK_SIDE  # z, y, x
    block, *inner = near.nonzero().T
    index = corners[block] + torch.stack(inner, 1)
    slope = TRUNCATION * torch.stack(torch.gradient(volume.values, dim=(1, 2, 3)), -1)[near].nan_to_num(0.0)
    distance = volume.values[near] / slope.norm(dim=1).clamp(min=1)
    feet = (index - normalize(slope, dim=1) * (distance * TRUNCATION)[:, None]).round().long()
    inner_cube = torch.cartesian_prod(*[torch.arange(tsdf.BLOCK_SIDE)] * 3)
    deep = (filled[:, None] * tsdf.BLOCK_SIDE + inner_cube).reshape(-1, 3)
    index, feet = torch.cat([index, deep]).flip(1), torch.cat([feet, deep]).flip(1)
    return index, torch.cat([distance, torch.full((len(deep),), -1.0)]), feet


def _colours(index: Tensor, at: Tensor, rgb: Tensor, weight: Tensor) -> Tensor:
    """(N, 3) uint8: the mean of what was seen in each voxel `index` (N, 3); where nothing was, in the cube around it of
    2, 4, 8... voxels a side. Seen were `rgb` (S, 3) in the voxels `at` (S, 3)."""
    found = torch.zeros(len(index), 3)
    left = torch.arange(len(index))
    low = torch.minimum(index.amin(0), at.amin(0))
    index, at = index - low, at - low
    side = int(torch.maximum(index.amax(), at.amax())).bit_length()
    for level in range(side + 1):
        keys, cell = torch.unique(_key(at >> level, side), return_inverse=True)
        total = torch.zeros(len(keys), 4).index_add_(0, cell, torch.cat([rgb * weight[:, None], weight[:, None]], 1))
        wanted = _key(index[left] >> level, side)
        where = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        hit = keys[where] == wanted
        found[left[hit]] = (total[:, :3] / total[:, 3:].clamp(min=1e-12))[where[hit]]
        left = left[~hit]
        if not len(left):
            break
    return (found + 0.5).clamp(0, 255).to(torch.uint8)


def _key(cells: Tensor, bits: int) -> Tensor:
    return (cells[:, 0] << bits | cells[:, 1]) << bits | cells[:, 2]
