"""Local features of an image, and matches between two images.

SIFT (Lowe 2004) in OpenCV's implementation, as RootSIFT (Arandjelovic and Zisserman 2012): descriptors are square
roots of L1-normalised histograms. Their dot product is the Hellinger kernel of the histograms. Matching is exact: an
integer kernel compares every descriptor with every other.
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

# Detection thresholds for ordinary, plain and blurred images: the first that finds MIN_DETECTIONS is used.
CONTRASTS = (0.02, 0.01, 0.005)
MIN_DETECTIONS = 1000
MAX_MASK_ASPECT_ERROR = 0.02  # relative difference of the aspect ratios of an image and its mask
RATIO = 0.8  # best against second-best angle (Lowe 2004, section 7.1)
MAX_ANGLE = 0.7  # radians between descriptors, as COLMAP
SMALLEST_ANGLE = 0.1  # radians; below, quantised descriptors cannot distinguish two angles
DESCRIPTOR_NORM = 250  # its square stays below the kernel's limit, with 128 values rounded up by a half


@dataclass(frozen=True)
class Features:
    """Features of one image, in pixels of the image downscaled to `size`; the largest features first."""

    size: tuple[int, int]  # width, height
    points: Floats  # (N, 2) pixels, corner of the first pixel at (0, 0)
    descriptors: NDArray[np.uint8]  # (N, 128) DESCRIPTOR_NORM x root SIFT, clipped at 127

    def __len__(self) -> int:
        return len(self.points)


def extract(path: Path, size: tuple[int, int], max_size: int, max_count: int, mask: Path | None = None) -> Features:
    """Extract up to `max_count` of the largest features, none where `mask` is black or the image is transparent.

    `size` is (width, height) of the upright image; its longer side is downscaled to at most `max_size` pixels. Raises
    CaptureError if the file does not decode to `size`, or the mask cannot be decoded or has another shape.
    """
    grey = _read_grey(path, size, max_size)
    detection_mask = _read_detection_mask(path, mask, grey.shape)
    keypoints: Any = ()
    descriptors: Any = None
    for contrast in CONTRASTS:
        # The precise upscale keeps the image's corner in place; without it every point is off by 0.25 px.
        sift = cv2.SIFT.create(contrastThreshold=contrast, enable_precise_upscale=True)
        keypoints, descriptors = sift.detectAndCompute(grey, detection_mask)
        if len(keypoints) >= MIN_DETECTIONS:
            break
    height, width = grey.shape
    if not len(keypoints):
        return Features((width, height), np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    largest = np.argsort([-k.size for k in keypoints], kind="stable")[:max_count]
    # OpenCV has pixel centres at whole numbers.
    points = np.array([keypoints[i].pt for i in largest], np.float32) + np.float32(0.5)
    histograms = descriptors[largest] / np.maximum(descriptors[largest].sum(axis=1, keepdims=True), 1e-9)
    roots = np.rint(DESCRIPTOR_NORM * np.sqrt(histograms))
    return Features((width, height), points, np.minimum(roots, descriptor_match.MAX_VALUE).astype(np.uint8))


def match(first: Features, second: Features, largest: int | None = None) -> Matches:
    """Match features mutually: each passes the ratio test both ways. `largest`: use only so many of each image."""
    if len(first) < 2 or len(second) < 2:  # no second-best to compare with
        return np.zeros((0, 2), np.uint32)
    return descriptor_match.match(first.descriptors[:largest], second.descriptors[:largest], _required_scores())


@cache
def _required_scores() -> NDArray[np.uint32]:
    """Smallest dot product of a match, indexed by the dot product of the second-best match.

    The angle of the match, at least SMALLEST_ANGLE, must be below MAX_ANGLE and below RATIO times the second angle.
    """
    norm_squared = DESCRIPTOR_NORM**2
    next_angle = np.arccos(np.minimum(np.arange(descriptor_match.MAX_SQUARED_NORM + 1) / norm_squared, 1))
    limit = np.minimum(MAX_ANGLE, RATIO * next_angle)
    never = descriptor_match.MAX_SQUARED_NORM + 1
    return np.where(limit > SMALLEST_ANGLE, np.floor(norm_squared * np.cos(limit)) + 1, never).astype(np.uint32)


def _read_detection_mask(path: Path, mask: Path | None, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Detection mask at the shape of the downscaled image: 255 or 0; None if features are allowed everywhere."""
    detection_mask = np.full(shape, 255, np.uint8)
    if path.suffix.lower() == ".png":
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is not None and pixels.ndim == 3 and pixels.shape[2] == 4:
            alpha = (pixels[..., 3] // (257 if pixels.dtype == np.uint16 else 1)).astype(np.uint8)
            detection_mask &= _threshold(alpha, shape)
    if mask is not None:
        mask_pixels = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        if mask_pixels is None or _aspect_error(mask_pixels.shape, shape) > MAX_MASK_ASPECT_ERROR:
            raise CaptureError(f"the mask of {path.name} is not an image of the photo's shape")
        detection_mask &= _threshold(np.asarray(mask_pixels, np.uint8), shape)
    return None if detection_mask.all() else detection_mask


def _aspect_error(mask: tuple[int, ...], image: tuple[int, ...]) -> float:
    return abs(mask[0] * image[1] / (mask[1] * image[0]) - 1)


def _threshold(values: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    area_average = cv2.resize(values, shape[::-1], interpolation=cv2.INTER_AREA)
    return np.where(area_average >= 128, np.uint8(255), np.uint8(0))


def _read_grey(path: Path, size: tuple[int, int], max_size: int) -> NDArray[np.uint8]:
    """Read an image as grey, area-averaged to at most `max_size` pixels.

    EXIF orientation is not applied: the photos of a PhotoSet are already upright.
    """
    width, height = size
    flags, reduction = cv2.IMREAD_GRAYSCALE, 1
    jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    for factor, flag in ((2, cv2.IMREAD_REDUCED_GRAYSCALE_2), (4, cv2.IMREAD_REDUCED_GRAYSCALE_4)):
        # A JPEG decodes at 1/2 or 1/4 of its size for a fraction of the cost. Only if that divides evenly, so that the
        # image corners stay in place.
        if jpeg and max(size) >= factor * max_size and width % factor == 0 and height % factor == 0:
            flags, reduction = flag, factor
    grey = cv2.imread(str(path), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if grey is None:
        raise CaptureError(f"{path.name} cannot be decoded: it is damaged or not an image")
    if (grey.shape[1] * reduction, grey.shape[0] * reduction) != size:
        actual = f"{grey.shape[1] * reduction}x{grey.shape[0] * reduction}"
        raise CaptureError(f"{path.name} is {actual}, not {width}x{height}: it was changed while it was read")
    scale = max_size / max(size)
    if scale < 1:
        target = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = cv2.resize(grey, target, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)
