"""Cameras against OpenCV's own projection, and rays against project, for every lens."""

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lumigraph.scene.cameras import (
    Cameras,
    Lens,
    generate_rays,
    lens_limit,
    pinhole_matrix,
    pixel_grid,
    project,
)
from lumigraph.scene.poses import matrix_from_quaternion

DISTORTIONS: dict[Lens, list[list[float]]] = {
    "pinhole": [],
    "opencv": [
        [0.0] * 8,
        [-0.28, 0.09, 1e-3, -5e-4, -0.01, 0.0, 0.0, 0.0],
        [0.1, -0.05, 0.002, 0.001, 0.01, 0.02, 0.01, 0.001],
        [12.0, 5.0, -1e-3, 2e-3, 0.4, 12.3, 8.5, 1.7],  # a rational fit as calibration returns it
    ],
    "fisheye": [[0.0] * 4, [0.02, -0.01, 0.003, -0.001], [-0.05, 0.01, 0.0, 0.0], [0.1, 0.05, 0.01, 0.002]],
}
LENSES: list[Lens] = ["pinhole", "opencv", "fisheye"]


def make(lens: Lens, seed: int = 0, dtype: torch.dtype = torch.float64) -> Cameras:
    """Four cameras 320x240, anywhere and turned anyhow, one for each of the lens's distortions."""
    generator = torch.Generator().manual_seed(seed)
    rotations = matrix_from_quaternion(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    positions = torch.randn(4, 3, 1, generator=generator, dtype=torch.float64)
    cameras = Cameras(
        torch.cat([rotations, positions], dim=2),
        torch.tensor([[280.0, 290.0]], dtype=torch.float64).repeat(4, 1),
        torch.tensor([[155.0, 130.0]], dtype=torch.float64).repeat(4, 1),
        torch.tensor([[320, 240]]).repeat(4, 1),
        lens,
        torch.tensor(DISTORTIONS[lens], dtype=torch.float64) if DISTORTIONS[lens] else None,
    )
    return cameras.to(dtype=dtype)


def round_trip(cameras: Cameras, seed: int) -> Tensor:
    """(R,) pixels by which project misses where rays began, at random distances along the rays."""
    generator = torch.Generator().manual_seed(seed)
    n, dtype = 200, cameras.focal.dtype
    which = torch.arange(len(cameras)).repeat_interleave(n)
    pixels = torch.rand(len(which), 2, generator=generator, dtype=dtype) * cameras.sizes[which]
    found = generate_rays(cameras, which, pixels)
    distances = 1 + 4 * torch.rand(len(which), 1, generator=generator, dtype=dtype)
    seen, _ = project(cameras, found.origins + distances * found.directions)
    return (seen[which, torch.arange(len(which))] - pixels).abs().amax(dim=1)


@pytest.mark.parametrize("lens", LENSES)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=5, deadline=None)
def test_rays_are_the_inverse_of_project(lens: Lens, seed: int) -> None:
    assert round_trip(make(lens, seed), seed).max() < 1e-9
    # Near pixel 320 neighbouring float32 numbers are 3e-5 apart: a few of those.
    assert round_trip(make(lens, seed, torch.float32), seed).max() < 2e-4


@pytest.mark.parametrize("lens", LENSES)
def test_directions_are_unit_and_depth_is_along_z(lens: Lens) -> None:
    cameras = make(lens)
    pixels = torch.rand(4, 2, dtype=torch.float64) * 200
    found = generate_rays(cameras, torch.arange(4), pixels)
    assert torch.allclose(found.directions.norm(dim=1), torch.ones(4, dtype=torch.float64), atol=1e-14)
    assert torch.equal(found.origins, cameras.positions)
    _, depth = project(cameras, found.origins + 3 * found.directions)
    cosine = (found.directions * cameras.forwards).sum(dim=1)
    assert torch.allclose(depth.diagonal(), 3 * cosine)


