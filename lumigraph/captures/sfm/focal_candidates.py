"""Focal length candidates: from EXIF, from a vote of the image pairs, and COLMAP's default."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pycolmap

from lumigraph.captures.sfm import focal_voting, two_view
from lumigraph.captures.sfm.features import Features, Matches
from lumigraph.captures.sfm.image_pairs import Pair
from lumigraph.captures.sfm.request import Request
from lumigraph.captures.sfm.stopwatch import Stopwatch
from lumigraph.captures.thread_map import ordered_map

MODEL = "OPENCV"
DEFAULT_FOCAL = 1.2  # of the longer side: COLMAP's default prior
MAX_VOTING_PAIRS, MIN_VOTING_MATCHES, VOTING_ERROR_PX = 200, 50, 2.0


@dataclass(frozen=True)
class LensCandidate:
    """Initial intrinsics of a camera before reconstruction, in pixels of the downscaled images."""

    size: tuple[int, int]  # width, height
    focal: float  # pixels
    has_prior: bool  # the focal length comes from EXIF or the vote; otherwise it is only a starting value

    def camera(self, number: int) -> pycolmap.Camera:
        """COLMAP camera without distortion; its id is `number` + 1."""
        camera = pycolmap.Camera.create_from_model_name(number + 1, MODEL, self.focal, *self.size)
        camera.has_prior_focal_length = self.has_prior
        return camera


def lens_candidates(
    request: Request, features: list[Features], matches: dict[Pair, Matches], clock: Stopwatch
) -> Iterator[list[LensCandidate]]:
    """Yield lens candidates, one lens per camera, the most probable first: EXIF, vote, COLMAP's default.

    The vote is computed only when its candidate is requested.
    """
    photo_of = {number: photo for photo, number in reversed(list(enumerate(request.cameras)))}
    sizes = [features[photo_of[number]].size for number in sorted(photo_of)]
    exif_focals = [request.focals[photo_of[number]] for number in sorted(photo_of)]
    scales = [max(size) / max(request.sizes[photo_of[n]]) for n, size in enumerate(sizes)]
    if all(exif_focals):
        yield [
            LensCandidate(size, value * k, True)
            for size, value, k in zip(sizes, exif_focals, scales, strict=True)
            if value
        ]
    with clock.stage("focal length"):
        voted_focal = vote_focal_length(request, features, matches)
    if voted_focal is not None:
        yield [
            LensCandidate(size, value * k if value and not all(exif_focals) else voted_focal * max(size), True)
            for size, value, k in zip(sizes, exif_focals, scales, strict=True)
        ]
    yield [LensCandidate(size, DEFAULT_FOCAL * max(size), False) for size in sizes]


def vote_focal_length(request: Request, features: list[Features], matches: dict[Pair, Matches]) -> float | None:
    """Return the focal length, over the longer side, that pairs of images of one size agree on (see `focal_voting`)."""
    usable_pairs = [
        pair
        for pair, rows in matches.items()
        if len(rows) >= MIN_VOTING_MATCHES and features[pair[0]].size == features[pair[1]].size
    ]
    order = np.random.default_rng(request.seed).permutation(len(usable_pairs))[:MAX_VOTING_PAIRS]
    options = two_view.ransac_options(request.seed, VOTING_ERROR_PX)

    def estimate(pair: Pair) -> pycolmap.TwoViewGeometry:
        camera = LensCandidate(features[pair[0]].size, DEFAULT_FOCAL * max(features[pair[0]].size), False).camera(0)
        return two_view.estimate_geometry(features, pair, matches[pair], camera, camera, options)

    sampled_pairs = [usable_pairs[i] for i in sorted(order)]
    geometries = list(zip(sampled_pairs, ordered_map(estimate, sampled_pairs), strict=True))
    voters = [
        (pair, geometry)
        for pair, geometry in geometries
        if two_view.is_uncalibrated(geometry) and len(geometry.inlier_matches) >= MIN_VOTING_MATCHES
    ]
    return focal_voting.vote_focal_length(
        [np.asarray(geometry.F) for _, geometry in voters],
        [len(geometry.inlier_matches) for _, geometry in voters],
        [features[pair[0]].size for pair, _ in voters],
    )
