"""The compiled splat kernels against the float64 reference: values, all gradients, determinism, invalid input."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from benchmarks.scenes import Scene, blob, pack, unpack
from lumigraph.kernels import native, splatting, splatting_cpu
from lumigraph.kernels.reference import splatting as reference

RAW = ("means", "log_scales", "quats", "logit_opacities", "sh", "world_to_cam", "background")
CPU = torch.device("cpu")
ON_DEVICES = pytest.mark.parametrize("device", ["cpu", "emulated", "cuda"], indirect=True)
BAND = 1e-4  # relative width around a threshold within which float32 and float64 may decide differently


class Rendered(NamedTuple):
    rgb: Tensor
    depth: Tensor
    alpha: Tensor
    gradients: dict[str, Tensor]


def weights(scene: Scene, is_decided: Tensor, kinds: str) -> list[Tensor]:
    """Random dL/drgb, dL/ddepth, dL/dalpha; zero for outputs not named in `kinds` and at undecided pixels."""
    generator = torch.Generator().manual_seed(7)
    width, height = scene.size
    shapes = {"rgb": (height, width, 3), "depth": (height, width, 1), "alpha": (height, width, 1)}
    gradients_by_output = {
        kind: torch.randn(shape, generator=generator) * is_decided[..., None] for kind, shape in shapes.items()
    }
    return [gradients_by_output[kind].squeeze(-1) * (kind in kinds.split()) for kind in shapes]


def by_reference(scene: Scene, loss: list[Tensor], antialiased: bool) -> Rendered:
    raw = {name: getattr(scene, name).double().requires_grad_() for name in RAW}
    images = reference.render(*scene._replace(**raw), antialiased=antialiased)
    torch.autograd.backward(images, [w.double() for w in loss])
    return Rendered(*(image.detach() for image in images), {n: v.grad for n, v in raw.items()})


def by_kernels(scene: Scene, loss: list[Tensor], antialiased: bool, device: torch.device = CPU) -> Rendered:
    params, sh_rest = (v.to(device).requires_grad_() for v in pack(scene))
    pose, background = (v.clone().requires_grad_() for v in (scene.world_to_cam, scene.background))
    degree = math.isqrt(scene.sh.shape[1]) - 1
    camera = splatting.Camera(pose, scene.focal, scene.centre, scene.size, antialiased=antialiased)
    images = splatting.render(params, sh_rest, camera, degree, background)
    torch.autograd.backward(images, [w.to(device) for w in loss])
    assert not params.grad[:, 14:].any()
    gradients = unpack(params.grad.cpu(), sh_rest.grad.cpu(), degree)
    return Rendered(
        *(image.detach().cpu() for image in images),
        {**gradients, "world_to_cam": pose.grad, "background": background.grad},
    )


def find_decided_pixels(scene: Scene, antialiased: bool) -> Tensor:
    """Return bool (H, W): no gaussian of the pixel is within BAND of a threshold, so float32 decides as float64 does.

    Thresholds are discontinuous: a pair at alpha = 1/255 adds 0.004 or nothing. Few pixels have such a pair.
    """
    raw = {name: getattr(scene, name).double() for name in RAW}
    splats = reference.project(*scene._replace(**raw)[:-1], antialiased=antialiased)
    width, height = scene.size
    xs, ys = torch.meshgrid(torch.arange(width) + 0.5, torch.arange(height) + 0.5, indexing="xy")
    front = torch.argsort(splats.depths, stable=True)
    dx, dy = (torch.stack([xs, ys], -1)[:, :, None] - splats.means[front]).unbind(-1)
    a, b, c = splats.conics[front].unbind(-1)
    raw_alpha = splats.opacities[front] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    alpha = torch.where(raw_alpha >= reference.ALPHA_MIN, raw_alpha.clamp_max(reference.ALPHA_MAX), 0)
    after = torch.cumprod(1 - alpha, -1)
    is_reached = torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], -1) > reference.MIN_TRANSMITTANCE / 2

    def near(values: Tensor, limit: float, band: float) -> Tensor:
        return (values / limit - 1).abs() < band

    # 1 - alpha is down to 0.01, which multiplies the relative error of T.
    is_undecided = near(raw_alpha, reference.ALPHA_MIN, BAND) | near(raw_alpha, reference.ALPHA_MAX, BAND)
    return ~((is_undecided | near(after, reference.MIN_TRANSMITTANCE, 30 * BAND)) & is_reached).any(-1)


def assert_agree(
    scene: Scene,
    device: torch.device = CPU,
    *,
    antialiased: bool = False,
    kinds: str = "rgb depth alpha",
    gradients: float = 1e-5,
) -> None:
    is_decided = find_decided_pixels(scene, antialiased)
    # Up to 7 % of pixels are undecided: many transmittances are near the early stop at 1e-3.
    assert is_decided.float().mean() > 0.93
    loss = weights(scene, is_decided, kinds)
    expected, actual = by_reference(scene, loss, antialiased), by_kernels(scene, loss, antialiased, device)
    max_depth = max(1.0, expected.depth.max().item())
    for name, scale in (("rgb", 1.0), ("depth", max_depth), ("alpha", 1.0)):
        error = (getattr(actual, name) - getattr(expected, name)).abs()[is_decided].max().item()
        assert error <= 2e-5 * scale, f"{name}: off by {error:.2e}"
    for name, truth in expected.gradients.items():
        assert_near(name, actual.gradients[name], truth, gradients)


def assert_near(name: str, actual: Tensor, truth: Tensor, relative: float) -> None:
    """Assert equality up to `relative` in the Euclidean norm of all values."""
    error, size = (actual - truth).norm().item(), truth.norm().item()
    assert error <= relative * size, f"{name}: off by {error:.2e} of {size:.2e}"


@pytest.fixture
def any_threads() -> Iterator[None]:
    before = splatting.threads()
    yield
    splatting.set_threads(before)


def test_pack_roundtrip() -> None:
    scene = blob(10, (8, 8), degree=2)
    for name, values in unpack(*pack(scene), degree=2).items():
        assert torch.equal(values, getattr(scene, name))


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize(("degree", "seed"), [(0, 1), (1, 2), (2, 3), (3, 1), (3, 4), (3, 5)])
def test_render_blob_equals_reference(degree: int, seed: int, antialiased: bool) -> None:
    assert_agree(blob(800, (72, 56), degree, seed, radius=9), antialiased=antialiased)


@ON_DEVICES
@pytest.mark.parametrize(("degree", "antialiased"), [(0, False), (2, True), (3, False)])
def test_render_blob_equals_reference_on_devices(degree: int, antialiased: bool, device: torch.device) -> None:
    assert_agree(blob(500, (72, 56), degree, seed=4, radius=9), device, antialiased=antialiased)


@ON_DEVICES
def test_render_sorts_several_chunks(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 2048 gaussians and 256 tiles: several blocks a pass, and a second pass by tile. Compared with the CPU."""
    scene = blob(2500, (300, 260), degree=1, seed=16, radius=4)
    loss = weights(scene, torch.ones(260, 300), "rgb depth alpha")
    actual = by_kernels(scene, loss, False, device)
    monkeypatch.setattr(splatting, "create_rasterizer", lambda device: splatting_cpu.Rasterizer())
    expected = by_kernels(scene, loss, False)
    assert ((actual.rgb - expected.rgb).abs() > 1e-4).float().mean() < 1e-4  # decisions at 1/255 may differ
    for name, truth in expected.gradients.items():
        assert_near(name, actual.gradients[name], truth, 1e-3)


