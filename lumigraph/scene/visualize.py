"""What a field renders, as pictures that a person can look at: colours, depth, normals or coverage."""

from __future__ import annotations

from typing import Literal

import cv2
import torch
from torch import Tensor

from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import RunError
from lumigraph.scene.images import Image, to_uint8
from lumigraph.scene.surface import normals_from_depth

SOLID = 0.5  # coverage from which on a pixel has a depth

Output = Literal["rgb", "depth", "normal", "alpha"]


class OutputVisualizer:
    """Pictures of one scene, one after another.

    Depth is bright where it is near, on a scale that the first picture of it sets: a scale of each picture's own would
    flicker. Normals are (n + 1) / 2 in the world's axes. Both are black where there is nothing.
    """

    def __init__(self) -> None:
        self.nearness: tuple[float, float] | None = None  # 1 / depth of what is darkest and brightest

    def __call__(self, image: Image, camera: Cameras, output: Output) -> Tensor:
        """The first of a batch `image` (1, H, W, .), rendered by the one `camera` -> uint8 (H, W, 3) on the CPU.

        Raises RunError where the image lacks what is asked for.
        """
        if output == "rgb":
            return to_uint8(image.rgb[0]).cpu()
        plane = image.alpha if output == "alpha" else image.depth
        if plane is None:
            raise RunError(f"this run's method does not render {'depth' if output == 'normal' else output}")
        if output == "alpha":
            return to_uint8(plane[0].expand(-1, -1, 3)).cpu()
        solid = (torch.ones_like(plane) if image.alpha is None else image.alpha)[0] > SOLID
        if output == "normal":
            return to_uint8((normals_from_depth(plane, camera)[0] + 1) / 2 * solid).cpu()
        nearness = 1 / plane[0].clamp(min=1e-6)
        low, high = self.nearness = self.nearness or _range(nearness[solid])
        shown = ((nearness - low) / (high - low)).clamp(0, 1) * solid
        coloured = cv2.applyColorMap(to_uint8(shown).cpu().numpy(), cv2.COLORMAP_TURBO)
        return torch.from_numpy(cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB)) * solid.cpu()


def _range(values: Tensor) -> tuple[float, float]:
    """The values between which all but the outermost hundredths lie."""
    if not len(values):
        return 0.0, 1.0
    kept = values.sort().values
    low, high = float(kept[len(kept) // 100]), float(kept[-1 - len(kept) // 100])
    return low, high if high > low else low + 1.0
