"""Colours of surface points, blended from images of the surface.

An image contributes to a point if the point is the nearest surface along its pixel and is seen at less than 75 degrees
from the normal. Its weight is cos^6 of that angle times the square of the pixels per world unit. The colour is the
weighted mean. Two more rounds lower the weight of outliers (Cauchy weights), so that a highlight or a floater in one
view leaves no trace.

Compiled (csrc/colour_baking.h), multi-threaded, float32 on the CPU only. Reference: reference/colour_baking.py.
"""

import torch
from torch import Tensor

from lumigraph.kernels.native import native


def bake_colours(
    rgb: Tensor, depth: Tensor, weights: Tensor, views: Tensor, xyz: Tensor, normals: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Blend the colours of surface points from N images -> rgb (P, 3) in 0..1, weight (P,), 0 if no image shows it.

    Args:
        rgb: (N, H, W, 3) uint8 images.
        depth: (N, H, W) depth of the surface itself, infinite where there is none.
        weights: (N, H, W) pixel weights, 0 for pixels to ignore.
        views: (N, 16) camera rows as in tsdf.py.
        xyz, normals: (P, 3) points and their unit normals.
        tolerance: world units that a point may be behind the depth.
    """
    height, width = depth.shape[1:]
    out, weight = torch.zeros(len(xyz), 3), torch.zeros(len(xyz))
    images = (rgb.contiguous(), depth.contiguous(), weights.contiguous(), views.contiguous())
    native.bake(*images, width, height, xyz.contiguous(), normals.contiguous(), tolerance, out, weight)
    return out, weight
