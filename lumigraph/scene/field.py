"""Protocols of a method: a renderable field and its training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from lumigraph.scene.assets import Splats
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.images import Image


@dataclass(frozen=True)
class Bounds:
    """The bounds of a number in a method's Config: `Annotated[int, Bounds(1, 8)]`."""

    low: float = -math.inf
    high: float = math.inf


class Field(Protocol):
    """A scene that renders from any camera.

    Optional: `render_surface(cameras) -> Image`, as `render` over black, but with median depth: the depth at which half
    of the light is absorbed, 0 if it never is. Expected depth floats between the surfaces along a ray.
    """

    @property
    def box(self) -> Tensor:
        """(2, 3) smallest and largest corner of the content, in world units."""
        ...

    def render(self, cameras: Cameras, background: Tensor | None = None) -> Image:
        """Render (N, H, W, .) images for `cameras`, all of one size.

        With `background` (3,), rgb is composited over it; with None it is over black, which is premultiplied. `alpha`,
        if present, is the coverage in both cases. `depth` is the expected distance along z.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Tensors to load the field again, ready for safetensors."""
        ...


@runtime_checkable
class HasSplats(Protocol):
    """A field of gaussians."""

    def splats(self) -> Splats:
        """The gaussians in file order."""
        ...

    def with_splats(self, splats: Splats) -> Field:
        """A field that renders other gaussians in the same way."""
        ...

    def reference(self) -> Field:
        """A field that renders the same gaussians with the slow reference implementation."""
        ...


class Training(Protocol):
    """A field in training. Optional: `notes`, sentences about automatic choices, reported at the start."""

    @property
    def field(self) -> Field: ...

    def step(self, i: int, progress: float) -> dict[str, float]:
        """Run one training step and return numbers such as the `loss`.

        `i` counts from 0 over the whole run. `progress` is the share of the budget spent, 0..1. Every schedule depends
        on it, so a run is at its best when its budget ends. If the loss is not finite, the step must change nothing:
        training ends with the last good state.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """The field and all tensors to resume exactly."""
        ...
