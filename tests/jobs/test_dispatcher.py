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
from tests.jobs.workers import forkservers, running_workers

WAIT_TIMEOUT_S = 240.0  # a busy machine needs minutes for a second of work


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

    def submit(self, *job_specs: JobSpec) -> list[Job]:
        jobs = self.store.submit(self.project, job_specs)
        self.dispatcher.wake()
        return jobs

    def wait_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + WAIT_TIMEOUT_S
        while not condition():
            assert time.monotonic() < end, self.store.jobs()
            time.sleep(0.02)

    def worker(self, job: Job) -> psutil.Process:
        """Wait for the process that works on a job."""
        processes: list[psutil.Process] = []

        def find() -> bool:
            processes[:] = [process for process, prefix in running_workers(os.getpid()) if job.id.startswith(prefix)]
            return bool(processes)

        self.wait_until(find)
        return processes[0]

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
    [job] = engine.submit(JobSpec(NoopJob(steps=12, save_every=5)))
    engine.wait_until(lambda: state(engine, job) == "succeeded")
    stored_job = engine.store.job(job.id)
    assert stored_job.result == {"sum": 78}
    assert (stored_job.stage, stored_job.done, stored_job.total, stored_job.unit) == ("count", 12, 12, "steps")
    lines = (engine.folder.job(job.id) / "events.jsonl").read_bytes().splitlines()
    assert [event.step for line in lines if isinstance(event := from_line(line), CheckpointWritten)] == [5, 10]


def test_dispatcher_resumes_killed_worker(engine: Engine) -> None:
    [job] = engine.submit(JobSpec(NoopJob(steps=60, pause=0.02, save_every=5)))
    engine.wait_until(lambda: engine.store.job(job.id).done >= 10)
    engine.worker(job).kill()
    engine.wait_until(lambda: state(engine, job) == "succeeded")
    stored_job = engine.store.job(job.id)
    assert (stored_job.result, stored_job.attempt, stored_job.crashes) == ({"sum": 1830}, 2, 1)


def test_dispatcher_stores_error(engine: Engine) -> None:
    from lumigraph.wire.resources import EvaluateJob

    [job] = engine.submit(JobSpec(EvaluateJob()))
    engine.wait_until(lambda: state(engine, job) == "failed")
    assert engine.store.job(job.id).error == "this project has no run yet; train first"


def test_dispatcher_fails_job_after_four_crashes(tmp_path: Path) -> None:
    engine = Engine(tmp_path, "tests.jobs.workers:crash_with_segfault")
    engine.dispatcher.start()
    [job] = engine.submit(JobSpec(NoopJob()))
    engine.wait_until(lambda: state(engine, job) == "failed")
    stored_job = engine.store.job(job.id)
    assert (stored_job.attempt, stored_job.crashes) == (4, 4)
    assert "signal 11" in str(stored_job.error)
    engine.close()


def test_dispatcher_cancel_keeps_progress(engine: Engine) -> None:
    [job] = engine.submit(JobSpec(NoopJob(steps=10_000, pause=0.01, save_every=10_000)))
    engine.wait_until(lambda: engine.store.job(job.id).done >= 1)
    engine.store.cancel(job.id)
    start = time.monotonic()
    engine.wait_until(lambda: state(engine, job) == "cancelled")
    assert time.monotonic() - start < dispatching.STOP_TIMEOUT_S  # without SIGKILL
    steps, _ = json.loads((engine.folder.job(job.id) / "count.json").read_text())
    assert steps >= 1


def test_dispatcher_pause_and_resume(engine: Engine) -> None:
    [job] = engine.submit(JobSpec(NoopJob(steps=100, pause=0.01, save_every=10_000)))
    engine.wait_until(lambda: engine.store.job(job.id).done >= 5)
    engine.store.pause(job.id)
    engine.wait_until(lambda: state(engine, job) == "queued")
    steps, _ = json.loads((engine.folder.job(job.id) / "count.json").read_text())
    assert steps >= 5
    engine.store.pause(job.id, paused=False)
    engine.wait_until(lambda: state(engine, job) == "succeeded")
    assert engine.store.job(job.id).result == {"sum": 5050}
    assert engine.store.job(job.id).crashes == 0


def test_dispatcher_kills_unresponsive_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "STOP_TIMEOUT_S", 0.3)
    engine = Engine(tmp_path, "tests.jobs.workers:ignore_sigterm")
    engine.dispatcher.start()
    [job] = engine.submit(JobSpec(NoopJob()))
    note = tmp_path / "child"
    engine.wait_until(lambda: note.exists() and note.read_text() != "")
    child = psutil.Process(int(note.read_text()))
    engine.store.cancel(job.id)
    engine.wait_until(lambda: state(engine, job) == "cancelled")
    engine.wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    engine.close()


