"""Rotations against their definitions, alignment against known truth, and paths against where photos were taken."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from lumigraph.scene.cameras import Cameras, project
from lumigraph.scene.poses import (
    Similarity,
    align_similarity,
    capture_orbit,
    focus_point,
    look_at,
    matrix_from_quaternion,
    orbit,
    path_cameras,
    quaternion_from_matrix,
    quaternion_product,
    rotation_error_degrees,
    spiral,
    spline_path,
    up_direction,
)

seeds = st.integers(0, 2**31)
quick = settings(max_examples=25, deadline=None)
UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
HERE = torch.zeros(3, dtype=torch.float64)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_poses(poses: Tensor) -> Cameras:
    n = len(poses)
    focal = torch.full((n, 2), 300.0, dtype=torch.float64)
    return Cameras(poses.double(), focal, focal / 3, torch.full((n, 2), 200))


def ring(azimuths_degrees: Tensor, elevation_degrees: float = 20, distance: float = 4, shake: float = 0.02) -> Cameras:
    """Hand-held photos around the origin, z up: aimed a little beside it and rolled by a degree or so."""
    azimuth, elevation = torch.deg2rad(azimuths_degrees.double()), math.radians(elevation_degrees)
    flat = torch.stack([azimuth.cos(), azimuth.sin()], dim=1) * math.cos(elevation)
    eyes = distance * torch.cat([flat, torch.full_like(flat[:, :1], math.sin(elevation))], dim=1)
    n = len(eyes)
    return with_poses(look_at(eyes, shake * distance * randn(n, 3), UP + shake * randn(n, 3, seed=1)))


def assert_rigid(cameras: Cameras) -> None:
    axes = cameras.world_from_cam[:, :, :3]
    assert torch.allclose(axes @ axes.transpose(1, 2), torch.eye(3, dtype=axes.dtype), atol=1e-6)
    assert (torch.linalg.det(axes) > 0).all()


def degrees_between(a: Tensor, b: Tensor) -> Tensor:
    return torch.rad2deg(torch.acos((normalize(a, dim=-1) * normalize(b, dim=-1)).sum(-1).clamp(-1, 1)))


# -- rotations -------------------------------------------------------------------------------------------------------


@given(seeds)
@quick
def test_quaternions_and_matrices(seed: int) -> None:
    a, b = normalize(randn(8, 4, seed=seed), dim=1), normalize(randn(8, 4, seed=seed + 1), dim=1)
    a[0], a[1], a[2] = a.new_tensor([0, 1, 0, 0]), a.new_tensor([0, 0, -1, 0]), a.new_tensor([1, 0, 0, 0])
    matrices = matrix_from_quaternion(a)
    assert torch.allclose(matrices @ matrices.transpose(1, 2), torch.eye(3, dtype=torch.float64), atol=1e-12)
    back = quaternion_from_matrix(matrices)
    assert (back[:, 0] >= 0).all()
    assert torch.allclose((back * a).sum(dim=1).abs(), torch.ones(8, dtype=torch.float64))
    assert torch.allclose(matrix_from_quaternion(quaternion_product(a, b)), matrices @ matrix_from_quaternion(b))


def test_a_quarter_turn_about_z() -> None:
    quarter = torch.tensor([math.sqrt(0.5), 0, 0, math.sqrt(0.5)])
    assert torch.allclose(
        matrix_from_quaternion(quarter) @ torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0]), atol=1e-6
    )


@pytest.mark.parametrize("degrees", [0.0, 1e-7, 1e-3, 1.0, 90.0, 179.999])
def test_rotation_error(degrees: float) -> None:
    half = math.radians(degrees) / 2
    axis = normalize(randn(3), dim=0)
    turn = matrix_from_quaternion(torch.cat([axis.new_tensor([math.cos(half)]), math.sin(half) * axis]))
    base = matrix_from_quaternion(randn(4, seed=1))
    assert rotation_error_degrees(base @ turn, base).item() == pytest.approx(degrees, rel=1e-6, abs=1e-12)


@given(seeds)
@quick
def test_look_at_puts_the_target_in_the_middle_and_up_upwards(seed: int) -> None:
    eye, target, up = randn(5, 3, seed=seed), randn(3, seed=seed + 1), randn(5, 3, seed=seed + 2)
    cameras = with_poses(look_at(eye, target, up))
    assert_rigid(cameras)
    pixels, depth = project(cameras, target[None])
    assert torch.allclose(pixels, torch.full_like(pixels, 100.0))
    assert torch.allclose(depth[:, 0], (eye - target).norm(dim=1))
    # A little further up is a little higher in the picture, and no way to the side.
    higher, _ = project(cameras, target + 1e-4 * normalize(up, dim=1))
    moved = higher.diagonal().T - 100
    assert (moved[:, 1] < 0).all() and moved[:, 0].abs().max() < 1e-6


def test_look_at_straight_down_and_nowhere() -> None:
    cameras = with_poses(look_at(3 * UP, HERE, UP)[None])
    assert_rigid(cameras)
    assert torch.allclose(cameras.forwards[0], -UP)
    with pytest.raises(ValueError, match="where it stands"):
        look_at(UP, UP, UP)


# -- similarity ------------------------------------------------------------------------------------------------------


def random_similarity(seed: int) -> Similarity:
    scale = float(randn(1, seed=seed).exp())
    return Similarity(scale, matrix_from_quaternion(randn(4, seed=seed + 1)), 10 * randn(3, seed=seed + 2))


@given(seeds, st.integers(3, 20))
@quick
def test_alignment_finds_the_truth(seed: int, n: int) -> None:
    truth, source = random_similarity(seed), randn(n, 3, seed=seed + 3)
    found = align_similarity(source, truth.transform_points(source))
    assert found.scale == pytest.approx(truth.scale, rel=1e-6)
    assert rotation_error_degrees(found.rotation, truth.rotation) < 1e-5
    assert torch.allclose(found.transform_points(source), truth.transform_points(source), atol=1e-6)


def test_alignment_of_flat_points_is_no_reflection() -> None:
    source = randn(10, 3)
    source[:, 2] = 0
    truth = random_similarity(4)
    found = align_similarity(source, truth.transform_points(source))
    assert torch.linalg.det(found.rotation) == pytest.approx(1)
    assert rotation_error_degrees(found.rotation, truth.rotation) < 1e-5


def test_no_small_change_of_a_noisy_alignment_is_better() -> None:
    """The least-squares property itself: nudging scale, turn or shift raises the error."""
    source = randn(30, 3)
    target = random_similarity(5).transform_points(source) + 0.3 * randn(30, 3, seed=9)
    found = align_similarity(source, target)

    def error(similarity: Similarity) -> float:
        return (similarity.transform_points(source) - target).square().sum().item()

    best = error(found)
    for axis in range(3):
        for nudge in (-1e-3, 1e-3):
            shift = torch.zeros(3, dtype=torch.float64)
            shift[axis] = nudge
            turn = matrix_from_quaternion(torch.cat([torch.ones(1, dtype=torch.float64), shift]))
            about = target.mean(dim=0)
            assert error(Similarity(found.scale, found.rotation, found.translation + shift)) > best
            turned = Similarity(found.scale, turn @ found.rotation, turn @ (found.translation - about) + about)
            assert error(turned) > best
    for factor in (0.999, 1.001):
        assert error(Similarity(found.scale * factor, found.rotation, found.translation)) > best


def test_alignment_that_cannot_be() -> None:
    line = torch.linspace(0, 1, 5)[:, None] * randn(3)
    for source in (line, randn(2, 3), randn(1, 3).expand(4, 3), torch.zeros(0, 3)):
        with pytest.raises(ValueError, match="not lie on one line"):
            align_similarity(source, source)
    with pytest.raises(ValueError, match="source and target must be points"):
        align_similarity(randn(4, 3), randn(5, 3))


@given(seeds)
@quick
def test_a_similarity_moves_cameras_and_points_alike(seed: int) -> None:
    similarity, cameras = random_similarity(seed), ring(torch.arange(0, 360, 60))
    points = 0.5 * randn(6, 3, seed=seed).clamp(-3, 3)
    before, depth = project(cameras, points)
    moved = similarity.transform_cameras(cameras)
    assert_rigid(moved)
    after, new_depth = project(moved, similarity.transform_points(points))
    assert torch.allclose(after, before, atol=1e-6)
    assert torch.allclose(new_depth, similarity.scale * depth)
    assert torch.allclose(similarity.inverse().transform_points(similarity.transform_points(points)), points)


# -- what a capture looks at ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("azimuths", "elevation", "tolerance"),
    [
        (torch.arange(0, 360, 15), 40, 1.0),  # all around, looking down
        (torch.arange(0, 120, 8), 30, 4.0),  # a third of the way
        (torch.linspace(-8, 8, 20), 0, 4.0),  # forward-facing
    ],
)
def test_up_of_photos_held_by_hand(azimuths: Tensor, elevation: float, tolerance: float) -> None:
    similarity = random_similarity(2)
    found = up_direction(similarity.transform_cameras(ring(azimuths, elevation)))
    assert degrees_between(found, similarity.rotation @ UP) < tolerance


def test_up_of_photos_that_all_look_one_way() -> None:
    """Rolled by some degrees and not panned, the right axes say nothing of use: only the cameras' own up does."""
    eyes = torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    tilted = UP + 0.05 * randn(20, 3)
    found = up_direction(with_poses(look_at(eyes, eyes + torch.tensor([0.0, 1.0, 0.0]), tilted)))
    assert degrees_between(found, UP) < 3