@ON_DEVICES
@pytest.mark.parametrize("size", [(1, 1), (3, 70), (32, 32), (33, 31), (64, 1), (97, 65)])
def test_render_handles_partial_tiles(size: tuple[int, int], device: torch.device) -> None:
    # Rounding averages out less over few pixels.
    assert_agree(blob(300, size, degree=1, seed=6, radius=9), device, gradients=2e-5)


@ON_DEVICES
@pytest.mark.parametrize("kinds", ["rgb", "depth", "alpha"])
def test_render_gradient_of_each_output(kinds: str, device: torch.device) -> None:
    assert_agree(blob(300, (40, 40), degree=1, seed=8, radius=9), device, kinds=kinds)


@ON_DEVICES
def test_render_from_inside_blob(device: torch.device) -> None:
    """Gaussians behind the camera, next to the image, and far outside it, where slopes are clamped."""
    scene = blob(800, (48, 40), degree=2, seed=9, radius=9)
    scene = scene._replace(means=scene.means * 2.5)
    depths = scene.means @ scene.world_to_cam[2, :3] + scene.world_to_cam[2, 3]
    assert (depths < 0.01).any()
    assert_agree(scene, device)


@ON_DEVICES
@pytest.mark.parametrize("turn", [0.0, 0.9, 2.2])
def test_render_large_gaussians_outside_image(turn: float, device: torch.device) -> None:
    """All gaussians reach into the image from beyond the slope limits, on all four sides."""
    scene = blob(60, (48, 40), degree=2, seed=13)
    sides = torch.arange(60) % 4 * (math.pi / 2) + turn
    slopes = torch.stack([sides.cos(), sides.sin()], 1) * torch.linspace(0.8, 4.0, 60)[:, None]
    depths = torch.linspace(0.5, 6.0, 60)[:, None]
    in_camera = torch.cat([slopes * depths, depths], 1)
    rotate, translate = scene.world_to_cam[:, :3], scene.world_to_cam[:, 3]
    scene = scene._replace(
        means=(in_camera - translate) @ rotate,
        log_scales=(in_camera.norm(dim=1, keepdim=True) * 0.5).log()
        + 0.3 * scene.log_scales.sub(scene.log_scales.mean()),
    )
    assert_agree(scene, device, gradients=3e-5)


