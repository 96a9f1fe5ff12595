"""Meshes and points extracted from analytic fields, checked with trimesh and closed forms."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import pytest
import torch
import trimesh
from torch import Tensor

from lumigraph.extract import depth_maps, mesh_operations, view_selection
from lumigraph.extract.depth_maps import DepthMaps
from lumigraph.extract.mesh import MeshConfig, extract_mesh, extract_surface, make_voxel_grid
from lumigraph.extract.points import PointsConfig, extract_points
from lumigraph.kernels import tsdf
from lumigraph.scene.assets import Mesh
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import FormatError
from lumigraph.scene.images import Image
from lumigraph.wire.events import Event, Progress
from tests.extract.shapes import Distance, Solid, box, colour_at, orbit, sphere, torus

VOLUMES: dict[Distance, float] = {
    sphere: 4 / 3 * math.pi * 0.8**3,
    torus: 2 * math.pi**2 * 0.7 * 0.28**2,
    box: 1.4 * 1.0 * 0.8,
}


def run_task(task: Generator[Event, None, Any]) -> tuple[Any, list[Event]]:
    events = []
    while True:
        try:
            events.append(next(task))
        except StopIteration as stop:
            return stop.value, events


def render_maps(distance: Distance, count: int, side: int, k: int = 1) -> Generator[Event, None, DepthMaps]:
    views = view_selection.select_views(orbit(count, side), count, side)
    return depth_maps.render_depth_maps(Solid(distance), views, k)


def trimesh_of(mesh: Mesh) -> trimesh.Trimesh:
    """Convert to trimesh, with the vertices on UV seams merged."""
    tri = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    tri.merge_vertices(merge_tex=True, merge_norm=True)
    return tri


def sample_faces(mesh: Mesh, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sample points (P, 3) on the faces, with their bilinear texture colours and normals."""
    assert mesh.uv is not None and mesh.texture is not None and mesh.normals is not None
    g = torch.Generator().manual_seed(0)
    a, b, c = mesh.vertices[mesh.faces.long()].unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=1)
    corners = mesh.faces[torch.multinomial(area, count, replacement=True, generator=g)].long()
    weights = torch.distributions.Dirichlet(torch.ones(3)).sample((count,))[..., None]
    xyz, uv, normals = ((x[corners] * weights).sum(1) for x in (mesh.vertices, mesh.uv, mesh.normals))
    image = mesh.texture.permute(2, 0, 1)[None].float() / 255
    colour = torch.nn.functional.grid_sample(image, (2 * uv - 1)[None, None], align_corners=False)[0, :, 0].T
    return xyz, colour, normals


@pytest.mark.parametrize("distance", [sphere, torus, box])
def test_extract_mesh_matches_analytic_shape(distance: Distance) -> None:
    config = MeshConfig(resolution=80, faces=4000, texture=512, watertight=True, views=28, size=200)
    mesh, events = run_task(extract_mesh(Solid(distance), orbit(28, 200), config))
    assert 3500 < len(mesh) <= 4000 and mesh.texture.shape == (512, 512, 3)
    tri = trimesh_of(mesh)
    assert tri.is_watertight and tri.is_winding_consistent
    assert tri.volume == pytest.approx(VOLUMES[distance], rel=0.01)
    assert any(isinstance(e, Progress) and e.seconds_left is not None for e in events)

    voxel = float((mesh.bounds()[1] - mesh.bounds()[0]).amax()) / 80
    xyz, colour, normals = sample_faces(mesh, 20_000)
    error = distance(xyz.double()).abs() / voxel
    assert float(error.mean()) < 0.1
    inner = torch.nn.functional.normalize(normals, dim=1) * 1e-3
    assert float((distance(xyz + inner) > distance(xyz - inner)).float().mean()) > 0.995  # normals point outwards
    # The edges of the box are rounded by a voxel, so the colour there is undefined.
    near = error < 0.5
    psnr = -10 * math.log10(float((colour - colour_at(xyz))[near].square().mean()))
    assert psnr > 45 and float(near.float().mean()) > 0.98


def test_extract_mesh_leaves_unseen_space_open_or_closes_it() -> None:
    """Cameras only above a ball give an inverted bowl with an open rim, or with a floor that closes it."""
    above = orbit(16, 128, lowest=0.5)
    common: dict[str, Any] = {"resolution": 48, "faces": 0, "texture": 0, "views": 16, "size": 128}
    open_mesh, _ = run_task(extract_mesh(Solid(sphere), above, MeshConfig(**common)))
    closed_mesh, _ = run_task(extract_mesh(Solid(sphere), above, MeshConfig(**common, unseen="inside")))
    assert not trimesh_of(open_mesh).is_watertight
    assert trimesh_of(closed_mesh).is_watertight and trimesh_of(closed_mesh).volume > 0
    assert float(sphere(open_mesh.vertices).abs().amax()) < 2 * 1.6 / 48  # no surface beyond the ball
    assert open_mesh.texture is None and open_mesh.rgb is not None
    top = open_mesh.vertices[:, 2] > 0.3
    assert float((open_mesh.rgb[top] / 255 - colour_at(open_mesh.vertices[top])).abs().mean()) < 0.02