def test_the_focus_ignores_photos_that_look_elsewhere() -> None:
    cameras = ring(torch.arange(0, 360, 15), shake=0)
    poses = cameras.world_from_cam.clone()
    poses[:4] = look_at(cameras.positions[:4], torch.tensor([20.0, 5.0, 9.0], dtype=torch.float64), UP)
    assert focus_point(with_poses(poses)).norm() < 0.05


def test_the_focus_of_parallel_axes_lies_in_front() -> None:
    eyes = torch.cartesian_prod(torch.linspace(-1, 1, 5), torch.zeros(1), torch.linspace(-0.5, 0.5, 4)).double()
    cameras = with_poses(look_at(eyes, eyes + torch.tensor([0.0, 1.0, 0.0]), UP))
    assert torch.allclose(focus_point(cameras, depth=7.0), torch.tensor([0.0, 7.0, 0.0], dtype=torch.float64))
    assert 5 < focus_point(cameras)[1] < 10


# -- paths -----------------------------------------------------------------------------------------------------------


def test_along_takes_the_common_size_and_focal_length() -> None:
    poses = torch.eye(4)[None, :3].repeat(3, 1, 1)
    focal = torch.tensor([[500.0, 510.0], [100.0, 100.0], [500.0, 510.0]])
    sizes = torch.tensor([[640, 480], [480, 640], [640, 480]])
    path = path_cameras(Cameras(poses, focal, focal, sizes, "fisheye", torch.zeros(3, 4)), poses[:2])
    assert len(path) == 2 and path.lens == "pinhole"
    assert path.size(1) == (640, 480)
    assert path.focal[0].tolist() == [500, 510]
    assert path.centre[0].tolist() == [320, 240]


