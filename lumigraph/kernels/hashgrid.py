"""The field of instant-NGP (Mueller et al. 2022): a hash grid of features and two tiny networks behind it.

  16 levels x 2 features, trilinear                                    -> 32
  32 -> 64 relu -> 16; density = exp(the first), all 16 go on
  16 + 16 spherical harmonics of the direction -> 64 relu -> 64 relu -> 3; rgb = sigmoid

float32 on the CPU runs compiled (csrc/hashgrid.h), fused from the position to the colour; everything else takes the
plain-torch twin, reference/hashgrid.py, which is the specification. Results do not depend on the number of threads.
"""

from typing import Any, cast

import torch
from torch import Tensor

from .native import native
from .reference import hashgrid as twin

SHAPES, WEIGHTS, FEATURES = twin.SHAPES, twin.WEIGHTS, twin.FEATURES


class Grid:
    """The layout of a table: up to 2^log2_entries rows a level, cells from 1/coarsest to 1/finest of the unit cube."""

    def __init__(self, log2_entries: int = 17, coarsest: int = 16, finest: int = 1024) -> None:
        if not (8 <= log2_entries <= 24 and 1 <= coarsest <= finest <= 1 << 20):
            raise ValueError("a grid has 2^8 to 2^24 entries a level and 1 <= coarsest <= finest <= 2^20 cells")
        self.log2_entries = log2_entries
        self.levels = twin.levels_of(log2_entries, coarsest, finest)
        self.native = native.Grid([tuple(level) for level in self.levels])
        self.entries = int(self.native.entries)

    def table(self, generator: torch.Generator | None = None) -> Tensor:
        """(entries, 2) to begin with: uniform in +-1e-4."""
        return (torch.rand(self.entries, FEATURES, generator=generator) * 2 - 1) * 1e-4


def networks(generator: torch.Generator | None = None) -> Tensor:
    """(WEIGHTS,) to begin with: uniform, of a variance that keeps the signal's (He et al. 2015)."""
    parts = [(torch.rand(out * of, generator=generator) * 2 - 1) * (6 / of) ** 0.5 for out, of in SHAPES]
    return torch.cat(parts)


def field(
    grid: Grid, table: Tensor, weights: Tensor, xyz: Tensor, direction: Tensor, into: Tensor | None = None
) -> Tensor:
    """xyz (S, 3) in the unit cube, direction (S, 3) of length 1 -> (S, 4) density, red, green, blue.

    Differentiable in table (entries, 2) and weights (WEIGHTS,). into: `table.grad` where it exists already: the
    compiled kernel adds to it in place instead of handing on a second table to be added.
    """
    if not compiled(table, weights, xyz, direction):
        return twin.field(grid.levels, table, weights, xyz, direction)
    return cast(Tensor, cast(Any, _Field).apply(table, weights, xyz.contiguous(), direction.contiguous(), grid, into))


def density(grid: Grid, table: Tensor, weights: Tensor, xyz: Tensor) -> Tensor:
    """(S,) the density alone, without gradients: what a grid of occupied cells asks for."""
    if not compiled(table, weights, xyz):
        with torch.no_grad():
            return twin.density(grid.levels, table, weights, xyz)
    out = torch.empty(len(xyz))
    native.field_density(grid.native, table.detach(), weights.detach(), xyz.contiguous(), out, _scratch)
    return out


def compiled(*tensors: Tensor) -> bool:
    """Whether the compiled kernels take these: float32 on the CPU."""
    return all(x.dtype == torch.float32 and x.device.type == "cpu" for x in tensors)


class _Field(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, table: Tensor, weights: Tensor, xyz: Tensor, direction: Tensor, grid: Grid, into: Tensor | None
    ) -> Tensor:
        out, encoded = torch.empty(len(xyz), 4), torch.empty(len(xyz), twin.LEVELS * FEATURES)
        native.field_forward(grid.native, table.detach(), weights.detach(), xyz, direction, out, encoded)
        ctx.save_for_backward(table, weights, xyz, direction, encoded)
        ctx.grid, ctx.into = grid, into
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        table, weights, xyz, direction, encoded = ctx.saved_tensors
        g_weights, g_table = torch.empty_like(weights), torch.zeros_like(table) if ctx.into is None else ctx.into
        given = (ctx.grid.native, table.detach(), weights.detach(), xyz, direction, encoded, gradients[0].contiguous())
        native.field_backward(*given, g_weights, g_table, _scratch)
        return None if ctx.into is not None else g_table, g_weights, None, None, None, None


_scratch = native.Scratch()
