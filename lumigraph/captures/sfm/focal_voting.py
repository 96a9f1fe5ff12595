"""The focal length that explains many pairs of photos, where no EXIF tells it.

A fundamental matrix F of two photos by one camera with calibration K gives the essential matrix K^T F K, whose two
non-zero singular values are equal (Huang and Faugeras 1989). So for each candidate focal length the two are compared
(Mendonca and Cipolla 1999), and the pairs vote. A vote, and no least squares, because most pairs say little: planes,
small movements and false matches put their optimum anywhere, but only the true focal length is the optimum of many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CANDIDATES = np.geomspace(0.35, 3.5, 116)  # in units of the longer side, 2 % apart: from 110 to 16 degrees of view
SPREAD = 0.02  # relative difference of the singular values at which a pair's vote has fallen to 1/e
LEAST_PAIRS = 5
CLEAR = 1.5  # a vote counts when the winner has this many times the votes of the median candidate


def vote(
    fundamentals: Sequence[NDArray[np.float64]], weights: Sequence[float], sizes: Sequence[tuple[int, int]]
) -> float | None:
    """The focal length in units of the photos' longer side, or None where the pairs do not agree on one.

    fundamentals: (3, 3) each, of two photos of the same size (width, height) with the principal point in the middle;
    weights: the votes that each pair has.
    """
    if len(fundamentals) < LEAST_PAIRS:
        return None
    votes = np.zeros(len(CANDIDATES))
    for matrix, weight, (width, height) in zip(fundamentals, weights, sizes, strict=True):
        calibration = np.zeros((len(CANDIDATES), 3, 3))
        calibration[:, 0, 0] = calibration[:, 1, 1] = CANDIDATES * max(width, height)
        calibration[:, 0, 2], calibration[:, 1, 2], calibration[:, 2, 2] = width / 2, height / 2, 1
        singular = np.linalg.svd(calibration.transpose(0, 2, 1) @ matrix @ calibration, compute_uv=False)
        votes += weight * np.exp(-(1 - singular[:, 1] / singular[:, 0]) / SPREAD)
    winner = int(votes.argmax())
    inside = 0 < winner < len(CANDIDATES) - 1
    return float(CANDIDATES[winner]) if inside and votes[winner] >= CLEAR * np.median(votes) else None
