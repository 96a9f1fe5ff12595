"""A capture small enough to learn in seconds: a coloured ball, cut out, whose pictures are computed exactly."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lumigraph.scene.cameras import Cameras, generate_rays, pixel_grid
from lumigraph.scene.capture import ArrayPhotos, Capture
from lumigraph.scene.poses import look_at


def ball(
    views: int = 40, side: int = 24, *, alpha: bool = True, centre: tuple[float, float, float] = (0, 0, 0)
) -> Capture:
    """`views` photos from all around of a ball of radius 1 whose colour is (n + 1) / 2 of its normal n."""
    middle = torch.tensor(centre, dtype=torch.float64)
    poses = []
    for k in range(views):
        turn, height = 2 * math.pi * k / views, 1.5 * math.sin(2.4 * k)
        eye = middle + torch.tensor([4 * math.cos(turn), 4 * math.sin(turn), height], dtype=torch.float64)
        poses.append(look_at(eye, middle, torch.tensor([0.0, 0, 1], dtype=torch.float64)))
    focal, half = 1.4 * side, side / 2
    cameras = Cameras(
        torch.stack(poses).float(),
        torch.full((views, 2), focal),
        torch.full((views, 2), half),
        torch.full((views, 2), side),
    )
    photos = [picture(cameras, i, middle.float(), alpha) for i in range(views)]
    held_out = torch.zeros(views, dtype=torch.bool)
    held_out[::4] = True
    return Capture(cameras, ArrayPhotos(photos), tuple(f"{i:02d}.png" for i in range(views)), held_out, has_alpha=alpha)


def picture(cameras: Cameras, i: int, middle: Tensor, alpha: bool) -> Tensor:
    """uint8 (H, W, 4 | 3); without alpha, before a grey wall."""
    width, height = cameras.size(i)
    beams = generate_rays(cameras, torch.full((width * height,), i), pixel_grid((width, height)).flatten(0, 1))
    o = beams.origins - middle
    along = -(o * beams.directions).sum(1)
    off = (o + along[:, None] * beams.directions).square().sum(1)
    hit = off < 1
    normal = o + (along - (1 - off).clamp(min=0).sqrt())[:, None] * beams.directions
    rgb = torch.where(hit[:, None], (normal + 1) / 2, torch.full_like(normal, 0.0 if alpha else 0.5))
    planes = torch.cat([rgb, hit[:, None].float()], 1) if alpha else rgb
    return (planes.clamp(0, 1) * 255 + 0.5).to(torch.uint8).view(height, width, -1)