@pytest.mark.parametrize("lens", LENSES)
def test_project_agrees_with_opencv(lens: Lens) -> None:
    cameras = make(lens)
    generator = torch.Generator().manual_seed(1)
    flat = (torch.rand(500, 2, generator=generator, dtype=torch.float64) * 2 - 1) * 0.6
    distances = 0.5 + 3 * torch.rand(500, 1, generator=generator, dtype=torch.float64)
    in_cam = torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1) * distances
    matrices = pinhole_matrix(cameras).numpy()
    for i, camera in enumerate(cameras):
        pose = camera.world_from_cam[0]
        world = in_cam @ pose[:, :3].T + pose[:, 3]
        pixels, depth = project(camera, world)
        there = camera.cam_from_world[0].numpy()
        turn, _ = cv2.Rodrigues(there[:, :3])
        points = world.numpy()[:, None]
        if lens == "fisheye":
            k = np.array(DISTORTIONS[lens][i])
            expected, _ = cv2.fisheye.projectPoints(points, turn, there[:, 3], matrices[i], k)
        else:
            k = np.array(DISTORTIONS[lens][i]) if DISTORTIONS[lens] else np.zeros(4)
            expected, _ = cv2.projectPoints(points, turn, there[:, 3], matrices[i], k)
        assert np.abs(pixels[0].numpy() - expected.reshape(-1, 2)).max() < 1e-9
        assert torch.allclose(depth[0], in_cam[:, 2])


def test_axes_and_pixel_centres() -> None:
    """x right, y down, z forward; the middle of a 4x2 picture is the corner (2, 1) between pixels."""
    pose = torch.eye(4)[None, :3]
    camera = Cameras(pose, torch.tensor([[2.0, 2.0]]), torch.tensor([[2.0, 1.0]]), torch.tensor([[4, 2]]))
    pixels, depth = project(camera, torch.tensor([[0.0, 0.0, 5.0], [1.0, 0.0, 2.0], [0.0, 1.0, 2.0]]))
    assert pixels[0].tolist() == [[2, 1], [3, 1], [2, 2]]
    assert depth[0].tolist() == [5, 2, 2]
    assert pixel_grid((4, 2))[1, 3].tolist() == [3.5, 1.5]
    middle = generate_rays(camera, torch.tensor([0]), torch.tensor([[2.0, 1.0]]))
    assert middle.directions.tolist() == [[0, 0, 1]]


def test_a_pose_and_its_inverse() -> None:
    cameras = make("pinhole")
    there, back = cameras.cam_from_world, cameras.world_from_cam
    assert torch.allclose(there[:, :, :3] @ back[:, :, :3], torch.eye(3, dtype=torch.float64).expand(4, 3, 3))
    nowhere = there[:, :, :3] @ cameras.positions[:, :, None] + there[:, :, 3:]
    assert nowhere.abs().max() < 1e-14


@pytest.mark.parametrize("lens", ["pinhole", "opencv"])
def test_what_lies_behind_has_no_pixel_and_no_poisoned_gradient(lens: Lens) -> None:
    camera = make(lens)[:1]
    at = camera.positions[0]
    points = torch.stack([at - camera.forwards[0], at, at + camera.forwards[0]]).requires_grad_()
    pixels, depth = project(camera, points)
    assert pixels[0, :2].isnan().all() and not pixels[0, 2].isnan().any()
    assert depth[0, 0] < 0
    (slope,) = torch.autograd.grad(pixels[0, 2].sum(), points)
    assert slope.isfinite().all()


def test_a_fisheye_sees_past_its_side_and_along_its_axis() -> None:
    camera = Cameras(
        torch.eye(4, dtype=torch.float64)[None, :3],
        torch.full((1, 2), 100.0, dtype=torch.float64),
        torch.full((1, 2), 200.0, dtype=torch.float64),
        torch.full((1, 2), 400),
        "fisheye",
        torch.zeros(1, 4, dtype=torch.float64),
    )
    angles = torch.tensor([0.0, 1e-9, math.pi / 2, 1.8], dtype=torch.float64)
    points = torch.stack([angles.sin(), 0 * angles, angles.cos()], dim=1).requires_grad_()
    pixels, depth = project(camera, points)
    assert torch.allclose(pixels[0, :, 0], 200 + 100 * angles)
    assert depth[0, 3] < 0
    (slope,) = torch.autograd.grad(pixels.sum(), points)
    assert slope.isfinite().all()
    back = generate_rays(camera, torch.zeros(4, dtype=torch.int64), pixels[0].detach())
    assert torch.allclose(back.directions, points.detach(), atol=1e-14)


