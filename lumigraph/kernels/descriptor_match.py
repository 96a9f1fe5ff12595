"""Matches between the local descriptors of two photos: ratio test in both directions, then cross check.

Compiled (csrc/descriptor_match.h), on one thread: pairs of photos run in parallel. The interpreter lock is released.
Integers throughout, so that the reference implementation, reference/descriptor_match.py, gives the very same matches.
numpy and not torch: pose estimation never loads torch.
"""

import numpy as np
from numpy.typing import NDArray

from lumigraph.kernels.native import native

SIZE = 128  # values of a descriptor
MAX_VALUE = 127
MAX_SQUARED_NORM = 65535
MAX_COUNT = 65535


def match(first: NDArray[np.uint8], second: NDArray[np.uint8], min_scores: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Match descriptors -> ascending rows (M, 2): index in first, index in second.

    Args:
        first, second: (N, 128) and (M, 128) uint8, values at most 127, squared norms at most 65535.
        min_scores: (65536,) uint32 least score of a match, indexed by its second-best score. Scores are dot products.

    The best score is the largest dot product above 0; of equal scores, the lower index wins. Raises ValueError if a
    descriptor exceeds the limits, or if there are more than 65535.
    """
    matches = np.empty((min(len(first), len(second)), 2), np.uint32)
    first, second = np.ascontiguousarray(first), np.ascontiguousarray(second)
    count = native.match_descriptors(first, second, min_scores, matches)
    return matches[:count]
