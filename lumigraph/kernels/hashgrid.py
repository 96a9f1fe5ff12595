"""The field of instant-NGP (Mueller et al. 2022): a multiresolution hash grid of features and two small MLPs.

  16 levels x 2 features, trilinear                                        -> 32
  32 -> 64 relu -> 16; density = exp(output 0), all 16 outputs continue
  16 + 16 spherical harmonics of the direction -> 64 relu -> 64 relu -> 3; rgb = sigmoid

float32 uses compiled kernels. On the CPU (csrc/hashgrid.h) they are fused from position to colour, and the result does
not depend on the number of threads. On CUDA (csrc/hashgrid_cuda.cu) gradients are computed in TF32. Other dtypes and
devices use the reference implementation, reference/hashgrid.py, which is the specification.
"""

import ctypes
import functools
from typing import Any, cast

import torch
from torch import Tensor

from lumigraph.kernels import cuda
from lumigraph.kernels.native import native
from lumigraph.kernels.operations import check_tensor, has_compiled_kernel, launch, register_operation
from lumigraph.kernels.reference import hashgrid as reference

MLP_SHAPES, MLP_WEIGHTS = reference.MLP_SHAPES, reference.MLP_WEIGHTS
FEATURES_PER_LEVEL, LEVEL_COUNT = reference.FEATURES_PER_LEVEL, reference.LEVEL_COUNT
SAMPLES_PER_BLOCK = 128  # BATCH of csrc/hashgrid_cuda.cu
OPERAND_PAIRS = sum(-(-rows // 8) * 8 * columns for rows, columns in MLP_SHAPES) // 2  # weights in tensor-core layout
INITIAL_FEATURE_RANGE = 1e-4


class LevelStruct(ctypes.Structure):
    """`struct Level` of csrc/sample.h."""

    _fields_ = [
        ("scale", ctypes.c_float),
        ("side", ctypes.c_uint32),
        ("offset", ctypes.c_uint32),
        ("rows", ctypes.c_uint32),
        ("is_dense", ctypes.c_bool),
    ]


class HashGrid:
    """Layout of a feature table with at most 2^log2_hashmap_size rows a level.

    Cells of the unit cube shrink geometrically from 1/base_resolution to 1/max_resolution.
    """

    def __init__(self, log2_hashmap_size: int = 17, base_resolution: int = 16, max_resolution: int = 1024) -> None:
        if not (8 <= log2_hashmap_size <= 24 and 1 <= base_resolution <= max_resolution <= 1 << 20):
            raise ValueError(
                "a hash grid has 2^8 to 2^24 rows a level and 1 <= base_resolution <= max_resolution <= 2^20"
            )
        self.log2_hashmap_size, self.shape = log2_hashmap_size, (log2_hashmap_size, base_resolution, max_resolution)
        self.levels = reference.build_levels(*self.shape)
        self.native = native.Grid([tuple(level) for level in self.levels])
        self.table_rows = int(self.native.entries)

    @functools.cached_property
    def c_levels(self) -> ctypes.Array[LevelStruct]:
        """`struct Grid` of csrc/hashgrid_cuda.cu."""
        return (LevelStruct * LEVEL_COUNT)(*(LevelStruct(*level) for level in self.levels))

    def init_table(self, generator: torch.Generator | None = None) -> Tensor:
        """Return an untrained table (table_rows, 2), uniform in +-1e-4."""
        uniform = torch.rand(self.table_rows, FEATURES_PER_LEVEL, generator=generator)
        return (uniform * 2 - 1) * INITIAL_FEATURE_RANGE


def init_mlp_weights(generator: torch.Generator | None = None) -> Tensor:
    """Return untrained MLP weights (MLP_WEIGHTS,), uniform, with the variance of He et al. (2015)."""
    matrices = [(torch.rand(out * of, generator=generator) * 2 - 1) * (6 / of) ** 0.5 for out, of in MLP_SHAPES]
    return torch.cat(matrices)


def query_field(
    grid: HashGrid,
    table: Tensor,
    weights: Tensor,
    xyz: Tensor,
    direction: Tensor,
    table_grad: Tensor | None = None,
) -> Tensor:
    """Evaluate density and colour -> sigma_rgb (S, 4). Differentiable in table and weights.

    Args:
        table: (table_rows, 2) features.
        weights: (MLP_WEIGHTS,) flat matrices of both MLPs.
        xyz, direction: (S, 3) positions in the unit cube and directions of length 1.
        table_grad: `table.grad` if it exists. The compiled kernel adds to it in place, which saves a second table.
    """
    if not has_compiled_kernel(table, weights, xyz, direction):
        return reference.query_field(grid.levels, table, weights, xyz, direction)
    arguments = (table, weights, xyz.contiguous(), direction.contiguous(), grid, table_grad)
    return cast(Tensor, cast(Any, _Field).apply(*arguments))


def query_density(grid: HashGrid, table: Tensor, weights: Tensor, xyz: Tensor) -> Tensor:
    """Evaluate the density alone -> (S,), without gradients. Occupancy grids are updated from it."""
    if not has_compiled_kernel(table, weights, xyz):
        with torch.no_grad():
            return reference.query_density(grid.levels, table, weights, xyz)
    sigma: Tensor = _density(table.detach(), weights.detach(), xyz.contiguous(), grid.shape)
    return sigma


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
        out, encoding = _forward(table.detach(), weights.detach(), xyz, direction, grid.shape)
        ctx.save_for_backward(table, weights, xyz, direction, encoding)
        ctx.grid, ctx.table_grad = grid, table_grad
        return cast(Tensor, out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        table, weights, xyz, direction, encoding = ctx.saved_tensors
        g_table = torch.zeros_like(table) if ctx.table_grad is None else ctx.table_grad
        inputs = (table.detach(), weights.detach(), xyz, direction, encoding, gradients[0].contiguous())
        g_weights = _backward(*inputs, ctx.grid.shape, g_table)
        return None if ctx.table_grad is not None else g_table, g_weights, None, None, None, None


# ---- torch operations

_scratch = native.Scratch()


@functools.lru_cache(64)
def get_hash_grid(log2_hashmap_size: int, base_resolution: int, max_resolution: int) -> HashGrid:
    return HashGrid(log2_hashmap_size, base_resolution, max_resolution)


def _forward_cpu(
    table: Tensor, weights: Tensor, xyz: Tensor, direction: Tensor, shape: list[int]
) -> tuple[Tensor, Tensor]:
    out, encoding = torch.empty(len(xyz), 4), torch.empty(len(xyz), LEVEL_COUNT * FEATURES_PER_LEVEL)
    native.field_forward(get_hash_grid(*shape).native, table, weights, xyz, direction, out, encoding)
    return out, encoding


def _density_cpu(table: Tensor, weights: Tensor, xyz: Tensor, shape: list[int]) -> Tensor:
    out = torch.empty(len(xyz))
    native.field_density(get_hash_grid(*shape).native, table, weights, xyz, out, _scratch)
    return out


def _backward_cpu(
    table: Tensor,
    weights: Tensor,
    xyz: Tensor,
    direction: Tensor,
    encoding: Tensor,
    g: Tensor,
    shape: list[int],
    g_table: Tensor,
) -> Tensor:
    g_weights = torch.empty_like(weights)
    inputs = (table, weights, xyz, direction, encoding, g)
    native.field_backward(get_hash_grid(*shape).native, *inputs, g_weights, g_table, _scratch)
    return g_weights


def _encode(table: Tensor, weights: Tensor, xyz: Tensor, grid: HashGrid) -> tuple[Tensor, Tensor]:
    """Return the encoding, (LEVEL_COUNT, S, FEATURES_PER_LEVEL) in memory, and the weights in tensor-core layout."""
    check_tensor("table", table, (grid.table_rows, FEATURES_PER_LEVEL), table)
    check_tensor("weights", weights, (MLP_WEIGHTS,), table)
    check_tensor("xyz", xyz, (len(xyz), 3), table)
    n = len(xyz)
    encoding = table.new_empty(n, LEVEL_COUNT * FEATURES_PER_LEVEL)
    if n:
        grid_size = (-(-n // cuda.THREADS_PER_BLOCK), LEVEL_COUNT, 1)
        launch(table, "encode_samples", grid_size, grid.c_levels, table, xyz, n, encoding)
    return encoding, _arrange_weights(weights)[0]


def _arrange_weights(weights: Tensor) -> tuple[Tensor, Tensor]:
    operands, transposed_operands = weights.new_empty(OPERAND_PAIRS, 4), weights.new_empty(OPERAND_PAIRS, 2)
    launch(weights, "arrange_weights", 16, weights, operands, transposed_operands)
    return operands, transposed_operands


def _forward_cuda(
    table: Tensor, weights: Tensor, xyz: Tensor, direction: Tensor, shape: list[int]
) -> tuple[Tensor, Tensor]:
    check_tensor("direction", direction, tuple(xyz.shape), table)
    encoding, operands = _encode(table, weights, xyz, get_hash_grid(*shape))
    n, out = len(xyz), table.new_empty(len(xyz), 4)
    if n:
        launch(table, "field_values", -(-n // SAMPLES_PER_BLOCK), operands, encoding, direction, n, out)
    return out, encoding


def _density_cuda(table: Tensor, weights: Tensor, xyz: Tensor, shape: list[int]) -> Tensor:
    encoding, operands = _encode(table, weights, xyz, get_hash_grid(*shape))
    n, out = len(xyz), table.new_empty(len(xyz))
    if n:
        launch(table, "field_densities", -(-n // SAMPLES_PER_BLOCK), operands, encoding, n, out)
    return out


def _backward_cuda(
    table: Tensor,
    weights: Tensor,
    xyz: Tensor,
    direction: Tensor,
    encoding: Tensor,
    g: Tensor,
    shape: list[int],
    g_table: Tensor,
) -> Tensor:
    n, grid, g_weights = len(xyz), get_hash_grid(*shape), torch.zeros_like(weights)
    check_tensor("gradient", g, (n, 4), table)
    check_tensor("gradient of the table", g_table, (grid.table_rows, FEATURES_PER_LEVEL), table)
    if n:
        g_encoding = torch.empty_like(encoding)
        arguments = (*_arrange_weights(weights), encoding, direction, g, n, g_encoding, g_weights)
        blocks = min(-(-n // SAMPLES_PER_BLOCK), multiprocessor_count(table.device))
        launch(table, "field_gradients", blocks, *arguments)
        grid_size = (-(-n // cuda.THREADS_PER_BLOCK), LEVEL_COUNT, 1)
        launch(table, "scatter_gradients", grid_size, grid.c_levels, xyz, n, g_encoding, g_table)
    return g_weights


@functools.cache
def multiprocessor_count(device: torch.device) -> int:
    """Return the multiprocessors of a GPU. An emulated GPU has 2. Each runs one block of the weight gradient."""
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
    "field_backward(Tensor table, Tensor weights, Tensor xyz, Tensor direction, Tensor encoding, Tensor g, "
    "int[] shape, Tensor(a!) g_table) -> Tensor",
    _backward_cpu,
    _backward_cuda,
)
