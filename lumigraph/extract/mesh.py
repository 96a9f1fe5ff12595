"""A field -> a mesh with a texture: depth maps, signed distances, marching cubes, fewer faces, charts, colours."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from lumigraph.extract import mesh_operations, texture
from lumigraph.extract.depth_maps import Maps, agreed, box_of, core_of, look
from lumigraph.extract.texture import drawn
from lumigraph.extract.view_selection import choose, spread
from lumigraph.kernels import marching_cubes, tsdf
from lumigraph.scene.assets import Mesh
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds, Field
from lumigraph.scene.images import to_uint8
from lumigraph.wire.events import Event, Note, Progress

TRUNCATION = 4.0  # voxels
FINEST = 2  # places along each side of a pixel at which small pictures are looked at
LEVELS = (0.0, 0.1, 0.2, 0.3)  # of the signed distance / truncation, at which the surface may lie
GAIN = 0.003  # share of the pixels that must agree better before it is moved
FUSED_PER_SECOND = 500_000  # views times voxels of a face of the volume, about, on two cores
SIMPLIFIED_PER_SECOND = 500_000  # triangles, about
MANY = 100_000  # triangles, above which a texture is slow and mostly gaps
COMPARED = 12  # views that decide it
BORDER = 3  # voxels around what is seen
CARVED = 3  # views that must see nothing through a voxel to empty it


@dataclass(frozen=True)
class MeshConfig:
    """Settings of a mesh.

    resolution: voxels along the longest side of what is seen
    faces: triangles at most; 0 keeps all that marching cubes makes
    texture: pixels a side of the texture; 0 gives vertices a colour instead
    unseen: what no camera saw is open, which leaves holes and suits rooms, or inside, which closes objects
    watertight: close the surface whatever was seen, and give up fewer faces rather than tear it
    smooth: rounds of smoothing, which keep the volume
    part: parts smaller than this share of the largest are dropped; of rooms seen from within, than its square
    views: cameras that the field is looked at from, chosen to be far apart
    size: pixels of the longer side of what they see
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


