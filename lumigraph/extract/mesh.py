"""Extract a textured mesh from a field: depth maps, TSDF fusion, marching cubes, decimation, UV atlas, texture."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from lumigraph.extract import mesh_operations, texture
from lumigraph.extract.depth_maps import DepthMaps, compute_bounds, drop_inconsistent, find_core, render_depth_maps
from lumigraph.extract.texture import render_mesh_depth
from lumigraph.extract.view_selection import farthest_cameras, select_views
from lumigraph.kernels import marching_cubes, tsdf
from lumigraph.scene.assets import Mesh
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds, Field
from lumigraph.scene.images import to_uint8
from lumigraph.wire.events import Event, Note, Progress

TRUNCATION_VOXELS = 4.0
MAX_SUPERSAMPLING = 2  # samples along each side of a pixel, for small renders
ISO_LEVELS = (0.0, 0.1, 0.2, 0.3)  # of signed distance / truncation; candidates for the surface
MIN_AGREEMENT_GAIN = 0.003  # share of the pixels that a higher iso level must gain
AGREEMENT_VIEWS = 12  # views that measure the agreement
FUSED_SAMPLES_PER_SECOND = 500_000  # views times voxels of a face of the volume; approximate, two cores
DECIMATED_FACES_PER_SECOND = 500_000  # approximate
MANY_TEXTURED_FACES = 100_000  # above, a texture is slow and consists mostly of gaps
BORDER_VOXELS = 3  # around the visible surface
MIN_CARVING_VIEWS = 3  # views that must see through a voxel to empty it


@dataclass(frozen=True)
class MeshConfig:
    """Settings of a mesh.

    resolution: voxels along the longest side of the visible surface
    faces: maximum number of triangles; 0 keeps all triangles of marching cubes
    texture: pixels along a side of the texture; 0 stores a colour for each vertex instead
    unseen: space that no camera saw is open (leaves holes; for rooms) or inside (closes objects)
    watertight: close the surface, and decimate less if decimation would tear it
    smooth: rounds of volume-preserving smoothing
    part: drop components smaller than this share of the largest one's area; for rooms, its square
    views: cameras that the field is rendered from, chosen to be far apart
    size: pixels of the longer side of these renders
    """

    resolution: Annotated[int, Bounds(16, 1024)] = 256
    faces: Annotated[int, Bounds(0, 10_000_000)] = 30_000
    texture: Annotated[int, Bounds(0, 8192)] = 1024
    unseen: Literal["open", "inside"] = "open"
    watertight: bool = False
    smooth: Annotated[int, Bounds(0, 50)] = 3
    part: Annotated[float, Bounds(0, 1)] = 0.02
    views: Annotated[int, Bounds(1, 200)] = 60
    size: Annotated[int, Bounds(64, 2048)] = 512


def extract_mesh(field: Field, cameras: Cameras, config: MeshConfig = MeshConfig()) -> Generator[Event, None, Mesh]:
    """Extract a mesh of the surfaces of `field` that `cameras`, those of the photos, see.

    Raises FormatError if they see no surface.
    """
    views = select_views(cameras, config.views, config.size)
    samples_per_side = min(MAX_SUPERSAMPLING, max(1, config.size // max(views.size)))
    maps = yield from render_depth_maps(field, views, samples_per_side)
    is_closed = config.watertight or config.unseen == "inside"
    maps, pieces, voxel = yield from _extract_pieces(maps, config, is_closed)
    final_pieces, densities = [], []
    for vertices, faces, share in pieces:
        vertices = mesh_operations.smooth(vertices, faces, config.smooth)
        if config.faces:
            count = max(4, round(share * config.faces)) if len(pieces) > 1 else config.faces
            vertices, faces = yield from _decimate(vertices, faces, count, config.watertight)
        final_pieces.append((vertices, faces))
        densities.append(math.sqrt(share / max(mesh_operations.compute_area(vertices, faces), 1e-30)))
    vertices, faces = mesh_operations.concatenate(final_pieces)
    density = torch.cat(
        [
            torch.full((len(piece_vertices), 1), piece_density / densities[-1])
            for (piece_vertices, _), piece_density in zip(final_pieces, densities, strict=True)
        ]
    )
    if config.watertight and not mesh_operations.is_watertight(faces):
        raise FormatError("this field gave no watertight surface; try another resolution")
    return (yield from _add_colours(vertices, faces, density, maps, config.texture, 2 * voxel))


Piece = tuple[Tensor, Tensor, float]  # vertices, faces, and the share of the pixels that they fill
Extraction = tuple[DepthMaps, list[Piece], float]  # consistent depth maps, pieces, and the smallest voxel


def _extract_pieces(maps: DepthMaps, config: MeshConfig, is_closed: bool) -> Generator[Event, None, Extraction]:
    """Drop inconsistent depth and extract the surface, in one piece or two.

    Voxels that divide a whole room would swallow the objects that the cameras focus on. The core gets a volume of its
    own at the same resolution, and replaces this part of the outer surface. The two overlap by at most a triangle.
    """
    box = compute_bounds(maps)
    core = None if is_closed else find_core(maps, box, config.resolution)
    total = 1 if core is None else 2
    seconds = len(maps.views) * config.resolution**2 / FUSED_SAMPLES_PER_SECOND
    yield Progress(stage="fuse", done=0, total=total, seconds_left=seconds * total)
    # Every surface pixel weighs the same here: a lower weight for slanted pixels and edges erodes outlines.
    maps = replace(maps, weight=(maps.weight > 0).float())
    voxel_grid, start = make_voxel_grid(box, config.resolution), time.monotonic()
    consistent_maps = drop_inconsistent(maps, 2 * voxel_grid.voxel_size)
    vertices, faces = extract_surface(consistent_maps, voxel_grid, is_closed)
    core_surface = None
    if core is not None:
        yield Progress(stage="fuse", done=1, total=total, seconds_left=time.monotonic() - start)
        core_surface = _extract_core(maps, core[0], config.resolution)
    if core is None or core_surface is None:
        vertices, faces = mesh_operations.drop_small_components(vertices, faces, config.part)
        yield Progress(stage="fuse", done=total, total=total)
        return consistent_maps, [(vertices, faces, 1.0)], voxel_grid.voxel_size
    # The surface of a room seen from inside has many components even where it is intact, so the threshold is on width
    # (the square of the share), not on area.
    bounds, share = core
    inside = ((vertices > bounds[0]) & (vertices < bounds[1])).all(1)
    outer = mesh_operations.remove_unused_vertices(vertices, faces[~inside[faces.long()].all(1)])
    if len(outer[1]):
        outer = mesh_operations.drop_small_components(*outer, config.part**2)
    consistent_maps, inner, voxel = core_surface
    inner = mesh_operations.drop_small_components(*inner, config.part**2)
    yield Progress(stage="fuse", done=2, total=2)
    pieces = [(*outer, 1 - share)] if len(outer[1]) else []
    return consistent_maps, [*pieces, (*inner, share)], voxel


def _extract_core(
    maps: DepthMaps, bounds: Tensor, resolution: int
) -> tuple[DepthMaps, tuple[Tensor, Tensor], float] | None:
    """Extract the core alone: its depth maps, its surface and its voxel size. None if it has no surface."""
    voxel_grid = make_voxel_grid(bounds, resolution)
    consistent_maps = drop_inconsistent(maps, 2 * voxel_grid.voxel_size)
    try:
        return consistent_maps, extract_surface(consistent_maps, voxel_grid, is_closed=False), voxel_grid.voxel_size
    except FormatError:
        return None


def make_voxel_grid(box: Tensor, resolution: int) -> tsdf.VoxelGrid:
    """Make a voxel grid around `box` (2, 3), with `resolution` voxels along its longest side and a small border."""
    low, high = box.double()
    voxel = max(float((high - low).amax()) / resolution, 1e-12)
    blocks = [math.ceil((float(side) / voxel + 2 * BORDER_VOXELS + 1) / tsdf.BLOCK_SIDE) for side in high - low]
    origin = (low + high) / 2 - voxel / 2 * (torch.tensor(blocks, dtype=torch.float64) * tsdf.BLOCK_SIDE - 1)
    x, y, z = origin.tolist()
    return tsdf.VoxelGrid((x, y, z), voxel, (blocks[0], blocks[1], blocks[2]))


def extract_surface(maps: DepthMaps, voxel_grid: tsdf.VoxelGrid, is_closed: bool) -> tuple[Tensor, Tensor]:
    """Extract the iso surface that agrees best with the depth maps: vertices (V, 3) in the world, faces (F, 3).

    The depth of gaussians is that of their centres, while their outlines extend further. The zero level would erode
    outlines and everything thin. The level rises as long as the agreement with the views improves. Raises FormatError
    if there is no surface.
    """
    volume = tsdf.fuse(
        maps.depth,
        maps.weight,
        maps.views.rows(),
        voxel_grid,
        truncation=TRUNCATION_VOXELS * voxel_grid.voxel_size,
        min_weight=1e-3,
        carving_views=min(MIN_CARVING_VIEWS, len(maps.views)),
        unseen_is_inside=is_closed,
    )
    best, best_agreement = None, -math.inf
    for level in ISO_LEVELS:
        level_volume = replace(volume, values=volume.values - level)
        vertices, faces = marching_cubes.march_cubes(level_volume, 1.0 if is_closed else math.nan)
        if not len(faces):
            break
        vertices = vertices * voxel_grid.voxel_size + torch.tensor(voxel_grid.origin)
        vertices, faces = mesh_operations.remove_unused_vertices(vertices, faces)
        agreement = _measure_agreement(vertices, faces, maps, TRUNCATION_VOXELS * voxel_grid.voxel_size)
        if best is not None and agreement < best_agreement + MIN_AGREEMENT_GAIN:
            break
        best, best_agreement = (vertices, faces), agreement
    if best is None:
        raise FormatError("the views of this field do not form a surface; train it longer")
    return best


def _measure_agreement(vertices: Tensor, faces: Tensor, maps: DepthMaps, tolerance: float) -> float:
    """Share of the surface pixels where the mesh is within `tolerance`, less the empty pixels that it covers."""
    agreeing = total = 0
    for i in farthest_cameras(maps.views.cameras, AGREEMENT_VIEWS).tolist():
        depth, mesh_depth = maps.depth[i], render_mesh_depth(vertices, faces, maps.views, i)
        solid, empty = (depth > 0) & (depth < torch.inf), depth == torch.inf
        agreeing += int((solid & ((mesh_depth - depth).abs() < tolerance)).sum())
        agreeing -= int((empty & (mesh_depth < torch.inf)).sum())
        total += int(solid.sum())
    return agreeing / max(1, total)


def _decimate(
    vertices: Tensor, faces: Tensor, count: int, is_closed: bool
) -> Generator[Event, None, tuple[Tensor, Tensor]]:
    """Decimate to about `count` faces; a surface that must stay closed keeps as many as it needs."""
    yield Progress(stage="simplify", done=0, total=1, seconds_left=len(faces) / DECIMATED_FACES_PER_SECOND)
    target, result = count, mesh_operations.decimate(vertices, faces, count)
    while is_closed and not mesh_operations.is_watertight(result[1]) and target < len(faces):
        target *= 2
        result = mesh_operations.decimate(vertices, faces, target)
    if target != count:
        yield Note(text=f"{count} triangles would tear the surface; it has {len(result[1])}")
    yield Progress(stage="simplify", done=1, total=1)
    return result


def _add_colours(
    vertices: Tensor, faces: Tensor, density: Tensor, maps: DepthMaps, side: int, tolerance: float
) -> Generator[Event, None, Mesh]:
    """Add a texture, or vertex colours if `side` is 0.

    Args:
        vertices: (V, 3) world units
        faces: (F, 3) int32
        density: (V, 1) relative texels a world unit; pieces get texels in proportion to their pixels
        maps: depth maps of the field
        side: pixels along a side of the texture
        tolerance: distance between mesh and field, in world units
    """
    normals = mesh_operations.vertex_normals(vertices, faces)
    seconds = len(faces) / texture.UNWRAPPED_FACES_PER_SECOND if side else 0.0
    if side and len(faces) > MANY_TEXTURED_FACES:
        yield Note(
            text=f"a texture for {len(faces)} triangles takes about {seconds:.0f} s and is mostly gaps between charts; "
            f"--faces {MANY_TEXTURED_FACES} gives a sharper texture, --texture 0 gives vertex colours"
        )
    yield Progress(stage="paint", done=0, total=3, seconds_left=seconds)
    painter = texture.make_painter(vertices, faces, normals, maps, tolerance)
    colours = painter.vertex_colours()
    if not side:
        return Mesh(vertices, faces, normals, rgb=to_uint8(colours))
    yield Progress(stage="paint", done=1, total=3, seconds_left=seconds)
    atlas = texture.unwrap(vertices * density, faces, side)
    yield Progress(stage="paint", done=2, total=3)
    image = texture.paint(painter, atlas, side, colours)
    yield Progress(stage="paint", done=3, total=3)
    index = atlas.source_vertex
    return Mesh(vertices[index], atlas.faces, normals[index], atlas.uv, to_uint8(colours)[index], image)
