"""Gaussian splatting on the CPU: rendering with gradients, and the fused training step.

A gaussian is one row of `params` (N, 16) float32, a cache line: 0-2 mean, 3-5 log scale, 6-9 quaternion (w, x, y, z;
any length), 10 logit opacity, 11-13 SH DC, 14 its number of Adam steps, 15 free. `sh_rest` (N, 48) holds the 15 higher
SH coefficients x RGB, coefficient-major, and 3 of padding. Colour = max(0, 0.5 + sum_k SH_k Y_k(direction)).

Formulas: csrc/gaussian.h; specification and oracle: reference.py. Results do not depend on the number of threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from .native import native

ROW, SH_ROW = 16, 48
MEAN, LOG_SCALE, QUAT, LOGIT, DC, STEPS = slice(0, 3), slice(3, 6), slice(6, 10), 10, slice(11, 14), 14

set_threads = native.set_threads
threads = native.threads
fma_peak = native.fma_peak
Photometric = native.Photometric


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. world_to_cam (3, 4), OpenCV axes; focal, centre: (x, y) pixels; size: (width, height)."""

    world_to_cam: Tensor
    focal: tuple[float, float]
    centre: tuple[float, float]
    size: tuple[int, int]
    near: float = 0.01
    antialiased: bool = False

    def native(self) -> Any:
        m = self.world_to_cam.detach().to(torch.float32).reshape(12).tolist()
        return native.Camera(m, *self.focal, *self.centre, *self.size, self.near, self.antialiased)


