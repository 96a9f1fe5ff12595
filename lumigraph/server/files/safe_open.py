"""Symlink-safe access to files below a folder, against path traversal.

Each step from the root down opens one folder by its name relative to the folder before, and follows no symbolic link.
No file is ever opened by a whole path. A link, a pipe or a device in the path is therefore an error, also if it is put
there between a check and the use. Needs a POSIX system.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lumigraph.server.problems import Problem

NO_FOLLOW_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
WRONG_TYPE_ERRNOS = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.EMLINK})
NOT_EMPTY_ERRNOS = frozenset({errno.ENOTEMPTY, errno.EEXIST})


@contextmanager
def folder(root: Path, parts: Sequence[str] = (), *, make: bool = False) -> Iterator[int]:
    """Open the folder `root`/parts for the time of the block; `make` creates missing folders.

    Raises FileNotFoundError if it is missing, Problem 409 if something else than a folder is in the path.
    """
    descriptor = os.open(root, FOLDER_FLAGS | getattr(os, "O_CLOEXEC", 0))  # trusted: links in its own path are allowed
    try:
        for part in parts:
            check_single_part(part)
            if make and not exists(descriptor, part):
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=descriptor)
            child = open_entry(descriptor, part, FOLDER_FLAGS)
            os.close(descriptor)
            descriptor = child
        yield descriptor
    finally:
        os.close(descriptor)


def file(folder: int, name: str, flags: int, mode: int = 0o600) -> int:
    """Open a regular file in `folder`, and return its descriptor. Raises the same errors as `folder`."""
    check_single_part(name)
    descriptor = open_entry(folder, name, flags, mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise wrong_type(name)
    return descriptor


def open_entry(folder: int, name: str, flags: int, mode: int = 0o600) -> int:
    try:
        return os.open(name, flags | NO_FOLLOW_FLAGS, mode, dir_fd=folder)
    except OSError as error:
        if error.errno in WRONG_TYPE_ERRNOS:
            raise wrong_type(name) from None
        raise


def exists(folder: int, name: str) -> bool:
    return status(folder, name) is not None


def list_names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def status(folder: int, name: str) -> os.stat_result | None:
    """The status of an entry, of a link itself and not its target; None if it does not exist."""
    check_single_part(name)
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def remove(folder: int, name: str) -> None:
    """Remove a file (or a link itself), if it exists."""
    check_single_part(name)
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def check_single_part(part: str) -> None:
    """Raises ValueError if `part` is not a plain name. A last defence: the routes have checked all names."""
    if part in ("", ".", "..") or "/" in part or "\0" in part:
        raise ValueError(f"{part!r} is not the name of one file")


def wrong_type(name: str) -> Problem:
    return Problem(409, "Something is in the way", f"{name!r} is not a regular file or folder as expected.")
