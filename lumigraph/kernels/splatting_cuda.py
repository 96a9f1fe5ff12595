"""Splatting one view on a GPU: the order in which its kernels run, and the memory that they leave for each other.

    project_splats     rows -> records on the screen, how many tiles each touches, the bits of its depth
    radix_pass         gaussians by depth: four passes over 32 bits
    list_entries       a (tile, gaussian) pair for each touch, in that order; radix_pass by tile keeps it
    composite_tiles    a block of threads a tile; its backward adds ten sums a gaussian by atomics
    project_splats_*   sums -> gradient rows, or straight into Adam

A step is recorded when it is first done and then done again as it was recorded, with another camera and photo, until
the number of gaussians or the size of the picture changes: Python then costs a few microseconds a kernel.

Nothing waits for the GPU while training: how many entries there are is only known there, so their lists have room for
more than the last steps needed, and a step whose lists were too short learns nothing and is told of. Sums of floats by
atomics are in no fixed order: unlike on a CPU, two runs differ in their last bits.
"""

from __future__ import annotations

import ctypes
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import log
from typing import Any

import torch
from torch import Tensor

from lumigraph.kernels.cuda import THREADS, Argument, Launch, Launcher

TILE, PART, DIGITS = 16, 2048, 256  # as in screen.h and sort_cuda.cu
RECORD, SUM_ROW = 16, 12  # floats
ENTRIES_EACH, FEWEST_ENTRIES = 4, 1 << 16  # that there is room for to begin with
AHEAD = 2  # steps that may be under way when a new one begins
NO_DEPTH, EXPECTED, MEDIAN = 0, 1, 2


@dataclass
class Optimizer:
    """Adam's settings and its moments, rows like those of `params` and `sh_rest`."""

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

    def packed(self) -> bytes:
        settings = (self.lr_sh, self.beta1, self.beta2, self.epsilon, self.max_logit, log(self.beta1), log(self.beta2))
        rows = (self.m, self.v, self.sh_m, self.sh_v, self.score)
        return struct.pack("@23f5P", *self.lr, *settings, *(row.data_ptr() for row in rows))