def mesh(field: Field, cameras: Cameras, config: MeshConfig = MeshConfig()) -> Generator[Event, None, Mesh]:
    """What `cameras`, those of the photos, see of `field`. Raises FormatError where they see no surface."""
    views = choose(cameras, config.views, config.size)
    maps = yield from look(field, views, min(FINEST, max(1, config.size // max(views.size))))
    closed = config.watertight or config.unseen == "inside"
    maps, pieces, voxel = yield from _pieces(maps, config, closed)
    found, densities = [], []
    for vertices, faces, share in pieces:
        vertices = mesh_operations.smooth(vertices, faces, config.smooth)
        if config.faces:
            count = max(4, round(share * config.faces)) if len(pieces) > 1 else config.faces
            vertices, faces = yield from _simplified(vertices, faces, count, config.watertight)
        found.append((vertices, faces))
        densities.append(math.sqrt(share / max(mesh_operations.area(vertices, faces), 1e-30)))
    vertices, faces = mesh_operations.together(found)
    density = torch.cat(
        [torch.full((len(v), 1), d / densities[-1]) for (v, _), d in zip(found, densities, strict=True)]
    )
    if config.watertight and not mesh_operations.watertight(faces):
        raise FormatError("no watertight surface came of this field; try another resolution")
    return (yield from _coloured(vertices, faces, density, maps, config.texture, 2 * voxel))


Piece = tuple[Tensor, Tensor, float]  # vertices, faces, and the share of the pixels that they fill


def _pieces(maps: Maps, config: MeshConfig, closed: bool) -> Generator[Event, None, tuple[Maps, list[Piece], float]]:
    """The maps without what other views see through, the surface in them, and its smallest voxel.

    Where cameras look at a part of a room, voxels that divide the room would swallow what stands there: the part gets
    as many of its own, and what the room's voxels made of it goes. The two overlap by a triangle at most."""
    box = box_of(maps)
    core = None if closed else core_of(maps, box, config.resolution)
    total = 1 if core is None else 2
    seconds = len(maps.views) * config.resolution**2 / FUSED_PER_SECOND
    yield Progress(stage="fuse", done=0, total=total, seconds_left=seconds * total)
    # Slanted and next to an edge a pixel says as much here as any other: who counts it less wears outlines away.
    maps = replace(maps, weight=(maps.weight > 0).float())
    lattice, began = lattice_of(box, config.resolution), time.monotonic()
    known = agreed(maps, 2 * lattice.voxel_size)
    vertices, faces = surface(known, lattice, closed)
    near = None
    if core is not None:
        yield Progress(stage="fuse", done=1, total=total, seconds_left=time.monotonic() - began)
        near = _near(maps, core[0], config.resolution)
    if core is None or near is None:
        vertices, faces = mesh_operations.larger_parts(vertices, faces, config.part)
        yield Progress(stage="fuse", done=total, total=total)
        return known, [(vertices, faces, 1.0)], lattice.voxel_size
    # Of a room seen from within even what is whole comes in many parts: they are judged by their width, not their area.
    bounds, share = core
    within = ((vertices > bounds[0]) & (vertices < bounds[1])).all(1)
    vertices, faces = mesh_operations.compact(vertices, faces[~within[faces.long()].all(1)])
    outer = mesh_operations.larger_parts(vertices, faces, config.part**2) if len(faces) else (vertices, faces)
    known, found, voxel = near
    inner = mesh_operations.larger_parts(*found, config.part**2)
    yield Progress(stage="fuse", done=2, total=2)
    pieces = [(*outer, 1 - share)] if len(outer[1]) else []
    return known, [*pieces, (*inner, share)], voxel


def _near(maps: Maps, bounds: Tensor, resolution: int) -> tuple[Maps, tuple[Tensor, Tensor], float] | None:
    """The maps, surface and voxel of a part alone; None where it holds no surface."""
    lattice = lattice_of(bounds, resolution)
    known = agreed(maps, 2 * lattice.voxel_size)
    try:
        return known, surface(known, lattice, closed=False), lattice.voxel_size
    except FormatError:
        return None


def lattice_of(box: Tensor, resolution: int) -> tsdf.VoxelGrid:
    """Voxels in and a little around `box` (2, 3), `resolution` along its longest side."""
    low, high = box.double()
    voxel = max(float((high - low).amax()) / resolution, 1e-12)
    blocks = [math.ceil((float(side) / voxel + 2 * BORDER + 1) / tsdf.BLOCK_SIDE) for side in high - low]
    origin = (low + high) / 2 - voxel / 2 * (torch.tensor(blocks, dtype=torch.float64) * tsdf.BLOCK_SIDE - 1)
    x, y, z = origin.tolist()
    return tsdf.VoxelGrid((x, y, z), voxel, (blocks[0], blocks[1], blocks[2]))


def surface(maps: Maps, lattice: tsdf.VoxelGrid, closed: bool) -> tuple[Tensor, Tensor]:
    """vertices (V, 3) in the world, faces (F, 3): of the level that looks most like the field. Raises FormatError where
    there is no surface.

    The depth of gaussians is that of their middles, their outlines lie farther out: what is thin, and all outlines,
    would be worn away by that. The surface moves outwards by steps as long as the views agree better with it.
    """
    volume = tsdf.fuse(
        maps.depth,
        maps.weight,
        maps.views.rows(),
        lattice,
        truncation=TRUNCATION * lattice.voxel_size,
        min_weight=1e-3,
        carving_views=min(CARVED, len(maps.views)),
        unseen_is_inside=closed,
    )
    best, likeness = None, -math.inf
    for level in LEVELS:
        raised = replace(volume, values=volume.values - level)
        vertices, faces = marching_cubes.march_cubes(raised, 1.0 if closed else math.nan)
        if not len(faces):
            break
        vertices, faces = mesh_operations.compact(vertices * lattice.voxel_size + torch.tensor(lattice.origin), faces)
        found = _likeness(vertices, faces, maps, TRUNCATION * lattice.voxel_size)
        if best is not None and found < likeness + GAIN:
            break
        best, likeness = (vertices, faces), found
    if best is None:
        raise FormatError("what the cameras see of this field does not make a surface; train it longer")
    return best


def _likeness(vertices: Tensor, faces: Tensor, maps: Maps, tolerance: float) -> float:
    """The share of pixels, in a few views, in which the mesh is where the field is, or neither is."""
    same = total = 0
    for i in spread(maps.views.cameras, COMPARED).tolist():
        depth, own = maps.depth[i], drawn(vertices, faces, maps.views, i)
        solid, clear = (depth > 0) & (depth < torch.inf), depth == torch.inf
        same += int((solid & ((own - depth).abs() < tolerance)).sum()) - int((clear & (own < torch.inf)).sum())
        total += int(solid.sum())
    return same / max(1, total)


def _simplified(
    vertices: Tensor, faces: Tensor, count: int, closed: bool
) -> Generator[Event, None, tuple[Tensor, Tensor]]:
    """About `count` faces; where the surface must stay closed and tears, as few as do not tear it."""
    yield Progress(stage="simplify", done=0, total=1, seconds_left=len(faces) / SIMPLIFIED_PER_SECOND)
    wanted, found = count, mesh_operations.fewer(vertices, faces, count)
    while closed and not mesh_operations.watertight(found[1]) and wanted < len(faces):
        wanted *= 2
        found = mesh_operations.fewer(vertices, faces, wanted)
    if wanted != count:
        yield Note(text=f"with {count} triangles the surface would have torn; it has {len(found[1])}")
    yield Progress(stage="simplify", done=1, total=1)
    return found


def _coloured(
    vertices: Tensor, faces: Tensor, density: Tensor, maps: Maps, side: int, tolerance: float
) -> Generator[Event, None, Mesh]:
    """`density` (V, 1): texels along a world unit, relative to each other: pieces have them as they fill pixels."""
    normals = mesh_operations.normals(vertices, faces)
    seconds = len(faces) / texture.FACES_PER_SECOND if side else 0.0
    if side and len(faces) > MANY:
        yield Note(
            text=f"a texture for {len(faces)} triangles takes about {seconds:.0f} s and is mostly gaps between charts; "
            f"--faces {MANY} gives a sharper one, --texture 0 a colour to each vertex"
        )
    yield Progress(stage="paint", done=0, total=3, seconds_left=seconds)
    painter = texture.painter(vertices, faces, normals, maps, tolerance)
    colours = painter.of_vertices()
    if not side:
        return Mesh(vertices, faces, normals, rgb=to_uint8(colours))
    yield Progress(stage="paint", done=1, total=3, seconds_left=seconds)
    page = texture.unwrap(vertices * density, faces, side)
    yield Progress(stage="paint", done=2, total=3)
    picture = texture.paint(painter, page, side, colours)
    yield Progress(stage="paint", done=3, total=3)
    at = page.origin
    return Mesh(vertices[at], page.faces, normals[at], page.uv, to_uint8(colours)[at], picture)
