"""Reference implementation of descriptor matching in plain numpy, on the table of all dot products."""

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def match(first: NDArray[np.uint8], second: NDArray[np.uint8], min_scores: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Match descriptors as kernels/descriptor_match.py does, with the same arguments."""
    if not len(first) or not len(second):
        return np.zeros((0, 2), np.uint32)
    scores = first.astype(np.int64) @ second.astype(np.int64).T
    column, row_is_clear = _find_best(scores, min_scores)
    row, column_is_clear = _find_best(scores.T, min_scores)
    matches = [(i, j) for i, j in enumerate(column) if row_is_clear[i] and column_is_clear[j] and row[j] == i]
    return np.array(matches, np.uint32).reshape(-1, 2)


def _find_best(scores: Integers, min_scores: NDArray[np.uint32]) -> tuple[Integers, NDArray[np.bool_]]:
    """Return the column of the best score of each row, and whether it passes the ratio test."""
    best = scores.argmax(axis=1)  # the lowest index of equal scores
    top_scores = np.sort(np.pad(scores, ((0, 0), (1, 0))), axis=1)[:, -2:]  # 0 if there is no second-best
    return best, (top_scores[:, 1] > 0) & (top_scores[:, 1] >= min_scores[top_scores[:, 0]])
