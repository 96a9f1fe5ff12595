"""An exported PLY looks in an independent renderer as it does in our own evaluation.

The judge is `benchmarks.independent`: float64 numpy by the published formulas, which shares no code with the product.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import fidelity, independent
from lumigraph.captures.sample import render_sample
from lumigraph.cli import main as cli
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.capture import Capture
from lumigraph.scene.field import Field
from lumigraph.studio.run import Run
from lumigraph.studio.training import load_field, prepare_capture, read_capture
from tests.captures.common import DATA, finish

LARGEST_GAP_DB = 0.02
SMALLEST_PSNR = 50.0  # dB of our own picture against the independent one
LARGEST_ERROR = 0.02  # of a value 0..1: float32 and float64 may differ about who passes a threshold


@dataclass(frozen=True)
class Export:
    """A trained run, its evaluation and its PLY as another program reads it."""

    field: Field
    psnrs: list[float]  # dB of each held-out view, by `evaluate`
    gaussians: independent.Gaussians
    held_out: Capture


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Export:
    folder = tmp_path_factory.mktemp("sample")
    task: Generator[object, None, Path] = render_sample(folder, views=24, size=(120, 90))
    for _ in task:
        pass
    return export(folder, tmp_path_factory.mktemp("run"), steps=200, downscale=1)


@pytest.fixture(scope="module")
def fox(tmp_path_factory: pytest.TempPathFactory) -> Export:
    if not (DATA / "fox").is_dir():
        pytest.skip("the fox of ../shared/data is not here")
    return export(DATA / "fox", tmp_path_factory.mktemp("run"), steps=200, downscale=8)


def export(folder: Path, run: Path, steps: int, downscale: int) -> Export:
    budget = ["--steps", str(steps), "--downscale", str(downscale)]
    assert cli.main(["train", str(folder), "-o", str(run), *budget, "-q"]) == 0
    assert cli.main(["evaluate", str(run), "-q"]) == 0
    assert cli.main(["export", str(run), "-o", str(run / "scene.ply"), "-q"]) == 0
    capture, _ = finish(prepare_capture(Run(run), read_capture(folder, None)))
    evaluation = json.loads((run / "evaluation.json").read_text())
    return Export(
        field=load_field(Run(run), "cpu")[0],
        psnrs=[view["psnr"] for view in evaluation["per_view"]],
        gaussians=independent.read_ply(run / "scene.ply"),
        held_out=capture.split()[1],
    )


@pytest.mark.parametrize("name", ["sample", "fox"])
def test_export_fidelity_on_held_out_views(name: str, request: pytest.FixtureRequest) -> None:
    """An independent renderer gives the exported PLY the PSNR that `evaluate` gave the run."""
    export: Export = request.getfixturevalue(name)
    views = export.held_out
    assert len(views) >= 3
    for i, psnr in enumerate(export.psnrs):
        picture = independent.render(export.gaussians, fidelity.view_of(views.cameras, i))
        assert abs(fidelity.measure_view(picture.clip(0, 1), views, i)[0] - psnr) <= LARGEST_GAP_DB, views.names[i]


MOVES = {  # degrees to the right, degrees down, share of the way to the median gaussian
    "inward": (20, 10, 0.0),
    "outward": (-70, 0, 0.0),
    "down": (0, 30, 0.0),
    "near": (0, 0, 0.7),
    "amid": (35, 0, 1.0),
    "far": (0, 0, -4.0),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("name", ["sample", "fox"])
def test_export_fidelity_away_from_the_photos(name: str, move: str, request: pytest.FixtureRequest) -> None:
    export: Export = request.getfixturevalue(name)
    target = torch.from_numpy(np.median(export.gaussians.means, axis=0))
    camera = moved(export.held_out.cameras[0], *MOVES[move], target)
    with torch.no_grad():
        own = export.field.render(camera).rgb[0].clamp(0, 1).double().numpy()
    picture = independent.render(export.gaussians, fidelity.view_of(camera, 0)).clip(0, 1)
    assert picture.std() > 0.01  # there is something to see
    assert independent.psnr(own, picture) >= SMALLEST_PSNR
    assert np.abs(own - picture).max() <= LARGEST_ERROR


def moved(camera: Cameras, right: float, down: float, way: float, target: Tensor) -> Cameras:
    """The camera turned by degrees about its own axes, and shifted by a share of its way to `target` (3,)."""
    yaw, pitch = math.radians(right), math.radians(down)
    turn_right = torch.tensor(
        [[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]], dtype=torch.float64
    )
    turn_down = torch.tensor(
        [[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]], dtype=torch.float64
    )
    pose = camera.world_from_cam[0].double()
    position = pose[:, 3] + way * (target - pose[:, 3])
    pose = torch.cat([pose[:, :3] @ turn_right @ turn_down, position[:, None]], dim=1)
    return dataclasses.replace(camera, world_from_cam=pose[None].to(camera.world_from_cam))
