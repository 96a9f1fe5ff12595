"""The access token of the studio: 32 random bytes in a file that only its owner can read."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

TOKEN_PATTERN = re.compile(r"[A-Za-z0-9_-]{16,512}")


def read_or_make_token(path: Path) -> str:
    """Read the token from the file at `path`; create the file if it does not exist.

    A file that others could read is made private. Raises ValueError if the file holds no valid token, and OSError if it
    cannot be read or is a symbolic link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(path):  # a dangling link is rejected below, not followed
        _write(path, replace=False)
    return _read(path)


def rotate_token(path: Path) -> str:
    """Replace the token in the file. The old token and its cookies become invalid at once."""
    _write(path, replace=True)
    return _read(path)


def token_file(path: Path) -> Callable[[], str]:
    """A function that returns the file's current token, and reads it again after each change of the file.

    The token is empty, which rejects all requests, while the file is missing or invalid.
    """
    last_stamp: tuple[int, int, int] | None = None
    token = ""

    def current_token() -> str:
        nonlocal last_stamp, token
        try:
            status = path.stat(follow_symlinks=False)
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp != last_stamp:
                token, last_stamp = _read(path), stamp
        except (OSError, ValueError):
            token, last_stamp = "", None
        return token

    return current_token


def _write(path: Path, replace: bool) -> None:
    """Write a new token atomically. Without `replace`, the file of the first of several writers stays."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            with suppress(FileExistsError):
                os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, "rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            os.fchmod(file.fileno(), 0o600)
        token = file.read(1024).decode("ascii", "replace").strip()
    if not TOKEN_PATTERN.fullmatch(token):
        raise ValueError(f"{path} holds no token: one line of 16 to 512 letters, digits, - and _ is needed")
    return token