def blocks(n: int, size: int = THREADS) -> int:
    return max(1, -(-n // size))


class Rasterizer:
    """One view at a time: `forward`, then `backward`; or `step`, which is all of a training step."""

    def __init__(self, launcher: Launcher, device: torch.device) -> None:
        self._prepare, self._device = launcher.prepare, device
        self._held: dict[str, Tensor] = {}
        told = torch.zeros(88, dtype=torch.uint8, device=device)  # nine sums and four counts, to be copied at once
        self._told, self._sums, self._counts = told, told[:72].view(torch.float64), told[72:].view(torch.int32)
        self._room = 0  # entries
        self._tape: list[Launch] | None = None  # of a step that is being recorded, or can be done again
        self._recorded: tuple[object, ...] = ()
        self._under_way: deque[tuple[torch.Event | None, Tensor, int]] = deque()
        self._size = (0, 0)
        self._last: dict[str, Any] | None = None
        # what a recorded step finds changed: struct Camera, the colour behind, photo, mask, LossWeights, AdamRows
        self._camera, self._behind = ctypes.create_string_buffer(92), [ctypes.c_float() for _ in range(3)]
        self._photo, self._mask = ctypes.c_void_p(), ctypes.c_void_p()
        self._weights, self._adam = ctypes.create_string_buffer(32), ctypes.create_string_buffer(136)

    def _launch(self, kernel: str, grid: int | tuple[int, int, int], *arguments: Argument) -> None:
        self._do(self._prepare(kernel, grid, *arguments))

    def _zero(self, memory: Tensor) -> None:
        self._do(memory.zero_)

    def _do(self, work: Callable[[], Any]) -> None:
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
        """rgb (3, H, W), transmittance and depth (H, W) are written. exact: wait until it is known that the lists had
        room, and make room."""
        self._tape = None
        self._see(camera, background)
        self._render(params, sh_rest, count, degree, rgb, transmittance, depth, median, exact)

    def _see(self, camera: Any, background: Any) -> None:
        self._camera.raw, self._pose = camera.packed, camera
        self._width, self._height = camera.size
        self._tiles_x = blocks(self._width, TILE)
        self._tiles = self._tiles_x * blocks(self._height, TILE)
        for held, value in zip(self._behind, background, strict=True):
            held.value = float(value)

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
        self._list()
        while exact and (entries := int(self._counts[0])) > self._room:
            self._room = entries + entries // 4
            self._list()
        self._sort_entries()
        kind = NO_DEPTH if depth is None else MEDIAN if median else EXPECTED
        planes = (*self._behind, rgb, transmittance, depth, kind)
        self._launch("composite_tiles", self._tiles, *self._lists(), *planes)

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
        """Gradients of what `forward` left; out_camera (3, 4) float64: of the camera from the world, or None."""
        splats, sums = self._held["splats"], self._held["sums"]
        images = (rgb, transmittance, depth if g_depth is not None else None, g_rgb, g_transmittance, g_depth)
        self._launch("composite_tiles_backward", self._tiles, *self._lists(), *images, sums)
        camera = None if out_camera is None else torch.zeros(15, dtype=torch.float64, device=self._device)
        rows = (params, sh_rest, splats, sums, int(g_depth is not None), out_params, out_sh, camera)
        self._launch("project_splats_backward", blocks(self._count), self._camera, self._count, self._degree, *rows)
        if out_camera is not None and camera is not None:
            out_camera.copy_(self._pose_gradient(camera))

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
        weights: Any,
        optimizer: Optimizer,
        synchronize: bool = False,
    ) -> dict[str, Any]:
        """A step of training. What it returns is of an earlier step, `AHEAD` at most, unless asked for synchronize:
        nobody
        waits for the GPU."""
        width, height = camera.size
        self._see(camera, background)
        self._photo.value, self._mask.value = target.data_ptr(), None if mask is None else mask.data_ptr()
        self._weights.raw, self._adam.raw = packed(weights), optimizer.packed()
        key = (count, degree, width, height, self._room, weights.ssim > 0, params.data_ptr(), sh_rest.data_ptr())
        if self._tape is not None and key == self._recorded:
            for launch in self._tape:
                launch()
        else:
            if self._size != (width, height):  # how many entries there are is anybody's guess: wait and see
                planes = self._hold("rgb", 3, height, width), self._hold("transmittance", height, width)
                self._tape = None
                self._render(params, sh_rest, count, degree, *planes, None, median=False, exact=True)
                self._size = (width, height)
                key = (*key[:4], self._room, *key[5:])
            self._tape, self._recorded = [], key
            self._whole_step(params, sh_rest, count, degree)
        return self._tell(3 * width * height, synchronize)

    def _whole_step(self, params: Tensor, sh_rest: Tensor, count: int, degree: int) -> None:
        width, height = self._width, self._height
        rgb, transmittance = self._hold("rgb", 3, height, width), self._hold("transmittance", height, width)
        self._render(params, sh_rest, count, degree, rgb, transmittance, None, median=False, exact=False)
        structural = struct.unpack_from("@f", self._weights)[0] > 0
        gradient, error = self._loss(rgb, self._photo, self._mask, structural, gradient=True)
        lists, sums = self._lists(), self._held["sums"]
        self._launch(
            "composite_tiles_backward", self._tiles, *lists, rgb, transmittance, None, gradient, None, error, sums
        )
        rows = (params, sh_rest, self._held["splats"], sums, self._counts, self._adam)
        self._launch("project_splats_adam", blocks(count), self._camera, count, degree, *rows)

    def loss(
        self, rgb: Tensor, target: Tensor, mask: Tensor | None, weights: Any, *, gradient: bool
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """(dL/drgb, error map (H, W), nine sums that `loss_means` makes a dictionary of)."""
        self._tape = None
        self._weights.raw = packed(weights)
        g, error = self._loss(rgb, target, mask, weights.ssim > 0 or not gradient, gradient=gradient)
        return g, error, self._sums

    def _loss(
        self, rgb: Tensor, target: Argument, mask: Argument, structural: bool, *, gradient: bool
    ) -> tuple[Tensor | None, Tensor]:
        height, width = rgb.shape[1:]
        partial, error = self._hold("partial", 9, height, width), self._hold("error", height, width)
        g = self._hold("gradient", 3, height, width) if gradient else None
        self._zero(self._sums)
        across, down = blocks(width, 32), blocks(height, 32)
        given = (width, height, rgb, target, mask, self._weights, partial)
        if structural:
            self._launch("similarity_maps", (across, down, 3), *given, self._sums)
        self._launch("loss_gradient", (across, down, 1), *given, g, error, self._sums)
        return g, error

    # ---- parts of them

    def _hold(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Memory that stays; it grows by a quarter more than is asked for."""
        size = 1
        for n in shape:
            size *= n
        held = self._held.get(name + ".all")
        if held is None or len(held) < size:
            held = torch.empty(size + size // 4, dtype=dtype, device=self._device)
            self._held[name + ".all"] = held
        self._held[name] = held[:size].view(shape)
        return self._held[name]

    def _words(self, name: str, n: int) -> Tensor:
        return self._hold(name, max(n, 1), dtype=torch.int32)

    def _project(self, params: Tensor, sh_rest: Tensor, count: int, degree: int) -> None:
        self._count, self._degree = count, degree
        splats, sums = self._hold("splats", max(count, 1), RECORD), self._hold("sums", max(count, 1), SUM_ROW)
        keys, ids = self._words("keys", count), self._words("ids", count)
        rows = (params, sh_rest, splats, sums, keys, ids, self._counts)
        self._launch("project_splats", blocks(count), self._camera, count, degree, *rows)
        self._order = self._sort("", self._counts[2:], keys, ids, 32)[1]

    def _list(self) -> None:
        self._room = max(self._room, ENTRIES_EACH * self._count, FEWEST_ENTRIES)
        keys, ids = self._words("entry_keys", self._room), self._words("entry_ids", self._room)
        parts = blocks(self._count)
        status = self._words("list_status", parts + 1)
        self._zero(status)
        place = (self._width, self._height, self._tiles_x, self._order, self._held["splats"])
        self._launch("list_entries", parts, *place, status[1:], status, self._counts, self._room, keys, ids)

    def _sort_entries(self) -> None:
        start = self._words("start", self._tiles + 1)
        keys, ids = self._held["entry_keys"], self._held["entry_ids"]
        bits = max(1, (self._tiles - 1).bit_length())
        keys, self._entries = self._sort("entry_", self._counts[1:], keys, ids, bits)
        self._launch("tile_ranges", min(1024, blocks(self._room)), self._counts, keys, self._tiles, start)

    def _sort(self, name: str, n: Tensor, keys: Tensor, ids: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """n (1,) of them, in a stable order of their lowest `bits`."""
        passes, parts = -(-bits // 8), blocks(len(keys), PART)
        words = self._words(name + "status", passes * (DIGITS + 1 + parts * DIGITS))
        self._zero(words)
        histograms, tickets = words[: passes * DIGITS], words[passes * DIGITS : passes * (DIGITS + 1)]
        status = words[passes * (DIGITS + 1) :]
        self._launch("radix_histogram", min(512, blocks(len(keys), PART)), n, keys, histograms, passes)
        others = self._words(name + "keys_swap", len(keys)), self._words(name + "ids_swap", len(keys))
        pair = keys, ids
        for i in range(passes):
            lists = (*pair, *others, histograms[i * DIGITS :], status[i * parts * DIGITS :], tickets[i:], 8 * i)
            self._launch("radix_pass", parts, n, *lists)
            pair, others = others, pair
        return pair

    def _lists(self) -> tuple[int, int, int, Tensor, Tensor, Tensor]:
        held = self._held
        return self._width, self._height, self._tiles_x, held["start"], self._entries, held["splats"]

    def _pose_gradient(self, sums: Tensor) -> Tensor:
        """dL/d(camera from world) from dL/dR, dL/dt and dL/dposition, where position = -R' t."""
        pose = self._pose.world_to_cam.detach().to(sums)
        dR, dt, at = sums[:9].view(3, 3), sums[9:12], sums[12:]
        return torch.cat([dR - pose[:, 3:] * at, (dt - pose[:, :3] @ at)[:, None]], 1)

    def _tell(self, values: int, synchronize: bool) -> dict[str, Any]:
        event = None
        if self._told.is_cuda:
            kept = torch.empty(88, dtype=torch.uint8, pin_memory=True)
            kept.copy_(self._told, non_blocking=True)
            event = torch.Event(device=self._device)
            event.record()
        else:
            kept = self._told.clone()
        self._under_way.append((event, kept, values))
        ahead = 0 if synchronize or self._last is None else AHEAD
        while len(self._under_way) > ahead:
            event, told, values = self._under_way.popleft()
            if event is not None:
                event.synchronize()
            entries = int(told[72:].view(torch.int32)[0])
            self._last = {**loss_means(told[:72].view(torch.float64), values), "entries": entries}
            if entries > self._room:
                self._room = entries + entries // 2
        assert self._last is not None
        return self._last


def packed(weights: Any) -> bytes:
    """`struct LossWeights` of loss_cuda.cu."""
    return struct.pack("@8f", weights.ssim, weights.square, *weights.gain, *weights.bias)


def loss_means(sums: Tensor, values: int) -> dict[str, Any]:
    """Of a picture of so many values (channels count)."""
    s: list[float] = sums.tolist()
    return {"l1": s[0] / values, "mse": s[1] / values, "ssim": s[2] / values, "gain": s[3:6], "bias": s[6:9]}
