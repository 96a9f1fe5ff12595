from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import av
import cv2
import pytest
import torch

from lumigraph.formats import ply
from lumigraph.methods import train as loop
from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.errors import CaptureError, FormatError, LumigraphError, RunError
from lumigraph.scene.images import write_png
from lumigraph.studio import rendering, training, verbs
from lumigraph.studio.run import Run, read_events
from lumigraph.wire.events import ArtifactWritten, CheckpointWritten, Event, Metrics, Note, Progress
from lumigraph.wire.requests import EvaluateRequest, ExportRequest, RenderRequest, ScanRequest, TrainRequest
from tests.studio.conftest import PHOTOS, SIZE, make_capture
from tests.studio.tiny import TinyField

pytestmark = pytest.mark.usefixtures("tiny")


def done(verb: Generator[Event, None, Any]) -> tuple[list[Event], Any]:
    """All events of a verb, and its result."""
    events = []
    while True:
        try:
            events.append(next(verb))
        except StopIteration as end:
            return events, end.value


def trained(capture: Path, out: Path, **more: Any) -> list[Event]:
    return done(verbs.train(TrainRequest(**{"capture": capture, "out": out, "method": "tiny", "steps": 60, **more})))[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, capture: Path, plugin: Path) -> Generator[Path, None, None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(plugin))
        patch.setattr(training, "MIN_PREVIEW_EVALUATION_INTERVAL_S", 0.0)
        out = tmp_path_factory.mktemp("runs") / "run"
        trained(capture, out, steps=200)
        yield out


def picture(path: Path) -> torch.Tensor:
    """(H, W, 3) uint8"""
    pixels = cv2.imread(str(path))
    assert pixels is not None
    return torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def weights(run: Path) -> torch.Tensor:
    return Run(run).field_state()[0]["weights"]


# ---- train


def test_training_leaves_a_run_that_says_what_was_done(run: Path, capture: Path) -> None:
    found = Run(run)
    card = found.field_card()
    assert card is not None
    assert (card.step, card.finished, card.method) == (200, True, "tiny")
    assert found.config.capture == str(capture.resolve())
    assert found.config.steps == 200
    checkpoint = found.checkpoint()
    assert checkpoint is not None
    assert checkpoint.step == 200
    history = found.history()
    assert history[-1].values["loss"] < history[0].values["loss"]
    assert not any(isinstance(event, Progress) for event in read_events(run / "events.jsonl"))
    cameras, held_out = found.cameras()
    assert len(cameras) == PHOTOS
    assert held_out.nonzero()[:, 0].tolist() == [0, 8]


def test_training_never_sees_held_out_pixels(tmp_path: Path, capture: Path, run: Path) -> None:
    spoiled = tmp_path / "capture"
    shutil.copytree(capture, spoiled)
    for name in ("000.png", "008.png"):
        write_png(spoiled / "images" / name, torch.zeros(SIZE[1], SIZE[0], 3))
    trained(spoiled, tmp_path / "run", steps=200)
    assert torch.equal(weights(tmp_path / "run"), weights(run))


def test_what_was_not_asked_is_chosen_and_said(tmp_path: Path, capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "DEFAULT_LONGEST_SIDE_PX", 24)
    monkeypatch.setattr(training, "default_seconds", lambda photos, megapixels: 0.3)
    events = trained(capture, tmp_path / "run", steps=None)
    said = " ".join(event.text for event in events if isinstance(event, Note))
    assert "photos reduced to 24 pixels on the longer side; --downscale changes that" in said
    assert "training for 0 s, chosen for 10 photos" in said
    config = Run(tmp_path / "run").config
    assert (config.downscale, config.seconds, config.steps) == (2.0, 0.3, None)
    cameras, _ = Run(tmp_path / "run").cameras()
    assert cameras.size(0) == (24, 20)


def test_the_default_budget_grows_with_the_capture_within_bounds() -> None:
    assert training.default_seconds(3, 0.01) == 120
    assert training.default_seconds(50, 0.56) == 220
    assert training.default_seconds(100, 0.64) == 480
    assert training.default_seconds(5000, 2) == 1800


@pytest.mark.parametrize(("holdout", "expected"), [(0, []), (3, [0, 3, 6, 9]), (None, [0, 8])])
def test_which_photos_are_held_out(tmp_path: Path, capture: Path, holdout: int | None, expected: list[int]) -> None:
    trained(capture, tmp_path / "run", steps=2, holdout=holdout)
    assert Run(tmp_path / "run").cameras()[1].nonzero()[:, 0].tolist() == expected


