"""Splatting of one view on the CPU by compiled stages, with the interface of splatting_cuda.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lumigraph.kernels.native import native

Optimizer = native.Optimizer


class Rasterizer:
    """Rasterizer of one view at a time: `forward`, then `backward`; or `step`, a complete training step."""

    def __init__(self) -> None:
        self.state = native.State()

    def forward(self, camera: Any, *rows_and_images: Any, median: bool = False) -> None:
        native.forward(self.state, camera.native, *rows_and_images, median=median)

    def backward(self, *rows_and_images: Any) -> None:
        native.backward(self.state, *rows_and_images)

    def step(self, camera: Any, *rows_and_photo: Any, synchronize: bool = False) -> dict[str, Any]:
        metrics: dict[str, Any] = native.step(self.state, camera.native, *rows_and_photo)
        return metrics

    def loss(
        self, rgb: Tensor, target: Tensor, mask: Tensor | None, loss: Any, *, gradient: bool
    ) -> tuple[Tensor | None, Tensor, dict[str, Any]]:
        """Return dL/drgb, the error map (H, W), and the metrics."""
        height, width = rgb.shape[1:]
        g_rgb, error = torch.empty_like(rgb) if gradient else None, torch.empty(height, width)
        return g_rgb, error, native.loss(rgb, target, mask, width, height, loss, g_rgb, error)
