"""Gaussian splatting: rendering with gradients, and the fused training step, on the device where the rows lie.

A gaussian is one row of `params` (N, 16) float32, a cache line: 0-2 mean, 3-5 log scale, 6-9 quaternion (w, x, y, z;
any length), 10 logit opacity, 11-13 SH DC, 14 its number of Adam steps, 15 free. `sh_rest` (N, 48) holds the 15 higher
SH coefficients x RGB, coefficient-major, and 3 of padding. Colour = max(0, 0.5 + sum_k SH_k Y_k(direction)).

Formulas: csrc/gaussian.h; specification and oracle: reference/splat.py. On a CPU results do not depend on the number of
threads; on a GPU they differ from run to run in their last bits.
"""

import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from lumigraph.kernels import cuda, splatting_cpu, splatting_cuda
from lumigraph.kernels.native import native

PARAM_COLUMNS, SH_COLUMNS = 16, 48
MEAN, LOG_SCALE, QUAT, LOGIT_OPACITY, SH_DC, STEP_COUNT = slice(0, 3), slice(3, 6), slice(6, 10), 10, slice(11, 14), 14

set_threads = native.set_threads
threads = native.threads
fma_peak = native.fma_peak
PhotometricLoss = native.Photometric


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. world_to_cam (3, 4), OpenCV axes; focal, centre: (x, y) pixels; size: (width, height)."""

    world_to_cam: Tensor
    focal: tuple[float, float]
    centre: tuple[float, float]
    size: tuple[int, int]
    near: float = 0.01
    antialiased: bool = False

    @cached_property
    def native(self) -> Any:
        """For the CPU's kernels. Raises ValueError where it is no camera that can be rendered."""
        return native.Camera(self._rows, *self.focal, *self.centre, *self.size, self.near, self.antialiased)

    @cached_property
    def packed(self) -> bytes:
        """`struct Camera` of csrc/gaussian.h, for a GPU's."""
        assert self.native is not None  # its checks are ours
        m = torch.tensor(self._rows).view(3, 4)
        position = -m[:, :3].T @ m[:, 3]
        floats = (*m[:, :3].flatten().tolist(), *m[:, 3].tolist(), *position.tolist(), *self.focal, *self.centre)
        return struct.pack("@19f2if?3x", *floats, *self.size, self.near, self.antialiased)

    @cached_property
    def _rows(self) -> list[float]:
        rows: list[float] = self.world_to_cam.detach().to(torch.float32).reshape(12).tolist()
        return rows


def create_rasterizer(device: torch.device) -> splatting_cpu.Rasterizer | splatting_cuda.Rasterizer:
    """What renders rows that lie on this device. Raises CudaError where it cannot."""
    if device.type == "cpu":
        return splatting_cpu.Rasterizer()
    device = torch.empty(0, device=device).device  # "cuda" says which
    return splatting_cuda.Rasterizer(cuda.get_launcher(device), device)


_kept = threading.local()


def cached_rasterizer(device: torch.device) -> splatting_cpu.Rasterizer | splatting_cuda.Rasterizer:
    """As create_rasterizer, for a picture that nothing flows back from. A GPU's keeps its memory for the next picture
    of this
    thread: to ask for it again would take longer than to render."""
    if device.type == "cpu":
        return create_rasterizer(device)
    views: dict[torch.device, splatting_cpu.Rasterizer | splatting_cuda.Rasterizer] = _kept.__dict__.setdefault(
        "views", {}
    )
    if device not in views:
        views[device] = create_rasterizer(device)
    return views[device]


