"""What a field shows to all views, and how far its depth can be trusted.

Where a field tells no better (`render_surface`), its depth is an expectation over all that a ray meets: at edges, and
where the field is foggy, it floats between two surfaces. Pixels count little where depth jumps, and are dropped where
other views look through them.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from lumigraph.extract.view_selection import Views, beside, between, finer
from lumigraph.kernels import tsdf
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Field
from lumigraph.scene.images import to_uint8
from lumigraph.scene.surface import unproject_depth
from lumigraph.wire.events import Event, Progress

SOLID, CLEAR = 0.5, 0.1  # alpha from which a pixel shows a surface, and below which it shows that there is none
STEEPEST = 4.0  # pixels of depth a pixel beyond which neighbours are not of one surface: 76 degrees
EDGE = 0.1  # weight of pixels where depth jumps
NEIGHBOURS = 8  # views that each is compared with
ENOUGH = 4.0  # pixels a voxel, finer than which a surface is mostly noise
WORTH = 0.25  # halvings of a voxel in the mean, for which a core is made
CORES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)  # of what is seen along each axis


@dataclass(frozen=True, eq=False)
class Maps:
    """What N views show. depth 0: nothing is known; infinite: nothing is there."""

    views: Views
    rgb: Tensor  # (N, H, W, 3) uint8, straight
    alpha: Tensor  # (N, H, W) uint8
    depth: Tensor  # (N, H, W) float32
    weight: Tensor  # (N, H, W) float32, 0..1

    @property
    def surface(self) -> Tensor:
        """(N, H, W) bool: pixels that show a surface."""
        return (self.depth > 0) & (self.depth < torch.inf)


def look(field: Field, views: Views, k: int = 1) -> Generator[Event, None, Maps]:
    """Render all views, at `k` times as many places along each side as they have pixels, each pixel as wide as before:
    a field looks thinner than it is in pixels that are finer than those it was learned from. Raises FormatError where
    the field has no depth, or nothing is seen."""
    fine, parts = finer(views, k), between(views, k)
    width, height = fine.size
    shape = (len(views), height, width)
    rgb, alpha = torch.zeros(*shape, 3, dtype=torch.uint8), torch.zeros(shape, dtype=torch.uint8)
    depth, weight = torch.zeros(shape), torch.zeros(shape)
    start = time.monotonic()
    for i in range(len(views)):
        image = torch.zeros(height, width, 5)
        for j, part in enumerate(parts):
            image[j // k :: k, j % k :: k] = _seen(field, part.cameras[i])
        colour, cover, far = image[..., :3], image[..., 3], image[..., 4]
        rgb[i], alpha[i] = to_uint8(colour / cover.clamp(min=1e-3)[..., None]), to_uint8(cover)
        depth[i], weight[i] = _known(far, cover, far / fine.cameras.focal[i].amin())
        left = (time.monotonic() - start) / (i + 1) * (len(views) - i - 1)
        yield Progress(stage="look", done=i + 1, total=len(views), unit="views", seconds_left=left)
    depth[~fine.theirs()] = 0
    maps = Maps(fine, rgb, alpha, depth, weight)
    if not maps.surface.any():
        raise FormatError("the field shows no surface to any camera, so there is nothing to extract; train it longer")
    return maps


def _seen(field: Field, camera: Cameras) -> Tensor:
    """(H, W, 5): rgb over black, alpha, depth."""
    with torch.no_grad():
        image = getattr(field, "render_surface", field.render)(camera)
    if image.depth is None:
        raise FormatError("this field renders no depth, from which a surface could be made")
    rgb, depth = image.rgb[0].float().cpu(), image.depth[0].float().cpu()
    alpha = torch.ones_like(depth) if image.alpha is None else image.alpha[0].float().cpu()
    return torch.cat([rgb, alpha, depth], -1)


def _known(depth: Tensor, alpha: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """(H, W) of one view -> depth as in Maps, and weights: what is solid, smooth and faces the camera counts most.
    `pixel` (H, W): world units that one spans there."""
    solid = (alpha >= SOLID) & depth.isfinite() & (depth > 0)
    square = np.ones((3, 3), np.uint8)
    high = cv2.dilate(torch.where(solid, depth, -1e30).numpy(), square)
    low = cv2.erode(torch.where(solid, depth, 1e30).numpy(), square)
    slope = (torch.from_numpy(high) - torch.from_numpy(low)) / (2 * pixel)
    weight = alpha.square() * torch.where(slope < STEEPEST, (1 + slope * slope).rsqrt(), EDGE)
    clear = torch.where(alpha < CLEAR, torch.inf, 0.0)
    return torch.where(solid, depth, clear), torch.where(solid, weight, 0.0)


def agreed(maps: Maps, tolerance: float) -> Maps:
    """Without the pixels that no other view sees the same (within `tolerance` world units and two pixels), but some
    look through; what is agreed on counts more."""
    if len(maps.views) < 2:
        return maps
    within = tolerance + 2 * maps.views.pixel(torch.where(maps.surface, maps.depth, 0.0))
    agree, against = tsdf.count_agreeing_views(maps.depth, maps.views.rows(), beside(maps.views, NEIGHBOURS), within)
    yes, no = agree.float(), against.float()
    weight = maps.weight * (1 + yes) / (1 + yes + 2 * no)
    lone = maps.surface & (yes < no)
    return replace(maps, depth=torch.where(lone, 0.0, maps.depth), weight=torch.where(lone, 0.0, weight))


def box_of(maps: Maps) -> Tensor:
    """(2, 3) around what is seen: all of it where it lies close, without what is far behind the rest."""
    seen, _ = _samples(maps)
    low, high = (torch.quantile(seen, q, dim=0) for q in (0.02, 0.98))
    spare = 0.3 * (high - low).amax()
    return torch.stack([torch.maximum(seen.amin(0), low - spare), torch.minimum(seen.amax(0), high + spare)])


def core_of(maps: Maps, box: Tensor, resolution: int) -> tuple[Tensor, float] | None:
    """(2, 3) the part of `box` that deserves voxels of its own, as many along its side, and its share of the pixels.
    None where the voxels of the box are about as fine as the views see: of an object, but not of a room around one."""
    seen, pixel = _samples(maps)
    voxel = float((box[1] - box[0]).amax()) / resolution

    def coarseness(sizes: Tensor) -> float:
        """How many times a voxel would have to be halved until it is fine enough, in the mean of the pixels."""
        return float((sizes / (ENOUGH * pixel)).log2().clamp(min=0).mean())

    best, least = None, coarseness(torch.full_like(pixel, voxel)) - WORTH
    for share in CORES:
        core = torch.quantile(seen, torch.tensor([(1 - share) / 2, (1 + share) / 2]), dim=0)
        inside = ((seen > core[0]) & (seen < core[1])).all(1)
        found = coarseness(torch.where(inside, (core[1] - core[0]).amax() / resolution, voxel))
        if found < least:
            best, least = (core, float(inside.float().mean())), found
    return best


def _samples(maps: Maps) -> tuple[Tensor, Tensor]:
    """(P, 3) points of the surface, of pixels spread over all views, and (P,) world units that each spans there."""
    views, surface, points, pixels = maps.views, maps.surface, [], []
    for i in range(len(views)):
        found = unproject_depth(maps.depth[i : i + 1, ..., None], views.cameras[i])[0][surface[i]]
        step = max(1, len(found) // 5000)
        points.append(found[::step])
        pixels.append((maps.depth[i][surface[i]] / views.cameras.focal[i].amin())[::step])
    return torch.cat(points), torch.cat(pixels)
