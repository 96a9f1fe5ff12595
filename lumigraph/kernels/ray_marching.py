"""MarchSettings along rays where a grid of occupied cells says there may be something.

The grid has L nested cubes of G^3 cells, cube k spanning 2^k times the first around the same centre (the cascades of
Mueller et al. 2022, appendix C). MarchSettings are max(min_step, cone_angle x distance) long; what is skipped never
moves the
others.

Compiled for float32 on the CPU (csrc/march.h) and CUDA (csrc/march_cuda.cu); everything else takes the plain-torch
twin, reference/march.py.
"""

import dataclasses
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.kernels import cuda
from lumigraph.kernels.native import native
from lumigraph.kernels.operations import check_tensor, has_compiled_kernel, launch, register_operation
from lumigraph.kernels.reference import ray_marching as reference


@dataclass(frozen=True)
class OccupancyGrid:
    """cells: (L, G, G, G) uint8 [z, y, x], not 0 where something may be; of L > 1 cubes, G is a multiple of 4.
    centre (3,), half: the middle and half the side of the first cube."""

    cells: Tensor
    centre: Tensor
    half_extent: float

    def __post_init__(self) -> None:
        levels, side = self.cells.shape[:2]
        if self.cells.dtype != torch.uint8 or self.cells.shape[1:] != (side, side, side) or not self.half_extent > 0:
            raise ValueError("occupied cells are uint8 (L, G, G, G) in a cube of some size")
        if levels > 1 and side % 4:
            raise ValueError("nested cubes need a multiple of 4 cells a side, or cells would lie across two of them")
        if not (1 <= levels <= 16 and 1 <= side <= 1024):
            raise ValueError("a grid of occupied cells has 1 to 16 cubes of 1 to 1024 cells a side")

    @cached_property
    def place(self) -> list[float]:
        """The centre and `half`, asked from the device once."""
        centre: list[float] = self.centre.tolist()
        return [*centre, self.half_extent]


MAX_STEPS_PER_RAY = 4e6  # a step must move a ray on, however far it is: a float holds 2^24 of them


@dataclass(frozen=True)
class MarchSettings:
    """Lengths along a ray, in world units; `max_samples`: samples a ray."""

    near: float
    far: float
    min_step: float
    cone_angle: float = 0.0
    max_samples: int = 1024

    def __post_init__(self) -> None:
        lengths = self.near >= 0 and self.min_step > 0 and self.cone_angle >= 0 and self.max_samples >= 1
        if not (lengths and self.far <= MAX_STEPS_PER_RAY * self.min_step):
            raise ValueError("bad steps: near >= 0, min_step > 0, cone_angle >= 0, far < 4 million steps")


class RaySamples(NamedTuple):
    """The middles of the steps taken, packed: those of ray r are first[r] .. first[r + 1]."""

    ray_offsets: Tensor  # (R + 1,) int64
    t: Tensor  # (S,)
    delta: Tensor  # (S,)

    @property
    def ray_indices(self) -> Tensor:
        """(S,) the ray that each sample belongs to."""
        return torch.repeat_interleave(self.ray_offsets.diff(), output_size=len(self.t))


def march_rays(
    grid: OccupancyGrid, steps: MarchSettings, origin: Tensor, direction: Tensor, jitter: Tensor
) -> RaySamples:
    """origin, direction (R, 3), directions of length 1; jitter (R,) within 0..1 shifts a ray's steps by a share of
    one."""
    if not has_compiled_kernel(origin, direction, jitter):
        given = (grid.cells, grid.centre, grid.half_extent, origin, direction, jitter)
        return RaySamples(*reference.march_rays(*given, **dataclasses.asdict(steps)))
    lengths = [steps.near, steps.far, steps.min_step, steps.cone_angle]
    rays = (origin.contiguous(), direction.contiguous(), jitter.contiguous())
    return RaySamples(*_march(grid.cells.contiguous(), grid.place, lengths, steps.max_samples, *rays))


# ---- the operation


def _march_cpu(
    cells: Tensor,
    place: list[float],
    lengths: list[float],
    max_samples: int,
    origin: Tensor,
    direction: Tensor,
    jitter: Tensor,
) -> RaySamples:
    marched = native.Marched()
    shape = (cells, *cells.shape[:2], tuple(place[:3]), place[3])
    count = native.march(marched, *shape, tuple(lengths), max_samples, origin, direction, jitter)
    samples = RaySamples(torch.empty(len(origin) + 1, dtype=torch.int64), torch.empty(count), torch.empty(count))
    native.unpack(marched, *samples)
    return samples


def _march_cuda(
    cells: Tensor,
    place: list[float],
    lengths: list[float],
    max_samples: int,
    origin: Tensor,
    direction: Tensor,
    jitter: Tensor,
) -> RaySamples:
    rays = len(jitter)
    check_tensor("cells", cells, tuple(cells.shape), origin, torch.uint8)
    check_tensor("origin", origin, (rays, 3), origin)
    check_tensor("direction", direction, (rays, 3), origin)
    check_tensor("jitter", jitter, (rays,), origin)
    new = origin.new_empty
    grid = struct.pack("@P2i4f", cells.data_ptr(), *cells.shape[:2], *place)
    given = (grid, struct.pack("@4fi", *lengths, max_samples), origin, direction, jitter, rays)
    first = torch.zeros(rays + 1, dtype=torch.int64, device=origin.device)
    if not rays:
        return RaySamples(first, new(0), new(0))
    counts = new(rays, dtype=torch.int32)
    launch(origin, "march_rays", -(-rays // cuda.THREADS), *given, counts, None, None, None)
    torch.cumsum(counts, 0, out=first[1:])
    total = int(first[-1])  # waits for the device: the room for them is to be found
    samples = RaySamples(first, new(total), new(total))
    launch(origin, "march_rays", -(-rays // cuda.THREADS), *given, None, *samples)
    return samples


_march = register_operation(
    "march(Tensor cells, float[] place, float[] lengths, int max_samples, Tensor origin, Tensor direction, "
    "Tensor jitter) "
    "-> (Tensor, Tensor, Tensor)",
    _march_cpu,
    _march_cuda,
)
