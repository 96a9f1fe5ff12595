"""Differentiable Gaussian splatting and the fused training step, on the CPU or a GPU.

A gaussian is one row of `params` (N, 16) float32, a cache line: 0-2 mean, 3-5 log scale, 6-9 quaternion (w, x, y, z;
any length), 10 logit opacity, 11-13 SH DC, 14 its number of Adam steps, 15 unused. `sh_rest` (N, 48) holds the 15
higher SH coefficients x RGB, coefficient-major, and 3 of padding. Colour = max(0, 0.5 + sum_k SH_k Y_k(direction)).

Formulas: csrc/gaussian.h. Specification: reference/splatting.py. CPU results do not depend on the number of threads.
GPU results differ between runs in their last bits.
"""

import ctypes
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
CACHE_LINE_FLOATS = 16

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
        """The camera for CPU kernels. Raises ValueError if its focal length or size is invalid."""
        return native.Camera(self._rows, *self.focal, *self.centre, *self.size, self.near, self.antialiased)

    @cached_property
    def c_struct(self) -> ctypes.Structure:
        """The camera for CUDA kernels. Raises ValueError as `native` does."""
        assert self.native is not None  # validates the camera
        pose = torch.tensor(self._rows).view(3, 4)
        position = -pose[:, :3].T @ pose[:, 3]
        extrinsics = (tuple(pose[:, :3].flatten().tolist()), tuple(pose[:, 3].tolist()), tuple(position.tolist()))
        return splatting_cuda.CameraStruct(
            *extrinsics, *self.focal, *self.centre, *self.size, self.near, self.antialiased
        )

    @cached_property
    def _rows(self) -> list[float]:
        rows: list[float] = self.world_to_cam.detach().to(torch.float32).reshape(12).tolist()
        return rows


def create_rasterizer(device: torch.device) -> splatting_cpu.Rasterizer | splatting_cuda.Rasterizer:
    """Create a rasterizer for rows on this device. Raises CudaError if the device cannot run kernels."""
    if device.type == "cpu":
        return splatting_cpu.Rasterizer()
    device = torch.empty(0, device=device).device  # resolves "cuda" to an index
    return splatting_cuda.Rasterizer(cuda.get_launcher(device), device)


_thread_cache = threading.local()


def cached_rasterizer(device: torch.device) -> splatting_cpu.Rasterizer | splatting_cuda.Rasterizer:
    """Return a rasterizer for images without gradients.

    On a GPU it is reused by later calls of this thread with its memory: allocation would take longer than rendering.
    """
    if device.type == "cpu":
        return create_rasterizer(device)
    rasterizers: dict[torch.device, splatting_cpu.Rasterizer | splatting_cuda.Rasterizer]
    rasterizers = _thread_cache.__dict__.setdefault("rasterizers", {})
    if device not in rasterizers:
        rasterizers[device] = create_rasterizer(device)
    return rasterizers[device]


