"""Triangles without a picture: parts, smoothing, fewer faces, normals, and whether they close.

vertices (V, 3) float, faces (F, 3) integers; corners run counter-clockwise seen from outside.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def compact(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Without the vertices that no face uses."""
    used, renamed = torch.unique(faces, return_inverse=True)
    return vertices[used.long()], renamed.view(-1, 3).to(faces.dtype)


def together(pieces: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One mesh of several."""
    before = [0, *itertools.accumulate(len(vertices) for vertices, _ in pieces)]
    faces = [faces + start for (_, faces), start in zip(pieces, before, strict=False)]
    return torch.cat([vertices for vertices, _ in pieces]), torch.cat(faces)


def parts(count: int, faces: Tensor) -> Tensor:
    """(V,) int64: for each of `count` vertices the smallest one that faces join it to."""
    label, faces = torch.arange(count), faces.long()
    while True:
        least = label[faces].amin(1)
        joined = label.clone()
        for corner in range(3):  # hook the trees of a face's corners to the smallest, and shorten all
            joined.scatter_reduce_(0, label[faces[:, corner]], least, "amin")
            joined.scatter_reduce_(0, faces[:, corner], least, "amin")
        joined = joined[joined]
        if torch.equal(joined, label):
            return label
        label = joined


def larger_parts(vertices: Tensor, faces: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Only the parts whose area is at least `share` of the largest one's."""
    label = parts(len(vertices), faces)[faces[:, 0].long()]
    area = torch.zeros(len(vertices), dtype=torch.float64).index_add(0, label, _cross(vertices, faces).norm(dim=1))
    return compact(vertices, faces[(area >= share * area.amax())[label]])


def smooth(vertices: Tensor, faces: Tensor, rounds: int) -> Tensor:
    """(V, 3): Taubin's filter (1995), which takes noise away and keeps the volume. Borders stay where they are."""
    a, b = edges(faces)[0].T
    count = torch.zeros(len(vertices)).index_add(0, torch.cat([a, b]), torch.ones(2 * len(a))).clamp(min=1)[:, None]
    free = (~at_border(len(vertices), faces))[:, None]
    for step in (0.5, -0.53) * rounds:
        total = torch.zeros_like(vertices).index_add(0, a, vertices[b]).index_add(0, b, vertices[a])
        vertices = torch.where(free, vertices + step * (total / count - vertices), vertices)
    return vertices


def fewer(vertices: Tensor, faces: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """About `count` faces by quadric error (Garland and Heckbert 1997), if there are more."""
    import fast_simplification

    if len(faces) <= count:
        return vertices, faces
    middle = vertices.mean(0)
    points, triangles = fast_simplification.simplify((vertices - middle).numpy(), faces.numpy(), target_count=count)
    kept = torch.from_numpy(triangles).to(torch.int32)
    kept = kept[(kept[:, 0] != kept[:, 1]) & (kept[:, 1] != kept[:, 2]) & (kept[:, 2] != kept[:, 0])]
    return compact(torch.from_numpy(points).to(vertices) + middle, kept)


def edges(faces: Tensor) -> tuple[Tensor, Tensor]:
    """(E, 2) the edges, smaller vertex first; (E,) faces that have them."""
    corners = faces.long()
    sides = torch.cat([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]]).sort(1).values
    base = int(sides.amax()) + 1 if len(sides) else 1
    key, count = torch.unique(sides[:, 0] * base + sides[:, 1], return_counts=True)
    return torch.stack([key // base, key % base], 1), count


def at_border(count: int, faces: Tensor) -> Tensor:
    """(V,) bool: the vertices on an edge that not exactly two faces share."""
    found, shared = edges(faces)
    border = torch.zeros(count, dtype=torch.bool)
    border[found[shared != 2].flatten()] = True
    return border


def watertight(faces: Tensor) -> bool:
    """Whether each edge is shared by two faces, which run along it in opposite directions."""
    corners = faces.long()
    sides = torch.cat([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    base = int(sides.amax()) + 1 if len(sides) else 1
    there, back = sides[:, 0] * base + sides[:, 1], sides[:, 1] * base + sides[:, 0]
    once = len(torch.unique(there)) == len(there)
    return bool(len(faces)) and once and torch.equal(there.sort().values, back.sort().values)


def volume(vertices: Tensor, faces: Tensor) -> float:
    """World units cubed, of a closed surface; positive where it is the right way round."""
    a, b, c = (vertices - vertices.mean(0)).double()[faces.long()].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """(V, 3) unit: the mean of the faces around, by their area."""
    cross = _cross(vertices, faces).float()
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total = total.index_add(0, faces[:, corner].long(), cross)
    length = total.norm(dim=1, keepdim=True)
    return torch.where(length > 0, total / length.clamp(min=1e-30), total.new_tensor([0.0, 0.0, 1.0]))


def area(vertices: Tensor, faces: Tensor) -> float:
    return float(_cross(vertices, faces).norm(dim=1).sum() / 2)


def _cross(vertices: Tensor, faces: Tensor) -> Tensor:
    """(F, 3) float64 normals as long as twice the area."""
    a, b, c = vertices.double()[faces.long()].unbind(1)
    cross: Tensor = torch.linalg.cross(b - a, c - a)
    return cross
