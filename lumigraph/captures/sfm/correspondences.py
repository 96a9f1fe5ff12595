"""The features of all photos and the matches of all pairs."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from lumigraph.captures.sfm import features as local
from lumigraph.captures.sfm.event_pipe import Speaker
from lumigraph.captures.sfm.features import Features, Matches
from lumigraph.captures.sfm.image_pairs import Pair
from lumigraph.captures.sfm.request import Request
from lumigraph.captures.thread_map import ordered_map
from lumigraph.scene.errors import CaptureError

SCREEN_FEATURES, SCREEN_MATCHES = 500, 6  # a pair is worth a full match when so many of the largest features match
# Of the pairs of a photo that are worth a full match, ranked by their first one: all up to here, then one in so many.
BEST_PARTNERS, FURTHER_PARTNERS = 16, 4
FEW_FEATURES = 50  # a photo with fewer will hardly be joined
LEAST_MATCHES = 15  # of a pair, before and after verification


def extract(request: Request, say: Speaker) -> list[Features]:
    """The features of every photo, in the order of the request. Raises CaptureError unless two photos show detail."""
    folder, photos = Path(request.folder), list(zip(request.names, request.sizes, request.masks, strict=True))
    found: list[Features] = []
    say.progress("features", 0, len(photos), "photos")
    for result in ordered_map(
        lambda photo: local.extract(
            folder / photo[0],
            photo[1],
            request.max_image_size,
            request.max_features,
            None if photo[2] is None else Path(photo[2]),
        ),
        photos,
    ):
        found.append(result)
        say.progress("features", len(found), len(photos), "photos")
    plain = [name for name, one in zip(request.names, found, strict=True) if len(one) < FEW_FEATURES]
    if len(found) - len(plain) < 2:
        raise CaptureError(
            f"{len(plain)} of {len(found)} photos show next to no detail: they are blurred, dark or of something "
            "plain; take sharp photos of something textured"
        )
    if plain:
        say.note(f"{len(plain)} photos show hardly any detail and may not be joined, the first: {plain[0]}")
    return found


def match(found: list[Features], pairs: list[Pair], say: Speaker) -> dict[Pair, Matches]:
    """Matches of the pairs that have enough of them. Most pairs of a large set see different things: the largest few
    hundred features, matched first, tell so at a hundredth of the price (preemptive matching, Wu 2013)."""
    scores: dict[Pair, int] = {}
    say.progress("pairs", 0, len(pairs), "pairs")
    few = ordered_map(lambda pair: len(local.match(found[pair[0]], found[pair[1]], SCREEN_FEATURES)), pairs)
    for done, (pair, count) in enumerate(zip(pairs, few, strict=True), start=1):
        if count >= SCREEN_MATCHES:
            scores[pair] = count
        say.progress("pairs", done, len(pairs), "pairs")
    promising = partners(scores)
    matches: dict[Pair, Matches] = {}
    all_features = ordered_map(lambda pair: local.match(found[pair[0]], found[pair[1]]), promising)
    for done, (pair, rows) in enumerate(zip(promising, all_features, strict=True), start=1):
        if len(rows) >= LEAST_MATCHES:
            matches[pair] = rows
        say.progress("matches", done, len(promising), "pairs")
    return matches


def partners(scores: dict[Pair, int]) -> list[Pair]:
    """The pairs that one of their photos has among its BEST_PARTNERS by score, or after them as one in
    FURTHER_PARTNERS, in the order of `scores`.

    A photo's best pairs give nearly all of its tracks. The others, of which one may close a loop, are only thinned.
    """
    ranked: defaultdict[int, list[Pair]] = defaultdict(list)
    for pair in sorted(scores, key=lambda pair: (-scores[pair], pair)):
        for photo in pair:
            ranked[photo].append(pair)
    chosen = {pair for own in ranked.values() for pair in (*own[:BEST_PARTNERS], *own[BEST_PARTNERS::FURTHER_PARTNERS])}
    return [pair for pair in scores if pair in chosen]
