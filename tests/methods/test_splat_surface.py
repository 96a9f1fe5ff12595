"""Surface steps against planes, whose normals and depths are known."""

import math

import pytest
import torch
from torch import Tensor

from lumigraph.kernels import splatting as kernel
from lumigraph.methods import splat, splat_surface
from lumigraph.methods.train import Budget
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.surface import normals_from_depth
from tests.methods.test_splat import coloured

SIZE, DEPTH = 48, 4.0
GREY = torch.full((3, SIZE, SIZE), 128, dtype=torch.uint8)


def camera() -> Cameras:
    sizes = torch.tensor([[SIZE, SIZE]])
    return Cameras(torch.eye(3, 4)[None], torch.full((1, 2), 40.0), sizes / 2, sizes)


def plane(slope: float, astray: float = 0.0, turned: float = 0.0, seed: int = 0) -> Tensor:
    """Rows of flat opaque gaussians on z = DEPTH + slope x, moved along z and turned at random."""
    random = torch.Generator().manual_seed(seed)
    across = torch.linspace(-4, 4, 48)
    x, y = (part.flatten() for part in torch.meshgrid(across, across, indexing="ij"))
    z = DEPTH + slope * x + astray * torch.randn(len(x), generator=random)
    rows = kernel.allocate_rows(len(x), kernel.PARAM_COLUMNS)
    rows[:, kernel.MEAN] = torch.stack([x, y, z], 1)
    rows[:, kernel.LOG_SCALE] = torch.tensor([0.15, 0.15, 0.01]).log()
    half = -math.atan(slope) / 2  # about y, which takes z to the plane's normal
    rows[:, kernel.QUAT] = torch.tensor([math.cos(half), 0, math.sin(half), 0])
    rows[:, kernel.QUAT] += turned * torch.randn(len(x), 4, generator=random)
    rows[:, kernel.LOGIT_OPACITY] = 3.0
    rows[:, kernel.STEP_COUNT] = 1000
    return rows


def view() -> kernel.Camera:
    return splat.camera_of(camera(), 0)


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_normals_of_a_plane_point_to_the_camera(slope: float) -> None:
    normals, depth, alpha = splat_surface.render_normals(plane(slope), view())
    inside = alpha > 0.99
    assert inside.float().mean() > 0.9
    expected = torch.nn.functional.normalize(torch.tensor([slope, 0.0, -1.0]), dim=0)
    directions = torch.nn.functional.normalize(normals[inside], dim=-1)
    assert torch.allclose(directions, expected.expand_as(directions), atol=1e-3)
    x = (torch.arange(SIZE) + 0.5 - SIZE / 2) / 40
    truth = (DEPTH / (1 - slope * x)).expand(SIZE, SIZE)
    assert ((depth / alpha - truth).abs() / truth)[inside].median() < 0.03


def test_loss_of_a_plane_is_zero_and_grows_with_its_roughness() -> None:
    smooth, rough, rougher = (
        float(splat_surface.surface_loss(plane(0.5, astray, turned), view(), camera(), GREY))
        for astray, turned in ((0, 0), (0.03, 0.1), (0.1, 0.3))
    )
    assert smooth < 1e-3
    assert 10 * smooth < rough < rougher


def test_edges_of_the_photo_count_less() -> None:
    edges = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
    edges[:, :, ::4], edges[:, :, 1::4] = 255, 255
    rows = plane(0.0, 0.05, 0.2)
    flat, edged = (splat_surface.surface_loss(rows, view(), camera(), photo) for photo in (GREY, edges))
    assert edged < 0.1 * flat


def test_gradient_is_that_of_differences() -> None:
    rows = plane(0.3, 0.03, 0.1).requires_grad_()
    splat_surface.surface_loss(rows, view(), camera(), GREY).backward()  # type: ignore[no-untyped-call]
    assert rows.grad is not None
    step = 1e-4 * rows.grad / rows.grad.norm()
    with torch.no_grad():
        ahead, behind = (
            float(splat_surface.surface_loss(rows + side * step, view(), camera(), GREY)) for side in (1, -1)
        )
    assert (ahead - behind) / 2e-4 == pytest.approx(float(rows.grad.norm()), rel=0.05)


def test_steps_smooth_a_rough_plane() -> None:
    rough = plane(0.5, astray=0.05, turned=0.2)
    trainer = kernel.Trainer(len(rough))
    trainer.params[:], trainer.count = rough, len(rough)
    trainer.v += 1e-10  # what photometric gradients of 1e-5 leave
    trainer.optimizer.lr = [5e-3] * splat_surface.GEOMETRY + [0.0] * 5

    def slant() -> float:
        """Degrees between the normals of the depth and the plane's."""
        _, depth, alpha = kernel.render(trainer.params, torch.zeros(len(rough), kernel.SH_COLUMNS), view(), 0)
        normals = normals_from_depth((depth / alpha)[None, ..., None], camera())[0][4:-4, 4:-4]
        expected = torch.nn.functional.normalize(torch.tensor([0.5, 0.0, -1.0]), dim=0)
        return float(torch.rad2deg(torch.acos((normals @ expected).clamp(-1, 1))).median())

    before = slant()
    losses = [splat_surface.surface_step(trainer, view(), camera(), GREY) for _ in range(100)]
    assert losses[-1] < 0.5 * losses[0]
    assert slant() < 0.6 * before


def test_a_training_takes_surface_steps_in_its_second_half(monkeypatch: pytest.MonkeyPatch) -> None:
    step_losses: list[float] = []

    def step(*arguments: object) -> float:
        step_losses.append(surface_step(*arguments))  # type: ignore[arg-type]
        return step_losses[-1]

    surface_step = splat_surface.surface_step
    monkeypatch.setattr(splat_surface, "surface_step", step)
    for surface, expected in ((True, 10), (False, 0)):
        step_losses.clear()
        training = splat.start(coloured(), splat.Config(cap=600, surface=surface), Budget(None, 40))
        for i in range(40):
            training.step(i, i / 40)
        assert len(step_losses) == expected
        assert all(math.isfinite(loss) for loss in step_losses)
        assert training.field.params[:, :14].isfinite().all()
