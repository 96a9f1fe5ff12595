"""Gaussians as the reference implementation renders them: plain torch, float64, without the compiled kernels.

The image is split into tiles, and a tile into smaller ones, until its pairs of gaussian and pixel fit into memory. A
gaussian that reaches no pixel of a tile is left out of that tile. The image stays the same: pairs below ALPHA_MIN are
not drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lumigraph.kernels.reference import splatting as reference
from lumigraph.scene.assets import Splats
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.images import Image

PAIRS = 1 << 21  # of gaussian and pixel in a tile: 16 MB an intermediate of float64
BATCH = 1 << 16  # gaussians projected at once
SLACK = 1.001  # of a gaussian's reach, for rounding


class ReferenceField:
    """A field that is rendered slowly and by the letter of kernels/reference/splatting.py."""

    def __init__(self, splats: Splats, antialiased: bool = False) -> None:
        self._splats, self.antialiased = splats, antialiased

    @property
    def box(self) -> Tensor:
        return self._splats.bounds() if len(self._splats) else torch.zeros(2, 3)

    def splats(self) -> Splats:
        return self._splats

    def state(self) -> dict[str, Tensor]:
        s = self._splats
        parts = {name: getattr(s, name) for name in ("means", "log_scales", "quats", "logit_opacities", "sh")}
        return {**parts, "antialiased": torch.tensor(self.antialiased)}

    @torch.no_grad()
    def render(self, cameras: Cameras, background: Tensor | None = None) -> Image:
        if cameras.lens != "pinhole":
            raise ValueError("splats are rendered through pinhole cameras")
        views = [self._view(cameras, i, background) for i in range(len(cameras))]
        rgb, depth, transmittance = (torch.stack(planes).float() for planes in zip(*views, strict=True))
        alpha = 1 - transmittance
        return Image(rgb, alpha[..., None], (depth / alpha.clamp(min=1e-6))[..., None])

    def _view(self, cameras: Cameras, i: int, background: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """rgb (H, W, 3), depth (H, W), transmittance (H, W) of camera i."""
        width, height = cameras.size(i)
        projection = self._project(cameras, i)
        behind = torch.zeros(3).to(projection.means) if background is None else background.to(projection.means)
        planes = (
            projection.means.new_empty(height, width, 3),
            projection.means.new_empty(height, width),
            projection.means.new_empty(height, width),
        )
        boxes = _boxes(projection)
        tiles = [(0, 0, width, height, torch.arange(len(boxes), device=boxes.device))]
        while tiles:
            x, y, w, h, indices = tiles.pop()
            left, top, right, bottom = boxes[indices].unbind(1)
            indices = indices[(right > x) & (left < x + w) & (bottom > y) & (top < y + h)]
            if len(indices) * w * h > PAIRS and max(w, h) > 1:
                a, b = (w + 1) // 2, (h + 1) // 2
                if w >= h:
                    tiles += [(x, y, a, h, indices), (x + a, y, w - a, h, indices)]
                else:
                    tiles += [(x, y, w, b, indices), (x, y + b, w, h - b, indices)]
                continue
            part = reference.Projected(*(values[indices] for values in projection))
            part = part._replace(means=part.means - torch.tensor([x, y]).to(part.means))
            for plane, values in zip(planes, reference.composite(part, (w, h), behind), strict=True):
                plane[y : y + h, x : x + w] = values
        return planes

    def _project(self, cameras: Cameras, i: int) -> reference.Projected:
        fx, fy = cameras.focal[i].tolist()
        cx, cy = cameras.centre[i].tolist()
        device = self._splats.means.device
        world_to_cam = cameras[i].cam_from_world[0].to(device, torch.float64)
        parts = []
        for first in range(0, max(1, len(self._splats)), BATCH):
            s = self._splats.select(torch.arange(first, min(first + BATCH, len(self._splats)), device=device))
            part = reference.project(
                s.means.double(),
                s.log_scales.double(),
                s.quats.double(),
                s.logit_opacities.double(),
                s.sh.double(),
                world_to_cam,
                (fx, fy),
                (cx, cy),
                cameras.size(i),
                antialiased=self.antialiased,
            )
            parts.append(part._replace(indices=part.indices + first))
        return reference.Projected(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _boxes(projection: reference.Projected) -> Tensor:
    """(M, 4) left, top, right, bottom in pixels: where alpha can reach ALPHA_MIN; empty where it cannot."""
    a, b, c = projection.conics.unbind(-1)
    reach = 2 * (projection.opacities / reference.ALPHA_MIN).log()
    det = a * c - b * b
    half = (reach.clamp(min=0)[:, None] * torch.stack([c / det, a / det], 1)).sqrt() * SLACK
    half = torch.where((reach >= 0)[:, None], half.nan_to_num(torch.inf, torch.inf), -torch.inf)
    return torch.cat([projection.means - half, projection.means + half], 1)
