"""Points of a surface -> their colours, from pictures of it.

A picture counts where the point is the nearest of the surface along the pixel and seen at less than 75 degrees, by
cos^6 of that angle and the square of the pixels per world unit. Of what is left the mean is taken, twice more with what
lies far from it weighing less (Cauchy's weights), so that a gleam or a wisp in one view leaves no mark.

Compiled (csrc/bake.h) and several-threaded; the twin is reference/bake.py. float32 on the CPU only.
"""

import torch
from torch import Tensor

from lumigraph.kernels.native import native


def bake_colours(
    rgb: Tensor, depth: Tensor, weights: Tensor, views: Tensor, xyz: Tensor, normals: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Pictures rgb (N, H, W, 3) uint8, depth (N, H, W) of the surface itself, infinite where there is none, weights
    (N, H, W), 0 where a picture is not to be looked at, views (N, 16) as in tsdf.py; points xyz (P, 3) with unit
    normals (P, 3), which may lie `tolerance` behind the depth.

    -> rgb (P, 3) of 0..1, weight (P,), which is 0 where no picture shows the point."""
    height, width = depth.shape[1:]
    out, weight = torch.zeros(len(xyz), 3), torch.zeros(len(xyz))
    pictures = (rgb.contiguous(), depth.contiguous(), weights.contiguous(), views.contiguous())
    native.bake(*pictures, width, height, xyz.contiguous(), normals.contiguous(), tolerance, out, weight)
    return out, weight