@ON_DEVICES
@pytest.mark.parametrize("antialiased", [False, True])
def test_render_huge_and_tiny_gaussians(antialiased: bool, device: torch.device) -> None:
    scene = blob(400, (48, 40), degree=1, seed=10, radius=5)
    stretch = torch.linspace(-4, 3, 400)[:, None]
    scene = scene._replace(log_scales=scene.log_scales + stretch)
    assert_agree(scene, device, antialiased=antialiased, gradients=2e-5)


@ON_DEVICES
def test_render_stops_opaque_pixels(device: torch.device) -> None:
    """dL/dalpha contains (colour behind the gaussian) / (1 - alpha): alpha = 0.99 amplifies rounding a hundredfold."""
    scene = blob(800, (48, 40), degree=1, seed=11, radius=14)
    scene = scene._replace(logit_opacities=scene.logit_opacities.abs() * 4)
    assert_agree(scene, device, gradients=5e-5)


@ON_DEVICES
@pytest.mark.parametrize("count", [0, 5])
def test_render_of_invisible_gaussians_is_background(count: int, device: torch.device) -> None:
    scene = blob(count, (20, 10), seed=1)
    behind = scene.means + 20 * torch.nn.functional.normalize(scene.means.new_tensor([3.0, -1.2, -3.2]), dim=0)
    loss = weights(scene, torch.ones(10, 20), "rgb depth alpha")
    actual = by_kernels(scene._replace(means=behind), loss, False, device)
    assert torch.equal(actual.rgb, scene.background.expand(10, 20, 3))
    assert not actual.depth.any() and not actual.alpha.any()
    assert not any(actual.gradients[name].any() for name in RAW if name != "background")


def test_render_is_independent_of_threads(any_threads: None) -> None:
    scene = blob(3000, (130, 110), degree=3, seed=12)
    loss = weights(scene, torch.ones(110, 130), "rgb depth alpha")
    results = []
    for threads in (1, 2, 4):
        splatting.set_threads(threads)
        results.append(by_kernels(scene, loss, antialiased=False))
    for result in results[1:]:
        assert torch.equal(result.rgb, results[0].rgb)
        assert torch.equal(result.depth, results[0].depth)
        assert torch.equal(result.alpha, results[0].alpha)
        for name, gradient in results[0].gradients.items():
            assert torch.equal(result.gradients[name], gradient), name


@ON_DEVICES
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_render_drops_nonfinite_rows(bad: float, device: torch.device) -> None:
    """64 rows have one invalid column each. The image shows the other rows, and the gradients of these are zero."""
    scene = blob(300, (40, 30), degree=3, seed=13, radius=9)
    params, sh_rest = pack(scene)
    for row in range(64):
        if row < 14:
            params[row, row] = bad
        else:
            sh_rest[row, (row - 14) % 45] = bad
    healthy = Scene(*(value[64:] if i < 5 else value for i, value in enumerate(scene)))
    loss = weights(scene, torch.ones(30, 40), "rgb depth alpha")
    expected = by_kernels(healthy, loss, False, device)

    params, sh_rest = params.to(device).requires_grad_(), sh_rest.to(device).requires_grad_()
    camera = splatting.Camera(scene.world_to_cam, scene.focal, scene.centre, scene.size)
    images = splatting.render(params, sh_rest, camera, 3, scene.background)
    torch.autograd.backward(images, [w.to(device) for w in loss])
    for image, truth in zip(images, expected[:3], strict=True):
        assert torch.equal(image.cpu(), truth)
    assert not params.grad[:64].any() and not sh_rest.grad[:64].any()
    for name, gradient in unpack(params.grad[64:].cpu(), sh_rest.grad[64:].cpu(), degree=3).items():
        torch.testing.assert_close(gradient, expected.gradients[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("isa", [level for level in native.ISA_LEVELS if level != native.isa])
def test_render_with_other_instruction_sets(isa: str) -> None:
    """A process loads one module, so each instruction set runs some of the tests in its own process."""
    if not native.native.cpu_supports(isa):
        pytest.skip(f"this processor does not have {isa}")
    selection = "blob_equals_reference and 3-4 or nonfinite_rows or trainer_step_equals or fuse_equals"
    command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), "-k", selection]
    run = subprocess.run(command, env={**os.environ, "LUMIGRAPH_ISA": isa}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:]


