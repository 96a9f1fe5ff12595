"""The executor protocol. The job table decides; an executor only starts, watches and kills worker processes."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from lumigraph.jobs.store import Lease


class WorkerExit(NamedTuple):
    lease: Lease
    exit_code: int  # negative: the number of the signal that ended the process


class Executor(Protocol):
    cores: int  # the most CPUs that one job can have

    def capacity(self) -> tuple[int, int]:
        """Free CPUs and GPUs."""
        ...

    def start(self, lease: Lease) -> str:
        """Start a worker for this attempt, and return a handle that identifies it."""
        ...

    def poll(self) -> list[WorkerExit]:
        """Attempts whose worker and all its children have exited. Each is reported until `forget`."""
        ...

    def forget(self, lease: Lease) -> None: ...

    def stop(self, job_id: str) -> None:
        """Ask the worker to save, requeue its job and exit."""
        ...

    def kill(self, job_id: str) -> None: ...

    def leases(self) -> list[Lease]:
        """The attempts whose worker runs."""
        ...
