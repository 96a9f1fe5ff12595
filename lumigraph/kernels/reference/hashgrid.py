"""Reference implementation of the hash grid [Mueller 2022] and its two MLPs.

  [Mueller 2022]  Instant Neural Graphics Primitives with a Multiresolution Hash Encoding.

Differentiable by autograd in the table and the weights, in any floating dtype. Positions are in the unit cube,
directions have length 1.
"""

import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from lumigraph.kernels.reference.splatting import sh_basis

LEVEL_COUNT, FEATURES_PER_LEVEL, HIDDEN_WIDTH, LATENT_WIDTH, SH_COEFFICIENTS = 16, 2, 64, 16, 16
MLP_SHAPES = (
    (HIDDEN_WIDTH, LEVEL_COUNT * FEATURES_PER_LEVEL),
    (LATENT_WIDTH, HIDDEN_WIDTH),
    (HIDDEN_WIDTH, LATENT_WIDTH + SH_COEFFICIENTS),
    (HIDDEN_WIDTH, HIDDEN_WIDTH),
    (3, HIDDEN_WIDTH),
)
MLP_WEIGHTS = sum(out * of for out, of in MLP_SHAPES)  # of both MLPs, flat: each matrix (out, in), row-major
MAX_LOG_DENSITY = 15.0
HASH_PRIMES = (1, 2_654_435_761, 805_459_861)


class Level(NamedTuple):
    """One resolution level of the table."""

    scale: float  # cells along the unit cube
    side: int  # vertices along each axis
    offset: int  # first row in the table
    rows: int
    is_dense: bool  # one row per vertex; else vertices are hashed


def build_levels(log2_hashmap_size: int, base_resolution: int, max_resolution: int) -> list[Level]:
    """Return 16 levels of geometrically shrinking cells [Mueller 2022, eq. 2-3], each of at most 2^log2_hashmap_size
    rows."""
    growth = math.exp(math.log(max_resolution / base_resolution) / (LEVEL_COUNT - 1))
    levels, offset = [], 0
    for l in range(LEVEL_COUNT):
        scale = float(math.floor(base_resolution * growth**l + 1e-6))
        side = int(scale) + 2  # positions are shifted by half a cell, so that the levels' vertices do not coincide
        is_dense = side**3 <= 2**log2_hashmap_size
        rows = -(-(side**3) // 8) * 8 if is_dense else 2**log2_hashmap_size
        levels.append(Level(scale, side, offset, rows, is_dense))
        offset += rows
    return levels


def encode(levels: list[Level], table: Tensor, xyz: Tensor) -> Tensor:
    """Interpolate rows of the table (rows, 2) at positions (S, 3) -> (S, 32) [Mueller 2022, eq. 4]."""
    device, corner = xyz.device, torch.tensor([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)], device=xyz.device)
    scale = torch.tensor([level.scale for level in levels], dtype=xyz.dtype, device=device)
    side, offset, rows = (torch.tensor([level[k] for level in levels], device=device)[:, None] for k in (1, 2, 3))
    is_dense = torch.tensor([level.is_dense for level in levels], device=device)[:, None]
    grid_xyz = xyz.clamp(0, 1)[:, None] * scale[:, None] + 0.5  # (S, L, 3)
    low = grid_xyz.floor()
    fraction = (grid_xyz - low)[:, :, None]
    weight = torch.where(corner.bool(), fraction, 1 - fraction).prod(-1)  # (S, L, 8)
    vertex = low.long()[:, :, None] + corner
    x, y, z = vertex.unbind(-1)
    hash_row = (x ^ (y * HASH_PRIMES[1] & 0xFFFFFFFF) ^ (z * HASH_PRIMES[2] & 0xFFFFFFFF)) & (rows - 1)
    row = offset + torch.where(is_dense, x + side * (y + side * z), hash_row)
    features: Tensor = (table[row] * weight[..., None]).sum(2)
    return features.flatten(1)


class _Exponential(torch.autograd.Function):
    """exp(min(x, 15)). Its gradient does not vanish above 15, so that too large a density can shrink again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp(max=MAX_LOG_DENSITY).exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        g_x: Tensor = gradients[0] * y
        return g_x


def query_density(levels: list[Level], table: Tensor, weights: Tensor, xyz: Tensor) -> Tensor:
    """Evaluate the density alone -> (S,)."""
    w1, w2, *_ = _split_matrices(weights)
    latent = torch.relu(encode(levels, table, xyz) @ w1.T) @ w2.T
    sigma: Tensor = cast(Any, _Exponential).apply(latent[:, 0])
    return sigma


def query_field(levels: list[Level], table: Tensor, weights: Tensor, xyz: Tensor, direction: Tensor) -> Tensor:
    """Evaluate positions and directions (S, 3) -> sigma_rgb (S, 4)."""
    w1, w2, w3, w4, w5 = _split_matrices(weights)
    latent = torch.relu(encode(levels, table, xyz) @ w1.T) @ w2.T
    features = torch.cat([latent, sh_basis(direction, 3)], 1)
    rgb = torch.sigmoid(torch.relu(torch.relu(features @ w3.T) @ w4.T) @ w5.T)
    return torch.cat([cast(Any, _Exponential).apply(latent[:, :1]), rgb], 1)


def _split_matrices(weights: Tensor) -> list[Tensor]:
    sizes = [out * of for out, of in MLP_SHAPES]
    return [part.view(shape) for part, shape in zip(torch.split(weights, sizes), MLP_SHAPES, strict=True)]
