"""Triangles -> which of them is nearest at each pixel centre (+0.5), and where in it that is.

Compiled (csrc/raster.h) and several-threaded; the twin is reference/raster.py. float32 on the CPU only.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.kernels.native import native


class Fragments(NamedTuple):
    face: Tensor  # (H, W) int32, -1 where there is none
    depth: Tensor  # (H, W), infinite where there is none
    weights: Tensor | None  # (H, W, 3) of the corners of the face, corrected for perspective


def rasterize(corners: Tensor, faces: Tensor, size: tuple[int, int], weights: bool = True) -> Fragments:
    """corners (V, 3): x, y in pixels and depth z; faces (F, 3) int32, either way round; size: (width, height).

    A triangle with a corner at z <= 0 is not drawn. Where two are equally near, the first in the list wins."""
    width, height = size
    face, depth = torch.empty(height, width, dtype=torch.int32), torch.empty(height, width)
    shares = torch.empty(height, width, 3) if weights else torch.empty(0)
    native.raster(corners.contiguous(), faces.contiguous(), width, height, face, depth, shares)
    return Fragments(face, depth, shares if weights else None)
