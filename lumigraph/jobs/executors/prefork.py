"""An executor that runs each worker as a process group of this machine.

A worker's children end with it, and all workers end with the server. A forkserver creates the workers; it runs while
there are jobs.
"""

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

PARENT = "LUMIGRAPH_PARENT"  # environment variable: descriptor of the pipe that closes when the server ends
WORKER = "lumigraph.worker:main"
EXTRA_CPUS = 1  # small jobs that may run next to a job that uses all cores
FORKSERVER_IDLE_S = 60.0  # without a job, until the forkserver ends and frees its memory


class PreforkExecutor:
    """`worker` is the worker program, as MODULE:FUNCTION."""

    def __init__(self, folder: DataFolder, database_url: str, worker: str = WORKER) -> None:
        self.cores = os.cpu_count() or 1
        self._gpus = [path.name.removeprefix("nvidia") for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]
        self._folder, self._url, self._worker = folder, database_url, worker
        self._workers: dict[str, tuple[int, Lease, list[str]]] = {}  # job id -> process id, lease, GPUs
        self._exits: dict[str, WorkerExit] = {}
        self._lifetime_pipe, self._write_fd = os.pipe()  # never written to: it closes when this process ends
        self._forkserver: Forkserver | None = None
        self._last_used = time.monotonic()

    def capacity(self) -> tuple[int, int]:
        cpus_in_use = sum(lease.cpus for _, lease, _ in self._workers.values())
        gpus_in_use = sum(len(gpus) for _, _, gpus in self._workers.values())
        return self.cores + EXTRA_CPUS - cpus_in_use, len(self._gpus) - gpus_in_use

    def start(self, lease: Lease) -> str:
        busy = {gpu for _, _, gpus in self._workers.values() for gpu in gpus}
        gpus = [gpu for gpu in self._gpus if gpu not in busy][: lease.gpus]
        environment = {PARENT: str(self._lifetime_pipe), "LUMIGRAPH_DATABASE": self._url}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        job_folder = self._folder.job(lease.job_id)
        job_folder.mkdir(parents=True, exist_ok=True)
        arguments = [str(self._folder.path), lease.job_id, str(lease.attempt)]
        try:
            self._forkserver = self._forkserver or Forkserver(self._worker, inherited_fds=[self._lifetime_pipe])
            pid = self._forkserver.fork(f"job {lease.job_id}", arguments, environment, job_folder / "log.txt")
        except ForkserverLostError:
            self._handle_forkserver_loss()
            raise
        self._workers[lease.job_id] = (pid, lease, gpus)
        return f"local:{pid}"

    def poll(self) -> list[WorkerExit]:
        if self._forkserver is not None:
            try:
                exit_codes = dict(self._forkserver.poll())
            except ForkserverLostError:
                exit_codes = {}
                self._handle_forkserver_loss()
            for job_id, (pid, lease, _) in list(self._workers.items()):
                if pid in exit_codes:
                    self._exits[job_id] = WorkerExit(lease, exit_codes[pid])
                    del self._workers[job_id]
            self._close_idle_forkserver()
        return list(self._exits.values())

    def forget(self, lease: Lease) -> None:
        self._exits.pop(lease.job_id, None)

    def stop(self, job_id: str) -> None:
        if job_id in self._workers and self._forkserver is not None:
            with contextlib.suppress(ForkserverLostError):  # `poll` handles the loss
                self._forkserver.stop(self._workers[job_id][0])

    def kill(self, job_id: str) -> None:
        if job_id in self._workers and self._forkserver is not None:
            with contextlib.suppress(ForkserverLostError):
                self._forkserver.kill(self._workers[job_id][0])

    def leases(self) -> list[Lease]:
        return [lease for _, lease, _ in self._workers.values()]

    def close(self) -> None:
        if self._forkserver is not None:
            self._forkserver.close()
        os.close(self._write_fd)
        os.close(self._lifetime_pipe)

    def _close_idle_forkserver(self) -> None:
        if self._workers:
            self._last_used = time.monotonic()
        elif self._forkserver is not None and time.monotonic() - self._last_used > FORKSERVER_IDLE_S:
            self._forkserver.close()
            self._forkserver = None

    def _handle_forkserver_loss(self) -> None:
        """Kill the workers of a lost forkserver: they have no parent left that could report their exit."""
        for job_id, (pid, lease, _) in self._workers.items():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            self._exits[job_id] = WorkerExit(lease, -signal.SIGKILL)
        self._workers.clear()
        if self._forkserver is not None:
            self._forkserver.close()
            self._forkserver = None
