"""One pair of photos: the geometry that explains its matches, by COLMAP's robust estimators."""

from __future__ import annotations

import numpy as np
import pycolmap

from lumigraph.captures.sfm.features import Features, Matches
from lumigraph.captures.sfm.image_pairs import Pair

Kind = pycolmap.TwoViewGeometryConfiguration


# Fewer trials than COLMAP's 100 to 10,000 at 0.999: half the time, and within 0.2 % the same matches. Three in four are
# right where a pair is worth anything, and what one pair misses another has.
MIN_TRIALS, MAX_TRIALS, CONFIDENCE = 20, 1000, 0.99


def ransac_options(seed: int, max_error: float | None = None) -> pycolmap.TwoViewGeometryOptions:
    """COLMAP's with fewer trials; `max_error`: pixels that an inlier may be off its epipolar line, if not COLMAP's."""
    chosen = pycolmap.TwoViewGeometryOptions()
    chosen.ransac.random_seed = seed  # per pair, so that the order in which threads come does not matter
    chosen.ransac.min_num_trials, chosen.ransac.max_num_trials = MIN_TRIALS, MAX_TRIALS
    chosen.ransac.confidence = CONFIDENCE
    if max_error is not None:
        chosen.ransac.max_error = max_error
    return chosen


def estimate(
    found: list[Features],
    pair: Pair,
    rows: Matches,
    first: pycolmap.Camera,
    second: pycolmap.Camera,
    options: pycolmap.TwoViewGeometryOptions,
) -> pycolmap.TwoViewGeometry:
    """The geometry of the pair's matches `rows` (M, 2), with those that it explains."""
    a, b = (found[photo].points.astype(np.float64) for photo in pair)
    return pycolmap.estimate_two_view_geometry(first, a, second, b, rows, options)


def is_uncalibrated(geometry: pycolmap.TwoViewGeometry) -> bool:
    """Whether it is a fundamental matrix. Of cameras whose focal lengths are only assumed that is the rule; of known
    ones it says that an essential matrix explains clearly fewer of the matches."""
    return Kind(int(geometry.config)) == Kind.UNCALIBRATED
