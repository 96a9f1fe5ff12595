"""Workers that misbehave, and how tests find those that are at work."""

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
    """It ignores that it is to stop, and so does its child."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    leaky()
    time.sleep(600)
    return 0


def leaky() -> int:
    """It leaves a child behind."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (Path(sys.argv[1]) / "child").write_text(str(child.pid))
    return 0


def at_work(server: int) -> list[tuple[psutil.Process, str]]:
    """The worker processes of a server, and the beginning of the id of the job of each."""
    found = []
    for nursery in nurseries(server):
        with contextlib.suppress(psutil.Error):
            for worker in nursery.children():
                with contextlib.suppress(psutil.Error):
                    if worker.name().startswith("job "):
                        found.append((worker, worker.name().removeprefix("job ")))
    return found


def nurseries(server: int) -> list[psutil.Process]:
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(server).children():
            with contextlib.suppress(psutil.Error):
                if "lumigraph.jobs.executors.forkserver" in child.cmdline():
                    found.append(child)
    return found
