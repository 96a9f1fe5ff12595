"""Splatting of one view on a GPU: the sequence of kernels and the buffers that they share.

    project_splats     rows -> projected splats: tiles touched, bits of the depth
    radix_pass         splats by depth: four passes over 32 bits
    bin_tiles          one (tile, splat) intersection per touched tile, in depth order; radix_pass sorts them by tile
    composite_tiles    one block of threads a tile; its backward adds ten sums a splat by atomics
    project_splats_*   sums -> gradient rows, or directly into Adam

The first training step records its launches. Later steps replay them with another camera and photo, at a few
microseconds of Python a kernel, until the number of gaussians or the image size changes.

Training does not wait for the GPU. The number of tile intersections is known only there, so buffers have room for more
than recent steps needed. A step that overflows its buffers updates nothing and is reported. Float sums by atomics have
no fixed order: unlike on a CPU, two runs differ in their last bits.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import log, prod
from typing import Any

import torch
from torch import Tensor

from lumigraph.kernels.cuda import THREADS_PER_BLOCK, Argument, Launch, Launcher

TILE_SIDE, SORT_CHUNK, RADIX_DIGITS = 16, 2048, 256  # pixels, keys, buckets: csrc/screen.h, csrc/sort_cuda.cu
SORT_BITS = 8  # bits of a radix pass
SPLAT_FLOATS, ACCUMULATION_FLOATS = 16, 12  # floats of a projected splat and of its accumulation slots
LOSS_TILE_SIDE_PX = 32
INITIAL_INTERSECTIONS_PER_SPLAT, MIN_INTERSECTIONS = 4, 1 << 16  # initial buffer size
MAX_PENDING_STEPS = 2
MAX_RANGE_BLOCKS, MAX_HISTOGRAM_BLOCKS = 1024, 512
POSE_SUMS = 15  # dL/dR (9), dL/dt (3), dL/dposition (3)
NO_DEPTH, EXPECTED_DEPTH, MEDIAN_DEPTH = 0, 1, 2
LOSS_SUM_BYTES, COUNT_BYTES = 72, 16  # nine float64 sums and four int32 counts, copied to the host together


class CameraStruct(ctypes.Structure):
    """`struct Camera` of csrc/gaussian.h."""

    _fields_ = [
        ("R", ctypes.c_float * 9),
        ("t", ctypes.c_float * 3),
        ("position", ctypes.c_float * 3),
        ("fx", ctypes.c_float),
        ("fy", ctypes.c_float),
        ("cx", ctypes.c_float),
        ("cy", ctypes.c_float),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("near", ctypes.c_float),
        ("antialiased", ctypes.c_bool),
    ]


class LossWeightsStruct(ctypes.Structure):
    """`struct LossWeights` of csrc/loss_cuda.cu."""

    _fields_ = [
        ("ssim_weight", ctypes.c_float),
        ("mse_weight", ctypes.c_float),
        ("gain", ctypes.c_float * 3),
        ("bias", ctypes.c_float * 3),
    ]


class AdamRowsStruct(ctypes.Structure):
    """`struct AdamRows` of csrc/project_cuda.cu."""

    _fields_ = [
        ("lr", ctypes.c_float * 16),
        ("lr_sh", ctypes.c_float),
        ("beta1", ctypes.c_float),
        ("beta2", ctypes.c_float),
        ("epsilon", ctypes.c_float),
        ("max_logit", ctypes.c_float),
        ("log_beta1", ctypes.c_float),
        ("log_beta2", ctypes.c_float),
        ("m", ctypes.c_void_p),
        ("v", ctypes.c_void_p),
        ("sh_m", ctypes.c_void_p),
        ("sh_v", ctypes.c_void_p),
        ("score", ctypes.c_void_p),
    ]


@dataclass
class Optimizer:
    """Settings of Adam and its moments, in rows as those of `params` and `sh_rest`."""

    m: Tensor
    v: Tensor
    sh_m: Tensor
    sh_v: Tensor
    score: Tensor
    lr: list[float] = field(default_factory=lambda: [0.0] * 16)
    lr_sh: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-15
    max_logit: float = 1e9

    def c_struct(self) -> AdamRowsStruct:
        settings = (self.lr_sh, self.beta1, self.beta2, self.epsilon, self.max_logit, log(self.beta1), log(self.beta2))
        rows = (self.m, self.v, self.sh_m, self.sh_v, self.score)
        return AdamRowsStruct(tuple(self.lr), *settings, *(row.data_ptr() for row in rows))


def block_count(n: int, size: int = THREADS_PER_BLOCK) -> int:
    """Return the blocks of `size` that cover n elements, at least 1."""
    return max(1, -(-n // size))


def overwrite(target: ctypes.Structure, source: ctypes.Structure) -> None:
    """Copy the bytes of a structure into one that recorded launches refer to."""
    ctypes.memmove(ctypes.addressof(target), ctypes.addressof(source), ctypes.sizeof(target))


class Rasterizer:
    """Rasterizer of one view at a time: `forward`, then `backward`; or `step`, a complete training step."""

    def __init__(self, launcher: Launcher, device: torch.device) -> None:
        self._prepare, self._device = launcher.prepare, device
        self._buffers: dict[str, Tensor] = {}
        results = torch.zeros(LOSS_SUM_BYTES + COUNT_BYTES, dtype=torch.uint8, device=device)
        self._results, self._sums = results, results[:LOSS_SUM_BYTES].view(torch.float64)
        self._counts = results[LOSS_SUM_BYTES:].view(torch.int32)
        self._capacity = 0  # tile intersections
        self._tape: list[Launch] | None = None  # launches of the recorded step
        self._tape_key: tuple[object, ...] = ()
        self._pending: deque[tuple[torch.Event | None, Tensor, int]] = deque()
        self._size = (0, 0)
        self._last_metrics: dict[str, Any] | None = None
        # arguments that change between replays of a recorded step
        self._camera, self._background = CameraStruct(), [ctypes.c_float() for _ in range(3)]
        self._photo, self._mask = ctypes.c_void_p(), ctypes.c_void_p()
        self._loss_weights, self._adam = LossWeightsStruct(), AdamRowsStruct()

    def _launch(self, kernel: str, grid: int | tuple[int, int, int], *arguments: Argument) -> None:
        self._run(self._prepare(kernel, grid, *arguments))

    def _zero(self, memory: Tensor) -> None:
        self._run(memory.zero_)

    def _run(self, work: Callable[[], Any]) -> None:
        """Run `work` and record it if a tape is open."""
        work()
        if self._tape is not None:
            self._tape.append(work)

    def forward(
        self,
        camera: Any,
        params: Tensor,
        sh_rest: Tensor,
        count: int,
        degree: int,
        background: Any,
        rgb: Tensor,
        transmittance: Tensor,
        depth: Tensor | None,
        median: bool = False,
        exact: bool = True,
    ) -> None:
        """Render into rgb (3, H, W), transmittance (H, W) and depth (H, W) or None.

        exact: wait for the number of tile intersections, and grow the buffers if they are too small.
        """
        self._tape = None
        self._set_view(camera, background)
        self._render(params, sh_rest, count, degree, rgb, transmittance, depth, median, exact)

    def _set_view(self, camera: Any, background: Any) -> None:
        overwrite(self._camera, camera.c_struct)
        self._python_camera = camera
        self._width, self._height = camera.size
        self._tiles_x = block_count(self._width, TILE_SIDE)
        self._tiles = self._tiles_x * block_count(self._height, TILE_SIDE)
        for channel, value in zip(self._background, background, strict=True):
            channel.value = float(value)

    def _render(
        self,
        params: Tensor,
        sh_rest: Tensor,
        count: int,
        degree: int,
        rgb: Tensor,
        transmittance: Tensor,
        depth: Tensor | None,
        median: bool,
        exact: bool,
    ) -> None:
        self._project(params, sh_rest, count, degree)
        self._bin_tiles()
        while exact and (intersections := int(self._counts[0])) > self._capacity:
            self._capacity = intersections + intersections // 4
            self._bin_tiles()
        self._sort_intersections()
        depth_mode = NO_DEPTH if depth is None else MEDIAN_DEPTH if median else EXPECTED_DEPTH
        images = (*self._background, rgb, transmittance, depth, depth_mode)
        self._launch("composite_tiles", self._tiles, *self._tile_lists(), *images)

    def backward(
        self,
        params: Tensor,
        sh_rest: Tensor,
        rgb: Tensor,
        transmittance: Tensor,
        depth: Tensor | None,
        g_rgb: Tensor,
        g_transmittance: Tensor | None,
        g_depth: Tensor | None,
        out_params: Tensor,
        out_sh: Tensor,
        out_camera: Tensor | None,
    ) -> None:
        """Write the gradients of the last `forward`. out_camera: (3, 4) float64, dL/dworld_to_cam, or None."""
        splats, sums = self._buffers["splats"], self._buffers["sums"]
        images = (rgb, transmittance, depth if g_depth is not None else None, g_rgb, g_transmittance, g_depth)
        self._launch("composite_tiles_backward", self._tiles, *self._tile_lists(), *images, sums)
        pose_sums = None if out_camera is None else torch.zeros(POSE_SUMS, dtype=torch.float64, device=self._device)
        rows = (params, sh_rest, splats, sums, int(g_depth is not None), out_params, out_sh, pose_sums)
        blocks = block_count(self._count)
        self._launch("project_splats_backward", blocks, self._camera, self._count, self._degree, *rows)
        if out_camera is not None and pose_sums is not None:
            out_camera.copy_(self._pose_gradient(pose_sums))

    def step(
        self,
        camera: Any,
        params: Tensor,
        sh_rest: Tensor,
        count: int,
        degree: int,
        background: Any,
        target: Tensor,
        mask: Tensor | None,
        loss: Any,
        optimizer: Optimizer,
        synchronize: bool = False,
    ) -> dict[str, Any]:
        """Run a training step. The result belongs to a step at most MAX_PENDING_STEPS before, unless `synchronize`."""
        width, height = camera.size
        self._set_view(camera, background)
        self._photo.value, self._mask.value = target.data_ptr(), None if mask is None else mask.data_ptr()
        overwrite(self._loss_weights, loss_struct(loss))
        overwrite(self._adam, optimizer.c_struct())
        has_ssim = self._loss_weights.ssim_weight > 0
        key = (count, degree, width, height, self._capacity, has_ssim, params.data_ptr(), sh_rest.data_ptr())
        if self._tape is not None and key == self._tape_key:
            for launch in self._tape:
                launch()
        else:
            if self._size != (width, height):  # the number of tile intersections is unknown: wait for it
                images = self._buffer("rgb", 3, height, width), self._buffer("transmittance", height, width)
                self._tape = None
                self._render(params, sh_rest, count, degree, *images, None, median=False, exact=True)
                self._size = (width, height)
                key = (*key[:4], self._capacity, *key[5:])
            self._tape, self._tape_key = [], key
            self._record_step(params, sh_rest, count, degree)
        return self._collect_metrics(3 * width * height, synchronize)

    def _record_step(self, params: Tensor, sh_rest: Tensor, count: int, degree: int) -> None:
        width, height = self._width, self._height
        rgb, transmittance = self._buffer("rgb", 3, height, width), self._buffer("transmittance", height, width)
        self._render(params, sh_rest, count, degree, rgb, transmittance, None, median=False, exact=False)
        has_ssim = self._loss_weights.ssim_weight > 0
        gradient, error = self._loss(rgb, self._photo, self._mask, has_ssim, gradient=True)
        sums = self._buffers["sums"]
        images = (rgb, transmittance, None, gradient, None, error)
        self._launch("composite_tiles_backward", self._tiles, *self._tile_lists(), *images, sums)
        rows = (params, sh_rest, self._buffers["splats"], sums, self._counts, self._adam)
        self._launch("project_splats_adam", block_count(count), self._camera, count, degree, *rows)

    def loss(
        self, rgb: Tensor, target: Tensor, mask: Tensor | None, loss: Any, *, gradient: bool
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return dL/drgb, the error map (H, W), and nine sums for `loss_means`."""
        self._tape = None
        overwrite(self._loss_weights, loss_struct(loss))
        has_ssim = self._loss_weights.ssim_weight > 0 or not gradient
        g_rgb, error = self._loss(rgb, target, mask, has_ssim, gradient=gradient)
        return g_rgb, error, self._sums

    def _loss(
        self, rgb: Tensor, target: Argument, mask: Argument, has_ssim: bool, *, gradient: bool
    ) -> tuple[Tensor | None, Tensor]:
        height, width = rgb.shape[1:]
        partial, error = self._buffer("partial", 9, height, width), self._buffer("error", height, width)
        g_rgb = self._buffer("gradient", 3, height, width) if gradient else None
        self._zero(self._sums)
        columns, rows = block_count(width, LOSS_TILE_SIDE_PX), block_count(height, LOSS_TILE_SIDE_PX)
        inputs = (width, height, rgb, target, mask, self._loss_weights, partial)
        if has_ssim:
            self._launch("similarity_maps", (columns, rows, 3), *inputs, self._sums)
        self._launch("loss_gradient", (columns, rows, 1), *inputs, g_rgb, error, self._sums)
        return g_rgb, error

    # ---- stages

    def _buffer(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a persistent buffer of this shape. It grows by a quarter more than requested."""
        size = prod(shape)
        memory = self._buffers.get(name + ".all")
        if memory is None or len(memory) < size:
            memory = torch.empty(size + size // 4, dtype=dtype, device=self._device)
            self._buffers[name + ".all"] = memory
        self._buffers[name] = memory[:size].view(shape)
        return self._buffers[name]

    def _int_buffer(self, name: str, n: int) -> Tensor:
        return self._buffer(name, max(n, 1), dtype=torch.int32)

    def _project(self, params: Tensor, sh_rest: Tensor, count: int, degree: int) -> None:
        self._count, self._degree = count, degree
        splats = self._buffer("splats", max(count, 1), SPLAT_FLOATS)
        sums = self._buffer("sums", max(count, 1), ACCUMULATION_FLOATS)
        keys, ids = self._int_buffer("keys", count), self._int_buffer("ids", count)
        rows = (params, sh_rest, splats, sums, keys, ids, self._counts)
        self._launch("project_splats", block_count(count), self._camera, count, degree, *rows)
        self._depth_order = self._sort("", self._counts[2:], keys, ids, 32)[1]

    def _bin_tiles(self) -> None:
        self._capacity = max(self._capacity, INITIAL_INTERSECTIONS_PER_SPLAT * self._count, MIN_INTERSECTIONS)
        keys = self._int_buffer("intersection_keys", self._capacity)
        ids = self._int_buffer("intersection_ids", self._capacity)
        blocks = block_count(self._count)
        status = self._int_buffer("bin_status", blocks + 1)
        self._zero(status)
        inputs = (self._width, self._height, self._tiles_x, self._depth_order, self._buffers["splats"])
        self._launch("bin_tiles", blocks, *inputs, status[1:], status, self._counts, self._capacity, keys, ids)

    def _sort_intersections(self) -> None:
        start = self._int_buffer("start", self._tiles + 1)
        keys, ids = self._buffers["intersection_keys"], self._buffers["intersection_ids"]
        bits = max(1, (self._tiles - 1).bit_length())
        keys, self._intersections = self._sort("intersection_", self._counts[1:], keys, ids, bits)
        blocks = min(MAX_RANGE_BLOCKS, block_count(self._capacity))
        self._launch("tile_ranges", blocks, self._counts, keys, self._tiles, start)

    def _sort(self, name: str, n: Tensor, keys: Tensor, ids: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Sort the first n (1,) keys and their ids stably by the lowest `bits`."""
        passes, chunks = -(-bits // SORT_BITS), block_count(len(keys), SORT_CHUNK)
        scratch = self._int_buffer(name + "status", passes * (RADIX_DIGITS + 1 + chunks * RADIX_DIGITS))
        self._zero(scratch)
        histograms = scratch[: passes * RADIX_DIGITS]
        tickets = scratch[passes * RADIX_DIGITS : passes * (RADIX_DIGITS + 1)]
        status = scratch[passes * (RADIX_DIGITS + 1) :]
        blocks = min(MAX_HISTOGRAM_BLOCKS, chunks)
        self._launch("radix_histogram", blocks, n, keys, histograms, passes)
        source = keys, ids
        target = self._int_buffer(name + "keys_swap", len(keys)), self._int_buffer(name + "ids_swap", len(keys))
        for i in range(passes):
            counters = (histograms[i * RADIX_DIGITS :], status[i * chunks * RADIX_DIGITS :], tickets[i:])
            self._launch("radix_pass", chunks, n, *source, *target, *counters, SORT_BITS * i)
            source, target = target, source
        return source

    def _tile_lists(self) -> tuple[int, int, int, Tensor, Tensor, Tensor]:
        start, splats = self._buffers["start"], self._buffers["splats"]
        return self._width, self._height, self._tiles_x, start, self._intersections, splats

    def _pose_gradient(self, sums: Tensor) -> Tensor:
        """Return dL/dworld_to_cam (3, 4) from dL/dR, dL/dt and dL/dposition, where position = -R' t."""
        pose = self._python_camera.world_to_cam.detach().to(sums)
        dR, dt, dposition = sums[:9].view(3, 3), sums[9:12], sums[12:]
        return torch.cat([dR - pose[:, 3:] * dposition, (dt - pose[:, :3] @ dposition)[:, None]], 1)

    def _collect_metrics(self, values: int, synchronize: bool) -> dict[str, Any]:
        event = None
        if self._results.is_cuda:
            host_results = torch.empty(LOSS_SUM_BYTES + COUNT_BYTES, dtype=torch.uint8, pin_memory=True)
            host_results.copy_(self._results, non_blocking=True)
            event = torch.Event(device=self._device)
            event.record()
        else:
            host_results = self._results.clone()
        self._pending.append((event, host_results, values))
        max_pending = 0 if synchronize or self._last_metrics is None else MAX_PENDING_STEPS
        while len(self._pending) > max_pending:
            event, results, values = self._pending.popleft()
            if event is not None:
                event.synchronize()
            intersections = int(results[LOSS_SUM_BYTES:].view(torch.int32)[0])
            means = loss_means(results[:LOSS_SUM_BYTES].view(torch.float64), values)
            self._last_metrics = {**means, "tile_intersections": intersections}
            if intersections > self._capacity:
                self._capacity = intersections + intersections // 2
        assert self._last_metrics is not None
        return self._last_metrics


def loss_struct(loss: Any) -> LossWeightsStruct:
    """Convert a PhotometricLoss."""
    return LossWeightsStruct(loss.ssim, loss.square, tuple(loss.gain), tuple(loss.bias))


def loss_means(sums: Tensor, values: int) -> dict[str, Any]:
    """Divide the nine loss sums of an image by its number of values (pixels x channels)."""
    s: list[float] = sums.tolist()
    return {"l1": s[0] / values, "mse": s[1] / values, "ssim": s[2] / values, "gain": s[3:6], "bias": s[6:9]}
