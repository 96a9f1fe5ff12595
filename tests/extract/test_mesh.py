"""Meshes and points out of fields that are known exactly; trimesh and formulas are the judges."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import pytest
import torch
import trimesh
from torch import Tensor

from lumigraph.extract import depth_maps, mesh_operations, view_selection
from lumigraph.extract.mesh import MeshConfig, lattice_of, mesh, surface
from lumigraph.extract.points import PointsConfig, points
from lumigraph.kernels import tsdf
from lumigraph.scene.assets import Mesh
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import FormatError
from lumigraph.scene.images import Image
from lumigraph.wire.events import Event, Progress
from tests.extract.shapes import Distance, Solid, around, box, paint, sphere, torus

VOLUMES = {sphere: 4 / 3 * math.pi * 0.8**3, torus: 2 * math.pi**2 * 0.7 * 0.28**2, box: 1.4 * 1.0 * 0.8}


def result(task: Generator[Event, None, Any]) -> tuple[Any, list[Event]]:
    events = []
    while True:
        try:
            events.append(next(task))
        except StopIteration as stop:
            return stop.value, events


def judged(made: Mesh) -> trimesh.Trimesh:
    """With the seams of the texture closed again."""
    judge = trimesh.Trimesh(made.vertices.numpy(), made.faces.numpy(), process=False)
    judge.merge_vertices(merge_tex=True, merge_norm=True)
    return judge


def on_faces(made: Mesh, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points anywhere on the faces (P, 3), their colours by the texture, sampled bilinearly, and their normals."""
    assert made.uv is not None and made.texture is not None and made.normals is not None
    g = torch.Generator().manual_seed(0)
    a, b, c = made.vertices[made.faces.long()].unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=1)
    corners = made.faces[torch.multinomial(area, count, replacement=True, generator=g)].long()
    weights = torch.distributions.Dirichlet(torch.ones(3)).sample((count,))[..., None]
    xyz, uv, normals = ((x[corners] * weights).sum(1) for x in (made.vertices, made.uv, made.normals))
    picture = made.texture.permute(2, 0, 1)[None].float() / 255
    colour = torch.nn.functional.grid_sample(picture, (2 * uv - 1)[None, None], align_corners=False)[0, :, 0].T
    return xyz, colour, normals


@pytest.mark.parametrize("distance", [sphere, torus, box])
def test_an_object_becomes_what_it_is(distance: Distance) -> None:
    config = MeshConfig(resolution=80, faces=4000, texture=512, watertight=True, views=28, size=200)
    made, events = result(mesh(Solid(distance), around(28, 200), config))
    assert 3500 < len(made) <= 4000 and made.texture.shape == (512, 512, 3)
    judge = judged(made)
    assert judge.is_watertight and judge.is_winding_consistent
    assert judge.volume == pytest.approx(VOLUMES[distance], rel=0.01)
    assert any(isinstance(e, Progress) and e.seconds_left is not None for e in events)

    voxel = float((made.bounds()[1] - made.bounds()[0]).amax()) / 80
    xyz, colour, normals = on_faces(made, 20_000)
    error = distance(xyz.double()).abs() / voxel
    assert float(error.mean()) < 0.1
    inner = torch.nn.functional.normalize(normals, dim=1) * 1e-3
    assert float((distance(xyz + inner) > distance(xyz - inner)).float().mean()) > 0.995  # normals point outwards
    # Edges of the box are rounded by a voxel: there no colour is the right one.
    near = error < 0.5
    psnr = -10 * math.log10(float((colour - paint(xyz))[near].square().mean()))
    assert psnr > 45 and float(near.float().mean()) > 0.98


def test_what_nobody_saw_stays_open_or_is_closed_as_asked() -> None:
    """Cameras only above a ball: a bowl turned over, whose rim is open, or closed by a floor."""
    above = around(16, 128, lowest=0.5)
    common = {"resolution": 48, "faces": 0, "texture": 0, "views": 16, "size": 128}
    opened, _ = result(mesh(Solid(sphere), above, MeshConfig(**common)))
    closed, _ = result(mesh(Solid(sphere), above, MeshConfig(**common, unseen="inside")))
    assert not judged(opened).is_watertight and judged(closed).is_watertight and judged(closed).volume > 0
    assert float(sphere(opened.vertices).abs().amax()) < 2 * 1.6 / 48  # nothing was made up
    assert opened.texture is None and opened.rgb is not None
    top = opened.vertices[:, 2] > 0.3
    assert float((opened.rgb[top] / 255 - paint(opened.vertices[top])).abs().mean()) < 0.02


