"""The field of instant-NGP (Mueller et al. 2022): a hash grid of features and two tiny networks behind it.

  16 levels x 2 features, trilinear                                    -> 32
  32 -> 64 relu -> 16; density = exp(the first), all 16 go on
  16 + 16 spherical harmonics of the direction -> 64 relu -> 64 relu -> 3; rgb = sigmoid

float32 runs compiled, on the CPU (csrc/hashgrid.h) fused from the position to the colour and whatever the number of
threads the same, on CUDA (csrc/hashgrid_cuda.cu) with gradients of TF32; everything else takes the plain-torch twin,
reference/hashgrid.py, which is the specification.
"""

import functools
import struct
from typing import Any, cast

import torch
from torch import Tensor

from lumigraph.kernels import cuda
from lumigraph.kernels.native import native
from lumigraph.kernels.operations import check_tensor, has_compiled_kernel, launch, register_operation
from lumigraph.kernels.reference import hashgrid as reference

MLP_SHAPES, MLP_WEIGHTS = reference.MLP_SHAPES, reference.MLP_WEIGHTS
FEATURES_PER_LEVEL, LEVEL_COUNT = reference.FEATURES_PER_LEVEL, reference.LEVEL_COUNT


class HashGrid:
    """The layout of a table: up to 2^log2_hashmap_size rows a level, cells from 1/base_resolution to 1/max_resolution
    of the unit cube."""

    def __init__(self, log2_hashmap_size: int = 17, base_resolution: int = 16, max_resolution: int = 1024) -> None:
        if not (8 <= log2_hashmap_size <= 24 and 1 <= base_resolution <= max_resolution <= 1 << 20):
            raise ValueError(
                "a grid has 2^8 to 2^24 entries a level and 1 <= base_resolution <= max_resolution <= 2^20 cells"
            )
        self.log2_hashmap_size, self.shape = log2_hashmap_size, (log2_hashmap_size, base_resolution, max_resolution)
        self.levels = reference.build_levels(*self.shape)
        self.native = native.Grid([tuple(level) for level in self.levels])
        self.table_rows = int(self.native.entries)

    @functools.cached_property
    def packed(self) -> bytes:
        """`struct Grid` of csrc/hashgrid_cuda.cu."""
        return b"".join(struct.pack("@f3I?3x", *level) for level in self.levels)

    def init_table(self, generator: torch.Generator | None = None) -> Tensor:
        """(entries, 2) to begin with: uniform in +-1e-4."""
        return (torch.rand(self.table_rows, FEATURES_PER_LEVEL, generator=generator) * 2 - 1) * 1e-4


def init_mlp_weights(generator: torch.Generator | None = None) -> Tensor:
    """(MLP_WEIGHTS,) to begin with: uniform, of a variance that keeps the signal's (He et al. 2015)."""
    parts = [(torch.rand(out * of, generator=generator) * 2 - 1) * (6 / of) ** 0.5 for out, of in MLP_SHAPES]
    return torch.cat(parts)


def query_field(
    grid: HashGrid, table: Tensor, weights: Tensor, xyz: Tensor, direction: Tensor, table_grad: Tensor | None = None
) -> Tensor:
    """xyz (S, 3) in the unit cube, direction (S, 3) of length 1 -> (S, 4) density, red, green, blue.

    Differentiable in table (entries, 2) and weights (MLP_WEIGHTS,). table_grad: `table.grad` where it exists already:
    the compiled kernel adds to it in place instead of handing on a second table to be added.
    """
    if not has_compiled_kernel(table, weights, xyz, direction):
        return reference.query_field(grid.levels, table, weights, xyz, direction)
    return cast(
        Tensor, cast(Any, _Field).apply(table, weights, xyz.contiguous(), direction.contiguous(), grid, table_grad)
    )


def query_density(grid: HashGrid, table: Tensor, weights: Tensor, xyz: Tensor) -> Tensor:
    """(S,) the density alone, without gradients: what a grid of occupied cells asks for."""
    if not has_compiled_kernel(table, weights, xyz):
        with torch.no_grad():
            return reference.query_density(grid.levels, table, weights, xyz)
    found: Tensor = _density(table.detach(), weights.detach(), xyz.contiguous(), grid.shape)
    return found


