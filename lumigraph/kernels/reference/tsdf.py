"""Reference implementation of depth map fusion on a dense volume."""

import torch
from torch import Tensor

FREE_SPACE_WEIGHT = 0.3  # of a measurement clipped to 1
MEDIAN_BINS, BINS_AROUND_MEDIAN = 16, 4  # histogram of measurements -1..1


def project(views: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Project points (P, 3) with camera rows (N, 16) -> pixels (N, P, 2), depth (N, P)."""
    pose = views[:, :12].view(-1, 3, 4)
    in_cam = points @ pose[:, :, :3].transpose(1, 2) + pose[:, None, :, 3]
    depth = in_cam[..., 2]
    pixels = in_cam[..., :2] / depth[..., None] * views[:, None, 12:14] + views[:, None, 14:16]
    return pixels, depth


def sample_depth(depth: Tensor, pixels: Tensor, max_difference: float) -> Tensor:
    """Sample a depth map (H, W) at pixels (P, 2) -> (P,).

    Bilinear if the four depths differ by less than `max_difference`, else the nearest.
    """
    height, width = depth.shape
    x, y = pixels.long().unbind(-1)
    nearest = depth[y, x]
    corner = (pixels - 0.5).floor().long()
    is_inside = (corner >= 0).all(-1) & (corner[:, 0] + 1 < width) & (corner[:, 1] + 1 < height)
    s, t = (pixels - 0.5 - corner).unbind(-1)
    x0, y0 = corner[:, 0].clamp(0, max(width - 2, 0)), corner[:, 1].clamp(0, max(height - 2, 0))
    x1, y1 = (x0 + 1).clamp(max=width - 1), (y0 + 1).clamp(max=height - 1)
    corner_depths = torch.stack([depth[y0, x0], depth[y0, x1], depth[y1, x0], depth[y1, x1]])
    low, high = corner_depths.amin(0), corner_depths.amax(0)
    is_smooth = (
        is_inside
        & (low > 0)
        & (high < torch.inf)
        & (high - low < max_difference)
        & (nearest > 0)
        & (nearest < torch.inf)
    )
    weights = torch.stack([(1 - s) * (1 - t), s * (1 - t), (1 - s) * t, s * t])
    return torch.where(is_smooth, (corner_depths * weights).nan_to_num(0.0, 0.0, 0.0).sum(0), nearest)


def fuse(
    depth: Tensor,
    weight: Tensor,
    views: Tensor,
    points: Tensor,
    *,
    voxel_size: float,
    truncation: float,
    min_weight: float,
    carving_views: int,
    unseen_is_inside: bool,
) -> Tensor:
    """Fuse depth maps as kernels/tsdf.py does, at voxel centres `points` (P, 3) -> values (P,), NaN if unknown."""
    height, width = depth.shape[1:]
    pixels, voxel_depth = project(views, points)
    known_depth = torch.where(depth > 0, depth, torch.inf)
    nearest = -torch.nn.functional.max_pool2d(-known_depth[:, None], 3, 1, 1)[:, 0]
    sums, weights = (points.new_zeros(len(points), MEDIAN_BINS) for _ in range(2))
    surface_views, empty_views = (torch.zeros(len(points), dtype=torch.int64) for _ in range(2))
    for i in range(len(depth)):
        is_in_image = voxel_depth[i] > 1e-6
        is_in_image &= (pixels[i] >= 0).all(-1) & (pixels[i, :, 0] < width) & (pixels[i, :, 1] < height)
        visible = is_in_image.nonzero()[:, 0]
        p = pixels[i, visible]
        d = sample_depth(depth[i], p, truncation)
        s = d - voxel_depth[i, visible]
        margin = nearest[i][p[:, 1].long(), p[:, 0].long()] - voxel_depth[i, visible]
        # Rays that pass a silhouette by less than a pixel are no evidence of free space.
        is_reliable = (s < truncation) | (margin >= truncation)
        empty_views[visible] += ((d == torch.inf) & is_reliable).long()
        is_measured = (d > 0) & (d < torch.inf) & (s > -truncation) & is_reliable
        visible, s, p = visible[is_measured], s[is_measured], p[is_measured].long()
        w = weight[i, p[:, 1], p[:, 0]]
        w = torch.where(s < -voxel_size, w * (s + truncation) / (truncation - voxel_size), w)
        w = torch.where(s >= truncation, w * FREE_SPACE_WEIGHT, w)
        surface_views[visible] += (s < truncation).long()
        value = (s / truncation).clamp(max=1)
        bins = ((value + 1) * (MEDIAN_BINS / 2)).long().clamp(max=MEDIAN_BINS - 1)
        sums[visible, bins] += w * value
        weights[visible, bins] += w
    total = weights.sum(1)
    median = (weights.cumsum(1) < total[:, None] / 2).sum(1).clamp(max=MEDIAN_BINS - 1)
    is_near_median = (torch.arange(MEDIAN_BINS) - median[:, None]).abs() <= BINS_AROUND_MEDIAN
    values = (sums * is_near_median).sum(1) / (weights * is_near_median).sum(1)
    values = torch.where(total > min_weight, values, -1.0 if unseen_is_inside else torch.nan)
    return torch.where((empty_views >= carving_views) & (empty_views > surface_views), 1.0, values)


def count_agreeing_views(depth: Tensor, views: Tensor, neighbours: Tensor, tolerance: Tensor) -> tuple[Tensor, Tensor]:
    """Count, for each pixel, the neighbour views that agree and those that see through it, as kernels/tsdf.py does."""
    count, height, width = depth.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([x, y], -1).view(-1, 2) + 0.5
    agree, against = (torch.zeros(count, height * width, dtype=torch.uint8) for _ in range(2))
    for i in range(count):
        d = depth[i].flatten()
        known_pixels = ((d > 0) & (d < torch.inf)).nonzero()[:, 0]
        in_cam = torch.cat([(grid - views[i, 14:16]) / views[i, 12:14], torch.ones(len(grid), 1)], 1) * d[:, None]
        pose = views[i, :12].view(3, 4)
        points = (in_cam[known_pixels] - pose[:, 3]) @ pose[:, :3]
        for j in neighbours[i].tolist():
            if j < 0:
                continue
            pixels, point_depth = project(views[j : j + 1], points)
            p, z = pixels[0], point_depth[0]
            is_in_image = (z > 1e-6) & (p >= 0).all(-1) & (p[:, 0] < width) & (p[:, 1] < height)
            visible = is_in_image.nonzero()[:, 0]
            pixel_index = p[visible].long()
            neighbour_depth = depth[j, pixel_index[:, 1], pixel_index[:, 0]]
            targets = known_pixels[visible]
            is_same = (neighbour_depth > 0) & ((neighbour_depth - z[visible]).abs() < tolerance[i].flatten()[targets])
            agree[i, targets] += is_same.to(torch.uint8)
            against[i, targets] += ((neighbour_depth > z[visible]) & ~is_same).to(torch.uint8)
    return agree.view_as(depth), against.view_as(depth)
