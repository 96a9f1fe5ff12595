"""What several formats do with the triangles of a mesh."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def fans(corners: Array, counts: Array) -> Array:
    """Polygons as triangles (F, 3), each a fan about its first corner. `corners` holds them one after the other,
    `counts` how many corners each has; what has fewer than three is no polygon and is left out."""
    starts = np.cumsum(counts) - counts
    triangles = np.maximum(counts - 2, 0)
    first = np.repeat(starts, triangles)
    step = np.arange(len(first)) - np.repeat(np.cumsum(triangles) - triangles, triangles)
    return np.stack([corners[first], corners[first + step + 1], corners[first + step + 2]], axis=1)


def joined(places: Array) -> tuple[Array, Array]:
    """The distinct rows of float32 (N, 3) in the order of their first appearance, and which of them each row is."""
    bits = np.ascontiguousarray(places + np.float32(0)).view(np.uint32)  # -0 + 0 is 0
    return _distinct(bits, places)


def _distinct(keys: Array, rows: Array) -> tuple[Array, Array]:
    order = np.lexsort(keys.T)
    new = np.ones(len(keys), bool)
    new[1:] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    first = order[new]  # lexsort is stable: the earliest row of each group
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    number = np.empty(len(keys), np.int64)
    number[order] = place[np.cumsum(new) - 1]
    return rows[np.sort(first)], number


def distinct(rows: Array) -> tuple[Array, Array]:
    """The distinct rows of integers (N, K) in the order of their first appearance, and which of them each row is."""
    return _distinct(rows, rows)


def open_edges(faces: Array, vertices: int) -> int:
    """How many edges of triangles (F, 3) are not run through as often one way as the other; 0 for a closed surface."""
    a, b = faces.reshape(-1).astype(np.int64), np.roll(faces, -1, axis=1).reshape(-1).astype(np.int64)
    edges, which = np.unique(np.minimum(a, b) * vertices + np.maximum(a, b), return_inverse=True)
    return int(np.count_nonzero(np.bincount(which, np.where(a < b, 1, -1), len(edges))))
