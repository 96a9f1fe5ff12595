"""Triangle rasterization: the nearest triangle at each pixel centre (+0.5), and the position inside it.

Compiled (csrc/rasterize.h), multi-threaded, float32 on the CPU only. Reference: reference/rasterize.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.kernels.native import native


class Fragments(NamedTuple):
    """Rasterized triangles, one fragment per pixel."""

    face: Tensor  # (H, W) int32 triangle index, -1 for background
    depth: Tensor  # (H, W) z, infinite for background
    weights: Tensor | None  # (H, W, 3) perspective-correct barycentric coordinates


def rasterize(corners: Tensor, faces: Tensor, size: tuple[int, int], weights: bool = True) -> Fragments:
    """Rasterize triangles without back-face culling.

    A triangle with a corner at z <= 0 is dropped. Of equal depths, the triangle with the lower index wins.

    Args:
        corners: (V, 3) x, y in pixels and depth z.
        faces: (F, 3) int32 corner indices.
        size: (width, height) in pixels.
        weights: also compute barycentric coordinates.
    """
    width, height = size
    face, depth = torch.empty(height, width, dtype=torch.int32), torch.empty(height, width)
    barycentric = torch.empty(height, width, 3) if weights else torch.empty(0)
    native.raster(corners.contiguous(), faces.contiguous(), width, height, face, depth, barycentric)
    return Fragments(face, depth, barycentric if weights else None)
