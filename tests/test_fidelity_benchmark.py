"""The independent renderer against closed forms, finite differences and loops over pixels."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import fidelity, independent
from benchmarks.independent import Gaussians, View
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.capture import ArrayPhotos, Capture
from tests.studio.conftest import make_capture

FRONT = View(np.eye(3, 4), (100.0, 110.0), (20.0, 16.0), (41, 33))
C0 = math.sqrt(1 / (4 * math.pi))


def gaussians(means: object, sigma: float, opacity: float, colours: object) -> Gaussians:
    """Spherical gaussians of one size and opacity, with a constant colour."""
    positions = np.asarray(means, np.float64)
    n = len(positions)
    return Gaussians(
        means=positions,
        log_scales=np.full((n, 3), math.log(sigma)),
        quaternions=np.tile([2.0, 0.0, 0.0, 0.0], (n, 1)),
        logits=np.full(n, math.log(opacity / (1 - opacity))),
        harmonics=((np.asarray(colours, np.float64) - 0.5) / C0)[:, None],
    )


def test_independent_renderer_gaussian_on_the_axis() -> None:
    """Variances (f sigma / z)^2 + 0.3 about the principal point; pixels fainter than 1/255 keep the background."""
    ball = gaussians([[0, 0, 4]], 0.05, 0.8, [[1.0, 0.5, 0.25]])
    image = independent.render(ball, FRONT, (0.1, 0.2, 0.3))
    a, c = (100 * 0.05 / 4) ** 2 + 0.3, (110 * 0.05 / 4) ** 2 + 0.3
    for x, y in [(20, 16), (22, 15), (18, 19), (0, 0), (40, 32)]:
        alpha = 0.8 * math.exp(-0.5 * ((x + 0.5 - 20) ** 2 / a + (y + 0.5 - 16) ** 2 / c))
        alpha = alpha if alpha >= 1 / 255 else 0.0
        expected = alpha * np.array([1.0, 0.5, 0.25]) + (1 - alpha) * np.array([0.1, 0.2, 0.3])
        np.testing.assert_allclose(image[y, x], expected, atol=1e-12)


def test_independent_renderer_depth_order_and_stop() -> None:
    """Compositing is front to back in any file order; a gaussian that leaves less than 1e-4 is skipped."""
    wide = gaussians([[0, 0, z] for z in (7.0, 5.0, 6.0)], 50.0, 0.999999, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    image = independent.render(wide, FRONT, (1.0, 1.0, 1.0))
    # alpha is 0.99: 1 -> 0.01 -> 0.0001, which the green gaussian reaches and rounding may put on either side
    np.testing.assert_allclose(image[16, 20, 0], 0.99 + image[16, 20, 2], atol=1e-9)
    assert image[16, 20, 2] <= 0.0101
    faint = dataclasses.replace(wide, logits=np.full(3, math.log(0.9 / 0.1)))
    near_axis = independent.render(faint, FRONT)[15, 19]
    np.testing.assert_allclose(near_axis, [0.9, 0.09, 0.009], rtol=1e-3)


def test_independent_renderer_covariance_matches_finite_differences() -> None:
    """For a small gaussian off the axis, the 2D covariance is J C J^T with the numerical Jacobian."""
    random = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
    rotation *= np.linalg.det(rotation)
    shift = np.array([0.3, -0.2, 5.0])
    view = dataclasses.replace(FRONT, cam_from_world=np.concatenate([rotation, shift[:, None]], axis=1))
    mean = rotation.T @ (np.array([0.5, 0.4, 4.0]) - shift)
    quaternion = random.normal(size=4)
    gaussian = Gaussians(
        mean[None], np.log([[0.02, 0.05, 0.03]]), quaternion[None], np.array([3.0]), np.zeros((1, 1, 3))
    )

    def pixel(point: np.ndarray) -> np.ndarray:
        x, y, z = rotation @ point + shift
        return np.array([100 * x / z + 20, 110 * y / z + 16])

    steps = np.eye(3) * 1e-5
    jacobian = np.stack([(pixel(mean + step) - pixel(mean - step)) / 2e-5 for step in steps], axis=1)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    i, j, k = np.eye(3)

    def rotate(v: np.ndarray) -> np.ndarray:  # q v q*
        u = np.array([x, y, z])
        return np.asarray(2 * (u @ v) * u + (w * w - u @ u) * v + 2 * w * np.cross(u, v))

    axes = jacobian @ np.stack([rotate(i), rotate(j), rotate(k)], axis=1) * [0.02, 0.05, 0.03]
    covariance = axes @ axes.T + 0.3 * np.eye(2)
    footprint = independent.project(gaussian, view, "principal point")
    a, b, c = footprint.conics[0]
    np.testing.assert_allclose(np.linalg.inv([[a, b], [b, c]]), covariance, rtol=1e-6)
    np.testing.assert_allclose(footprint.centres[0], pixel(mean), rtol=1e-9)


@pytest.mark.parametrize(("slopes", "limit"), [("principal point", (41 - 20 + 6.15) / 100), ("image centre", 0.2665)])
def test_independent_renderer_clamps_slopes(slopes: independent.Slopes, limit: float) -> None:
    """A wide gaussian far to the right has the ellipse of one 0.15 image widths outside."""
    wide = gaussians([[8.0, 0, 4.0]], 3.0, 0.9, [[1, 1, 1]])
    a, b, c = independent.project(wide, FRONT, slopes).conics[0]
    variance = (100 * 3 / 4) ** 2 * (1 + limit**2) + 0.3
    np.testing.assert_allclose([1 / a, b], [variance, 0], atol=1e-9)
    np.testing.assert_allclose(1 / c, (110 * 3 / 4) ** 2 + 0.3)


def test_independent_harmonics_orthonormal_with_3dgs_signs() -> None:
    """Products integrate to the identity over the sphere; in direction (1, 1, 1) each has its known sign."""
    count = 20_000
    height = 1 - 2 * (np.arange(count) + 0.5) / count
    angle = np.arange(count) * math.pi * (3 - math.sqrt(5))
    around = np.sqrt(1 - height**2)
    sphere = np.stack([around * np.cos(angle), around * np.sin(angle), height], axis=1)

    def basis(towards: np.ndarray) -> np.ndarray:
        coefficients = np.zeros((16, 16, 3))
        coefficients[range(16), range(16)] = 1
        return np.stack(
            [
                independent.harmonic_colours(np.repeat(coefficients[k : k + 1], len(towards), 0), towards)[:, 0] - 0.5
                for k in range(16)
            ]
        )

    values = basis(sphere)
    np.testing.assert_allclose(4 * math.pi * values @ values.T / count, np.eye(16), atol=2e-3)
    signs = np.sign(basis(np.array([[1.0, 1.1, 1.2]]))[:, 0])
    assert signs.tolist() == [1, -1, 1, -1, 1, -1, 1, -1, -1, -1, 1, -1, -1, -1, -1, 1]


def test_measure_view_composites_photo_over_white() -> None:
    photo = torch.full((16, 16, 4), 255, dtype=torch.uint8)
    photo[..., 3] = 0
    size = torch.tensor([[16, 16]])
    cameras = Cameras(torch.eye(3, 4)[None], size.float(), size.float() / 2, size)
    capture = Capture(cameras, ArrayPhotos([photo]), ("a.png",), torch.tensor([True]), has_alpha=True)
    assert fidelity.background_of(capture) == (1.0, 1.0, 1.0)
    psnr, ssim = fidelity.measure_view(np.full((16, 16, 3), 0.9), capture, 0)
    assert psnr == pytest.approx(20)
    assert 0.9 < ssim < 1


def test_fidelity_row_runs_all_stages(tmp_path: Path) -> None:
    """Through the command line, both renderers agree, and images of the held-out views are written."""
    capture = make_capture(tmp_path / "sky", 10)
    row = fidelity.measure(capture, tmp_path / "run", ("--steps", "40"), tmp_path / "looks")
    assert (row["views"], row["steps"]) == (2, 40)
    assert float(str(row["largest_gap_db"])) <= 0.02
    assert float(str(row["memory_mb"])) > 50
    assert all(float(str(row[f"{stage}_seconds"])) > 0 for stage in ("train_wall", "evaluate", "export"))
    assert sorted(path.name for path in (tmp_path / "looks" / "sky").iterdir()) == ["000.png", "008.png"]


def test_fidelity_reports_missing_capture(tmp_path: Path) -> None:
    assert [*fidelity.rows([tmp_path / "no"], [30])] == [{"case": "no, 30 s", "skipped": f"no {tmp_path / 'no'}"}]
