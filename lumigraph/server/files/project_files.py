"""Store of a project's files: `files/` holds the complete ones, `uploads/` the partial ones.

A file appears in `files/` by a rename, after its bytes are on disk: it is complete or absent. All paths are opened with
`safe_open`. These functions block on the disk; call them in a thread.
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
from lumigraph.server.files.filenames import MAX_PARTS, Parts, collision_key
from lumigraph.server.problems import Problem
from lumigraph.wire.files import StoredFile

if sys.platform != "win32":
    import fcntl

FILES = "files"
UPLOADS = "uploads"


def list_files(root: Path) -> list[StoredFile]:
    """All complete files, sorted by name."""
    return sorted((stored_file(name, status) for name, status in walk(root)), key=lambda file: file.name)


def stored_file(name: str, status: os.stat_result) -> StoredFile:
    mtime = datetime.fromtimestamp(status.st_mtime, UTC)
    return StoredFile(name=name, bytes=status.st_size, etag=etag(status), modified=mtime)


def walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """(name, status) of every regular file; links and hidden files are skipped."""
    try:
        with safe_open.folder(root, (FILES,)) as folder:
            yield from _walk(folder, "", MAX_PARTS)
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
                subfolder = safe_open.open_entry(folder, entry.name, safe_open.FOLDER_FLAGS)
                try:
                    yield from _walk(subfolder, f"{prefix}{entry.name}/", depth - 1)
                finally:
                    os.close(subfolder)


def check_free_name(root: Path, parts: Parts, overwrite: bool) -> None:
    """Raises Problem 409 if `move_into_place` would."""
    try:
        for depth in range(len(parts)):
            with safe_open.folder(root, (FILES, *parts[:depth])) as folder:
                rival = find_rival(folder, parts, depth, overwrite)
                if rival is None and not safe_open.exists(folder, parts[depth]):
                    return
    except FileNotFoundError:
        return


def find_rival(folder: int, parts: Parts, depth: int, overwrite: bool) -> str | None:
    """The file in `folder` that parts[depth] would replace, if any. Raises Problem 409 if that is not allowed.

    Names that differ only in case are equal on some systems: a capture must keep all its files when it is copied there.
    """
    part, is_last = parts[depth], depth == len(parts) - 1
    part_key = collision_key(part)
    for name in safe_open.list_names(folder):
        if collision_key(name) != part_key:
            continue
        status = safe_open.status(folder, name)
        if status is None:
            continue
        if not is_last and name == part and stat.S_ISDIR(status.st_mode):
            return None
        if is_last and overwrite and stat.S_ISREG(status.st_mode):
            return name
        hint = " To replace it, use ?overwrite=true." if is_last and stat.S_ISREG(status.st_mode) else ""
        raise Problem(409, "Name taken", f"{'/'.join((*parts[:depth], name))!r} exists already.{hint}")
    return None


def move_into_place(
    root: Path, uploads: int, partial: str, parts: Parts, overwrite: bool
) -> tuple[StoredFile, int | None]:
    """Move the synced file `partial` from the open folder `uploads` to its name below `files/`.

    Returns the new file, and the size of the file that it replaced, if any. Raises Problem 409 if the name is taken.
    """
    with exclusive_lock(root):
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
    return stored_file("/".join(parts), status), None if before is None else before.st_size


def delete(root: Path, parts: Parts) -> int:
    """Remove a file and the folders that it leaves empty; return its size. Raises Problem 404."""
    with exclusive_lock(root):
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
            if error.errno not in safe_open.NOT_EMPTY_ERRNOS:
                raise
    return size


def no_such_file(parts: Parts) -> Problem:
    return Problem(404, "No such file", f"There is no file {'/'.join(parts)!r} in this project.")


@contextmanager
def exclusive_lock(root: Path) -> Iterator[None]:
    """Lock the names in `files/` for a check and a change, also against name server processes."""
    with safe_open.folder(root, (FILES,), make=True) as folder:
        if sys.platform != "win32":
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield


def lock(descriptor: int) -> None:
    """Lock an open file against name server processes until it is closed. Raises Problem 423."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(423, "Busy", "Another server process writes this upload.", {"retry-after": "5"}) from None
