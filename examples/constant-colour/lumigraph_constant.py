"""One colour for the whole scene: the smallest possible method."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.methods.train import Budget
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.capture import Capture
from lumigraph.scene.images import Image

NAME = "constant"
DEVICES = ("cpu",)


@dataclass(frozen=True)
class Config:
    """Settings of the constant colour.

    rate: share of the way to the mean of a photo, for each step
    """

    rate: float = 0.1


class Constant:
    def __init__(self, colour: Tensor) -> None:
        self.colour = colour

    @property
    def box(self) -> Tensor:
        return torch.tensor([[-1.0, -1, -1], [1, 1, 1]])

    def render(self, cameras: Cameras, background: Tensor | None = None) -> Image:
        width, height = cameras.size(0)
        return Image(self.colour.expand(len(cameras), height, width, 3))

    def state(self) -> dict[str, Tensor]:
        return {"colour": self.colour}


class ConstantTraining:
    def __init__(self, capture: Capture, config: Config, field: Constant) -> None:
        self.capture, self.config, self.field = capture, config, field

    def step(self, i: int, progress: float) -> dict[str, float]:
        photo = self.capture.photo(i % len(self.capture))[..., :3].float().mean((0, 1)) / 255
        error = photo - self.field.colour
        self.field.colour = self.field.colour + self.config.rate * error
        return {"loss": error.abs().mean().item()}

    def state(self) -> dict[str, Tensor]:
        return self.field.state()


def start(capture: Capture, config: Config, budget: Budget, device: str = "cpu") -> ConstantTraining:
    return ConstantTraining(capture, config, Constant(torch.zeros(3)))


def resume(
    capture: Capture, config: Config, state: dict[str, Tensor], budget: Budget, device: str = "cpu"
) -> ConstantTraining:
    return ConstantTraining(capture, config, load(state))


def load(state: dict[str, Tensor]) -> Constant:
    return Constant(state["colour"])
