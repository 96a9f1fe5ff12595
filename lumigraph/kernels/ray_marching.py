"""Ray marching through an occupancy grid.

The grid has L cascades of G^3 cells around one centre; cascade k spans 2^k times the first (Mueller et al. 2022,
appendix C). A step is max(min_step, cone_angle x t) long. Skipping an empty cell does not move later steps.

Compiled for float32 on the CPU (csrc/ray_marching.h) and CUDA (csrc/ray_marching_cuda.cu). Other dtypes and devices use
the reference implementation, reference/ray_marching.py.
"""

import ctypes
import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.kernels import cuda
from lumigraph.kernels.native import native
from lumigraph.kernels.operations import check_tensor, has_compiled_kernel, launch, register_operation
from lumigraph.kernels.reference import ray_marching as reference

MAX_STEPS_PER_RAY = 4e6  # a step must advance t even at the far end, and a float has 2^24 steps of its own
MAX_CASCADES = 16
MAX_GRID_SIDE = 1024  # cells


@dataclass(frozen=True)
class OccupancyGrid:
    """Cells of a scene that may contain density.

    cells: (L, G, G, G) uint8 [z, y, x], nonzero if occupied; with L > 1 cascades, G is a multiple of 4.
    centre: (3,) world position. half_extent: half the side of the first cascade, in world units.
    """

    cells: Tensor
    centre: Tensor
    half_extent: float

    def __post_init__(self) -> None:
        cascades, side = self.cells.shape[:2]
        if self.cells.dtype != torch.uint8 or self.cells.shape[1:] != (side, side, side) or not self.half_extent > 0:
            raise ValueError("an occupancy grid needs uint8 cells (L, G, G, G) and a positive half_extent")
        if cascades > 1 and side % 4:
            raise ValueError("cascades need a multiple of 4 cells a side, or cells would overlap two cascades")
        if not (1 <= cascades <= MAX_CASCADES and 1 <= side <= MAX_GRID_SIDE):
            raise ValueError("an occupancy grid has 1 to 16 cascades of 1 to 1024 cells a side")

    @cached_property
    def bounds(self) -> list[float]:
        """Centre x, y, z and half extent on the host; copied from the device once."""
        centre: list[float] = self.centre.tolist()
        return [*centre, self.half_extent]


@dataclass(frozen=True)
class MarchSettings:
    """Step lengths in world units: near and far limits, shortest step, step growth per distance, samples per ray."""

    near: float
    far: float
    min_step: float
    cone_angle: float = 0.0
    max_samples: int = 1024

    def __post_init__(self) -> None:
        has_valid_steps = self.near >= 0 and self.min_step > 0 and self.cone_angle >= 0 and self.max_samples >= 1
        if not (has_valid_steps and self.far <= MAX_STEPS_PER_RAY * self.min_step):
            raise ValueError("bad steps: near >= 0, min_step > 0, cone_angle >= 0, far < 4 million steps")


class RaySamples(NamedTuple):
    """Packed midpoints of the steps in occupied cells. Ray r has samples ray_offsets[r] .. ray_offsets[r + 1]."""

    ray_offsets: Tensor  # (R + 1,) int64
    t: Tensor  # (S,) distance from the ray origin
    delta: Tensor  # (S,) step length

    @property
    def ray_indices(self) -> Tensor:
        """(S,) ray of each sample."""
        return torch.repeat_interleave(self.ray_offsets.diff(), output_size=len(self.t))


def march_rays(
    grid: OccupancyGrid, steps: MarchSettings, origin: Tensor, direction: Tensor, jitter: Tensor
) -> RaySamples:
    """Sample rays where the grid is occupied.

    Args:
        origin, direction: (R, 3) rays; directions have length 1.
        jitter: (R,) in 0..1, shifts the steps of a ray by this fraction of a step.
    """
    if not has_compiled_kernel(origin, direction, jitter):
        grid_and_rays = (grid.cells, grid.centre, grid.half_extent, origin, direction, jitter)
        return RaySamples(*reference.march_rays(*grid_and_rays, **dataclasses.asdict(steps)))
    step_lengths = [steps.near, steps.far, steps.min_step, steps.cone_angle]
    rays = (origin.contiguous(), direction.contiguous(), jitter.contiguous())
    return RaySamples(*_march(grid.cells.contiguous(), grid.bounds, step_lengths, steps.max_samples, *rays))


# ---- torch operation


class OccupancyGridStruct(ctypes.Structure):
    """`struct OccupancyGrid` of csrc/sample.h."""

    _fields_ = [
        ("cells", ctypes.c_void_p),
        ("cascades", ctypes.c_int32),
        ("side", ctypes.c_int32),
        ("centre", ctypes.c_float * 3),
        ("half_extent", ctypes.c_float),
    ]


class MarchSettingsStruct(ctypes.Structure):
    """`struct MarchSettings` of csrc/sample.h."""

    _fields_ = [
        ("near", ctypes.c_float),
        ("far", ctypes.c_float),
        ("min_step", ctypes.c_float),
        ("cone_angle", ctypes.c_float),
        ("max_samples", ctypes.c_int32),
    ]


def _march_cpu(
    cells: Tensor,
    bounds: list[float],
    step_lengths: list[float],
    max_samples: int,
    origin: Tensor,
    direction: Tensor,
    jitter: Tensor,
) -> RaySamples:
    buffer = native.Marched()
    grid = (cells, *cells.shape[:2], tuple(bounds[:3]), bounds[3])
    count = native.march(buffer, *grid, tuple(step_lengths), max_samples, origin, direction, jitter)
    samples = RaySamples(torch.empty(len(origin) + 1, dtype=torch.int64), torch.empty(count), torch.empty(count))
    native.unpack(buffer, *samples)
    return samples


def _march_cuda(
    cells: Tensor,
    bounds: list[float],
    step_lengths: list[float],
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
    grid = OccupancyGridStruct(cells.data_ptr(), *cells.shape[:2], tuple(bounds[:3]), bounds[3])
    inputs = (grid, MarchSettingsStruct(*step_lengths, max_samples), origin, direction, jitter, rays)
    ray_offsets = torch.zeros(rays + 1, dtype=torch.int64, device=origin.device)
    if not rays:
        return RaySamples(ray_offsets, new(0), new(0))
    counts = new(rays, dtype=torch.int32)
    blocks = -(-rays // cuda.THREADS_PER_BLOCK)
    launch(origin, "march_rays", blocks, *inputs, counts, None, None, None)
    torch.cumsum(counts, 0, out=ray_offsets[1:])
    total = int(ray_offsets[-1])  # synchronizes: the output size is needed on the host
    samples = RaySamples(ray_offsets, new(total), new(total))
    launch(origin, "march_rays", blocks, *inputs, None, *samples)
    return samples


_march = register_operation(
    "march_rays(Tensor cells, float[] bounds, float[] step_lengths, int max_samples, Tensor origin, Tensor direction, "
    "Tensor jitter) -> (Tensor, Tensor, Tensor)",
    _march_cpu,
    _march_cuda,
)
