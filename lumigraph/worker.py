"""One attempt of one job: `python -m lumigraph.worker DATA JOB ATTEMPT`, started by an executor. Other server processes
that compute start here too: `--describe` prints the capabilities of the methods, `--live RUN` serves a live view.

The main thread runs the verb. A second thread sends heartbeats to the job table and receives signals: continue, cancel,
pause, or fenced (another attempt owns the job). A third thread kills this process group when the server dies.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from lumigraph.jobs.data_folder import DataFolder, InUseError
from lumigraph.jobs.database import Database
from lumigraph.jobs.store import Heartbeat, OutputFile, Signal, Store
from lumigraph.scene.errors import LumigraphError
from lumigraph.studio import job_runner, registry
from lumigraph.studio.files import remove_stale_files
from lumigraph.wire.events import ArtifactWritten, CheckpointWritten, Event, Note, Progress, to_line
from lumigraph.wire.resources import Job

SIGNAL_POLL_INTERVAL_S = 0.2
MIN_HEARTBEAT_INTERVAL_S = 0.2  # with new progress
MAX_HEARTBEAT_INTERVAL_S = 2.5  # without
TABLE_RETRY_DELAY_S = 1.0
JOB_LOCK_TIMEOUT_S = 30.0  # the worker of a lost attempt must exit within this time
JOB_LOCK_POLL_INTERVAL_S = 0.05
DISK_FULL_DELAY_S = 5.0  # before the job is queued again
MAX_ERROR_CHARACTERS = 4000
WORKER_NICENESS = 10  # keeps the server responsive while jobs use all cores
FENCED_EXIT_CODE = 86  # another attempt owns the job

log = logging.getLogger("lumigraph.worker")


class HeartbeatThread:
    """Thread that sends heartbeats to the job table. `signal` is the last signal received."""

    def __init__(self, store: Store, job: Job) -> None:
        self.signal: Signal = "go"
        self._store, self._job = store, job
        self._heartbeat, self._sent_heartbeat = Heartbeat(), Heartbeat(stage="")
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def report(self, event: Event) -> None:
        """Update the next heartbeat by an event of the verb."""
        b = self._heartbeat
        if isinstance(event, Progress):
            progress = (event.stage, event.done, event.total, event.unit, event.seconds_left)
            self._heartbeat = Heartbeat(*progress, message=b.message, saves=b.saves)
        elif isinstance(event, Note):
            self._heartbeat = Heartbeat(b.stage, b.progress, b.total, b.unit, b.seconds_left, event.text, b.saves)
        elif isinstance(event, CheckpointWritten):
            self._heartbeat = Heartbeat(b.stage, b.progress, b.total, b.unit, b.seconds_left, b.message, b.saves + 1)
        self._wake.set()

    def stop(self) -> None:
        """Send the last heartbeat and stop the thread: no heartbeat may follow the end of the job."""
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        last_sent = -math.inf
        while not self._stop.is_set():
            self._wake.wait(SIGNAL_POLL_INTERVAL_S)  # the first event of a burst is sent at once, the others together
            self._stop.wait(max(0.0, last_sent + MIN_HEARTBEAT_INTERVAL_S - time.monotonic()))
            self._wake.clear()
            heartbeat, age = self._heartbeat, time.monotonic() - last_sent
            try:
                if heartbeat != self._sent_heartbeat or age >= MAX_HEARTBEAT_INTERVAL_S:
                    self._receive(self._store.heartbeat(self._job.id, self._job.attempt, heartbeat))
                    self._sent_heartbeat, last_sent = heartbeat, time.monotonic()
                else:
                    self._receive(self._store.signal(self._job.id, self._job.attempt))
            except (OSError, DBAPIError) as error:  # a full disk or a locked table must not stop the verb
                log.warning("cannot write the heartbeat to the job table: %s", error)
                time.sleep(TABLE_RETRY_DELAY_S)
        with contextlib.suppress(OSError, DBAPIError):
            if self._heartbeat != self._sent_heartbeat:
                self._receive(self._store.heartbeat(self._job.id, self._job.attempt, self._heartbeat))

    def _receive(self, signal: Signal) -> None:
        if signal == "fenced":
            os._exit(FENCED_EXIT_CODE)  # another attempt owns the job: write nothing more
        if self.signal == "go":
            self.signal = signal


def work(data: Path, job_id: str, attempt: int) -> int:
    """Run one attempt. Returns exit code 0 if its outcome is in the job table."""
    folder = DataFolder(data)
    store = Store(Database(os.environ.get("LUMIGRAPH_DATABASE") or folder.database_url()))
    job = store.job(job_id)
    if job.attempt != attempt or job.state != "running":
        return FENCED_EXIT_CODE
    with locked_job_folder(folder, job_id) as job_folder:
        remove_stale_files(job_folder)
        workspace = job_runner.Workspace(
            folder.project(job.project), job_folder, folder.outputs(job.project, job_id, attempt)
        )
        for path in (workspace.project, workspace.outputs):
            path.mkdir(parents=True, exist_ok=True)
        return run_verb(job, workspace, store, folder)


def run_verb(job: Job, workspace: job_runner.Workspace, store: Store, folder: DataFolder) -> int:
    """Run the verb to its end, write its outcome to the job table and return the exit code."""
    heartbeats = HeartbeatThread(store, job)
    term_signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: term_signals.append(number))
    artifacts: list[ArtifactWritten] = []
    result: Any = None
    try:
        verb = job_runner.build_verb(job.request, workspace)
        with contextlib.closing(verb), (workspace.job / "events.jsonl").open("a", buffering=1) as events:
            while heartbeats.signal == "go" and not term_signals:
                try:
                    event = next(verb)
                except StopIteration as end:
                    result = end.value
                    break
                heartbeats.report(event)
                if isinstance(event, ArtifactWritten):
                    artifacts.append(event)
                if not isinstance(event, Progress):
                    events.write(to_line(event) + "\n")
            else:
                verb.close()  # writes a checkpoint
                heartbeats.stop()
                return requeue_or_cancel(job, store, heartbeats.signal)
        files = [output_file(folder, workspace, artifact) for artifact in artifacts if Path(artifact.path).is_file()]
    except LumigraphError as error:
        message = str(error)[:MAX_ERROR_CHARACTERS]
        heartbeats.stop()
        return retry_write(lambda: store.finish(job.id, job.attempt, "failed", error=message))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        heartbeats.report(Note(text="the disk is full; waiting for free space", level="warning"))
        deadline = time.monotonic() + DISK_FULL_DELAY_S
        while heartbeats.signal == "go" and not term_signals and time.monotonic() < deadline:
            time.sleep(SIGNAL_POLL_INTERVAL_S)
        heartbeats.stop()
        return requeue_or_cancel(job, store, heartbeats.signal)
    heartbeats.stop()
    return retry_write(lambda: store.finish(job.id, job.attempt, "succeeded", result=result, files=files))


def requeue_or_cancel(job: Job, store: Store, last_signal: Signal) -> int:
    """Finish a cancelled job; return any other to the queue, where it is retried or stays paused."""
    if last_signal == "cancel":
        return retry_write(lambda: store.finish(job.id, job.attempt, "cancelled"))
    return retry_write(lambda: store.requeue(job.id, job.attempt))


def retry_write(write: Callable[[], bool]) -> int:
    """Write the outcome to the job table, retry until it succeeds: the work is done, and a full disk may be temporary.
    Returns the exit code."""
    while True:
        try:
            return 0 if write() else FENCED_EXIT_CODE
        except (OSError, DBAPIError) as error:
            log.warning("cannot write the outcome to the job table: %s", error)
            time.sleep(TABLE_RETRY_DELAY_S)


def output_file(folder: DataFolder, workspace: job_runner.Workspace, artifact: ArtifactWritten) -> OutputFile:
    """Describe an output file. A file outside the output folder is linked into it, since later jobs may replace it."""
    path = Path(artifact.path)
    if not path.resolve().is_relative_to(workspace.outputs.resolve()):
        link = workspace.outputs / path.name
        link.unlink(missing_ok=True)
        try:
            os.link(path, link)
        except OSError:
            shutil.copyfile(path, link)
        path = link
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return OutputFile(artifact.what, folder.relative_name(path), path.stat().st_size, digest)


@contextlib.contextmanager
def locked_job_folder(folder: DataFolder, job_id: str) -> Iterator[Path]:
    """Lock the folder of a job and yield it. Waits while the worker of a lost attempt still holds the lock; raises
    InUseError if it holds the lock too long."""
    deadline = time.monotonic() + JOB_LOCK_TIMEOUT_S
    with contextlib.ExitStack() as stack:
        while True:
            try:
                job_folder = stack.enter_context(folder.lock_job(job_id))
                break
            except InUseError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(JOB_LOCK_POLL_INTERVAL_S)
        yield job_folder


def die_with_the_server() -> None:
    """Kill this process group when the server dies: its end of a pipe closes."""
    pipe = os.environ.pop("LUMIGRAPH_PARENT", "")
    if not pipe:
        return
    os.set_inheritable(int(pipe), False)

    def wait() -> None:
        os.read(int(pipe), 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, name="server", daemon=True).start()


def describe() -> dict[str, Any]:
    """Return the settings of every method and every export format. The server itself imports no method."""
    from lumigraph.studio import config_schema, exporting

    methods = {name: config_schema.schema(registry.method(name).Config) for name in registry.methods()}
    return {"methods": methods, "default": registry.DEFAULT_METHOD, "formats": exporting.forms()}


def main() -> int:
    if sys.argv[1:] == ["--describe"]:
        os.nice(WORKER_NICENESS)
        print(json.dumps(describe()))
        return 0
    if sys.argv[1:2] == ["--live"]:
        from lumigraph.studio.live_view import run_live_view

        run_live_view(Path(sys.argv[2]))
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    die_with_the_server()
    os.nice(WORKER_NICENESS)
    data, job_id, attempt = sys.argv[1:]
    return work(Path(data), job_id, int(attempt))


if __name__ == "__main__":
    sys.exit(main())
