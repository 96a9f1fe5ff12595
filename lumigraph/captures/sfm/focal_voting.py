"""Focal length from a vote of many image pairs, for images without EXIF.

The fundamental matrix F of two images by one camera with calibration K gives the essential matrix K^T F K. Its two
non-zero singular values are equal (Huang and Faugeras 1989). Each candidate focal length is scored by the ratio of the
two (Mendonca and Cipolla 1999), and the pairs vote. A vote is more robust than least squares: planes, small motions and
false matches scatter the optimum of most pairs. Only the true focal length is the optimum of many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CANDIDATES = np.geomspace(0.35, 3.5, 116)  # in units of the longer side, 2 % apart: from 110 to 16 degrees of view
VOTE_SPREAD = 0.02  # relative difference of the singular values at which the vote of a pair has fallen to 1/e
MIN_VOTING_PAIRS = 5
MIN_VOTE_RATIO = 1.5  # smallest ratio of the winner's votes to those of the median candidate


def vote_focal_length(
    fundamentals: Sequence[NDArray[np.float64]], weights: Sequence[float], sizes: Sequence[tuple[int, int]]
) -> float | None:
    """Return the focal length in units of the longer side, or None if the pairs do not agree on one.

    Args:
        fundamentals: (3, 3) each, of two images of the same size with the principal point at the centre.
        weights: number of votes of each pair.
        sizes: (width, height) of the images of each pair, pixels.
    """
    if len(fundamentals) < MIN_VOTING_PAIRS:
        return None
    votes = np.zeros(len(CANDIDATES))
    for matrix, weight, (width, height) in zip(fundamentals, weights, sizes, strict=True):
        calibration = np.zeros((len(CANDIDATES), 3, 3))
        calibration[:, 0, 0] = calibration[:, 1, 1] = CANDIDATES * max(width, height)
        calibration[:, 0, 2], calibration[:, 1, 2], calibration[:, 2, 2] = width / 2, height / 2, 1
        singular = np.linalg.svd(calibration.transpose(0, 2, 1) @ matrix @ calibration, compute_uv=False)
        votes += weight * np.exp(-(1 - singular[:, 1] / singular[:, 0]) / VOTE_SPREAD)
    winner = int(votes.argmax())
    is_inside = 0 < winner < len(CANDIDATES) - 1
    return float(CANDIDATES[winner]) if is_inside and votes[winner] >= MIN_VOTE_RATIO * np.median(votes) else None