def test_no_shell_stands_where_views_err() -> None:
    """A tenth of the views claim a wall in front of the ball, where the others see past it."""

    class Lying(Solid):
        def render(self, cameras: Cameras, background: Tensor | None = None) -> Image:
            image = super().render(cameras, background)
            assert image.depth is not None
            lies = round(float(cameras.positions[0].sum() * 1e4)) % 10 == 0
            return Image(image.rgb, image.alpha, image.depth - 0.4 * lies * (image.depth > 0))

    cameras = around(40, 96)
    assert sum(round(float(p.sum() * 1e4)) % 10 == 0 for p in cameras.positions) >= 2
    config = MeshConfig(resolution=64, faces=0, texture=0, smooth=0, part=0, size=96)
    made, _ = result(mesh(Lying(sphere), cameras, config))
    assert float(sphere(made.vertices).amax()) < 3 * 1.6 / 64


def test_blocks_are_sparse() -> None:
    """Twice the resolution needs about four times the memory, as a surface does, not eight times, as a volume would."""
    maps, _ = result(depth_maps.look(Solid(sphere), view_selection.choose(around(12, 128), 12, 128)))
    kept = []
    for resolution in (128, 256):
        lattice = lattice_of(depth_maps.box_of(maps), resolution)
        rule = {"truncation": 4 * lattice.voxel_size, "min_weight": 1e-3, "carving_views": 3, "unseen_is_inside": False}
        volume = tsdf.fuse(maps.depth, maps.weight, maps.views.rows(), lattice, **rule)
        kept.append(len(volume.values))
        assert len(surface(maps, lattice, False)[1]) > 0
    assert kept[1] < 5 * kept[0] and kept[1] < 0.3 * volume.blocks.numel()


def test_nothing_makes_nothing() -> None:
    empty = Solid(lambda p: torch.full_like(p[..., 0], 5.0))
    with pytest.raises(FormatError, match="shows no surface"):
        result(mesh(empty, around(4, 32), MeshConfig(size=64)))
    with pytest.raises(FormatError, match="shows no surface"):
        result(points(empty, around(4, 32), PointsConfig(size=64)))
    with pytest.raises(FormatError, match="no camera"):
        result(mesh(empty, around(4, 32)[:0]))


def test_points_lie_on_the_surface_evenly() -> None:
    made, _ = result(points(Solid(torus), around(16, 128), PointsConfig(count=5000, views=16, size=128)))
    assert 4000 < len(made) <= 5000 and made.rgb is not None and made.normals is not None
    assert float(torus(made.xyz.double()).abs().mean()) < 2e-3
    assert float((made.rgb / 255 - paint(made.xyz)).abs().mean()) < 0.02
    ahead = torus(made.xyz + 1e-2 * made.normals) - torus(made.xyz - 1e-2 * made.normals)
    assert float((ahead > 0).float().mean()) > 0.99
    nearest = torch.cdist(made.xyz, made.xyz).fill_diagonal_(9).amin(1)
    assert float(nearest.quantile(0.95)) < 4 * float(nearest.median())


def test_pictures_of_many_sizes_and_chosen_views() -> None:
    cameras = around(12, 96)
    cameras.sizes[::2, 1] = 64
    chosen = view_selection.choose(cameras, 5, 48)
    assert len(chosen) == 5 and chosen.size == (48, 48)
    assert set(chosen.own[:, 1].tolist()) <= {32, 48} and chosen.theirs()[chosen.own[:, 1] == 32][:, 40].sum() == 0
    apart = torch.pdist(chosen.cameras.positions)
    assert float(apart.amin()) > 1.3 * float(torch.pdist(cameras.positions).amin())


def test_parts_edges_and_volume_against_trimesh() -> None:
    two = trimesh.util.concatenate([trimesh.creation.icosphere(2), trimesh.creation.box().apply_translation([3, 0, 0])])
    vertices, faces = torch.tensor(two.vertices).float(), torch.tensor(two.faces).int()
    assert len(torch.unique(mesh_operations.parts(len(vertices), faces))) == two.body_count == 2
    assert (
        mesh_operations.watertight(faces)
        and not mesh_operations.watertight(faces[1:])
        and not mesh_operations.watertight(faces[:, [0, 2, 1]][:0])
    )
    assert mesh_operations.volume(vertices, faces) == pytest.approx(two.volume, rel=1e-5)
    assert len(mesh_operations.larger_parts(vertices, faces, 0.99)[1]) == len(trimesh.creation.icosphere(2).faces)
    assert len(mesh_operations.edges(faces)[0]) == len(two.edges_unique)
    flipped = faces.clone()
    flipped[0] = flipped[0].flip(0)
    assert not mesh_operations.watertight(flipped)


