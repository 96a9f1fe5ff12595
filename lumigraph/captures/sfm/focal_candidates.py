"""Focal lengths to try: what EXIF says, what the pairs of photos vote for, what is usual."""

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
DEFAULT_FOCAL = 1.2  # of the longer side: COLMAP's guess, where nothing tells better
VOTING_PAIRS, VOTING_MATCHES, VOTING_ERROR = 200, 50, 2.0  # the most pairs, the least matches of each, pixels


@dataclass(frozen=True)
class Lens:
    """A guess at a camera before reconstruction, in pixels of the reduced photos."""

    size: tuple[int, int]  # width, height
    focal: float  # pixels
    trusted: bool  # known from EXIF or by vote; else only a start

    def camera(self, number: int) -> pycolmap.Camera:
        """The same for COLMAP, without distortion yet; its ids are our numbers plus one."""
        camera = pycolmap.Camera.create_from_model_name(number + 1, MODEL, self.focal, *self.size)
        camera.has_prior_focal_length = self.trusted
        return camera


def guesses(
    request: Request, found: list[Features], matches: dict[Pair, Matches], clock: Stopwatch
) -> Iterator[list[Lens]]:
    """Lenses to try, one for each camera, the likeliest first: what EXIF says, what the pairs vote for, COLMAP's
    default. The vote is only counted when it is asked for."""
    photo_of = {number: photo for photo, number in reversed(list(enumerate(request.cameras)))}
    sizes = [found[photo_of[number]].size for number in sorted(photo_of)]
    told = [request.focals[photo_of[number]] for number in sorted(photo_of)]
    reduced = [max(size) / max(request.sizes[photo_of[n]]) for n, size in enumerate(sizes)]
    if all(told):
        yield [Lens(size, value * k, True) for size, value, k in zip(sizes, told, reduced, strict=True) if value]
    with clock.stage("focal length"):
        voted = vote(request, found, matches)
    if voted is not None:
        yield [
            Lens(size, value * k if value and not all(told) else voted * max(size), True)
            for size, value, k in zip(sizes, told, reduced, strict=True)
        ]
    yield [Lens(size, DEFAULT_FOCAL * max(size), False) for size in sizes]


def vote(request: Request, found: list[Features], matches: dict[Pair, Matches]) -> float | None:
    """The focal length over the longer side that pairs of photos of one size agree on (see `focal`)."""
    usable = [
        pair
        for pair, rows in matches.items()
        if len(rows) >= VOTING_MATCHES and found[pair[0]].size == found[pair[1]].size
    ]
    chosen = np.random.default_rng(request.seed).permutation(len(usable))[:VOTING_PAIRS]
    options = two_view.ransac_options(request.seed, VOTING_ERROR)

    def estimate(pair: Pair) -> pycolmap.TwoViewGeometry:
        camera = Lens(found[pair[0]].size, DEFAULT_FOCAL * max(found[pair[0]].size), False).camera(0)
        return two_view.estimate(found, pair, matches[pair], camera, camera, options)

    asked = [usable[i] for i in sorted(chosen)]
    said = list(zip(asked, ordered_map(estimate, asked), strict=True))
    voters = [
        (pair, geometry)
        for pair, geometry in said
        if two_view.is_uncalibrated(geometry) and len(geometry.inlier_matches) >= VOTING_MATCHES
    ]
    return focal_voting.vote(
        [np.asarray(geometry.F) for _, geometry in voters],
        [len(geometry.inlier_matches) for _, geometry in voters],
        [found[pair[0]].size for pair, _ in voters],
    )
