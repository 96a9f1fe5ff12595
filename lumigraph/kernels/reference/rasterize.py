"""Reference implementation of triangle rasterization, one triangle at a time."""

import torch
from torch import Tensor


def rasterize(corners: Tensor, faces: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Rasterize as kernels/rasterize.py does -> face (H, W) int32, depth (H, W), weights (H, W, 3)."""
    width, height = size
    face = torch.full((height, width), -1, dtype=torch.int32)
    depth = torch.full((height, width), torch.inf, dtype=corners.dtype)
    weights = corners.new_zeros(height, width, 3)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixel = torch.stack([x, y], -1).to(corners.dtype)
    for f, triangle in enumerate(faces.long()):
        p, z = corners[triangle, :2], corners[triangle, 2]
        if not (z > 0).all():
            continue
        area = _cross(p[1] - p[0], p[2] - p[0])
        if area == 0:
            continue
        barycentric = [_cross(p[(j + 2) % 3] - p[(j + 1) % 3], pixel - p[(j + 1) % 3]) / area for j in range(3)]
        w = torch.stack(barycentric, -1)
        z_pixel = 1 / (w / z).sum(-1)
        is_nearer = (w >= 0).all(-1) & (z_pixel < depth)
        face[is_nearer] = f
        depth[is_nearer] = z_pixel[is_nearer]
        weights[is_nearer] = (w / z * z_pixel[..., None])[is_nearer]
    return face, depth, weights


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
