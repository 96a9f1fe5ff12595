"""The pairs of photos to build on: those whose matches one motion of the camera explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap

from lumigraph.captures.sfm import two_view
from lumigraph.captures.sfm.correspondences import LEAST_MATCHES
from lumigraph.captures.sfm.event_pipe import Speaker
from lumigraph.captures.sfm.features import Features, Matches
from lumigraph.captures.sfm.focal_candidates import Lens
from lumigraph.captures.sfm.image_pairs import Pair
from lumigraph.captures.sfm.request import Request
from lumigraph.captures.thread_map import ordered_map
from lumigraph.scene.errors import CaptureError

STILL_PIXELS = 1.0  # photos in which nothing moved by more are copies of one another


@dataclass(frozen=True)
class Verified:
    """The matches of a pair of photos that one motion of the camera explains."""

    pair: Pair
    geometry: pycolmap.TwoViewGeometry

    @property
    def matches(self) -> Matches:
        return np.asarray(self.geometry.inlier_matches, np.uint32)


def verify(
    found: list[Features], matches: dict[Pair, Matches], lenses: list[Lens], request: Request, say: Speaker
) -> list[Verified]:
    """The pairs whose matches a motion of the camera explains, with the matches that it explains."""
    options = two_view.ransac_options(request.seed)
    cameras = [lens.camera(number) for number, lens in enumerate(lenses)]

    def estimate(pair: Pair) -> pycolmap.TwoViewGeometry:
        first, second = (cameras[request.cameras[photo]] for photo in pair)
        return two_view.estimate(found, pair, matches[pair], first, second, options)

    verified = []
    for done, (pair, geometry) in enumerate(zip(matches, ordered_map(estimate, matches), strict=True), start=1):
        if len(geometry.inlier_matches) >= LEAST_MATCHES:
            verified.append(Verified(pair, geometry))
        say.progress("verification", done, len(matches), "pairs")
    return verified


def trustworthy(verified: list[Verified], lenses: list[Lens]) -> list[Verified]:
    """Where focal lengths are known, without the pairs that a fundamental matrix explains clearly better than an
    essential one: such matches agree, but not on a motion of these cameras. Repeated texture does that; in a capture of
    a room with known cameras, nine in ten of the pairs that contradict them were found so. All pairs where fewer photos
    would hang together without them, as with a strongly distorting lens."""
    if not all(lens.trusted for lens in lenses):
        return verified
    kept = [one for one in verified if not two_view.is_uncalibrated(one.geometry)]
    return kept if len(together(kept)) >= len(together(verified)) else verified


def together(verified: Sequence[Verified]) -> set[int]:
    """The largest set of photos that pairs connect."""
    group: dict[int, set[int]] = {}
    for i, j in (one.pair for one in verified):
        merged = group.get(i, {i}) | group.get(j, {j})
        group.update(dict.fromkeys(merged, merged))
    return max(group.values(), key=len, default=set())


def refuse_stills(found: list[Features], verified: list[Verified]) -> None:
    """Raises CaptureError where photos show the same and nothing moved between them."""
    moved = [
        float(np.median(np.linalg.norm(found[i].points[rows[:, 0]] - found[j].points[rows[:, 1]], axis=1)))
        for (i, j), rows in ((one.pair, one.matches) for one in verified)
    ]
    if moved and max(moved) < STILL_PIXELS:
        raise CaptureError(
            f"nothing moves between these {len(found)} photos: they are copies of one picture, or were taken from a "
            "tripod; depth shows only from different places"
        )