@ON_DEVICES
def test_render_survives_extreme_rows(device: torch.device) -> None:
    """Rows at the limits of float32 do not make the gradients of other rows infinite or NaN."""
    scene = blob(200, (40, 30), degree=1, seed=14, radius=9)
    params, sh_rest = pack(scene)
    for row, (column, value) in enumerate([(c, v) for c in range(14) for v in (-3e38, -100.0, 1e-38, 100.0, 3e38)]):
        params[row, column] = value
    params[190, 6:10] = 0  # a zero quaternion
    params, sh_rest = params.to(device).requires_grad_(), sh_rest.to(device).requires_grad_()
    camera = splatting.Camera(scene.world_to_cam, scene.focal, scene.centre, scene.size)
    images = splatting.render(params, sh_rest, camera, 1, scene.background)
    loss = weights(scene, torch.ones(30, 40), "rgb depth alpha")
    torch.autograd.backward(images, [w.to(device) for w in loss])
    is_valid_row = torch.arange(200) >= 70
    is_valid_row[190] = False
    assert torch.isfinite(params.grad[is_valid_row]).all() and torch.isfinite(sh_rest.grad[is_valid_row]).all()


def test_render_rejects_wrong_tensors() -> None:
    scene = blob(10, (8, 8))
    params, sh_rest = pack(scene)
    camera = splatting.Camera(scene.world_to_cam, scene.focal, scene.centre, scene.size)
    strided_params = torch.cat([params, params], 1)[:, :16]
    for wrong_params, wrong_rest in [
        (params[:, :15].contiguous(), sh_rest),
        (params, sh_rest[:, :45].contiguous()),
        (params[:9], sh_rest),
        (params.double(), sh_rest),
        (params, sh_rest.half()),
        (strided_params, sh_rest),
        (params[0], sh_rest[0]),
    ]:
        with pytest.raises(ValueError):
            splatting.render(wrong_params, wrong_rest, camera, 3, scene.background)
    for degree in (-1, 4):
        with pytest.raises(ValueError, match="degree"):
            splatting.render(params, sh_rest, camera, degree, scene.background)
    for size, focal in (((0, 8), (9.0, 9.0)), ((8, 0), (9.0, 9.0)), ((8, 8), (0.0, 9.0)), ((8, 8), (9.0, math.nan))):
        with pytest.raises(ValueError):
            splatting.render(
                params, sh_rest, splatting.Camera(scene.world_to_cam, focal, scene.centre, size), 3, scene.background
            )


@ON_DEVICES
def test_render_surface_returns_median_depth(device: torch.device) -> None:
    scene = blob(120, (48, 40), degree=1, seed=21)
    params, sh_rest = (rows.to(device) for rows in pack(scene))
    camera = splatting.Camera(scene.world_to_cam, scene.focal, scene.centre, scene.size)
    rgb, depth, alpha = splatting.render_surface(params, sh_rest, camera, 1, scene.background)
    plain_rgb, _, plain_alpha = splatting.render(params, sh_rest, camera, 1, scene.background)
    assert torch.equal(rgb, plain_rgb) and torch.equal(alpha, plain_alpha)
    splats = reference.project(*scene._replace(**{name: getattr(scene, name).double() for name in RAW})[:-1])
    expected = reference.median_depth(splats, scene.size)
    depth, alpha = depth.cpu(), alpha.cpu()
    same = (depth - expected).abs() < 1e-5 * expected.clamp(min=1)
    assert 0.2 < (expected > 0).float().mean() < 1  # both kinds of pixels occur
    assert same.float().mean() > 0.99  # except where transmittance is a half within rounding
    assert ((depth == 0) == (alpha < 0.5))[(alpha - 0.5).abs() > 1e-4].all()
