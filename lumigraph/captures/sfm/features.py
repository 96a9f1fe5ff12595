"""Local features: where a photo has recognisable detail, and which details two photos share.

SIFT (Lowe 2004) in OpenCV's implementation, with the Hellinger kernel of Arandjelovic and Zisserman (2012): square
roots of L1-normalised histograms, so that a dot product compares histograms the way histograms should be compared.
Matching is exact: every descriptor against every other, by a kernel of ours on integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lumigraph.kernels import descriptor_match
from lumigraph.scene.errors import CaptureError

Floats = NDArray[np.float32]
Matches = NDArray[np.uint32]  # (M, 2): the row in the first photo, the row in the second

CONTRASTS = (0.02, 0.01, 0.005)  # detection thresholds: the first that finds ENOUGH, for plain or blurred photos
ENOUGH = 1000
MASK_SHAPE = 0.02  # relative difference of the ratios of the sides of a photo and its mask
RATIO = 0.8  # best against second-best angle (Lowe 2004, section 7.1)
MAX_ANGLE = 0.7  # radians between descriptors, as COLMAP
SMALLEST_ANGLE = 0.1  # radians; below, rounded descriptors tell no two angles apart
DESCRIPTOR_NORM = 250  # its square, with 128 values rounded up by a half, stays below the kernel's limit


@dataclass(frozen=True)
class Features:
    """Features of one photo, the largest blobs first. The photo was reduced to `size` before; points are in it."""

    size: tuple[int, int]  # width, height
    points: Floats  # (N, 2) pixels, corner of the first pixel at (0, 0)
    descriptors: NDArray[np.uint8]  # (N, 128) DESCRIPTOR_NORM x root SIFT, clipped at 127

    def __len__(self) -> int:
        return len(self.points)


def extract(path: Path, size: tuple[int, int], max_size: int, max_count: int, mask: Path | None = None) -> Features:
    """The up to `max_count` largest features of an upright photo of `size` (width, height), its long side reduced to
    at most `max_size` pixels. None is where `mask` is black or the photo itself is transparent.

    Raises CaptureError if the file is not that photo, or the mask no picture of its shape.
    """
    grey = _read_grey(path, size, max_size)
    used = _read_used(path, mask, grey.shape)
    found: Any = ()
    described: Any = None
    for contrast in CONTRASTS:
        # The precise upscale keeps the image's corner in place; without it every point is off by a quarter pixel.
        sift = cv2.SIFT.create(contrastThreshold=contrast, enable_precise_upscale=True)
        found, described = sift.detectAndCompute(grey, used)
        if len(found) >= ENOUGH:
            break
    height, width = grey.shape
    if not len(found):
        return Features((width, height), np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    largest = np.argsort([-k.size for k in found], kind="stable")[:max_count]
    points = np.array([found[i].pt for i in largest], np.float32) + np.float32(0.5)  # OpenCV counts from pixel centres
    histograms = described[largest] / np.maximum(described[largest].sum(axis=1, keepdims=True), 1e-9)
    roots = np.rint(DESCRIPTOR_NORM * np.sqrt(histograms))
    return Features((width, height), points, np.minimum(roots, descriptor_match.MAX_VALUE).astype(np.uint8))


def match(first: Features, second: Features, largest: int | None = None) -> Matches:
    """Features that are each other's best match, clearly so in both directions; of the `largest` only, if given."""
    if len(first) < 2 or len(second) < 2:  # no second-best to compare with
        return np.zeros((0, 2), np.uint32)
    return descriptor_match.match(first.descriptors[:largest], second.descriptors[:largest], _required_scores())


@cache
def _required_scores() -> NDArray[np.uint32]:
    """The least dot product of a match, by that of the second-best: the angle, or SMALLEST_ANGLE if that is larger,
    must be below MAX_ANGLE and below RATIO times the other."""
    square = DESCRIPTOR_NORM**2
    next_angle = np.arccos(np.minimum(np.arange(descriptor_match.MAX_SQUARED_NORM + 1) / square, 1))
    limit = np.minimum(MAX_ANGLE, RATIO * next_angle)
    never = descriptor_match.MAX_SQUARED_NORM + 1
    return np.where(limit > SMALLEST_ANGLE, np.floor(square * np.cos(limit)) + 1, never).astype(np.uint32)


def _read_used(path: Path, mask: Path | None, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Where features may be, 255 or 0, of the shape of the reduced photo; None for everywhere."""
    used = np.full(shape, 255, np.uint8)
    if path.suffix.lower() == ".png":
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if stored is not None and stored.ndim == 3 and stored.shape[2] == 4:
            alpha = (stored[..., 3] // (257 if stored.dtype == np.uint16 else 1)).astype(np.uint8)
            used &= _threshold(alpha, shape)
    if mask is not None:
        black = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        if black is None or abs(black.shape[0] * shape[1] / (black.shape[1] * shape[0]) - 1) > MASK_SHAPE:
            raise CaptureError(f"the mask of {path.name} is no picture of the photo's shape")
        used &= _threshold(np.asarray(black, np.uint8), shape)
    return None if used.all() else used


def _threshold(values: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    reduced = cv2.resize(values, shape[::-1], interpolation=cv2.INTER_AREA)
    return np.where(reduced >= 128, np.uint8(255), np.uint8(0))


def _read_grey(path: Path, size: tuple[int, int], max_size: int) -> NDArray[np.uint8]:
    """The photo in grey, area-averaged to at most max_size pixels. The file's EXIF orientation is not applied: the
    photos of a PhotoSet are upright already."""
    width, height = size
    flags, reduced = cv2.IMREAD_GRAYSCALE, 1
    jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    for factor, flag in ((2, cv2.IMREAD_REDUCED_GRAYSCALE_2), (4, cv2.IMREAD_REDUCED_GRAYSCALE_4)):
        # A JPEG decodes at half or a quarter of its size for a fraction of the work. Only where that divides evenly,
        # so that the picture's corners stay where they are.
        if jpeg and max(size) >= factor * max_size and width % factor == 0 and height % factor == 0:
            flags, reduced = flag, factor
    grey = cv2.imread(str(path), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if grey is None:
        raise CaptureError(f"{path.name} cannot be decoded: it is damaged or no picture")
    if (grey.shape[1] * reduced, grey.shape[0] * reduced) != size:
        actual = f"{grey.shape[1] * reduced}x{grey.shape[0] * reduced}"
        raise CaptureError(f"{path.name} is {actual}, not {width}x{height}: it was changed while it was read")
    scale = max_size / max(size)
    if scale < 1:
        target = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = cv2.resize(grey, target, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)
