"""Initial points: the capture's own points, a visual hull of its silhouettes, or a plane sweep of its photos."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from lumigraph.scene.cameras import Cameras, project
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import RunError
from lumigraph.scene.images import area_downscale, from_uint8

FEWEST = 100  # points required to start
SWEEP_SIDE_PX = 320  # pixels of the longer side of the compared photos
DEPTHS, FINER = 64, 4  # planes of the sweep; finer steps to either side of the best
PATCH_SIDE_PX = 5  # pixels across
AGREEMENT = 0.8  # normalised cross-correlation above which a depth is accepted


class Beginning(NamedTuple):
    """Initial points. `measured`: they are on surfaces, not merely in possibly occupied space."""

    xyz: Tensor  # (N, 3)
    rgb: Tensor  # (N, 3), 0..1
    is_measured: bool


def begin(capture: Capture, count: int, generator: torch.Generator) -> Beginning:
    """Return the capture's own points, or about `count` points from its photos.

    Raises RunError if the cameras see no common space.
    """
    points = capture.points
    if points is not None and len(points) >= FEWEST:
        grey = torch.full((len(points), 3), 0.5)
        rgb = grey if points.rgb is None else points.rgb.float() / 255
        return Beginning(points.xyz.float(), rgb, is_measured=True)
    if not capture.has_alpha:
        xyz, rgb = swept_points(capture, count, generator)
        if len(xyz) >= FEWEST:
            return Beginning(xyz, rgb, is_measured=True)
    return Beginning(*seen_points(capture, count, generator), is_measured=False)


def extent_of(cameras: Cameras) -> float:
    """Radius of the cameras around their mean: the scene's unit of length for learning rates."""
    positions = cameras.positions.double()
    return 1.1 * float((positions - positions.mean(0)).norm(dim=1).max()) or 1.0


def free_depths(cameras: Cameras, beginning: Beginning) -> Tensor:
    """(N,) depth of free space in front of each camera: half the depth of its nearest visible points.

    Content nearer than that explains one photo and becomes a floater in neighbouring views. Without measured points,
    the depth is a fiftieth of the scene's extent.
    """
    least = 0.02 * extent_of(cameras)
    depths = torch.full((len(cameras),), least)
    for i in range(len(cameras)) if beginning.is_measured else ():
        pixels, depth = project(cameras[i].to(dtype=torch.float32), beginning.xyz)
        inside = depth[0] > 0
        inside &= ((pixels[0] >= 0) & (pixels[0] <= torch.tensor(cameras.size(i)))).all(1)
        if inside.sum() >= FEWEST:
            depths[i] = max(least, 0.5 * float(depth[0][inside].quantile(0.01)))
    return depths


def free_radii(cameras: Cameras, beginning: Beginning) -> Tensor:
    """(N,) radius of free space around each camera, in all directions: half the distance of the nearest points.

    0 if no points were measured.
    """
    if not beginning.is_measured:
        return torch.zeros(len(cameras))
    rank = math.ceil(0.01 * len(beginning.xyz))
    distances = [(beginning.xyz - position).norm(dim=1) for position in cameras.positions.float()]
    return torch.stack([0.5 * distance.kthvalue(rank).values for distance in distances])


def focus_of(cameras: Cameras) -> Tensor:
    """(3,) least-squares point nearest to all optical axes."""
    d, p = cameras.forwards.double(), cameras.positions.double()
    across = torch.eye(3, dtype=torch.float64) - d[:, :, None] * d[:, None, :]
    system = across.sum(0) + 1e-6 * torch.eye(3, dtype=torch.float64)
    focus: Tensor = torch.linalg.solve(system, (across @ p[:, :, None]).sum(0)[:, 0] + 1e-6 * p.mean(0))
    return focus.float()


def neighbour_distance(points: Tensor) -> Tensor:
    """(N,) mean distance to the three nearest other points."""
    k = min(4, len(points))
    near = []
    for i in range(0, len(points), 1024):
        near.append(torch.cdist(points[i : i + 1024], points).topk(k, largest=False).values[:, 1:])
    return torch.cat(near).mean(1)


