"""The order of points: whatever is taken from its beginning stands for the whole. A search tree is the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from lumigraph.extract.levels import spread_order
from lumigraph.extract.points import PointsConfig, points
from lumigraph.scene.errors import RunError
from lumigraph.wire.events import ArtifactWritten, ExportReport, Note
from lumigraph.wire.requests import ExportRequest
from tests.extract.shapes import Solid, around, torus
from tests.extract.test_mesh import result
from tests.studio.test_exporting import done, exporting, snowman

__all__ = ["snowman"]


@pytest.fixture(scope="module")
def xyz() -> Tensor:
    """A torus in rows, and a few strays."""
    made, _ = result(points(Solid(torus), around(10, 160), PointsConfig(count=30_000, views=10, size=160)))
    rows: Tensor = made.xyz[made.xyz[:, 2].argsort()]
    return torch.cat([rows, torch.tensor([[2.0, 2, 2], [-2, 2, 1], [0, 0, -3]])])


def gaps(whole: Tensor, some: Tensor) -> Tensor:
    """(N,) from each point of the whole to the nearest of some."""
    return torch.from_numpy(cKDTree(some.numpy()).query(whole.numpy())[0])


@pytest.mark.parametrize("count", [100, 1000, 3777, 10_000])
def test_the_first_points_cover_the_whole_better_than_as_many_at_random(xyz: Tensor, count: int) -> None:
    draw = torch.Generator().manual_seed(1)
    order = spread_order(xyz, torch.rand(len(xyz), generator=draw) + 0.5)
    assert torch.equal(order.sort().values, torch.arange(len(xyz)))
    ours, chance = gaps(xyz, xyz[order[:count]]), gaps(xyz, xyz[torch.randperm(len(xyz), generator=draw)[:count]])
    assert float(ours.amax()) < 0.6 * float(chance.amax())
    assert float(ours.square().mean()) < 0.9 * float(chance.square().mean())
    assert float(ours.mean()) < float(chance.mean())


def test_what_is_made_of_a_field_comes_in_this_order() -> None:
    made, _ = result(points(Solid(torus), around(8, 96), PointsConfig(count=10_000, views=8, size=96)))
    chance = made.xyz[torch.randperm(len(made), generator=torch.Generator().manual_seed(3))[:500]]
    apart = [torch.cdist(some, some).fill_diagonal_(9).amin(1).quantile(0.05) for some in (made.xyz[:500], chance)]
    assert float(apart[0]) > 2 * float(apart[1])
    assert float(torus(made.xyz[:500].double()).abs().mean()) < 2e-3


def test_of_points_close_together_the_better_comes_first() -> None:
    grid = torch.cartesian_prod(*[torch.arange(12.0)] * 3)
    pairs = torch.cat([grid, grid + torch.tensor([1e-3, 0, 0])])
    better = torch.rand(len(grid), generator=torch.Generator().manual_seed(2)) < 0.5
    weight = torch.where(torch.cat([better, ~better]), 2.0, 1.0)
    first = spread_order(pairs, weight)[:200]
    assert float((weight[first] == 2).float().mean()) > 0.9
    assert float(torch.pdist(pairs[first]).amin()) > 0.9


@pytest.mark.parametrize(
    "strange",
    [
        torch.zeros(1, 3),
        torch.ones(500, 3),  # all at one place
        torch.linspace(0, 1, 300)[:, None] * torch.tensor([1.0, 0, 0]),  # on a line
        torch.randn(200, 3) * 1e-6 + 1e3,
        torch.randn(200, 3) * 1e12,
    ],
)
def test_every_point_is_there_once(strange: Tensor) -> None:
    order = spread_order(strange, torch.ones(len(strange)))
    assert torch.equal(order.sort().values, torch.arange(len(strange)))


def test_coarser_clouds_lie_beside(snowman: Path, tmp_path: Path) -> None:
    out = tmp_path / "cloud.PLY"
    settings = {"count": 5000, "views": 12, "size": 96, "levels": "100,2000,4999"}
    events, report = done(exporting.export(ExportRequest(run=snowman, out=out, kind="points", settings=settings)))
    whole = read(out)
    assert isinstance(report, ExportReport) and report.count == len(whole) < 4999
    for count, name in ((100, "cloud-100.PLY"), (2000, "cloud-2k.PLY")):
        some = read(tmp_path / name)
        assert len(some) == count
        assert np.array_equal(some, whole[:count])
        assert any(isinstance(event, Note) and f"{name}: {count:,} points" in event.text for event in events)
    assert any(isinstance(event, Note) and "cloud-4999.PLY is not written" in event.text for event in events)
    assert not (tmp_path / "cloud-4999.PLY").exists()
    assert [event.path for event in events if isinstance(event, ArtifactWritten)] == [str(out)]


def test_levels_that_make_no_sense_are_refused(snowman: Path, tmp_path: Path) -> None:
    def asked(name: str, levels: str) -> ExportRequest:
        return ExportRequest(run=snowman, out=tmp_path / name, kind="points", settings={"count": 500, "levels": levels})

    with pytest.raises(RunError, match="each of levels must be less than count, 500"):
        done(exporting.export(asked("a.ply", "100,500")))
    with pytest.raises(RunError, match="'levels' must be"):
        done(exporting.export(asked("a.ply", "0")))
    with pytest.raises(RunError, match="3D Tiles has its own levels"):
        done(exporting.export(asked("tileset.json", "100")))


def read(path: Path) -> Any:
    """By another program."""
    from plyfile import PlyData

    vertex = PlyData.read(path)["vertex"]
    return np.stack([vertex[name] for name in ("x", "y", "z", "red", "green", "blue")], 1)
