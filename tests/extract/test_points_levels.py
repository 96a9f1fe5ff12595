"""Point order: every prefix covers the whole cloud, checked with a k-d tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from lumigraph.extract.levels import spread_order
from lumigraph.extract.points import PointsConfig, extract_points
from lumigraph.scene.errors import RunError
from lumigraph.studio import exporting
from lumigraph.wire.events import ArtifactWritten, ExportReport, Note
from lumigraph.wire.requests import ExportRequest
from tests.extract.shapes import Solid, orbit, torus
from tests.extract.test_mesh import run_task
from tests.studio.test_exporting import done, snowman

__all__ = ["snowman"]


@pytest.fixture(scope="module")
def xyz() -> Tensor:
    """A torus sorted by height, and three outliers."""
    cloud, _ = run_task(extract_points(Solid(torus), orbit(10, 160), PointsConfig(count=30_000, views=10, size=160)))
    rows: Tensor = cloud.xyz[cloud.xyz[:, 2].argsort()]
    return torch.cat([rows, torch.tensor([[2.0, 2, 2], [-2, 2, 1], [0, 0, -3]])])


def gaps(cloud: Tensor, subset: Tensor) -> Tensor:
    """Distances (N,) from each point of the cloud to the nearest point of the subset."""
    return torch.from_numpy(cKDTree(subset.numpy()).query(cloud.numpy())[0])


@pytest.mark.parametrize("count", [100, 1000, 3777, 10_000])
def test_spread_order_prefix_covers_better_than_random(xyz: Tensor, count: int) -> None:
    draw = torch.Generator().manual_seed(1)
    order = spread_order(xyz, torch.rand(len(xyz), generator=draw) + 0.5)
    assert torch.equal(order.sort().values, torch.arange(len(xyz)))
    random_order = torch.randperm(len(xyz), generator=draw)
    prefix_gaps, random_gaps = gaps(xyz, xyz[order[:count]]), gaps(xyz, xyz[random_order[:count]])
    assert float(prefix_gaps.amax()) < 0.6 * float(random_gaps.amax())
    assert float(prefix_gaps.square().mean()) < 0.9 * float(random_gaps.square().mean())
    assert float(prefix_gaps.mean()) < float(random_gaps.mean())


def test_extract_points_returns_spread_order() -> None:
    cloud, _ = run_task(extract_points(Solid(torus), orbit(8, 96), PointsConfig(count=10_000, views=8, size=96)))
    random_subset = cloud.xyz[torch.randperm(len(cloud), generator=torch.Generator().manual_seed(3))[:500]]
    spacings = [
        torch.cdist(subset, subset).fill_diagonal_(9).amin(1).quantile(0.05)
        for subset in (cloud.xyz[:500], random_subset)
    ]
    assert float(spacings[0]) > 2 * float(spacings[1])
    assert float(torus(cloud.xyz[:500].double()).abs().mean()) < 2e-3


def test_spread_order_prefers_larger_weight() -> None:
    grid = torch.cartesian_prod(*[torch.arange(12.0)] * 3)
    pairs = torch.cat([grid, grid + torch.tensor([1e-3, 0, 0])])
    better = torch.rand(len(grid), generator=torch.Generator().manual_seed(2)) < 0.5
    weight = torch.where(torch.cat([better, ~better]), 2.0, 1.0)
    first = spread_order(pairs, weight)[:200]
    assert float((weight[first] == 2).float().mean()) > 0.9
    assert float(torch.pdist(pairs[first]).amin()) > 0.9


@pytest.mark.parametrize(
    "degenerate_xyz",
    [
        torch.zeros(1, 3),
        torch.ones(500, 3),  # identical points
        torch.linspace(0, 1, 300)[:, None] * torch.tensor([1.0, 0, 0]),  # on a line
        torch.randn(200, 3) * 1e-6 + 1e3,
        torch.randn(200, 3) * 1e12,
    ],
)
def test_spread_order_is_permutation_for_degenerate_clouds(degenerate_xyz: Tensor) -> None:
    order = spread_order(degenerate_xyz, torch.ones(len(degenerate_xyz)))
    assert torch.equal(order.sort().values, torch.arange(len(degenerate_xyz)))


def test_export_points_writes_coarser_levels(snowman: Path, tmp_path: Path) -> None:
    out = tmp_path / "cloud.PLY"
    settings: dict[str, Any] = {"count": 5000, "views": 12, "size": 96, "levels": "100,2000,4999"}
    events, report = done(exporting.export(ExportRequest(run=snowman, out=out, kind="points", settings=settings)))
    full_cloud = read(out)
    assert isinstance(report, ExportReport) and report.count == len(full_cloud) < 4999
    for count, name in ((100, "cloud-100.PLY"), (2000, "cloud-2k.PLY")):
        subset = read(tmp_path / name)
        assert len(subset) == count
        assert np.array_equal(subset, full_cloud[:count])
        assert any(isinstance(event, Note) and f"{name}: {count:,} points" in event.text for event in events)
    assert any(isinstance(event, Note) and "cloud-4999.PLY is not written" in event.text for event in events)
    assert not (tmp_path / "cloud-4999.PLY").exists()
    assert [event.path for event in events if isinstance(event, ArtifactWritten)] == [str(out)]


def test_export_points_rejects_invalid_levels(snowman: Path, tmp_path: Path) -> None:
    def make_request(name: str, levels: str) -> ExportRequest:
        return ExportRequest(run=snowman, out=tmp_path / name, kind="points", settings={"count": 500, "levels": levels})

    with pytest.raises(RunError, match="each of levels must be less than count, 500"):
        done(exporting.export(make_request("a.ply", "100,500")))
    with pytest.raises(RunError, match="'levels' must be"):
        done(exporting.export(make_request("a.ply", "0")))
    with pytest.raises(RunError, match="3D Tiles has its own levels"):
        done(exporting.export(make_request("tileset.json", "100")))


def read(path: Path) -> Any:
    """Read with plyfile, an independent reader."""
    from plyfile import PlyData

    vertex = PlyData.read(path)["vertex"]
    return np.stack([vertex[name] for name in ("x", "y", "z", "red", "green", "blue")], 1)
