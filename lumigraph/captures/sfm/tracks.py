"""Tracks: features of several photos that show one point, by way of their matches; and the few that suffice to map."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lumigraph.captures.sfm.features import Features
from lumigraph.captures.sfm.verification import Verified

PHOTO_QUOTA, PAIR_QUOTA = 400, 50  # features kept of a photo at least, matches kept of a pair at least

Longs = NDArray[np.int64]


def thin(features: Sequence[Features], verified: Sequence[Verified]) -> list[Verified]:
    """The same pairs with fewer matches: those of the longest tracks, until each photo has PHOTO_QUOTA features and
    each pair PAIR_QUOTA matches, where there are so many.

    Long tracks determine cameras; what the others add is found again in one pass, once the cameras are known.
    """
    start = np.concatenate([[0], np.cumsum([len(one) for one in features])])
    edges = [start[list(one.pair)] + one.matches.astype(np.int64) for one in verified]
    if not edges:
        return []
    labels = components(int(start[-1]), np.concatenate(edges))
    photos = np.repeat(np.arange(len(features)), np.diff(start))
    rank = _ranks(labels, photos)
    kept = np.zeros(len(labels), bool)  # by label
    _fill_photos(kept, rank, labels, photos, len(features))
    for rows in edges:
        track = labels[rows[:, 0]]
        missing = PAIR_QUOTA - int(kept[track].sum())
        if missing > 0:
            others = track[~kept[track]]
            kept[others[np.argsort(rank[others], kind="stable")[:missing]]] = True
    return [_restricted(one, kept[labels[rows[:, 0]]]) for one, rows in zip(verified, edges, strict=True)]


def components(count: int, edges: Longs) -> Longs:
    """The least member of the connected component of each of `count` nodes, edges (E, 2)."""
    labels = np.arange(count)
    while True:
        low = np.minimum(labels[edges[:, 0]], labels[edges[:, 1]])
        merged = labels.copy()
        for side in (0, 1):
            np.minimum.at(merged, labels[edges[:, side]], low)
        merged = merged[merged]
        if (merged == labels).all():
            return labels
        labels = merged


def _ranks(labels: Longs, photos: Longs) -> Longs:
    """The rank of each track, by label: long ones first; after them those that show a photo twice, which are wrong."""
    size = np.bincount(labels, minlength=len(labels))
    distinct = np.unique(np.stack([labels, photos], axis=1), axis=0)[:, 0]
    length = np.bincount(distinct, minlength=len(labels))
    order = np.lexsort([-length, length < size])
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels))
    return rank


def _fill_photos(kept: NDArray[np.bool_], rank: Longs, labels: Longs, photos: Longs, count: int) -> None:
    """Marks tracks in the order of their ranks wherever a photo still wants one."""
    order = np.argsort(rank[labels], kind="stable")
    _, first = np.unique(rank[labels[order]], return_index=True)
    wanted = np.full(count, PHOTO_QUOTA)
    for members in np.split(order, first[1:]):
        if len(members) > 1 and (wanted[photos[members]] > 0).any():
            kept[labels[members[0]]] = True
            wanted[photos[members]] -= 1


def _restricted(one: Verified, rows: NDArray[np.bool_]) -> Verified:
    geometry = copy.copy(one.geometry)
    geometry.inlier_matches = np.ascontiguousarray(one.matches[rows])
    return Verified(one.pair, geometry)
