"""Soak test: kills workers and servers at random, then checks that no job is lost, duplicated or wrong.

python -m tests.jobs.soak --kills 1000      make soak
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from sqlalchemy import text

from lumigraph.jobs.database import Database
from lumigraph.jobs.migrate import migrate
from lumigraph.jobs.store import MAX_CRASHES, JobSpec, Store
from lumigraph.wire.resources import Job, NoopJob
from tests.jobs.workers import forkservers, running_workers

STEPS, PAUSE_S, SAVE_EVERY = 60, 0.02, 5
EXPECTED_SUM = STEPS * (STEPS + 1) // 2
ACTIVE_JOBS = 4
SERVER_KILL_SHARE, FORKSERVER_KILL_SHARE = 0.15, 0.05  # of all kills
PROGRESS_TIMEOUT_S = 240.0
EXIT_TIMEOUT_S = 5.0


@dataclass
class Report:
    workers: int = 0
    forkservers: int = 0  # each with all its workers
    servers: int = 0
    job_count: int = 0
    recovery_seconds: list[float] = field(default_factory=list)  # from a kill to new progress
    faults: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.workers + self.forkservers + self.servers

    def __str__(self) -> str:
        seconds = sorted(self.recovery_seconds) or [0.0]
        p95 = seconds[int(0.95 * (len(seconds) - 1))]
        return (
            f"{self.workers} workers, {self.forkservers} forkservers and {self.servers} servers killed, "
            f"{self.job_count} jobs: {len(self.faults)} faults; "
            f"recovery in {statistics.median(seconds):.2f} s (median), {p95:.2f} s (95 %), {max(seconds):.2f} s (max)"
        )


class Soak:
    def __init__(self, data: Path, seed: int) -> None:
        self._data, self._random, self.report = data, random.Random(seed), Report()
        self._database = Database(f"sqlite:///{data / 'lumigraph.db'}")
        migrate(self._database)
        self._store = Store(self._database)
        self._project = self._store.create_project("soak").id
        self._submitted_ids: list[str] = []
        self._server = self._start()

    def run(self, seconds: float, kills: int) -> Report:
        """Kill processes at random until `seconds` have passed or `kills` are reached, then check the result."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.report.kills < kills:
            self._submit()
            time.sleep(self._random.uniform(0.02, 0.4))
            chance = self._random.random()
            if chance < SERVER_KILL_SHARE:
                self._kill_server()
            elif chance < SERVER_KILL_SHARE + FORKSERVER_KILL_SHARE:
                self._kill_forkserver()
            else:
                self._kill_worker()
        self._finish()
        return self.report

    def _start(self) -> subprocess.Popen[str]:
        with (self._data / "server.log").open("a") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "tests.jobs.killing", str(self._data)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert server.stdout is not None
        if server.stdout.readline() != "ready\n":
            raise RuntimeError((self._data / "server.log").read_text())
        return server

    def _jobs(self) -> list[Job]:
        return self._store.jobs(self._project, states=["queued", "running"])

    def _submit(self) -> None:
        for _ in range(ACTIVE_JOBS - len(self._jobs())):
            job_spec = JobSpec(NoopJob(steps=STEPS, pause=PAUSE_S, save_every=SAVE_EVERY))
            self._submitted_ids += [job.id for job in self._store.submit(self._project, [job_spec])]

    def _kill_worker(self) -> None:
        workers = [process for process, job in self._workers() if self._has_crashes_left(job)]
        if workers:
            self.report.workers += 1
            self._kill(self._random.choice(workers))

    def _kill_forkserver(self) -> None:
        processes = forkservers(self._server.pid)
        if processes and all(self._has_crashes_left(job) for _, job in self._workers()):
            self.report.forkservers += 1
            self._kill(processes[0])

    def _has_crashes_left(self, job: str) -> bool:
        """Whether the job survives one more crash: after MAX_CRASHES in a row it fails, as it should."""
        return self._store.job(job).crashes < MAX_CRASHES

    def _kill(self, process: psutil.Process) -> None:
        before = self._progress()
        process.kill()
        self._wait_for_progress(before)

    def _workers(self) -> list[tuple[psutil.Process, str]]:
        """List the worker processes with the ids of their jobs."""
        ids = [job.id for job in self._jobs()]
        workers = running_workers(self._server.pid)
        return [(process, job) for process, prefix in workers for job in ids if job.startswith(prefix)]

    def _kill_server(self) -> None:
        before = self._progress()
        self._server.send_signal(signal.SIGKILL)
        self._server.wait()
        self.report.servers += 1
        start = time.monotonic()
        self._check_integrity()
        check_seconds = time.monotonic() - start
        self._server = self._start()
        self._wait_for_progress(before, less=check_seconds)

    def _check_integrity(self) -> None:
        with self._database.read() as connection:
            integrity = connection.execute(text("PRAGMA integrity_check")).scalar()
        if integrity != "ok":
            self.report.faults.append(f"integrity_check: {integrity}")

    def _progress(self) -> dict[str, tuple[int, float]]:
        """Return (attempt, finished steps) of the newest jobs."""
        return {job.id: (job.attempt, job.done) for job in self._store.jobs(self._project, limit=50)}

    def _wait_for_progress(self, before: dict[str, tuple[int, float]], less: float = 0.0) -> None:
        """Wait until an attempt that began after the kill reports progress."""
        start = time.monotonic()

        def has_progressed(job_id: str, attempt: int, steps: float) -> bool:
            attempt_before, steps_before = before.get(job_id, (0, 0.0))
            return attempt > attempt_before and steps != steps_before

        while not any(has_progressed(job_id, *now) for job_id, now in self._progress().items()):
            self._submit()
            if time.monotonic() - start > PROGRESS_TIMEOUT_S:
                self.report.faults.append("no progress after a kill")
                return
            time.sleep(0.02)
        self.report.recovery_seconds.append(time.monotonic() - start - less)

    def _finish(self) -> None:
        """Wait for the end of all jobs, then check their states, results, checkpoints and processes."""
        end = time.monotonic() + 2 * PROGRESS_TIMEOUT_S
        while self._jobs() and time.monotonic() < end:
            time.sleep(0.1)
        self._server.kill()
        self._server.wait()
        faults = self.report.faults
        jobs = {job.id: job for job in self._store.jobs(self._project, limit=10**6)}
        self.report.job_count = len(self._submitted_ids)
        faults += [f"{job_id} is lost" for job_id in self._submitted_ids if job_id not in jobs]
        faults += [f"{job_id} was never submitted" for job_id in jobs if job_id not in self._submitted_ids]
        for job in jobs.values():
            if job.state != "succeeded" or job.result != {"sum": EXPECTED_SUM}:
                faults.append(f"{job.id} is {job.state} with {job.result}: {job.error}")
            count = json.loads((self._data / "jobs" / job.id / "count.json").read_text())
            if count != [STEPS, EXPECTED_SUM]:
                faults.append(f"{job.id}: its checkpoint holds {count}")
        self._check_integrity()
        end = time.monotonic() + EXIT_TIMEOUT_S
        while (leftover_pids := self._leftover_pids()) and time.monotonic() < end:
            time.sleep(0.1)
        faults += [f"process {pid} is still running" for pid in leftover_pids]
        self._database.close()

    def _leftover_pids(self) -> list[int]:
        """List the processes that still use this data folder."""
        return [p.pid for p in psutil.process_iter(["cmdline"]) if str(self._data) in (p.info["cmdline"] or [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Soak(Path(folder), args.seed).run(args.seconds, args.kills)
    print(f"seed {args.seed}: {report}")
    print(*report.faults, sep="\n")
    sys.exit(bool(report.faults))


if __name__ == "__main__":
    main()
