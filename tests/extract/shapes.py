"""Analytic fields: surfaces of a signed distance function, sphere-traced in float64, with colours by formula."""

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
    distance: Tensor = p.norm(dim=-1) - 0.8
    return distance


def torus(p: Tensor) -> Tensor:
    ring: Tensor = torch.stack([p[..., :2].norm(dim=-1) - 0.7, p[..., 2]], -1)
    distance: Tensor = ring.norm(dim=-1) - 0.28
    return distance


def box(p: Tensor) -> Tensor:
    q = p.abs() - torch.tensor([0.7, 0.5, 0.4], dtype=p.dtype)
    distance: Tensor = q.clamp(min=0).norm(dim=-1) + q.amax(-1).clamp(max=0)
    return distance


def colour_at(p: Tensor) -> Tensor:
    """Colours (..., 3) of 0..1 at points (..., 3), different everywhere."""
    x, y, z = p.unbind(-1)
    red = 0.5 + 0.35 * (7 * x).sin() * (6 * y + z).cos()
    green = 0.5 + 0.3 * (5 * z + 4 * y).sin()
    blue = 0.5 + 0.36 * (6 * x - 5 * z).cos()
    return torch.stack([red, green, blue], -1)


@dataclass(frozen=True)
class Solid:
    """Field of an opaque surface: alpha is 1 at a hit, and the depth is exact."""

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
        ray_batch = generate_rays(camera, torch.zeros(len(pixels), dtype=torch.int64), pixels)
        middle = -(ray_batch.origins * ray_batch.directions).sum(1)  # all shapes are inside the unit ball
        across = ray_batch.origins.square().sum(1) - middle.square()
        t = torch.where(across < 1, middle - (1 - across).clamp(min=0).sqrt(), 9.0)
        active = (across < 1).nonzero()[:, 0]
        while len(active):
            d = self.distance(ray_batch.origins[active] + t[active, None] * ray_batch.directions[active])
            t[active] += d
            active = active[(d > 1e-5) & (t[active] < middle[active] + 1)]
        p = ray_batch.origins + t[:, None] * ray_batch.directions
        hit = self.distance(p).abs() < 2e-5
        z = t * (ray_batch.directions @ camera.forwards[0])
        rgb, depth = torch.where(hit[:, None], colour_at(p), 0.0), torch.where(hit, z, 0.0)
        shape = (height, width, -1)
        return rgb.float().view(shape), hit.float().view(shape), depth.float().view(shape)

    def state(self) -> dict[str, Tensor]:
        return {}


def orbit(count: int, pixels: int, radius: float = 3.0, lowest: float = -0.9, seed: int = 0) -> Cameras:
    """Place cameras evenly on a sphere, from height `lowest` upwards, all facing its centre."""
    i = torch.arange(count, dtype=torch.float64)
    up = lowest + (0.9 - lowest) * (i + 0.5) / count
    angle = i * 2.399963 + seed
    across = (1 - up * up).sqrt()
    eyes = radius * torch.stack([across * angle.cos(), across * angle.sin(), up], 1)
    poses = look_at(eyes, torch.zeros(3, dtype=torch.float64), torch.tensor([0.0, 0, 1], dtype=torch.float64)).float()
    full = torch.ones(count, 2)
    return Cameras(poses, full * pixels * 1.1, full * pixels / 2, (full * pixels).long())