def test_a_run_is_not_overwritten_unasked(tmp_path: Path, capture: Path) -> None:
    out = tmp_path / "run"
    trained(capture, out)
    before = weights(out)
    with pytest.raises(RunError, match="already holds a finished run; add --resume"):
        trained(capture, out, steps=5)
    assert torch.equal(weights(out), before)
    trained(capture, out, steps=5, overwrite=True)
    card = Run(out).field_card()
    assert card is not None
    assert card.step == 5


def test_a_wrong_request_with_overwrite_destroys_nothing(tmp_path: Path, capture: Path) -> None:
    out = tmp_path / "run"
    trained(capture, out)
    with pytest.raises(CaptureError):
        trained(tmp_path / "nothing", out, overwrite=True)
    with pytest.raises(RunError):
        trained(capture, out, overwrite=True, method="splatt")
    with pytest.raises(RunError):
        trained(capture, out, overwrite=True, settings={"rate": "x"})
    assert len(weights(out)) == 10


def test_going_on_ends_where_never_stopping_ends(
    tmp_path: Path, capture: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumigraph.methods.train.PROGRESS_INTERVAL_S", 0.0)  # or all is over before a word is said
    out = tmp_path / "run"
    verb = verbs.train(TrainRequest(capture=capture, out=out, method="tiny", steps=200))
    for event in verb:
        if isinstance(event, Progress) and event.stage == "train" and event.done >= 90:
            break
    verb.close()
    card = Run(out).field_card()
    assert card is not None
    assert not card.finished
    assert 90 <= card.step < 200
    with pytest.raises(RunError, match="already holds an unfinished run"):
        trained(capture, out, steps=200)
    events, _ = done(verbs.train(TrainRequest(capture=capture, out=out, resume=True)))
    assert any(isinstance(event, Note) and f"continuing from step {card.step}" in event.text for event in events)
    assert torch.equal(weights(out), weights(run))
    steps = [event.step for event in Run(out).history()]
    assert steps == sorted(set(steps))


def test_a_finished_run_goes_on_only_with_more_budget(tmp_path: Path, capture: Path, run: Path) -> None:
    out = tmp_path / "run"
    trained(capture, out, steps=60)
    before = weights(out)
    events, _ = done(verbs.train(TrainRequest(capture=capture, out=out, resume=True)))
    assert ["has finished 60 steps" in event.text for event in events if isinstance(event, Note)] == [True]
    assert torch.equal(weights(out), before)
    done(verbs.train(TrainRequest(capture=capture, out=out, resume=True, steps=200)))
    assert torch.equal(weights(out), weights(run))


def test_resume_without_anything_to_resume_starts(tmp_path: Path, capture: Path) -> None:
    trained(capture, tmp_path / "run", steps=3, resume=True)
    card = Run(tmp_path / "run").field_card()
    assert card is not None
    assert (card.step, card.finished) == (3, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"rate": 0.3}}, "begun with rate 0.1, not 0.3"),
        ({"downscale": 2}, "begun with downscale 1.0, not 2.0"),
        ({"holdout": 4}, "begun with holdout None, not 4"),
        ({"seed": 9}, "begun with seed 0, not 9"),
        ({"method": "splat"}, "begun with method tiny, not splat"),
    ],
)
def test_going_on_as_another_run_is_refused(
    tmp_path: Path, capture: Path, run: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(RunError, match=said):
        done(verbs.train(TrainRequest(**{"capture": capture, "out": run, "resume": True, "steps": 300, **change})))


def test_a_state_that_another_version_or_method_wrote_is_refused_with_its_name(tmp_path: Path, capture: Path) -> None:
    trained(capture, tmp_path, steps=2)
    state, card = Run(tmp_path).field_state()
    del state["weights"]
    Run(tmp_path).save_field(state, card.model_copy(update={"version": "0.0.7", "method": "ngp"}))
    with pytest.raises(RunError, match=r"not a field of the method ngp.*was written by Lumigraph 0\.0\.7"):
        done(verbs.render(RenderRequest(run=tmp_path, out=tmp_path / "still.png")))


def test_a_capture_that_was_moved_is_found_again(tmp_path: Path, capture: Path) -> None:
    first, second, out = tmp_path / "first", tmp_path / "second", tmp_path / "run"
    shutil.copytree(capture, first)
    trained(first, out, steps=20)
    with pytest.raises(RunError, match="begun with the capture"):
        trained(capture, out, steps=30, resume=True)
    first.rename(second)
    trained(second, out, steps=30, resume=True)
    assert Run(out).config.capture == str(second)
    second.rename(first)
    with pytest.raises(CaptureError, match="second does not exist"):
        done(verbs.evaluate(EvaluateRequest(run=out)))


def test_a_damaged_checkpoint_costs_some_steps_and_is_said(
    tmp_path: Path, capture: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(training, "CHECKPOINT_INTERVAL_S", 0.0)
        trained(capture, out, steps=8)
    (newest,) = (out / "checkpoint").glob("step-000008*")
    newest.write_bytes(newest.read_bytes()[:-7])
    events = trained(capture, out, steps=200, resume=True)
    warnings = [event.text for event in events if isinstance(event, Note) and event.level == "warning"]
    assert warnings == ["the checkpoint step-000008.safetensors is damaged; using the previous one"]
    assert torch.equal(weights(out), weights(run))


def test_an_unfinished_run_can_be_judged_and_seen(tmp_path: Path, capture: Path) -> None:
    out = tmp_path / "run"
    verb = verbs.train(TrainRequest(capture=capture, out=out, method="tiny", steps=1000))
    while not isinstance(next(verb), Metrics):
        pass
    verb.close()
    assert not done(verbs.evaluate(EvaluateRequest(run=out)))[1]["finished"]
    done(verbs.render(RenderRequest(run=out, out=tmp_path / "a.png")))


# ---- evaluate


def test_evaluation_is_written_returned_and_reported(run: Path) -> None:
    events, evaluation = done(verbs.evaluate(EvaluateRequest(run=run)))
    assert evaluation == json.loads((run / "evaluation.json").read_text())
    assert evaluation["method"] == "tiny"
    assert evaluation["views"] == 2
    assert evaluation["steps"] == 200
    assert evaluation["size"] == 12
    assert evaluation["size_unit"] == "gaussians"
    assert evaluation["train_seconds"] > 0
    assert [view["name"] for view in evaluation["per_view"]] == ["000.png", "008.png"]
    assert evaluation["psnr"] == pytest.approx(sum(view["psnr"] for view in evaluation["per_view"]) / 2)
    assert evaluation["psnr"] > 20
    assert 0 < evaluation["ssim"] <= 1
    report = (run / "report.html").read_text()
    worst = min(evaluation["per_view"], key=lambda view: view["psnr"])["name"]
    assert report.count("<figure><img") == 6
    assert report.index(f"<h3>{worst}") == report.index("<h3>")
    made = [event.path for event in events if isinstance(event, ArtifactWritten)]
    assert made == [str(run / "evaluation.json"), str(run / "report.html")]


def test_equal_pictures_are_valid_json(tmp_path: Path, capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    trained(capture, out, steps=2)
    perfect = [{"name": "a", "psnr": math.inf, "ssim": 1.0}, {"name": "b", "psnr": 20.0, "ssim": 1.0}]

    def views(*_: object) -> Generator[Event, None, list[dict[str, Any]]]:
        yield Progress(stage="evaluate", done=1)
        return perfect

    monkeypatch.setattr(loop, "evaluate", views)
    done(verbs.evaluate(EvaluateRequest(run=out)))
    evaluation = json.loads((out / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert evaluation["psnr"] is None
    assert evaluation["per_view"][0]["psnr"] is None


def test_nothing_held_out_is_nothing_to_judge_by(tmp_path: Path, capture: Path) -> None:
    trained(capture, tmp_path / "run", steps=2, holdout=0)
    with pytest.raises(RunError, match="holds out no views"):
        done(verbs.evaluate(EvaluateRequest(run=tmp_path / "run")))


def test_a_hostile_photo_name_stays_text(tmp_path: Path) -> None:
    evil = make_capture(tmp_path / "capture", 10)
    transforms = json.loads((evil / "transforms.json").read_text())
    for frame in transforms["frames"]:
        name = frame["file_path"].replace("images/", "images/<b onclick=x>&'\"")
        (evil / frame["file_path"]).rename(evil / name)
        frame["file_path"] = name
    (evil / "transforms.json").write_text(json.dumps(transforms))
    trained(evil, tmp_path / "run", steps=2)
    done(verbs.evaluate(EvaluateRequest(run=tmp_path / "run")))
    report = (tmp_path / "run" / "report.html").read_text()
    assert "<b onclick" not in report
    assert "&lt;b onclick=x&gt;&amp;" in report


# ---- render


def rendered(run: Path, out: Path, **more: Any) -> list[Event]:
    return done(verbs.render(RenderRequest(run=run, out=out, **more)))[0]


def test_a_film_of_the_default_path(run: Path, tmp_path: Path) -> None:
    rendered(run, tmp_path / "deep" / "film.mp4", frames=6, fps=12)
    with av.open(str(tmp_path / "deep" / "film.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == SIZE
        assert stream.average_rate == 12
        assert sum(1 for _ in container.decode(stream)) == 6


def test_an_odd_size_becomes_even_in_a_film_only(run: Path, tmp_path: Path) -> None:
    events = rendered(run, tmp_path / "film.mp4", frames=2, size=(33, 21))
    assert any(isinstance(event, Note) and "32x20" in event.text for event in events)
    rendered(run, tmp_path / "still.png", size=(33, 21))
    assert picture(tmp_path / "still.png").shape == (21, 33, 3)


def test_one_picture_is_the_first_held_out_view(run: Path, tmp_path: Path) -> None:
    rendered(run, tmp_path / "still.png")
    shown = picture(tmp_path / "still.png")
    cameras, held_out = Run(run).cameras()
    expected = TinyField(weights(run)).render(cameras[int(held_out.nonzero()[0])]).rgb[0].clamp(0, 1) * 255
    assert (shown - expected).abs().max() <= 0.51


def test_a_folder_of_pictures(run: Path, tmp_path: Path) -> None:
    rendered(run, tmp_path / "frames", frames=3, path="spiral")
    assert sorted(file.name for file in (tmp_path / "frames").iterdir()) == ["00001.png", "00002.png", "00003.png"]


def test_key_frames_are_met(run: Path) -> None:
    like, _ = Run(run).cameras()
    keys = run / "keys.json"
    keys.write_text(
        json.dumps(
            {
                "keyframes": [
                    {"position": [3, 0, 1], "look_at": [0, 0, 0], "fov": 90},
                    {"position": [0, 3, 1], "look_at": [0, 0, 0], "up": [0, 0, 1]},
                ]
            }
        )
    )
    try:
        path = rendering.camera_path(str(keys), like, 5)
    finally:
        keys.unlink()
    assert path.positions[0].tolist() == pytest.approx([3, 0, 1])
    assert path.positions[-1].tolist() == pytest.approx([0, 3, 1])
    assert path.focal[0].tolist() == pytest.approx([SIZE[1] / 2] * 2)
    assert path.focal[-1].tolist() == pytest.approx([50, 50])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "Invalid JSON"),
        ("{}", "keyframes: Field required"),
        ('{"keyframes": []}', "keyframes: .*at least 1"),
        ('{"keyframes": [{"position": [0, 0], "look_at": [0, 0, 1]}]}', r"keyframes\.0\.position"),
        ('{"keyframes": [{"position": [0, 0, NaN], "look_at": [0, 0, 1]}]}', r"keyframes\.0\.position\.2"),
        ('{"keyframes": [{"position": [0, 0, 1], "look_at": [0, 0, 1]}]}', "cannot look at the point where it stands"),
        ('{"keyframes": [{"position": [0, 0, 1], "look_at": [0, 0, 0], "fov": 180}]}', "fov"),
        ('{"keyframes": [{"position": [0, 0, 1], "look_at": [0, 0, 0], "roll": 1}]}', "roll"),
    ],
)
def test_bad_key_frames_are_named(run: Path, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(RunError, match=said):
        rendered(run, tmp_path / "a.png", path=str(tmp_path / "keys.json"))


@pytest.mark.parametrize(
    ("out", "path", "said"),
    [
        ("a.gif", None, r"cannot render to '\.gif'"),
        ("a.mp4", "loop", "there is no path 'loop'"),
        ("a.mp4", "no.json", r"no\.json does not exist"),
    ],
)
def test_what_cannot_be_rendered(run: Path, tmp_path: Path, out: str, path: str | None, said: str) -> None:
    with pytest.raises(RunError, match=said):
        rendered(run, tmp_path / out, path=path)
    assert list(tmp_path.iterdir()) == []


def test_another_shape_shows_less_and_keeps_the_middle() -> None:
    poses = torch.eye(4)[None, :3]
    from lumigraph.scene.cameras import Cameras

    square = Cameras(poses, torch.tensor([[50.0, 50.0]]), torch.tensor([[26.0, 24.0]]), torch.tensor([[48, 48]]))
    wide = rendering.resize(square, (96, 48))
    assert wide.focal.tolist() == [[100.0, 100.0]]
    assert wide.centre.tolist() == [[48.0 + 2 * 2, 24.0]]
    assert wide.size(0) == (96, 48)


# ---- export


def test_splats_and_points_as_ply(run: Path, tmp_path: Path) -> None:
    done(verbs.export(ExportRequest(run=run, out=tmp_path / "new" / "scene.ply")))
    splats = ply.read(tmp_path / "new" / "scene.ply")
    assert isinstance(splats, Splats)
    assert len(splats) == 12
    done(verbs.export(ExportRequest(run=run, out=tmp_path / "points.PLY", kind="centres")))
    points = ply.read(tmp_path / "points.PLY")
    assert isinstance(points, Points)
    assert len(points) == int((torch.sigmoid(torch.linspace(-6, 6, 12)) >= 0.1).sum())
    assert points.rgb is not None
    assert (points.rgb == 128).all()


@pytest.mark.parametrize("name", ["scene.doc", "scene", "scene.ply.bak"])
def test_an_unknown_format_lists_those_that_exist(run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match=r"formats that can be written: .*\.ply"):
        done(verbs.export(ExportRequest(run=run, out=tmp_path / name)))


# ---- scan


def test_scan_of_a_posed_capture_makes_everything_once(tmp_path: Path, capture: Path) -> None:
    out = tmp_path / "run"
    request = ScanRequest(source=capture, out=out, method="tiny", steps=30)
    events, evaluation = done(verbs.scan(request))
    assert evaluation["views"] == 2
    for name in ("evaluation.json", "report.html", "turntable.mp4", "scene.ply", "field.safetensors"):
        assert (out / name).stat().st_size > 0, name
    assert any(isinstance(event, CheckpointWritten | ArtifactWritten) for event in events)
    times = {file.name: file.stat().st_mtime_ns for file in out.iterdir() if file.is_file()}
    _, again = done(verbs.scan(request))
    assert again == evaluation
    changed = {name for name, time in times.items() if (out / name).stat().st_mtime_ns != time}
    assert changed <= {"config.json", "events.jsonl"}
    (out / "turntable.mp4").unlink()
    done(verbs.scan(request))
    assert (out / "turntable.mp4").exists()
    assert (out / "scene.ply").stat().st_mtime_ns == times["scene.ply"]


def test_scan_goes_on_where_it_stopped(tmp_path: Path, capture: Path, run: Path) -> None:
    out = tmp_path / "run"
    request = ScanRequest(source=capture, out=out, method="tiny", steps=200)
    verb = verbs.scan(request)
    for event in verb:
        if isinstance(event, Progress) and event.stage == "train" and event.done >= 50:
            break
    verb.close()
    events, _ = done(verbs.scan(request))
    assert any(isinstance(event, Note) and "continuing from step" in event.text for event in events)
    assert torch.equal(weights(out), weights(run))


def test_scan_poses_photos_once_and_knows_whose_they_were(
    tmp_path: Path, capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    posed = []

    def pose(request: Any) -> Generator[Event, None, None]:
        posed.append(request.source)
        shutil.copytree(capture, request.out)
        yield Progress(stage="match", done=1)

    monkeypatch.setattr(verbs, "pose", pose)
    photos, out = capture / "images", tmp_path / "run"
    request = ScanRequest(source=photos, out=out, method="tiny", steps=10)
    done(verbs.scan(request))
    done(verbs.scan(request))
    assert posed == [photos]
    assert Run(out).config.capture == str((out / "capture").resolve())
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    with pytest.raises(RunError, match="begun with other photos"):
        done(verbs.scan(request.model_copy(update={"source": other})))
    done(verbs.scan(request.model_copy(update={"source": other, "overwrite": True})))
    assert posed == [photos, other]


@pytest.mark.parametrize("verb", [verbs.evaluate, verbs.render, verbs.export])
def test_a_verb_on_a_folder_that_is_no_run(tmp_path: Path, verb: Callable[[Any], Any]) -> None:
    requests = {
        "evaluate": EvaluateRequest(run=tmp_path),
        "render": RenderRequest(run=tmp_path, out=tmp_path / "a.png"),
        "export": ExportRequest(run=tmp_path, out=tmp_path / "a.ply"),
    }
    with pytest.raises(LumigraphError, match=r"is not a run \(it has no config\.json\)"):
        done(verb(requests[verb.__name__]))
