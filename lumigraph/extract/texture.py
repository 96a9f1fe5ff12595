"""Textures for meshes: UV charts packed into one atlas, with the blended colour of the views at each texel.

Atlas pixels: u right, v down from the top row; texel (x, y) has its centre at (x + 0.5, y + 0.5).
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
from lumigraph.extract.depth_maps import DepthMaps
from lumigraph.extract.view_selection import Views
from lumigraph.kernels.colour_baking import bake_colours
from lumigraph.kernels.rasterize import rasterize
from lumigraph.scene.cameras import project
from lumigraph.scene.images import to_uint8

CHART_PADDING_PX = 2
TARGET_FILL = 0.6  # share of the atlas that the first packing aims for
MIN_CHARTS = 64  # the largest allowed chart covers 1/64 of the mesh, because time grows faster than chart size
MANY_CHARTS = 300  # above, the gaps between small charts limit the packing
MAX_REPACKS = 8
OUTLINE_MARGIN_PX = 2  # pixels this close to the outline of the object are not used
OPAQUE_ALPHA = 128  # of 255; pixels with less are outside the object
UNWRAPPED_FACES_PER_SECOND = 5000  # approximate, one core; for the estimate of the time left


@dataclass(frozen=True, eq=False)
class Atlas:
    """UV layout of a mesh. A vertex on a seam occurs once for each chart."""

    source_vertex: Tensor  # (V,) int64 index of the vertex in the mesh
    faces: Tensor  # (F, 3) int32
    uv: Tensor  # (V, 2) float32, pixels / side


def unwrap(vertices: Tensor, faces: Tensor, side: int) -> Atlas:
    """Unwrap a mesh into charts in one atlas of `side` x `side` pixels, with xatlas.

    xatlas packs for a texel density and not for an atlas size. The charts are computed once and packed again at a
    smaller density until they fit.
    """
    import xatlas

    points, corners = vertices.numpy(), faces.numpy().astype(np.uint32)
    area = max(mesh_operations.compute_area(vertices, faces), 1e-30)
    chart_options = xatlas.ChartOptions()
    chart_options.max_chart_area = area / MIN_CHARTS
    atlas = xatlas.Atlas()
    atlas.add_mesh(points, corners)
    atlas.generate(chart_options, _pack_options(xatlas, math.sqrt(TARGET_FILL * side * side / area)))
    source_vertex, triangles, uv = atlas[0]
    power = 1.6 if atlas.chart_count > MANY_CHARTS else 1.0  # the gaps between many small charts stay as wide
    for _ in range(MAX_REPACKS):
        width, height = atlas.width, atlas.height
        if max(width, height) <= side:
            break
        repacked_atlas = xatlas.Atlas()
        repacked_atlas.add_uv_mesh(uv * np.array([width, height], np.float32), triangles)
        density = min(0.97, 0.99 * side / max(width, height)) ** power
        repacked_atlas.generate(xatlas.ChartOptions(), _pack_options(xatlas, density))
        atlas = repacked_atlas
        previous_vertex, triangles, uv = atlas[0]
        source_vertex = source_vertex[previous_vertex]
    pixels = uv * np.array([atlas.width, atlas.height], np.float32)
    pixels *= min(1.0, side / max(atlas.width, atlas.height))  # tiny charts stop shrinking because of their padding
    return Atlas(
        torch.from_numpy(source_vertex.astype(np.int64)),
        torch.from_numpy(triangles.astype(np.int32)),
        torch.from_numpy(pixels / side).float(),
    )


def _pack_options(xatlas: Any, texels_per_unit: float) -> Any:
    options = xatlas.PackOptions()
    options.resolution, options.texels_per_unit = 0, texels_per_unit
    options.padding, options.bilinear, options.create_image = CHART_PADDING_PX, True, False
    return options


@dataclass(frozen=True, eq=False)
class Painter:
    """Colours of a mesh, blended from all views that show it."""

    vertices: Tensor  # (V, 3)
    faces: Tensor  # (F, 3) int32
    normals: Tensor  # (V, 3)
    maps: DepthMaps
    mesh_depth: Tensor  # (N, H, W) depth of the mesh in each view
    confidence: Tensor  # (N, H, W) float32, 0 where the pixel does not show the mesh
    tolerance: float  # world units

    def blend(self, xyz: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """Blend the views at surface points (P, 3): colours (P, 3) of 0..1, and a mask (P,) of visible points."""
        images = (self.maps.rgb, self.mesh_depth, self.confidence, self.maps.views.rows())
        rgb, weight = bake_colours(*images, xyz, normals, self.tolerance)
        return rgb, weight > 0

    def vertex_colours(self) -> Tensor:
        """Colours (V, 3) of 0..1 of the vertices; hidden ones continue the colour of their neighbours."""
        return fill_hidden(*self.blend(self.vertices, self.normals), self.faces)


def make_painter(vertices: Tensor, faces: Tensor, normals: Tensor, maps: DepthMaps, tolerance: float) -> Painter:
    """Prepare the visibility of a mesh in all views.

    Args:
        vertices: (V, 3) world units
        faces: (F, 3) int32
        normals: (V, 3) unit
        maps: depth maps of the field
        tolerance: distance between mesh and field, in world units
    """
    mesh_depth, confidence = _compute_visibility(vertices, faces, maps, tolerance)
    return Painter(vertices, faces, normals, maps, mesh_depth, confidence, tolerance)


def paint(painter: Painter, atlas: Atlas, side: int, vertex_colours: Tensor) -> Tensor:
    """Paint the texture (side, side, 3) uint8. Hidden texels interpolate `vertex_colours` (V, 3)."""
    corners = torch.cat([atlas.uv * side, torch.ones(len(atlas.uv), 1)], 1)
    atlas_raster = rasterize(corners, atlas.faces, (side, side))
    assert atlas_raster.weights is not None
    covered_mask = atlas_raster.face >= 0
    texel_vertices = atlas.source_vertex[
        atlas.faces[atlas_raster.face[covered_mask].long()].long()
    ]  # (T, 3) of its face
    barycentric = atlas_raster.weights[covered_mask][..., None]
    xyz, normals = ((x[texel_vertices] * barycentric).sum(1) for x in (painter.vertices, painter.normals))
    texels, visible = painter.blend(xyz, normalize(normals, dim=1))
    texels[~visible] = (vertex_colours[texel_vertices[~visible]] * barycentric[~visible]).sum(1)
    texture = torch.zeros(side, side, 3, dtype=torch.uint8)
    texture[covered_mask] = to_uint8(texels)
    return fill_gaps(texture, covered_mask)


def _compute_visibility(vertices: Tensor, faces: Tensor, maps: DepthMaps, tolerance: float) -> tuple[Tensor, Tensor]:
    """Depth of the mesh (N, H, W) in each view, and the confidence (N, H, W) that the pixel shows the mesh.

    The confidence is 0 near the outline, and where the field has another surface in front.
    """
    mesh_depth = torch.stack([render_mesh_depth(vertices, faces, maps.views, i) for i in range(len(maps.views))])
    outside = ((maps.alpha < OPAQUE_ALPHA) | ~maps.views.valid_mask()).to(torch.float32)
    outside = max_pool2d(outside[:, None], 2 * OUTLINE_MARGIN_PX + 1, 1, OUTLINE_MARGIN_PX)[:, 0] > 0
    footprint = maps.views.pixel_footprint(torch.where(mesh_depth < torch.inf, mesh_depth, 0.0))
    occlusion = maps.surface & ((maps.depth - mesh_depth).abs() > 2 * tolerance + 3 * footprint)
    return mesh_depth, torch.where(outside | occlusion, 0.0, (maps.alpha / 255.0).square())


def render_mesh_depth(vertices: Tensor, faces: Tensor, views: Views, i: int) -> Tensor:
    """Render the depth (H, W) of a mesh in view `i`; infinite in the background."""
    pixels, depths = project(views.cameras[i], vertices)
    corners = torch.cat([pixels.nan_to_num(0.0), torch.where(pixels[..., 0].isnan(), 0.0, depths)[..., None]], -1)
    return rasterize(corners[0], faces, views.size, weights=False).depth


def fill_hidden(values: Tensor, known_mask: Tensor, faces: Tensor) -> Tensor:
    """Fill unknown values by the mean of their neighbours, from the border of the known ones outwards.

    Args:
        values: (V, C) one row a vertex
        known_mask: (V,) bool
        faces: (F, 3) integers

    Returns:
        (V, C)
    """
    a, b = mesh_operations.find_edges(faces)[0].T
    values, known_mask = torch.where(known_mask[:, None], values, 0.0), known_mask.clone()
    while not known_mask.all():
        mask = known_mask.to(values)[:, None]
        total = torch.zeros_like(values).index_add(0, a, (values * mask)[b]).index_add(0, b, (values * mask)[a])
        count = torch.zeros_like(mask).index_add(0, a, mask[b]).index_add(0, b, mask[a])
        frontier = ~known_mask & (count[:, 0] > 0)
        if not frontier.any():  # components that no view shows at all
            values[~known_mask] = values[known_mask].mean(0) if known_mask.any() else 0.5
            break
        values = torch.where(frontier[:, None], total / count.clamp(min=1), values)
        known_mask |= frontier
    return values


def fill_gaps(texture: Tensor, covered_mask: Tensor) -> Tensor:
    """Fill the empty texels with the nearest covered one, so that no seam shows at any filter width."""
    if not covered_mask.any():
        return texture
    _, label = cv2.distanceTransformWithLabels(
        (~covered_mask).to(torch.uint8).numpy(), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = torch.from_numpy(label).long()
    label_colour = torch.zeros(int(labels.max()) + 1, 3, dtype=torch.uint8)
    label_colour[labels[covered_mask]] = texture[covered_mask]
    return label_colour[labels]
