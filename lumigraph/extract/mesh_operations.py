"""Operations on bare triangle meshes: components, smoothing, decimation, normals and watertightness.

vertices (V, 3) float, faces (F, 3) integers; corners run counter-clockwise seen from outside.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def remove_unused_vertices(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Remove the vertices that no face uses, and renumber the faces."""
    indices, new_indices = torch.unique(faces, return_inverse=True)
    return vertices[indices.long()], new_indices.view(-1, 3).to(faces.dtype)


def concatenate(pieces: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Concatenate several (vertices, faces) into one mesh."""
    offsets = [0, *itertools.accumulate(len(vertices) for vertices, _ in pieces)]
    faces = [faces + offset for (_, faces), offset in zip(pieces, offsets, strict=False)]
    return torch.cat([vertices for vertices, _ in pieces]), torch.cat(faces)


def label_components(count: int, faces: Tensor) -> Tensor:
    """Label each of `count` vertices with the smallest vertex of its connected component: (V,) int64."""
    label, faces = torch.arange(count), faces.long()
    while True:
        face_label = label[faces].amin(1)
        new_label = label.clone()
        for corner in range(3):  # hook the trees of a face's corners to the smallest, and shorten all
            new_label.scatter_reduce_(0, label[faces[:, corner]], face_label, "amin")
            new_label.scatter_reduce_(0, faces[:, corner], face_label, "amin")
        new_label = new_label[new_label]
        if torch.equal(new_label, label):
            return label
        label = new_label


def drop_small_components(vertices: Tensor, faces: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Drop the connected components whose area is less than `share` of the largest one's."""
    label = label_components(len(vertices), faces)[faces[:, 0].long()]
    face_area = _face_cross(vertices, faces).norm(dim=1)
    area = torch.zeros(len(vertices), dtype=torch.float64).index_add(0, label, face_area)
    return remove_unused_vertices(vertices, faces[(area >= share * area.amax())[label]])


def smooth(vertices: Tensor, faces: Tensor, rounds: int) -> Tensor:
    """Smooth with Taubin's filter (1995), which keeps the volume: (V, 3). Borders do not move."""
    a, b = find_edges(faces)[0].T
    count = torch.zeros(len(vertices)).index_add(0, torch.cat([a, b]), torch.ones(2 * len(a))).clamp(min=1)[:, None]
    interior = (~border_mask(len(vertices), faces))[:, None]
    for step in (0.5, -0.53) * rounds:
        total = torch.zeros_like(vertices).index_add(0, a, vertices[b]).index_add(0, b, vertices[a])
        vertices = torch.where(interior, vertices + step * (total / count - vertices), vertices)
    return vertices


def decimate(vertices: Tensor, faces: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Decimate to about `count` faces by quadric error (Garland and Heckbert 1997)."""
    import fast_simplification

    if len(faces) <= count:
        return vertices, faces
    middle = vertices.mean(0)
    points, triangles = fast_simplification.simplify((vertices - middle).numpy(), faces.numpy(), target_count=count)
    new_faces = torch.from_numpy(triangles).to(torch.int32)
    a, b, c = new_faces.unbind(1)
    new_faces = new_faces[(a != b) & (b != c) & (c != a)]
    return remove_unused_vertices(torch.from_numpy(points).to(vertices) + middle, new_faces)


def find_edges(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Find the edges (E, 2), smaller vertex first, and the number of faces at each (E,)."""
    corners = faces.long()
    sides = torch.cat([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]]).sort(1).values
    base = int(sides.amax()) + 1 if len(sides) else 1
    key, count = torch.unique(sides[:, 0] * base + sides[:, 1], return_counts=True)
    return torch.stack([key // base, key % base], 1), count


def border_mask(count: int, faces: Tensor) -> Tensor:
    """Mask the vertices, of `count`, on an edge that not exactly two faces share: (V,) bool."""
    edges, face_count = find_edges(faces)
    border = torch.zeros(count, dtype=torch.bool)
    border[edges[face_count != 2].flatten()] = True
    return border


def is_watertight(faces: Tensor) -> bool:
    """Whether exactly two faces share each edge and run along it in opposite directions."""
    corners = faces.long()
    sides = torch.cat([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    base = int(sides.amax()) + 1 if len(sides) else 1
    forward, backward = sides[:, 0] * base + sides[:, 1], sides[:, 1] * base + sides[:, 0]
    is_manifold = len(torch.unique(forward)) == len(forward)
    return bool(len(faces)) and is_manifold and torch.equal(forward.sort().values, backward.sort().values)


def compute_volume(vertices: Tensor, faces: Tensor) -> float:
    """Volume of a closed surface in cubic world units; negative if its faces point inwards."""
    a, b, c = (vertices - vertices.mean(0)).double()[faces.long()].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals (V, 3): the mean of the adjacent faces, weighted by area."""
    cross = _face_cross(vertices, faces).float()
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total = total.index_add(0, faces[:, corner].long(), cross)
    length = total.norm(dim=1, keepdim=True)
    return torch.where(length > 0, total / length.clamp(min=1e-30), total.new_tensor([0.0, 0.0, 1.0]))


def compute_area(vertices: Tensor, faces: Tensor) -> float:
    """Surface area in square world units."""
    return float(_face_cross(vertices, faces).norm(dim=1).sum() / 2)


def _face_cross(vertices: Tensor, faces: Tensor) -> Tensor:
    """Face normals (F, 3) float64 whose length is twice the area of the face."""
    a, b, c = vertices.double()[faces.long()].unbind(1)
    cross: Tensor = torch.linalg.cross(b - a, c - a)
    return cross
