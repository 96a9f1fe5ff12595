"""Volume rendering (Max 1995; Mildenhall et al. 2020, eq. 3) of packed samples along rays.

  alpha_i = 1 - exp(-sigma_i delta_i),  T_i = prod_{j<i} (1 - alpha_j),  weight_i = T_i alpha_i

Compiled for float32 on the CPU (csrc/volume_rendering.h) and CUDA (csrc/volume_rendering_cuda.cu). Other dtypes and
devices use the reference implementation, reference/volume_rendering.py.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from lumigraph.kernels.native import native
from lumigraph.kernels.operations import check_tensor, has_compiled_kernel, launch, register_operation
from lumigraph.kernels.reference import volume_rendering as reference

RAYS_PER_BLOCK = 8  # one warp each


class CompositedRays(NamedTuple):
    """Rendered values of R rays with S samples. rgb is over black: add `transmittance` times the background."""

    rgb: Tensor  # (R, 3)
    transmittance: Tensor  # (R,)
    depth: Tensor  # (R,) sum of weight x t
    weights: Tensor  # (S,) blending weight of each sample


def composite_rays(sigma_rgb: Tensor, t: Tensor, delta: Tensor, ray_offsets: Tensor) -> CompositedRays:
    """Composite samples along rays. Differentiable in sigma_rgb.

    Args:
        sigma_rgb: (S, 4) density and colour.
        t, delta: (S,) distance from the ray origin and length of each sample.
        ray_offsets: (R + 1,) int64. Samples of ray r are ray_offsets[r] .. ray_offsets[r + 1].
    """
    if not has_compiled_kernel(sigma_rgb, t, delta):
        return CompositedRays(*reference.composite_rays(sigma_rgb, t, delta, ray_offsets))
    return CompositedRays(*cast(Any, _CompositeRays).apply(sigma_rgb.contiguous(), t, delta, ray_offsets))


class _CompositeRays(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sigma_rgb: Tensor, t: Tensor, delta: Tensor, ray_offsets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rgb, transmittance, depth, weights = _forward(sigma_rgb.detach(), t, delta, ray_offsets)
        ctx.save_for_backward(sigma_rgb, t, delta, ray_offsets, transmittance, weights)
        return rgb, transmittance, depth, weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        sigma_rgb, *saved_tensors = ctx.saved_tensors
        g_sigma_rgb = _backward(sigma_rgb.detach(), *saved_tensors, *(g.contiguous() for g in gradients))
        return g_sigma_rgb, None, None, None


# ---- torch operations


def _allocate_outputs(sigma_rgb: Tensor, t: Tensor, ray_offsets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rays, new = len(ray_offsets) - 1, sigma_rgb.new_empty
    return new(rays, 3), new(rays), new(rays), torch.zeros_like(t)


def _composite_cpu(sigma_rgb: Tensor, t: Tensor, delta: Tensor, ray_offsets: Tensor) -> tuple[Tensor, ...]:
    outputs = _allocate_outputs(sigma_rgb, t, ray_offsets)
    native.light(sigma_rgb, t, delta, ray_offsets, *outputs)
    return outputs


def _composite_backward_cpu(sigma_rgb: Tensor, *saved_and_gradients: Tensor) -> Tensor:
    g_sigma_rgb = torch.zeros_like(sigma_rgb)
    native.light_backward(sigma_rgb, *saved_and_gradients, g_sigma_rgb)
    return g_sigma_rgb


def _composite_cuda(sigma_rgb: Tensor, t: Tensor, delta: Tensor, ray_offsets: Tensor) -> tuple[Tensor, ...]:
    samples, rays = len(t), len(ray_offsets) - 1
    check_tensor("sigma_rgb", sigma_rgb, (samples, 4), sigma_rgb)
    check_tensor("t", t, (samples,), sigma_rgb)
    check_tensor("delta", delta, (samples,), sigma_rgb)
    check_tensor("ray_offsets", ray_offsets, (rays + 1,), sigma_rgb, torch.int64)
    outputs = _allocate_outputs(sigma_rgb, t, ray_offsets)
    if rays > 0:
        blocks, inputs = -(-rays // RAYS_PER_BLOCK), (sigma_rgb, t, delta, ray_offsets)
        launch(sigma_rgb, "composite_rays", blocks, *inputs, rays, samples, *outputs)
    return outputs


def _composite_backward_cuda(
    sigma_rgb: Tensor, t: Tensor, delta: Tensor, ray_offsets: Tensor, *saved_and_gradients: Tensor
) -> Tensor:
    samples, rays, g_sigma_rgb = len(t), len(ray_offsets) - 1, torch.zeros_like(sigma_rgb)
    if rays > 0:
        blocks, inputs = -(-rays // RAYS_PER_BLOCK), (sigma_rgb, t, delta, ray_offsets)
        launch(sigma_rgb, "composite_rays_backward", blocks, *inputs, rays, samples, *saved_and_gradients, g_sigma_rgb)
    return g_sigma_rgb


_forward = register_operation(
    "composite_rays(Tensor sigma_rgb, Tensor t, Tensor delta, Tensor ray_offsets) -> (Tensor, Tensor, Tensor, Tensor)",
    _composite_cpu,
    _composite_cuda,
)
_backward = register_operation(
    "composite_rays_backward(Tensor sigma_rgb, Tensor t, Tensor delta, Tensor ray_offsets, Tensor transmittance, "
    "Tensor weights, Tensor g_rgb, Tensor g_transmittance, Tensor g_depth, Tensor g_weights) -> Tensor",
    _composite_backward_cpu,
    _composite_backward_cuda,
)
