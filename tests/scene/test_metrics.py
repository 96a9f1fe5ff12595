"""PSNR and SSIM against their definitions, written out window by window in float64."""

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from lumigraph.scene.metrics import psnr, ssim


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth colours with some noise, like a photo: (H, W, 3) 0..1."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((5, 4, 3)).astype(np.float32)
    values = cv2.resize(coarse, (width, height)) + 0.05 * rng.standard_normal((height, width, 3))
    return torch.from_numpy(values).clamp(0, 1).float()


def ssim_by_windows(a: Tensor, b: Tensor) -> float:
    """Wang et al. 2004, equations 6 and 13 to 16, over every whole 11x11 window, without separating the Gaussian."""
    at = np.arange(11) - 5.0
    window: npt.NDArray[np.float64] = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    window /= window.sum()
    x, y = (
        np.lib.stride_tricks.sliding_window_view(tensor.double().numpy(), (11, 11), axis=(0, 1)) for tensor in (a, b)
    )

    def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(np.einsum("...ij,ij->...", values, window), dtype=np.float64)

    mx, my = mean(x), mean(y)
    dx, dy = x - mx[..., None, None], y - my[..., None, None]
    vx, vy, vxy = mean(dx * dx), mean(dy * dy), mean(dx * dy)
    c1, c2 = 0.01**2, 0.03**2
    return float(((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


@pytest.mark.parametrize("change", ["noise", "shift", "brighter", "inverted", "black"])
def test_ssim_agrees_with_its_definition(change: str) -> None:
    a = picture(40, 31)
    b = {
        "noise": (a + 0.1 * picture(40, 31, 1)).clamp(0, 1),
        "shift": a.roll(2, 1),
        "brighter": (a + 0.2).clamp(0, 1),
        "inverted": 1 - a,
        "black": torch.zeros_like(a),
    }[change]
    assert ssim(a, b) == pytest.approx(ssim_by_windows(a, b), abs=5e-6)
    assert ssim(b, a) == pytest.approx(ssim(a, b), abs=1e-7)


def test_ssim_of_flat_pictures_is_the_luminance_term() -> None:
    flat = torch.full((20, 20, 3), 0.75)
    expected = (2 * 0.75 * 0.25 + 1e-4) / (0.75**2 + 0.25**2 + 1e-4)
    assert ssim(flat, flat - 0.5) == pytest.approx(expected, abs=1e-4)
    assert ssim(flat, flat) == pytest.approx(1)


def test_ssim_of_one_window_and_one_channel() -> None:
    a, b = picture(11, 11)[..., :1], picture(11, 11, 1)[..., :1]
    assert ssim(a, b) == pytest.approx(ssim_by_windows(a, b), abs=5e-6)


def test_psnr() -> None:
    a = torch.full((4, 5, 3), 0.25)
    assert psnr(a, a) == math.inf
    assert psnr(a, a + 0.1) == pytest.approx(20, abs=1e-5)
    assert psnr(torch.zeros(2, 2, 3), torch.ones(2, 2, 3)) == 0


def test_pictures_that_cannot_be_compared() -> None:
    a = picture(20, 20)
    for metric in (psnr, ssim):
        with pytest.raises(ValueError, match="shape"):
            metric(a, a[:10])
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim(a[:10], a[:10])
    with pytest.raises(ValueError, match="shape"):
        ssim(a[..., 0], a[..., 0])
