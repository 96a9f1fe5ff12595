"""A field -> points on its surfaces with colours and normals: the depth maps, thinned to a regular density.

They come in the order of `levels.spread_order`: the first of them, however many, are a coarser cloud of the whole.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lumigraph.extract.depth_maps import EDGE, Maps, agreed, box_of, look
from lumigraph.extract.levels import spread_order
from lumigraph.extract.view_selection import choose
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds, Field
from lumigraph.scene.surface import normals_from_depth, unproject_depth
from lumigraph.wire.events import Event, Progress

CLOSE = 200  # parts of the scene's longest side within which views must agree
FINEST = 1 << 20  # cells along a side


@dataclass(frozen=True)
class PointsConfig:
    """Settings of a point cloud.

    count: points at most, spread evenly over the surfaces
    agree: least weight, 0 to 1, of what is kept: solid, smooth, facing a camera, and the same in other views
    views: cameras that the field is looked at from, chosen to be far apart
    size: pixels of the longer side of what they see
    levels: counts of coarser clouds, each the first points of the whole, in a file of its own beside
    """

    count: Annotated[int, Bounds(1, 20_000_000)] = 200_000
    agree: Annotated[float, Bounds(0, 1)] = 0.2
    views: Annotated[int, Bounds(1, 200)] = 60
    size: Annotated[int, Bounds(64, 2048)] = 512
    levels: tuple[Annotated[int, Bounds(1, 20_000_000)], ...] = ()

    def __post_init__(self) -> None:
        if any(level >= self.count for level in self.levels):
            raise ValueError(f"each of levels must be less than count, {self.count:,}")


def points(
    field: Field,
    cameras: Cameras,
    config: PointsConfig = PointsConfig(),
) -> Generator[Event, None, Points]:
    """What `cameras`, those of the photos, see of `field`. Raises FormatError where they see no surface."""
    maps = yield from look(field, choose(cameras, config.views, config.size))
    yield Progress(stage="thin", done=0, total=1)
    box = box_of(maps)
    longest = float((box[1] - box[0]).amax())
    samples = samples_of(agreed(maps, longest / CLOSE), box, max(config.agree, EDGE))
    if not len(samples):
        raise FormatError("no surface that several cameras see the same is in this field; train it longer")
    kept = _thinned(samples, box[0], longest, config.count)
    del samples
    kept = kept[spread_order(kept[:, :3], kept[:, 9])]
    yield Progress(stage="thin", done=1, total=1)
    rgb = (kept[:, 6:9] + 0.5).clamp(0, 255).to(torch.uint8)
    return Points(kept[:, :3].contiguous(), rgb, normalize(kept[:, 3:6], dim=1))


def samples_of(maps: Maps, box: Tensor, least: float) -> Tensor:
    """(S, 10) float32: position, normal, colour 0..255, weight of each pixel that counts."""
    found = []
    for i in range(len(maps.views)):
        depth, camera = maps.depth[i : i + 1, ..., None], maps.views.cameras[i]
        shown = torch.where(maps.surface[i : i + 1, ..., None], depth, 1.0)
        xyz, normals, weight = unproject_depth(shown, camera)[0], normals_from_depth(shown, camera)[0], maps.weight[i]
        good = maps.surface[i] & (weight > least) & normals.isfinite().all(-1)
        good &= ((xyz >= box[0]) & (xyz <= box[1])).all(-1)
        columns = [xyz[good], normals[good], maps.rgb[i][good].float(), weight[good][:, None]]
        found.append(torch.cat(columns, 1))
    return torch.cat(found)


def _thinned(samples: Tensor, low: Tensor, longest: float, count: int) -> Tensor:
    """(P, 10), P <= count: the weighted means of the samples in each cell of the finest grid that has few enough."""
    at = (samples[:, :3] - low) / longest
    fine, coarse = FINEST, 1  # cells along the longest side: too many, and few enough
    while fine - coarse > max(1, coarse // 50):
        middle = (fine + coarse) // 2
        few = len(torch.unique(_cells(at, middle))) <= count
        fine, coarse = (fine, middle) if few else (middle, coarse)
    _, cell = torch.unique(_cells(at, coarse), return_inverse=True)
    weight = samples[:, 9:]
    total = samples.new_zeros(int(cell.amax()) + 1, 10)
    total.index_add_(0, cell, torch.cat([samples[:, :9] * weight, weight], 1))
    return torch.cat([total[:, :9] / total[:, 9:], total[:, 9:]], 1)[:count]


def _cells(at: Tensor, side: int) -> Tensor:
    x, y, z = (at * side).long().clamp(0, side).unbind(1)
    return (z * (side + 1) + y) * (side + 1) + x