def test_extract_mesh_ignores_views_with_wrong_depth() -> None:
    """A tenth of the views have a wall in front of the ball, which the other views see past."""

    class FalseWall(Solid):
        def render(self, cameras: Cameras, background: Tensor | None = None) -> Image:
            image = super().render(cameras, background)
            assert image.depth is not None
            is_wrong = round(float(cameras.positions[0].sum() * 1e4)) % 10 == 0
            return Image(image.rgb, image.alpha, image.depth - 0.4 * is_wrong * (image.depth > 0))

    cameras = orbit(40, 96)
    assert sum(round(float(p.sum() * 1e4)) % 10 == 0 for p in cameras.positions) >= 2
    config = MeshConfig(resolution=64, faces=0, texture=0, smooth=0, part=0, size=96)
    mesh, _ = run_task(extract_mesh(FalseWall(sphere), cameras, config))
    assert float(sphere(mesh.vertices).amax()) < 3 * 1.6 / 64


def test_fuse_stores_sparse_blocks() -> None:
    """Twice the resolution needs about four times the memory, like a surface, not eight times, like a volume."""
    maps, _ = run_task(render_maps(sphere, 12, 128))
    block_counts = []
    for resolution in (128, 256):
        voxel_grid = make_voxel_grid(depth_maps.compute_bounds(maps), resolution)
        rule: dict[str, Any] = {
            "truncation": 4 * voxel_grid.voxel_size,
            "min_weight": 1e-3,
            "carving_views": 3,
            "unseen_is_inside": False,
        }
        volume = tsdf.fuse(maps.depth, maps.weight, maps.views.rows(), voxel_grid, **rule)
        block_counts.append(len(volume.values))
        assert len(extract_surface(maps, voxel_grid, False)[1]) > 0
    assert block_counts[1] < 5 * block_counts[0] and block_counts[1] < 0.3 * volume.blocks.numel()


def test_extract_rejects_empty_field_and_missing_cameras() -> None:
    empty = Solid(lambda p: torch.full_like(p[..., 0], 5.0))
    with pytest.raises(FormatError, match="shows no surface"):
        run_task(extract_mesh(empty, orbit(4, 32), MeshConfig(size=64)))
    with pytest.raises(FormatError, match="shows no surface"):
        run_task(extract_points(empty, orbit(4, 32), PointsConfig(size=64)))
    with pytest.raises(FormatError, match="no camera"):
        run_task(extract_mesh(empty, orbit(4, 32)[:0]))


def test_extract_points_samples_surface_evenly() -> None:
    cloud, _ = run_task(extract_points(Solid(torus), orbit(16, 128), PointsConfig(count=5000, views=16, size=128)))
    assert 4000 < len(cloud) <= 5000 and cloud.rgb is not None and cloud.normals is not None
    assert float(torus(cloud.xyz.double()).abs().mean()) < 2e-3
    assert float((cloud.rgb / 255 - colour_at(cloud.xyz)).abs().mean()) < 0.02
    ahead = torus(cloud.xyz + 1e-2 * cloud.normals) - torus(cloud.xyz - 1e-2 * cloud.normals)
    assert float((ahead > 0).float().mean()) > 0.99
    nearest = torch.cdist(cloud.xyz, cloud.xyz).fill_diagonal_(9).amin(1)
    assert float(nearest.quantile(0.95)) < 4 * float(nearest.median())


def test_select_views_mixed_sizes() -> None:
    cameras = orbit(12, 96)
    cameras.sizes[::2, 1] = 64
    views = view_selection.select_views(cameras, 5, 48)
    assert len(views) == 5 and views.size == (48, 48)
    assert set(views.valid_sizes[:, 1].tolist()) <= {32, 48}
    assert views.valid_mask()[views.valid_sizes[:, 1] == 32][:, 40].sum() == 0
    distances = torch.pdist(views.cameras.positions)
    assert float(distances.amin()) > 1.3 * float(torch.pdist(cameras.positions).amin())


