"""Programs that tests compare with, from Debian's packages."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path


def installed(package: str, find: Callable[[], Path | None]) -> Path | None:
    """What `find` finds, after installing the package where that is allowed: on Debian, as root."""
    if find() is None and os.name == "posix" and os.getuid() == 0 and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 300}
        patient = ["-o", "DPkg::Lock::Timeout=240"]  # other tests may be installing theirs
        install = ["apt-get", *patient, "install", "-y", "-q", "--no-install-recommends", package]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        with contextlib.suppress(subprocess.TimeoutExpired):
            if subprocess.run(install, env=environment, **quiet).returncode:  # type: ignore[call-overload]
                subprocess.run(["apt-get", "update", "-q"], **quiet)  # type: ignore[call-overload]
                subprocess.run(install, env=environment, **quiet)  # type: ignore[call-overload]
    return find()


def program(name: str) -> Path | None:
    """The program of that name, from the package of that name."""
    return installed(name, lambda: Path(found) if (found := shutil.which(name)) else None)
