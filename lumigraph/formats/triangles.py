"""Triangle operations shared by mesh formats."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def triangulate_fans(corners: Array, counts: Array) -> Array:
    """Triangulate polygons as fans around their first corner; returns triangles (F, 3).

    corners: vertex indices of all polygons, concatenated
    counts: number of corners of each polygon; polygons with fewer than three are dropped
    """
    starts = np.cumsum(counts) - counts
    triangle_counts = np.maximum(counts - 2, 0)
    first = np.repeat(starts, triangle_counts)
    corner = np.arange(len(first)) - np.repeat(np.cumsum(triangle_counts) - triangle_counts, triangle_counts)
    return np.stack([corners[first], corners[first + corner + 1], corners[first + corner + 2]], axis=1)


def merge_equal_rows(positions: Array) -> tuple[Array, Array]:
    """Distinct rows of float32 (N, 3) by first appearance, and (N,) the index of each row among them."""
    bits = np.ascontiguousarray(positions + np.float32(0)).view(np.uint32)  # -0 + 0 is 0
    return _unique_rows(bits, positions)


def _unique_rows(keys: Array, rows: Array) -> tuple[Array, Array]:
    order = np.lexsort(keys.T)
    is_first = np.ones(len(keys), bool)
    is_first[1:] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    first = order[is_first]  # lexsort is stable: the earliest row of each group
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    indices = np.empty(len(keys), np.int64)
    indices[order] = rank[np.cumsum(is_first) - 1]
    return rows[np.sort(first)], indices


def unique_rows(rows: Array) -> tuple[Array, Array]:
    """Distinct rows of integers (N, K) by first appearance, and (N,) the index of each row among them."""
    return _unique_rows(rows, rows)


def count_open_edges(faces: Array, vertices: int) -> int:
    """Count edges of triangles (F, 3) that are not traversed equally often both ways; 0 for a closed surface."""
    a, b = faces.reshape(-1).astype(np.int64), np.roll(faces, -1, axis=1).reshape(-1).astype(np.int64)
    edges, edge_indices = np.unique(np.minimum(a, b) * vertices + np.maximum(a, b), return_inverse=True)
    return int(np.count_nonzero(np.bincount(edge_indices, np.where(a < b, 1, -1), len(edges))))
