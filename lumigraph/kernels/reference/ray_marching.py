"""Steps along rays where a grid says there may be something, in plain torch.

The grid has L nested cubes of G^3 cells, cube k spanning 2^k times the first around the same centre: the cascades of
[Mueller 2022, appendix C]. A point belongs to the smallest cube that holds it.
"""

import torch
from torch import Tensor


def is_occupied(cells: Tensor, centre: Tensor, half: float, points: Tensor) -> Tensor:
    """(...,) bool: whether `points` (..., 3) lie in occupied cells (L, G, G, G) [z, y, x]; outside, nothing is."""
    levels, side = cells.shape[:2]
    p = points - centre
    reach = p.abs().amax(-1)
    level = torch.ceil(torch.log2((reach / half).clamp(min=1))).long()
    within = level < levels
    level = level.clamp(max=levels - 1)
    halves = half * 2.0 ** level.to(p)
    x, y, z = ((p / halves[..., None] + 1) / 2 * side).long().clamp(0, side - 1).unbind(-1)
    return cells[level, z, y, x].bool() & within


def march_rays(
    cells: Tensor,
    centre: Tensor,
    half: float,
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
    """Rays (R, 3) -> first (R + 1,), distance (S,) of each step's middle, length (S,).

    Steps are max(min_step, cone_angle x distance) long and lie on a lattice that begins where the ray enters the
    outermost
    cube, at `near` at least, shifted by `jitter` (R,) of a step.
    """
    outermost = half * 2.0 ** (len(cells) - 1)
    faces = torch.stack([centre - outermost - origin, centre + outermost - origin]) / direction  # (2, R, 3)
    enter = faces.amin(0).nan_to_num(-torch.inf).amax(1).clamp(min=near)
    leave = faces.amax(0).nan_to_num(torch.inf).amin(1).clamp(max=far)
    t = enter + jitter * (cone_angle * enter).clamp(min=min_step)
    room = torch.full_like(t, max_samples, dtype=torch.int64)
    rays, distances, lengths = [], [], []
    inside = (enter < leave) & (t < leave) & (origin.isfinite() & direction.isfinite()).all(1)
    origin = torch.where(inside[:, None], origin, 0.0)
    while inside.any():
        length = (cone_angle * t).clamp(min=min_step)
        middle = t + 0.5 * length
        hit = inside & is_occupied(cells, centre, half, origin + middle[:, None] * direction) & (room > 0)
        room -= hit.long()
        rays.append(hit.nonzero()[:, 0])
        distances.append(middle[hit])
        lengths.append(length[hit])
        t = t + length
        inside = inside & (t < leave)
    ray = torch.cat(rays) if rays else torch.zeros(0, dtype=torch.int64, device=origin.device)
    order = torch.argsort(ray, stable=True)
    first = torch.zeros(len(origin) + 1, dtype=torch.int64, device=origin.device)
    first[1:] = torch.bincount(ray, minlength=len(origin)).cumsum(0)
    none = origin.new_zeros(0)
    return first, torch.cat(distances or [none])[order], torch.cat(lengths or [none])[order]
