"""Memory checks before allocation: when memory runs out, Linux kills the process instead of failing the request."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch

from lumigraph.scene.errors import RunError

CGROUP = Path("/sys/fs/cgroup")  # of the container, if any


def fitting(count: int, what: str, bytes_each: float, device: str, remedy: str) -> tuple[int, list[str]]:
    """Return (items a step, notes): `count`, or half with a note if only half fits in memory.

    Raises RunError with the sizes and `remedy` if half does not fit either. what: plural name of the items.
    """
    free = available(device)
    for take in (count, count // 2):
        if take * bytes_each <= free:
            note = f"{count:,} {what} a step do not fit into {_size(free)} of free memory; taking {take:,}"
            return take, [note] if take < count else []
    need = f"{count // 2:,} {what} a step need about {_size(count // 2 * bytes_each)}"
    raise RunError(f"{need} of memory and {_size(free)} are free; {remedy}")


def taken(device: torch.device) -> float:
    """Bytes that this process uses on a device, in main memory for "cpu"."""
    if device.type == "cuda":
        return float(torch.cuda.memory_reserved(device))
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return float(pages * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, IndexError):  # not Linux: peak usage, in kB or bytes
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def available(device: str) -> float:
    """Available bytes on a device; infinite if unknown."""
    if device != "cpu":
        return float(torch.cuda.mem_get_info()[0])
    try:
        free = float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):  # includes reclaimable caches
                free = float(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return float("inf")
    try:
        limit = float((CGROUP / "memory.max").read_text())
        free = min(free, limit - float((CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # no container, or no limit
        pass
    return free


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