def test_beyond_the_fold_there_is_no_answer() -> None:
    """With k1 = -0.3 alone, r (1 - 0.3 r^2) turns back at r = 1 / sqrt(0.9)."""
    fold = 1 / math.sqrt(0.9)
    k = torch.zeros(1, 8, dtype=torch.float64)
    k[0, 0] = -0.3
    assert lens_limit("opencv", k).item() == pytest.approx(fold, abs=1e-12)
    one = torch.ones(1, 2, dtype=torch.float64)
    camera = Cameras(torch.eye(4, dtype=torch.float64)[None, :3], one, 0 * one, torch.tensor([[2, 2]]), "opencv", k)
    points = torch.tensor([[fold - 1e-3, 0, 1], [fold + 1e-3, 0, 1], [30, 0, 1]], dtype=torch.float64)
    pixels, _ = project(camera, points)
    assert pixels[0].isnan().any(dim=1).tolist() == [False, True, True]
    highest = fold * (1 - 0.3 * fold**2)
    found = generate_rays(
        camera, torch.tensor([0, 0]), torch.tensor([[highest - 1e-6, 0], [highest + 1e-6, 0]]).double()
    )
    assert found.directions.isnan().any(dim=1).tolist() == [False, True]


@pytest.mark.parametrize(
    ("lens", "k", "expected"),
    [
        ("opencv", [0.1, 0, 0, 0, 0, 0, 0, 0], 10.0),  # grows for ever: stopped at 84.3 degrees
        ("opencv", [0, 0, 0, 0, 0, -0.25, 0, 0], 2.0),  # a pole at q = 4, with no fold before it
        ("opencv", [0, 0, 0, 0, -1 / 7, 0, 0, 0], 1.0),  # 1 - q^3
        ("fisheye", [0, 0, 0, 0], math.pi),
        ("fisheye", [-1 / 3, 0, 0, 0], 1.0),  # 1 - q
        ("fisheye", [0, 0, 0, -1 / 9], 1.0),  # 1 - q^4
    ],
)
def test_limits_in_closed_form(lens: Lens, k: list[float], expected: float) -> None:
    found = lens_limit(lens, torch.tensor([k], dtype=torch.float64))
    assert found.item() == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.floats(-0.5, 0.5), min_size=8, max_size=8))
@settings(max_examples=25, deadline=None)
def test_distortion_grows_up_to_its_limit_and_no_further(k: list[float]) -> None:
    coefficients = torch.tensor([k], dtype=torch.float64)
    coefficients[:, 2:4] = 0
    limit = lens_limit("opencv", coefficients).item()
    r = torch.linspace(0, limit, 4001, dtype=torch.float64)[:-1]
    camera = Cameras(
        torch.eye(4, dtype=torch.float64)[None, :3],
        torch.ones(1, 2, dtype=torch.float64),
        torch.zeros(1, 2, dtype=torch.float64),
        torch.tensor([[2, 2]]),
        "opencv",
        coefficients,
    )
    pixels, _ = project(camera, torch.stack([r, 0 * r, 0 * r + 1], dim=1))
    assert (pixels[0, :, 0].diff() > 0).all()


