from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import RunError
from lumigraph.studio import files
from lumigraph.studio import run as project
from lumigraph.studio.run import FieldCard, Run, RunConfig, read_events
from lumigraph.wire.events import Event, Metrics, Note, Progress, to_line

CONFIG = RunConfig(
    version="0",
    method="tiny",
    settings={"rate": 0.5, "box": [1, 2]},
    capture="/somewhere",
    downscale=1.0,
    holdout=None,
    seconds=None,
    steps=10,
    device="cpu",
    seed=0,
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", CONFIG)


def state(value: float) -> dict[str, torch.Tensor]:
    return {"a": torch.full((1000,), value), "count": torch.tensor(7), "half": torch.ones(3, dtype=torch.bfloat16)}


def test_a_run_remembers_its_config(run: Run) -> None:
    assert Run(run.path).config == CONFIG


def test_a_folder_that_is_no_run_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        Run(tmp_path / "nothing")
    with pytest.raises(RunError, match=r"is not a run \(it has no config.json\)"):
        Run(tmp_path)
    (tmp_path / "config.json").write_text('{"method": 3')
    with pytest.raises(RunError, match=r"config.json is damaged"):
        Run(tmp_path)


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(RunError, match=r"thesis\.docx"):
        Run.create(tmp_path, CONFIG)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.docx"]


def test_a_new_run_forgets_the_old_one_but_keeps_what_can_be_used_again(run: Run) -> None:
    run.save_checkpoint(state(1), 5, 1.0)
    (run.path / "cache").mkdir()
    (run.path / "cache" / "photo.npy").write_bytes(b"x")
    (run.path / "evaluation.json").write_text("{}")
    again = Run.create(run.path, CONFIG)
    assert again.checkpoint() is None
    assert not (run.path / "evaluation.json").exists()
    assert (run.path / "cache" / "photo.npy").exists()


def test_the_newest_checkpoint_counts_and_two_are_kept(run: Run) -> None:
    assert run.checkpoint() is None
    for step in (10, 20, 30):
        run.save_checkpoint(state(step), step, step / 10)
    found = run.checkpoint()
    assert found is not None
    assert (found.step, found.seconds, found.damaged_files) == (30, 3.0, ())
    for name, tensor in state(30).items():
        assert torch.equal(found.state[name], tensor)
        assert found.state[name].dtype == tensor.dtype
    kept = sorted(file.name for file in (run.path / "checkpoint").iterdir())
    assert kept == ["latest.json", "step-000020.safetensors", "step-000030.safetensors"]


@pytest.mark.parametrize("harm", ["cut", "flip", "gone", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(run: Run, harm: str) -> None:
    run.save_checkpoint(state(1), 10, 1.0)
    newest = run.save_checkpoint(state(2), 20, 2.0)
    data = bytearray(newest.read_bytes())
    if harm == "cut":
        newest.write_bytes(data[:-100])
    elif harm == "flip":
        data[-50] ^= 1
        newest.write_bytes(data)
    elif harm == "gone":
        newest.unlink()
    else:
        newest.write_bytes(b"")
    found = run.checkpoint()
    assert found is not None
    assert (found.step, found.damaged_files) == (10, ("step-000020.safetensors",))


def test_when_all_checkpoints_are_damaged_it_says_so(run: Run) -> None:
    for step in (10, 20):
        run.save_checkpoint(state(1), step, 1.0).write_bytes(b"nonsense")
    with pytest.raises(RunError, match=r"every checkpoint .* is damaged .*--overwrite"):
        run.checkpoint()


def test_a_list_of_checkpoints_cannot_point_outside(run: Run) -> None:
    entry = {"file": "../../secret", "step": 1, "seconds": 1.0, "sha256": "0"}
    (run.path / "checkpoint" / "latest.json").write_text(json.dumps({"checkpoints": [entry]}))
    with pytest.raises(RunError, match=r"latest.json is damaged: checkpoints.0.file"):
        run.checkpoint()


def test_going_back_to_an_older_step_forgets_the_newer(run: Run) -> None:
    """After a fall-back the same steps are done again; the damaged file must not outlive them."""
    run.save_checkpoint(state(1), 10, 1.0)
    run.save_checkpoint(state(2), 20, 2.0).write_bytes(b"damaged")
    run.save_checkpoint(state(3), 15, 1.5)
    found = run.checkpoint()
    assert found is not None
    assert (found.step, found.damaged_files) == (15, ())


def test_a_full_disk_leaves_the_last_checkpoint(run: Run) -> None:
    """A limit on the size of files stands in for the full disk: the write itself fails, midway."""
    run.save_checkpoint(state(1), 10, 1.0)
    large = {"a": torch.zeros(1_000_000)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            run.save_checkpoint(large, 20, 2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert str(caught.value.filename).endswith("step-000020.safetensors")
    found = run.checkpoint()
    assert found is not None
    assert (found.step, found.damaged_files) == (10, ())
    left = sorted(file.name for file in (run.path / "checkpoint").iterdir())
    assert left == ["latest.json", "step-000010.safetensors"]


def test_a_disk_that_fills_at_the_list_leaves_the_last_checkpoint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save_checkpoint(state(1), 10, 1.0)

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(project, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        run.save_checkpoint(state(2), 20, 2.0)
    found = run.checkpoint()
    assert found is not None
    assert found.step == 10


def test_what_a_killed_process_left_is_swept_up(run: Run) -> None:
    folder = run.path / "checkpoint"
    dead = folder / "step-000001.safetensors.tmp-4194305"  # above the largest PID that Linux gives
    dead.mkdir()
    (dead / ".tmpAbCdEf").write_bytes(b"half")
    living = folder / f"step-000002.safetensors.tmp-{os.getppid()}"
    living.mkdir()
    files.remove_stale_files(folder)
    assert not dead.exists()
    assert living.exists()


def test_nothing_is_left_when_the_writer_fails(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), files.atomic_path(target) as temporary:
        temporary.write_text("half")
        (temporary.parent / "more").write_text("of it")
        raise ZeroDivisionError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_field_and_its_card(run: Run) -> None:
    with pytest.raises(RunError, match="has no trained field yet"):
        run.field_state()
    assert run.field_card() is None
    card = FieldCard(version="1", method="tiny", step=3, seconds=1.5, finished=False)
    file = run.save_field(state(1), card)
    found, said = run.field_state()
    assert said == card == run.field_card()
    assert torch.equal(found["a"], state(1)["a"])
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(RunError, match="damaged"):
        run.field_state()


def test_tensors_are_as_readable_as_other_files(run: Run) -> None:
    file = run.save_checkpoint(state(1), 1, 1.0)
    assert file.stat().st_mode == (run.path / "config.json").stat().st_mode


def test_a_field_with_nan_is_refused(run: Run) -> None:
    card = FieldCard(version="1", method="tiny", step=3, seconds=1.5, finished=True)
    run.save_field({"a": torch.tensor([1.0, float("nan")])}, card)
    with pytest.raises(RunError, match="'a' holds numbers that are not finite"):
        run.field_state()


def test_cameras_come_back(run: Run) -> None:
    poses = torch.eye(4)[None, :3].repeat(2, 1, 1)
    cameras = Cameras(poses, torch.ones(2, 2), torch.ones(2, 2) / 2, torch.tensor([[4, 3], [3, 4]]))
    run.save_cameras(cameras, ("a", "b"), torch.tensor([True, False]))
    found, held_out = run.cameras()
    assert torch.equal(found.sizes, cameras.sizes)
    assert torch.equal(found.world_from_cam, poses)
    assert held_out.tolist() == [True, False]


def test_events_are_a_line_each_and_progress_is_not_kept(run: Run) -> None:
    events: list[Event] = [
        Note(text="a\nb"),
        Progress(stage="x", done=1),
        Metrics(step=1, seconds=0.1, values={"loss": float("nan")}),
    ]
    assert list(run.record(iter(events))) == events
    assert len((run.path / "events.jsonl").read_text().splitlines()) == 2
    assert read_events(run.path / "events.jsonl")[0] == events[0]


def test_a_torn_last_line_is_dropped_and_written_over(run: Run) -> None:
    log = run.path / "events.jsonl"
    log.write_text(to_line(Note(text="one")) + "\n" + '{"kind": "note", "te')
    assert read_events(log) == [Note(text="one")]
    list(run.record(iter([Note(text="two")])))
    assert read_events(log) == [Note(text="one"), Note(text="two")]


def test_a_broken_line_in_the_middle_is_named(run: Run) -> None:
    (run.path / "events.jsonl").write_text(to_line(Note(text="one")) + "\ngarbage\n" + to_line(Note(text="two")) + "\n")
    with pytest.raises(RunError, match="line 2"):
        read_events(run.path / "events.jsonl")


def test_history_counts_what_was_done_twice_once(run: Run) -> None:
    def seen(step: int, loss: float) -> Metrics:
        return Metrics(step=step, seconds=step / 10, values={"loss": loss})

    list(run.record(iter([seen(10, 1), seen(20, 2), seen(30, 3)])))
    list(run.record(iter([seen(15, 4), seen(25, 5)])))  # resumed from a checkpoint at 12
    assert [(event.step, event.values["loss"]) for event in run.history()] == [(10, 1), (15, 4), (25, 5)]


def test_closing_the_record_closes_what_is_recorded(run: Run) -> None:
    closed = []

    def forever() -> Iterator[Event]:
        try:
            while True:
                yield Note(text="on and on")
        finally:
            closed.append(True)

    events = run.record(forever())
    next(events)
    events.close()
    assert closed == [True]
