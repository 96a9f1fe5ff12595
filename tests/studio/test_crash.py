"""A training that is killed, interrupted or out of disk at any moment goes on and ends as if nothing had been."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest
import torch

from lumigraph.cli import main as cli
from lumigraph.studio import registry, training
from lumigraph.studio import run as project
from lumigraph.studio.run import Run, read_events
from tests.studio.conftest import ROOT

STEPS = 80
PAUSE = 0.005  # seconds a step sleeps, so that there is time to be killed in
PATIENCE = 240.0  # seconds that a busy machine may take over what takes one

Weights = torch.Tensor


def work(argv: list[str], plugin: str, log: str) -> None:
    """In a process of its own: a command line that saves as often as it can."""
    sys.path.insert(0, plugin)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    torch.set_num_threads(1)
    training.CHECKPOINT_INTERVAL_S = 0.0
    sys.exit(cli.main(argv))


class Worker:
    """Starts `lumigraph train` in processes that have imported everything beforehand."""

    def __init__(self, context: ForkServerContext, plugin: Path, capture: Path, folder: Path, *asked: str) -> None:
        """`asked`: the method and what it is to do."""
        self.run, self.log = folder / "run", folder / "log"
        self._context, self._plugin, self._capture = context, plugin, capture
        self._asked = asked or ("-m", "tiny", "--steps", str(STEPS), "--set", f"pause={PAUSE}")

    def start(self, *more: str) -> ForkServerProcess:
        argv = ["train", str(self._capture), "-o", str(self.run), "-q", *self._asked, *more]
        process = self._context.Process(target=work, args=(argv, str(self._plugin), str(self.log)))
        process.start()
        return process

    def wait_for_a_checkpoint(self, process: ForkServerProcess) -> None:
        end = time.monotonic() + PATIENCE
        while not (self.run / "checkpoint" / "latest.json").exists():
            assert process.is_alive(), self.log.read_text()
            assert time.monotonic() < end
            time.sleep(0.005)

    def field(self) -> dict[str, torch.Tensor]:
        return Run(self.run).field_state()[0]

    def weights(self) -> Weights:
        return self.field()["weights"]


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.studio.test_crash", "lumigraph.studio.verbs", "tests.studio.tiny"])
    return context


@pytest.fixture
def worker(context: ForkServerContext, plugin: Path, capture: Path, tmp_path: Path) -> Worker:
    return Worker(context, plugin, capture, tmp_path)


@pytest.fixture(scope="module")
def undisturbed(
    context: ForkServerContext, plugin: Path, capture: Path, tmp_path_factory: pytest.TempPathFactory
) -> Weights:
    """What the same training gives when nothing happens to it."""
    alone = Worker(context, plugin, capture, tmp_path_factory.mktemp("alone"))
    process = alone.start()
    process.join(PATIENCE)
    assert process.exitcode == 0, alone.log.read_text()
    return alone.weights()


def loadable(run: Path) -> int:
    """Everything a run promises to hold at any moment; returns the steps done."""
    found = Run(run)
    checkpoint = found.checkpoint()
    if checkpoint is None:
        return 0
    assert checkpoint.damaged_files == ()
    if found.field_card() is not None:
        found.field_state()
    found.cameras()
    read_events(run / project.LOG)
    return checkpoint.step


def test_killed_again_and_again_it_ends_where_it_would_have(worker: Worker, undisturbed: Weights) -> None:
    chance = random.Random(5)
    done, kills = 0, 0
    while kills < 12:
        process = worker.start("--resume")
        if kills == 0:
            worker.wait_for_a_checkpoint(process)
        process.join(chance.uniform(0.02, 0.25))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
        if (worker.run / project.CONFIG).exists():
            steps = loadable(worker.run)
            assert steps >= done
            done = steps
    assert kills >= 3
    assert done > 0
    last = worker.start("--resume")
    last.join(PATIENCE)
    assert last.exitcode == 0, worker.log.read_text()
    assert loadable(worker.run) == STEPS
    assert torch.equal(worker.weights(), undisturbed)
    left = [path.name for path in worker.run.rglob("*.tmp-*")]
    assert left == []


SMALL = {
    "splat": ("cap=500",),
    "ngp": ("log2_entries=10", "samples=2048", "cells=16"),
    "nerf": ("rays=64", "width=32", "coarse=8", "fine=8"),
}


@pytest.mark.parametrize("method", registry.METHODS)
def test_each_method_goes_on_from_where_it_was_killed(
    context: ForkServerContext, plugin: Path, capture: Path, tmp_path: Path, method: str
) -> None:
    asked = ["-m", method, "--steps", "16", *(word for setting in SMALL[method] for word in ("--set", setting))]
    (tmp_path / "alone").mkdir(), (tmp_path / "killed").mkdir()
    alone = Worker(context, plugin, capture, tmp_path / "alone", *asked)
    process = alone.start()
    process.join(PATIENCE)
    assert process.exitcode == 0, alone.log.read_text()

    worker = Worker(context, plugin, capture, tmp_path / "killed", *asked)
    process = worker.start()
    worker.wait_for_a_checkpoint(process)
    process.kill()
    process.join()
    assert 0 < loadable(worker.run) < 16
    again = worker.start("--resume")
    again.join(PATIENCE)
    assert again.exitcode == 0, worker.log.read_text()
    expected = alone.field()
    for name, tensor in worker.field().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_says_how_to_go_on_and_goes_on(
    worker: Worker, undisturbed: Weights, number: signal.Signals
) -> None:
    process = worker.start()
    worker.wait_for_a_checkpoint(process)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(PATIENCE)
    assert process.exitcode == 128 + number
    said = worker.log.read_text()
    assert "continue with: lumigraph train" in said
    assert "--resume" in said
    assert "Traceback" not in said
    before = loadable(worker.run)
    assert 0 < before < STEPS
    card = Run(worker.run).field_card()
    assert card is not None
    assert (card.step, card.finished) == (before, False)  # saved at the stop, not only at the last interval
    again = worker.start("--resume")
    again.join(PATIENCE)
    assert again.exitcode == 0, worker.log.read_text()
    assert torch.equal(worker.weights(), undisturbed)


@pytest.fixture
def small_files() -> Generator[None, None, None]:
    """Files may not grow beyond 2000 bytes: writes fail midway, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("tiny", "small_files")