def test_orbit() -> None:
    like = ring(torch.zeros(1))
    centre = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    path = orbit(like, 8, centre=centre, radius=3, height=4, up=2 * UP, start=torch.tensor([0.0, 1.0, 5.0]))
    assert_rigid(path)
    assert torch.allclose(path.positions[0], centre + torch.tensor([0.0, 3.0, 4.0], dtype=torch.float64))
    assert torch.allclose(path.positions[2], centre + torch.tensor([-3.0, 0.0, 4.0], dtype=torch.float64))
    assert torch.allclose(path.forwards, normalize(centre - path.positions, dim=1))
    assert (path.world_from_cam[:, :, 1] @ UP < 0).all()  # the camera's down goes down


def test_spiral_stays_among_the_photos_and_looks_at_the_focus() -> None:
    eyes = torch.cartesian_prod(torch.linspace(-1, 1, 5), torch.zeros(1), torch.linspace(-0.5, 0.5, 4)).double()
    cameras = with_poses(look_at(eyes, torch.tensor([0.0, 6.0, 0.0], dtype=torch.float64), UP))
    path = spiral(cameras, 120)
    assert_rigid(path)
    assert path.positions[:, 0].abs().max() <= 1 and path.positions[:, 2].abs().max() <= 0.5
    assert path.positions[:, 0].abs().max() > 0.8
    pixels, _ = project(path, focus_point(cameras)[None])
    assert torch.allclose(pixels, torch.full_like(pixels, 100.0))
    steps = (path.positions - path.positions.roll(1, 0)).norm(dim=1)
    assert steps.max() < 3 * steps.mean()  # closed: from the last frame to the first is a step like any


