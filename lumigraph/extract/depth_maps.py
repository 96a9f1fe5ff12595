"""Depth maps of a field in all selected views, with a confidence weight for each pixel.

Without `render_surface`, the depth of a field is an expectation over all samples of a ray. At edges and in fog that
depth floats between two surfaces. Pixels at depth discontinuities get a low weight. Pixels that other views see
through are dropped.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from lumigraph.extract.view_selection import Views, make_subpixel_views, nearest_views, upsample
from lumigraph.kernels import tsdf
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Field
from lumigraph.scene.images import to_uint8
from lumigraph.scene.surface import unproject_depth
from lumigraph.wire.events import Event, Progress

MIN_SURFACE_ALPHA = 0.5  # a pixel with less alpha shows no surface
MAX_EMPTY_ALPHA = 0.1  # a pixel with less alpha is known to be empty
MAX_SLOPE_PX = 4.0  # larger depth steps between neighbours, in pixel footprints, are discontinuities: 76 degrees
EDGE_WEIGHT = 0.1  # of pixels at a depth discontinuity
NEIGHBOUR_VIEWS = 8  # views that each view is compared with
PIXELS_PER_VOXEL = 4.0  # smaller voxels hold mostly noise
MIN_CORE_GAIN = 0.25  # mean halvings of a voxel that a core must save
CORE_SHARES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)  # of the visible surface, along each axis


@dataclass(frozen=True, eq=False)
class DepthMaps:
    """Colour, alpha, depth and weight of N views. Depth 0 means unknown, infinite depth means empty."""

    views: Views
    rgb: Tensor  # (N, H, W, 3) uint8, straight
    alpha: Tensor  # (N, H, W) uint8
    depth: Tensor  # (N, H, W) float32
    weight: Tensor  # (N, H, W) float32, 0..1

    @property
    def surface(self) -> Tensor:
        """Mask of the pixels that show a surface: (N, H, W) bool."""
        return (self.depth > 0) & (self.depth < torch.inf)


def render_depth_maps(field: Field, views: Views, k: int = 1) -> Generator[Event, None, DepthMaps]:
    """Render all views with `k` samples along each side of a pixel.

    Samples keep the width of the view's pixels, because a field renders too thin in pixels finer than those of its
    training. Raises FormatError if the field has no depth, or if no view shows a surface.
    """
    fine_views, subpixel_views = upsample(views, k), make_subpixel_views(views, k)
    width, height = fine_views.size
    shape = (len(views), height, width)
    rgb, alpha = torch.zeros(*shape, 3, dtype=torch.uint8), torch.zeros(shape, dtype=torch.uint8)
    depth, weight = torch.zeros(shape), torch.zeros(shape)
    start = time.monotonic()
    for i in range(len(views)):
        image = torch.zeros(height, width, 5)
        for j, part in enumerate(subpixel_views):
            image[j // k :: k, j % k :: k] = _render_view(field, part.cameras[i])
        view_rgb, view_alpha, view_depth = image[..., :3], image[..., 3], image[..., 4]
        rgb[i], alpha[i] = to_uint8(view_rgb / view_alpha.clamp(min=1e-3)[..., None]), to_uint8(view_alpha)
        footprint = view_depth / fine_views.cameras.focal[i].amin()
        depth[i], weight[i] = _classify_depth(view_depth, view_alpha, footprint)
        seconds_left = (time.monotonic() - start) / (i + 1) * (len(views) - i - 1)
        yield Progress(stage="look", done=i + 1, total=len(views), unit="views", seconds_left=seconds_left)
    depth[~fine_views.valid_mask()] = 0
    maps = DepthMaps(fine_views, rgb, alpha, depth, weight)
    if not maps.surface.any():
        raise FormatError("the field shows no surface to any camera, so there is nothing to extract; train it longer")
    return maps


def _render_view(field: Field, camera: Cameras) -> Tensor:
    """Render one view: (H, W, 5) of rgb over black, alpha, depth."""
    with torch.no_grad():
        image = getattr(field, "render_surface", field.render)(camera)
    if image.depth is None:
        raise FormatError("this field renders no depth, so no surface can be extracted")
    rgb, depth = image.rgb[0].float().cpu(), image.depth[0].float().cpu()
    alpha = torch.ones_like(depth) if image.alpha is None else image.alpha[0].float().cpu()
    return torch.cat([rgb, alpha, depth], -1)


def _classify_depth(depth: Tensor, alpha: Tensor, footprint: Tensor) -> tuple[Tensor, Tensor]:
    """Split pixels into surface, empty and unknown, and weigh the surface pixels.

    Opaque, smooth pixels that face the camera weigh most.

    Args:
        depth: (H, W) world units
        alpha: (H, W) of 0..1
        footprint: (H, W) width of a pixel in world units at its depth

    Returns:
        depth (H, W) as in DepthMaps, weight (H, W)
    """
    solid = (alpha >= MIN_SURFACE_ALPHA) & depth.isfinite() & (depth > 0)
    window = np.ones((3, 3), np.uint8)
    high = cv2.dilate(torch.where(solid, depth, -1e30).numpy(), window)
    low = cv2.erode(torch.where(solid, depth, 1e30).numpy(), window)
    slope = (torch.from_numpy(high) - torch.from_numpy(low)) / (2 * footprint)
    weight = alpha.square() * torch.where(slope < MAX_SLOPE_PX, (1 + slope * slope).rsqrt(), EDGE_WEIGHT)
    empty = torch.where(alpha < MAX_EMPTY_ALPHA, torch.inf, 0.0)
    return torch.where(solid, depth, empty), torch.where(solid, weight, 0.0)


def drop_inconsistent(maps: DepthMaps, tolerance: float) -> DepthMaps:
    """Drop pixels that more views see through than confirm; raise the weight of confirmed pixels.

    A view confirms a pixel if its own depth agrees within `tolerance` world units plus two pixels.
    """
    if len(maps.views) < 2:
        return maps
    margin = tolerance + 2 * maps.views.pixel_footprint(torch.where(maps.surface, maps.depth, 0.0))
    neighbours = nearest_views(maps.views, NEIGHBOUR_VIEWS)
    confirming, contradicting = (
        x.float() for x in tsdf.count_agreeing_views(maps.depth, maps.views.rows(), neighbours, margin)
    )
    weight = maps.weight * (1 + confirming) / (1 + confirming + 2 * contradicting)
    outlier = maps.surface & (confirming < contradicting)
    return replace(maps, depth=torch.where(outlier, 0.0, maps.depth), weight=torch.where(outlier, 0.0, weight))


def compute_bounds(maps: DepthMaps) -> Tensor:
    """Bounding box (2, 3) of the visible surface: all of it at close range, without far background points."""
    xyz, _ = _sample_surface(maps)
    low, high = (torch.quantile(xyz, q, dim=0) for q in (0.02, 0.98))
    margin = 0.3 * (high - low).amax()
    return torch.stack([torch.maximum(xyz.amin(0), low - margin), torch.minimum(xyz.amax(0), high + margin)])


def find_core(maps: DepthMaps, box: Tensor, resolution: int) -> tuple[Tensor, float] | None:
    """Find the part (2, 3) of `box` that deserves a volume of its own, and its share of the pixels.

    The volume of the core has as many voxels along its side as that of the box. Returns None if the voxels of the box
    are about as fine as the pixels of the views. So it is for a single object, but not for a room around one.
    """
    xyz, footprint = _sample_surface(maps)
    voxel = float((box[1] - box[0]).amax()) / resolution

    def count_halvings(voxel_sizes: Tensor) -> float:
        """Mean over the pixels of the halvings that make a voxel fine enough."""
        return float((voxel_sizes / (PIXELS_PER_VOXEL * footprint)).log2().clamp(min=0).mean())

    best, best_halvings = None, count_halvings(torch.full_like(footprint, voxel)) - MIN_CORE_GAIN
    for share in CORE_SHARES:
        core = torch.quantile(xyz, torch.tensor([(1 - share) / 2, (1 + share) / 2]), dim=0)
        inside = ((xyz > core[0]) & (xyz < core[1])).all(1)
        halvings = count_halvings(torch.where(inside, (core[1] - core[0]).amax() / resolution, voxel))
        if halvings < best_halvings:
            best, best_halvings = (core, float(inside.float().mean())), halvings
    return best


def _sample_surface(maps: DepthMaps) -> tuple[Tensor, Tensor]:
    """Sample about 5,000 surface pixels a view: points (P, 3), and pixel footprints (P,) in world units."""
    views, surface, points, footprints = maps.views, maps.surface, [], []
    for i in range(len(views)):
        xyz = unproject_depth(maps.depth[i : i + 1, ..., None], views.cameras[i])[0][surface[i]]
        step = max(1, len(xyz) // 5000)
        points.append(xyz[::step])
        footprints.append((maps.depth[i][surface[i]] / views.cameras.focal[i].amin())[::step])
    return torch.cat(points), torch.cat(footprints)
