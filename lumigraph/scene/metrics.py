"""Image similarity metrics."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

ImageArray = npt.NDArray[np.float32]


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two images (H, W, 3), values 0..1; inf if they are equal."""
    if a.shape != b.shape:
        raise ValueError(f"images of different shapes: {tuple(a.shape)} and {tuple(b.shape)}")
    error = (a.double() - b.double()).square().mean().item()
    return -10 * math.log10(error) if error else math.inf


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity of two images (H, W, C), values 0..1, at least 11x11 (Wang et al. 2004).

    An 11x11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, mean over channels and over the windows
    inside the image ("valid", as in the paper's code; zero padding would reward dark borders).
    """
    if a.shape != b.shape or a.ndim != 3:
        raise ValueError(f"images must have one shape (H, W, C), not {tuple(a.shape)} and {tuple(b.shape)}")
    if min(a.shape[:2]) < 11:
        raise ValueError(f"SSIM needs images of at least 11x11 pixels, not {a.shape[1]}x{a.shape[0]}")
    x, y = (image.detach().cpu().float().numpy() for image in (a, b))
    mx, my = _window_means(x), _window_means(y)
    xx, yy, xy = _window_means(x * x), _window_means(y * y), _window_means(x * y)
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mx * my + c1) / (mx * mx + my * my + c1)
    structure = (2 * (xy - mx * my) + c2) / (xx - mx * mx + yy - my * my + c2)
    return float((luminance * structure).mean(dtype=np.float64))


def _window_means(image: ImageArray) -> ImageArray:
    """(H, W, C) -> (H - 10, W - 10, C): Gaussian means over the 11x11 windows inside the image."""
    taps = cv2.getGaussianKernel(11, 1.5, cv2.CV_32F)
    means = cv2.sepFilter2D(image, cv2.CV_32F, taps, taps)[5:-5, 5:-5]
    return means.astype(np.float32, copy=False)