class _Render(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, params: Tensor, sh_rest: Tensor, world_to_cam: Tensor, background: Tensor, camera: Camera, degree: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        width, height = camera.size
        state = native.State()
        rgb = torch.empty(3, height, width)
        transmittance, depth = torch.empty(height, width), torch.empty(height, width)
        colour = background.detach().float().tolist()
        native.forward(
            state,
            camera.native(),
            params.detach(),
            sh_rest.detach(),
            len(params),
            degree,
            colour,
            rgb,
            transmittance,
            depth,
        )
        ctx.state = state
        ctx.save_for_backward(params, sh_rest, rgb, transmittance, depth, world_to_cam)
        return rgb, depth, transmittance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        params, sh_rest, rgb, transmittance, depth, world_to_cam = ctx.saved_tensors
        g_rgb, g_depth, g_transmittance = (g.contiguous() for g in gradients)
        g_params, g_sh = torch.empty_like(params), torch.empty_like(sh_rest)
        g_camera = torch.empty(3, 4, dtype=torch.float64) if ctx.needs_input_grad[2] else None
        given = (params.detach(), sh_rest.detach(), rgb, transmittance, depth)
        native.backward(ctx.state, *given, g_rgb, g_transmittance, g_depth, g_params, g_sh, g_camera)
        g_background = (g_rgb * transmittance).sum((1, 2)) if ctx.needs_input_grad[3] else None
        g_world = g_camera.to(world_to_cam.dtype) if g_camera is not None else None
        return g_params, g_sh, g_world, g_background, None, None


def check(params: Tensor, sh_rest: Tensor) -> None:
    """ValueError unless the rows are what the kernels read: float32, contiguous, on the CPU, (N, 16) and (N, 48)."""
    for name, x, width in (("params", params, ROW), ("sh_rest", sh_rest, SH_ROW)):
        if (
            x.dtype != torch.float32
            or x.device.type != "cpu"
            or x.ndim != 2
            or x.shape[1] != width
            or not x.is_contiguous()
        ):
            raise ValueError(
                f"{name} must be a contiguous float32 CPU tensor (N, {width}), not {x.dtype} {tuple(x.shape)}"
            )
    if len(params) != len(sh_rest):
        raise ValueError(f"{len(params)} rows of params but {len(sh_rest)} of sh_rest")


def render(
    params: Tensor, sh_rest: Tensor, camera: Camera, degree: int, background: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """One view -> rgb (H, W, 3), depth (H, W) = sum of weight x z, alpha (H, W).

    Differentiable in params, sh_rest, camera.world_to_cam and background (3,). Rows with NaN or infinities are not
    drawn.
    """
    check(params, sh_rest)
    colour = torch.zeros(3) if background is None else background
    rgb, depth, transmittance = cast(Any, _Render).apply(params, sh_rest, camera.world_to_cam, colour, camera, degree)
    return rgb.permute(1, 2, 0), depth, 1 - transmittance


@torch.no_grad()
def render_surface(
    params: Tensor, sh_rest: Tensor, camera: Camera, degree: int, background: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `render`, but depth (H, W) is the z of the gaussian at which half of the light is stopped, and 0 where that
    never happens. Not differentiable."""
    check(params, sh_rest)
    width, height = camera.size
    colour = [0.0] * 3 if background is None else background.float().tolist()
    rgb, transmittance, depth = torch.empty(3, height, width), torch.empty(height, width), torch.empty(height, width)
    planes = (colour, rgb, transmittance, depth)
    native.forward(native.State(), camera.native(), params, sh_rest, len(params), degree, *planes, median=True)
    return rgb.permute(1, 2, 0), depth, 1 - transmittance


class Trainer:
    """Rows under training, `capacity` at most, and the fused step: render, loss, backward and Adam in one call.

    `params`, `sh_rest` and the moments `m v sh_m sh_v` have `capacity` rows, of which the first `count` live. `score`
    (capacity, 2) sums per gaussian, since it was last cleared, blending weight x pixel error and the length of
    dL/d(pixel position).
    """

    def __init__(self, capacity: int) -> None:
        self.count = 0
        self.params, self.m, self.v = (aligned(capacity, ROW) for _ in range(3))
        self.sh_rest, self.sh_m, self.sh_v = (aligned(capacity, SH_ROW) for _ in range(3))
        self.score = torch.zeros(capacity, 2)
        self.optimizer = native.Optimizer(self.m, self.v, self.sh_m, self.sh_v, self.score)
        self.state = native.State()

    def step(
        self,
        camera: Any,
        degree: int,
        background: Sequence[float],
        target: Tensor,
        mask: Tensor | None,
        weights: Any,
    ) -> dict[str, Any]:
        """camera: Camera.native(); target (3, H, W) uint8, mask (H, W) uint8; weights: Photometric.

        Returns the means l1, mse, ssim of this view, dL/dgain and dL/dbias of its exposure, the entries and the
        visible gaussians.
        """
        result: dict[str, Any] = native.step(
            self.state,
            camera,
            self.params,
            self.sh_rest,
            self.count,
            degree,
            background,
            target,
            mask,
            weights,
            self.optimizer,
        )
        return result


def aligned(rows: int, width: int) -> Tensor:
    """Zeros (rows, width) float32 that start at a cache line."""
    flat = torch.zeros(rows * width + 16)
    skip = -(flat.data_ptr() // 4) % 16
    return flat[skip : skip + rows * width].view(rows, width)


def photometric_loss(
    rgb: Tensor, target: Tensor, weights: Any, mask: Tensor | None = None, *, gradient: bool = True
) -> tuple[dict[str, Any], Tensor | None, Tensor]:
    """rgb (3, H, W) float32, target (3, H, W) uint8 -> (means and exposure gradients, dL/drgb, error map (H, W))."""
    height, width = rgb.shape[1:]
    g = torch.empty_like(rgb) if gradient else None
    error = torch.empty(height, width)
    return native.loss(rgb.contiguous(), target.contiguous(), mask, width, height, weights, g, error), g, error


def profile(params: Tensor, sh_rest: Tensor, camera: Camera, degree: int) -> dict[str, float]:
    """Seconds of each stage of one forward and backward pass; how many (tile, gaussian) `entries` there were, and how
    many pixel-gaussian pairs (`lanes`) compositing evaluated."""
    state, view = native.State(), camera.native()
    width, height = camera.size
    rgb, transmittance = torch.empty(3, height, width), torch.empty(height, width)
    g, g_params, g_sh = torch.ones(3, height, width), torch.empty_like(params), torch.empty_like(sh_rest)
    for _ in range(2):  # the first round grows the buffers
        state.take_seconds()
        native.forward(state, view, params, sh_rest, len(params), degree, (0.0, 0.0, 0.0), rgb, transmittance, None)
        native.backward(state, params, sh_rest, rgb, transmittance, None, g, None, None, g_params, g_sh, None)
    return {**state.take_seconds(), "entries": state.entries, "lanes": state.lanes}