def seen_points(capture: Capture, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random points in the volume that the cameras look at, coloured by the mean of all photos without occlusion.

    For photos with alpha, points are inside every silhouette (the visual hull).
    """
    cameras = capture.cameras
    focus = focus_of(cameras)
    distance = (cameras.positions.float() - focus).norm(dim=1).mean()
    half_view = float((cameras.sizes / cameras.focal / 2).max())
    points = focus + (torch.rand(count * 24, 3, generator=generator) * 2 - 1) * float(distance) * min(half_view, 1.0)
    colours, hit_count = torch.zeros_like(points), torch.zeros(len(points), 1)
    inside = torch.ones(len(points), dtype=torch.bool)
    for i in range(len(capture)):
        photo = capture.photo(i)
        height, width = photo.shape[:2]
        uv, depth = _project(cameras, i, points)
        x, y = uv[:, 0].floor().long(), uv[:, 1].floor().long()
        visible = (depth > 0) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
        pixel = from_uint8(photo[y.clamp(0, height - 1), x.clamp(0, width - 1)])
        if capture.has_alpha:
            inside &= ~visible | (pixel[:, 3] > 0.1)
        colours += pixel[:, :3] * visible[:, None]
        hit_count += visible[:, None]
    kept_rows = (inside & (hit_count[:, 0] > 0)).nonzero()[:count, 0]
    if len(kept_rows) < FEWEST:
        raise RunError("no part of space is seen by the cameras and inside the silhouettes; are poses and alpha right?")
    return points[kept_rows], (colours / hit_count.clamp(min=1))[kept_rows]


def swept_points(capture: Capture, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Plane-sweep points (Collins 1996) at random textured pixels.

    A depth is accepted if small patches of neighbouring photos agree by normalised cross-correlation.
    """
    longest = int(capture.cameras.sizes.max())
    cameras = capture.cameras.downscale(max(1.0, longest / SWEEP_SIDE_PX))
    photos = [from_uint8(area_downscale(capture.photo(i), cameras.size(i))) for i in range(len(capture))]
    greys = [photo.mean(2) for photo in photos]
    focus, extent = focus_of(cameras), extent_of(cameras)
    count_per_photo = math.ceil(1.5 * count / len(capture))
    xyz, rgb = [], []
    for i in range(len(capture)):
        distance = float((cameras.positions[i] - focus).norm().clamp(0.5 * extent, 50 * extent))
        pixels = _textured(greys[i], count_per_photo, generator)
        inverse, score = _sweep(cameras, greys, i, pixels, distance)
        is_consistent = score > AGREEMENT
        corner = pixels[is_consistent]
        xyz.append(_unproject(cameras, i, corner[:, None] + 0.5, inverse[is_consistent, None])[:, 0, 0])
        rgb.append(photos[i][corner[:, 1], corner[:, 0]])
    return torch.cat(xyz), torch.cat(rgb)


def _textured(grey: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, 2) pixels x, y drawn by the strength of the gradient, away from the border."""
    strength = torch.zeros_like(grey)
    strength[1:-1, 1:-1] = (grey[2:, 1:-1] - grey[:-2, 1:-1]).abs() + (grey[1:-1, 2:] - grey[1:-1, :-2]).abs()
    border = PATCH_SIDE_PX // 2 + 1
    weight = torch.zeros_like(grey)
    weight[border:-border, border:-border] = strength[border:-border, border:-border] + 1e-4
    flat = torch.multinomial(weight.flatten(), count, replacement=True, generator=generator)
    return torch.stack([flat % grey.shape[1], flat // grey.shape[1]], dim=1)


def _neighbours(cameras: Cameras, i: int) -> list[int]:
    """Up to four nearby views with a similar direction."""
    distance = (cameras.positions - cameras.positions[i]).norm(dim=1)
    distance = distance.masked_fill(cameras.forwards @ cameras.forwards[i] < 0.5, math.inf)
    order = [int(j) for j in distance.argsort() if j != i and math.isfinite(float(distance[j]))]
    return [order[rank] for rank in (0, 1, 3, 5) if rank < len(order)]


def _sweep(cameras: Cameras, greys: list[Tensor], i: int, pixels: Tensor, distance: float) -> tuple[Tensor, Tensor]:
    """(M,) inverse depths with the best match of patches around `pixels` of view i, and (M,) scores."""
    neighbours = _neighbours(cameras, i)
    if not neighbours:
        return torch.ones(len(pixels)), torch.full((len(pixels),), -1.0)
    reach = torch.arange(PATCH_SIDE_PX) - PATCH_SIDE_PX // 2
    offsets = torch.stack(torch.meshgrid(reach, reach, indexing="xy"), -1).reshape(-1, 2)
    patch = pixels[:, None] + offsets  # (M, P, 2)
    reference = _normalised(greys[i][patch[..., 1], patch[..., 0]])
    step = (4 - 1 / 8) / distance / (DEPTHS - 1)
    inverse = (1 / 8 / distance + step * torch.arange(DEPTHS)).expand(len(pixels), -1)
    best, _ = _best(cameras, greys, i, neighbours, patch, reference, inverse)
    finer = best[:, None] + step / FINER * torch.arange(1 - FINER, FINER)
    return _best(cameras, greys, i, neighbours, patch, reference, finer.clamp(min=1e-3 / distance))


def _best(
    cameras: Cameras,
    greys: list[Tensor],
    i: int,
    neighbours: list[int],
    patch: Tensor,
    reference: Tensor,
    inverse: Tensor,
) -> tuple[Tensor, Tensor]:
    points = _unproject(cameras, i, patch + 0.5, inverse)  # (M, D, P, 3)
    scores = []
    for j in neighbours:
        uv, depth = _project(cameras, j, points.reshape(-1, 3))
        grid = (uv / cameras.sizes[j] * 2 - 1).masked_fill((depth <= 0)[:, None], 2)
        sampled_grey = grid_sample(greys[j][None, None], grid[None, None], align_corners=False)[0, 0, 0]
        outside = (grid.abs() > 1).any(1).view(points.shape[:3]).any(2)
        ncc = (_normalised(sampled_grey.view(points.shape[:3])) * reference[:, None]).sum(2)
        scores.append(ncc.masked_fill(outside, -1))
    agreement = torch.stack(scores).topk(min(2, len(neighbours)), dim=0).values.mean(0)  # half of them may be occluded
    score, at = agreement.max(1)
    return inverse.gather(1, at[:, None])[:, 0], score


def _normalised(patches: Tensor) -> Tensor:
    """(..., P) with mean 0 and length 1; flat patches become 0."""
    deviation = patches - patches.mean(-1, keepdim=True)
    length: Tensor = torch.linalg.vector_norm(deviation, dim=-1, keepdim=True)
    return deviation / length.clamp(min=0.02)


def _project(cameras: Cameras, i: int, points: Tensor) -> tuple[Tensor, Tensor]:
    """(P, 3) -> (P, 2) pixels and (P,) depths in pinhole camera i."""
    m = cameras[i].cam_from_world[0].float()
    p = points @ m[:, :3].T + m[:, 3]
    return p[:, :2] / p[:, 2:].clamp(min=1e-6) * cameras.focal[i].float() + cameras.centre[i].float(), p[:, 2]


def _unproject(cameras: Cameras, i: int, pixels: Tensor, inverse_depth: Tensor) -> Tensor:
    """(M, P, 2) pixels at (M, D) inverse depths -> (M, D, P, 3) points, each patch on a plane parallel to the image."""
    m = cameras.world_from_cam[i].float()
    flat = (pixels - cameras.centre[i].float()) / cameras.focal[i].float()
    directions = torch.cat([flat, torch.ones_like(flat[..., :1])], dim=-1) @ m[:, :3].T
    return directions[:, None] / inverse_depth[:, :, None, None] + m[:, 3]
