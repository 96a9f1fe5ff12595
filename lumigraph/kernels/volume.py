"""Emission and absorption along rays (Max 1995; Mildenhall et al. 2020, eq. 3), over packed samples.

  alpha_i = 1 - exp(-density_i length_i),  T_i = prod_{j<i} (1 - alpha_j),  weight_i = T_i alpha_i

Compiled for float32 on the CPU (csrc/volume.h); everything else takes the plain-torch twin, reference/volume.py.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from .hashgrid import compiled
from .native import native
from .reference import volume as twin


class Light(NamedTuple):
    """What arrives along R rays. rgb is over black; `transmittance` of whatever is behind is to be added."""

    rgb: Tensor  # (R, 3)
    transmittance: Tensor  # (R,)
    depth: Tensor  # (R,) sum of weight x distance
    weight: Tensor  # (S,) of each sample


def light(density_rgb: Tensor, distance: Tensor, length: Tensor, first: Tensor) -> Light:
    """density_rgb (S, 4), distance and length (S,) of samples along rays; those of ray r are first[r] .. first[r + 1],
    first (R + 1,) int64. Differentiable in density_rgb.
    """
    if not compiled(density_rgb, distance, length):
        return Light(*twin.light(density_rgb, distance, length, first))
    return Light(*cast(Any, _Light).apply(density_rgb.contiguous(), distance, length, first))


class _Light(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, density_rgb: Tensor, distance: Tensor, length: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rays = len(first) - 1
        rgb, transmittance, depth = torch.empty(rays, 3), torch.empty(rays), torch.empty(rays)
        weight = torch.zeros(len(distance))
        native.light(density_rgb.detach(), distance, length, first, rgb, transmittance, depth, weight)
        ctx.save_for_backward(density_rgb, distance, length, first, transmittance, weight)
        return rgb, transmittance, depth, weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        density_rgb, distance, length, first, transmittance, weight = ctx.saved_tensors
        out = torch.zeros_like(density_rgb)
        given = (density_rgb.detach(), distance, length, first, transmittance, weight)
        native.light_backward(*given, *(g.contiguous() for g in gradients), out)
        return out, None, None, None
