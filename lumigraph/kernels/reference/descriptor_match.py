"""Descriptor matches in plain numpy, from the table of all dot products."""

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def match(first: NDArray[np.uint8], second: NDArray[np.uint8], required: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """As kernels/descriptor_match.py."""
    if not len(first) or not len(second):
        return np.zeros((0, 2), np.uint32)
    scores = first.astype(np.int64) @ second.astype(np.int64).T
    column, along = _best(scores, required)
    row, down = _best(scores.T, required)
    matches = [(i, j) for i, j in enumerate(column) if along[i] and down[j] and row[j] == i]
    return np.array(matches, np.uint32).reshape(-1, 2)


def _best(scores: Integers, required: NDArray[np.uint32]) -> tuple[Integers, NDArray[np.bool_]]:
    """Of each row: the column of its best score, and whether that is clearly better than the second-best."""
    best = scores.argmax(axis=1)  # the first of equal ones
    two = np.sort(np.pad(scores, ((0, 0), (1, 0))), axis=1)[:, -2:]  # a row of one score has 0 for its second-best
    return best, (two[:, 1] > 0) & (two[:, 1] >= required[two[:, 0]])
