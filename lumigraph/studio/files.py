"""Atomic replacement and removal of files and folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; after the block, sync the file and rename it to `path`.

    If the block raises, the temporary file is removed. The file keeps its name inside a folder `name.tmp-PID`:
    writers that choose a format by suffix see the right one, and their side files are removed with the folder.
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


def remove_stale_files(folder: Path, prefix: str = "") -> None:
    """Remove temporary files `name.tmp-PID` of dead processes whose names start with `prefix`."""
    for path in folder.glob("*.tmp-*"):
        pid = path.name.rpartition("-")[2]
        if path.name.startswith(prefix) and pid.isdigit() and not _is_alive(int(pid)):
            remove(path)


def _is_alive(pid: int) -> bool:
    if os.name != "posix":  # on Windows, signal 0 is CTRL_C_EVENT and would interrupt the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Sync a folder so that a rename survives a power cut. Windows cannot sync folders."""
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
