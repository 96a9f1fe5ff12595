"""What a browser gets to see of captures and runs: complete, true to what was trained, and never in a job's way."""

from __future__ import annotations

import json
import shutil
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from lumigraph.captures.sample import render_sample
from lumigraph.formats import ply, spz
from lumigraph.methods import train as loop
from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.cameras import Cameras, project
from lumigraph.scene.capture import ArrayPhotos, Capture
from lumigraph.scene.field import Training
from lumigraph.studio import job_runner, previews
from lumigraph.studio.job_runner import Workspace
from lumigraph.studio.run import Run
from lumigraph.studio.training import load_field
from lumigraph.wire import resources
from lumigraph.wire.events import CheckpointWritten, Event, Note
from lumigraph.wire.previews import CapturePreview, EvaluationPreview, RunPreview
from tests.studio.conftest import PHOTOS, SIZE
from tests.studio.tiny import TinyField


def make_workspace(folder: Path, job: str = "a" * 16) -> Workspace:
    workspace = Workspace(folder / "project", folder / "jobs" / job, folder / "project" / "made" / job / "a1")
    for path in (workspace.project, workspace.job, workspace.outputs):
        path.mkdir(parents=True, exist_ok=True)
    return workspace


def done(asked: resources.JobRequest, workspace: Workspace) -> tuple[list[Event], Any]:
    verb, events = job_runner.build_verb(asked, workspace), []
    while True:
        try:
            events.append(next(verb))
        except StopIteration as end:
            return events, end.value


def warnings(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note) and event.level == "warning"]


@pytest.fixture
def posed(tmp_path: Path, capture: Path) -> Workspace:
    """A project into which a posed capture was uploaded."""
    workspace = make_workspace(tmp_path)
    shutil.copytree(capture, workspace.project / "files")
    return workspace


def test_a_training_is_shown_as_it_grows(posed: Workspace) -> None:
    asked = resources.TrainJob(seconds=6, settings={"cap": 2000})
    verb = job_runner.build_verb(asked, posed)
    shown = posed.project / "runs" / posed.id / "shown"
    steps = []
    for event in verb:
        if isinstance(event, CheckpointWritten):
            steps.append((event.step, json.loads((shown / "index.json").read_bytes())["step"]))
    assert len(steps) >= 2
    assert steps[0][0] == steps[0][1], "the first snapshot is told of when it can be seen"
    index = RunPreview.model_validate_json((shown / "index.json").read_bytes())
    card = Run(shown.parent).field_card()
    assert card is not None
    assert (index.step, index.finished, index.method) == (card.step, True, card.method)
    (scene,) = index.parts
    assert len(spz.read(shown / scene)) == index.count
    assert index.bytes == (shown / scene).stat().st_size
    assert [view.name for view in index.views] == ["000.png", "008.png"]
    judged = {view["name"]: view["psnr"] for view in done(resources.EvaluateJob(), posed)[1]["per_view"]}
    for view in index.views:  # photos this small are shown in full size
        assert view.psnr == pytest.approx(judged[view.name], abs=0.01)
        for name in (view.photo, view.render):
            with Image.open(shown / name) as picture:
                assert (picture.format, picture.size) == ("JPEG", SIZE)
    assert len(list(shown.glob("scene-*.spz"))) == 2
    assert not list(shown.glob("*.tmp-*"))


