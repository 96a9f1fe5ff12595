"""Real workers, started, watched and ended by a real dispatcher."""

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


def test_a_job_is_done_and_tells_what_happened(engine: Engine) -> None:
    [job] = engine.ask(JobSpec(NoopJob(steps=12, save_every=5)))
    engine.until(lambda: state(engine, job) == "succeeded")
    seen = engine.store.job(job.id)
    assert seen.result == {"sum": 78}
    assert (seen.stage, seen.done, seen.total, seen.unit) == ("count", 12, 12, "steps")
    lines = (engine.folder.job(job.id) / "events.jsonl").read_bytes().splitlines()
    assert [event.step for line in lines if isinstance(event := from_line(line), CheckpointWritten)] == [5, 10]


def test_a_killed_worker_goes_on_from_what_it_saved(engine: Engine) -> None:
    [job] = engine.ask(JobSpec(NoopJob(steps=60, pause=0.02, save_every=5)))
    engine.until(lambda: engine.store.job(job.id).done >= 10)
    engine.worker(job).kill()
    engine.until(lambda: state(engine, job) == "succeeded")
    seen = engine.store.job(job.id)
    assert (seen.result, seen.attempt, seen.crashes) == ({"sum": 1830}, 2, 1)


def test_what_fails_says_why(engine: Engine) -> None:
    from lumigraph.wire.resources import EvaluateJob

    [job] = engine.ask(JobSpec(EvaluateJob()))
    engine.until(lambda: state(engine, job) == "failed")
    assert engine.store.job(job.id).error == "this project has no run yet; train first"


def test_a_poisonous_job_fails_after_four_crashes(tmp_path: Path) -> None:
    engine = Engine(tmp_path, "tests.jobs.workers:poisonous")
    engine.dispatcher.start()
    [job] = engine.ask(JobSpec(NoopJob()))
    engine.until(lambda: state(engine, job) == "failed")
    seen = engine.store.job(job.id)
    assert (seen.attempt, seen.crashes) == (4, 4)
    assert "signal 11" in str(seen.error)
    engine.close()


def test_cancel_is_seen_soon_and_what_was_done_is_kept(engine: Engine) -> None:
    [job] = engine.ask(JobSpec(NoopJob(steps=10_000, pause=0.01, save_every=10_000)))
    engine.until(lambda: engine.store.job(job.id).done >= 1)
    engine.store.cancel(job.id)
    asked = time.monotonic()
    engine.until(lambda: state(engine, job) == "cancelled")
    assert time.monotonic() - asked < dispatching.STOP_TIMEOUT_S  # by itself, not by force
    done, _ = json.loads((engine.folder.job(job.id) / "count.json").read_text())
    assert done >= 1


def test_pause_and_resume(engine: Engine) -> None:
    [job] = engine.ask(JobSpec(NoopJob(steps=100, pause=0.01, save_every=10_000)))
    engine.until(lambda: engine.store.job(job.id).done >= 5)
    engine.store.pause(job.id)
    engine.until(lambda: state(engine, job) == "queued")
    done, _ = json.loads((engine.folder.job(job.id) / "count.json").read_text())
    assert done >= 5
    engine.store.pause(job.id, paused=False)
    engine.until(lambda: state(engine, job) == "succeeded")
    assert engine.store.job(job.id).result == {"sum": 5050}
    assert engine.store.job(job.id).crashes == 0


def test_a_worker_that_does_not_listen_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_what_a_worker_leaves_behind_ends_with_it(tmp_path: Path) -> None:
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


def test_a_worker_and_what_it_started_end_with_the_server(engine: Engine) -> None:
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


def test_a_killed_nursery_takes_its_workers_along_and_their_jobs_go_on(engine: Engine) -> None:
    jobs = engine.ask(*(JobSpec(NoopJob(steps=100, pause=0.02, save_every=5)) for _ in range(2)))
    engine.until(lambda: all(engine.store.job(job.id).done >= 10 for job in jobs))
    workers = [engine.worker(job) for job in jobs]
    [nursery] = nurseries(os.getpid())
    nursery.kill()
    engine.until(lambda: all(state(engine, job) == "succeeded" for job in jobs))
    assert [engine.store.job(job.id).result for job in jobs] == 2 * [{"sum": 5050}]
    assert [engine.store.job(job.id).attempt for job in jobs] == [2, 2]
    assert not any(worker.is_running() for worker in workers)