def test_a_disk_that_fills_during_training_ends_it_in_one_sentence(
    capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event log grows to the limit while checkpoints still fit: the training stops there, and can go on."""
    monkeypatch.setattr(training, "MIN_PREVIEW_EVALUATION_INTERVAL_S", 0.0)
    out = tmp_path / "run"
    argv = ["train", str(capture), "-o", str(out), "-m", "tiny", "--steps", "400", "-q"]
    assert cli.main(argv) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert os.strerror(errno.EFBIG) in said[0]
    assert 0 < loadable(out) < 400
    assert not list(out.rglob("*.tmp-*"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    assert cli.main([*argv, "--resume"]) == 0
    assert loadable(out) == 400


def test_the_command_in_a_terminal_of_its_own(plugin: Path, capture: Path, tmp_path: Path) -> None:
    """Once as a person has it: a new interpreter, plain lines on stderr, results on stdout."""
    command = [sys.executable, "-m", "lumigraph", "train", str(capture), "-o", str(tmp_path / "run"), "-m", "tiny"]
    path = os.pathsep.join([str(plugin), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, "--seconds", "0.2"],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    field, steps = tmp_path / "run" / "field.safetensors", loadable(tmp_path / "run")
    assert done.stdout.startswith(f"{field}  (field after {steps} steps in ")
    assert done.stdout.count("\n") == 1
    assert "train: " in done.stderr
    assert "Traceback" not in done.stderr
