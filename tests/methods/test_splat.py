"""What a splat training does around its kernels, which tests/kernels holds against the reference."""

import dataclasses
import math

import pytest
import torch

from lumigraph.kernels import splatting as kernel
from lumigraph.kernels import splatting_cuda
from lumigraph.methods import splat
from lumigraph.methods.initialization import Beginning, free_depths, free_radii
from lumigraph.methods.train import Budget
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.capture import ArrayPhotos, Capture
from lumigraph.scene.errors import RunError
from tests.kernels import emulated

VIEWS, SIZE = 10, (24, 18)


def cameras() -> Cameras:
    """A row of cameras on the x axis, half a unit apart, that look along z."""
    world_from_cam = torch.eye(3, 4).repeat(VIEWS, 1, 1)
    world_from_cam[:, 0, 3] = torch.arange(VIEWS) * 0.5
    sizes = torch.tensor([SIZE] * VIEWS)
    return Cameras(world_from_cam, torch.full((VIEWS, 2), 20.0), sizes / 2, sizes)


def wall(depth: float) -> Points:
    """Points of a plane that stands across all views."""
    x, y = torch.meshgrid(torch.linspace(-4, 9, 80), torch.linspace(-3, 3, 40), indexing="xy")
    xyz = torch.stack([x, y, torch.full_like(x, depth)], -1).reshape(-1, 3)
    return Points(xyz, torch.full((len(xyz), 3), 128, dtype=torch.uint8))


def capture() -> Capture:
    photo = torch.full((SIZE[1], SIZE[0], 3), 128, dtype=torch.uint8)
    names = [f"{i}.png" for i in range(VIEWS)]
    return Capture(
        cameras=cameras(),
        photos=ArrayPhotos([photo] * VIEWS),
        names=names,
        held_out=torch.zeros(VIEWS, dtype=torch.bool),
        points=wall(4.0),
    )


def coloured() -> Capture:
    """The wall with a smooth picture on it, as each camera sees it."""
    photos = []
    for i in range(VIEWS):
        x, y = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="xy")
        X, Y = (x - SIZE[0] / 2) / 20 * 4 + 0.5 * i, (y - SIZE[1] / 2) / 20 * 4
        rgb = torch.stack([torch.sin(X), torch.cos(Y), torch.sin(X + Y)], -1) * 0.4 + 0.5
        photos.append((rgb * 255).to(torch.uint8))
    return dataclasses.replace(capture(), photos=ArrayPhotos(photos))


def test_half_the_way_to_the_nearest_points_is_free() -> None:
    xyz = wall(4.0).xyz
    one_astray = torch.cat([xyz, torch.tensor([[0.0, 0.0, 0.1]])])  # in a hundredth that does not count
    free = free_depths(cameras(), Beginning(one_astray, torch.zeros_like(one_astray), is_measured=True))
    torch.testing.assert_close(free, torch.full((VIEWS,), 2.0))


@pytest.mark.parametrize("unit", [1.0, 100.0])
def test_half_the_distance_of_the_nearest_points_is_free_all_around(unit: float) -> None:
    generator = torch.Generator().manual_seed(0)
    ball = torch.randn(2_000, 3, generator=generator)
    ball /= ball.norm(dim=1, keepdim=True)  # around the origin, as seen from its middle or from outside
    seen = cameras()
    positions = torch.zeros(VIEWS, 3)
    positions[1] = torch.tensor([0.0, 0.0, -4.0])
    poses = torch.cat([seen.world_from_cam[:, :, :3], unit * positions[..., None]], 2)
    points = Beginning(unit * ball, torch.zeros_like(ball), is_measured=True)
    radii = free_radii(dataclasses.replace(seen, world_from_cam=poses), points) / unit
    torch.testing.assert_close(radii, torch.tensor([0.5, 1.5] + [0.5] * (VIEWS - 2)), atol=0.02, rtol=0)


def test_where_nothing_was_measured_little_is_free() -> None:
    xyz = wall(4.0).xyz
    guessed = Beginning(xyz, torch.zeros_like(xyz), is_measured=False)
    assert free_depths(cameras(), guessed).max() < 0.1
    assert free_radii(cameras(), guessed).max() == 0


def test_what_hangs_before_or_beside_a_camera_fades_and_the_rest_stays() -> None:
    training = splat.start(capture(), splat.Config(cap=8_000), Budget(steps=100))
    training.seed(Beginning(wall(4.0).xyz, torch.zeros(3_200, 3), is_measured=True))
    training.rows.params[7, kernel.MEAN] = torch.tensor([1.0, 0.0, 0.5])  # before the third camera
    training.rows.params[8, kernel.MEAN] = torch.tensor([1.0, 0.0, -0.5])  # behind it
    training.rows.params[9, kernel.MEAN] = torch.tensor([1.0, 0.0, -2.5])  # behind it, and too far away
    for turn in range(math.ceil(VIEWS / splat.CLEARED)):
        training._clear(turn)
    faded = training.rows.params[: training.rows.count, kernel.LOGIT_OPACITY] == splat.FADED
    assert faded.nonzero()[:, 0].tolist() == [7, 8]


def test_resuming_keeps_the_rows_and_what_is_free() -> None:
    budget, config = Budget(steps=4), splat.Config(cap=8_000)
    training = splat.start(capture(), config, budget)
    for i in range(2):
        training.step(i, i / 4)
    again = splat.resume(capture(), config, training.state(), budget)
    assert torch.equal(again.free, training.free)
    for i in (2, 3):
        assert training.step(i, i / 4) == again.step(i, i / 4)
    assert torch.equal(again.rows.params[: again.rows.count], training.rows.params[: training.rows.count])


