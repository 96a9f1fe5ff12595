"""The splatting reference against independent mathematics: closed forms, loops, finite differences."""

import math

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.polynomial import legendre
from torch import Tensor

from benchmarks.scenes import Scene, blob
from lumigraph.kernels.reference import splatting as reference

RAW = ("means", "log_scales", "quats", "logit_opacities", "sh", "world_to_cam", "background")


def double(scene: Scene) -> Scene:
    return scene._replace(**{name: getattr(scene, name).double() for name in RAW})


def one_gaussian(mean: tuple[float, float, float], scale: float, opacity: float) -> Scene:
    """Create an isotropic gaussian of colour 0.5 + C0 (1, 0, -1), seen from the origin along z over a 24x16 image."""
    return Scene(
        means=torch.tensor([mean], dtype=torch.float64),
        log_scales=torch.full((1, 3), math.log(scale), dtype=torch.float64),
        quats=torch.tensor([[0.3, -1.2, 0.5, 2.0]], dtype=torch.float64),
        logit_opacities=torch.tensor([opacity], dtype=torch.float64).logit(),
        sh=torch.tensor([[[1.0, 0.0, -1.0]]], dtype=torch.float64),
        world_to_cam=torch.eye(3, 4, dtype=torch.float64),
        focal=(30.0, 20.0),
        centre=(11.0, 7.0),
        size=(24, 16),
        background=torch.tensor([0.9, 0.1, 0.4], dtype=torch.float64),
    )


def legendre_sh(directions: np.ndarray, l: int, m: int) -> np.ndarray:
    """Y_l^m from its definition: the associated Legendre function in z times a cosine or sine of the azimuth."""
    x, y, z = directions.T
    k = abs(m)
    derivative = legendre.legval(z, legendre.legder(np.eye(l + 1)[l], k))
    legendre_values = (-1) ** k * (1 - z * z) ** (k / 2) * derivative
    norm = math.sqrt((2 * l + 1) / (4 * math.pi) * math.factorial(l - k) / math.factorial(l + k))
    azimuth = np.arctan2(y, x)
    if m == 0:
        return norm * legendre_values
    return math.sqrt(2) * norm * legendre_values * (np.cos(k * azimuth) if m > 0 else np.sin(k * azimuth))


