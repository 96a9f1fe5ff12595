"""Files and folders that take their place whole, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yields the name to write to. After the block the file is synced and takes its place at once; if the block
    raises, nothing is left of it.

    The name lies in a folder `name.tmp-PID` of its own: writers that guess by the suffix see the right one, and what
    they put beside their file goes away with it.
    """
    folder = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    folder.mkdir(exist_ok=True)
    try:
        temporary = folder / path.name
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _sync_folder(path.parent)


def sweep(folder: Path, of: str = "") -> None:
    """Remove what a killed process left half-written: `name.tmp-PID` of a PID that is no more, of names that begin
    with `of`."""
    for left in folder.glob("*.tmp-*"):
        pid = left.name.rpartition("-")[2]
        if left.name.startswith(of) and pid.isdigit() and not _alive(int(pid)):
            remove(left)


def _alive(pid: int) -> bool:
    if os.name != "posix":  # signal 0 asks nothing on Windows, it interrupts
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where folders can be synced (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
