"""Misbehaving workers, and functions that find running workers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil


def poisonous() -> int:
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def deaf() -> int:
    """Ignores SIGTERM; so does its child."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    leaky()
    time.sleep(600)
    return 0


def leaky() -> int:
    """Exits without waiting for its child."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (Path(sys.argv[1]) / "child").write_text(str(child.pid))
    return 0


def at_work(server: int) -> list[tuple[psutil.Process, str]]:
    """The worker processes of a server, and the beginning of the id of the job of each."""
    result = []
    for nursery in nurseries(server):
        with contextlib.suppress(psutil.Error):
            for worker in nursery.children():
                with contextlib.suppress(psutil.Error):
                    if worker.name().startswith("job "):
                        result.append((worker, worker.name().removeprefix("job ")))
    return result


def nurseries(server: int) -> list[psutil.Process]:
    result = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(server).children():
            with contextlib.suppress(psutil.Error):
                if "lumigraph.jobs.executors.forkserver" in child.cmdline():
                    result.append(child)
    return result
