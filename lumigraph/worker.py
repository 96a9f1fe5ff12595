"""One attempt of one job: `python -m lumigraph.worker DATA JOB ATTEMPT`, started by an executor. (The other processes
that compute for a server begin here too: `--describe` says what the methods offer, `--live RUN` shows a run.)

The main thread pulls the verb. A second one tells the table how far it is and hears what is to be done: go on, stop, be
set aside, or that another attempt has taken over. A third waits for the end of the server, which is the end of this
process and all that it started.
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

LOOK = 0.2  # seconds between looks at what is to be done
TELL = 0.2  # seconds between two tellings of new progress, at least
ALIVE = 2.5  # seconds after which it is told again although nothing is new
PATIENCE = 30.0  # seconds to wait until the worker of a lost attempt is gone
FULL = 5.0  # seconds to wait before a job that found the disk full is tried again
LONGEST_ERROR = 4000  # characters
NICE = 10  # so that the server answers while jobs take all cores
FENCED = 86  # exit code: another attempt has taken over

log = logging.getLogger("lumigraph.worker")


class Teller:
    """The thread that speaks with the table. `word` is what it last heard."""

    def __init__(self, store: Store, job: Job) -> None:
        self.word: Signal = "go"
        self._store, self._job = store, job
        self._beat, self._told = Heartbeat(), Heartbeat(stage="")
        self._ended, self._news = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="teller", daemon=True)
        self._thread.start()

    def tell(self, event: Event) -> None:
        b = self._beat
        if isinstance(event, Progress):
            now = (event.stage, event.done, event.total, event.unit, event.seconds_left)
            self._beat = Heartbeat(*now, message=b.message, saves=b.saves)
        elif isinstance(event, Note):
            self._beat = Heartbeat(b.stage, b.progress, b.total, b.unit, b.seconds_left, event.text, b.saves)
        elif isinstance(event, CheckpointWritten):
            self._beat = Heartbeat(b.stage, b.progress, b.total, b.unit, b.seconds_left, b.message, b.saves + 1)
        self._news.set()

    def end(self) -> None:
        """Say the last word and stop, so that nothing is told after the job's end."""
        self._ended.set()
        self._news.set()
        self._thread.join()

    def _run(self) -> None:
        told_at = -math.inf
        while not self._ended.is_set():
            self._news.wait(LOOK)  # the first of many is told at once, the rest of them together
            self._ended.wait(max(0.0, told_at + TELL - time.monotonic()))
            self._news.clear()
            new, since = self._beat, time.monotonic() - told_at
            try:
                if new != self._told or since >= ALIVE:
                    self._hear(self._store.heartbeat(self._job.id, self._job.attempt, new))
                    self._told, told_at = new, time.monotonic()
                else:
                    self._hear(self._store.signal(self._job.id, self._job.attempt))
            except (OSError, DBAPIError) as error:  # a full disk, a locked table: the work goes on
                log.warning("the table could not be told: %s", error)
                time.sleep(1.0)
        with contextlib.suppress(OSError, DBAPIError):
            if self._beat != self._told:
                self._hear(self._store.heartbeat(self._job.id, self._job.attempt, self._beat))

    def _hear(self, word: Signal) -> None:
        if word == "fenced":
            os._exit(FENCED)  # another attempt owns the job: write nothing more
        if self.word == "go":
            self.word = word


def work(data: Path, job_id: str, attempt: int) -> int:
    """Exit code 0 where the table knows how it ended."""
    folder = DataFolder(data)
    store = Store(Database(os.environ.get("LUMIGRAPH_DATABASE") or folder.database_url()))
    job = store.job(job_id)
    if job.attempt != attempt or job.state != "running":
        return FENCED
    with alone_at(folder, job_id) as own:
        remove_stale_files(own)
        workspace = job_runner.Workspace(folder.project(job.project), own, folder.outputs(job.project, job_id, attempt))
        for made in (workspace.project, workspace.outputs):
            made.mkdir(parents=True, exist_ok=True)
        return pull(job, workspace, store, folder)


