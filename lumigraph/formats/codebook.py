"""Vector quantization: a codebook of numbers and a palette of vectors, both by Lloyd's k-means (1982).

Both run a fixed number of iterations and are deterministic.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

CODEBOOK_SIZE = 256
CODEBOOK_ITERATIONS = 60
EXHAUSTIVE_SEARCH_LIMIT = 1 << 22  # distances; more than that are computed with a tree
TREE_SAMPLE_COUNT = 1 << 16  # vectors that the first level of the tree is learned from
DISTANCE_ROWS = 1 << 11  # rows of the distance matrix computed at once


def learn_codebook(values: npt.NDArray[Any]) -> Floats:
    """Learn 256 ascending numbers (256,) close to most of `values`. Raises ValueError if there are no values.

    In one dimension a cell is an interval of the sorted values, and its mean is a difference of two prefix sums. An
    iteration therefore costs the same for a thousand values as for a million.
    """
    sorted_values = np.sort(values, axis=None)
    if not len(sorted_values):
        raise ValueError("no values, no codebook")
    sums = np.concatenate([[0.0], np.cumsum(sorted_values, dtype=np.float64)])
    # Half of the codes start at quantiles, half are spread evenly, so that rare extremes get codes as well.
    quantiles = sorted_values[np.linspace(0, len(sorted_values) - 1, CODEBOOK_SIZE // 2).round().astype(np.int64)]
    codes = np.sort(
        np.concatenate(
            [quantiles, np.linspace(sorted_values[0], sorted_values[-1], CODEBOOK_SIZE - len(quantiles))]
        ).astype(np.float64)
    )
    for _ in range(CODEBOOK_ITERATIONS):
        boundaries = np.searchsorted(sorted_values, (codes[1:] + codes[:-1]) / 2)
        boundaries = np.concatenate([[0], boundaries, [len(sorted_values)]])
        counts = np.diff(boundaries)
        means = np.diff(sums[boundaries]) / np.maximum(counts, 1)
        codes = np.sort(np.where(counts > 0, means, codes))
    return codes.astype(np.float32)


def find_nearest_code(codes: Floats, values: Floats) -> Bytes:
    """Index of the nearest of the ascending `codes` for each value."""
    indices: Bytes = np.searchsorted((codes[1:] + codes[:-1]) / 2, values).astype(np.uint8)
    return indices


def learn_palette(vectors: torch.Tensor, size: int, iterations: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Learn a palette: (N, D) -> at most `size` vectors (P, D), and (N,) the index of a near one for each of N.

    Uses a tree of two levels (tree-structured vector quantization; Buzo et al. 1980). An exhaustive search through
    65536 vectors for each of a million takes hours. The tree takes seconds, with an error a few per cent larger.
    """
    count = len(vectors)
    if count * size <= EXHAUSTIVE_SEARCH_LIMIT:
        return _run_kmeans(vectors, size, iterations)
    branch_count = math.isqrt(size)  # as many branches as leaves per branch minimizes the distances
    draw = torch.Generator().manual_seed(0)
    sample = (
        vectors[torch.randperm(count, generator=draw)[:TREE_SAMPLE_COUNT]] if count > TREE_SAMPLE_COUNT else vectors
    )
    branches, _ = _run_kmeans(sample, branch_count, iterations)
    branch = _assign_nearest(branches, vectors)
    order = torch.argsort(branch, stable=True)
    labels = torch.empty(count, dtype=torch.int64)
    leaf_groups, entry_count = [], 0
    for members in torch.split(order, torch.bincount(branch, minlength=len(branches)).tolist()):
        if not len(members):
            continue
        leaf_count = max(1, len(members) * (size - branch_count) // count)  # the sum never exceeds `size`
        leaves, label = _run_kmeans(vectors[members], leaf_count, iterations)
        labels[members] = label + entry_count
        leaf_groups.append(leaves)
        entry_count += len(leaves)
    return torch.cat(leaf_groups), labels


def _run_kmeans(vectors: torch.Tensor, size: int, iterations: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Run plain k-means. The initial centres are spaced evenly over the input, which is in spatial order."""
    size = min(size, len(vectors))
    centres = vectors[torch.linspace(0, len(vectors) - 1, size, dtype=torch.float64).round().long()]
    labels = _assign_nearest(centres, vectors)
    for _ in range(iterations):
        counts = torch.bincount(labels, minlength=size)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, labels, vectors)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        labels = _assign_nearest(centres, vectors)
    return centres, labels


def _assign_nearest(centres: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Index of the centre c with the smallest |c|^2 / 2 - v.c, which is also the smallest |v - c|^2."""
    half = (centres**2).sum(dim=1) / 2
    return torch.cat(
        [torch.addmm(half, part, centres.T, alpha=-1).argmin(dim=1) for part in torch.split(vectors, DISTANCE_ROWS)]
    )
