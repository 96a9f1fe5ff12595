"""Steps along rays where a grid of occupied cells says there may be something.

The grid has L nested cubes of G^3 cells, cube k spanning 2^k times the first around the same centre (the cascades of
Mueller et al. 2022, appendix C). Steps are max(shortest, growth x distance) long; what is skipped never moves the
others.

Compiled for float32 on the CPU (csrc/march.h); everything else takes the plain-torch twin, reference/march.py.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .hashgrid import compiled
from .native import native
from .reference import march as twin


@dataclass(frozen=True)
class Occupancy:
    """cells: (L, G, G, G) uint8 [z, y, x], not 0 where something may be; of L > 1 cubes, G is a multiple of 4.
    centre (3,), half: the middle and half the side of the first cube."""

    cells: Tensor
    centre: Tensor
    half: float

    def __post_init__(self) -> None:
        levels, side = self.cells.shape[:2]
        if self.cells.dtype != torch.uint8 or self.cells.shape[1:] != (side, side, side) or not self.half > 0:
            raise ValueError("occupied cells are uint8 (L, G, G, G) in a cube of some size")
        if levels > 1 and side % 4:
            raise ValueError("nested cubes need a multiple of 4 cells a side, or cells would lie across two of them")


@dataclass(frozen=True)
class Steps:
    """Lengths along a ray, in world units; `most`: samples a ray."""

    near: float
    far: float
    shortest: float
    growth: float = 0.0
    most: int = 1024


class Samples(NamedTuple):
    """The middles of the steps taken, packed: those of ray r are first[r] .. first[r + 1]."""

    first: Tensor  # (R + 1,) int64
    distance: Tensor  # (S,)
    length: Tensor  # (S,)

    @property
    def ray(self) -> Tensor:
        """(S,) the ray that each sample belongs to."""
        return torch.repeat_interleave(self.first.diff(), output_size=len(self.distance))


def march(grid: Occupancy, steps: Steps, origin: Tensor, direction: Tensor, jitter: Tensor) -> Samples:
    """origin, direction (R, 3), directions of length 1; jitter (R,) within 0..1 shifts a ray's steps by a share of
    one."""
    if not compiled(origin, direction, jitter):
        given = (grid.cells, grid.centre, grid.half, origin, direction, jitter)
        return Samples(*twin.march(*given, **dataclasses.asdict(steps)))
    levels, side = grid.cells.shape[:2]
    marched = native.Marched()
    shape = (grid.cells.contiguous(), levels, side, grid.centre.tolist(), grid.half)
    lengths = (steps.near, steps.far, steps.shortest, steps.growth)
    rays = (origin.contiguous(), direction.contiguous(), jitter.contiguous())
    count = native.march(marched, *shape, lengths, steps.most, *rays)
    samples = Samples(torch.empty(len(origin) + 1, dtype=torch.int64), torch.empty(count), torch.empty(count))
    native.unpack(marched, *samples)
    return samples