def test_dispatcher_kills_leftover_children(tmp_path: Path) -> None:
    engine = Engine(tmp_path, "tests.jobs.workers:leave_child")
    engine.dispatcher.start()
    [job] = engine.submit(JobSpec(NoopJob()))
    engine.wait_until(lambda: state(engine, job) == "failed")  # after four attempts without a result
    child = int((tmp_path / "child").read_text())
    engine.wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
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
    read_end, write_end = os.pipe()  # the server holds the write end until it exits
    worker = subprocess.Popen(
        [sys.executable, "-c", ORPHAN],
        env={**os.environ, "LUMIGRAPH_PARENT": str(read_end)},
        pass_fds=(read_end,),
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    child = int(worker.stdout.readline())
    assert worker.poll() is None
    os.close(write_end)
    assert worker.wait(WAIT_TIMEOUT_S) == -signal.SIGKILL
    engine.wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    os.close(read_end)


def test_forkserver_kill_requeues_jobs(engine: Engine) -> None:
    jobs = engine.submit(*(JobSpec(NoopJob(steps=100, pause=0.02, save_every=5)) for _ in range(2)))
    engine.wait_until(lambda: all(engine.store.job(job.id).done >= 10 for job in jobs))
    workers = [engine.worker(job) for job in jobs]
    [forkserver] = forkservers(os.getpid())
    forkserver.kill()
    engine.wait_until(lambda: all(state(engine, job) == "succeeded" for job in jobs))
    assert [engine.store.job(job.id).result for job in jobs] == 2 * [{"sum": 5050}]
    assert [engine.store.job(job.id).attempt for job in jobs] == [2, 2]
    assert not any(worker.is_running() for worker in workers)


def test_forkserver_ends_when_idle(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumigraph.jobs.executors.prefork.FORKSERVER_IDLE_S", 0.3)
    for _ in range(2):
        [job] = engine.submit(JobSpec(NoopJob()))
        engine.wait_until(lambda: state(engine, job) == "succeeded")  # noqa: B023
        engine.wait_until(lambda: not forkservers(os.getpid()))


def test_forkserver_survives_unwritable_log(engine: Engine) -> None:
    [running] = engine.submit(JobSpec(NoopJob(steps=100, pause=0.02, save_every=5)))
    engine.wait_until(lambda: engine.store.job(running.id).done >= 5)
    job_spec = JobSpec(NoopJob())
    (engine.folder.job(job_spec.id) / "log.txt").mkdir(parents=True)
    engine.submit(job_spec)
    engine.wait_until(lambda: "no worker could be started" in str(engine.store.job(job_spec.id).error))
    engine.wait_until(lambda: state(engine, running) == "succeeded")
    assert engine.store.job(running.id).attempt == 1


def test_dispatcher_stop_and_restart_resumes(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.dispatcher.start()
    [job] = engine.submit(JobSpec(NoopJob(steps=200, pause=0.01, save_every=10_000)))
    engine.wait_until(lambda: engine.store.job(job.id).done >= 20)
    engine.close()
    restarted_engine = Engine(tmp_path)
    waiting = restarted_engine.store.job(job.id)
    assert (waiting.state, waiting.crashes) == ("queued", 0)
    steps, _ = json.loads((restarted_engine.folder.job(job.id) / "count.json").read_text())
    assert steps >= 20
    restarted_engine.dispatcher.start()
    restarted_engine.wait_until(lambda: state(restarted_engine, job) == "succeeded")
    assert restarted_engine.store.job(job.id).result == {"sum": 20100}
    restarted_engine.close()


def test_worker_is_fenced_after_loss(engine: Engine) -> None:
    [job] = engine.submit(JobSpec(NoopJob(steps=150, pause=0.01, save_every=5)))
    engine.wait_until(lambda: engine.store.job(job.id).done >= 5)
    zombie = engine.worker(job)
    zombie.suspend()
    engine.store.mark_lost(job.id, 1, "no heartbeat")
    # The worker of the second attempt waits for the lock of the job's folder.
    engine.wait_until(lambda: engine.store.job(job.id).attempt == 2)
    zombie.resume()
    engine.wait_until(lambda: state(engine, job) == "succeeded")
    stored_job = engine.store.job(job.id)
    assert (stored_job.result, stored_job.attempt) == ({"sum": 11325}, 2)


def test_dispatcher_ignores_clock_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(tmp_path)
    engine.dispatcher.start()
    [job] = engine.submit(JobSpec(NoopJob(steps=40, pause=0.02, save_every=5)))
    engine.wait_until(lambda: engine.store.job(job.id).done >= 5)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    engine.worker(job).kill()
    [second] = engine.submit(JobSpec(NoopJob()))
    engine.wait_until(lambda: state(engine, job) == state(engine, second) == "succeeded")
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
    [job] = engine.submit(JobSpec(NoopJob(steps=100, pause=0.02)))
    os.kill(engine.worker(job).pid, signal.SIGKILL)
    engine.wait_until(lambda: engine.store.job(job.id).attempt >= 2)
    engine.store.cancel(job.id)
    engine.wait_until(lambda: state(engine, job) == "cancelled")