@pytest.mark.parametrize("closed", [False, True])
def test_a_spline_passes_its_keys_smoothly(closed: bool) -> None:
    keys = with_poses(torch.cat([matrix_from_quaternion(randn(5, 4)), randn(5, 3, 1, seed=1)], dim=2))
    stretches = 5 if closed else 4
    path = spline_path(keys, stretches * 200 + (not closed), closed)
    assert_rigid(path)
    at = path[torch.arange(5) * 200]
    assert torch.allclose(at.positions, keys.positions)
    assert rotation_error_degrees(at.world_from_cam[:, :, :3], keys.world_from_cam[:, :, :3]).max() < 1e-5
    # Velocity does not jump: second differences are of the second order, at the keys as between them.
    ends = path[torch.cat([torch.arange(len(path)), torch.arange(2)])] if closed else path
    for values in (ends.positions, ends.world_from_cam[:, :, :3].flatten(1)):
        speed = values.diff(dim=0).norm(dim=1).max()
        jerk = values.diff(n=2, dim=0).norm(dim=1).max()
        assert jerk < 0.06 * speed


def test_two_keys_are_a_straight_line_at_one_speed() -> None:
    keys = with_poses(torch.cat([matrix_from_quaternion(randn(2, 4)), randn(2, 3, 1)], dim=2))
    path = spline_path(keys, 11)
    expected = torch.linspace(0, 1, 11, dtype=torch.float64)[:, None] * (keys.positions[1] - keys.positions[0])
    assert torch.allclose(path.positions - keys.positions[0], expected)
    turns = rotation_error_degrees(path.world_from_cam[1:, :, :3], path.world_from_cam[:-1, :, :3])
    assert torch.allclose(turns, turns.mean().expand(10))
    whole = rotation_error_degrees(keys.world_from_cam[0, :, :3], keys.world_from_cam[1, :, :3])
    assert turns.sum() == pytest.approx(whole.item())


