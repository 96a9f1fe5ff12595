"""How much may be put into a project, and how much is there already."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lumigraph.server.problems import Problem

GB = 1_000_000_000


@dataclass(frozen=True)
class Limits:
    """Bounds on uploads. They are checked when an upload is declared, and again while its bytes come in."""

    file_bytes: int = 50 * GB
    project_bytes: int = 200 * GB
    project_files: int = 20_000
    free_bytes: int = 2 * GB  # what must stay free on the disk
    pixels: int = 200_000_000  # of one picture, by its header
    idle_seconds: float = 60.0  # without a byte, until a body is given up; what came is kept
    expire_seconds: float = 7 * 86_400.0  # without a byte, until an unfinished upload is swept away


@dataclass
class _Used:
    bytes: int
    files: int
    counted_at: float  # time.monotonic()


class QuotaLedger:
    """What each project holds. Counted on disk now and then, kept up to date in between.

    `count(root)` gives (bytes, files) as they are on disk, with what unfinished uploads have declared.
    """

    def __init__(self, limits: Limits, count: Callable[[Path], tuple[int, int]], stale_seconds: float = 5.0) -> None:
        self.limits = limits
        self.count = count
        self.stale_seconds = stale_seconds
        self._used: dict[Path, _Used] = {}
        self._tidied: dict[Path, float] = {}
        self._lock = threading.Lock()

    def take(self, root: Path, size: int, files: int = 0) -> None:
        """Note `size` bytes more. Raises Problem 413, and notes nothing, where they are too many."""
        with self._lock:
            used = self._current(root)
            if used.bytes + size > self.limits.project_bytes:
                raise Problem(413, "Project full", f"A project holds at most {self.limits.project_bytes:,} bytes.")
            if files and used.files + files > self.limits.project_files:
                raise Problem(413, "Project full", f"A project holds at most {self.limits.project_files:,} files.")
            used.bytes += size
            used.files += files

    def give_back(self, root: Path, size: int, files: int = 0) -> None:
        with self._lock:
            used = self._current(root)
            used.bytes -= size
            used.files -= files

    def due(self, root: Path, seconds: float = 60.0) -> bool:
        """Whether it is time to tidy up there: the first time that anybody asks, then once in so many seconds."""
        now = time.monotonic()
        with self._lock:
            last = self._tidied.get(root)
            if last is not None and now - last < seconds:
                return False
            self._tidied[root] = now
            return True

    def _current(self, root: Path) -> _Used:
        now = time.monotonic()
        used = self._used.get(root)
        if used is None or now - used.counted_at > self.stale_seconds:
            self._used[root] = used = _Used(*self.count(root), now)
            if len(self._used) > 1000:
                self._used.pop(next(iter(self._used)))
        return used


def check_size(size: int, limits: Limits) -> None:
    """Raises Problem 413 where one file is too large."""
    if size > limits.file_bytes:
        raise Problem(
            413,
            "File too large",
            f"At most {limits.file_bytes:,} bytes are taken.",
            {"tus-max-size": str(limits.file_bytes)},
        )


def check_free(descriptor: int, more: int, limits: Limits) -> None:
    """Raises Problem 507 where `more` bytes would leave too little of the disk that holds the open file or folder."""
    disk = os.fstatvfs(descriptor)
    if disk.f_bavail * disk.f_frsize - more < limits.free_bytes:
        raise Problem(507, "Disk full", "There is not enough room left on the server's disk. What came is kept.")
