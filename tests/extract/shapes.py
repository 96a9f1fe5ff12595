"""Fields that are known exactly: surfaces given by a signed distance, traced in float64, painted by a formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.scene.cameras import Cameras, generate_rays, pixel_grid
from lumigraph.scene.images import Image
from lumigraph.scene.poses import look_at

Distance = Callable[[Tensor], Tensor]


def sphere(p: Tensor) -> Tensor:
    return p.norm(dim=-1) - 0.8


def torus(p: Tensor) -> Tensor:
    return torch.stack([p[..., :2].norm(dim=-1) - 0.7, p[..., 2]], -1).norm(dim=-1) - 0.28


def box(p: Tensor) -> Tensor:
    q = p.abs() - torch.tensor([0.7, 0.5, 0.4], dtype=p.dtype)
    return q.clamp(min=0).norm(dim=-1) + q.amax(-1).clamp(max=0)


def paint(p: Tensor) -> Tensor:
    """(..., 3) -> (..., 3) colours 0..1, different everywhere."""
    x, y, z = p.unbind(-1)
    red = 0.5 + 0.35 * (7 * x).sin() * (6 * y + z).cos()
    green = 0.5 + 0.3 * (5 * z + 4 * y).sin()
    blue = 0.5 + 0.36 * (6 * x - 5 * z).cos()
    return torch.stack([red, green, blue], -1)


@dataclass(frozen=True)
class Solid:
    """The field of a surface: alpha is 1 where a ray meets it, the depth exact."""

    distance: Distance
    size: float = 1.0

    @property
    def box(self) -> Tensor:
        return torch.tensor([[-self.size] * 3, [self.size] * 3])

    def render(self, cameras: Cameras, background: Tensor | None = None) -> Image:
        views = [self._view(cameras[i]) for i in range(len(cameras))]
        rgb, alpha, depth = (torch.stack(x) for x in zip(*views, strict=True))
        if background is not None:
            rgb = rgb + (1 - alpha) * background
        return Image(rgb, alpha, depth)

    def _view(self, camera: Cameras) -> tuple[Tensor, Tensor, Tensor]:
        camera = camera.to(dtype=torch.float64)
        width, height = camera.size(0)
        pixels = pixel_grid((width, height), torch.float64).flatten(0, 1)
        beams = generate_rays(camera, torch.zeros(len(pixels), dtype=torch.int64), pixels)
        middle = -(beams.origins * beams.directions).sum(1)  # all shapes lie in the unit ball
        across = beams.origins.square().sum(1) - middle.square()
        t = torch.where(across < 1, middle - (1 - across).clamp(min=0).sqrt(), 9.0)
        alive = (across < 1).nonzero()[:, 0]
        while len(alive):
            d = self.distance(beams.origins[alive] + t[alive, None] * beams.directions[alive])
            t[alive] += d
            alive = alive[(d > 1e-5) & (t[alive] < middle[alive] + 1)]
        p = beams.origins + t[:, None] * beams.directions
        hit = self.distance(p).abs() < 2e-5
        z = t * (beams.directions @ camera.forwards[0])
        rgb, depth = torch.where(hit[:, None], paint(p), 0.0), torch.where(hit, z, 0.0)
        shape = (height, width, -1)
        return rgb.float().view(shape), hit.float().view(shape), depth.float().view(shape)

    def state(self) -> dict[str, Tensor]:
        return {}


def around(count: int, pixels: int, radius: float = 3.0, lowest: float = -0.9, seed: int = 0) -> Cameras:
    """Cameras spread evenly on a ball, from `lowest` of its height up, all looking at its middle."""
    i = torch.arange(count, dtype=torch.float64)
    up = lowest + (0.9 - lowest) * (i + 0.5) / count
    angle = i * 2.399963 + seed
    across = (1 - up * up).sqrt()
    eyes = radius * torch.stack([across * angle.cos(), across * angle.sin(), up], 1)
    poses = look_at(eyes, torch.zeros(3, dtype=torch.float64), torch.tensor([0.0, 0, 1], dtype=torch.float64)).float()
    full = torch.ones(count, 2)
    return Cameras(poses, full * pixels * 1.1, full * pixels / 2, (full * pixels).long())
