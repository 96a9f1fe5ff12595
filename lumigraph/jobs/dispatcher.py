"""Brings the job table and the processes together: starts what may start, puts back what was lost, ends what does not
stop by itself. Whatever happens to a turn (a full disk, a locked database), the next one begins anew from the table.
"""

from __future__ import annotations

import logging
import threading
import time

from sqlalchemy.exc import DBAPIError

from lumigraph.jobs.executors.base import Executor, WorkerExit
from lumigraph.jobs.store import Store

GRACE = 5.0  # seconds that a worker has to stop when it is asked to
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds before a job that crashed is tried again, doubling
BUSY, IDLE = 0.02, 0.2  # seconds between looks
LOOK_AT_FLAGS = 0.25

log = logging.getLogger(__name__)


class Dispatcher:
    """Runs in a thread of its own. `first_wait`: seconds, for tests that have no time."""

    def __init__(self, store: Store, executor: Executor, first_wait: float = FIRST_WAIT) -> None:
        self._store, self._executor, self._first_wait = store, executor, first_wait
        self._waiting: dict[str, float] = {}  # job -> when it may be tried again, on the clock that never jumps
        self._asked: dict[tuple[str, int], float] = {}  # attempt -> since when it is to stop
        self._looked = 0.0
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Whatever the table says is running died with the server that started it."""
        for job_id, attempt, *_ in self._store.running_attempts():
            self._store.mark_lost(job_id, attempt, "the server was stopped", blame=False)
        self._thread.start()

    def wake(self) -> None:
        """Something was asked: look now."""
        self._wake.set()

    def stop(self) -> None:
        """Lets the workers save, and ends those that take too long; their jobs wait in the queue."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        for claim in self._executor.at_work():
            self._executor.stop(claim.job)
        end = time.monotonic() + GRACE
        while self._executor.at_work():
            if time.monotonic() > end:
                for claim in self._executor.at_work():
                    self._executor.kill(claim.job)
            self._reap(blame=False)
            time.sleep(BUSY)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
            except (OSError, DBAPIError) as error:
                log.warning("the dispatcher could not do its turn and will try again: %s", error)
                self._stopping.wait(1.0)
            self._wake.wait(BUSY if self._executor.at_work() else IDLE)
            self._wake.clear()

    def _turn(self) -> None:
        self._reap()
        now = time.monotonic()
        if now - self._looked >= LOOK_AT_FLAGS:
            self._looked = now
            self._enforce(now)
        self._waiting = {job_id: until for job_id, until in self._waiting.items() if until > now}
        while not self._stopping.is_set():
            cpus, gpus = self._executor.free()
            claim = self._store.lease(cpus, gpus, self._executor.cores, self._waiting) if cpus > 0 else None
            if claim is None:
                break
            try:
                handle = self._executor.start(claim)
            except OSError as error:
                self._store.mark_lost(claim.job, claim.attempt, f"no worker could be started: {error}")
                self._wait(claim.job)
                raise
            self._store.set_handle(claim, handle)

    def _reap(self, blame: bool = True) -> None:
        for gone in self._executor.ended():
            claim = gone.claim
            if self._store.mark_lost(claim.job, claim.attempt, _why(gone), blame=blame) == "queued" and blame:
                self._wait(claim.job)
            self._asked.pop((claim.job, claim.attempt), None)
            self._executor.forget(claim)  # only now: were the table full, it would be told again

    def _wait(self, job_id: str) -> None:
        crashes = self._store.job(job_id).crashes
        if crashes:
            self._waiting[job_id] = time.monotonic() + min(LONGEST_WAIT, self._first_wait * 2.0 ** (crashes - 1))

    def _enforce(self, now: float) -> None:
        for job_id, attempt, cancel, pause in self._store.running_attempts() if self._executor.at_work() else ():
            if cancel or pause:
                since = self._asked.setdefault((job_id, attempt), now)
                if now - since > GRACE:
                    self._executor.kill(job_id)
            else:
                self._asked.pop((job_id, attempt), None)


def _why(gone: WorkerExit) -> str:
    if gone.code < 0:
        return f"its worker was ended by signal {-gone.code}"
    return f"its worker ended with code {gone.code}"
