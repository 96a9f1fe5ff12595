"""Metrics computed by the benchmarks, against closed forms and loops."""

import math

import numpy as np
import pytest
import torch

from benchmarks import kernels, poses, surfaces
from benchmarks.scenes import blob
from lumigraph.captures.sample import handheld_orbit
from lumigraph.kernels.reference import splatting as reference
from lumigraph.scene.cameras import Cameras, project
from lumigraph.scene.capture import ArrayPhotos, Capture
from lumigraph.scene.poses import Similarity, look_at, matrix_from_quaternion


def test_contributing_pairs_match_loop_over_pixels() -> None:
    scene = blob(150, (45, 37), degree=0, seed=3, radius=14)
    scene = scene._replace(logit_opacities=scene.logit_opacities * 3)
    projected = reference.project(*scene[:-1])
    pairs = 0
    for pixel in [(x + 0.5, y + 0.5) for y in range(37) for x in range(45)]:
        transmittance = 1.0
        for i in torch.argsort(projected.depths, stable=True).tolist():
            dx, dy = (torch.tensor(pixel) - projected.means[i]).tolist()
            a, b, c = projected.conics[i].tolist()
            alpha = projected.opacities[i].item() * math.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
            if alpha >= 1 / 255 and transmittance > reference.MIN_TRANSMITTANCE:
                pairs += 1
                transmittance *= 1 - min(alpha, 0.99)
    assert kernels.contributing_pairs(scene) == pytest.approx(
        pairs, rel=1e-3
    )  # float32 against float64 at the cut-offs


def capture(world_from_cam: torch.Tensor) -> Capture:
    n = len(world_from_cam)
    sizes = torch.full((n, 2), 4)
    cameras = Cameras(world_from_cam, sizes.double(), sizes.double() / 2, sizes)
    photos = ArrayPhotos([torch.zeros(4, 4, 3, dtype=torch.uint8)] * n)
    return Capture(cameras, photos, tuple(f"{i}.png" for i in range(n)), torch.zeros(n, dtype=torch.bool))


def inwards(eyes: torch.Tensor) -> torch.Tensor:
    """Poses (N, 3, 4) at the eyes (N, 3) that face the origin."""
    return torch.stack([look_at(eye, torch.zeros(3).double(), torch.tensor([0.1, 0.2, 1.0]).double()) for eye in eyes])


def test_pose_errors_ignore_similarity() -> None:
    """The same cameras in another world have no error, all or some of them; a tilt of 0.1 rad is measured."""
    truth = inwards(torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3)
    rotation = matrix_from_quaternion(torch.tensor([0.3, -0.5, 0.2, 0.8], dtype=torch.float64))
    similarity = Similarity(2.5, rotation, torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
    transformed_poses = similarity.transform_poses(truth)
    for estimate in (transformed_poses, transformed_poses[:7]):
        same = poses.pose_errors(capture(estimate), capture(truth))
        assert same == {"rotation_degrees": 0.0, "rotation_degrees_max": 0.0, "position_percent": 0.0}

    tilt = matrix_from_quaternion(torch.tensor([math.cos(0.05), math.sin(0.05), 0, 0], dtype=torch.float64))
    tilted_poses = transformed_poses.clone()
    tilted_poses[:3, :, :3] = tilted_poses[:3, :, :3] @ tilt
    degrees = poses.pose_errors(capture(tilted_poses), capture(truth))
    assert degrees["rotation_degrees_max"] == pytest.approx(math.degrees(0.1), abs=1e-3)
    assert degrees["rotation_degrees"] == pytest.approx(math.degrees(0.1) / 3, abs=1e-3)


def test_pose_errors_position_relative_to_camera_box() -> None:
    """Cube corners, half moved outwards and half inwards by a hundredth of its diagonal: not a similarity."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    truth = inwards(corners)
    deformed_poses = truth.clone()
    deformed_poses[:, :, 3] *= 1 + 0.02 * corners.prod(dim=1, keepdim=True)
    assert poses.pose_errors(capture(deformed_poses), capture(truth))["position_percent"] == pytest.approx(1, abs=1e-3)


def test_chamfer_of_shifted_half_plane() -> None:
    x, y = np.meshgrid(np.linspace(0, 3, 1201), np.linspace(0, 4, 1601))
    truth = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1)
    cloud = truth[truth[:, 1] < 2] + [0, 0, 0.02]  # 4 per mille of the diagonal, which is 5
    metrics = surfaces.chamfer(cloud, truth)
    assert metrics["accuracy"] == pytest.approx(4.0, abs=0.05)
    assert 4.0 < float(str(metrics["completeness"])) < 4.5  # slightly more at the edge of the missing half
    assert metrics["missed"] == pytest.approx(0.475, abs=0.01)  # points within 20 per mille of the cloud are not missed
    assert metrics["astray"] == 0


def test_true_points_of_sample_are_in_its_photos() -> None:
    cameras = handheld_orbit(4, (64, 48), 0)
    points = torch.from_numpy(surfaces.reference_points(cameras))
    assert len(points) > 200
    for i in range(4):
        own = torch.from_numpy(surfaces.reference_points(cameras[i]))
        pixels, depth = project(cameras[i], own)
        assert (depth > 0.5).all() and ((pixels >= 0) & (pixels <= torch.tensor([64, 48]))).all()
    assert points[:, 2].min() > -0.01  # no point is below the table
