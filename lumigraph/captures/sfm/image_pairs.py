"""Which photos to compare with which: all, neighbours in time, or neighbours on the map. Pairs are (i, j), i < j."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import numpy as np

Pair = tuple[int, int]
Place = tuple[float, float, float | None]  # degrees north, degrees east, metres of altitude
Matching = Literal["auto", "exhaustive", "sequential", "spatial"]

EXHAUSTIVE_LIMIT = 150  # photos; beyond it the number of pairs, which grows with the square, is what takes the time
OVERLAP = 10  # photos before and after
KEY_PHOTOS = 40  # evenly spaced photos of a sequence that are all compared, to notice where the path meets itself
NEAREST = 30  # photos on the map
NEAR_METRES = 100.0
EARTH_METRES = 6_371_000.0


def choose(matching: Matching, places: Sequence[Place | None], in_sequence: bool) -> list[Pair]:
    """The pairs of the asked kind. "auto" compares all of up to 150 photos, but frames of a video by their order, and
    larger sets by their order too, or by the map where it is known."""
    count = len(places)
    if matching == "auto":
        if in_sequence:
            matching = "sequential"
        elif count <= EXHAUSTIVE_LIMIT:
            matching = "exhaustive"
        else:
            matching = "spatial" if all(place is not None for place in places) else "sequential"
    if matching == "exhaustive":
        return list(combinations(range(count), 2))
    if matching == "sequential":
        return sequential(count)
    return spatial(places)


def sequential(count: int) -> list[Pair]:
    """Neighbours within OVERLAP, those 16, 32, 64 ... later, and every pair of KEY_PHOTOS evenly spaced photos."""
    steps = [*range(1, OVERLAP + 1), *(2**k for k in range(4, count.bit_length()))]
    pairs = {(i, i + step) for step in steps for i in range(count - step)}
    keys = np.unique(np.linspace(0, count - 1, min(count, KEY_PHOTOS)).round().astype(int)).tolist()
    return sorted(pairs | set(combinations(keys, 2)))


def spatial(places: Sequence[Place | None]) -> list[Pair]:
    """Each photo with its nearest ones within NEAR_METRES; a photo without a place with all others."""
    known = [i for i, place in enumerate(places) if place is not None]
    lost = [i for i, place in enumerate(places) if place is None]
    pairs = {(min(i, j), max(i, j)) for i in lost for j in range(len(places)) if i != j}
    degrees = np.array([place[:2] for place in places if place is not None]).reshape(-1, 2)
    north, east = np.radians(degrees).T
    # A plane that touches the earth amid the photos; the circle of latitude shrinks with its cosine.
    middle = np.cos(north.mean()) if len(known) else 1.0
    around = (east - east[:1] + np.pi) % (2 * np.pi) - np.pi  # also across the date line
    metres = EARTH_METRES * np.stack([north, around * middle], axis=1)
    for row, i in enumerate(known):
        distance = np.linalg.norm(metres - metres[row], axis=1)
        nearest = np.argsort(distance, kind="stable")[: NEAREST + 1]
        pairs |= {(min(i, known[k]), max(i, known[k])) for k in nearest if k != row and distance[k] <= NEAR_METRES}
    return sorted(pairs)
