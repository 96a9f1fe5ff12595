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


def crash_with_segfault() -> int:
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def ignore_sigterm() -> int:
    """Ignore SIGTERM, also in a child process."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    leave_child()
    time.sleep(600)
    return 0


def leave_child() -> int:
    """Exit without waiting for a child process."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (Path(sys.argv[1]) / "child").write_text(str(child.pid))
    return 0


def running_workers(server: int) -> list[tuple[psutil.Process, str]]:
    """List the worker processes of a server, each with the first characters of its job's id."""
    result = []
    for forkserver in forkservers(server):
        with contextlib.suppress(psutil.Error):
            for worker in forkserver.children():
                with contextlib.suppress(psutil.Error):
                    if worker.name().startswith("job "):
                        result.append((worker, worker.name().removeprefix("job ")))
    return result


def forkservers(server: int) -> list[psutil.Process]:
    result = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(server).children():
            with contextlib.suppress(psutil.Error):
                if "lumigraph.jobs.executors.forkserver" in child.cmdline():
                    result.append(child)
    return result
