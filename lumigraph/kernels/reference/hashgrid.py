"""The hash grid of [Mueller 2022] and the two networks behind it, in plain torch.

  [Mueller 2022]  Instant Neural Graphics Primitives with a Multiresolution Hash Encoding.

Differentiable by autograd in the table and the weights, in whatever floating type they are. Positions lie in the unit
cube, directions have length 1.
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
MLP_WEIGHTS = sum(out * of for out, of in MLP_SHAPES)  # of the networks, flat: each matrix (out, in), row-major
MAX_LOG_DENSITY = 15.0
PRIMES = (1, 2_654_435_761, 805_459_861)


class Level(NamedTuple):
    """One level: `side` vertices along each axis, in `entries` rows of the table from `first` on. All of them where
    they fit (`dense`), else by hash."""

    scale: float  # cells along the unit cube
    side: int
    first: int
    entries: int
    dense: bool


def build_levels(log2_hashmap_size: int, base_resolution: int, max_resolution: int) -> list[Level]:
    """16 levels whose cells grow finer geometrically [Mueller 2022, eq. 2-3], with 2^log2_hashmap_size rows at most
    each."""
    growth = math.exp(math.log(max_resolution / base_resolution) / (LEVEL_COUNT - 1))
    levels, first = [], 0
    for l in range(LEVEL_COUNT):
        scale = float(math.floor(base_resolution * growth**l + 1e-6))
        side = int(scale) + 2  # positions are shifted by half a cell, so that the levels' vertices do not coincide
        dense = side**3 <= 2**log2_hashmap_size
        entries = -(-(side**3) // 8) * 8 if dense else 2**log2_hashmap_size
        levels.append(Level(scale, side, first, entries, dense))
        first += entries
    return levels


def encode(levels: list[Level], table: Tensor, xyz: Tensor) -> Tensor:
    """(S, 3) positions -> (S, 32): trilinear mixtures of the table's rows (entries, 2) [Mueller 2022, eq. 4]."""
    device, corner = xyz.device, torch.tensor([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)], device=xyz.device)
    scale = torch.tensor([level.scale for level in levels], dtype=xyz.dtype, device=device)
    side, first, entries = (torch.tensor([level[k] for level in levels], device=device)[:, None] for k in (1, 2, 3))
    dense = torch.tensor([level.dense for level in levels], device=device)[:, None]
    at = xyz.clamp(0, 1)[:, None] * scale[:, None] + 0.5  # (S, L, 3)
    low = at.floor()
    inside = (at - low)[:, :, None]
    weight = torch.where(corner.bool(), inside, 1 - inside).prod(-1)  # (S, L, 8)
    vertex = low.long()[:, :, None] + corner
    x, y, z = vertex.unbind(-1)
    hashed = (x ^ (y * PRIMES[1] & 0xFFFFFFFF) ^ (z * PRIMES[2] & 0xFFFFFFFF)) & (entries - 1)
    row = first + torch.where(dense, x + side * (y + side * z), hashed)
    mixed: Tensor = (table[row] * weight[..., None]).sum(2)
    return mixed.flatten(1)


class _Exponential(torch.autograd.Function):
    """exp(min(x, 15)) with the gradient of exp there too: a density that ran away must find its way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp(max=MAX_LOG_DENSITY).exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        passed: Tensor = gradients[0] * y
        return passed


def query_density(levels: list[Level], table: Tensor, weights: Tensor, xyz: Tensor) -> Tensor:
    """(S,) what `field` says first."""
    w1, w2, *_ = _matrices(weights)
    latent = torch.relu(encode(levels, table, xyz) @ w1.T) @ w2.T
    found: Tensor = cast(Any, _Exponential).apply(latent[:, 0])
    return found


def query_field(levels: list[Level], table: Tensor, weights: Tensor, xyz: Tensor, direction: Tensor) -> Tensor:
    """(S, 3) positions and directions -> (S, 4) density, red, green, blue."""
    w1, w2, w3, w4, w5 = _matrices(weights)
    latent = torch.relu(encode(levels, table, xyz) @ w1.T) @ w2.T
    mixed = torch.cat([latent, sh_basis(direction, 3)], 1)
    rgb = torch.sigmoid(torch.relu(torch.relu(mixed @ w3.T) @ w4.T) @ w5.T)
    return torch.cat([cast(Any, _Exponential).apply(latent[:, :1]), rgb], 1)


def _matrices(weights: Tensor) -> list[Tensor]:
    sizes = [out * of for out, of in MLP_SHAPES]
    return [part.view(shape) for part, shape in zip(torch.split(weights, sizes), MLP_SHAPES, strict=True)]
