"""The files of a project: `files/` holds the complete ones, `uploads/` what is still on its way.

A file appears in `files/` by a rename, after its bytes are on the disk: it is there whole or not at all. All of it lies
below the project's folder, by `below`. These functions touch the disk; call them in a thread.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from lumigraph.server.files import safe_open
from lumigraph.server.files.downloads import etag
from lumigraph.server.files.filenames import PARTS, Parts, key
from lumigraph.server.problems import Problem
from lumigraph.wire.files import StoredFile

if sys.platform != "win32":
    import fcntl

FILES = "files"
UPLOADS = "uploads"


def listing(root: Path) -> list[StoredFile]:
    """Every complete file, in the order of its name."""
    return sorted((stored(name, status) for name, status in walk(root)), key=lambda one: one.name)


def stored(name: str, status: os.stat_result) -> StoredFile:
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return StoredFile(name=name, bytes=status.st_size, etag=etag(status), modified=modified)


def walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """(name, status) of every regular file; links and hidden files are passed over."""
    try:
        with safe_open.folder(root, (FILES,)) as folder:
            yield from _walk(folder, "", PARTS)
    except FileNotFoundError:
        return


def _walk(folder: int, prefix: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_file(follow_symlinks=False):
                yield prefix + entry.name, entry.stat(follow_symlinks=False)
            elif depth > 1 and entry.is_dir(follow_symlinks=False):
                inner = safe_open.opened(folder, entry.name, safe_open.FOLDER)
                try:
                    yield from _walk(inner, f"{prefix}{entry.name}/", depth - 1)
                finally:
                    os.close(inner)


def check_free_name(root: Path, parts: Parts, overwrite: bool) -> None:
    """Raises Problem 409 where `place` would."""
    try:
        for depth in range(len(parts)):
            with safe_open.folder(root, (FILES, *parts[:depth])) as folder:
                rival = find_rival(folder, parts, depth, overwrite)
                if rival is None and not safe_open.exists(folder, parts[depth]):
                    return
    except FileNotFoundError:
        return


def find_rival(folder: int, parts: Parts, depth: int, overwrite: bool) -> str | None:
    """The file in `folder` that parts[depth] would replace, if any. Raises Problem 409 where that is not allowed.

    Names that differ only in case are one name on some systems: a capture must not fall apart on its way there.
    """
    part, last = parts[depth], depth == len(parts) - 1
    wanted = key(part)
    for other in safe_open.listing(folder):
        if key(other) != wanted:
            continue
        status = safe_open.status(folder, other)
        if status is None:
            continue
        if not last and other == part and stat.S_ISDIR(status.st_mode):
            return None
        if last and overwrite and stat.S_ISREG(status.st_mode):
            return other
        again = " To replace it, say ?overwrite=true." if last and stat.S_ISREG(status.st_mode) else ""
        raise Problem(409, "Name taken", f"There is {'/'.join((*parts[:depth], other))!r} already.{again}")
    return None


def place(root: Path, uploads: int, partial: str, parts: Parts, overwrite: bool) -> tuple[StoredFile, int | None]:
    """Move the file `partial` of the open folder `uploads` to its place, and what it replaced out of it.

    The new file, and the bytes of the one that it replaced, if any. Its bytes must be on the disk. Raises Problem 409.
    """
    with only_one(root):
        for depth in range(len(parts) - 1):
            with safe_open.folder(root, (FILES, *parts[:depth]), make=True) as folder:
                find_rival(folder, parts, depth, overwrite)
        with safe_open.folder(root, (FILES, *parts[:-1]), make=True) as folder:
            rival = find_rival(folder, parts, len(parts) - 1, overwrite)
            before = None if rival is None else safe_open.status(folder, rival)
            os.rename(partial, parts[-1], src_dir_fd=uploads, dst_dir_fd=folder)
            if rival is not None and rival != parts[-1]:
                safe_open.remove(folder, rival)
            os.fsync(folder)
            status = safe_open.status(folder, parts[-1])
    if status is None:
        raise Problem(409, "Name taken", "The file was removed the moment it arrived.")
    return stored("/".join(parts), status), None if before is None else before.st_size


def delete(root: Path, parts: Parts) -> int:
    """Remove a file and the folders that it leaves empty. Its bytes. Raises Problem 404."""
    with only_one(root):
        try:
            with safe_open.folder(root, (FILES, *parts[:-1])) as folder:
                status = safe_open.status(folder, parts[-1])
                if status is None or not stat.S_ISREG(status.st_mode):
                    raise no_such_file(parts)
                size = status.st_size
                safe_open.remove(folder, parts[-1])
                os.fsync(folder)
            for depth in range(len(parts) - 1, 0, -1):
                with safe_open.folder(root, (FILES, *parts[: depth - 1])) as folder:
                    os.rmdir(parts[depth - 1], dir_fd=folder)
        except FileNotFoundError:
            raise no_such_file(parts) from None
        except OSError as error:
            if error.errno not in safe_open.NOT_EMPTY:
                raise
    return size


def no_such_file(parts: Parts) -> Problem:
    return Problem(404, "No such file", f"There is no file {'/'.join(parts)!r} in this project.")


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """One at a time, also among several server processes, looks at the names in `files/` and then changes them."""
    with safe_open.folder(root, (FILES,), make=True) as folder:
        if sys.platform != "win32":
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield


def lock(descriptor: int) -> None:
    """Until the file is closed, no other server process writes it. Raises Problem 423."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(423, "Busy", "Another server is at this upload.", {"retry-after": "5"}) from None
