"""Workers as processes of this machine, a group each: they end with the server, and whatever they started ends with
them. A nursery forks them; it is there while there are jobs."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from lumigraph.jobs.data_folder import DataFolder
from lumigraph.jobs.executors.base import WorkerExit
from lumigraph.jobs.executors.forkserver import Forkserver, ForkserverLostError
from lumigraph.jobs.store import Lease

PARENT = "LUMIGRAPH_PARENT"  # number of the pipe that closes when the server ends
WORKER = "lumigraph.worker:main"
LIGHT = 1  # small jobs that may run beside one that takes all cores
UNUSED = 60.0  # seconds without a job after which the nursery's memory is given back


class PreforkExecutor:
    """`worker`: MODULE:FUNCTION, the program of a worker."""

    def __init__(self, folder: DataFolder, database_url: str, worker: str = WORKER) -> None:
        self.cores = os.cpu_count() or 1
        self._gpus = [path.name.removeprefix("nvidia") for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]
        self._folder, self._url, self._worker = folder, database_url, worker
        self._children: dict[str, tuple[int, Lease, list[str]]] = {}  # job -> process, attempt, GPUs
        self._gone: dict[str, WorkerExit] = {}
        self._pipe, self._kept_open = os.pipe()  # nobody writes: its end is the end of this process
        self._nursery: Forkserver | None = None
        self._used = time.monotonic()

    def free(self) -> tuple[int, int]:
        taken = sum(claim.cpus for _, claim, _ in self._children.values())
        gpus = sum(len(gpus) for _, _, gpus in self._children.values())
        return self.cores + LIGHT - taken, len(self._gpus) - gpus

    def start(self, claim: Lease) -> str:
        busy = {gpu for _, _, gpus in self._children.values() for gpu in gpus}
        gpus = [gpu for gpu in self._gpus if gpu not in busy][: claim.gpus]
        environment = {PARENT: str(self._pipe), "LUMIGRAPH_DATABASE": self._url}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        own = self._folder.job(claim.job)
        own.mkdir(parents=True, exist_ok=True)
        arguments = [str(self._folder.path), claim.job, str(claim.attempt)]
        try:
            self._nursery = self._nursery or Forkserver(self._worker, keep=[self._pipe])
            pid = self._nursery.fork(f"job {claim.job}", arguments, environment, own / "log.txt")
        except ForkserverLostError:
            self._bury()
            raise
        self._children[claim.job] = (pid, claim, gpus)
        return f"local:{pid}"

    def ended(self) -> list[WorkerExit]:
        if self._nursery is not None:
            try:
                gone = dict(self._nursery.ended())
            except ForkserverLostError:
                gone = {}
                self._bury()
            for job_id, (pid, claim, _) in list(self._children.items()):
                if pid in gone:
                    self._gone[job_id] = WorkerExit(claim, gone[pid])
                    del self._children[job_id]
            self._rest()
        return list(self._gone.values())

    def forget(self, claim: Lease) -> None:
        self._gone.pop(claim.job, None)

    def stop(self, job_id: str) -> None:
        if job_id in self._children and self._nursery is not None:
            with contextlib.suppress(ForkserverLostError):  # which `ended` will find out
                self._nursery.stop(self._children[job_id][0])

    def kill(self, job_id: str) -> None:
        if job_id in self._children and self._nursery is not None:
            with contextlib.suppress(ForkserverLostError):
                self._nursery.kill(self._children[job_id][0])

    def at_work(self) -> list[Lease]:
        return [claim for _, claim, _ in self._children.values()]

    def close(self) -> None:
        if self._nursery is not None:
            self._nursery.close()
        os.close(self._kept_open)
        os.close(self._pipe)

    def _rest(self) -> None:
        if self._children:
            self._used = time.monotonic()
        elif self._nursery is not None and time.monotonic() - self._used > UNUSED:
            self._nursery.close()
            self._nursery = None

    def _bury(self) -> None:
        """The nursery was killed: its workers are nobody's children now, and nobody would know when they end."""
        for job_id, (pid, claim, _) in self._children.items():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            self._gone[job_id] = WorkerExit(claim, -signal.SIGKILL)
        self._children.clear()
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None
