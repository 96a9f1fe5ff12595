"""Reference implementation of colour baking."""

import math

import torch
from torch import Tensor

from lumigraph.kernels.reference.tsdf import project

MIN_COSINE = math.cos(math.radians(75))  # between normal and direction to the camera
OUTLIER_SCALE = 0.06  # colour difference at which a weight is halved
SLANT_TOLERANCE_PX = 1.5  # depth tolerance along the slope of the surface


def bake_colours(
    rgb: Tensor, depth: Tensor, weights: Tensor, views: Tensor, xyz: Tensor, normals: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Blend colours as kernels/colour_baking.py does, with the same arguments -> rgb (P, 3), weight (P,)."""
    count, height, width = depth.shape
    pixels, depths = project(views, xyz)
    colours, view_weights = [], []
    for i in range(count):
        pose = views[i, :12].view(3, 4)
        to_camera = -pose[:, 3] @ pose[:, :3] - xyz
        cosine = (to_camera * normals).sum(1) / to_camera.norm(dim=1)
        p, z = pixels[i], depths[i]
        is_in_image = (z > 1e-6) & (p >= 0).all(-1) & (p[:, 0] < width) & (p[:, 1] < height)
        pixel_index = torch.where(is_in_image[:, None], p, 0.0).long()
        x0, y0 = (torch.where(is_in_image[:, None], p - 0.5, 0.0).clamp(min=0).long()).unbind(1)
        s, t = (torch.where(is_in_image[:, None], p - 0.5, 0.0).clamp(min=0) - torch.stack([x0, y0], 1)).unbind(1)
        x1, y1 = (x0 + 1).clamp(max=width - 1), (y0 + 1).clamp(max=height - 1)
        corners = [(y0, x0, (1 - s) * (1 - t)), (y0, x1, s * (1 - t)), (y1, x0, (1 - s) * t), (y1, x1, s * t)]
        nearest = torch.stack([depth[i, y, x] for y, x, _ in corners]).amin(0)
        pixel_size = z / views[i, 12:14].amin()
        slope = (1 - cosine.square().clamp(max=1)).sqrt() / cosine
        pixel_weight = weights[i, pixel_index[:, 1], pixel_index[:, 0]]
        is_visible = (
            is_in_image & (cosine > MIN_COSINE) & (z < nearest + tolerance + SLANT_TOLERANCE_PX * pixel_size * slope)
        )
        colours.append(torch.stack([rgb[i, y, x] / 255 * w[:, None] for y, x, w in corners]).sum(0))
        view_weights.append(torch.where(is_visible, pixel_weight * cosine**6 / pixel_size.square(), 0.0))
    colour, weight = torch.stack(colours), torch.stack(view_weights)
    mean, robust_weight = torch.zeros_like(xyz), weight
    for iteration in range(3):
        if iteration:
            robust_weight = weight / (1 + (colour - mean).square().sum(-1) / OUTLIER_SCALE**2)
        mean = (robust_weight[..., None] * colour).sum(0) / robust_weight.sum(0).clamp(min=1e-30)[:, None]
    return mean, robust_weight.sum(0)
