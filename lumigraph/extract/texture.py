"""A picture for a mesh: charts on a page, and for each texel what the views show of its point.

Pixels of the page: u right, v down from the top row; texel (x, y) has its centre at (x + 0.5, y + 0.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, normalize

from lumigraph.extract import mesh_operations
from lumigraph.extract.depth_maps import Maps
from lumigraph.extract.view_selection import Views
from lumigraph.kernels import colour_baking
from lumigraph.kernels.rasterize import rasterize
from lumigraph.scene.cameras import project
from lumigraph.scene.images import to_uint8

PADDING = 2  # texels around each chart
FILL = 0.6  # share of the page that charts are first sized for
LARGEST = 64  # charts that would cover the mesh if all were as large as they may be: time grows faster than charts
MANY = 300  # charts
REPACKED = 8  # times at most that charts are packed again
MARGIN = 2  # pixels from the outline of the object that are not looked at
SOLID = 128  # alpha, of 255, of pixels that are not outside the object
FACES_PER_SECOND = 5000  # that are unwrapped, about, on one core: to say how long it may take


@dataclass(frozen=True, eq=False)
class Page:
    """A mesh whose vertices on the seams of charts are there once for each side."""

    origin: Tensor  # (V,) int64: which vertex of the mesh each was
    faces: Tensor  # (F, 3) int32
    uv: Tensor  # (V, 2) float32, pixels / side


def unwrap(vertices: Tensor, faces: Tensor, side: int) -> Page:
    """Charts on one page of `side` x `side` pixels, by xatlas.

    It fits charts to a scale rather than to a page: the charts found once are packed smaller until they fit."""
    import xatlas

    points, corners = vertices.numpy(), faces.numpy().astype(np.uint32)
    area = max(mesh_operations.area(vertices, faces), 1e-30)
    charts = xatlas.ChartOptions()
    charts.max_chart_area = area / LARGEST
    atlas = xatlas.Atlas()
    atlas.add_mesh(points, corners)
    atlas.generate(charts, _packing(xatlas, math.sqrt(FILL * side * side / area)))
    origin, triangles, uv = atlas[0]
    power = 1.6 if atlas.chart_count > MANY else 1.0  # the gaps between many small charts stay as wide
    for _ in range(REPACKED):
        width, height = atlas.width, atlas.height
        if max(width, height) <= side:
            break
        smaller = xatlas.Atlas()
        smaller.add_uv_mesh(uv * np.array([width, height], np.float32), triangles)
        smaller.generate(xatlas.ChartOptions(), _packing(xatlas, min(0.97, 0.99 * side / max(width, height)) ** power))
        atlas = smaller
        again, triangles, uv = atlas[0]
        origin = origin[again]
    pixels = uv * np.array([atlas.width, atlas.height], np.float32)
    pixels *= min(1.0, side / max(atlas.width, atlas.height))  # very small charts do not get smaller: their gaps do
    placed = torch.from_numpy(pixels / side).float()
    return Page(torch.from_numpy(origin.astype(np.int64)), torch.from_numpy(triangles.astype(np.int32)), placed)


def _packing(xatlas: Any, scale: float) -> Any:
    options = xatlas.PackOptions()
    options.resolution, options.texels_per_unit = 0, scale
    options.padding, options.bilinear, options.create_image = PADDING, True, False
    return options


@dataclass(frozen=True, eq=False)
class Painter:
    """What the views show of a mesh: of its vertices, and of any points on it."""

    vertices: Tensor  # (V, 3)
    faces: Tensor  # (F, 3) int32
    normals: Tensor  # (V, 3)
    maps: Maps
    own: Tensor  # (N, H, W) depth of the mesh in each view
    trust: Tensor  # (N, H, W) float32, 0 where the colour is not that of the mesh
    tolerance: float  # world units

    def colours(self, xyz: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """Points on the surface (P, 3) -> (P, 3) of 0..1, (P,) bool whether any view shows them."""
        given = (self.maps.rgb, self.own, self.trust, self.maps.views.rows())
        rgb, weight = colour_baking.bake_colours(*given, xyz, normals, self.tolerance)
        return rgb, weight > 0

    def of_vertices(self) -> Tensor:
        """(V, 3) of 0..1; what no view shows goes on from what is beside it."""
        return spread(*self.colours(self.vertices, self.normals), self.faces)


def painter(vertices: Tensor, faces: Tensor, normals: Tensor, maps: Maps, tolerance: float) -> Painter:
    own, trust = _shown(vertices, faces, maps, tolerance)
    return Painter(vertices, faces, normals, maps, own, trust, tolerance)


def paint(painter: Painter, page: Page, side: int, of_vertices: Tensor) -> Tensor:
    """The texture (side, side, 3) uint8. What no view shows has the colours (V, 3) of the vertices around it."""
    corners = torch.cat([page.uv * side, torch.ones(len(page.uv), 1)], 1)
    drawn = rasterize(corners, page.faces, (side, side))
    assert drawn.weights is not None
    inked = drawn.face >= 0
    which = page.origin[page.faces[drawn.face[inked].long()].long()]  # (T, 3) corners of each texel's face
    shares = drawn.weights[inked][..., None]
    xyz, normals = ((x[which] * shares).sum(1) for x in (painter.vertices, painter.normals))
    texels, seen = painter.colours(xyz, normalize(normals, dim=1))
    texels[~seen] = (of_vertices[which[~seen]] * shares[~seen]).sum(1)
    texture = torch.zeros(side, side, 3, dtype=torch.uint8)
    texture[inked] = to_uint8(texels)
    return dilated(texture, inked)


def _shown(vertices: Tensor, faces: Tensor, maps: Maps, tolerance: float) -> tuple[Tensor, Tensor]:
    """(N, H, W) depth of the mesh in each view; (N, H, W) how far the colour there is that of the mesh: not at the
    outline, not where the field shows something else before it."""
    own = torch.stack([drawn(vertices, faces, maps.views, i) for i in range(len(maps.views))])
    clear = ((maps.alpha < SOLID) | ~maps.views.theirs()).to(torch.float32)
    clear = max_pool2d(clear[:, None], 2 * MARGIN + 1, 1, MARGIN)[:, 0] > 0
    within = 2 * tolerance + 3 * maps.views.pixel(torch.where(own < torch.inf, own, 0.0))
    other = maps.surface & ((maps.depth - own).abs() > within)
    return own, torch.where(clear | other, 0.0, (maps.alpha / 255.0).square())


def drawn(vertices: Tensor, faces: Tensor, views: Views, i: int) -> Tensor:
    """(H, W) depth of the mesh in view `i`, infinite where there is none."""
    pixels, depths = project(views.cameras[i], vertices)
    corners = torch.cat([pixels.nan_to_num(0.0), torch.where(pixels[..., 0].isnan(), 0.0, depths)[..., None]], -1)
    return rasterize(corners[0], faces, views.size, weights=False).depth


def spread(values: Tensor, known: Tensor, faces: Tensor) -> Tensor:
    """(V, C): what is not known becomes the mean of its neighbours on the surface, again and again outwards."""
    a, b = mesh_operations.edges(faces)[0].T
    values, known = torch.where(known[:, None], values, 0.0), known.clone()
    while not known.all():
        have = known.to(values)[:, None]
        total = torch.zeros_like(values).index_add(0, a, (values * have)[b]).index_add(0, b, (values * have)[a])
        count = torch.zeros_like(have).index_add(0, a, have[b]).index_add(0, b, have[a])
        new = ~known & (count[:, 0] > 0)
        if not new.any():  # parts that no view shows at all
            values[~known] = values[known].mean(0) if known.any() else 0.5
            break
        values = torch.where(new[:, None], total / count.clamp(min=1), values)
        known |= new
    return values


def dilated(texture: Tensor, inked: Tensor) -> Tensor:
    """The texture with the empty texels as the nearest inked one: no seam shows, however far it is filtered."""
    if not inked.any():
        return texture
    _, label = cv2.distanceTransformWithLabels(
        (~inked).to(torch.uint8).numpy(), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = torch.from_numpy(label).long()
    colour = torch.zeros(int(labels.max()) + 1, 3, dtype=torch.uint8)
    colour[labels[inked]] = texture[inked]
    return colour[labels]