def pull(job: Job, workspace: job_runner.Workspace, store: Store, folder: DataFolder) -> int:
    """The verb from its first event to its end, whichever that is."""
    teller = Teller(store, job)
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    made: list[ArtifactWritten] = []
    result: Any = None
    try:
        verb = job_runner.build_verb(job.request, workspace)
        with contextlib.closing(verb), (workspace.job / "events.jsonl").open("a", buffering=1) as events:
            while teller.word == "go" and not stopped:
                try:
                    event = next(verb)
                except StopIteration as end:
                    result = end.value
                    break
                teller.tell(event)
                if isinstance(event, ArtifactWritten):
                    made.append(event)
                if not isinstance(event, Progress):
                    events.write(to_line(event) + "\n")
            else:
                verb.close()  # saves
                teller.end()
                return put_back(job, store, teller.word)
        files = [kept(folder, workspace, event) for event in made if Path(event.path).is_file()]
    except LumigraphError as error:
        said = str(error)[:LONGEST_ERROR]
        teller.end()
        return until_told(lambda: store.finish(job.id, job.attempt, "failed", error=said))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        teller.tell(Note(text="the disk is full; waiting for room", level="warning"))
        until = time.monotonic() + FULL
        while teller.word == "go" and not stopped and time.monotonic() < until:
            time.sleep(LOOK)
        teller.end()
        return put_back(job, store, teller.word)
    teller.end()
    return until_told(lambda: store.finish(job.id, job.attempt, "succeeded", result=result, files=files))


def put_back(job: Job, store: Store, word: Signal) -> int:
    """Into the queue, where it is tried again or waits as it was told; or to its end, where it was to stop."""
    if word == "cancel":
        return until_told(lambda: store.finish(job.id, job.attempt, "cancelled"))
    return until_told(lambda: store.requeue(job.id, job.attempt))


def until_told(write: Callable[[], bool]) -> int:
    """Tells the table how it ended, for as long as it takes: the work is done, and a full disk may pass."""
    while True:
        try:
            return 0 if write() else FENCED
        except (OSError, DBAPIError) as error:
            log.warning("the end could not be told: %s", error)
            time.sleep(1.0)


def kept(folder: DataFolder, workspace: job_runner.Workspace, made: ArtifactWritten) -> OutputFile:
    """The file as this attempt made it. One that lies elsewhere, where later jobs may replace it, is linked."""
    path = Path(made.path)
    if not path.resolve().is_relative_to(workspace.outputs.resolve()):
        kept = workspace.outputs / path.name
        kept.unlink(missing_ok=True)
        try:
            os.link(path, kept)
        except OSError:
            shutil.copyfile(path, kept)
        path = kept
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return OutputFile(made.what, folder.relative_name(path), path.stat().st_size, digest)


@contextlib.contextmanager
def alone_at(folder: DataFolder, job_id: str) -> Iterator[Path]:
    """The job's folder, once the worker of an attempt that was lost has let go of it."""
    end = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as stack:
        while True:
            try:
                own = stack.enter_context(folder.lock_job(job_id))
                break
            except InUseError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        yield own


def die_with_the_server() -> None:
    """Waits for the end of the pipe that the server holds, then ends this process and all that it started."""
    pipe = os.environ.pop("LUMIGRAPH_PARENT", "")
    if not pipe:
        return
    os.set_inheritable(int(pipe), False)

    def wait() -> None:
        os.read(int(pipe), 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, name="server", daemon=True).start()


def describe() -> dict[str, Any]:
    """What the server, which never imports a method, offers: every method's settings, every format."""
    from lumigraph.studio import config_schema, exporting

    methods = {name: config_schema.schema(registry.method(name).Config) for name in registry.methods()}
    return {"methods": methods, "default": registry.DEFAULT_METHOD, "formats": exporting.forms()}


def main() -> int:
    if sys.argv[1:] == ["--describe"]:
        os.nice(NICE)
        print(json.dumps(describe()))
        return 0
    if sys.argv[1:2] == ["--live"]:
        from lumigraph.studio.live_view import run_live_view

        run_live_view(Path(sys.argv[2]))
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    die_with_the_server()
    os.nice(NICE)
    data, job_id, attempt = sys.argv[1:]
    return work(Path(data), job_id, int(attempt))


if __name__ == "__main__":
    sys.exit(main())
