"""A method that learns in milliseconds: the colour of a pixel depends on its direction alone, as a polynomial of it.

What a distant sky would be. It stands in for real methods wherever the studio does not care what is learned.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lumigraph.methods.train import Budget
from lumigraph.scene.assets import Splats
from lumigraph.scene.cameras import Cameras, generate_rays, pixel_grid
from lumigraph.scene.capture import Capture
from lumigraph.scene.images import Image, composite_over

NAME = "tiny"


@dataclass(frozen=True)
class Config:
    """Settings of the tiny method.

    rate: size of a step
    degree: of the polynomial
    tint: added to every colour,
        for no reason
    """

    rate: float = 0.1
    degree: Literal[1, 2] = 2
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pause: float = 0.0
    label: str | None = None
    loud: bool = False


class TinyField:
    box = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights  # (10, 3)

    def colours(self, directions: Tensor) -> Tensor:
        x, y, z = directions.unbind(-1)
        basis = torch.stack([torch.ones_like(x), x, y, z, x * y, y * z, z * x, x * x, y * y, z * z], dim=-1)
        return basis @ self.weights

    def render(self, cameras: Cameras, background: Tensor | None = None) -> Image:
        width, height = cameras.size(0)
        pixels = pixel_grid((width, height)).reshape(-1, 2)
        pictures = [
            self.colours(generate_rays(camera, torch.zeros(len(pixels), dtype=torch.int64), pixels).directions)
            for camera in cameras
        ]
        return Image(torch.stack(pictures).reshape(len(cameras), height, width, 3))

    def state(self) -> dict[str, Tensor]:
        return {"weights": self.weights}

    def splats(self) -> Splats:
        n = 12
        means = torch.nn.functional.normalize(torch.randn(n, 3, generator=torch.Generator().manual_seed(0)), dim=1)
        quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4).contiguous()
        return Splats(means, torch.zeros(n, 3), quats, torch.linspace(-6, 6, n), torch.zeros(n, 1, 3))


class TinyTraining:
    def __init__(self, capture: Capture, config: Config, weights: Tensor, momentum: Tensor) -> None:
        self.field = TinyField(weights)
        self._capture, self._config, self._momentum = capture, config, momentum

    def step(self, i: int, progress: float) -> dict[str, float]:
        which = i % len(self._capture)
        camera = self._capture.cameras[which]
        photo = composite_over(self._capture.photo(which), torch.ones(3))
        weights = self.field.weights.requires_grad_()
        with torch.enable_grad():
            loss = (self.field.render(camera).rgb[0] - photo).square().mean()
            (gradient,) = torch.autograd.grad(loss, weights)
        self._momentum = 0.9 * self._momentum + gradient
        self.field.weights = (weights - self._config.rate * self._momentum).detach()
        time.sleep(self._config.pause)
        return {"loss": loss.item()}

    def state(self) -> dict[str, Tensor]:
        return {"weights": self.field.weights, "momentum": self._momentum}


def start(capture: Capture, config: Config, budget: Budget, device: str = "cpu") -> TinyTraining:
    return TinyTraining(capture, config, torch.zeros(10, 3), torch.zeros(10, 3))


def resume(
    capture: Capture, config: Config, state: dict[str, Tensor], budget: Budget, device: str = "cpu"
) -> TinyTraining:
    return TinyTraining(capture, config, state["weights"], state["momentum"])


def load(state: dict[str, Tensor]) -> TinyField:
    return TinyField(state["weights"])
