"""Points in an order in which those that come first, however many they are, cover the whole.

Radii shrink by the square root of two, which on a surface doubles the points. For each radius the points go into cells
as wide as it is, or somewhat wider; the best of each cell is taken unless one that is taken already, or is found beside
it, is nearer than the radius: dart throwing (Cook 1986), in all cells at once. Cells are runs of points along Morton's
curve, so that finer ones need no sorting.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

BITS = 20  # halvings of the longest side
RADII = (1.0, 0.5**0.5)  # of a cell
ROUNDS = 2  # of finding who may stay among neighbours
ENOUGH = 0.6  # cells a point: nearly each has its own, and what is left may come in any order
HALF_AROUND = [way for way in itertools.product((-1, 0, 1), repeat=3) if way > (0, 0, 0)]  # the others look back


def spread_order(xyz: Tensor, weight: Tensor) -> Tensor:
    """xyz (N, 3), weight (N,) > 0, the larger the better -> (N,) int64: which point comes first, second, ..."""
    low = xyz.amin(0)
    places = (xyz - low) / (xyz.amax(0) - low).amax().clamp(min=1e-30)
    code, along = _interleaved((places.double() * 2**BITS).long().clamp(0, 2**BITS - 1)).sort()
    places, weight = places[along], weight[along]
    taken, found = torch.zeros(len(xyz), dtype=torch.bool), []
    for level in range(BITS + 1):
        keys, cell = torch.unique_consecutive(code >> 3 * (BITS - level), return_inverse=True)
        if len(keys) > ENOUGH * len(xyz):
            break
        beside = _beside(keys)
        for radius in RADII:
            new = _darts(places, cell, beside, len(keys), weight, taken, radius / 2**level)
            taken[new] = True
            found.append(new[_alternating(len(new))])
    left = (~taken).nonzero()[:, 0]
    return along[torch.cat([*found, left[_alternating(len(left))]])]


def _darts(
    places: Tensor, cell: Tensor, beside: Tensor, cells: int, weight: Tensor, taken: Tensor, radius: float
) -> Tensor:
    """Which points to take next. `cell` (N,) is that of each point, `beside` (2, P) are the pairs that touch."""
    worth = torch.where(taken, torch.inf, weight)  # who is taken speaks for the cell, else the best of it
    top = torch.full((cells,), -torch.inf).scatter_reduce_(0, cell, worth, "amax")
    tops = (worth == top[cell]).nonzero()[:, 0]
    who = torch.empty(cells, dtype=torch.int64)
    who[cell[tops]] = tops
    done = taken[who]
    waiting = ~done
    a, b = beside[:, waiting[beside].any(0)]
    near = (places[who[a]] - places[who[b]]).square().sum(1) < radius * radius
    a, b = a[near], b[near]
    lot = torch.arange(cells) * 0x9E3779B1 % 0x7FFFFFFF  # decides between two: not by place, or rows would win
    for _ in range(ROUNDS):
        waiting[a[done[b]]] = False
        waiting[b[done[a]]] = False
        both = waiting[a] & waiting[b]
        stays = waiting.clone()
        stays[torch.where(lot[a] < lot[b], a, b)[both]] = False
        done |= stays
        waiting &= ~stays
    return who[done & ~taken[who]]


def _beside(keys: Tensor) -> Tensor:
    """(2, P) which of the cells `keys` (C,), that ascend along the curve, touch each other, each pair once."""
    cells = _apart(keys)
    found = []
    for way in HALF_AROUND:
        there = cells + torch.tensor(way)
        key = torch.where((there >= 0).all(1), _interleaved(there.clamp(min=0)), -1)
        index = torch.searchsorted(keys, key).clamp(max=len(keys) - 1)
        touch = (keys[index] == key).nonzero()[:, 0]
        found.append(torch.stack([touch, index[touch]]))
    return torch.cat(found, 1)


# Halves move apart, then quarters, ... until two empty places lie between all bits.
_SPREAD = [
    (32, 0x1F00000000FFFF),
    (16, 0x1F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
]


def _interleaved(cells: Tensor) -> Tensor:
    """(N, 3) int64 of at most 21 bits -> (N,): the bits of x, y and z in turn (Morton 1966)."""
    for shift, mask in _SPREAD:
        cells = (cells | cells << shift) & mask
    return cells[:, 0] | cells[:, 1] << 1 | cells[:, 2] << 2


def _apart(code: Tensor) -> Tensor:
    """The inverse."""
    cells = torch.stack([code, code >> 1, code >> 2], 1) & _SPREAD[-1][1]
    masks = [mask for _, mask in _SPREAD][:-1]
    for (shift, _), mask in zip(reversed(_SPREAD), [*reversed(masks), 0x1FFFFF], strict=True):
        cells = (cells | cells >> shift) & mask
    return cells


def _alternating(count: int) -> Tensor:
    """(count,) 0, the middle, the quarters, the eighths...: numbers by their bits from the last to the first."""
    number, turned = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    for bit in range(max(count - 1, 0).bit_length()):
        turned = turned << 1 | number >> bit & 1
    return turned.argsort(stable=True)