class _Render(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, params: Tensor, sh_rest: Tensor, world_to_cam: Tensor, background: Tensor, camera: Camera, degree: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        rasterizer = (create_rasterizer if any(ctx.needs_input_grad) else cached_rasterizer)(params.device)
        rgb, transmittance, depth = allocate_images(camera, params.device)
        rows = (params.detach(), sh_rest.detach(), len(params), degree)
        rasterizer.forward(camera, *rows, background.detach().float().tolist(), rgb, transmittance, depth)
        ctx.rasterizer, ctx.background_device = rasterizer, background.device
        ctx.save_for_backward(params, sh_rest, rgb, transmittance, depth, world_to_cam)
        return rgb, depth, transmittance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        params, sh_rest, rgb, transmittance, depth, world_to_cam = ctx.saved_tensors
        g_rgb, g_depth, g_transmittance = (g.contiguous() for g in gradients)
        g_params, g_sh = torch.empty_like(params), torch.empty_like(sh_rest)
        needs_camera_grad, needs_background_grad = ctx.needs_input_grad[2:4]
        g_camera = torch.empty(3, 4, dtype=torch.float64, device=params.device) if needs_camera_grad else None
        rows_and_images = (params.detach(), sh_rest.detach(), rgb, transmittance, depth)
        ctx.rasterizer.backward(*rows_and_images, g_rgb, g_transmittance, g_depth, g_params, g_sh, g_camera)
        g_background = (g_rgb * transmittance).sum((1, 2)).to(ctx.background_device) if needs_background_grad else None
        g_world_to_cam = g_camera.to(world_to_cam) if g_camera is not None else None
        return g_params, g_sh, g_world_to_cam, g_background, None, None


def check_rows(params: Tensor, sh_rest: Tensor) -> None:
    """Raise ValueError unless the rows are float32, contiguous, on one device, (N, 16) and (N, 48)."""
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
        raise ValueError(f"params are on {params.device} but sh_rest on {sh_rest.device}")
    if len(params) != len(sh_rest):
        raise ValueError(f"{len(params)} rows of params but {len(sh_rest)} of sh_rest")


def render(
    params: Tensor, sh_rest: Tensor, camera: Camera, degree: int, background: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Render one view -> rgb (H, W, 3), depth (H, W) = sum of weight x z, alpha (H, W).

    Differentiable in params, sh_rest, camera.world_to_cam and background. Rows with NaN or infinities are not drawn.

    Args:
        params, sh_rest: (N, 16) and (N, 48) gaussians.
        degree: SH degree, 0 to 3.
        background: (3,) colour, black if None.
    """
    check_rows(params, sh_rest)
    colour = params.new_zeros(3) if background is None else background
    rgb, depth, transmittance = cast(Any, _Render).apply(params, sh_rest, camera.world_to_cam, colour, camera, degree)
    return rgb.permute(1, 2, 0), depth, 1 - transmittance


@torch.no_grad()
def render_surface(
    params: Tensor, sh_rest: Tensor, camera: Camera, degree: int, background: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Render as `render` does, but with median depth. Not differentiable.

    Median depth (H, W) is the z of the gaussian at which transmittance falls to a half, or 0 if it stays above.
    """
    check_rows(params, sh_rest)
    colour = [0.0] * 3 if background is None else background.float().tolist()
    rgb, transmittance, depth = allocate_images(camera, params.device)
    rows = (params, sh_rest, len(params), degree)
    cached_rasterizer(params.device).forward(camera, *rows, colour, rgb, transmittance, depth, median=True)
    return rgb.permute(1, 2, 0), depth, 1 - transmittance


def allocate_images(camera: Camera, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Allocate rgb (3, H, W), transmittance (H, W) and depth (H, W)."""
    width, height = camera.size
    return (
        torch.empty(3, height, width, device=device),
        torch.empty(height, width, device=device),
        torch.empty(height, width, device=device),
    )


class Trainer:
    """Gaussians under optimization and the fused training step: render, loss, backward and Adam in one call.

    `params`, `sh_rest` and their moments `m v sh_m sh_v` have `capacity` rows, of which the first `count` are in use.
    `score` (capacity, 2) accumulates per gaussian, until it is cleared: blending weight x pixel error, and the length
    of dL/d(pixel position).
    """

    def __init__(self, capacity: int, device: torch.device | str = "cpu") -> None:
        self.count, self.device = 0, torch.device(device)
        self.params, self.m, self.v = (allocate_rows(capacity, PARAM_COLUMNS, self.device) for _ in range(3))
        self.sh_rest, self.sh_m, self.sh_v = (allocate_rows(capacity, SH_COLUMNS, self.device) for _ in range(3))
        self.score = torch.zeros(capacity, 2, device=self.device)
        self.rasterizer = create_rasterizer(self.device)
        is_cpu = isinstance(self.rasterizer, splatting_cpu.Rasterizer)
        optimizer_class = splatting_cpu.Optimizer if is_cpu else splatting_cuda.Optimizer
        self.optimizer = optimizer_class(self.m, self.v, self.sh_m, self.sh_v, self.score)

    def step(
        self,
        camera: Camera,
        degree: int,
        background: Sequence[float],
        target: Tensor,
        mask: Tensor | None,
        loss: Any,
        synchronize: bool = True,
    ) -> dict[str, Any]:
        """Train on one view -> means l1, mse, ssim; dL/dgain and dL/dbias of its exposure; tile intersections.

        On a GPU the result belongs to a step or two before, unless `synchronize` makes the call wait for the GPU.

        Args:
            target: (3, H, W) uint8 photo on the device of the rows.
            mask: (H, W) uint8 or None.
            loss: a PhotometricLoss.
        """
        rows = (self.params, self.sh_rest, self.count, degree, background)
        return self.rasterizer.step(camera, *rows, target, mask, loss, self.optimizer, synchronize=synchronize)


def allocate_rows(rows: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Allocate zeros (rows, width) float32, aligned to a cache line."""
    flat = torch.zeros(rows * width + CACHE_LINE_FLOATS, device=device)
    padding = -(flat.data_ptr() // 4) % CACHE_LINE_FLOATS
    return flat[padding : padding + rows * width].view(rows, width)


def photometric_loss(
    rgb: Tensor, target: Tensor, loss: Any, mask: Tensor | None = None, *, gradient: bool = True
) -> tuple[dict[str, Any], Tensor | None, Tensor]:
    """Compute the training loss -> means and exposure gradients, dL/drgb, error map (H, W).

    Args:
        rgb: (3, H, W) float32 render.
        target: (3, H, W) uint8 photo.
        loss: a PhotometricLoss.
        mask: (H, W) uint8 or None.
    """
    rasterizer = create_rasterizer(rgb.device)
    g_rgb, error, sums = rasterizer.loss(rgb.contiguous(), target.contiguous(), mask, loss, gradient=gradient)
    return sums if isinstance(sums, dict) else splatting_cuda.loss_means(sums, rgb.numel()), g_rgb, error


def profile(params: Tensor, sh_rest: Tensor, camera: Camera, degree: int) -> dict[str, float]:
    """Time one forward and backward pass on the CPU -> seconds of each stage, and two counts.

    `tile_intersections`: pairs of tile and gaussian. `evaluated_pairs`: pairs of pixel and gaussian in compositing.
    """
    state, (rgb, transmittance, _) = native.State(), allocate_images(camera, params.device)
    g_rgb, g_params, g_sh = torch.ones_like(rgb), torch.empty_like(params), torch.empty_like(sh_rest)
    images = (rgb, transmittance, None)
    for _ in range(2):  # the first pass grows the buffers
        state.take_seconds()
        native.forward(state, camera.native, params, sh_rest, len(params), degree, (0.0, 0.0, 0.0), *images)
        native.backward(state, params, sh_rest, *images, g_rgb, None, None, g_params, g_sh, None)
    return {**state.take_seconds(), "tile_intersections": state.entries, "evaluated_pairs": state.lanes}
