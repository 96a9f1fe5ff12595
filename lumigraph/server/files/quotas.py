"""Limits on uploads, and the ledger of the space that each project uses."""

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
    """Limits on uploads. They are checked when an upload is declared, and again while its bytes arrive."""

    file_bytes: int = 50 * GB
    project_bytes: int = 200 * GB
    project_files: int = 20_000
    free_bytes: int = 2 * GB  # that must stay free on the disk
    pixels: int = 200_000_000  # of one image, by its header
    idle_seconds: float = 60.0  # without a byte, until a request is aborted; its received bytes are kept
    expire_seconds: float = 7 * 86_400.0  # without a byte, until a partial upload is removed


@dataclass
class _Usage:
    bytes: int
    files: int
    counted_at: float  # time.monotonic()


class QuotaLedger:
    """The usage bytes and files of each project. Counted on disk after `stale_seconds`, updated in between.

    `count(root)` returns (bytes, files) on disk, including the declared sizes of unfinished uploads.
    """

    def __init__(self, limits: Limits, count: Callable[[Path], tuple[int, int]], stale_seconds: float = 5.0) -> None:
        self.limits = limits
        self.count = count
        self.stale_seconds = stale_seconds
        self._usage: dict[Path, _Usage] = {}
        self._sweep_times: dict[Path, float] = {}
        self._lock = threading.Lock()

    def reserve(self, root: Path, size: int, files: int = 0) -> None:
        """Add `size` bytes and `files` files. Raises Problem 413, and changes nothing, if they exceed the limits."""
        with self._lock:
            usage = self._current(root)
            if usage.bytes + size > self.limits.project_bytes:
                raise Problem(413, "Project full", f"A project holds at most {self.limits.project_bytes:,} bytes.")
            if files and usage.files + files > self.limits.project_files:
                raise Problem(413, "Project full", f"A project holds at most {self.limits.project_files:,} files.")
            usage.bytes += size
            usage.files += files

    def release(self, root: Path, size: int, files: int = 0) -> None:
        with self._lock:
            usage = self._current(root)
            usage.bytes -= size
            usage.files -= files

    def is_sweep_due(self, root: Path, seconds: float = 60.0) -> bool:
        """Whether the project's partial uploads are to be swept: at the first call, then once per `seconds`."""
        now = time.monotonic()
        with self._lock:
            last = self._sweep_times.get(root)
            if last is not None and now - last < seconds:
                return False
            self._sweep_times[root] = now
            return True

    def _current(self, root: Path) -> _Usage:
        now = time.monotonic()
        usage = self._usage.get(root)
        if usage is None or now - usage.counted_at > self.stale_seconds:
            self._usage[root] = usage = _Usage(*self.count(root), now)
            if len(self._usage) > 1000:
                self._usage.pop(next(iter(self._usage)))
        return usage


def check_size(size: int, limits: Limits) -> None:
    """Raises Problem 413 if a file of `size` bytes is too large."""
    if size > limits.file_bytes:
        raise Problem(
            413,
            "File too large",
            f"A file may have at most {limits.file_bytes:,} bytes.",
            {"tus-max-size": str(limits.file_bytes)},
        )


def check_free(descriptor: int, more: int, limits: Limits) -> None:
    """Raises Problem 507 if `more` bytes would leave too little space on the disk of the open file or folder."""
    disk = os.fstatvfs(descriptor)
    if disk.f_bavail * disk.f_frsize - more < limits.free_bytes:
        raise Problem(507, "Disk full", "The server's disk has too little free space. The received bytes are kept.")
