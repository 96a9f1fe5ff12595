"""Colour maps of renders: rgb, depth, normals or coverage as 8-bit images."""

from __future__ import annotations

from typing import Literal

import cv2
import torch
from torch import Tensor

from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import RunError
from lumigraph.scene.images import Image, to_uint8
from lumigraph.scene.surface import normals_from_depth

MIN_DEPTH_COVERAGE = 0.5  # pixels below it have no depth

Output = Literal["rgb", "depth", "normal", "alpha"]


class OutputVisualizer:
    """Visualize the renders of one scene.

    Near depth is bright. The first depth image sets the scale: a scale for each image would flicker. Normals are
    (n + 1) / 2 in world axes. Both are black where the scene is empty.
    """

    def __init__(self) -> None:
        self.nearness: tuple[float, float] | None = None  # 1 / depth of the darkest and brightest values

    def __call__(self, image: Image, camera: Cameras, output: Output) -> Tensor:
        """Convert a batch of one `image` (1, H, W, .), rendered from `camera`, to uint8 (H, W, 3) on the CPU.

        Raises RunError if the image lacks the requested output.
        """
        if output == "rgb":
            return to_uint8(image.rgb[0]).cpu()
        plane = image.alpha if output == "alpha" else image.depth
        if plane is None:
            raise RunError(f"this run's method does not render {'depth' if output == 'normal' else output}")
        if output == "alpha":
            return to_uint8(plane[0].expand(-1, -1, 3)).cpu()
        solid = (torch.ones_like(plane) if image.alpha is None else image.alpha)[0] > MIN_DEPTH_COVERAGE
        if output == "normal":
            return to_uint8((normals_from_depth(plane, camera)[0] + 1) / 2 * solid).cpu()
        nearness = 1 / plane[0].clamp(min=1e-6)
        low, high = self.nearness = self.nearness or _range(nearness[solid])
        intensity = ((nearness - low) / (high - low)).clamp(0, 1) * solid
        bgr = cv2.applyColorMap(to_uint8(intensity).cpu().numpy(), cv2.COLORMAP_TURBO)
        return torch.from_numpy(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)) * solid.cpu()


def _range(values: Tensor) -> tuple[float, float]:
    """The 1st and 99th percentile."""
    if not len(values):
        return 0.0, 1.0
    sorted_values = values.sort().values
    low, high = float(sorted_values[len(sorted_values) // 100]), float(sorted_values[-1 - len(sorted_values) // 100])
    return low, high if high > low else low + 1.0
