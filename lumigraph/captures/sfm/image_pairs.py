"""Selection of image pairs: exhaustive, sequential or spatial. Pairs are (i, j), i < j."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import numpy as np

Pair = tuple[int, int]
GpsPosition = tuple[float, float, float | None]  # degrees north, degrees east, metres of altitude
Matching = Literal["auto", "exhaustive", "sequential", "spatial"]

EXHAUSTIVE_LIMIT = 150  # images; beyond it the quadratic number of pairs dominates the run time
OVERLAP = 10  # images before and after
KEY_IMAGES = 40  # evenly spaced images of a sequence that are matched exhaustively, to find loop closures
MAX_NEIGHBOURS = 30  # images nearest on the map
MAX_NEIGHBOUR_METRES = 100.0
EARTH_RADIUS_METRES = 6_371_000.0


def choose_pairs(matching: Matching, positions: Sequence[GpsPosition | None], in_sequence: bool) -> list[Pair]:
    """Select pairs by `matching`.

    "auto" is sequential for video frames, exhaustive for up to EXHAUSTIVE_LIMIT images, and otherwise spatial if every
    image has a GPS position, else sequential.
    """
    count = len(positions)
    if matching == "auto":
        if in_sequence:
            matching = "sequential"
        elif count <= EXHAUSTIVE_LIMIT:
            matching = "exhaustive"
        else:
            matching = "spatial" if all(position is not None for position in positions) else "sequential"
    if matching == "exhaustive":
        return list(combinations(range(count), 2))
    if matching == "sequential":
        return sequential_pairs(count)
    return spatial_pairs(positions)


def sequential_pairs(count: int) -> list[Pair]:
    """Neighbours within OVERLAP, those 16, 32, 64 ... later, and all pairs of KEY_IMAGES evenly spaced images."""
    steps = [*range(1, OVERLAP + 1), *(2**k for k in range(4, count.bit_length()))]
    pairs = {(i, i + step) for step in steps for i in range(count - step)}
    keys = np.unique(np.linspace(0, count - 1, min(count, KEY_IMAGES)).round().astype(int)).tolist()
    return sorted(pairs | set(combinations(keys, 2)))


def spatial_pairs(positions: Sequence[GpsPosition | None]) -> list[Pair]:
    """Pair each image with its nearest ones within MAX_NEIGHBOUR_METRES; images without GPS with all others."""
    with_gps = [i for i, position in enumerate(positions) if position is not None]
    without_gps = [i for i, position in enumerate(positions) if position is None]
    pairs = {(min(i, j), max(i, j)) for i in without_gps for j in range(len(positions)) if i != j}
    degrees = np.array([position[:2] for position in positions if position is not None]).reshape(-1, 2)
    north, east = np.radians(degrees).T
    # Tangent plane at the mean latitude; circles of latitude shrink with the cosine.
    parallel_scale = np.cos(north.mean()) if len(with_gps) else 1.0
    east_offset = (east - east[:1] + np.pi) % (2 * np.pi) - np.pi  # wraps at the date line
    metres = EARTH_RADIUS_METRES * np.stack([north, east_offset * parallel_scale], axis=1)
    for row, i in enumerate(with_gps):
        distance = np.linalg.norm(metres - metres[row], axis=1)
        nearest = np.argsort(distance, kind="stable")[: MAX_NEIGHBOURS + 1]
        pairs |= {
            (min(i, with_gps[k]), max(i, with_gps[k]))
            for k in nearest
            if k != row and distance[k] <= MAX_NEIGHBOUR_METRES
        }
    return sorted(pairs)