def test_the_nursery_ends_when_nothing_is_to_be_done(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumigraph.jobs.executors.prefork.FORKSERVER_IDLE_S", 0.3)
    for _ in range(2):
        [job] = engine.ask(JobSpec(NoopJob()))
        engine.until(lambda: state(engine, job) == "succeeded")  # noqa: B023
        engine.until(lambda: not nurseries(os.getpid()))


def test_a_log_that_cannot_be_written_is_that_jobs_fault_alone(engine: Engine) -> None:
    [running] = engine.ask(JobSpec(NoopJob(steps=100, pause=0.02, save_every=5)))
    engine.until(lambda: engine.store.job(running.id).done >= 5)
    order = JobSpec(NoopJob())
    (engine.folder.job(order.id) / "log.txt").mkdir(parents=True)
    engine.ask(order)
    engine.until(lambda: "no worker could be started" in str(engine.store.job(order.id).error))
    engine.until(lambda: state(engine, running) == "succeeded")
    assert engine.store.job(running.id).attempt == 1


def test_stopping_saves_and_the_next_start_goes_on(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.dispatcher.start()
    [job] = engine.ask(JobSpec(NoopJob(steps=200, pause=0.01, save_every=10_000)))
    engine.until(lambda: engine.store.job(job.id).done >= 20)
    engine.close()
    again = Engine(tmp_path)
    waiting = again.store.job(job.id)
    assert (waiting.state, waiting.crashes) == ("queued", 0)
    done, _ = json.loads((again.folder.job(job.id) / "count.json").read_text())
    assert done >= 20
    again.dispatcher.start()
    again.until(lambda: state(again, job) == "succeeded")
    assert again.store.job(job.id).result == {"sum": 20100}
    again.close()


def test_a_stopped_zombie_that_wakes_up_changes_nothing(engine: Engine) -> None:
    [job] = engine.ask(JobSpec(NoopJob(steps=150, pause=0.01, save_every=5)))
    engine.until(lambda: engine.store.job(job.id).done >= 5)
    zombie = engine.worker(job)
    zombie.suspend()
    engine.store.mark_lost(job.id, 1, "thought to be gone")
    engine.until(lambda: engine.store.job(job.id).attempt == 2)  # and waits for the lock of the job's folder
    zombie.resume()
    engine.until(lambda: state(engine, job) == "succeeded")
    seen = engine.store.job(job.id)
    assert (seen.result, seen.attempt) == ({"sum": 11325}, 2)


def test_a_clock_that_jumps_a_day_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_one_server_a_data_folder(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    with (
        folder.lock("http://127.0.0.1:7007"),
        pytest.raises(InUseError, match=r"by the server at http://127\.0\.0\.1:7007"),
        DataFolder(tmp_path).lock("http://127.0.0.1:7008"),
    ):
        pass
    with folder.lock("http://127.0.0.1:7008"):
        assert (tmp_path / "lock").read_text() == "http://127.0.0.1:7008"


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert detect_file_system(Path("/proc/self")) == "proc" or sys.platform != "linux"
    monkeypatch.setattr("lumigraph.jobs.data_folder.detect_file_system", lambda _: "nfs4")
    with pytest.raises(ValueError, match=r"network file system \(nfs4\)"):
        DataFolder(tmp_path).database_url()


def test_signals_have_their_names(engine: Engine) -> None:
    [job] = engine.ask(JobSpec(NoopJob(steps=100, pause=0.02)))
    os.kill(engine.worker(job).pid, signal.SIGKILL)
    engine.until(lambda: engine.store.job(job.id).attempt >= 2)
    engine.store.cancel(job.id)
    engine.until(lambda: state(engine, job) == "cancelled")