@pytest.mark.parametrize("lens", ["opencv", "fisheye"])
def test_gradients(lens: Lens) -> None:
    base = make(lens)
    pixels = torch.tensor([[20.0, 30.0], [155.0, 131.0], [200.0, 180.0], [300.0, 90.0]], dtype=torch.float64)
    assert base.distortion is not None

    def through_rays(pose: Tensor, focal: Tensor, centre: Tensor, k: Tensor, at: Tensor) -> Tensor:
        return generate_rays(Cameras(pose, focal, centre, base.sizes, lens, k), torch.arange(4), at).directions

    points = base.positions + 2 * base.forwards + 0.1

    def through_project(pose: Tensor, focal: Tensor, centre: Tensor, k: Tensor, at: Tensor) -> Tensor:
        seen, _ = project(Cameras(pose, focal, centre, base.sizes, lens, k), at)
        return seen.diagonal().T

    inputs = [
        tensor.clone().requires_grad_() for tensor in (base.world_from_cam, base.focal, base.centre, base.distortion)
    ]
    assert torch.autograd.gradcheck(through_rays, (*inputs, pixels.requires_grad_()), atol=1e-6)
    assert torch.autograd.gradcheck(through_project, (*inputs, points.requires_grad_()), atol=1e-5)


def test_indexing() -> None:
    cameras = make("opencv")
    assert len(cameras[1]) == len(cameras[-1]) == 1
    assert torch.equal(cameras[-1].focal, cameras[3].focal)
    assert torch.equal(cameras[[2, 0]].positions, cameras.positions[[2, 0]])
    assert torch.equal(cameras[torch.tensor([False, True, False, True])].positions, cameras.positions[1::2])
    assert len(cameras[[]]) == 0
    assert [len(camera) for camera in cameras] == [1] * 4
    assert cameras.size(2) == (320, 240)
    with pytest.raises(IndexError, match="camera 4 of 4"):
        cameras[4]
    with pytest.raises(IndexError):
        cameras[-5]


def test_a_smaller_picture_shows_the_same() -> None:
    cameras = make("opencv")
    points = cameras.positions + 2 * cameras.forwards + 0.1
    small = cameras.downscale(3)
    assert small.size(0) == (106, 80)
    before, _ = project(cameras, points)
    after, _ = project(small, points)
    assert torch.allclose(after.diagonal().T, before.diagonal().T * torch.tensor([106 / 320, 80 / 240]).double())
    assert cameras.downscale(1000).size(0) == (1, 1)
    assert cameras.resize(torch.tensor([160, 120])).size(3) == (160, 120)
    for k in (0.5, math.nan, math.inf):
        with pytest.raises(ValueError, match="downscale"):
            cameras.downscale(k)


@given(st.integers(1, 4000), st.integers(1, 4000))
@settings(deadline=None)
def test_a_downscale_that_names_a_width_gives_it(width: int, wanted: int) -> None:
    wanted = min(width, wanted)
    one = torch.ones(1, 2)
    camera = Cameras(torch.eye(4)[None, :3], one, one, torch.tensor([[width, width]]))
    assert camera.downscale(width / wanted).size(0) == (wanted, wanted)


def test_wrong_parts_are_refused() -> None:
    pose, pair, sizes = torch.eye(4)[None, :3], torch.ones(1, 2), torch.ones(1, 2, dtype=torch.int64)
    Cameras(pose, pair, pair, sizes)
    wrong: list[tuple[tuple[object, ...], str]] = [
        ((torch.eye(4)[None], pair, pair, sizes), "world_from_cam must have the shape"),
        ((torch.tensor(1.0), pair, pair, sizes), "world_from_cam must have the shape"),
        ((pose, torch.ones(2, 2), pair, sizes), "focal must have the shape"),
        ((pose, pair, pair.double(), sizes), "centre must be torch.float32"),
        ((pose, pair, pair, sizes.int()), "sizes must be int64"),
        ((pose, pair, pair, sizes, "opencv"), "needs distortion"),
        ((pose, pair, pair, sizes, "opencv", torch.zeros(1, 4)), "distortion must have the shape"),
        ((pose, pair, pair, sizes, "pinhole", torch.zeros(1, 4)), "no distortion"),
        ((pose, pair, pair, sizes, "equirect"), "lens must be one of"),
    ]
    for parts, message in wrong:
        with pytest.raises(ValueError, match=message):
            Cameras(*parts)  # type: ignore[arg-type]
