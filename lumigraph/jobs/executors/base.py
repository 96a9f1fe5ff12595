"""Who places processes. The job table decides; an executor only starts, watches and kills."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from lumigraph.jobs.store import Lease


class WorkerExit(NamedTuple):
    claim: Lease
    code: int  # of the process; negative: the signal that ended it


class Executor(Protocol):
    cores: int  # that one job can have at most

    def free(self) -> tuple[int, int]:
        """CPUs and GPUs that are not taken."""
        ...

    def start(self, claim: Lease) -> str:
        """Starts a worker for this attempt; returns what it can be found by."""
        ...

    def ended(self) -> list[WorkerExit]:
        """Attempts whose worker is gone with all its children. Each is named until it is forgotten."""
        ...

    def forget(self, claim: Lease) -> None: ...

    def stop(self, job_id: str) -> None:
        """Asks the worker to save, put its job back and go."""
        ...

    def kill(self, job_id: str) -> None: ...

    def at_work(self) -> list[Lease]: ...
