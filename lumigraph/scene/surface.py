"""Surface points and normals from depth images."""

from __future__ import annotations

import torch
from torch import Tensor

from lumigraph.scene.cameras import Cameras, pixel_grid


def unproject_depth(depth: Tensor, cameras: Cameras) -> Tensor:
    """(N, H, W, 1) depth along z of pinhole cameras of one size -> (N, H, W, 3) points in the world."""
    grid = pixel_grid(cameras.size(0), depth.dtype).to(depth.device)
    flat = (grid - cameras.centre[:, None, None].to(depth)) / cameras.focal[:, None, None].to(depth)
    in_cam = torch.cat([flat, torch.ones_like(flat[..., :1])], -1) * depth
    pose = cameras.world_from_cam.to(depth)
    return in_cam @ pose[:, None, :, :3].transpose(-1, -2) + pose[:, None, None, :, 3]


def normals_from_depth(depth: Tensor, cameras: Cameras) -> Tensor:
    """(N, H, W, 1) depth -> (N, H, W, 3) unit normals in the world, towards the camera.

    Normals come from differences of neighbouring points. Along each image axis the smaller of the two counts, so that
    depth edges stay sharp.
    """
    points = unproject_depth(depth, cameras)
    normals = torch.linalg.cross(_difference(points, 1), _difference(points, 2), dim=-1)
    normals = torch.nn.functional.normalize(normals, dim=-1)
    towards = cameras.positions.to(depth)[:, None, None] - points
    return torch.where((normals * towards).sum(-1, keepdim=True) < 0, -normals, normals)


def _difference(points: Tensor, axis: int) -> Tensor:
    """The shorter step to a neighbour along `axis`, at each pixel; the only one at the border."""
    step = points.diff(dim=axis)
    if step.shape[axis] == 0:
        return torch.zeros_like(points)
    ahead = torch.cat([step, step.narrow(axis, step.shape[axis] - 1, 1)], axis)
    behind = torch.cat([step.narrow(axis, 0, 1), step], axis)
    shorter = ahead.square().sum(-1, keepdim=True) < behind.square().sum(-1, keepdim=True)
    return torch.where(shorter, ahead, behind)
