"""Extract a point cloud with colours and normals from a field: depth maps, thinned to a regular density.

Points come in the order of `levels.spread_order`, so every prefix is a coarser cloud of the whole.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lumigraph.extract.depth_maps import EDGE_WEIGHT, DepthMaps, compute_bounds, drop_inconsistent, render_depth_maps
from lumigraph.extract.levels import spread_order
from lumigraph.extract.view_selection import select_views
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds, Field
from lumigraph.scene.surface import normals_from_depth, unproject_depth
from lumigraph.wire.events import Event, Progress

TOLERANCES_PER_SIDE = 200  # views must agree within 1/200 of the scene's longest side
MAX_CELLS_PER_SIDE = 1 << 20


@dataclass(frozen=True)
class PointsConfig:
    """Settings of a point cloud.

    count: maximum number of points, spread evenly over the surfaces
    agree: minimum weight of a pixel, 0 to 1: opaque, smooth, facing the camera, consistent with other views
    views: cameras that the field is rendered from, chosen to be far apart
    size: pixels of the longer side of these renders
    levels: point counts of coarser clouds, each a prefix of the whole, in a file of its own next to it
    """

    count: Annotated[int, Bounds(1, 20_000_000)] = 200_000
    agree: Annotated[float, Bounds(0, 1)] = 0.2
    views: Annotated[int, Bounds(1, 200)] = 60
    size: Annotated[int, Bounds(64, 2048)] = 512
    levels: tuple[Annotated[int, Bounds(1, 20_000_000)], ...] = ()

    def __post_init__(self) -> None:
        if any(level >= self.count for level in self.levels):
            raise ValueError(f"each of levels must be less than count, {self.count:,}")


def extract_points(
    field: Field,
    cameras: Cameras,
    config: PointsConfig = PointsConfig(),
) -> Generator[Event, None, Points]:
    """Extract points on the surfaces of `field` that `cameras`, those of the photos, see.

    Raises FormatError if they see no surface.
    """
    maps = yield from render_depth_maps(field, select_views(cameras, config.views, config.size))
    yield Progress(stage="thin", done=0, total=1)
    box = compute_bounds(maps)
    longest = float((box[1] - box[0]).amax())
    maps = drop_inconsistent(maps, longest / TOLERANCES_PER_SIDE)
    samples = surface_samples(maps, box, max(config.agree, EDGE_WEIGHT))
    if not len(samples):
        raise FormatError("no surface of this field looks the same to several cameras; train it longer")
    cloud = _thin(samples, box[0], longest, config.count)
    del samples
    cloud = cloud[spread_order(cloud[:, :3], cloud[:, 9])]
    yield Progress(stage="thin", done=1, total=1)
    rgb = (cloud[:, 6:9] + 0.5).clamp(0, 255).to(torch.uint8)
    return Points(cloud[:, :3].contiguous(), rgb, normalize(cloud[:, 3:6], dim=1))


def surface_samples(maps: DepthMaps, box: Tensor, min_weight: float) -> Tensor:
    """Collect the surface pixels inside `box` (2, 3): (S, 10) float32 of position, normal, colour 0..255, weight."""
    view_samples = []
    for i in range(len(maps.views)):
        depth, camera = maps.depth[i : i + 1, ..., None], maps.views.cameras[i]
        finite_depth = torch.where(maps.surface[i : i + 1, ..., None], depth, 1.0)
        xyz, normals, weight = (
            unproject_depth(finite_depth, camera)[0],
            normals_from_depth(finite_depth, camera)[0],
            maps.weight[i],
        )
        valid = maps.surface[i] & (weight > min_weight) & normals.isfinite().all(-1)
        valid &= ((xyz >= box[0]) & (xyz <= box[1])).all(-1)
        columns = [xyz[valid], normals[valid], maps.rgb[i][valid].float(), weight[valid][:, None]]
        view_samples.append(torch.cat(columns, 1))
    return torch.cat(view_samples)


def _thin(samples: Tensor, low: Tensor, longest: float, max_count: int) -> Tensor:
    """Average samples (S, 10) in the cells of the finest grid with at most `max_count` occupied cells: (P, 10)."""
    positions = (samples[:, :3] - low) / longest
    fine, coarse = MAX_CELLS_PER_SIDE, 1  # cells along the longest side: too many, and few enough
    while fine - coarse > max(1, coarse // 50):
        middle = (fine + coarse) // 2
        fits = len(torch.unique(_cell_keys(positions, middle))) <= max_count
        fine, coarse = (fine, middle) if fits else (middle, coarse)
    _, cell = torch.unique(_cell_keys(positions, coarse), return_inverse=True)
    weight = samples[:, 9:]
    total = samples.new_zeros(int(cell.amax()) + 1, 10)
    total.index_add_(0, cell, torch.cat([samples[:, :9] * weight, weight], 1))
    return torch.cat([total[:, :9] / total[:, 9:], total[:, 9:]], 1)[:max_count]


def _cell_keys(positions: Tensor, side: int) -> Tensor:
    """Number the grid cells of positions (P, 3) in 0..1: (P,) int64."""
    x, y, z = (positions * side).long().clamp(0, side).unbind(1)
    return (z * (side + 1) + y) * (side + 1) + x
