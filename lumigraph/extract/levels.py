"""Order points so that every prefix covers the whole cloud.

The radius shrinks by the square root of two from level to level, which on a surface doubles the points. At each radius
the points are binned into cells of the same width or slightly wider. The best point of each cell is added unless a
point of this or a neighbouring cell, added before, is nearer than the radius. This is dart throwing (Cook 1986) in all
cells at once. Cells are runs of points along the Morton curve, so finer cells need no sorting.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

MORTON_BITS = 20  # halvings of the longest side
RADII = (1.0, 0.5**0.5)  # of a cell
CONFLICT_ROUNDS = 2  # rounds of conflict resolution between neighbours
MAX_CELLS_PER_POINT = 0.6  # above, nearly each point has its own cell and the remaining order hardly matters
# The other half of the 26 neighbours sees the same pairs from the other cell.
HALF_NEIGHBOURHOOD = [offset for offset in itertools.product((-1, 0, 1), repeat=3) if offset > (0, 0, 0)]


def spread_order(xyz: Tensor, weight: Tensor) -> Tensor:
    """Order the points xyz (N, 3) by coverage: (N,) int64 indices.

    Of points close together the one with the larger `weight` (N,) > 0 comes first.
    """
    low = xyz.amin(0)
    positions = (xyz - low) / (xyz.amax(0) - low).amax().clamp(min=1e-30)
    code, curve_order = _encode_morton((positions.double() * 2**MORTON_BITS).long().clamp(0, 2**MORTON_BITS - 1)).sort()
    positions, weight = positions[curve_order], weight[curve_order]
    is_placed, batches = torch.zeros(len(xyz), dtype=torch.bool), []
    for level in range(MORTON_BITS + 1):
        keys, cell = torch.unique_consecutive(code >> 3 * (MORTON_BITS - level), return_inverse=True)
        if len(keys) > MAX_CELLS_PER_POINT * len(xyz):
            break
        neighbours = _find_neighbours(keys)
        for radius in RADII:
            batch = _throw_darts(positions, cell, neighbours, len(keys), weight, is_placed, radius / 2**level)
            is_placed[batch] = True
            batches.append(batch[_bit_reversed_order(len(batch))])
    remaining = (~is_placed).nonzero()[:, 0]
    return curve_order[torch.cat([*batches, remaining[_bit_reversed_order(len(remaining))]])]


def _throw_darts(
    positions: Tensor,
    cell: Tensor,
    neighbours: Tensor,
    cell_count: int,
    weight: Tensor,
    is_placed: Tensor,
    radius: float,
) -> Tensor:
    """Choose the next points, at most one a cell and none closer than `radius` to another.

    Args:
        positions: (N, 3) of 0..1
        cell: (N,) int64 cell of each point
        neighbours: (2, P) int64 pairs of cells that touch
        cell_count: number of cells
        weight: (N,) larger is better
        is_placed: (N,) bool, points of earlier batches
        radius: in units of `positions`

    Returns:
        (M,) int64 indices of points
    """
    priority = torch.where(is_placed, torch.inf, weight)  # a placed point represents its cell, else the best one
    top = torch.full((cell_count,), -torch.inf).scatter_reduce_(0, cell, priority, "amax")
    candidates = (priority == top[cell]).nonzero()[:, 0]
    representative = torch.empty(cell_count, dtype=torch.int64)
    representative[cell[candidates]] = candidates
    is_accepted = is_placed[representative]
    is_pending = ~is_accepted
    a, b = neighbours[:, is_pending[neighbours].any(0)]
    distance2 = (positions[representative[a]] - positions[representative[b]]).square().sum(1)
    close = distance2 < radius * radius
    a, b = a[close], b[close]
    # A hash breaks ties between two cells: their order along the curve would favour whole rows.
    tie_break = torch.arange(cell_count) * 0x9E3779B1 % 0x7FFFFFFF
    for _ in range(CONFLICT_ROUNDS):
        is_pending[a[is_accepted[b]]] = False
        is_pending[b[is_accepted[a]]] = False
        conflict = is_pending[a] & is_pending[b]
        is_winner = is_pending.clone()
        is_winner[torch.where(tie_break[a] < tie_break[b], a, b)[conflict]] = False
        is_accepted |= is_winner
        is_pending &= ~is_winner
    return representative[is_accepted & ~is_placed[representative]]


def _find_neighbours(keys: Tensor) -> Tensor:
    """Find the pairs of touching cells among `keys` (C,), which ascend along the curve: (2, P), each pair once."""
    cells = _decode_morton(keys)
    pairs = []
    for offset in HALF_NEIGHBOURHOOD:
        neighbour = cells + torch.tensor(offset)
        key = torch.where((neighbour >= 0).all(1), _encode_morton(neighbour.clamp(min=0)), -1)
        index = torch.searchsorted(keys, key).clamp(max=len(keys) - 1)
        match = (keys[index] == key).nonzero()[:, 0]
        pairs.append(torch.stack([match, index[match]]))
    return torch.cat(pairs, 1)


# Shifts halves apart, then quarters, and so on, until two zero bits separate all bits.
_MORTON_STEPS = [
    (32, 0x1F00000000FFFF),
    (16, 0x1F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
]


def _encode_morton(cells: Tensor) -> Tensor:
    """Interleave the bits of x, y and z (Morton 1966): (N, 3) int64 of at most 21 bits -> (N,)."""
    for shift, mask in _MORTON_STEPS:
        cells = (cells | cells << shift) & mask
    return cells[:, 0] | cells[:, 1] << 1 | cells[:, 2] << 2


def _decode_morton(code: Tensor) -> Tensor:
    """Invert `_encode_morton`: (N,) -> (N, 3)."""
    cells = torch.stack([code, code >> 1, code >> 2], 1) & _MORTON_STEPS[-1][1]
    masks = [mask for _, mask in _MORTON_STEPS][:-1]
    for (shift, _), mask in zip(reversed(_MORTON_STEPS), [*reversed(masks), 0x1FFFFF], strict=True):
        cells = (cells | cells >> shift) & mask
    return cells


def _bit_reversed_order(count: int) -> Tensor:
    """Order 0..count-1 by reversed bits: (count,) the first, the middle, the quarters, the eighths, and so on."""
    number, reversed_bits = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    for bit in range(max(count - 1, 0).bit_length()):
        reversed_bits = reversed_bits << 1 | number >> bit & 1
    return reversed_bits.argsort(stable=True)