def test_a_checkpoint_of_free_depths_alone_is_resumed() -> None:
    budget, config = Budget(steps=4), splat.Config(cap=8_000)
    state = splat.start(capture(), config, budget).state()
    depths = state["free"][0]
    again = splat.resume(capture(), config, {**state, "free": depths}, budget)
    assert torch.equal(again.free, torch.stack([depths, torch.zeros(VIEWS)]))


@pytest.mark.parametrize("missing", ["free", "params", "counts"])
def test_a_checkpoint_that_lacks_something_is_refused(missing: str) -> None:
    budget, config = Budget(steps=4), splat.Config(cap=8_000)
    state = splat.start(capture(), config, budget).state()
    del state[missing]
    with pytest.raises(RunError, match="not a checkpoint"):
        splat.resume(capture(), config, state, budget)


def test_the_kernels_of_a_gpu_learn_what_those_of_the_processor_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short training with everything in it, densifying too, by CUDA kernels that a processor runs: rows differ in
    their last bits, and so, after a while, in whom chance splits; what was learned is as good."""
    seen, settings = coloured(), splat.Config(cap=900, start_points=300, densify_every=10, seed=3)
    errors = {}
    for where in ("cpu", "emulated"):
        if where == "emulated":
            monkeypatch.setattr(
                kernel, "create_rasterizer", lambda device: splatting_cuda.Rasterizer(emulated.launcher(), device)
            )
            monkeypatch.setattr(splat.SplatTraining, "_grow", splat.SplatTraining._grow_without_waiting)
        training = splat.start(seen, settings, Budget(steps=40))
        told = [training.step(i, i / 40) for i in range(40)]
        image = training.field.render(training.pictures.cameras[-1][:1], torch.zeros(3))
        errors[where] = (image.rgb[0] - seen.photo(0) / 255).abs().mean().item(), told[-1]["gaussians"]
    assert errors["emulated"][1] == errors["cpu"][1] > 600
    assert errors["emulated"][0] == pytest.approx(errors["cpu"][0], rel=0.15)


@pytest.mark.parametrize("grow", ["_grow", "_grow_without_waiting"])
@pytest.mark.parametrize("seen", [600, 3])
def test_the_faded_are_recycled_and_the_seen_are_split(grow: str, seen: int) -> None:
    """Both ways to grow: children take the rows of the faded first, then new ones, and only what was seen has any."""
    training = splat.start(coloured(), splat.Config(cap=900, start_points=600, seed=1), Budget(steps=100))
    rows, n = training.rows, training.rows.count
    assert n == 450  # half of the cap at most
    dead = torch.zeros(n, dtype=torch.bool)
    dead[100:140] = True
    rows.params[:n][dead, kernel.LOGIT_OPACITY] = splat.FADED
    weight = torch.rand(n, generator=torch.Generator().manual_seed(2)) + 0.1
    weight[seen:] = 0
    weight[dead] = 0
    before = rows.params[:n].clone()
    getattr(training, grow)(weight, dead, n + 50)
    after = rows.params[: rows.count]
    visible = after[:, kernel.LOGIT_OPACITY] > splat.FADED + 1
    pairs = min(90, int((weight > 0).sum()))
    assert int(visible.sum()) == n - 40 + pairs and rows.count <= n + 50
    moved = (after[:n] != before).any(1)
    assert moved[dead].sum() == min(40, pairs)
    assert ((weight > 0) | dead)[moved].all()
    new = after[visible][~(after[visible][:, None, kernel.MEAN] == before[None, :, kernel.MEAN]).all(-1).any(1)]
    assert len(new) == 2 * pairs  # a parent and its child both stand where nobody stood
    assert not rows.params[training.cap, :14].isnan().any()


def cut_out() -> Capture:
    """A white disc at depth 4 before nothing, as each camera sees it, with straight alpha."""
    photos = []
    for i in range(VIEWS):
        x, y = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="xy")
        X, Y = (x - SIZE[0] / 2) / 20 * 4 + 0.5 * i, (y - SIZE[1] / 2) / 20 * 4
        inside = (X - 2.25) ** 2 + Y**2 < 1
        photos.append(torch.where(inside, 255, 0).to(torch.uint8)[..., None].expand(-1, -1, 4).contiguous())
    return dataclasses.replace(capture(), photos=ArrayPhotos(photos), has_alpha=True)


def test_white_object_gets_no_white_smoke() -> None:
    steps = 300
    training = splat.start(cut_out(), splat.Config(cap=3_500), Budget(steps=steps))
    for i in range(steps):
        training.step(i, i / steps)
    alpha = training.field.render(cameras()[5]).alpha
    assert alpha is not None
    truth = cut_out().photo(5)[..., 3].float() / 255
    assert (alpha[0, ..., 0] - truth).abs().mean() < 0.05


def test_few_photos_get_a_lower_sh_degree() -> None:
    assert splat.start(capture(), splat.Config(cap=8_000), Budget(steps=10)).highest_degree == 1
    assert splat.start(capture(), splat.Config(cap=8_000, sh_degree=0), Budget(steps=10)).highest_degree == 0


def test_too_few_steps_are_told() -> None:
    training = splat.start(capture(), splat.Config(cap=8_000), Budget(steps=10))
    training.step(0, 0.5)
    assert len(training.closing_notes()) == 1
    training.step(20 * VIEWS, 0.9)
    assert not training.closing_notes()
