"""Feature tracks, and a selection of the matches that suffices for mapping.

A track is the set of features in several images that matches connect; it shows one 3D point.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lumigraph.captures.sfm.features import Features
from lumigraph.captures.sfm.verification import VerifiedPair

MIN_IMAGE_FEATURES, MIN_PAIR_MATCHES_KEPT = 400, 50  # smallest numbers to keep, as far as they exist

Longs = NDArray[np.int64]


def thin_matches(features: Sequence[Features], verified_pairs: Sequence[VerifiedPair]) -> list[VerifiedPair]:
    """Thin the matches of verified pairs to those of the longest tracks.

    Tracks are added until each image has MIN_IMAGE_FEATURES features and each pair MIN_PAIR_MATCHES_KEPT matches. Long
    tracks determine the cameras; `mapping.complete_model` restores the other matches once the cameras are known.
    """
    start = np.concatenate([[0], np.cumsum([len(verified_pair) for verified_pair in features])])
    edges = [
        start[list(verified_pair.pair)] + verified_pair.matches.astype(np.int64) for verified_pair in verified_pairs
    ]
    if not edges:
        return []
    labels = connected_components(int(start[-1]), np.concatenate(edges))
    photos = np.repeat(np.arange(len(features)), np.diff(start))
    rank = _ranks(labels, photos)
    is_kept = np.zeros(len(labels), bool)  # indexed by label
    _select_for_images(is_kept, rank, labels, photos, len(features))
    for rows in edges:
        track = labels[rows[:, 0]]
        missing = MIN_PAIR_MATCHES_KEPT - int(is_kept[track].sum())
        if missing > 0:
            other_tracks = track[~is_kept[track]]
            is_kept[other_tracks[np.argsort(rank[other_tracks], kind="stable")[:missing]]] = True
    return [
        _restrict_matches(verified_pair, is_kept[labels[rows[:, 0]]])
        for verified_pair, rows in zip(verified_pairs, edges, strict=True)
    ]


def connected_components(count: int, edges: Longs) -> Longs:
    """Label each of `count` nodes with the smallest node of its connected component; edges (E, 2)."""
    labels = np.arange(count)
    while True:
        low = np.minimum(labels[edges[:, 0]], labels[edges[:, 1]])
        new_labels = labels.copy()
        for side in (0, 1):
            np.minimum.at(new_labels, labels[edges[:, side]], low)
        new_labels = new_labels[new_labels]
        if (new_labels == labels).all():
            return labels
        labels = new_labels


def _ranks(labels: Longs, photos: Longs) -> Longs:
    """Rank tracks by label: longest first; last those with two features in one image, which are wrong."""
    size = np.bincount(labels, minlength=len(labels))
    distinct = np.unique(np.stack([labels, photos], axis=1), axis=0)[:, 0]
    length = np.bincount(distinct, minlength=len(labels))
    order = np.lexsort([-length, length < size])
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels))
    return rank


def _select_for_images(is_kept: NDArray[np.bool_], rank: Longs, labels: Longs, photos: Longs, count: int) -> None:
    """Select tracks in rank order, in place, while one of their images needs more features."""
    order = np.argsort(rank[labels], kind="stable")
    _, first = np.unique(rank[labels[order]], return_index=True)
    missing_features = np.full(count, MIN_IMAGE_FEATURES)
    for members in np.split(order, first[1:]):
        if len(members) > 1 and (missing_features[photos[members]] > 0).any():
            is_kept[labels[members[0]]] = True
            missing_features[photos[members]] -= 1


def _restrict_matches(verified_pair: VerifiedPair, rows: NDArray[np.bool_]) -> VerifiedPair:
    geometry = copy.copy(verified_pair.geometry)
    geometry.inlier_matches = np.ascontiguousarray(verified_pair.matches[rows])
    return VerifiedPair(verified_pair.pair, geometry)
