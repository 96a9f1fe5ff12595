"""Cameras that are a little wrong find back, by gradients that differences confirm."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from lumigraph.kernels import splat as kernel
from lumigraph.methods import pose_refinement, splat
from lumigraph.methods.pose_refinement import PoseCorrections
from lumigraph.methods.train import Budget
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import RunError
from tests.methods.scene import ball


def disturbed(capture: Capture, degrees: float, shift: float) -> Capture:
    """All cameras turned and moved at random, by as much as said in the mean square."""
    random = torch.Generator().manual_seed(5)
    n = len(capture)
    turns = torch.randn(n, 3, generator=random, dtype=torch.float64) * math.radians(degrees) / math.sqrt(3)
    moves = torch.randn(n, 3, generator=random, dtype=torch.float64) * shift / math.sqrt(3)
    poses = capture.cameras.world_from_cam.double().clone()
    for i in range(n):
        poses[i, :, :3] = torch.linalg.matrix_exp(pose_refinement.skew(turns[i])) @ poses[i, :, :3]
    poses[:, :, 3] += moves
    cameras = dataclasses.replace(capture.cameras, world_from_cam=poses.to(capture.cameras.world_from_cam))
    return dataclasses.replace(capture, cameras=cameras)


def test_a_correction_descends_to_the_pose_that_is_wanted() -> None:
    random = torch.Generator().manual_seed(0)
    given = torch.eye(3, 4, dtype=torch.float64)[None].clone()
    given[0, :, 3] = torch.tensor([0.3, -0.2, 2.0])
    twist = torch.tensor([0.02, -0.01, 0.015], dtype=torch.float64)
    wanted = torch.linalg.matrix_exp(pose_refinement.skew(twist)) @ given[0]
    wanted[:, 3] += torch.tensor([0.01, 0.02, -0.01])
    corrections = PoseCorrections(given, extent=1.0)
    scale = 1 + torch.rand(3, 4, generator=random, dtype=torch.float64)
    for i in range(800):
        difference = corrections.cam_from_world(0) - wanted
        corrections.descend(0, difference * scale, pose_refinement.START + i / 1000)
    left = (corrections.cam_from_world(0) - wanted).norm() / (given[0] - wanted).norm()
    assert left < 0.1


def test_a_gradient_that_is_no_number_changes_nothing() -> None:
    corrections = PoseCorrections(torch.eye(3, 4)[None], extent=1.0)
    corrections.descend(0, torch.full((3, 4), torch.nan), 0.5)
    assert torch.equal(corrections.cam_from_world(0), torch.eye(3, 4, dtype=torch.float64))


def error(training: splat.SplatTraining, truth: Capture) -> float:
    """Pixels, in the mean over cameras and over points near the ball, relative to the mean displacement of all."""
    points = torch.randn(200, 3, generator=torch.Generator().manual_seed(1)) * 0.4
    apart = []
    for i in range(len(truth)):
        placed = [_pixels(points, pose, truth, i) for pose in (training.views[-1][i].world_to_cam, _pose(truth, i))]
        apart.append(placed[0] - placed[1])
    return float(torch.stack(apart).norm(dim=-1).mean())


def _pose(capture: Capture, i: int) -> Tensor:
    return capture.cameras[i].cam_from_world[0]


def _pixels(points: Tensor, pose: Tensor, capture: Capture, i: int) -> Tensor:
    x, y, z = (points.double() @ pose[:, :3].double().T + pose[:, 3].double()).T
    return torch.stack([x / z, y / z], 1) * capture.cameras.focal[i]


@pytest.fixture(scope="module")
def truth() -> Capture:
    return ball().split()[0]


def trained(capture: Capture, refine: bool, steps: int = 600) -> splat.SplatTraining:
    config = splat.Config(cap=2000, start_points=500, coarse=0.0, refine_poses=refine)
    training = splat.start(capture, config, Budget(None, steps))
    for i in range(steps):
        training.step(i, i / steps)
    return training


def test_cameras_that_are_off_come_nearer(truth: Capture) -> None:
    wrong = disturbed(truth, 2.0, 0.05)
    before, after = (error(trained(wrong, refine), truth) for refine in (False, True))
    print(before, after)
    assert before > 0.5
    assert after < 0.6 * before


def test_a_refined_training_goes_on_where_it_stopped(truth: Capture) -> None:
    wrong = disturbed(truth, 1.0, 0.02)
    config = splat.Config(cap=1000, start_points=500, coarse=0.0, refine_poses=True)
    budget = Budget(None, 60)
    whole = splat.start(wrong, config, budget)
    for i in range(60):
        whole.step(i, i / 60)
        if i == 29:
            state = {name: value.clone() for name, value in whole.state().items()}
    resumed = splat.resume(wrong, config, state, budget)
    for i in range(30, 60):
        resumed.step(i, i / 60)
    assert torch.equal(whole.corrections.twists, resumed.corrections.twists)  # type: ignore[union-attr]
    assert torch.equal(whole.field.params, resumed.field.params)
    state["poses"] = state["poses"][:-1]
    with pytest.raises(RunError, match="not a checkpoint"):
        splat.resume(wrong, config, state, budget)


def test_gradient_of_a_camera_is_that_of_differences(truth: Capture) -> None:
    training = trained(truth, refine=True, steps=100)
    training.rows.params[:, kernel.LOGIT] = 3.0  # the outlines of faint gaussians jump at 1/255
    behind = torch.ones(3)
    photo, mask = training.pictures(-1, 0, behind)
    camera = training.views[-1][0]

    def loss(pose: Tensor) -> float:
        seen = dataclasses.replace(camera, world_to_cam=pose)
        n = training.rows.count
        rgb, _, _ = kernel.render(training.rows.params[:n], training.rows.sh_rest[:n], seen, training.degree, behind)
        found, _, _ = kernel.photometric_loss(rgb.permute(2, 0, 1), photo, training.weights, mask, gradient=False)
        return float(found["mse"])

    training.weights.ssim, training.weights.square = 0.0, 1.0
    gradient = pose_refinement.pose_gradient(
        training.rows, camera, training.degree, behind, photo, mask, training.weights
    )
    step = 1e-2 * gradient / gradient.norm()
    difference = (loss(camera.world_to_cam + step) - loss(camera.world_to_cam - step)) / 2e-2
    assert difference == pytest.approx(float(gradient.norm()), rel=0.1)
