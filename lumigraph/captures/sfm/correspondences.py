"""Features of all images and matches of all image pairs."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from lumigraph.captures.sfm import features as sift
from lumigraph.captures.sfm.event_pipe import EventPipe
from lumigraph.captures.sfm.features import Features, Matches
from lumigraph.captures.sfm.image_pairs import Pair
from lumigraph.captures.sfm.request import Request
from lumigraph.captures.thread_map import ordered_map
from lumigraph.scene.errors import CaptureError

# Preemptive matching: a pair is matched in full if so many of its largest features match.
PREEMPTIVE_FEATURES, MIN_PREEMPTIVE_MATCHES = 500, 6
# An image keeps its best pairs by preemptive score, and after them one pair of every FURTHER_PAIR_STRIDE.
BEST_PAIRS, FURTHER_PAIR_STRIDE = 16, 4
MIN_USEFUL_FEATURES = 50  # an image with fewer is unlikely to register
MIN_PAIR_MATCHES = 15  # before and after verification


def extract_all(request: Request, pipe: EventPipe) -> list[Features]:
    """Extract the features of every image, in request order. Raises CaptureError if fewer than two images have some."""
    folder, photos = Path(request.folder), list(zip(request.names, request.sizes, request.masks, strict=True))
    image_features: list[Features] = []
    pipe.progress("features", 0, len(photos), "photos")
    for result in ordered_map(
        lambda photo: sift.extract(
            folder / photo[0],
            photo[1],
            request.max_image_size,
            request.max_features,
            None if photo[2] is None else Path(photo[2]),
        ),
        photos,
    ):
        image_features.append(result)
        pipe.progress("features", len(image_features), len(photos), "photos")
    featureless = [
        name
        for name, features in zip(request.names, image_features, strict=True)
        if len(features) < MIN_USEFUL_FEATURES
    ]
    if len(image_features) - len(featureless) < 2:
        raise CaptureError(
            f"{len(featureless)} of {len(image_features)} photos show next to no detail: they are blurred, "
            "dark or plain; take sharp photos of something textured"
        )
    if featureless:
        pipe.note(f"{len(featureless)} photos show hardly any detail and may not register, the first: {featureless[0]}")
    return image_features


def match_pairs(image_features: list[Features], pairs: list[Pair], pipe: EventPipe) -> dict[Pair, Matches]:
    """Match all pairs; returns the pairs with at least MIN_PAIR_MATCHES matches.

    Most pairs of a large set do not overlap. Matching a few hundred of the largest features first rejects them at a
    hundredth of the cost (preemptive matching, Wu 2013).
    """
    scores: dict[Pair, int] = {}
    pipe.progress("pairs", 0, len(pairs), "pairs")
    preemptive_matches = ordered_map(
        lambda pair: len(sift.match(image_features[pair[0]], image_features[pair[1]], PREEMPTIVE_FEATURES)), pairs
    )
    for count_done, (pair, count) in enumerate(zip(pairs, preemptive_matches, strict=True), start=1):
        if count >= MIN_PREEMPTIVE_MATCHES:
            scores[pair] = count
        pipe.progress("pairs", count_done, len(pairs), "pairs")
    selected_pairs = select_pairs(scores)
    matches: dict[Pair, Matches] = {}
    full_matches = ordered_map(
        lambda pair: sift.match(image_features[pair[0]], image_features[pair[1]]), selected_pairs
    )
    for count_done, (pair, rows) in enumerate(zip(selected_pairs, full_matches, strict=True), start=1):
        if len(rows) >= MIN_PAIR_MATCHES:
            matches[pair] = rows
        pipe.progress("matches", count_done, len(selected_pairs), "pairs")
    return matches


def select_pairs(scores: dict[Pair, int]) -> list[Pair]:
    """Return the pairs that rank among the best, or at the stride after them, for at least one of their images.

    `scores`: preemptive matches of each pair; the result keeps its order. The best pairs of an image give nearly all of
    its tracks. Further pairs may close a loop and are thinned.
    """
    ranked_pairs: defaultdict[int, list[Pair]] = defaultdict(list)
    for pair in sorted(scores, key=lambda pair: (-scores[pair], pair)):
        for photo in pair:
            ranked_pairs[photo].append(pair)
    selection = {
        pair
        for pairs in ranked_pairs.values()
        for pair in (*pairs[:BEST_PAIRS], *pairs[BEST_PAIRS::FURTHER_PAIR_STRIDE])
    }
    return [pair for pair in scores if pair in selection]
