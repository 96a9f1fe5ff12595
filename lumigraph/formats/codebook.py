"""Few values that stand for many: a codebook of numbers and a palette of vectors, both by Lloyd's k-means (1982).

Both end after a fixed number of rounds, and the same input gives the same output.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

CODES = 256
CODE_ROUNDS = 60
FEW = 1 << 22  # distances: so many are computed without a tree
SAMPLE = 1 << 16  # vectors that the first level is learned from
ROWS = 1 << 11  # of distances at once


def codebook(values: npt.NDArray[Any]) -> Floats:
    """(256,) ascending numbers near which most of `values` lie. Raises ValueError where there are none.

    In one dimension a cell is an interval of the sorted values, and its mean a difference of two prefix sums: a round
    costs the same for a thousand values as for a million.
    """
    ordered = np.sort(values, axis=None)
    if not len(ordered):
        raise ValueError("no values, no codebook")
    sums = np.concatenate([[0.0], np.cumsum(ordered, dtype=np.float64)])
    # Half of the codes go where values are many, half are spread evenly, so that rare extremes get theirs as well.
    many = ordered[np.linspace(0, len(ordered) - 1, CODES // 2).round().astype(np.int64)]
    codes = np.sort(np.concatenate([many, np.linspace(ordered[0], ordered[-1], CODES - len(many))]).astype(np.float64))
    for _ in range(CODE_ROUNDS):
        ends = np.searchsorted(ordered, (codes[1:] + codes[:-1]) / 2)
        ends = np.concatenate([[0], ends, [len(ordered)]])
        counts = np.diff(ends)
        means = np.diff(sums[ends]) / np.maximum(counts, 1)
        codes = np.sort(np.where(counts > 0, means, codes))
    return codes.astype(np.float32)


def nearest_code(codes: Floats, values: Floats) -> Bytes:
    """Which of the ascending `codes` each value is nearest to."""
    made: Bytes = np.searchsorted((codes[1:] + codes[:-1]) / 2, values).astype(np.uint8)
    return made


def palette(vectors: torch.Tensor, size: int, rounds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, D) -> at most `size` vectors (P, D) and for each of N the number (N,) of one near it.

    A tree of two levels (tree-structured vector quantisation; Buzo et al. 1980): a plain search through 65536 vectors
    for each of a million takes hours where this takes seconds, and errs by a few per cent more.
    """
    count = len(vectors)
    if count * size <= FEW:
        return _lloyd(vectors, size, rounds)
    level = math.isqrt(size)  # as many branches as leaves on each: the fewest distances
    draw = torch.Generator().manual_seed(0)
    sample = vectors[torch.randperm(count, generator=draw)[:SAMPLE]] if count > SAMPLE else vectors
    branches, _ = _lloyd(sample, level, rounds)
    branch = _nearest(branches, vectors)
    order = torch.argsort(branch, stable=True)
    labels = torch.empty(count, dtype=torch.int64)
    made, used = [], 0
    for members in torch.split(order, torch.bincount(branch, minlength=len(branches)).tolist()):
        if not len(members):
            continue
        share = max(1, len(members) * (size - level) // count)  # never more than `size` together
        leaves, label = _lloyd(vectors[members], share, rounds)
        labels[members] = label + used
        made.append(leaves)
        used += len(leaves)
    return torch.cat(made), labels


def _lloyd(vectors: torch.Tensor, size: int, rounds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain k-means, begun with vectors from all over the input, which lies in the order of space."""
    size = min(size, len(vectors))
    centres = vectors[torch.linspace(0, len(vectors) - 1, size, dtype=torch.float64).round().long()]
    labels = _nearest(centres, vectors)
    for _ in range(rounds):
        counts = torch.bincount(labels, minlength=size)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, labels, vectors)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        labels = _nearest(centres, vectors)
    return centres, labels


def _nearest(centres: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """The centre c with the smallest |c|^2 / 2 - v.c, which is the one with the smallest |v - c|^2."""
    half = (centres**2).sum(dim=1) / 2
    return torch.cat(
        [torch.addmm(half, part, centres.T, alpha=-1).argmin(dim=1) for part in torch.split(vectors, ROWS)]
    )
