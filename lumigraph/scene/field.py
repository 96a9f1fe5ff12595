"""What a method promises: a field that can be seen, and a training that makes it better."""

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
    """Anything that can be seen from a camera.

    It may have `render_surface(cameras) -> Image`: as `render` over black, but depth is that at which half of the light
    is stopped, and 0 where that never happens. An expected depth floats between the surfaces that a ray meets.
    """

    @property
    def box(self) -> Tensor:
        """(2, 3) world units: the smallest and largest corner of what it holds."""
        ...

    def render(self, cameras: Cameras, background: Tensor | None = None) -> Image:
        """(N, H, W, .) what `cameras`, all of one size, see.

        With `background` (3,) the rgb is over it; with None it is over black, which is premultiplied. `alpha`, where
        given, is the coverage in both cases. `depth` is the expected distance along z.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """All that is needed to load it again, ready for safetensors."""
        ...


@runtime_checkable
class HasSplats(Protocol):
    """A field of gaussians."""

    def splats(self) -> Splats:
        """The gaussians as a format writes them."""
        ...

    def with_splats(self, splats: Splats) -> Field:
        """A field that renders other gaussians in the same way."""
        ...

    def reference(self) -> Field:
        """A field that renders the same gaussians by the reference implementation, slowly."""
        ...


class Training(Protocol):
    """A field being learned. It may have `notes`, sentences about what was chosen, to be told when it begins."""

    @property
    def field(self) -> Field: ...

    def step(self, i: int, progress: float) -> dict[str, float]:
        """Learn once; `i` counts from 0 over the whole run, `progress` is the share of the budget spent, 0..1: every
        schedule hangs on it, so that a run is at its best when its budget ends. Returns numbers such as the `loss`;
        where that is not finite, nothing may have changed: training ends with what was good."""
        ...

    def state(self) -> dict[str, Tensor]:
        """The field and what else is needed to go on as if never stopped."""
        ...
