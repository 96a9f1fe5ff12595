"""Reference implementation of volume rendering [Mildenhall 2020, eq. 3; Max 1995].

Samples are packed: those of ray r are `ray_offsets[r]` .. `ray_offsets[r + 1]`.
"""

import torch
from torch import Tensor


def ray_indices(ray_offsets: Tensor, sample_count: int) -> Tensor:
    """Return the ray of each sample (S,)."""
    rays = torch.arange(len(ray_offsets) - 1, device=ray_offsets.device)
    return torch.repeat_interleave(rays, ray_offsets.diff(), output_size=sample_count)


def composite_rays(
    sigma_rgb: Tensor, t: Tensor, delta: Tensor, ray_offsets: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Composite samples as kernels/volume_rendering.py does -> rgb (R, 3), transmittance (R,), depth (R,), weight (S,).

    Depth is the sum of weight x t. Differentiable by autograd.
    """
    ray_count, ray = len(ray_offsets) - 1, ray_indices(ray_offsets, len(t))
    optical_depth = sigma_rgb[:, 0] * delta
    # The running sum covers all samples of the batch: float64, because differences of it are needed.
    before = torch.cumsum(optical_depth.double(), 0) - optical_depth
    ray_start = torch.cat([before, optical_depth.new_zeros(1)])[ray_offsets[:-1].clamp(max=len(optical_depth))]
    weight = torch.exp(ray_start[ray] - before).to(optical_depth) * -torch.expm1(-optical_depth)

    def sum_over_rays(x: Tensor) -> Tensor:
        return x.new_zeros(ray_count, *x.shape[1:]).index_add(0, ray, x)

    rgb, depth = sum_over_rays(weight[:, None] * sigma_rgb[:, 1:]), sum_over_rays(weight * t)
    return rgb, torch.exp(-sum_over_rays(optical_depth)), depth, weight
