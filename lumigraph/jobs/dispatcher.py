"""The dispatcher: starts queued jobs, requeues jobs whose worker exited, and kills workers that do not stop.

If a pass fails (full disk, locked database), the next one starts again from the job table.
"""

from __future__ import annotations

import logging
import threading
import time

from sqlalchemy.exc import DBAPIError

from lumigraph.jobs.executors.base import Executor, WorkerExit
from lumigraph.jobs.store import Store

STOP_TIMEOUT_S = 5.0  # from the request to stop until the worker is killed
RETRY_DELAY_S, MAX_RETRY_DELAY_S = 0.5, 60.0  # before a crashed job starts again; doubles with each crash
BUSY_POLL_S, IDLE_POLL_S = 0.02, 0.2
FLAG_POLL_S = 0.25  # between reads of the cancel and pause flags
ERROR_DELAY_S = 1.0

log = logging.getLogger(__name__)


class Dispatcher:
    """Runs in its own thread. Tests pass a shorter `retry_delay_s`."""

    def __init__(self, store: Store, executor: Executor, retry_delay_s: float = RETRY_DELAY_S) -> None:
        self._store, self._executor, self._retry_delay_s = store, executor, retry_delay_s
        self._retry_times: dict[str, float] = {}  # job id -> earliest next start, time.monotonic()
        self._stop_times: dict[tuple[str, int], float] = {}  # (job id, attempt) -> time of the request to stop
        self._last_flag_poll = 0.0
        self._wake, self._stop_event = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Requeue all running jobs, whose workers died with the previous server, and start the thread."""
        for job_id, attempt, *_ in self._store.running_attempts():
            self._store.mark_lost(job_id, attempt, "the server was stopped", blame=False)
        self._thread.start()

    def wake(self) -> None:
        """Start the next pass now, because a request changed the table."""
        self._wake.set()

    def stop(self) -> None:
        """Let the workers save, kill those that exceed STOP_TIMEOUT_S, and leave their jobs in the queue."""
        self._stop_event.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        for lease in self._executor.leases():
            self._executor.stop(lease.job_id)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self._executor.leases():
            if time.monotonic() > deadline:
                for lease in self._executor.leases():
                    self._executor.kill(lease.job_id)
            self._reap(blame=False)
            time.sleep(BUSY_POLL_S)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop_event.is_set():
            try:
                self._run_pass()
            except (OSError, DBAPIError) as error:
                log.warning("the dispatcher's pass failed and will be repeated: %s", error)
                self._stop_event.wait(ERROR_DELAY_S)
            self._wake.wait(BUSY_POLL_S if self._executor.leases() else IDLE_POLL_S)
            self._wake.clear()

    def _run_pass(self) -> None:
        self._reap()
        now = time.monotonic()
        if now - self._last_flag_poll >= FLAG_POLL_S:
            self._last_flag_poll = now
            self._kill_unresponsive(now)
        self._retry_times = {job_id: until for job_id, until in self._retry_times.items() if until > now}
        while not self._stop_event.is_set():
            cpus, gpus = self._executor.capacity()
            lease = self._store.lease(cpus, gpus, self._executor.cores, self._retry_times) if cpus > 0 else None
            if lease is None:
                break
            try:
                handle = self._executor.start(lease)
            except OSError as error:
                self._store.mark_lost(lease.job_id, lease.attempt, f"no worker could be started: {error}")
                self._back_off(lease.job_id)
                raise
            self._store.set_handle(lease, handle)

    def _reap(self, blame: bool = True) -> None:
        for worker_exit in self._executor.poll():
            lease = worker_exit.lease
            state = self._store.mark_lost(lease.job_id, lease.attempt, _describe(worker_exit), blame=blame)
            if state == "queued" and blame:
                self._back_off(lease.job_id)
            self._stop_times.pop((lease.job_id, lease.attempt), None)
            self._executor.forget(lease)  # last: if the write fails, the next poll reports the exit again

    def _back_off(self, job_id: str) -> None:
        crashes = self._store.job(job_id).crashes
        if crashes:
            delay = min(MAX_RETRY_DELAY_S, self._retry_delay_s * 2.0 ** (crashes - 1))
            self._retry_times[job_id] = time.monotonic() + delay

    def _kill_unresponsive(self, now: float) -> None:
        for job_id, attempt, cancel, pause in self._store.running_attempts() if self._executor.leases() else ():
            if cancel or pause:
                since = self._stop_times.setdefault((job_id, attempt), now)
                if now - since > STOP_TIMEOUT_S:
                    self._executor.kill(job_id)
            else:
                self._stop_times.pop((job_id, attempt), None)


def _describe(worker_exit: WorkerExit) -> str:
    if worker_exit.exit_code < 0:
        return f"its worker was ended by signal {-worker_exit.exit_code}"
    return f"its worker ended with code {worker_exit.exit_code}"