def test_a_large_scene_comes_in_parts(posed: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("MAX_UNSPLIT_GAUSSIANS", 50), ("FIRST_PART_GAUSSIANS", 20), ("PART_GAUSSIANS", 100)):
        monkeypatch.setattr(previews, name, count)
    done(resources.TrainJob(steps=2), posed)
    folder = posed.project / "runs" / posed.id / "shown"
    index = RunPreview.model_validate_json((folder / "index.json").read_bytes())
    parts = [spz.read(folder / name) for name in index.parts]
    sizes = [len(part) for part in parts]
    assert sizes[0] == 20 and set(sizes[1:-1]) == {100} and 0 < sizes[-1] <= 100
    assert sum(sizes) == index.count
    assert index.bytes == sum((folder / name).stat().st_size for name in index.parts)
    splats = load_field(Run(folder.parent), "cpu")[0].splats()  # type: ignore[attr-defined]
    together = torch.cat([part.means for part in parts])
    steps = 2.0**-12  # of the packed positions
    for axis in range(3):  # every gaussian is in one part
        torch.testing.assert_close(
            together[:, axis].sort().values, splats.means[:, axis].sort().values, rtol=0.0, atol=steps
        )

    def cover(splats: Splats) -> Tensor:
        scales = splats.log_scales.exp().sort(dim=1).values
        return torch.sigmoid(splats.logit_opacities) * scales[:, 1] * scales[:, 2]

    for before, after in pairwise(parts):  # what covers most comes first; the packed scales have steps of 6 %
        assert cover(before).min() > 0.85 * cover(after).max()


def test_the_capture_is_shown_before_the_training(posed: Workspace) -> None:
    verb = job_runner.build_verb(resources.TrainJob(steps=5), posed)
    while not isinstance(next(verb), CheckpointWritten):
        pass
    verb.close()
    folder = posed.project / "shown"
    shown = CapturePreview.model_validate_json((folder / "capture.json").read_bytes())
    assert (shown.job, shown.rejected, shown.points) == (None, [], None)
    assert [image.name for image in shown.images] == [f"{i:03d}.png" for i in range(PHOTOS)]
    assert [image.held_out for image in shown.images] == [i % 8 == 0 for i in range(PHOTOS)]
    assert shown.up[2] > 0.9
    for image in shown.images:
        assert (image.width, image.height) == SIZE
        with Image.open(folder / image.thumb) as picture:
            assert picture.size == SIZE
    stamp = (folder / "capture.json").stat().st_mtime_ns
    done(resources.TrainJob(steps=5), posed)
    assert (folder / "capture.json").stat().st_mtime_ns == stamp, "it is not made again"
    time.sleep(0.01)
    (posed.project / "files" / "transforms.json").touch()
    done(resources.TrainJob(steps=5), posed)
    assert (folder / "capture.json").stat().st_mtime_ns > stamp, "other poses are shown"


def test_thumbnails_points_and_cameras_belong_together(tmp_path: Path) -> None:
    source = tmp_path / "sample"
    for _ in render_sample(source, views=3, size=(400, 300), seed=0):
        pass
    for _ in previews.write_capture_preview(source, tmp_path / "shown", "b" * 16):
        pass
    shown = CapturePreview.model_validate_json((tmp_path / "shown" / "capture.json").read_bytes())
    assert shown.job == "b" * 16
    with Image.open(tmp_path / "shown" / shown.images[0].thumb) as picture:
        assert picture.size == (320, 240)
    if shown.points is not None:
        points = ply.read(tmp_path / "shown" / shown.points)
        assert isinstance(points, Points) and len(points) > 0


def test_photos_that_found_no_place_are_named(tmp_path: Path, capture: Path) -> None:
    source = tmp_path / "posed"
    shutil.copytree(capture, source)
    (source / "pose.json").write_text(json.dumps({"not_registered": ["blurred.jpg"]}))
    for _ in previews.write_capture_preview(source, tmp_path / "shown"):
        pass
    shown = CapturePreview.model_validate_json((tmp_path / "shown" / "capture.json").read_bytes())
    assert [(one.name, one.reason) for one in shown.rejected] == [("blurred.jpg", previews.UNREGISTERED_REASON)]


