"""One pair of photos: the geometry that explains its matches, by COLMAP's robust estimators."""

from __future__ import annotations

import numpy as np
import pycolmap

from lumigraph.captures.structure.features import Features, Matches
from lumigraph.captures.structure.pairs import Pair

Kind = pycolmap.TwoViewGeometryConfiguration


def ransac_options(seed: int, max_error: float | None = None) -> pycolmap.TwoViewGeometryOptions:
    """COLMAP's; `max_error`: pixels that an inlier may be off its epipolar line, if not COLMAP's own limit."""
    chosen = pycolmap.TwoViewGeometryOptions()
    chosen.ransac.random_seed = seed  # per pair, so that the order in which threads come does not matter
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