class _Field(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        table: Tensor,
        weights: Tensor,
        xyz: Tensor,
        direction: Tensor,
        grid: HashGrid,
        table_grad: Tensor | None,
    ) -> Tensor:
        out, encoded = _forward(table.detach(), weights.detach(), xyz, direction, grid.shape)
        ctx.save_for_backward(table, weights, xyz, direction, encoded)
        ctx.grid, ctx.table_grad = grid, table_grad
        return cast(Tensor, out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        table, weights, xyz, direction, encoded = ctx.saved_tensors
        g_table = torch.zeros_like(table) if ctx.table_grad is None else ctx.table_grad
        given = (table.detach(), weights.detach(), xyz, direction, encoded, gradients[0].contiguous())
        g_weights = _backward(*given, ctx.grid.shape, g_table)
        return None if ctx.table_grad is not None else g_table, g_weights, None, None, None, None


# ---- the operations

_scratch = native.Scratch()


@functools.lru_cache(64)
def grid_of(log2_hashmap_size: int, base_resolution: int, max_resolution: int) -> HashGrid:
    return HashGrid(log2_hashmap_size, base_resolution, max_resolution)


def _forward_cpu(
    table: Tensor, weights: Tensor, xyz: Tensor, direction: Tensor, shape: list[int]
) -> tuple[Tensor, Tensor]:
    out, encoded = torch.empty(len(xyz), 4), torch.empty(len(xyz), LEVEL_COUNT * FEATURES_PER_LEVEL)
    native.field_forward(grid_of(*shape).native, table, weights, xyz, direction, out, encoded)
    return out, encoded


def _density_cpu(table: Tensor, weights: Tensor, xyz: Tensor, shape: list[int]) -> Tensor:
    out = torch.empty(len(xyz))
    native.field_density(grid_of(*shape).native, table, weights, xyz, out, _scratch)
    return out


def _backward_cpu(
    table: Tensor,
    weights: Tensor,
    xyz: Tensor,
    direction: Tensor,
    encoded: Tensor,
    g: Tensor,
    shape: list[int],
    g_table: Tensor,
) -> Tensor:
    g_weights = torch.empty_like(weights)
    given = (table, weights, xyz, direction, encoded, g)
    native.field_backward(grid_of(*shape).native, *given, g_weights, g_table, _scratch)
    return g_weights


BATCH = 128  # samples of a block, as in hashgrid_cuda.cu
OPERANDS = sum(-(-out // 8) * 8 * of for out, of in MLP_SHAPES) // 2  # pairs of weights


def _encode(table: Tensor, weights: Tensor, xyz: Tensor, grid: HashGrid) -> tuple[Tensor, Tensor]:
    """The encoding, (LEVELS, S, FEATURES_PER_LEVEL) in memory, and the weights as tensor cores read them."""
    check_tensor("table", table, (grid.table_rows, FEATURES_PER_LEVEL), table)
    check_tensor("weights", weights, (MLP_WEIGHTS,), table)
    check_tensor("xyz", xyz, (len(xyz), 3), table)
    n = len(xyz)
    encoded = table.new_empty(n, LEVEL_COUNT * FEATURES_PER_LEVEL)
    if n:
        launch(table, "encode_samples", (-(-n // cuda.THREADS), LEVEL_COUNT, 1), grid.packed, table, xyz, n, encoded)
    return encoded, _operands(weights)[0]


def _operands(weights: Tensor) -> tuple[Tensor, Tensor]:
    operands, back = weights.new_empty(OPERANDS, 4), weights.new_empty(OPERANDS, 2)
    launch(weights, "arrange_weights", 16, weights, operands, back)
    return operands, back


def _forward_cuda(
    table: Tensor, weights: Tensor, xyz: Tensor, direction: Tensor, shape: list[int]
) -> tuple[Tensor, Tensor]:
    check_tensor("direction", direction, tuple(xyz.shape), table)
    encoded, operands = _encode(table, weights, xyz, grid_of(*shape))
    n, out = len(xyz), table.new_empty(len(xyz), 4)
    if n:
        launch(table, "field_values", -(-n // BATCH), operands, encoded, direction, n, out)
    return out, encoded


def _density_cuda(table: Tensor, weights: Tensor, xyz: Tensor, shape: list[int]) -> Tensor:
    encoded, operands = _encode(table, weights, xyz, grid_of(*shape))
    n, out = len(xyz), table.new_empty(len(xyz))
    if n:
        launch(table, "field_densities", -(-n // BATCH), operands, encoded, n, out)
    return out


def _backward_cuda(
    table: Tensor,
    weights: Tensor,
    xyz: Tensor,
    direction: Tensor,
    encoded: Tensor,
    g: Tensor,
    shape: list[int],
    g_table: Tensor,
) -> Tensor:
    n, grid, g_weights = len(xyz), grid_of(*shape), torch.zeros_like(weights)
    check_tensor("gradient", g, (n, 4), table)
    check_tensor("gradient of the table", g_table, (grid.table_rows, FEATURES_PER_LEVEL), table)
    if n:
        g_encoded = torch.empty_like(encoded)
        given = (*_operands(weights), encoded, direction, g, n, g_encoded, g_weights)
        launch(table, "field_gradients", min(-(-n // BATCH), processors(table.device)), *given)
        across = (-(-n // cuda.THREADS), LEVEL_COUNT, 1)
        launch(table, "scatter_gradients", across, grid.packed, xyz, n, g_encoded, g_table)
    return g_weights


@functools.cache
def processors(device: torch.device) -> int:
    """Of a GPU, or a few: each gets one block of those that sum up what they see."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


_forward = register_operation(
    "field(Tensor table, Tensor weights, Tensor xyz, Tensor direction, int[] shape) -> (Tensor, Tensor)",
    _forward_cpu,
    _forward_cuda,
)
_density = register_operation(
    "field_density(Tensor table, Tensor weights, Tensor xyz, int[] shape) -> Tensor", _density_cpu, _density_cuda
)
_backward = register_operation(
    "field_backward(Tensor table, Tensor weights, Tensor xyz, Tensor direction, Tensor encoded, Tensor g, "
    "int[] shape, Tensor(a!) g_table) -> Tensor",
    _backward_cpu,
    _backward_cuda,
)
