"""Vectors and bilinear lookup for the ray tracer.

Vectors are float32 arrays (3, R), one row per axis, so that every operation runs along contiguous memory; a single
vector is (3, 1). Images have one corner at (0, 0) and the opposite corner at (1, 1), at any size.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.intp]

REPLICATE, RING = cv2.BORDER_REPLICATE, cv2.BORDER_WRAP  # left and right edges of an image: repeat, or wrap around


def vector(x: float, y: float, z: float) -> Floats:
    return np.array([[x], [y], [z]], np.float32)


def dot(a: Floats, b: Floats) -> Floats:
    """Dot products: (3, R) and (3, R) or (3, 1) -> (R,). Written out: einsum takes twice as long."""
    product: Floats = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product


def unit(v: Floats) -> Floats:
    return v / np.sqrt(dot(v, v))


def away_from_zero(v: Floats) -> Floats:
    """Replace values near zero, so that the result is safe to divide by."""
    return np.where(np.abs(v) < 1e-9, np.float32(1e-9), v)


def bilinear(image: Floats, x: Floats, y: Floats, border: int = REPLICATE) -> Floats:
    """Bilinear values of an image (H, W) or (H, W, C) float32 at x, y (R,): (R,) or (R, C). R < 32767 (OpenCV)."""
    height, width = image.shape[:2]
    column = x * np.float32(width) - np.float32(0.5)
    row = y * np.float32(height) - np.float32(0.5)
    if border == RING:  # OpenCV would also wrap top and bottom
        row = np.clip(row, 0, height - 1)
    values = cv2.remap(image, column[None], row[None], cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(values, np.float32).reshape(x.shape + image.shape[2:])
