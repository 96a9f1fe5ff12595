"""What `evaluate` judges: the gaussians as they are exported, by the kernels or by the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lumigraph.cli import commands
from lumigraph.cli import main as cli
from lumigraph.formats import ply
from lumigraph.methods import pose_refinement
from lumigraph.methods import train as loop
from lumigraph.scene.assets import Splats
from lumigraph.scene.errors import RunError
from lumigraph.studio import verbs
from lumigraph.studio.run import Run
from lumigraph.studio.training import load_field, read_capture
from lumigraph.wire.events import Note
from lumigraph.wire.requests import EvaluateRequest, TrainRequest
from tests.studio.test_verbs import done


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, capture: Path) -> Path:
    """A short training of gaussians."""
    out = tmp_path_factory.mktemp("gaussians") / "run"
    settings = {"cap": 400, "start_points": 200, "sh_degree": 1}
    done(verbs.train(TrainRequest(capture=capture, out=out, steps=40, settings=settings)))
    return out


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory, capture: Path) -> Path:
    """A training that corrects its cameras, in two goes."""
    out = tmp_path_factory.mktemp("refined") / "run"
    settings = {"cap": 400, "start_points": 200, "sh_degree": 0, "coarse": 0.0, "refine_poses": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pose_refinement, "MIN_FLOW_PX", 0.0)
        done(verbs.train(TrainRequest(capture=capture, out=out, steps=40, settings=settings)))
        done(verbs.train(TrainRequest(capture=capture, out=out, steps=60, resume=True)))
    return out


def test_refined_cameras_are_the_cameras_of_the_run(refined: Path) -> None:
    run = Run(refined)
    cameras, held_out = run.cameras()
    given = read_capture(Path(run.config.capture), None).cameras
    checkpoint = run.checkpoint()
    assert checkpoint is not None
    assert torch.equal(cameras.world_from_cam[held_out], given.world_from_cam[held_out])
    assert not torch.equal(cameras.world_from_cam[~held_out], given.world_from_cam[~held_out])
    poses = checkpoint.state["poses"]
    expected = torch.eye(3, 4, dtype=torch.float64).expand(len(poses), 3, 4)
    positions = cameras.world_from_cam[~held_out].double()
    identity = torch.cat([poses[:, :, :3] @ positions[:, :, :3], poses[:, :, :3] @ positions[:, :, 3:]], 2)
    identity[:, :, 3] += poses[:, :, 3]
    torch.testing.assert_close(identity, expected, rtol=0, atol=1e-5)


def test_refined_run_is_also_evaluated_after_an_alignment(
    refined: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluation(refined)
    views = [view["psnr_own_pose"] for view in result["per_view"]]
    assert result["psnr_own_pose"] == pytest.approx(sum(views) / len(views))
    commands.print_evaluation(result)
    assert f"aligned to its photo: PSNR {result['psnr_own_pose']:.2f} dB" in (capsys.readouterr().out)
    assert "PSNR after an alignment of each camera" in (refined / "report.html").read_text()
    assert "psnr_own_pose" not in evaluation(run)


def evaluation(run: Path, **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = done(verbs.evaluate(EvaluateRequest(run=run, **more)))[1]
    return result


def direct(run: Path) -> list[dict[str, Any]]:
    """The held-out views of the field in memory, which no PLY was made of."""
    field, _ = load_field(Run(run), "cpu")
    _, held_out = read_capture(Path(Run(run).config.capture), None).split()
    return done(loop.evaluate(field, held_out))[1]


def test_evaluation_of_exported_ply_equals_the_field_bit_for_bit(run: Path) -> None:
    result = evaluation(run)
    assert result["exported"] and result["renderer"] == "kernels"
    assert result["per_view"] == direct(run)
    assert "as any reference renderer shows it" in (run / "report.html").read_text()
    assert not list(run.glob("*.tmp-*"))


def test_evaluation_sees_what_the_ply_loses(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it would not be the PLY that is evaluated."""
    read = ply.read

    def darker(path: Path) -> Splats:
        splats = read(path)
        assert isinstance(splats, Splats)
        return Splats(splats.means, splats.log_scales, splats.quats, splats.logit_opacities, splats.sh - 0.5)

    monkeypatch.setattr(ply, "read", darker)
    assert evaluation(run)["psnr"] < sum(view["psnr"] for view in direct(run)) / 2 - 1


def test_evaluation_by_the_reference_agrees(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(run), "--renderer", "reference", "--json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["renderer"] == "reference"
    assert "reference implementation" in (run / "report.html").read_text()
    for view, expected in zip(result["per_view"], direct(run), strict=True):
        assert view["psnr"] == pytest.approx(expected["psnr"], abs=0.02)
        assert view["ssim"] == pytest.approx(expected["ssim"], abs=1e-3)


@pytest.mark.usefixtures("tiny")
def test_evaluation_without_gaussians(tmp_path: Path, capture: Path) -> None:
    out = tmp_path / "run"
    done(verbs.train(TrainRequest(capture=capture, out=out, method="tiny", steps=5)))
    assert not evaluation(out)["exported"]
    with pytest.raises(RunError, match="has no gaussians"):
        evaluation(out, renderer="reference")


def test_evaluation_of_gaussians_that_cannot_be_exported(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    field, card = load_field(Run(run), "cpu")
    field.params[0, 0] = torch.nan  # type: ignore[attr-defined]
    monkeypatch.setattr(verbs, "load_field", lambda *_: (field, card))
    events, result = done(verbs.evaluate(EvaluateRequest(run=run)))
    assert not result["exported"]
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("cannot be exported" in text and "NaN" in text for text in notes)
