"""Matches between the local descriptors of two photos: best two in both directions, ratio test, cross check.

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


def match(first: NDArray[np.uint8], second: NDArray[np.uint8], required: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Rows (M, 2) of (index in first, index in second), ascending, that are each other's best and clearly so.

    Args:
        first, second: (N, 128) and (M, 128) uint8, values at most 127, squared norms at most 65535.
        required: (65536,) uint32. The least score of a match, by the score of the second-best; scores are dot products.

    The best is the largest dot product above 0; of equal ones the lower index. Raises ValueError if a descriptor is
    outside the limits, or if there are more than 65535.
    """
    matches = np.empty((min(len(first), len(second)), 2), np.uint32)
    first, second = np.ascontiguousarray(first), np.ascontiguousarray(second)
    count = native.match_descriptors(first, second, required, matches)
    return matches[:count]
