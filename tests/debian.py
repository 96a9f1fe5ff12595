"""Reference programs for tests, from Debian packages."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path


def install_package(package: str, find: Callable[[], Path | None]) -> Path | None:
    """Return the result of `find`, after installing the package if possible: on Debian, as root."""
    if find() is None and os.name == "posix" and os.getuid() == 0 and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 300}
        lock_options = ["-o", "DPkg::Lock::Timeout=240"]  # other tests may install packages too
        install = ["apt-get", *lock_options, "install", "-y", "-q", "--no-install-recommends", package]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        with contextlib.suppress(subprocess.TimeoutExpired):
            if subprocess.run(install, env=environment, **quiet).returncode:  # type: ignore[call-overload]
                subprocess.run(["apt-get", "update", "-q"], **quiet)  # type: ignore[call-overload]
                subprocess.run(install, env=environment, **quiet)  # type: ignore[call-overload]
    return find()


def find_program(name: str) -> Path | None:
    """Find a program, from the package of the same name."""
    return install_package(name, lambda: Path(path) if (path := shutil.which(name)) else None)
