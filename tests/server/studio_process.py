"""A real server process that tests stop, kill and restart."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from lumigraph.client import Client
from tests.jobs.workers import running_workers

ROOT = Path(__file__).parents[2]
READY_LINE = re.compile(r"Lumigraph is up: (http://\S+)/\?token=(\S+)")


class Studio:
    """A process of `lumigraph up` on a data folder; a restart keeps its port."""

    def __init__(self, data: Path, *more: str, port: int = 0) -> None:
        self.data, self._more, self.port = data, more, port
        self.url = self.token = ""
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "lumigraph", "up", "--data", str(self.data), "--port", str(self.port), "-q"]
        self.data.mkdir(parents=True, exist_ok=True)
        with (self.data.parent / f"{self.data.name}.log").open("a") as log:
            self.process = subprocess.Popen(
                [*command, *self._more], stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT
            )
        assert self.process.stdout is not None
        match = READY_LINE.match(self.process.stdout.readline())
        assert match, self.log()
        self.url, self.token = match.groups()
        self.port = int(self.url.rpartition(":")[2])
        for _ in range(1000):
            try:
                httpx.get(f"{self.url}/healthz").raise_for_status()
                return
            except httpx.TransportError:
                time.sleep(0.01)

    def log(self) -> str:
        return (self.data.parent / f"{self.data.name}.log").read_text()

    def client(self, retry_timeout_s: float = 120.0) -> Client:
        return Client(self.url, self.token, retry_timeout_s)

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {self.token}"}, timeout=120)

    def workers(self) -> list[tuple[psutil.Process, str]]:
        """List the worker processes, each with the first characters of its job's id."""
        return running_workers(self.process.pid)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def resident_megabytes(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1e6 if os.name == "posix" else 0.0
