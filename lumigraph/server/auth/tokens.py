"""The secret that opens the studio: 32 random bytes in a file that only its owner can read."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SOUND = re.compile(r"[A-Za-z0-9_-]{16,512}")


def read_or_make_token(path: Path) -> str:
    """The token in the file at `path`, made there first where there is none.

    A file that others could read is made private. Raises ValueError where the file holds no sound token, and OSError
    where it cannot be read or is a symbolic link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(path):  # a dangling link is refused below, not written through
        _make(path, replace=False)
    return _read(path)


def rotate_token(path: Path) -> str:
    """Another token in place of the one in the file; those who hold the old one, or its cookie, are out at once."""
    _make(path, replace=True)
    return _read(path)


def token_file(path: Path) -> Callable[[], str]:
    """The token of the file as it is now: read again whenever the file has changed, empty (nobody gets in) while the
    file is missing or unsound."""
    seen: tuple[int, int, int] | None = None
    token = ""

    def current() -> str:
        nonlocal seen, token
        try:
            status = path.stat(follow_symlinks=False)
            mark = (status.st_mtime_ns, status.st_ino, status.st_size)
            if mark != seen:
                token, seen = _read(path), mark
        except (OSError, ValueError):
            token, seen = "", None
        return token

    return current


def _make(path: Path, replace: bool) -> None:
    """Written beside and put in its place whole. Without `replace`, whoever comes first wins."""
    beside = path.with_name(f"{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if replace:
            beside.replace(path)
        else:
            with suppress(FileExistsError):
                os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _read(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, "rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            os.fchmod(file.fileno(), 0o600)
        token = file.read(1024).decode("ascii", "replace").strip()
    if not SOUND.fullmatch(token):
        raise ValueError(f"{path} holds no token: one line of 16 to 512 letters, digits, - and _ is needed")
    return token
