"""Reference implementation of ray marching through an occupancy grid.

The grid has L cascades of G^3 cells around one centre; cascade k spans 2^k times the first [Mueller 2022, appendix C].
A point belongs to the smallest cascade that contains it.
"""

import torch
from torch import Tensor


def is_occupied(cells: Tensor, centre: Tensor, half_extent: float, points: Tensor) -> Tensor:
    """Return whether each of the points (..., 3) is in an occupied cell -> bool (...,), False outside the grid.

    `cells` are (L, G, G, G) [z, y, x].
    """
    cascades, side = cells.shape[:2]
    p = points - centre
    distance = p.abs().amax(-1)
    cascade = torch.ceil(torch.log2((distance / half_extent).clamp(min=1))).long()
    is_inside = cascade < cascades
    cascade = cascade.clamp(max=cascades - 1)
    cascade_extent = half_extent * 2.0 ** cascade.to(p)
    x, y, z = ((p / cascade_extent[..., None] + 1) / 2 * side).long().clamp(0, side - 1).unbind(-1)
    return cells[cascade, z, y, x].bool() & is_inside


def march_rays(
    cells: Tensor,
    centre: Tensor,
    half_extent: float,
    origin: Tensor,
    direction: Tensor,
    jitter: Tensor,
    *,
    near: float,
    far: float,
    min_step: float,
    cone_angle: float = 0.0,
    max_samples: int = 1024,
) -> tuple[Tensor, Tensor, Tensor]:
    """March rays (R, 3) -> ray_offsets (R + 1,), t (S,) and delta (S,): midpoint and length of each step.

    Steps are max(min_step, cone_angle x t) long. The first begins where the ray enters the outermost cascade, or at
    `near` if that is farther, shifted by `jitter` (R,) of a step.
    """
    outer_extent = half_extent * 2.0 ** (len(cells) - 1)
    faces = torch.stack([centre - outer_extent - origin, centre + outer_extent - origin]) / direction  # (2, R, 3)
    enter = faces.amin(0).nan_to_num(-torch.inf).amax(1).clamp(min=near)
    leave = faces.amax(0).nan_to_num(torch.inf).amin(1).clamp(max=far)
    t = enter + jitter * (cone_angle * enter).clamp(min=min_step)
    samples_left = torch.full_like(t, max_samples, dtype=torch.int64)
    rays, midpoints, lengths = [], [], []
    is_active = (enter < leave) & (t < leave) & (origin.isfinite() & direction.isfinite()).all(1)
    origin = torch.where(is_active[:, None], origin, 0.0)
    while is_active.any():
        delta = (cone_angle * t).clamp(min=min_step)
        middle = t + 0.5 * delta
        is_sample = (
            is_active
            & is_occupied(cells, centre, half_extent, origin + middle[:, None] * direction)
            & (samples_left > 0)
        )
        samples_left -= is_sample.long()
        rays.append(is_sample.nonzero()[:, 0])
        midpoints.append(middle[is_sample])
        lengths.append(delta[is_sample])
        t = t + delta
        is_active = is_active & (t < leave)
    ray = torch.cat(rays) if rays else torch.zeros(0, dtype=torch.int64, device=origin.device)
    order = torch.argsort(ray, stable=True)
    ray_offsets = torch.zeros(len(origin) + 1, dtype=torch.int64, device=origin.device)
    ray_offsets[1:] = torch.bincount(ray, minlength=len(origin)).cumsum(0)
    empty = origin.new_zeros(0)
    return ray_offsets, torch.cat(midpoints or [empty])[order], torch.cat(lengths or [empty])[order]
