"""The photometric loss, and the fused step (render, loss, backward, Adam), against the float64 reference."""

import math

import pytest
import torch
from torch import Tensor

from benchmarks.scenes import Scene, blob, pack
from lumigraph.kernels import splatting, splatting_cuda
from lumigraph.kernels.reference import splatting as reference
from tests.kernels.test_splatting import CPU, ON_DEVICES, RAW, assert_near, find_decided_pixels

GAIN, BIAS = (0.9, 1.1, 1.05), (0.02, -0.03, 0.01)


def photo(width: int, height: int, seed: int = 0) -> Tensor:
    """(3, H, W) uint8: smooth colours with noise, so that SSIM varies."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 3, width), indexing="ij")
    waves = torch.stack([torch.sin(x + y), torch.cos(2 * x), torch.sin(y - x)]) * 0.3 + 0.5
    noisy = waves + 0.1 * torch.randn(3, height, width, generator=generator)
    return (noisy.clamp(0, 1) * 255).to(torch.uint8)


def create_mask(width: int, height: int) -> Tensor:
    """(H, W) uint8: 0, 255, and weights between."""
    return torch.linspace(-100, 355, width * height).clamp(0, 255).to(torch.uint8).view(height, width)


def photometric(ssim: float, square: float) -> object:
    weights = splatting.PhotometricLoss()
    weights.ssim, weights.square, weights.gain, weights.bias = ssim, square, GAIN, BIAS
    return weights


def apply_exposure(rgb: Tensor) -> Tensor:
    """Apply the exposure of the photo to a render (H, W, 3)."""
    return rgb * rgb.new_tensor(GAIN) + rgb.new_tensor(BIAS)


@ON_DEVICES
@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize(("ssim", "square"), [(0.2, 0.0), (0.0, 0.0), (0.4, 0.3), (1.0, 0.0)])
@pytest.mark.parametrize("size", [(53, 41), (7, 3), (131, 100)])
def test_photometric_loss_equals_reference(
    size: tuple[int, int], ssim: float, square: float, has_mask: bool, device: torch.device
) -> None:
    width, height = size
    target, mask = photo(width, height), create_mask(width, height) if has_mask else None
    noise = torch.randn(3, height, width, generator=torch.Generator().manual_seed(1))
    rgb = target / 255 + 0.1 * noise
    seen_mask = None if mask is None else mask.to(device)
    weights = photometric(ssim, square)
    means, gradient, error = splatting.photometric_loss(rgb.to(device), target.to(device), weights, seen_mask)

    exact = rgb.double().permute(1, 2, 0).requires_grad_()
    gain, bias = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (GAIN, BIAS))
    exposed_rgb, truth = exact * gain + bias, target.double().permute(1, 2, 0) / 255
    weight = torch.ones(height, width).double() if mask is None else mask.double() / 255
    reference.ssim_l1_loss(exposed_rgb, truth, ssim, weight, square).backward()

    assert_near("gradient", gradient.cpu().permute(1, 2, 0), exact.grad, 2e-5)
    torch.testing.assert_close(torch.tensor(means["gain"]).double(), gain.grad, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(torch.tensor(means["bias"]).double(), bias.grad, rtol=1e-4, atol=1e-7)
    difference, exposed_rgb = (exposed_rgb - truth).detach(), exposed_rgb.detach()
    assert means["l1"] == pytest.approx((difference.abs() * weight[..., None]).mean().item(), rel=1e-5)
    assert means["mse"] == pytest.approx((difference.square() * weight[..., None]).mean().item(), rel=1e-5)
    if ssim:
        similar = (reference.ssim_map(exposed_rgb, truth) * weight[..., None]).mean().item()
        assert means["ssim"] == pytest.approx(similar, rel=1e-4)
    torch.testing.assert_close(error.cpu().double(), difference.abs().sum(-1) * weight, rtol=1e-5, atol=1e-6)


def trainer_of(scene: Scene, rates: Tensor, sh_rate: float, device: torch.device = CPU) -> splatting.Trainer:
    """Create a trainer in mid-training: nonzero moments, different step counts."""
    generator = torch.Generator().manual_seed(3)
    count = len(scene.means)
    trainer = splatting.Trainer(count + 5, device)
    trainer.count = count
    trainer.params[:count], trainer.sh_rest[:count] = pack(scene)
    trainer.params[:count, splatting.STEP_COUNT] = torch.randint(0, 40, (count,), generator=generator).float()
    for first, second in ((trainer.m, trainer.v), (trainer.sh_m, trainer.sh_v)):
        first[:count] = 1e-5 * torch.randn(first[:count].shape, generator=generator)
        second[:count] = 1e-8 * (0.1 + torch.rand(second[:count].shape, generator=generator))
    trainer.optimizer.lr, trainer.optimizer.lr_sh = rates.tolist(), sh_rate
    return trainer


def by_reference(
    scene: Scene, target: Tensor, weight: Tensor, ssim: float, square: float
) -> tuple[dict[str, Tensor], ...]:
    """Return gradients of the raw parameters, and for each gaussian: sum of weight x error, |dL/d(pixel position)|."""
    raw = {name: getattr(scene, name).double().requires_grad_() for name in RAW}
    splats = reference.project(*scene._replace(**raw)[:-1])
    splats.means.retain_grad()
    rgb, _, _ = reference.composite(splats, scene.size, raw["background"])
    truth = target.double().permute(1, 2, 0) / 255
    reference.ssim_l1_loss(apply_exposure(rgb), truth, ssim, weight, square).backward()

    error = ((apply_exposure(rgb) - truth).abs().sum(-1) * weight).detach()
    depths = splats.depths.detach().requires_grad_()  # d(sum of weight x depth x error) / d depth
    constant_splats = reference.Projected(*(v.detach() for v in splats))._replace(depths=depths)
    (reference.composite(constant_splats, scene.size, scene.background.double())[1] * error).sum().backward()
    scores = torch.zeros(len(scene.means), 2, dtype=torch.float64)
    scores[splats.indices] = torch.stack([depths.grad, splats.means.grad.norm(dim=1)], 1)
    return {name: value.grad for name, value in raw.items()}, scores


@ON_DEVICES
@pytest.mark.parametrize(("degree", "has_mask"), [(0, False), (3, True)])
def test_trainer_step_equals_reference(degree: int, has_mask: bool, device: torch.device) -> None:
    scene = blob(500, (60, 44), degree, seed=4, radius=9)
    width, height = scene.size
    target, ssim, square = photo(width, height, seed=2), 0.3, 0.2
    # Undecided pixels are masked away; only the SSIM of their neighbours still reads them.
    is_decided = find_decided_pixels(scene, antialiased=False)
    mask = (
        create_mask(width, height) if has_mask else torch.full((height, width), 255, dtype=torch.uint8)
    ) * is_decided
    gradients, scores = by_reference(scene, target, mask.double() / 255, ssim, square)

    rates = torch.linspace(1e-3, 2e-2, 16)
    rates[14:] = 0
    trainer = trainer_of(scene, rates, 1e-3, device)
    live, names = slice(0, trainer.count), ("params", "m", "v", "sh_rest", "sh_m", "sh_v")
    before = {name: getattr(trainer, name).cpu().double() for name in names}
    camera = splatting.Camera(scene.world_to_cam, scene.focal, scene.centre, scene.size)
    photo_and_mask = target.to(device), mask.contiguous().to(device)
    trainer.step(camera, degree, scene.background.tolist(), *photo_and_mask, photometric(ssim, square))
    after = {name: getattr(trainer, name).cpu().double() for name in names}

    is_visible = after["params"][live, splatting.STEP_COUNT] > before["params"][live, splatting.STEP_COUNT]
    row_gradients = [rows.double() for rows in pack(scene._replace(**{name: gradients[name] for name in RAW[:5]}))]
    hidden_gradients = torch.cat([rows[~is_visible] for rows in row_gradients], 1)
    assert is_visible.sum() > 100 and hidden_gradients.norm() <= 1e-6 * row_gradients[0].norm()
    steps = before["params"][live, splatting.STEP_COUNT]
    for rows, gradient, rate in zip((names[:3], names[3:]), row_gradients, (rates.double(), 1e-3), strict=True):
        values, first, second = (before[name][live] for name in rows)
        expected = reference.adam(values, gradient, first, second, steps, rate, is_visible)
        column_count = 14 if rows[0] == "params" else 3 * ((degree + 1) ** 2 - 1)
        for name, truth in zip(rows, expected[:3], strict=True):
            expected_change = (truth - before[name][live])[:, :column_count]
            assert_near(name, (after[name] - before[name])[live, :column_count], expected_change, 1e-4)
        assert torch.equal(after[rows[0]][trainer.count :], before[rows[0]][trainer.count :])
    assert torch.equal(after["params"][live, splatting.STEP_COUNT], steps + is_visible)
    assert_near("score", trainer.score[live].cpu().double(), scores, 1e-4)


@ON_DEVICES
def test_trainer_step_lowers_loss(device: torch.device) -> None:
    """Forty steps on one photo halve the loss, which a sign error would prevent."""
    scene = blob(600, (48, 36), degree=1, seed=5, radius=9)
    rates = torch.tensor([*[2e-3] * 3, *[1e-2] * 3, *[1e-2] * 4, 5e-2, *[2e-2] * 3, 0, 0])
    trainer = trainer_of(scene, rates, 1e-3, device)
    for moments in (trainer.m, trainer.v, trainer.sh_m, trainer.sh_v):
        moments.zero_()
    trainer.params[:, splatting.STEP_COUNT] = 0
    camera = splatting.Camera(scene.world_to_cam, scene.focal, scene.centre, scene.size)
    target, background = photo(48, 36).to(device), scene.background.tolist()
    errors = [trainer.step(camera, 1, background, target, None, photometric(0.2, 0.0))["l1"] for _ in range(40)]
    assert all(math.isfinite(error) for error in errors)
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize("device", ["emulated", "cuda"], indirect=True)
def test_trainer_step_overflow_updates_nothing(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host does not wait for the count of tile intersections, so growing gaussians overflow the buffers once."""
    monkeypatch.setattr(splatting_cuda, "INITIAL_INTERSECTIONS_PER_SPLAT", 1)
    monkeypatch.setattr(splatting_cuda, "MIN_INTERSECTIONS", 8)
    scene = blob(10, (96, 80), degree=0, seed=7, radius=3)
    rates = torch.tensor([*[2e-3] * 14, 0, 0])
    trainer = trainer_of(scene, rates, 1e-3, device)
    camera = splatting.Camera(scene.world_to_cam, scene.focal, scene.centre, scene.size)
    target = photo(96, 80).to(device)

    def step() -> tuple[bool, int]:
        before = trainer.params.clone()
        metrics = trainer.step(camera, 0, (0.0, 0.0, 0.0), target, None, photometric(0.2, 0.0))
        return not torch.equal(trainer.params, before), metrics["tile_intersections"]

    has_changed, first_count = step()
    assert has_changed
    trainer.params[:10, splatting.LOG_SCALE] += 2.5
    has_changed, larger_count = step()
    assert larger_count > 2 * first_count and not has_changed
    has_changed, repeated_count = step()
    assert has_changed and repeated_count == larger_count
