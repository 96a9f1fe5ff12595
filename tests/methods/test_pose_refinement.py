"""Cameras that are a little wrong find back: derivatives against differences, alignment against known poses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator

import pytest
import torch
from torch import Tensor

from lumigraph.methods import pose_refinement, splat
from lumigraph.methods.pose_refinement import align_camera, flow_jacobian, inverse, moved, without_common_motion
from lumigraph.methods.train import Budget, evaluate
from lumigraph.scene.assets import Splats
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.capture import ArrayPhotos, Capture
from lumigraph.scene.errors import RunError
from lumigraph.scene.images import to_uint8
from lumigraph.scene.poses import Similarity, align_similarity, look_at, quaternion_from_matrix, rotation_error_degrees
from lumigraph.wire.events import Event
from tests.methods.scene import ball

SIZE, FOCAL, DISTANCE = (96, 72), 90.0, 4.0
TWIST = torch.tensor([0.006, -0.008, 0.005, 0.02, -0.015, 0.03], dtype=torch.float64)


def clutter(count: int = 600) -> splat.SplatField:
    """Coloured gaussians in a ball of radius 1.3 before a large grey wall of them."""
    random = torch.Generator().manual_seed(0)
    near = torch.nn.functional.normalize(torch.randn(count, 3, generator=random), dim=1)
    near *= 1.3 * torch.rand(count, 1, generator=random) ** (1 / 3)
    x, y = torch.meshgrid(torch.linspace(-6, 6, 40), torch.linspace(-6, 6, 40), indexing="xy")
    wall = torch.stack([x, y, torch.full_like(x, 2.0)], -1).reshape(-1, 3)
    means = torch.cat([near, wall])
    n = len(means)
    scales = torch.cat([torch.full((count, 3), 0.12), torch.full((len(wall), 3), 0.25)])
    quats = torch.tensor([1.0, 0, 0, 0]).repeat(n, 1)
    sh = torch.cat([torch.randn(count, 1, 3, generator=random), torch.zeros(len(wall), 1, 3)])
    sh[count:] += 0.5 * torch.randn(len(wall), 1, 1, generator=random)
    return splat.from_splats(Splats(means, scales.log(), quats, torch.full((n,), 4.0), sh))


def in_world(field: splat.SplatField, world: Similarity) -> splat.SplatField:
    """The same gaussians in another world."""
    s = field.splats()
    turned = quaternion_from_matrix(world.rotation.float())[None].expand(len(s), 4)  # they are round
    return splat.from_splats(
        Splats(
            world.transform_points(s.means),
            s.log_scales + math.log(world.scale),
            turned.clone(),
            s.logit_opacities,
            s.sh,
        )
    )


def camera_at(cam_from_world: Tensor) -> Cameras:
    size = torch.tensor([SIZE])
    return Cameras(inverse(cam_from_world[None]).float(), torch.full((1, 2), FOCAL), size / 2, size)


def pose_from(x: float, y: float) -> Tensor:
    eye = torch.tensor([x, y, -DISTANCE], dtype=torch.float64)
    world_from_cam = look_at(eye, torch.zeros(3, dtype=torch.float64), torch.tensor([0, -1.0, 0], dtype=torch.float64))
    return inverse(world_from_cam[None])[0]


def grey_of(field: splat.SplatField, pose: Tensor) -> Tensor:
    return field.render(camera_at(pose)).rgb[0].mean(-1)


def flow_between(pose: Tensor, other: Tensor) -> float:
    """Mean distance in pixels of points of the ball that two cameras see."""
    points = torch.randn(300, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.6
    projected = []
    for matrix in (pose, other):
        in_camera = points @ matrix[:, :3].T + matrix[:, 3]
        projected.append(FOCAL * in_camera[:, :2] / in_camera[:, 2:])
    return float((projected[0] - projected[1]).norm(dim=1).mean())


def test_flow_jacobian_equals_differences() -> None:
    random = torch.Generator().manual_seed(2)
    pixels = torch.rand(20, 2, generator=random, dtype=torch.float64) * torch.tensor(SIZE)
    z = 1 + 3 * torch.rand(20, generator=random, dtype=torch.float64)
    camera = camera_at(torch.eye(3, 4, dtype=torch.float64)).to(dtype=torch.float64)
    points = torch.cat([(pixels - camera.centre) / camera.focal, torch.ones(20, 1)], 1) * z[:, None]
    step = 1e-6
    for k in range(6):
        seen = []
        for sign in (1, -1):
            twist = torch.zeros(6, dtype=torch.float64)
            twist[k] = sign * step
            matrix = moved(torch.eye(3, 4, dtype=torch.float64), twist)
            x = points @ matrix[:, :3].T + matrix[:, 3]
            seen.append(x[:, :2] / x[:, 2:] * camera.focal + camera.centre)
        difference = (seen[0] - seen[1]) / (2 * step)
        torch.testing.assert_close(flow_jacobian(pixels, z, camera)[..., k], difference, rtol=1e-6, atol=1e-6)


def test_alignment_recovers_known_pose() -> None:
    field, true = clutter(), pose_from(0.3, -0.2)
    photo = 0.8 * grey_of(field, true) + 0.05  # another exposure
    wrong = moved(true, TWIST)
    pose, flow = align_camera(field, camera_at(wrong), wrong, photo, None, 8)
    assert flow_between(wrong, true) > 0.7
    assert flow == pytest.approx(flow_between(wrong, true), rel=0.5)
    assert flow_between(pose, true) < 0.08


def test_alignment_does_not_depend_on_the_world() -> None:
    field, true = clutter(), pose_from(0.3, -0.2)
    photo, wrong = grey_of(field, true), moved(pose_from(0.3, -0.2), TWIST)
    turn = torch.linalg.matrix_exp(torch.tensor([[0, -1.0, 0.5], [1, 0, -0.3], [-0.5, 0.3, 0]], dtype=torch.float64))
    world = Similarity(7.0, turn, torch.tensor([3.0, -2.0, 5.0], dtype=torch.float64))
    pose, flow = align_camera(field, camera_at(wrong), wrong, photo, None, 3)
    moved_wrong = inverse(world.transform_poses(inverse(wrong[None])))[0]
    other, other_flow = align_camera(in_world(field, world), camera_at(moved_wrong), moved_wrong, photo, None, 3)
    expected = inverse(world.transform_poses(inverse(pose[None])))[0]
    assert other_flow == pytest.approx(flow, rel=1e-2)
    assert flow_between(pose, wrong) > 0.7
    back = inverse(world.inverse().transform_poses(inverse(other[None])))[0]
    assert flow_between(back, pose) < 0.02
    torch.testing.assert_close(other[:, :3], expected[:, :3], rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["one colour", "masked", "another photo"])
def test_alignment_leaves_a_camera_without_evidence(kind: str) -> None:
    field, pose = clutter(), pose_from(0.3, -0.2)
    photo, mask = grey_of(field, moved(pose, TWIST)), None
    if kind == "one colour":
        photo = torch.full_like(photo, 0.5)
    elif kind == "masked":
        mask = torch.zeros(photo.shape, dtype=torch.uint8)
    else:
        photo = torch.rand(photo.shape, generator=torch.Generator().manual_seed(0))
    aligned, flow = align_camera(field, camera_at(pose), pose, photo, mask, 3)
    assert torch.equal(aligned, pose)
    assert flow == 0


def test_masked_pixels_do_not_count() -> None:
    field, true = clutter(), pose_from(0.3, -0.2)
    photo, wrong = grey_of(field, true), moved(true, TWIST)
    mask = torch.full(photo.shape, 255, dtype=torch.uint8)
    mask[:, :30] = 0
    pose, _ = align_camera(field, camera_at(wrong), wrong, photo, mask, 3)
    photo[:, :30] = photo[:, :30].flip(0)
    other, _ = align_camera(field, camera_at(wrong), wrong, photo, mask, 3)
    assert torch.equal(pose, other)


def test_common_motion_is_removed() -> None:
    random = torch.Generator().manual_seed(3)
    given = torch.stack([pose_from(0.4 * k - 1, 0.2 * (k % 3)) for k in range(6)])
    noise = 1e-3 * torch.randn(6, 6, generator=random, dtype=torch.float64)
    noisy = torch.stack([moved(pose, twist) for pose, twist in zip(given, noise, strict=True)])
    turn = torch.linalg.matrix_exp(torch.tensor([[0, -0.2, 0.1], [0.2, 0, -0.3], [-0.1, 0.3, 0]], dtype=torch.float64))
    world = Similarity(1.3, turn, torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64))
    drifted = inverse(world.transform_poses(inverse(noisy)))
    expected = without_common_motion(noisy, given)
    torch.testing.assert_close(without_common_motion(drifted, given), expected, rtol=0, atol=1e-12)
    assert float((expected - given).abs().max()) < 0.02


def disturbed(capture: Capture, degrees: float, shift: float) -> Capture:
    """All cameras turned and moved at random, with these root mean squares."""
    random = torch.Generator().manual_seed(5)
    n, cameras = len(capture), capture.cameras.to(dtype=torch.float64)
    turns = torch.randn(n, 3, generator=random, dtype=torch.float64) * math.radians(degrees) / math.sqrt(3)
    shifts = torch.randn(n, 3, generator=random, dtype=torch.float64) * shift / math.sqrt(3)
    poses = torch.stack([moved(cameras.cam_from_world[i], torch.cat([turns[i], shifts[i]])) for i in range(n)])
    cameras = dataclasses.replace(capture.cameras, world_from_cam=inverse(poses).to(capture.cameras.world_from_cam))
    return dataclasses.replace(capture, cameras=cameras)


def photos_of_clutter(views: int = 12) -> Capture:
    field = clutter()
    poses = [pose_from(1.5 * math.cos(2.4 * k), 1.5 * math.sin(2.4 * k)) for k in range(views)]
    cameras = Cameras(
        inverse(torch.stack(poses)).float(),
        torch.full((views, 2), FOCAL),
        torch.tensor([SIZE] * views) / 2,
        torch.tensor([SIZE] * views),
    )
    photos = [to_uint8(field.render(cameras[i]).rgb[0]) for i in range(views)]
    names = tuple(f"{i:02d}.png" for i in range(views))
    return Capture(cameras, ArrayPhotos(photos), names, torch.zeros(views, dtype=torch.bool))


def trained(capture: Capture, steps: int, **settings: object) -> splat.SplatTraining:
    config = splat.Config(cap=1500, start_points=600, resolution_schedule=0.0, refine_poses=True, **settings)  # type: ignore[arg-type]
    training = splat.start(capture, config, Budget(None, steps))
    for i in range(steps):
        training.step(i, i / steps)
    return training


def test_training_corrects_cameras() -> None:
    truth = photos_of_clutter()
    wrong = disturbed(truth, 0.6, 0.02)
    training = trained(wrong, 240)
    true = truth.cameras.to(dtype=torch.float64).cam_from_world
    refined = training.refined_poses
    assert refined is not None
    errors = []
    for poses in (wrong.cameras.to(dtype=torch.float64).cam_from_world, inverse(refined)):
        placed = without_common_motion(poses, true)
        errors.append(sum(flow_between(placed[i], true[i]) for i in range(len(true))) / len(true))
    assert errors[0] > 0.4
    assert errors[1] < 0.5 * errors[0]
    assert torch.equal(training.cameras.world_from_cam, refined.float())
    assert any("corrected by" in note for note in training.closing_notes())
    views = drain(evaluate(training.field, wrong, own_poses=True))
    assert sum(float(str(view["psnr_own_pose"])) - float(str(view["psnr"])) for view in views) > 0


def test_training_leaves_correct_cameras_as_given() -> None:
    truth = photos_of_clutter()
    training = trained(truth, 400)
    assert training.refinement is not None
    assert 0 < training.refinement.flow < pose_refinement.MIN_FLOW_PX
    assert training.refined_poses is not None
    assert torch.equal(training.refined_poses.float(), truth.cameras.world_from_cam)
    assert any("stay as given" in note for note in training.closing_notes())


def drain(events: Generator[Event, None, list[dict[str, object]]]) -> list[dict[str, object]]:
    while True:
        try:
            next(events)
        except StopIteration as stop:
            views: list[dict[str, object]] = stop.value
            return views


def test_resumed_training_equals_uninterrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pose_refinement, "MIN_FLOW_PX", 0.0)
    wrong, steps = disturbed(ball(20), 1.0, 0.02), 40
    config = splat.Config(cap=800, start_points=400, resolution_schedule=0.0, refine_poses=True)
    whole = splat.start(wrong, config, Budget(None, steps))
    for i in range(steps):
        whole.step(i, i / steps)
        if i == 19:
            state = {name: value.clone() for name, value in whole.state().items()}
    resumed = splat.resume(wrong, config, state, Budget(None, steps))
    for i in range(20, steps):
        resumed.step(i, i / steps)
    assert whole.refinement is not None and resumed.refinement is not None
    assert int(state["pose_rounds"][0]) not in (0, whole.refinement.rounds)
    assert not torch.equal(whole.refinement.poses, whole.refinement.initial_poses)
    assert torch.equal(whole.refinement.poses, resumed.refinement.poses)
    assert torch.equal(whole.field.params, resumed.field.params)
    with pytest.raises(RunError, match="not a checkpoint"):
        splat.resume(wrong, config, {**state, "poses": state["poses"][:-1]}, Budget(None, steps))


def test_checkpoint_without_poses_is_resumed() -> None:
    capture = ball(20)
    plain = splat.start(capture, splat.Config(cap=800, start_points=400), Budget(None, 40))
    assert "poses" not in plain.state()
    config = splat.Config(cap=800, start_points=400, refine_poses=True)
    resumed = splat.resume(capture, config, plain.state(), Budget(None, 40))
    assert resumed.refinement is not None and resumed.refinement.rounds == 0


def test_common_motion_agrees_with_similarity_of_positions() -> None:
    """Cameras that only moved together are laid on the given ones exactly."""
    given = torch.stack([pose_from(0.4 * k - 1, 0.2 * (k % 3)) for k in range(6)])
    world = Similarity(0.8, torch.eye(3, dtype=torch.float64), torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    drifted = inverse(world.transform_poses(inverse(given)))
    fitted = align_similarity(inverse(drifted)[..., 3], inverse(given)[..., 3])
    assert fitted.scale == pytest.approx(1 / 0.8)
    placed = without_common_motion(drifted, given)
    assert float(rotation_error_degrees(placed[..., :3], given[..., :3]).max()) < 1e-6
    torch.testing.assert_close(placed, given, rtol=0, atol=1e-12)
