"""Opening files below a folder, whatever somebody has planted there.

Each step from the root down opens one folder by its name in the folder before, and follows no symbolic link; nothing is
ever looked up by a whole path. A link, a pipe or a device in the way is therefore an error and never a way out, also
when it is put there between a check and its use. Needs a POSIX system.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lumigraph.server.problems import Problem

NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
IN_THE_WAY = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.EMLINK})
NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST})


@contextmanager
def folder(root: Path, parts: Sequence[str] = (), *, make: bool = False) -> Iterator[int]:
    """The descriptor of the folder `root`/parts, for the time of the block; with `make`, missing ones are made.

    Raises FileNotFoundError where it is missing, Problem 409 where something else lies in its place.
    """
    descriptor = os.open(root, FOLDER | getattr(os, "O_CLOEXEC", 0))  # the root is ours: its own path may have links
    try:
        for part in parts:
            single(part)
            if make and not exists(descriptor, part):
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=descriptor)
            inner = opened(descriptor, part, FOLDER)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def file(folder: int, name: str, flags: int, mode: int = 0o600) -> int:
    """The descriptor of a regular file in `folder`. Raises as `folder` does."""
    single(name)
    descriptor = opened(folder, name, flags, mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise in_the_way(name)
    return descriptor


def opened(folder: int, name: str, flags: int, mode: int = 0o600) -> int:
    try:
        return os.open(name, flags | NO_LINK, mode, dir_fd=folder)
    except OSError as error:
        if error.errno in IN_THE_WAY:
            raise in_the_way(name) from None
        raise


def exists(folder: int, name: str) -> bool:
    return status(folder, name) is not None


def listing(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def status(folder: int, name: str) -> os.stat_result | None:
    """What lies there by that name, itself and not what it points at; None where nothing does."""
    single(name)
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def remove(folder: int, name: str) -> None:
    """Remove a file (or a link itself), if there is one."""
    single(name)
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def single(part: str) -> None:
    """The last line of defence: names were checked where they came in."""
    if part in ("", ".", "..") or "/" in part or "\0" in part:
        raise ValueError(f"{part!r} is not the name of one file")


def in_the_way(name: str) -> Problem:
    return Problem(409, "Something is in the way", f"What lies at {name!r} is not of the kind that is needed there.")
