"""Emission and absorption along rays (Max 1995; Mildenhall et al. 2020, eq. 3), over packed samples.

  alpha_i = 1 - exp(-density_i length_i),  T_i = prod_{j<i} (1 - alpha_j),  weight_i = T_i alpha_i

Compiled for float32 on the CPU (csrc/volume.h) and CUDA (csrc/volume_cuda.cu); everything else takes the plain-torch
twin, reference/volume.py.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from lumigraph.kernels.native import native
from lumigraph.kernels.operations import check_tensor, has_compiled_kernel, launch, register_operation
from lumigraph.kernels.reference import volume_rendering as reference


class CompositedRays(NamedTuple):
    """What arrives along R rays. rgb is over black; `transmittance` of whatever is behind is to be added."""

    rgb: Tensor  # (R, 3)
    transmittance: Tensor  # (R,)
    depth: Tensor  # (R,) sum of weight x distance
    weights: Tensor  # (S,) of each sample


def composite_rays(density_rgb: Tensor, distance: Tensor, length: Tensor, first: Tensor) -> CompositedRays:
    """density_rgb (S, 4), distance and length (S,) of samples along rays; those of ray r are first[r] .. first[r + 1],
    first (R + 1,) int64. Differentiable in density_rgb.
    """
    if not has_compiled_kernel(density_rgb, distance, length):
        return CompositedRays(*reference.composite_rays(density_rgb, distance, length, first))
    return CompositedRays(*cast(Any, _Light).apply(density_rgb.contiguous(), distance, length, first))


class _Light(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, density_rgb: Tensor, distance: Tensor, length: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rgb, transmittance, depth, weight = _forward(density_rgb.detach(), distance, length, first)
        ctx.save_for_backward(density_rgb, distance, length, first, transmittance, weight)
        return rgb, transmittance, depth, weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        density_rgb, *others = ctx.saved_tensors
        out = _backward(density_rgb.detach(), *others, *(g.contiguous() for g in gradients))
        return out, None, None, None


# ---- the operations


def _arriving(density_rgb: Tensor, distance: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rays, new = len(first) - 1, density_rgb.new_empty
    return new(rays, 3), new(rays), new(rays), torch.zeros_like(distance)


def _light_cpu(density_rgb: Tensor, distance: Tensor, length: Tensor, first: Tensor) -> tuple[Tensor, ...]:
    out = _arriving(density_rgb, distance, first)
    native.light(density_rgb, distance, length, first, *out)
    return out


def _light_backward_cpu(density_rgb: Tensor, *rest: Tensor) -> Tensor:
    out = torch.zeros_like(density_rgb)
    native.light_backward(density_rgb, *rest, out)
    return out


RAYS = 8  # of a block, one a warp


def _light_cuda(density_rgb: Tensor, distance: Tensor, length: Tensor, first: Tensor) -> tuple[Tensor, ...]:
    samples, rays = len(distance), len(first) - 1
    check_tensor("density_rgb", density_rgb, (samples, 4), density_rgb)
    check_tensor("distance", distance, (samples,), density_rgb)
    check_tensor("length", length, (samples,), density_rgb)
    check_tensor("first", first, (rays + 1,), density_rgb, torch.int64)
    out = _arriving(density_rgb, distance, first)
    if rays > 0:
        blocks, packed = -(-rays // RAYS), (density_rgb, distance, length, first)
        launch(density_rgb, "light_rays", blocks, *packed, rays, samples, *out)
    return out


def _light_backward_cuda(density_rgb: Tensor, distance: Tensor, length: Tensor, first: Tensor, *rest: Tensor) -> Tensor:
    samples, rays, out = len(distance), len(first) - 1, torch.zeros_like(density_rgb)
    if rays > 0:
        blocks, packed = -(-rays // RAYS), (density_rgb, distance, length, first)
        launch(density_rgb, "light_rays_backward", blocks, *packed, rays, samples, *rest, out)
    return out


_forward = register_operation(
    "light(Tensor density_rgb, Tensor distance, Tensor length, Tensor first) -> (Tensor, Tensor, Tensor, Tensor)",
    _light_cpu,
    _light_cuda,
)
_backward = register_operation(
    "light_backward(Tensor density_rgb, Tensor distance, Tensor length, Tensor first, Tensor transmittance, "
    "Tensor weight, Tensor g_rgb, Tensor g_transmittance, Tensor g_depth, Tensor g_weight) -> Tensor",
    _light_backward_cpu,
    _light_backward_cuda,
)