def test_a_small_picture_is_looked_at_between_its_pixels() -> None:
    """Of what has sharp outlines, four views moved by parts of a pixel are one view of twice as many pixels."""
    twice, _ = result(depth_maps.look(Solid(torus), view_selection.choose(around(3, 48), 3, 48), 2))
    whole, _ = result(depth_maps.look(Solid(torus), view_selection.choose(around(3, 96), 3, 96)))
    assert twice.views.size == whole.views.size == (96, 96)
    assert torch.allclose(twice.views.rows(), whole.views.rows())
    assert float((twice.depth == whole.depth).float().mean()) > 0.99  # rounded otherwise at outlines
    both = twice.surface & whole.surface
    assert float((twice.depth - whole.depth)[both].abs().median()) < 1e-5


@pytest.mark.parametrize("behind", [0.0, 0.02])
def test_posts_are_as_thick_as_they_look(behind: float) -> None:
    """Where depth is that of a surface, and where it lies behind, as that of the middle of fuzzy matter does."""

    def fence(p: Tensor) -> Tensor:
        floor = torch.stack([p[..., 0].abs() - 0.65, p[..., 1].abs() - 0.65, (p[..., 2] + 0.3).abs() - 0.03], -1)
        x = p[..., 0] - (p[..., 0] / 0.2).round().clamp(-3, 3) * 0.2
        posts = torch.stack([(x * x + p[..., 1].square()).sqrt() - 0.03, p[..., 2].abs() - 0.3], -1)
        return torch.minimum(floor.amax(-1), posts.amax(-1))

    class Deep(Solid):
        def render(self, cameras: Cameras, background: Tensor | None = None) -> Image:
            image = super().render(cameras, background)
            assert image.depth is not None
            return Image(image.rgb, image.alpha, image.depth + behind * (image.depth > 0))

    config = MeshConfig(resolution=128, faces=0, texture=0, size=128, part=0)
    made, _ = result(mesh(Deep(fence), around(24, 128, lowest=0.2), config))
    x, y, _ = made.vertices[made.vertices[:, 2].abs() < 0.2].unbind(1)
    radius = torch.hypot(x - (x / 0.2).round() * 0.2, y)
    assert 0.028 < float(radius.mean()) < 0.033


def test_what_cameras_look_at_is_not_swallowed_by_the_voxels_of_all_around() -> None:
    """Pins on a wide floor, at whose middle most cameras look closely: thinner than a voxel of the floor."""

    def pins(p: Tensor) -> Tensor:
        floor = torch.stack([p[..., :2].norm(dim=-1) - 0.95, (p[..., 2] + 0.05).abs() - 0.05], -1).amax(-1)
        x, y = (v - (v / 0.06).round().clamp(-1, 1) * 0.06 for v in (p[..., 0], p[..., 1]))
        return torch.minimum(floor, torch.stack([torch.hypot(x, y) - 0.012, p[..., 2].abs() - 0.08], -1).amax(-1))

    near, wide = around(16, 96, lowest=0.3), around(8, 96, lowest=0.3, seed=1)
    poses, focal = (torch.cat(x) for x in ((near.world_from_cam, wide.world_from_cam), (near.focal * 8, wide.focal)))
    cameras = Cameras(poses, focal, torch.cat([near.centre, wide.centre]), torch.cat([near.sizes, wide.sizes]))
    config = MeshConfig(resolution=48, faces=8000, texture=0, smooth=0, size=96)
    made, _ = result(mesh(Solid(pins), cameras, config))
    assert len(made) <= 8000
    across = float((made.bounds()[1] - made.bounds()[0])[0])
    voxel = across / 48
    assert voxel > 0.036 and across > 1.8  # wider than a pin, and the floor is still there
    standing = made.vertices[(made.vertices[:, 2] > 0.02) & (made.vertices[:, 2] < 0.06)]
    assert len(standing) > 100 and float(pins(standing).abs().mean()) < 0.004
    maps, _ = result(depth_maps.look(Solid(sphere), view_selection.choose(around(8, 96), 8, 96)))
    assert depth_maps.core_of(maps, depth_maps.box_of(maps), 48) is None  # an object is divided evenly
