"""Splatting one view on the CPU: the compiled stages, behind the same words as splat_cuda.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lumigraph.kernels.native import native

Optimizer = native.Optimizer


class Rasterizer:
    """One view at a time: `forward`, then `backward`; or `step`, which is all of a training step."""

    def __init__(self) -> None:
        self.state = native.State()

    def forward(self, camera: Any, *rows_and_planes: Any, median: bool = False) -> None:
        native.forward(self.state, camera.native, *rows_and_planes, median=median)

    def backward(self, *rows_and_planes: Any) -> None:
        native.backward(self.state, *rows_and_planes)

    def step(self, camera: Any, *rows_and_photo: Any, synchronize: bool = False) -> dict[str, Any]:
        told: dict[str, Any] = native.step(self.state, camera.native, *rows_and_photo)
        return told

    def loss(
        self, rgb: Tensor, target: Tensor, mask: Tensor | None, weights: Any, *, gradient: bool
    ) -> tuple[Tensor | None, Tensor, dict[str, Any]]:
        height, width = rgb.shape[1:]
        g, error = torch.empty_like(rgb) if gradient else None, torch.empty(height, width)
        return g, error, native.loss(rgb, target, mask, width, height, weights, g, error)
