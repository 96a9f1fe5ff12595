"""Colours of points from pictures, in plain torch."""

import math

import torch
from torch import Tensor

from lumigraph.kernels.reference.tsdf import project

STEEPEST, SPREAD, SLANT = math.cos(math.radians(75)), 0.06, 1.5


def bake_colours(
    rgb: Tensor, depth: Tensor, weights: Tensor, views: Tensor, xyz: Tensor, normals: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """As kernels/bake.py -> rgb (P, 3), weight (P,)."""
    count, height, width = depth.shape
    pixels, far = project(views, xyz)
    colours, trusts = [], []
    for i in range(count):
        pose = views[i, :12].view(3, 4)
        towards = -pose[:, 3] @ pose[:, :3] - xyz
        cosine = (towards * normals).sum(1) / towards.norm(dim=1)
        p, z = pixels[i], far[i]
        seen = (z > 1e-6) & (p >= 0).all(-1) & (p[:, 0] < width) & (p[:, 1] < height)
        at = torch.where(seen[:, None], p, 0.0).long()
        x0, y0 = (torch.where(seen[:, None], p - 0.5, 0.0).clamp(min=0).long()).unbind(1)
        s, t = (torch.where(seen[:, None], p - 0.5, 0.0).clamp(min=0) - torch.stack([x0, y0], 1)).unbind(1)
        x1, y1 = (x0 + 1).clamp(max=width - 1), (y0 + 1).clamp(max=height - 1)
        four = [(y0, x0, (1 - s) * (1 - t)), (y0, x1, s * (1 - t)), (y1, x0, (1 - s) * t), (y1, x1, s * t)]
        nearest = torch.stack([depth[i, y, x] for y, x, _ in four]).amin(0)
        pixel = z / views[i, 12:14].amin()
        slope = (1 - cosine.square().clamp(max=1)).sqrt() / cosine
        trust = weights[i, at[:, 1], at[:, 0]]
        good = seen & (cosine > STEEPEST) & (z < nearest + tolerance + SLANT * pixel * slope)
        colours.append(torch.stack([rgb[i, y, x] / 255 * w[:, None] for y, x, w in four]).sum(0))
        trusts.append(torch.where(good, trust * cosine**6 / pixel.square(), 0.0))
    colour, weight = torch.stack(colours), torch.stack(trusts)
    mean, used = torch.zeros_like(xyz), weight
    for again in range(3):
        if again:
            used = weight / (1 + (colour - mean).square().sum(-1) / SPREAD**2)
        mean = (used[..., None] * colour).sum(0) / used.sum(0).clamp(min=1e-30)[:, None]
    return mean, used.sum(0)
