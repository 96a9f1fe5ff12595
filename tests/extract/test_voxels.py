"""Voxels out of fields that are known exactly: distances by formula, and the volume that they enclose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lumigraph.extract.voxels import VoxelsConfig, voxels
from lumigraph.scene.assets import Voxels
from lumigraph.scene.errors import FormatError, RunError
from lumigraph.scene.poses import Similarity
from lumigraph.wire.requests import ExportRequest
from tests.extract.shapes import Distance, Solid, around, box, paint, sphere, torus
from tests.extract.test_mesh import VOLUMES, result
from tests.studio.test_exporting import BODY, HEAD, TALL, done, exporting, snowman

__all__ = ["snowman"]

FEW = {"views": 24, "size": 128}


@pytest.mark.parametrize("distance", [sphere, torus, box])
def test_distances_and_colours_are_those_of_the_surface(distance: Distance) -> None:
    made, _ = result(voxels(Solid(distance), around(24, 128), VoxelsConfig(resolution=64, **FEW)))
    assert isinstance(made, Voxels) and made.rgb is not None
    voxel = made.grid.voxel
    true = distance(made.xyz.double())
    close = true.abs() < voxel
    error = (made.distance - true).abs() / voxel
    assert float(error[close].mean()) < 0.2 and float(error[close].quantile(0.95)) < 0.7
    assert float((made.distance.sign() == true.sign())[true.abs() > 0.5 * voxel].double().mean()) > 0.97
    assert float(made.distance.abs().amax()) <= made.grid.truncation
    assert float((made.rgb / 255 - paint(made.xyz))[close].abs().mean()) < 0.03
    # A voxel for each place that is nearer than the truncation and can be seen.
    inside = (made.index >= 0) & (made.index < torch.tensor(made.grid.shape))
    assert inside.all() and len(torch.unique(made.index, dim=0)) == len(made)


def test_what_is_filled_has_the_volume_of_the_object() -> None:
    made, _ = result(voxels(Solid(sphere), around(24, 128), VoxelsConfig(resolution=64, unseen="inside", **FEW)))
    filled = float((made.distance < 0).sum()) * made.grid.voxel**3
    assert filled == pytest.approx(VOLUMES[sphere], rel=0.02)
    assert float(made.distance.amin()) == pytest.approx(-made.grid.truncation)


def test_a_grid_that_is_turned_holds_the_same() -> None:
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    tilted = torch.linalg.matrix_exp(torch.tensor([[0, 0.3, 0.1], [-0.3, 0, 0.2], [-0.1, -0.2, 0]]).double()) @ turn
    made, _ = result(voxels(Solid(box), around(24, 128), VoxelsConfig(resolution=64, **FEW), tilted))
    assert torch.allclose(tilted @ made.grid.axes, torch.eye(3).double(), atol=1e-6)
    true = box(made.xyz.double())
    close = true.abs() < made.grid.voxel
    assert float((made.distance - true).abs()[close].mean()) < 0.25 * made.grid.voxel
    assert torch.allclose(made.grid.centres(made.index), made.xyz, atol=1e-5)

    moved = made.transform(Similarity(2.0, tilted, torch.tensor([1.0, 2, 3]).double()))
    assert torch.equal(moved.index, made.index)
    assert torch.allclose(moved.grid.centres(made.index), moved.xyz, atol=1e-5)
    assert moved.grid.voxel == 2 * made.grid.voxel and torch.allclose(moved.distance, 2 * made.distance)
    assert torch.allclose(moved.grid.axes, torch.eye(3).double(), atol=1e-6)


def test_nothing_makes_nothing_and_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = Solid(lambda p: torch.full_like(p[..., 0], 5.0))
    with pytest.raises(FormatError, match="shows no surface"):
        result(voxels(empty, around(4, 32), VoxelsConfig(size=64)))
    monkeypatch.setattr("lumigraph.extract.voxels.MOST", 1000)
    with pytest.raises(FormatError, match="more than the 1,000 that can be held; ask for a lower resolution"):
        result(voxels(Solid(sphere), around(6, 64), VoxelsConfig(resolution=32, size=64)))


def test_a_run_becomes_a_grid_that_stands_upright(snowman: Path, tmp_path: Path) -> None:
    out = tmp_path / "snow.npz"
    settings = {"resolution": 64, "views": 21, "size": 96}
    report = done(exporting.export(ExportRequest(run=snowman, out=out, settings=settings)))[1]
    assert report.read_back and report.up == "+z" and report.count > 1000
    with np.load(out) as held:
        axes, voxel, origin = held["axes"], float(held["voxel"]), held["origin"]
        near = np.argwhere(np.abs(held["distance"]) < 0.5 * voxel)
        color = held["color"][tuple(near.T)].astype(float)
    assert (axes == np.eye(3)).all()
    places = origin + voxel * near
    assert np.ptp(places[:, 2]) == pytest.approx(TALL, rel=0.08)
    assert np.ptp(places[:, :2], axis=0) == pytest.approx([2 * BODY] * 2, rel=0.08)
    assert abs(places[:, 2].min()) < 3 * voxel  # on the ground
    top = places[:, 2] > TALL - HEAD
    assert color[top].mean(0) == pytest.approx([255, 0, 0], abs=15)  # the head is red
    assert color[places[:, 2] < BODY].min() > 240

    export = ExportRequest(run=snowman, out=out, kind="voxels", frame="capture", settings=settings)
    done(exporting.export(export))
    with np.load(out) as held:
        assert (held["axes"] == np.eye(3)).all()


def test_resolutions_out_of_reach_are_refused_before_anything_is_made(snowman: Path, tmp_path: Path) -> None:
    request = ExportRequest(run=snowman, out=tmp_path / "a.npz", settings={"resolution": 2000})
    with pytest.raises(RunError, match="'resolution' must be int from 16 to 1024"):
        done(exporting.export(request))
    with pytest.raises(FormatError, match=r"holds no voxels; these do: \.npz"):
        done(exporting.export(ExportRequest(run=snowman, out=tmp_path / "a.ply", kind="voxels")))