class _Render(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, params: Tensor, sh_rest: Tensor, world_to_cam: Tensor, background: Tensor, camera: Camera, degree: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        rasterizer = (create_rasterizer if any(ctx.needs_input_grad) else cached_rasterizer)(params.device)
        rgb, transmittance, depth = allocate_images(camera, params.device)
        colour = background.detach().float().tolist()
        given = (params.detach(), sh_rest.detach(), len(params), degree, colour)
        rasterizer.forward(camera, *given, rgb, transmittance, depth)
        ctx.rasterizer, ctx.background = rasterizer, background.device
        ctx.save_for_backward(params, sh_rest, rgb, transmittance, depth, world_to_cam)
        return rgb, depth, transmittance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        params, sh_rest, rgb, transmittance, depth, world_to_cam = ctx.saved_tensors
        g_rgb, g_depth, g_transmittance = (g.contiguous() for g in gradients)
        g_params, g_sh = torch.empty_like(params), torch.empty_like(sh_rest)
        wanted = ctx.needs_input_grad[2]
        g_camera = torch.empty(3, 4, dtype=torch.float64, device=params.device) if wanted else None
        given = (params.detach(), sh_rest.detach(), rgb, transmittance, depth)
        ctx.rasterizer.backward(*given, g_rgb, g_transmittance, g_depth, g_params, g_sh, g_camera)
        g_background = (g_rgb * transmittance).sum((1, 2)).to(ctx.background) if ctx.needs_input_grad[3] else None
        g_world = g_camera.to(world_to_cam) if g_camera is not None else None
        return g_params, g_sh, g_world, g_background, None, None


def check_rows(params: Tensor, sh_rest: Tensor) -> None:
    """ValueError unless the rows are what the kernels read: float32, contiguous, on one device, (N, 16) and (N, 48)."""
    for name, x, width in (("params", params, PARAM_COLUMNS), ("sh_rest", sh_rest, SH_COLUMNS)):
        if (
            x.dtype != torch.float32
            or x.device.type not in ("cpu", "cuda")
            or x.ndim != 2
            or x.shape[1] != width
            or not x.is_contiguous()
        ):
            raise ValueError(
                f"{name} must be a contiguous float32 tensor (N, {width}) on the CPU or a GPU, not {x.dtype} "
                f"{tuple(x.shape)} on {x.device.type}"
            )
    if params.device != sh_rest.device:
        raise ValueError(f"params lie on {params.device} but sh_rest on {sh_rest.device}")
    if len(params) != len(sh_rest):
        raise ValueError(f"{len(params)} rows of params but {len(sh_rest)} of sh_rest")


def render(
    params: Tensor, sh_rest: Tensor, camera: Camera, degree: int, background: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """One rasterizer -> rgb (H, W, 3), depth (H, W) = sum of weight x z, alpha (H, W).

    Differentiable in params, sh_rest, camera.world_to_cam and background (3,). Rows with NaN or infinities are not
    drawn.
    """
    check_rows(params, sh_rest)
    colour = params.new_zeros(3) if background is None else background
    rgb, depth, transmittance = cast(Any, _Render).apply(params, sh_rest, camera.world_to_cam, colour, camera, degree)
    return rgb.permute(1, 2, 0), depth, 1 - transmittance


@torch.no_grad()
def render_surface(
    params: Tensor, sh_rest: Tensor, camera: Camera, degree: int, background: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `render`, but depth (H, W) is the z of the gaussian at which half of the light is stopped, and 0 where that
    never happens. Not differentiable."""
    check_rows(params, sh_rest)
    colour = [0.0] * 3 if background is None else background.float().tolist()
    rgb, transmittance, depth = allocate_images(camera, params.device)
    given = (params, sh_rest, len(params), degree, colour, rgb, transmittance, depth)
    cached_rasterizer(params.device).forward(camera, *given, median=True)
    return rgb.permute(1, 2, 0), depth, 1 - transmittance


def allocate_images(camera: Camera, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Room for rgb (3, H, W), transmittance and depth (H, W)."""
    width, height = camera.size
    return (
        torch.empty(3, height, width, device=device),
        torch.empty(height, width, device=device),
        torch.empty(height, width, device=device),
    )


class Trainer:
    """Rows under training, `capacity` at most, and the fused step: render, loss, backward and Adam in one call.

    `params`, `sh_rest` and the moments `m v sh_m sh_v` have `capacity` rows, of which the first `count` live. `score`
    (capacity, 2) sums per gaussian, since it was last cleared, blending weight x pixel error and the length of
    dL/d(pixel position).
    """

    def __init__(self, capacity: int, device: torch.device | str = "cpu") -> None:
        self.count, self.device = 0, torch.device(device)
        self.params, self.m, self.v = (allocate_rows(capacity, PARAM_COLUMNS, self.device) for _ in range(3))
        self.sh_rest, self.sh_m, self.sh_v = (allocate_rows(capacity, SH_COLUMNS, self.device) for _ in range(3))
        self.score = torch.zeros(capacity, 2, device=self.device)
        self.rasterizer = create_rasterizer(self.device)
        kind = (
            splatting_cpu.Optimizer
            if isinstance(self.rasterizer, splatting_cpu.Rasterizer)
            else splatting_cuda.Optimizer
        )
        self.optimizer = kind(self.m, self.v, self.sh_m, self.sh_v, self.score)

    def step(
        self,
        camera: Camera,
        degree: int,
        background: Sequence[float],
        target: Tensor,
        mask: Tensor | None,
        weights: Any,
        synchronize: bool = True,
    ) -> dict[str, Any]:
        """target (3, H, W) uint8, mask (H, W) uint8, on the rows' device; weights: PhotometricLoss.


        Returns the means l1, mse, ssim of this view, dL/dgain and dL/dbias of its exposure, and the entries; on a GPU
        those of a step or two before unless synchronize is set, for then the GPU is waited for.
        """
        rows = (self.params, self.sh_rest, self.count, degree, background)
        return self.rasterizer.step(camera, *rows, target, mask, weights, self.optimizer, synchronize=synchronize)


def allocate_rows(rows: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Zeros (rows, width) float32 that start at a cache line."""
    flat = torch.zeros(rows * width + 16, device=device)
    skip = -(flat.data_ptr() // 4) % 16
    return flat[skip : skip + rows * width].view(rows, width)


def photometric_loss(
    rgb: Tensor, target: Tensor, weights: Any, mask: Tensor | None = None, *, gradient: bool = True
) -> tuple[dict[str, Any], Tensor | None, Tensor]:
    """rgb (3, H, W) float32, target (3, H, W) uint8 -> (means and exposure gradients, dL/drgb, error map (H, W))."""
    rasterizer = create_rasterizer(rgb.device)
    g, error, told = rasterizer.loss(rgb.contiguous(), target.contiguous(), mask, weights, gradient=gradient)
    return told if isinstance(told, dict) else splatting_cuda.loss_means(told, rgb.numel()), g, error


def profile(params: Tensor, sh_rest: Tensor, camera: Camera, degree: int) -> dict[str, float]:
    """Seconds of each stage of one forward and backward pass on the CPU; how many (tile, gaussian) `entries` there
    were, and how many pixel-gaussian pairs (`lanes`) compositing evaluated."""
    state, rasterizer, (rgb, transmittance, _) = native.State(), camera.native, allocate_images(camera, params.device)
    g, g_params, g_sh = torch.ones_like(rgb), torch.empty_like(params), torch.empty_like(sh_rest)
    for _ in range(2):  # the first round grows the buffers
        state.take_seconds()
        native.forward(
            state, rasterizer, params, sh_rest, len(params), degree, (0.0, 0.0, 0.0), rgb, transmittance, None
        )
        native.backward(state, params, sh_rest, rgb, transmittance, None, g, None, None, g_params, g_sh, None)
    return {**state.take_seconds(), "entries": state.entries, "lanes": state.lanes}
