"""Voxels extracted from analytic fields: distances against closed forms, and the enclosed volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lumigraph.extract.voxels import VoxelsConfig, extract_voxels
from lumigraph.scene.assets import Voxels
from lumigraph.scene.errors import FormatError, RunError
from lumigraph.scene.poses import Similarity
from lumigraph.studio import exporting
from lumigraph.wire.requests import ExportRequest
from tests.extract.shapes import Distance, Solid, box, colour_at, orbit, sphere, torus
from tests.extract.test_mesh import VOLUMES, run_task
from tests.studio.test_exporting import BODY, HEAD, TALL, done, snowman

__all__ = ["snowman"]

FEW_VIEWS: dict[str, Any] = {"views": 24, "size": 128}


@pytest.mark.parametrize("distance", [sphere, torus, box])
def test_extract_voxels_matches_analytic_distances_and_colours(distance: Distance) -> None:
    voxels, _ = run_task(extract_voxels(Solid(distance), orbit(24, 128), VoxelsConfig(resolution=64, **FEW_VIEWS)))
    assert isinstance(voxels, Voxels) and voxels.rgb is not None
    voxel = voxels.grid.voxel
    exact = distance(voxels.xyz.double())
    close = exact.abs() < voxel
    error = (voxels.distance - exact).abs() / voxel
    assert float(error[close].mean()) < 0.2 and float(error[close].quantile(0.95)) < 0.7
    assert float((voxels.distance.sign() == exact.sign())[exact.abs() > 0.5 * voxel].double().mean()) > 0.97
    assert float(voxels.distance.abs().amax()) <= voxels.grid.truncation
    assert float((voxels.rgb / 255 - colour_at(voxels.xyz))[close].abs().mean()) < 0.03
    # Every index is inside the grid and occurs once.
    inside = (voxels.index >= 0) & (voxels.index < torch.tensor(voxels.grid.shape))
    assert inside.all() and len(torch.unique(voxels.index, dim=0)) == len(voxels)


def test_extract_voxels_inside_encloses_the_volume() -> None:
    config = VoxelsConfig(resolution=64, unseen="inside", **FEW_VIEWS)
    voxels, _ = run_task(extract_voxels(Solid(sphere), orbit(24, 128), config))
    filled_volume = float((voxels.distance < 0).sum()) * voxels.grid.voxel**3
    assert filled_volume == pytest.approx(VOLUMES[sphere], rel=0.02)
    assert float(voxels.distance.amin()) == pytest.approx(-voxels.grid.truncation)


def test_extract_voxels_rotated_grid_matches_distances() -> None:
    rotation = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    skew = torch.tensor([[0, 0.3, 0.1], [-0.3, 0, 0.2], [-0.1, -0.2, 0]]).double()
    upright = torch.linalg.matrix_exp(skew) @ rotation
    voxels, _ = run_task(extract_voxels(Solid(box), orbit(24, 128), VoxelsConfig(resolution=64, **FEW_VIEWS), upright))
    assert torch.allclose(upright @ voxels.grid.axes, torch.eye(3).double(), atol=1e-6)
    exact = box(voxels.xyz.double())
    close = exact.abs() < voxels.grid.voxel
    assert float((voxels.distance - exact).abs()[close].mean()) < 0.25 * voxels.grid.voxel
    assert torch.allclose(voxels.grid.centres(voxels.index), voxels.xyz, atol=1e-5)

    moved_voxels = voxels.transform(Similarity(2.0, upright, torch.tensor([1.0, 2, 3]).double()))
    assert torch.equal(moved_voxels.index, voxels.index)
    assert torch.allclose(moved_voxels.grid.centres(voxels.index), moved_voxels.xyz, atol=1e-5)
    assert moved_voxels.grid.voxel == 2 * voxels.grid.voxel
    assert torch.allclose(moved_voxels.distance, 2 * voxels.distance)
    assert torch.allclose(moved_voxels.grid.axes, torch.eye(3).double(), atol=1e-6)


def test_extract_voxels_rejects_empty_field_and_too_many_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = Solid(lambda p: torch.full_like(p[..., 0], 5.0))
    with pytest.raises(FormatError, match="shows no surface"):
        run_task(extract_voxels(empty, orbit(4, 32), VoxelsConfig(size=64)))
    monkeypatch.setattr("lumigraph.extract.voxels.MAX_VOXELS", 1000)
    with pytest.raises(FormatError, match="exceed the limit of 1,000; use a lower resolution"):
        run_task(extract_voxels(Solid(sphere), orbit(6, 64), VoxelsConfig(resolution=32, size=64)))


def test_export_voxels_writes_upright_grid(snowman: Path, tmp_path: Path) -> None:
    out = tmp_path / "snow.npz"
    settings: dict[str, Any] = {"resolution": 64, "views": 21, "size": 96}
    report = done(exporting.export(ExportRequest(run=snowman, out=out, settings=settings)))[1]
    assert report.read_back and report.up == "+z" and report.count > 1000
    with np.load(out) as archive:
        axes, voxel, origin = archive["axes"], float(archive["voxel"]), archive["origin"]
        near = np.argwhere(np.abs(archive["distance"]) < 0.5 * voxel)
        color = archive["color"][tuple(near.T)].astype(float)
    assert (axes == np.eye(3)).all()
    positions = origin + voxel * near
    assert np.ptp(positions[:, 2]) == pytest.approx(TALL, rel=0.08)
    assert np.ptp(positions[:, :2], axis=0) == pytest.approx([2 * BODY] * 2, rel=0.08)
    assert abs(positions[:, 2].min()) < 3 * voxel  # on the ground
    top = positions[:, 2] > TALL - HEAD
    assert color[top].mean(0) == pytest.approx([255, 0, 0], abs=15)  # the head is red
    assert color[positions[:, 2] < BODY].min() > 240

    export = ExportRequest(run=snowman, out=out, kind="voxels", frame="capture", settings=settings)
    done(exporting.export(export))
    with np.load(out) as archive:
        assert (archive["axes"] == np.eye(3)).all()


def test_export_voxels_rejects_invalid_settings(snowman: Path, tmp_path: Path) -> None:
    request = ExportRequest(run=snowman, out=tmp_path / "a.npz", settings={"resolution": 2000})
    with pytest.raises(RunError, match="'resolution' must be int from 16 to 1024"):
        done(exporting.export(request))
    with pytest.raises(FormatError, match=r"holds no voxels; these do: \.npz"):
        done(exporting.export(ExportRequest(run=snowman, out=tmp_path / "a.ply", kind="voxels")))
