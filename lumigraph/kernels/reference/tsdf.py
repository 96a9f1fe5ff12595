"""Fusion of depth maps in plain torch, on a dense volume."""

import torch
from torch import Tensor

FREE, BINS, AROUND = 0.3, 16, 4


def project(views: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """views (N, 16), points (P, 3) -> pixels (N, P, 2), depth (N, P)."""
    pose = views[:, :12].view(-1, 3, 4)
    in_cam = points @ pose[:, :, :3].transpose(1, 2) + pose[:, None, :, 3]
    depth = in_cam[..., 2]
    pixels = in_cam[..., :2] / depth[..., None] * views[:, None, 12:14] + views[:, None, 14:16]
    return pixels, depth


def sample(depth: Tensor, pixels: Tensor, jump: float) -> Tensor:
    """One view's depth (H, W) at pixels (P, 2) within it: between four where they are within `jump`, else the
    nearest."""
    height, width = depth.shape
    x, y = pixels.long().unbind(-1)
    nearest = depth[y, x]
    corner = (pixels - 0.5).floor().long()
    inside = (corner >= 0).all(-1) & (corner[:, 0] + 1 < width) & (corner[:, 1] + 1 < height)
    s, t = (pixels - 0.5 - corner).unbind(-1)
    x0, y0 = corner[:, 0].clamp(0, max(width - 2, 0)), corner[:, 1].clamp(0, max(height - 2, 0))
    x1, y1 = (x0 + 1).clamp(max=width - 1), (y0 + 1).clamp(max=height - 1)
    four = torch.stack([depth[y0, x0], depth[y0, x1], depth[y1, x0], depth[y1, x1]])
    low, high = four.amin(0), four.amax(0)
    smooth = inside & (low > 0) & (high < torch.inf) & (high - low < jump) & (nearest > 0) & (nearest < torch.inf)
    weights = torch.stack([(1 - s) * (1 - t), s * (1 - t), (1 - s) * t, s * t])
    return torch.where(smooth, (four * weights).nan_to_num(0.0, 0.0, 0.0).sum(0), nearest)


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
    """depth, weight (N, H, W), the centres of voxels `points` (P, 3) -> values (P,), NaN where nothing is known."""
    height, width = depth.shape[1:]
    pixels, far = project(views, points)
    known = torch.where(depth > 0, depth, torch.inf)
    nearest = -torch.nn.functional.max_pool2d(-known[:, None], 3, 1, 1)[:, 0]
    sums, weights = (points.new_zeros(len(points), BINS) for _ in range(2))
    hits, empty = (torch.zeros(len(points), dtype=torch.int64) for _ in range(2))
    for i in range(len(depth)):
        seen = far[i] > 1e-6
        seen &= (pixels[i] >= 0).all(-1) & (pixels[i, :, 0] < width) & (pixels[i, :, 1] < height)
        which = seen.nonzero()[:, 0]
        p = pixels[i, which]
        d = sample(depth[i], p, truncation)
        s = d - far[i, which]
        margin = nearest[i][p[:, 1].long(), p[:, 0].long()] - far[i, which]
        past = (s < truncation) | (margin >= truncation)  # seen past with a margin of a pixel, or not at all
        empty[which] += ((d == torch.inf) & past).long()
        told = (d > 0) & (d < torch.inf) & (s > -truncation) & past
        which, s, p = which[told], s[told], p[told].long()
        w = weight[i, p[:, 1], p[:, 0]]
        w = torch.where(s < -voxel_size, w * (s + truncation) / (truncation - voxel_size), w)
        w = torch.where(s >= truncation, w * FREE, w)
        hits[which] += (s < truncation).long()
        value = (s / truncation).clamp(max=1)
        bins = ((value + 1) * (BINS / 2)).long().clamp(max=BINS - 1)
        sums[which, bins] += w * value
        weights[which, bins] += w
    total = weights.sum(1)
    median = (weights.cumsum(1) < total[:, None] / 2).sum(1).clamp(max=BINS - 1)
    near = (torch.arange(BINS) - median[:, None]).abs() <= AROUND
    values = (sums * near).sum(1) / (weights * near).sum(1)
    values = torch.where(total > min_weight, values, -1.0 if unseen_is_inside else torch.nan)
    return torch.where((empty >= carving_views) & (empty > hits), 1.0, values)


def count_agreeing_views(depth: Tensor, views: Tensor, neighbours: Tensor, tolerance: Tensor) -> tuple[Tensor, Tensor]:
    """How many of the views `neighbours` (N, K) see the same at each pixel, and how many see through it."""
    count, height, width = depth.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([x, y], -1).view(-1, 2) + 0.5
    agree, against = (torch.zeros(count, height * width, dtype=torch.uint8) for _ in range(2))
    for i in range(count):
        d = depth[i].flatten()
        known = ((d > 0) & (d < torch.inf)).nonzero()[:, 0]
        in_cam = torch.cat([(grid - views[i, 14:16]) / views[i, 12:14], torch.ones(len(grid), 1)], 1) * d[:, None]
        pose = views[i, :12].view(3, 4)
        points = (in_cam[known] - pose[:, 3]) @ pose[:, :3]
        for j in neighbours[i].tolist():
            if j < 0:
                continue
            pixels, far = project(views[j : j + 1], points)
            p, z = pixels[0], far[0]
            seen = (z > 1e-6) & (p >= 0).all(-1) & (p[:, 0] < width) & (p[:, 1] < height)
            which = seen.nonzero()[:, 0]
            at = p[which].long()
            there = depth[j, at[:, 1], at[:, 0]]
            same = (there > 0) & ((there - z[which]).abs() < tolerance[i].flatten()[known[which]])
            agree[i, known[which]] += same.to(torch.uint8)
            against[i, known[which]] += ((there > z[which]) & ~same).to(torch.uint8)
    return agree.view_as(depth), against.view_as(depth)