def test_the_first_camera_sees_the_scene(posed: Workspace) -> None:
    done(resources.TrainJob(steps=150, settings={"cap": 500}), posed)
    run = Run(posed.project / "runs" / posed.id)
    start = RunPreview.model_validate_json((run.path / "shown" / "index.json").read_bytes()).start
    cameras, held_out = run.cameras()
    off = (cameras.positions[held_out] - torch.tensor(start.position)).norm(dim=1)
    chosen = cameras[held_out][int(off.argmin())]
    assert off.min() < 1e-4
    pixels, depth = project(chosen, torch.tensor([start.look_at]))
    assert depth.item() > 0
    assert ((pixels[0, 0] - chosen.centre[0]).abs() < 0.01).all()
    assert 1 <= start.fov <= 170


def test_an_evaluation_is_shown_worst_first(posed: Workspace) -> None:
    done(resources.TrainJob(steps=100, settings={"cap": 500}), posed)
    _, evaluation = done(resources.EvaluateJob(), posed)
    shown_in = posed.project / "runs" / posed.id / "shown"
    shown = EvaluationPreview.model_validate_json((shown_in / "evaluation.json").read_bytes())
    assert (shown.psnr, shown.ssim, shown.total) == (evaluation["psnr"], evaluation["ssim"], 2)
    values = [view.psnr for view in shown.views]
    assert values == sorted(values, key=lambda value: value or 0)
    for view in shown.views:
        for name in (view.photo, view.render):
            with Image.open(shown_in / name) as picture:
                assert picture.size == SIZE


def test_a_method_without_gaussians_is_shown_by_its_renders(posed: Workspace, tiny: None) -> None:
    del tiny
    done(resources.TrainJob(method="ngp", steps=20), posed)
    index = RunPreview.model_validate_json((posed.project / "runs" / posed.id / "shown" / "index.json").read_bytes())
    assert (index.parts, index.count, index.bytes) == ([], None, None)
    assert len(index.views) >= 1


def test_what_cannot_be_shown_costs_no_job(posed: Workspace) -> None:
    (posed.project / "shown").write_text("in the way")
    events, result = done(resources.TrainJob(steps=20, settings={"cap": 500}), posed)
    assert result["steps"] == 20
    assert [text for text in warnings(events) if "for the browser" in text]
    shown = posed.project / "runs" / posed.id / "shown"
    shutil.rmtree(shown)
    shown.write_text("in the way")
    events, result = done(resources.EvaluateJob(), posed)
    assert result["views"] == 2
    assert len([text for text in warnings(events) if "for the browser" in text]) == 1


def test_a_stopped_training_shows_how_far_it_came(posed: Workspace, tiny: None) -> None:
    del tiny
    verb = job_runner.build_verb(resources.TrainJob(method="tiny", seconds=60, settings={"pause": 0.01}), posed)
    for _ in range(30):
        next(verb)
    verb.close()
    run = Run(posed.project / "runs" / posed.id)
    card = run.field_card()
    assert card is not None and card.step > 0
    assert json.loads((run.path / "shown" / "index.json").read_bytes())["step"] == card.step


def test_saves_come_soon_and_then_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only steps and saves move."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    class Steady:
        field = TinyField(torch.zeros(10, 3))

        def step(self, i: int, progress: float) -> dict[str, float]:
            clock.now += 0.25
            return {}

        def state(self) -> dict[str, torch.Tensor]:
            return {}

    def saved_at(cost: float) -> list[float]:
        clock.now, saved = 0.0, []

        def save(training: Training, step: int, seconds: float) -> None:
            clock.now += cost
            saved.append(seconds)

        nothing = Capture(
            Cameras(torch.zeros(0, 3, 4), torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, 2, dtype=torch.int64)),
            ArrayPhotos([]),
            (),
            torch.zeros(0, dtype=torch.bool),
        )
        for _ in loop.train(Steady(), nothing, loop.Budget(seconds=100), look_every=1e9, save=save, save_every=20):
            pass
        return saved

    assert saved_at(1 / 64) == [2.25, 6.5, 14.75, 31.0, 51.25, 71.5, 91.75, 100.0]
    assert saved_at(0.5) == [2.25, 12.5, 32.75, 53.0, 73.25, 93.5, 100.0]  # ten seconds, for saves to take a twentieth
