"""A real dispatcher with real workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lumigraph.jobs import dispatcher as dispatching
from lumigraph.jobs.data_folder import DataFolder, InUseError, detect_file_system
from lumigraph.jobs.database import Database
from lumigraph.jobs.dispatcher import Dispatcher
from lumigraph.jobs.executors.prefork import WORKER, PreforkExecutor
from lumigraph.jobs.migrate import migrate
from lumigraph.jobs.store import JobSpec, Store
from lumigraph.wire.events import CheckpointWritten, from_line
from lumigraph.wire.resources import Job, NoopJob
from tests.jobs.workers import at_work, nurseries

PATIENCE = 240.0  # seconds that a busy machine may take over what takes one


class Engine:
    def __init__(self, path: Path, worker: str = WORKER) -> None:
        self.folder = DataFolder(path)
        for name in ("projects", "jobs"):
            (path / name).mkdir(exist_ok=True)
        url = self.folder.database_url()
        self.database = Database(url)
        migrate(self.database)
        self.store = Store(self.database)
        self.executor = PreforkExecutor(self.folder, url, worker)
        self.executor.cores = 2
        self.dispatcher = Dispatcher(self.store, self.executor, retry_delay_s=0.01)
        self.project = self.store.create_project("p").id

    def ask(self, *orders: JobSpec) -> list[Job]:
        jobs = self.store.submit(self.project, orders)
        self.dispatcher.wake()
        return jobs

    def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, self.store.jobs()
            time.sleep(0.02)

    def worker(self, job: Job) -> psutil.Process:
        """The process at work on a job."""
        found: list[psutil.Process] = []

        def look() -> bool:
            found[:] = [process for process, mark in at_work(os.getpid()) if job.id.startswith(mark)]
            return bool(found)

        self.until(look)
        return found[0]

    def close(self) -> None:
        self.dispatcher.stop()
        self.executor.close()
        self.database.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    engine.dispatcher.start()
    yield engine
    engine.close()


def state(engine: Engine, job: Job) -> str:
    return engine.store.job(job.id).state


def test_dispatcher_runs_job(engine: Engine) -> None:
    [job] = engine.ask(JobSpec(NoopJob(steps=12, save_every=5)))
    engine.until(lambda: state(engine, job) == "succeeded")
    history = engine.store.job(job.id)
    assert history.result == {"sum": 78}
    assert (history.stage, history.done, history.total, history.unit) == ("count", 12, 12, "steps")
    lines = (engine.folder.job(job.id) / "events.jsonl").read_bytes().splitlines()
    assert [event.step for line in lines if isinstance(event := from_line(line), CheckpointWritten)] == [5, 10]


def test_dispatcher_resumes_killed_worker(engine: Engine) -> None:
    [job] = engine.ask(JobSpec(NoopJob(steps=60, pause=0.02, save_every=5)))
    engine.until(lambda: engine.store.job(job.id).done >= 10)
    engine.worker(job).kill()
    engine.until(lambda: state(engine, job) == "succeeded")
    history = engine.store.job(job.id)
    assert (history.result, history.attempt, history.crashes) == ({"sum": 1830}, 2, 1)


def test_dispatcher_stores_error(engine: Engine) -> None:
    from lumigraph.wire.resources import EvaluateJob

    [job] = engine.ask(JobSpec(EvaluateJob()))
    engine.until(lambda: state(engine, job) == "failed")
    assert engine.store.job(job.id).error == "this project has no run yet; train first"


def test_dispatcher_fails_job_after_four_crashes(tmp_path: Path) -> None:
    engine = Engine(tmp_path, "tests.jobs.workers:poisonous")
    engine.dispatcher.start()
    [job] = engine.ask(JobSpec(NoopJob()))
    engine.until(lambda: state(engine, job) == "failed")
    history = engine.store.job(job.id)
    assert (history.attempt, history.crashes) == (4, 4)
    assert "signal 11" in str(history.error)
    engine.close()


def test_dispatcher_cancel_keeps_progress(engine: Engine) -> None:
    [job] = engine.ask(JobSpec(NoopJob(steps=10_000, pause=0.01, save_every=10_000)))
    engine.until(lambda: engine.store.job(job.id).done >= 1)
    engine.store.cancel(job.id)
    request = time.monotonic()
    engine.until(lambda: state(engine, job) == "cancelled")
    assert time.monotonic() - request < dispatching.STOP_TIMEOUT_S  # by itself, not by force
    outcome, _ = json.loads((engine.folder.job(job.id) / "count.json").read_text())
    assert outcome >= 1


def test_dispatcher_pause_and_resume(engine: Engine) -> None:
    [job] = engine.ask(JobSpec(NoopJob(steps=100, pause=0.01, save_every=10_000)))
    engine.until(lambda: engine.store.job(job.id).done >= 5)
    engine.store.pause(job.id)
    engine.until(lambda: state(engine, job) == "queued")
    outcome, _ = json.loads((engine.folder.job(job.id) / "count.json").read_text())
    assert outcome >= 5
    engine.store.pause(job.id, paused=False)
    engine.until(lambda: state(engine, job) == "succeeded")
    assert engine.store.job(job.id).result == {"sum": 5050}
    assert engine.store.job(job.id).crashes == 0


def test_dispatcher_kills_unresponsive_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "STOP_TIMEOUT_S", 0.3)
    engine = Engine(tmp_path, "tests.jobs.workers:deaf")
    engine.dispatcher.start()
    [job] = engine.ask(JobSpec(NoopJob()))
    note = tmp_path / "child"
    engine.until(lambda: note.exists() and note.read_text() != "")
    child = psutil.Process(int(note.read_text()))
    engine.store.cancel(job.id)
    engine.until(lambda: state(engine, job) == "cancelled")
    engine.until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    engine.close()


def test_dispatcher_kills_leftover_children(tmp_path: Path) -> None:
    engine = Engine(tmp_path, "tests.jobs.workers:leaky")
    engine.dispatcher.start()
    [job] = engine.ask(JobSpec(NoopJob()))
    engine.until(lambda: state(engine, job) == "failed")  # it said nothing, four times
    child = int((tmp_path / "child").read_text())
    engine.until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    engine.close()


ORPHAN = """
import subprocess, sys, time
from lumigraph.worker import die_with_the_server
die_with_the_server()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def test_worker_ends_with_server(engine: Engine) -> None:
    read, write = os.pipe()  # what the server holds: its end is the end of the server
    worker = subprocess.Popen(
        [sys.executable, "-c", ORPHAN],
        env={**os.environ, "LUMIGRAPH_PARENT": str(read)},
        pass_fds=(read,),
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    child = int(worker.stdout.readline())
    assert worker.poll() is None
    os.close(write)
    assert worker.wait(PATIENCE) == -signal.SIGKILL
    engine.until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    os.close(read)


def test_forkserver_kill_requeues_jobs(engine: Engine) -> None:
    jobs = engine.ask(*(JobSpec(NoopJob(steps=100, pause=0.02, save_every=5)) for _ in range(2)))
    engine.until(lambda: all(engine.store.job(job.id).done >= 10 for job in jobs))
    workers = [engine.worker(job) for job in jobs]
    [nursery] = nurseries(os.getpid())
    nursery.kill()
    engine.until(lambda: all(state(engine, job) == "succeeded" for job in jobs))
    assert [engine.store.job(job.id).result for job in jobs] == 2 * [{"sum": 5050}]
    assert [engine.store.job(job.id).attempt for job in jobs] == [2, 2]
    assert not any(worker.is_running() for worker in workers)


def test_forkserver_ends_when_idle(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumigraph.jobs.executors.prefork.FORKSERVER_IDLE_S", 0.3)
    for _ in range(2):
        [job] = engine.ask(JobSpec(NoopJob()))
        engine.until(lambda: state(engine, job) == "succeeded")  # noqa: B023
        engine.until(lambda: not nurseries(os.getpid()))


def test_forkserver_survives_unwritable_log(engine: Engine) -> None:
    [running] = engine.ask(JobSpec(NoopJob(steps=100, pause=0.02, save_every=5)))
    engine.until(lambda: engine.store.job(running.id).done >= 5)
    order = JobSpec(NoopJob())
    (engine.folder.job(order.id) / "log.txt").mkdir(parents=True)
    engine.ask(order)
    engine.until(lambda: "no worker could be started" in str(engine.store.job(order.id).error))
    engine.until(lambda: state(engine, running) == "succeeded")
    assert engine.store.job(running.id).attempt == 1


def test_dispatcher_stop_and_restart_resumes(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.dispatcher.start()
    [job] = engine.ask(JobSpec(NoopJob(steps=200, pause=0.01, save_every=10_000)))
    engine.until(lambda: engine.store.job(job.id).done >= 20)
    engine.close()
    again = Engine(tmp_path)
    waiting = again.store.job(job.id)
    assert (waiting.state, waiting.crashes) == ("queued", 0)
    outcome, _ = json.loads((again.folder.job(job.id) / "count.json").read_text())
    assert outcome >= 20
    again.dispatcher.start()
    again.until(lambda: state(again, job) == "succeeded")
    assert again.store.job(job.id).result == {"sum": 20100}
    again.close()


def test_worker_is_fenced_after_loss(engine: Engine) -> None:
    [job] = engine.ask(JobSpec(NoopJob(steps=150, pause=0.01, save_every=5)))
    engine.until(lambda: engine.store.job(job.id).done >= 5)
    zombie = engine.worker(job)
    zombie.suspend()
    engine.store.mark_lost(job.id, 1, "thought to be gone")
    engine.until(lambda: engine.store.job(job.id).attempt == 2)  # and waits for the lock of the job's folder
    zombie.resume()
    engine.until(lambda: state(engine, job) == "succeeded")
    history = engine.store.job(job.id)
    assert (history.result, history.attempt) == ({"sum": 11325}, 2)


def test_dispatcher_ignores_clock_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(tmp_path)
    engine.dispatcher.start()
    [job] = engine.ask(JobSpec(NoopJob(steps=40, pause=0.02, save_every=5)))
    engine.until(lambda: engine.store.job(job.id).done >= 5)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    engine.worker(job).kill()
    [second] = engine.ask(JobSpec(NoopJob()))
    engine.until(lambda: state(engine, job) == state(engine, second) == "succeeded")
    engine.close()


def test_data_folder_lock(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    with (
        folder.lock("http://127.0.0.1:7007"),
        pytest.raises(InUseError, match=r"by the server at http://127\.0\.0\.1:7007"),
        DataFolder(tmp_path).lock("http://127.0.0.1:7008"),
    ):
        pass
    with folder.lock("http://127.0.0.1:7008"):
        assert (tmp_path / "lock").read_text() == "http://127.0.0.1:7008"


def test_data_folder_rejects_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert detect_file_system(Path("/proc/self")) == "proc" or sys.platform != "linux"
    monkeypatch.setattr("lumigraph.jobs.data_folder.detect_file_system", lambda _: "nfs4")
    with pytest.raises(ValueError, match=r"network file system \(nfs4\)"):
        DataFolder(tmp_path).database_url()


def test_dispatcher_retries_after_sigkill(engine: Engine) -> None:
    [job] = engine.ask(JobSpec(NoopJob(steps=100, pause=0.02)))
    os.kill(engine.worker(job).pid, signal.SIGKILL)
    engine.until(lambda: engine.store.job(job.id).attempt >= 2)
    engine.store.cancel(job.id)
    engine.until(lambda: state(engine, job) == "cancelled")
