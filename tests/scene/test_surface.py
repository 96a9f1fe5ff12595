"""Depth images of shapes whose points and normals are known."""

from __future__ import annotations

import torch

from lumigraph.scene.cameras import Cameras, project
from lumigraph.scene.poses import look_at
from lumigraph.scene.surface import normals_from_depth, unproject_depth
from tests.methods.scene import ball


def camera() -> Cameras:
    eye = torch.tensor([1.0, -2.0, 1.5], dtype=torch.float64)
    pose = look_at(eye, torch.zeros(3, dtype=torch.float64), torch.tensor([0.0, 0, 1], dtype=torch.float64))
    wide = torch.tensor([[40.0, 42.0]], dtype=torch.float64)
    return Cameras(pose[None], wide, torch.tensor([[15.0, 11.0]]).double(), torch.tensor([[32, 24]]))


def test_points_project_back_onto_their_pixels() -> None:
    depth = 1 + torch.rand(1, 24, 32, 1, dtype=torch.float64)
    points = unproject_depth(depth, camera())
    pixels, z = project(camera(), points.reshape(-1, 3))
    torch.testing.assert_close(z[0], depth.flatten())
    torch.testing.assert_close(pixels[0, 33], torch.tensor([1.5, 1.5], dtype=torch.float64))


def test_the_normals_of_a_plane_are_its_own_up_to_the_border() -> None:
    cameras = camera()
    normal = torch.nn.functional.normalize(torch.tensor([0.2, -0.5, 0.8], dtype=torch.float64), dim=0)
    ones = unproject_depth(torch.ones(1, 24, 32, 1, dtype=torch.float64), cameras)
    o = cameras.positions[0]
    t = -(o @ normal) / ((ones - o) @ normal)  # where rays meet the plane through the world's origin
    found = normals_from_depth(t[..., None], cameras)
    assert (found @ normal).min() > 1 - 1e-9


def test_normals_of_a_ball_point_away_from_its_middle() -> None:
    capture = ball(4, 96)
    cameras = capture.cameras[0]
    ones = unproject_depth(torch.ones(1, 96, 96, 1), cameras)
    o, d = cameras.positions[0], torch.nn.functional.normalize(ones - cameras.positions[0], dim=-1)
    along = -(o * d).sum(-1)
    off = 1 - (o + along[..., None] * d).square().sum(-1)
    t = along - off.clamp(min=0).sqrt()
    depth = (t * (d @ cameras.forwards[0]))[..., None]
    inner = off > 0.3
    points = o + t[..., None] * d
    assert (normals_from_depth(depth, cameras) * points).sum(-1)[inner].min() > 0.99
