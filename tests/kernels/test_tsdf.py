"""The mesh kernels against their float64 references."""

import math

import pytest
import torch
import trimesh
from torch import Tensor

from lumigraph.kernels import colour_baking, marching_cubes, rasterize, tsdf
from lumigraph.kernels.reference import colour_baking as baking_reference
from lumigraph.kernels.reference import marching_cubes as cubes_reference
from lumigraph.kernels.reference import rasterize as rasterize_reference
from lumigraph.kernels.reference import tsdf as tsdf_reference


def ball(count: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Create views (N, 16) around a ball of radius 1, their depth maps, and random weights."""
    g = torch.Generator().manual_seed(count)
    rows, depths = [], []
    for _ in range(count):
        z = torch.nn.functional.normalize(torch.randn(3, generator=g), dim=0)
        x = torch.nn.functional.normalize(torch.linalg.cross(z, torch.randn(3, generator=g)), dim=0)
        turn = torch.stack([x, torch.linalg.cross(z, x), z])
        shift = torch.tensor([0.1, -0.05, 3.0])
        lens = torch.tensor([side * 1.1] * 2 + [side / 2] * 2)
        rows.append(torch.cat([torch.cat([turn, shift[:, None]], 1).flatten(), lens]))
        y, x_ = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
        ray = torch.stack([(x_ - side / 2) / side / 1.1, (y - side / 2) / side / 1.1, torch.ones(side, side)], -1)
        a, b, c = (ray * ray).sum(-1), (ray * shift).sum(-1), float(shift @ shift) - 1
        hit = b * b - a * c
        depths.append(torch.where(hit > 0, (b - hit.clamp(min=0).sqrt()) / a, torch.inf))
    depth = torch.stack(depths)
    depth[torch.rand(depth.shape, generator=g) < 0.02] = 0
    return torch.stack(rows), depth, torch.rand(depth.shape, generator=g) + 0.1


def dense(volume: tsdf.TsdfVolume) -> tuple[Tensor, Tensor]:
    """Convert to dense values (Z, Y, X) and the block entry of each voxel."""
    block_of_voxel = volume.blocks.repeat_interleave(8, 0).repeat_interleave(8, 1).repeat_interleave(8, 2)
    values = torch.full(block_of_voxel.shape, math.nan)
    for z, y, x in (volume.blocks >= 0).nonzero().tolist():
        block = volume.values[volume.blocks[z, y, x]]
        values[8 * z : 8 * z + 8, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = block
    return values, block_of_voxel


@pytest.mark.parametrize("inside", [False, True])
def test_fuse_equals_reference(inside: bool) -> None:
    views, depth, weight = ball(7, 72)
    lattice = tsdf.VoxelGrid((-1.43, -1.41, -1.45), 0.036, (10, 10, 10))
    rule = {"truncation": 0.12, "min_weight": 1e-3, "carving_views": 3, "unseen_is_inside": inside}
    values, block = dense(tsdf.fuse(depth, weight, views, lattice, **rule))
    z, y, x = torch.meshgrid(*[torch.arange(80)] * 3, indexing="ij")
    points = torch.tensor(lattice.origin) + lattice.voxel_size * torch.stack([x, y, z], -1).view(-1, 3)
    inputs = (depth.double(), weight.double(), views.double(), points.double())
    truth = tsdf_reference.fuse(*inputs, voxel_size=lattice.voxel_size, **rule).view(values.shape).float()
    is_stored = block >= 0
    assert 0.1 < float(is_stored.float().mean()) < 0.9  # some blocks are stored, some are not
    same = torch.isclose(values, truth, atol=1e-4, equal_nan=True)[is_stored]
    assert float(same.float().mean()) > 0.999  # float32 may decide differently at a border of a pixel or bin
    assert not bool((truth[block == tsdf.BLOCK_OUTSIDE] < 1).any())
    assert not bool((truth[block == tsdf.BLOCK_UNKNOWN] < 1).any())  # a block without values has no surface
    assert bool((truth[block == tsdf.BLOCK_INSIDE] == -1).all())


def test_count_agreeing_views_equals_reference() -> None:
    views, depth, _ = ball(5, 40)
    neighbours = torch.tensor([[1, 2, 3], [0, -1, 4], [4, 3, 0], [2, 1, 0], [0, 1, -1]])
    tolerance = torch.full_like(depth, 0.03)
    actual = tsdf.count_agreeing_views(depth, views, neighbours, tolerance)
    expected_values = tsdf_reference.count_agreeing_views(
        depth.double(), views.double(), neighbours, tolerance.double()
    )
    for a, b in zip(actual, expected_values, strict=True):
        assert int(b.max()) > 0
        assert float((a == b).float().mean()) > 0.998


def blocks_of(values: Tensor) -> tsdf.TsdfVolume:
    z, y, x = (n // 8 for n in values.shape)
    parts = values.view(z, 8, y, 8, x, 8).permute(0, 2, 4, 1, 3, 5).reshape(-1, 8, 8, 8)
    return tsdf.TsdfVolume(torch.arange(len(parts), dtype=torch.int32).view(z, y, x), parts.contiguous())


def test_march_cubes_equals_reference() -> None:
    """Noise has all 256 cases. Each side of the reference's polygons is a side of a triangle, in the same direction."""
    g = torch.Generator().manual_seed(0)
    values = torch.rand(16, 8, 16, generator=g) * 2 - 1
    values[3, 4, 5] = math.nan
    vertices, faces = marching_cubes.march_cubes(blocks_of(values))
    polygons = cubes_reference.extract_polygons(values)
    assert len(faces) == sum(len(p) - 2 for p in polygons)
    at = {tuple(round(c, 3) for c in v): i for i, v in enumerate(vertices.tolist())}
    vertex_index = {}
    for crossing in {c for p in polygons for c in p}:
        point = torch.tensor(cubes_reference.interpolate_crossing(values, crossing))
        nearest = (vertices - point).norm(dim=1).argmin()
        assert float((vertices[nearest] - point).norm()) < 1e-4
        vertex_index[crossing] = int(nearest)
    assert len(set(vertex_index.values())) == len(vertex_index) and at
    sides = {(a, b) for f in faces.tolist() for a, b in zip(f, f[1:] + f[:1], strict=True)}
    assert all(
        (vertex_index[a], vertex_index[b]) in sides for p in polygons for a, b in zip(p, p[1:] + p[:1], strict=True)
    )


def test_march_cubes_closes_noise() -> None:
    g = torch.Generator().manual_seed(1)
    volume = blocks_of(torch.rand(24, 24, 24, generator=g) * 2 - 1)
    volume.blocks[0, 1, 1], volume.blocks[2, 1, 0] = tsdf.BLOCK_INSIDE, tsdf.BLOCK_OUTSIDE
    vertices, faces = marching_cubes.march_cubes(volume, outside_value=1.0)
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0


def test_rasterize_equals_reference() -> None:
    g = torch.Generator().manual_seed(2)
    corners = torch.rand(90, 3, generator=g) * torch.tensor([70.0, 50.0, 3.0]) - torch.tensor([5.0, 5.0, 0.1])
    faces = torch.randint(0, 90, (60, 3), generator=g, dtype=torch.int32)
    actual = rasterize.rasterize(corners, faces, (60, 40))
    face, depth, weights = rasterize_reference.rasterize(corners.double(), faces, (60, 40))
    same = actual.face == face
    assert float(same.float().mean()) > 0.998 and float((face >= 0).float().mean()) > 0.5
    torch.testing.assert_close(actual.depth[same], depth[same].float(), rtol=1e-5, atol=1e-6)
    assert actual.weights is not None
    torch.testing.assert_close(actual.weights[same], weights[same].float(), rtol=1e-4, atol=1e-4)


def test_bake_colours_equals_reference() -> None:
    views, depth, weight = ball(6, 48)
    g = torch.Generator().manual_seed(3)
    rgb = torch.randint(0, 256, (*depth.shape, 3), generator=g, dtype=torch.uint8)
    normals = torch.nn.functional.normalize(torch.randn(500, 3, generator=g), dim=1)
    depth = torch.where(depth > 0, depth, torch.inf)
    actual, actual_weights = colour_baking.bake_colours(rgb, depth, weight, views, normals, normals, 0.02)
    inputs = (x.double() for x in (rgb, depth, weight, views, normals, normals))
    expected_values, weights = baking_reference.bake_colours(*inputs, 0.02)
    is_visible = weights > 0
    assert float(is_visible.float().mean()) > 0.5 and float(((actual_weights > 0) == is_visible).float().mean()) > 0.99
    same = torch.isclose(actual, expected_values.float(), atol=2e-3).all(1)
    assert float(same.float().mean()) > 0.98
    torch.testing.assert_close(
        actual_weights[same & is_visible], weights[same & is_visible].float(), rtol=2e-2, atol=1e-3
    )


def test_mesh_kernels_reject_wrong_sizes() -> None:
    views, depth, weight = ball(2, 16)
    lattice = tsdf.VoxelGrid((0.0, 0.0, 0.0), 0.1, (1, 1, 1))
    rule = {"truncation": 0.4, "min_weight": 0.0, "carving_views": 1, "unseen_is_inside": False}
    with pytest.raises(ValueError, match="views"):
        tsdf.fuse(depth, weight, views[:1], lattice, **rule)
    with pytest.raises(ValueError, match="blocks"):
        tsdf.fuse(depth, weight, views, tsdf.VoxelGrid((0.0, 0.0, 0.0), 0.1, (1, 0, 1)), **rule)
    with pytest.raises(ValueError, match="no such corner"):
        rasterize.rasterize(torch.zeros(3, 3), torch.tensor([[0, 1, 3]], dtype=torch.int32), (8, 8))
    with pytest.raises(ValueError, match="no such block"):
        marching_cubes.march_cubes(tsdf.TsdfVolume(torch.ones(1, 1, 1, dtype=torch.int32), torch.zeros(1, 8, 8, 8)))