def test_sh_basis_equals_spherical_harmonics() -> None:
    directions = np.random.default_rng(0).normal(size=(200, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    expected = np.stack([legendre_sh(directions, l, m) for l in range(4) for m in range(-l, l + 1)], 1)
    for degree in range(4):
        basis = reference.sh_basis(torch.from_numpy(directions), degree).numpy()
        np.testing.assert_allclose(basis, expected[:, : (degree + 1) ** 2], atol=1e-12)


def test_sh_basis_rejects_degree_outside_0_to_3() -> None:
    with pytest.raises(ValueError, match="0 to 3"):
        reference.sh_basis(torch.zeros(1, 3), 4)


def test_matrix_from_quaternion_rotates_about_its_axis() -> None:
    half = math.radians(50) / 2
    turn = reference.matrix_from_quaternion(
        3.0 * torch.tensor([math.cos(half), 0, 0, math.sin(half)], dtype=torch.float64)
    )
    c, s = math.cos(2 * half), math.sin(2 * half)
    torch.testing.assert_close(turn, torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64))


@pytest.mark.parametrize("antialiased", [False, True])
def test_render_equals_closed_form_of_isotropic_gaussian(antialiased: bool) -> None:
    scale, z, opacity = 0.2, 2.0, 0.7
    scene = one_gaussian((0, 0, z), scale, opacity)
    rgb, depth, alpha = reference.render(*scene, antialiased=antialiased)

    sharp = (np.array(scene.focal) * scale / z) ** 2
    var_x, var_y = sharp + 0.3
    if antialiased:
        opacity *= math.sqrt(sharp.prod() / (var_x * var_y))
    xs, ys = np.meshgrid(np.arange(24) + 0.5 - 11, np.arange(16) + 0.5 - 7)
    expected = opacity * np.exp(-0.5 * (xs**2 / var_x + ys**2 / var_y))
    expected[expected < 1 / 255] = 0
    colour = 0.5 + 0.28209479177387814 * np.array([1.0, 0.0, -1.0])
    shade = expected[..., None] * colour + (1 - expected[..., None]) * scene.background.numpy()
    np.testing.assert_allclose(alpha, expected, atol=1e-12)
    np.testing.assert_allclose(depth, expected * z, atol=1e-12)
    np.testing.assert_allclose(rgb, shade, atol=1e-12)


def test_project_covariance_uses_perspective_jacobian() -> None:
    scene = double(blob(50, (64, 48), seed=3))
    (fx, fy), (cx, cy) = scene.focal, scene.centre
    rotate, translate = scene.world_to_cam[:, :3], scene.world_to_cam[:, 3]

    def perspective(mean: Tensor) -> Tensor:
        x, y, z = rotate @ mean + translate
        return torch.stack([fx * x / z + cx, fy * y / z + cy])

    splats = reference.project(*scene[:-1])
    inside = ((splats.means - torch.tensor(scene.centre)).abs() < 0.64 * torch.tensor(scene.size)).all(1)
    assert inside.sum() > 20
    for i in inside.nonzero()[:, 0]:
        g = splats.indices[i]
        turn, variance = reference.matrix_from_quaternion(scene.quats[g]), (2 * scene.log_scales[g]).exp().diag()
        jacobian = torch.autograd.functional.jacobian(perspective, scene.means[g])
        cov = jacobian @ turn @ variance @ turn.T @ jacobian.T + 0.3 * torch.eye(2)
        a, b, c = splats.conics[i]
        torch.testing.assert_close(torch.stack([a, b, b, c]).view(2, 2), cov.inverse())
        torch.testing.assert_close(splats.means[i], perspective(scene.means[g]))


@pytest.mark.parametrize("position", [-3.0, -0.16, 1.16, 4.0])
def test_project_clamps_slope_outside_image(position: float) -> None:
    """`position` is in widths from the left edge. As in Kerbl et al. 2023, the slope of the Jacobian stops at 0.15
    widths outside the image."""
    width, fx, cx, z, sigma = 24, 30.0, 11.0, 2.0, 0.5
    scene = one_gaussian(((position * width - cx) / fx * z, 0, z), sigma, 0.7)
    splats = reference.project(*scene[:-1])
    assert splats.indices.tolist() == [0]
    assert splats.means[0, 0].item() == pytest.approx(position * width)
    slope = (min(max(position, -0.15), 1.15) * width - cx) / fx
    variance = (fx * sigma / z) ** 2 * (1 + slope**2) + 0.3
    assert (1 / splats.conics[0, 0]).item() == pytest.approx(variance, rel=1e-6)


def test_project_drops_gaussians_behind_near_plane() -> None:
    scene = double(blob(300, (32, 32), seed=1))
    scene = scene._replace(means=scene.means * 4)  # the camera is inside the blob
    depths = scene.means @ scene.world_to_cam[2, :3] + scene.world_to_cam[2, 3]
    splats = reference.project(*scene[:-1])
    assert 0 < len(splats.indices) < 300
    assert splats.indices.tolist() == (depths >= 0.01).nonzero()[:, 0].tolist()


def test_render_of_no_gaussians_is_background() -> None:
    scene = double(blob(0, (8, 4)))
    rgb, depth, alpha = reference.render(*scene)
    assert torch.equal(rgb, scene.background.expand(4, 8, 3))
    assert not depth.any() and not alpha.any()


def composite_slowly(splats: reference.Projected, size: tuple[int, int], background: Tensor) -> np.ndarray:
    """Composite one pixel and one gaussian at a time -> (H, W, 5): rgb, depth, transmittance."""
    means, conics, depths, colours, opacities = (v.numpy() for v in splats[1:])
    image = np.zeros((size[1], size[0], 5))
    for y, x in np.ndindex(size[1], size[0]):
        transmittance = 1.0
        for g in np.argsort(depths, kind="stable"):
            if transmittance <= 1e-3:
                break
            d = np.array([x + 0.5, y + 0.5]) - means[g]
            a, b, c = conics[g]
            alpha = min(0.99, opacities[g] * math.exp(-0.5 * d @ np.array([[a, b], [b, c]]) @ d))
            if alpha < 1 / 255:
                continue
            image[y, x, :4] += transmittance * alpha * np.append(colours[g], depths[g])
            transmittance *= 1 - alpha
        image[y, x, :3] += transmittance * background.numpy()
        image[y, x, 4] = transmittance
    return image


def test_composite_equals_loop() -> None:
    scene = double(blob(200, (17, 13), degree=1, seed=2, radius=6))
    # Opaque gaussians reach both ALPHA_MAX and the early stop.
    scene = scene._replace(logit_opacities=scene.logit_opacities * 3)
    splats = reference.project(*scene[:-1])
    rgb, depth, transmittance = reference.composite(splats, scene.size, scene.background)
    expected = composite_slowly(splats, scene.size, scene.background)
    assert (expected[..., 4] <= 1e-3).any() and (expected[..., 4] > 1e-3).any()
    np.testing.assert_allclose(torch.cat([rgb, depth[..., None], transmittance[..., None]], -1), expected, atol=1e-12)


@pytest.mark.parametrize("antialiased", [False, True])
def test_render_gradients_equal_finite_differences(antialiased: bool) -> None:
    scene = double(blob(5, (7, 6), degree=3, seed=4, radius=14))
    raw = [getattr(scene, name).clone().requires_grad_() for name in RAW]

    def render_raw(*raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return reference.render(*scene._replace(**dict(zip(RAW, raw, strict=True))), antialiased=antialiased)

    assert render_raw(*raw)[2].max() > 0.5
    assert torch.autograd.gradcheck(render_raw, raw, eps=1e-6, atol=1e-6)


def slow_ssim(image: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Wang 2004 by explicit 11x11 windows over zero-padded images, two-pass variances."""
    x = np.arange(-5, 6)
    window = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def windows(values: np.ndarray) -> np.ndarray:
        return sliding_window_view(np.pad(values, ((5, 5), (5, 5), (0, 0))), (11, 11), axis=(0, 1))

    def mean(values: np.ndarray) -> np.ndarray:
        return (values * window).sum((-1, -2))

    a, b = windows(image), windows(target)
    ma, mb = mean(a), mean(b)
    da, db = a - ma[..., None, None], b - mb[..., None, None]
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
    return luminance * (2 * mean(da * db) + c2) / (mean(da**2) + mean(db**2) + c2)


def images(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(height, width, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(height, width, 3, generator=generator, dtype=torch.float64)
    return target + 0.1 * noise, target


@pytest.mark.parametrize("shape", [(23, 31), (4, 3)])
def test_ssim_map_equals_definition(shape: tuple[int, int]) -> None:
    image, target = images(*shape)
    np.testing.assert_allclose(reference.ssim_map(image, target), slow_ssim(image.numpy(), target.numpy()), atol=1e-10)


def test_loss_combines_l1_l2_and_ssim_under_mask() -> None:
    image, target = images(12, 9)
    mask = torch.linspace(0, 1, 12 * 9, dtype=torch.float64).view(12, 9)
    l1, l2 = (image - target).abs().numpy(), (image - target).numpy() ** 2
    dissimilar = 1 - slow_ssim(image.numpy(), target.numpy())
    unmasked_loss = reference.ssim_l1_loss(image, target, 0.2)
    assert unmasked_loss.item() == pytest.approx((0.8 * l1 + 0.2 * dissimilar).mean())
    masked_loss = reference.ssim_l1_loss(image, target, 0.2, mask, lambda_l2=0.3)
    assert masked_loss.item() == pytest.approx(
        ((0.5 * l1 + 0.3 * l2 + 0.2 * dissimilar) * mask.numpy()[..., None]).mean()
    )
    assert reference.ssim_l1_loss(target, target, 0.2).item() == pytest.approx(0, abs=1e-12)


def test_loss_gradients_equal_finite_differences() -> None:
    image, target = images(6, 7)
    mask = torch.rand(6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    image.requires_grad_()
    assert torch.autograd.gradcheck(lambda i: reference.ssim_l1_loss(i, target, 0.4, mask, 0.3), [image])


def test_adam_equals_torch_on_visible_rows() -> None:
    """Row r is visible in every (r + 1)-th step. Equals torch.optim.Adam with only those steps."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    grads = torch.randn(12, 4, 3, generator=generator, dtype=torch.float64)
    rate = 0.01

    params, first, second = start, torch.zeros_like(start), torch.zeros_like(start)
    steps = torch.zeros(4, dtype=torch.float64)
    for step in range(12):
        visible = torch.tensor([step % (row + 1) == 0 for row in range(4)])
        before = params
        params, first, second, steps = reference.adam(
            params, grads[step], first, second, steps, torch.tensor(rate), visible
        )
        assert torch.equal(params[~visible], before[~visible])
    assert steps.tolist() == [12, 6, 4, 3]

    for row in range(4):
        alone = start[row].clone().requires_grad_()
        optimiser = torch.optim.Adam([alone], lr=rate, eps=1e-15)
        for step in range(0, 12, row + 1):
            alone.grad = grads[step, row].clone()
            optimiser.step()
        torch.testing.assert_close(params[row], alone.detach())