def test_keys_bring_their_lens() -> None:
    keys = ring(torch.arange(0, 60, 30))
    k = torch.tensor([[0.1, 0, 0, 0], [0.3, 0, 0, 0]], dtype=torch.float64)
    zoom = torch.tensor([[100.0, 100.0], [400.0, 400.0]], dtype=torch.float64)
    path = spline_path(Cameras(keys.world_from_cam, zoom, keys.centre, keys.sizes, "fisheye", k), 3)
    assert path.lens == "fisheye" and path.distortion is not None
    assert path.distortion[:, 0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert path.focal[:, 0].tolist() == pytest.approx([100, 200, 400])  # a zoom is even when it multiplies evenly


def test_short_and_impossible_paths() -> None:
    keys = ring(torch.arange(0, 60, 30))
    assert torch.allclose(spline_path(keys[0], 3).positions, keys.positions[:1].expand(3, 3))
    assert len(spline_path(keys, 1)) == 1
    with pytest.raises(ValueError, match="at least one key"):
        spline_path(keys[:0], 3)
    sizes = torch.tensor([[200, 200], [100, 200]])
    with pytest.raises(ValueError, match="one size"):
        spline_path(Cameras(keys.world_from_cam, keys.focal, keys.centre, sizes), 3)


def nearest_photo(path: Cameras, photos: Cameras) -> tuple[float, float]:
    """Over all frames, the largest distance (world units) and angle (degrees) to the nearest photo."""
    distance = torch.cdist(path.positions, photos.positions).amin(dim=1).max().item()
    angle = degrees_between(path.forwards[:, None], photos.forwards[None]).amin(dim=1).max().item()
    return distance, angle


def assert_smooth_and_closed(path: Cameras) -> None:
    """No step is larger than the widest of a sine's, also from the last frame to the first."""
    steps = (path.positions - path.positions.roll(1, 0)).norm(dim=1)
    assert steps.max() < 1.8 * steps.mean()
    turns = rotation_error_degrees(path.world_from_cam[:, :, :3], path.world_from_cam[:, :, :3].roll(1, 0))
    assert turns.max() < 12


@pytest.mark.parametrize("seed", range(3))
def test_photos_all_around_give_a_whole_turn(seed: int) -> None:
    similarity = random_similarity(seed)
    photos = similarity.transform_cameras(ring(torch.arange(0, 360, 12)))
    path = capture_orbit(photos, 90)
    assert_smooth_and_closed(path)
    inside = similarity.inverse().transform_cameras(path)
    azimuths = torch.rad2deg(torch.atan2(inside.positions[:, 1], inside.positions[:, 0])).sort().values
    assert azimuths.diff().max() < 8
    assert inside.positions.norm(dim=1).sub(4).abs().max() < 0.3
    assert nearest_photo(inside, ring(torch.arange(0, 360, 12)))[0] < 0.8


@pytest.mark.parametrize(("first", "last", "elevation"), [(-60, 60, 15), (100, 280, 30), (-90, 120, 0), (-6, 6, 5)])
def test_photos_from_one_side_give_a_swing_within_their_arc(first: float, last: float, elevation: float) -> None:
    similarity = random_similarity(3)
    photos = ring(torch.linspace(first, last, 25), elevation, shake=0.005)
    path = similarity.inverse().transform_cameras(capture_orbit(similarity.transform_cameras(photos), 120))
    assert_smooth_and_closed(path)
    distance, angle = nearest_photo(path, photos)
    assert distance < 0.5 and angle < 7
    seen = degrees_between(path.positions[:, None], path.positions[None]).max()
    assert seen > 0.8 * degrees_between(photos.positions[:, None], photos.positions[None]).max()


def test_a_forward_facing_grid_gives_a_swing_before_the_scene() -> None:
    eyes = torch.cartesian_prod(torch.linspace(-1, 1, 6), torch.zeros(1), torch.linspace(-0.5, 0.5, 4)).double()
    photos = with_poses(look_at(eyes, eyes + torch.tensor([0.0, 1.0, 0.0]) + 0.01 * randn(24, 3), UP))
    for depth in (None, 20.0):
        path = capture_orbit(photos, 60, depth)
        assert_smooth_and_closed(path)
        distance, angle = nearest_photo(path, photos)
        assert distance < 0.6 and angle < 25
        assert path.positions[:, 1].abs().max() < 0.6


def test_a_tripod_gives_views_like_its_photos() -> None:
    azimuth = torch.deg2rad(torch.linspace(-30, 30, 20, dtype=torch.float64))
    ahead = torch.stack([azimuth.cos(), azimuth.sin(), 0 * azimuth], dim=1)
    eyes = 0.01 * randn(20, 3)
    photos = with_poses(look_at(eyes, eyes + 3 * ahead, UP))
    path = capture_orbit(photos, 240)
    distance, angle = nearest_photo(path, photos)
    assert distance < 0.05 and angle < 5


def test_a_room_from_within_and_a_walk_are_ridden_along_the_photos_way() -> None:
    azimuth = torch.deg2rad(torch.arange(0, 360, 10, dtype=torch.float64))
    out = torch.stack([azimuth.cos(), azimuth.sin(), 0 * azimuth], dim=1)
    room = with_poses(look_at(0.3 * out, 2 * out, UP))
    steps = torch.linspace(0, 10, 30, dtype=torch.float64)[:, None] * torch.tensor([0.0, 1.0, 0.0])
    walk = with_poses(look_at(steps, steps + torch.tensor([0.0, 1.0, 0.0]), UP))
    for photos in (room, walk):
        path = capture_orbit(photos, 240)
        assert_smooth_and_closed(path)
        distance, angle = nearest_photo(path, photos)
        assert distance < 0.35 and angle < 10


def test_an_orbit_of_one_photo_and_of_photos_from_above() -> None:
    alone = ring(torch.zeros(1), shake=0)
    path = capture_orbit(alone, 5)
    assert_rigid(path)
    assert torch.allclose(path.positions, alone.positions.expand(5, 3), atol=1e-9)
    assert torch.allclose(path.forwards, alone.forwards.expand(5, 3), atol=1e-6)
    above = capture_orbit(ring(torch.arange(0, 360, 40), elevation_degrees=88), 60)
    assert_rigid(above)
    assert (above.positions[:, 2] > 3).all()
