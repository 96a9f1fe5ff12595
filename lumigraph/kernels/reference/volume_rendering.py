"""Emission and absorption along rays, in plain torch [Mildenhall 2020, eq. 3; Max 1995].

The samples of ray r are `first[r]` .. `first[r + 1]` of the packed ones.
"""

import torch
from torch import Tensor


def ray_indices(first: Tensor, samples: int) -> Tensor:
    """(S,) the ray that each sample belongs to."""
    return torch.repeat_interleave(torch.arange(len(first) - 1, device=first.device), first.diff(), output_size=samples)


def composite_rays(
    density_rgb: Tensor, distance: Tensor, length: Tensor, first: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """-> rgb (R, 3), transmittance (R,), depth (R,) = sum of weight x distance, weight (S,). Differentiable."""
    rays, ray = len(first) - 1, ray_indices(first, len(distance))
    absorbed = density_rgb[:, 0] * length
    before = torch.cumsum(absorbed.double(), 0) - absorbed  # of all samples in the batch: doubles, to subtract them
    start = torch.cat([before, absorbed.new_zeros(1)])[first[:-1].clamp(max=len(absorbed))]
    weight = torch.exp(start[ray] - before).to(absorbed) * -torch.expm1(-absorbed)

    def total(x: Tensor) -> Tensor:
        return x.new_zeros(rays, *x.shape[1:]).index_add(0, ray, x)

    rgb, depth = total(weight[:, None] * density_rgb[:, 1:]), total(weight * distance)
    return rgb, torch.exp(-total(absorbed)), depth, weight
