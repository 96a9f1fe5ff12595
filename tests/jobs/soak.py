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
from tests.jobs.workers import at_work, nurseries

STEPS, PAUSE, SAVE_EVERY = 60, 0.02, 5
EXPECTED = STEPS * (STEPS + 1) // 2
ALIVE = 4  # jobs at once
SERVERS, NURSERIES = 0.15, 0.05  # of all kills
PATIENCE = 240.0


@dataclass
class Report:
    workers: int = 0
    nurseries: int = 0  # each with all its workers
    servers: int = 0
    job_count: int = 0
    back: list[float] = field(default_factory=list)  # seconds from a kill to new progress
    wrong: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.workers + self.nurseries + self.servers

    def __str__(self) -> str:
        back = sorted(self.back)
        late = back[int(0.95 * (len(back) - 1))] if back else 0.0
        return (
            f"{self.workers} workers, {self.nurseries} nurseries and {self.servers} servers killed, "
            f"{self.job_count} jobs: {len(self.wrong)} wrong; "
            f"back at work after {statistics.median(back or [0.0]):.2f} s (median), {late:.2f} s (95 %), "
            f"{max(back or [0.0]):.2f} s (longest)"
        )


class Soak:
    def __init__(self, data: Path, seed: int) -> None:
        self._data, self._chance, self.report = data, random.Random(seed), Report()
        self._database = Database(f"sqlite:///{data / 'lumigraph.db'}")
        migrate(self._database)
        self._store = Store(self._database)
        self._project = self._store.create_project("soak").id
        self._acknowledged: list[str] = []
        self._server = self._start()

    def run(self, seconds: float, kills: int) -> Report:
        """Until either is reached."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.report.kills < kills:
            self._ask()
            time.sleep(self._chance.uniform(0.02, 0.4))
            chance = self._chance.random()
            if chance < SERVERS:
                self._kill_server()
            elif chance < SERVERS + NURSERIES:
                self._kill_nursery()
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

    def _ask(self) -> None:
        for _ in range(ALIVE - len(self._jobs())):
            order = JobSpec(NoopJob(steps=STEPS, pause=PAUSE, save_every=SAVE_EVERY))
            self._acknowledged += [job.id for job in self._store.submit(self._project, [order])]

    def _kill_worker(self) -> None:
        workers = [item for item, job in self._workers() if self._spared(job)]
        if workers:
            self.report.workers += 1
            self._kill(self._chance.choice(workers))

    def _kill_nursery(self) -> None:
        found = nurseries(self._server.pid)
        if found and all(self._spared(job) for _, job in self._workers()):
            self.report.nurseries += 1
            self._kill(found[0])

    def _spared(self, job: str) -> bool:
        """Not killed as often in a row as is allowed: one more, and the job would rightly fail."""
        return self._store.job(job).crashes < MAX_CRASHES

    def _kill(self, process: psutil.Process) -> None:
        before = self._progress()
        process.kill()
        self._wait_for_progress(before)

    def _workers(self) -> list[tuple[psutil.Process, str]]:
        """The processes at work, and their jobs."""
        ids = [job.id for job in self._jobs()]
        return [(item, job) for item, mark in at_work(self._server.pid) for job in ids if job.startswith(mark)]

    def _kill_server(self) -> None:
        before = self._progress()
        self._server.send_signal(signal.SIGKILL)
        self._server.wait()
        self.report.servers += 1
        started = time.monotonic()
        with self._database.read() as connection:
            found = connection.execute(text("PRAGMA integrity_check")).scalar()
        if found != "ok":
            self.report.wrong.append(f"integrity_check: {found}")
        checked = time.monotonic() - started
        self._server = self._start()
        self._wait_for_progress(before, less=checked)

    def _progress(self) -> dict[str, tuple[int, float]]:
        """(attempt, steps done) of the newest jobs."""
        return {job.id: (job.attempt, job.done) for job in self._store.jobs(self._project, limit=50)}

    def _wait_for_progress(self, before: dict[str, tuple[int, float]], less: float = 0.0) -> None:
        """Until an attempt that began after the kill says how far it is."""
        started = time.monotonic()

        def began_and_told(job_id: str, attempt: int, outcome: float) -> bool:
            was, had = before.get(job_id, (0, 0.0))
            return attempt > was and outcome != had

        while not any(began_and_told(job_id, *now) for job_id, now in self._progress().items()):
            self._ask()
            if time.monotonic() - started > PATIENCE:
                self.report.wrong.append("no progress after a kill")
                return
            time.sleep(0.02)
        self.report.back.append(time.monotonic() - started - less)

    def _finish(self) -> None:
        """Lets all end, and judges them."""
        end = time.monotonic() + 2 * PATIENCE
        while self._jobs() and time.monotonic() < end:
            time.sleep(0.1)
        self._server.kill()
        self._server.wait()
        wrong = self.report.wrong
        jobs = {job.id: job for job in self._store.jobs(self._project, limit=10**6)}
        self.report.job_count = len(self._acknowledged)
        wrong += [f"{job_id} is lost" for job_id in self._acknowledged if job_id not in jobs]
        wrong += [f"{job_id} was never asked for" for job_id in jobs if job_id not in self._acknowledged]
        for job in jobs.values():
            if job.state != "succeeded" or job.result != {"sum": EXPECTED}:
                wrong.append(f"{job.id} has {job.state} with {job.result}: {job.error}")
            count = json.loads((self._data / "jobs" / job.id / "count.json").read_text())
            if count != [STEPS, EXPECTED]:
                wrong.append(f"{job.id}: its checkpoint holds {count}")
        with self._database.read() as connection:
            found = connection.execute(text("PRAGMA integrity_check")).scalar()
        wrong += [] if found == "ok" else [f"integrity_check: {found}"]
        end = time.monotonic() + 5.0  # that processes may take to go
        while (partial_files := self._left()) and time.monotonic() < end:
            time.sleep(0.1)
        wrong += [f"process {pid} is left" for pid in partial_files]
        self._database.close()

    def _left(self) -> list[int]:
        """Processes that still work for this data folder."""
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
    print(*report.wrong, sep="\n")
    sys.exit(bool(report.wrong))


if __name__ == "__main__":
    main()
