"""Geometric verification of image pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap

from lumigraph.captures.sfm import two_view
from lumigraph.captures.sfm.correspondences import MIN_PAIR_MATCHES
from lumigraph.captures.sfm.event_pipe import EventPipe
from lumigraph.captures.sfm.features import Features, Matches
from lumigraph.captures.sfm.focal_candidates import LensCandidate
from lumigraph.captures.sfm.image_pairs import Pair
from lumigraph.captures.sfm.request import Request
from lumigraph.captures.thread_map import ordered_map
from lumigraph.scene.errors import CaptureError

MIN_MOTION_PX = 1.0  # largest median shift of a pair below which the images are copies of one another


@dataclass(frozen=True)
class VerifiedPair:
    """An image pair whose matches fit one camera motion, with the inliers."""

    pair: Pair
    geometry: pycolmap.TwoViewGeometry

    @property
    def matches(self) -> Matches:
        return np.asarray(self.geometry.inlier_matches, np.uint32)


def verify_pairs(
    features: list[Features],
    matches: dict[Pair, Matches],
    lenses: list[LensCandidate],
    request: Request,
    pipe: EventPipe,
) -> list[VerifiedPair]:
    """Return the pairs with enough inliers, and their inliers."""
    options = two_view.ransac_options(request.seed)
    cameras = [lens.camera(number) for number, lens in enumerate(lenses)]

    def estimate(pair: Pair) -> pycolmap.TwoViewGeometry:
        first, second = (cameras[request.cameras[photo]] for photo in pair)
        return two_view.estimate_geometry(features, pair, matches[pair], first, second, options)

    verified_pairs = []
    for count_done, (pair, geometry) in enumerate(zip(matches, ordered_map(estimate, matches), strict=True), start=1):
        if len(geometry.inlier_matches) >= MIN_PAIR_MATCHES:
            verified_pairs.append(VerifiedPair(pair, geometry))
        pipe.progress("verification", count_done, len(matches), "pairs")
    return verified_pairs


def drop_uncalibrated(verified_pairs: list[VerifiedPair], lenses: list[LensCandidate]) -> list[VerifiedPair]:
    """Drop pairs that a fundamental matrix fits clearly better than an essential matrix, if focal lengths are known.

    Matches of such a pair agree, but not on a motion of these cameras, as with repeated texture. In a capture of a room
    with known cameras this finds nine in ten of the wrong pairs. All pairs are kept if dropping them would shrink the
    largest connected set of images, as with strong lens distortion.
    """
    if not all(lens.has_prior for lens in lenses):
        return verified_pairs
    calibrated_pairs = [
        verified_pair for verified_pair in verified_pairs if not two_view.is_uncalibrated(verified_pair.geometry)
    ]
    return (
        calibrated_pairs
        if len(largest_component(calibrated_pairs)) >= len(largest_component(verified_pairs))
        else verified_pairs
    )


def largest_component(verified_pairs: Sequence[VerifiedPair]) -> set[int]:
    """Return the largest set of images that pairs connect."""
    component_of: dict[int, set[int]] = {}
    for i, j in (verified_pair.pair for verified_pair in verified_pairs):
        component = component_of.get(i, {i}) | component_of.get(j, {j})
        component_of.update(dict.fromkeys(component, component))
    return max(component_of.values(), key=len, default=set())


def check_motion(features: list[Features], verified_pairs: list[VerifiedPair]) -> None:
    """Raises CaptureError if the images of every pair are the same and nothing moved between them."""
    shifts_px = [
        float(np.median(np.linalg.norm(features[i].points[rows[:, 0]] - features[j].points[rows[:, 1]], axis=1)))
        for (i, j), rows in ((verified_pair.pair, verified_pair.matches) for verified_pair in verified_pairs)
    ]
    if shifts_px and max(shifts_px) < MIN_MOTION_PX:
        raise CaptureError(
            f"nothing moves between these {len(features)} photos: they are copies of one image, or were taken from a "
            "tripod; depth is visible only from different positions"
        )