def test_mesh_operations_match_trimesh() -> None:
    sphere_solid = trimesh.creation.icosphere(2)
    box_solid = trimesh.creation.box().apply_translation([3, 0, 0])
    solids: Any = trimesh.util.concatenate([sphere_solid, box_solid])
    vertices, faces = torch.tensor(solids.vertices).float(), torch.tensor(solids.faces).int()
    assert len(torch.unique(mesh_operations.label_components(len(vertices), faces))) == solids.body_count == 2
    assert mesh_operations.is_watertight(faces) and not mesh_operations.is_watertight(faces[1:])
    assert not mesh_operations.is_watertight(faces[:, [0, 2, 1]][:0])
    assert mesh_operations.compute_volume(vertices, faces) == pytest.approx(solids.volume, rel=1e-5)
    assert len(mesh_operations.drop_small_components(vertices, faces, 0.99)[1]) == len(sphere_solid.faces)
    assert len(mesh_operations.find_edges(faces)[0]) == len(solids.edges_unique)
    flipped_faces = faces.clone()
    flipped_faces[0] = flipped_faces[0].flip(0)
    assert not mesh_operations.is_watertight(flipped_faces)


def test_render_depth_maps_supersamples_small_views() -> None:
    """For a field with sharp outlines, four subpixel views equal one view at twice the resolution."""
    fine_maps, _ = run_task(render_maps(torus, 3, 48, 2))
    large_maps, _ = run_task(render_maps(torus, 3, 96))
    assert fine_maps.views.size == large_maps.views.size == (96, 96)
    assert torch.allclose(fine_maps.views.rows(), large_maps.views.rows())
    assert float((fine_maps.depth == large_maps.depth).float().mean()) > 0.99  # rounding differs at outlines
    surface_in_both = fine_maps.surface & large_maps.surface
    assert float((fine_maps.depth - large_maps.depth)[surface_in_both].abs().median()) < 1e-5


@pytest.mark.parametrize("behind", [0.0, 0.02])
def test_extract_mesh_keeps_thickness_of_thin_posts(behind: float) -> None:
    """The depth is that of the surface, or slightly behind, like the expected depth of fuzzy matter."""

    def fence(p: Tensor) -> Tensor:
        floor = torch.stack([p[..., 0].abs() - 0.65, p[..., 1].abs() - 0.65, (p[..., 2] + 0.3).abs() - 0.03], -1)
        x = p[..., 0] - (p[..., 0] / 0.2).round().clamp(-3, 3) * 0.2
        posts = torch.stack([(x * x + p[..., 1].square()).sqrt() - 0.03, p[..., 2].abs() - 0.3], -1)
        return torch.minimum(floor.amax(-1), posts.amax(-1))

    class DeepSolid(Solid):
        def render(self, cameras: Cameras, background: Tensor | None = None) -> Image:
            image = super().render(cameras, background)
            assert image.depth is not None
            return Image(image.rgb, image.alpha, image.depth + behind * (image.depth > 0))

    config = MeshConfig(resolution=128, faces=0, texture=0, size=128, part=0)
    mesh, _ = run_task(extract_mesh(DeepSolid(fence), orbit(24, 128, lowest=0.2), config))
    x, y, _ = mesh.vertices[mesh.vertices[:, 2].abs() < 0.2].unbind(1)
    radius = torch.hypot(x - (x / 0.2).round() * 0.2, y)
    assert 0.028 < float(radius.mean()) < 0.033


def test_extract_mesh_resolves_core_of_large_scene() -> None:
    """Most cameras see pins on a wide floor at close range; a pin is thinner than a voxel of the floor."""

    def pins(p: Tensor) -> Tensor:
        floor = torch.stack([p[..., :2].norm(dim=-1) - 0.95, (p[..., 2] + 0.05).abs() - 0.05], -1).amax(-1)
        x, y = (v - (v / 0.06).round().clamp(-1, 1) * 0.06 for v in (p[..., 0], p[..., 1]))
        return torch.minimum(floor, torch.stack([torch.hypot(x, y) - 0.012, p[..., 2].abs() - 0.08], -1).amax(-1))

    near, wide = orbit(16, 96, lowest=0.3), orbit(8, 96, lowest=0.3, seed=1)
    poses, focal = (torch.cat(x) for x in ((near.world_from_cam, wide.world_from_cam), (near.focal * 8, wide.focal)))
    cameras = Cameras(poses, focal, torch.cat([near.centre, wide.centre]), torch.cat([near.sizes, wide.sizes]))
    config = MeshConfig(resolution=48, faces=8000, texture=0, smooth=0, size=96)
    mesh, _ = run_task(extract_mesh(Solid(pins), cameras, config))
    assert len(mesh) <= 8000
    across = float((mesh.bounds()[1] - mesh.bounds()[0])[0])
    voxel = across / 48
    assert voxel > 0.036 and across > 1.8  # a voxel is wider than a pin, and the floor is complete
    pin_vertices = mesh.vertices[(mesh.vertices[:, 2] > 0.02) & (mesh.vertices[:, 2] < 0.06)]
    assert len(pin_vertices) > 100 and float(pins(pin_vertices).abs().mean()) < 0.004
    maps, _ = run_task(render_maps(sphere, 8, 96))
    assert depth_maps.find_core(maps, depth_maps.compute_bounds(maps), 48) is None  # a single object needs no core
