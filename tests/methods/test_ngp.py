"""The parts of instant-NGP that are its own: where it looks, what its losses are, how it fits into memory."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from lumigraph.kernels import adam, hashgrid, ray_marching, volume_rendering
from lumigraph.methods import memory, nerf, ngp
from lumigraph.methods.initialization import Beginning
from lumigraph.methods.ray_sampler import Anchors, Pixels
from lumigraph.methods.train import Budget
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Cameras, Rays, generate_rays, pixel_grid
from lumigraph.scene.capture import ArrayPhotos
from lumigraph.scene.errors import RunError
from tests.methods.scene import ball

SMALL = ngp.Config(log2_hashmap_size=12, max_resolution=64, samples=1 << 12, occupancy_grid=32, steps_per_diagonal=128)


def test_the_hull_holds_the_ball_and_little_else() -> None:
    occupancy = ray_marching.OccupancyGrid(torch.ones(1, 32, 32, 32, dtype=torch.uint8), torch.zeros(3), 2.0)
    cells = ngp.hull(ball(40, 48), occupancy, 32)
    at = (torch.arange(32) + 0.5) / 32 * 4 - 2
    z, y, x = torch.meshgrid(at, at, at, indexing="ij")
    r = (x * x + y * y + z * z).sqrt()
    assert cells[r < 1].all()
    assert cells[r > 1.4].float().mean() < 0.1  # above and below, no photo looks from the side


def test_unbounded_space_is_contracted_into_the_cube_and_keeps_its_order() -> None:
    cells = torch.ones(3, 8, 8, 8, dtype=torch.uint8)
    field = ngp.NgpField(
        hashgrid.HashGrid(8, 4, 16),
        torch.zeros(0),
        torch.zeros(0),
        ray_marching.OccupancyGrid(cells, torch.tensor([1.0, 0, 0]), 2.0),
        64,
        2.0,
    )
    far = torch.tensor([[1.0, 0, 0], [3, 0, 0], [5, 0, 0], [1001, 0, 0]])
    # Barron et al. 2022, eq. 10: 2 - 1/r beyond 1, here halved into 0..1 around 0.5
    expected = torch.tensor([0.5, 0.75, 0.5 + 1.5 / 4, 0.5 + (2 - 1 / 500) / 4])
    torch.testing.assert_close(field.unit(far)[:, 0], expected)


def test_distortion_is_the_double_sum() -> None:
    g = torch.Generator().manual_seed(0)
    first = torch.tensor([0, 4, 4, 9])
    t = torch.cat([torch.rand(4, generator=g).sort().values, torch.rand(5, generator=g).sort().values]) * 3
    d, w = torch.rand(9, generator=g), torch.rand(9, generator=g)
    total = 0.0
    for r in range(3):
        ray = range(int(first[r]), int(first[r + 1]))
        total += sum(float(w[i] * w[j]) * abs(float(t[i] - t[j])) / 3 for i in ray for j in ray)
        total += sum(float(w[i]) ** 2 * float(d[i]) / 3 / 3 for i in ray)
    assert float(ngp.distortion(w, ray_marching.RaySamples(first, t, d), 3.0)) == pytest.approx(total / 3, rel=1e-5)


def test_samples_that_no_light_reaches_are_left_out() -> None:
    capture = ball().split()[0]
    training = ngp.start(capture, SMALL, Budget(steps=500))
    for i in range(500):
        training.step(i, i / 500)
    field = training.field
    origin = torch.tensor([[4.0, 0, 0], [4.0, 0, 0.2], [4.0, 0, 5]])
    beams = Rays(origin, torch.tensor([[-1.0, 0, 0]]).expand(3, 3).contiguous())
    marched = field.samples(beams, torch.full((3,), 0.5))
    lit = field.lit(beams, marched)
    assert 0 < len(lit.t) < len(marched.t)
    assert lit.ray_offsets[-1] == len(lit.t)
    with torch.no_grad():
        whole, part = field.along(beams, marched), field.along(beams, lit)
    torch.testing.assert_close(whole.rgb, part.rgb, atol=2 * ngp.DIM, rtol=0)
    torch.testing.assert_close(field.seen(beams)[:, :3], whole.rgb, atol=2 * ngp.DARK, rtol=0)


def test_nested_cubes_reach_as_far_as_the_points() -> None:
    points = torch.tensor([[0.1, 0, 0], [9.0, 0, 0]] * 50)
    measured, guessed = (Beginning(points, torch.zeros(100, 3), is_measured) for is_measured in (True, False))
    capture = ball(4, alpha=False)
    assert ngp.cubes_of(capture, measured, torch.zeros(3), 1.0) == 5
    assert ngp.cubes_of(capture, measured, torch.zeros(3), 0.1) == 8
    assert ngp.cubes_of(capture, guessed, torch.zeros(3), 0.1) == 5
    assert ngp.cubes_of(ball(4), measured, torch.zeros(3), 1.0) == 1


def test_visible_cells_are_in_a_view_and_in_no_free_space() -> None:
    """Two cameras side by side that look along z, against rays through their pixels."""
    poses = torch.eye(3, 4).repeat(2, 1, 1)
    poses[:, 0, 3] = torch.tensor([-1.0, 1])
    cameras = Cameras(poses, torch.full((2, 2), 20.0), torch.full((2, 2), 10.0), torch.full((2, 2), 20))
    side, free = 32, torch.tensor([4.0, 6])
    occupancy = ray_marching.OccupancyGrid(
        torch.ones(2, side, side, side, dtype=torch.uint8), torch.tensor([0.0, 0, 8]), 8.0
    )
    cells = ngp.visible(cameras, free, occupancy)
    which = torch.arange(2).repeat_interleave(400)
    beams = generate_rays(cameras, which, pixel_grid((20, 20)).flatten(0, 1).repeat(2, 1))

    def cells_at(depth: Tensor) -> Tensor:
        points = beams.origins + (depth / beams.directions[:, 2])[:, None] * beams.directions
        reach = (points - occupancy.centre).abs().amax(1)
        level = (reach > 8).long()
        x, y, z = (((points - occupancy.centre) / (8.0 * 2**level)[:, None] + 1) / 2 * side).long().unbind(1)
        return cells[level, z, y, x]

    for share in (0.05, 0.3, 0.6):  # a margin of one cell is left before the end of the free space
        assert not cells_at(share * free[which]).any()
    for depth in (7.0, 12, 20):
        assert cells_at(torch.full((800,), depth)).all()
    assert not cells[0, :12, :, :4].any()  # to the left of both views
    assert not cells[1, :8].any()  # behind the cameras


@pytest.mark.parametrize("alpha", [True, False])
def test_training_is_the_same_in_another_unit(alpha: bool) -> None:
    """Coordinates in millimetres instead of metres, by a power of two: the very same numbers, scaled."""
    capture = ball(12, alpha=alpha).split()[0]
    pose = capture.cameras.world_from_cam.clone()
    pose[:, :, 3] *= 1024
    scaled = dataclasses.replace(capture, cameras=dataclasses.replace(capture.cameras, world_from_cam=pose))
    losses = []
    for world in (capture, scaled):
        training = ngp.start(world, SMALL, Budget(steps=20))
        losses.append([training.step(i, i / 20)["loss"] for i in range(20)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


def test_options_that_change_the_loss_learn_too() -> None:
    capture = ball().split()[0]
    points = torch.nn.functional.normalize(torch.randn(200, 3), dim=1)
    seen_by = torch.stack([(points @ torch.nn.functional.normalize(p, dim=0)) > 0.4 for p in capture.cameras.positions])
    rows = [torch.nonzero(seen_by[:, i])[:, 0].to(torch.int32) for i in range(200)]
    offsets = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)
    capture = dataclasses.replace(capture, points=Points(points, view_offsets=offsets, view_indices=torch.cat(rows)))
    config = dataclasses.replace(SMALL, depth_weight=0.1, distortion_weight=0.01, exposure=True)
    training = ngp.start(capture, config, Budget(steps=150))
    losses = [training.step(i, i / 150)["loss"] for i in range(150)]
    assert sum(losses[-10:]) < 0.3 * sum(losses[:10])
    assert training.exposure.abs().max() > 0


def test_anchors_are_rays_to_the_points() -> None:
    capture = ball(4)
    points = Points(
        torch.tensor([[0.3, 0.2, 0.1]]), view_offsets=torch.tensor([0, 2]), view_indices=torch.tensor([1, 3]).int()
    )
    generator = torch.Generator().manual_seed(0)
    photo, pixel, distance = Anchors(dataclasses.replace(capture, points=points), generator).draw(10)
    batch = Pixels(capture, generator).through(photo, pixel, torch.zeros(10, 4))
    reached = batch.rays.origins + distance[:, None] * batch.rays.directions
    torch.testing.assert_close(reached, points.xyz.expand(10, 3), atol=1e-4, rtol=0)
    with pytest.raises(RunError, match="which photos saw which points"):
        Anchors(capture, generator)


def test_pixels_are_those_of_the_photos_masked_ones_left_out_and_all_photos_are_seen_in_time() -> None:
    capture = ball(8)
    masks = [torch.zeros(24, 24, 1, dtype=torch.uint8) for _ in range(8)]
    for mask in masks:
        mask[:12] = 255
    masked = dataclasses.replace(capture, masks=ArrayPhotos(masks))
    pixels = Pixels(masked, torch.Generator().manual_seed(0), limit=2 * 24 * 24 * 5)
    seen: set[int] = set()
    for _ in range(2000):
        batch = pixels.draw(20)
        assert len(batch.photo) <= 20
        seen |= set(batch.photo.tolist())
    assert seen == set(range(8))
    assert (batch.rays.directions.norm(dim=1) - 1).abs().max() < 1e-5
    # the rays look through the upper half: above the horizon of a camera that looks at the middle
    positions = capture.cameras.positions[batch.photo]
    down = capture.cameras.world_from_cam[batch.photo, :, 1]
    assert ((batch.rays.directions * down).sum(1) < 0).all()
    torch.testing.assert_close(batch.rays.origins, positions)


def test_a_batch_that_does_not_fit_is_halved_once_and_then_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = ball().split()[0]
    config = nerf.Config(width=256, coarse_samples=64, fine_samples=128, rays=4096)
    need = nerf.start(capture, config, Budget(steps=1))._bytes_each() * 4096
    monkeypatch.setattr(memory, "available", lambda device: 0.6 * need)
    training = nerf.start(capture, config, Budget(steps=1))
    assert training.rays == 2048
    assert "4,096 rays a step do not fit" in training.notes[0] and "taking 2,048" in training.notes[0]
    monkeypatch.setattr(memory, "available", lambda device: 0.1 * need)
    with pytest.raises(RunError, match=r"2,048 rays a step need about [\d.]+ GiB of memory and [\d.]+ GiB are free"):
        nerf.start(capture, config, Budget(steps=1))
    nerf.start(capture, dataclasses.replace(config, checkpoint=True), Budget(steps=1))
    monkeypatch.setattr(memory, "available", lambda device: 1e6)
    with pytest.raises(RunError, match="fewer samples"):
        ngp.start(capture, SMALL, Budget(steps=1))


def test_available_memory_is_a_number() -> None:
    assert 1e6 < memory.available("cpu") < math.inf


def test_the_route_of_other_devices_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = ball().split()[0]
    losses = []
    for compiled in (True, False):
        if not compiled:
            for module in (hashgrid, volume_rendering, ray_marching, adam):
                monkeypatch.setattr(module, "has_compiled_kernel", lambda *tensors: False)
        training = ngp.start(capture, SMALL, Budget(steps=30))
        losses.append([training.step(i, i / 30)["loss"] for i in range(30)])
    assert losses[1][:5] == pytest.approx(losses[0][:5], rel=1e-3)
    assert sum(losses[1][-5:]) == pytest.approx(sum(losses[0][-5:]), rel=0.2)
