"""The data folder: everything that a server keeps. Copying it while no server runs is a backup.

lumigraph.db          projects and jobs
lock                  held by the one server, whose address stands in it
token                 the key to it
projects/ID/          files/ as uploaded, captures/, runs/, made/JOB/ATTEMPT/ what jobs made
jobs/ID/              events.jsonl and log.txt of a job, and the lock of whoever works at it
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

NETWORK = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs", "lustre"}


class InUseError(RuntimeError):
    """Another server, or another worker, holds what only one may hold."""


class DataFolder:
    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    def project(self, project_id: str) -> Path:
        return self.path / "projects" / project_id

    def job(self, job_id: str) -> Path:
        return self.path / "jobs" / job_id

    def outputs(self, project_id: str, job_id: str, attempt: int) -> Path:
        """Where an attempt puts what it makes: nobody writes there before or after."""
        return self.project(project_id) / "made" / job_id / f"a{attempt}"

    def relative_name(self, path: Path) -> str:
        """`path` below this folder, with forward slashes."""
        return path.resolve().relative_to(self.path).as_posix()

    @property
    def token(self) -> Path:
        return self.path / "token"

    def database_url(self) -> str:
        """Raises ValueError where the folder lies on a network: the write-ahead log needs shared memory."""
        kind = detect_file_system(self.path)
        if kind in NETWORK:
            raise ValueError(
                f"{self.path} lies on a network file system ({kind}), where SQLite loses data; "
                "choose a local folder, or a PostgreSQL database by --database"
            )
        return f"sqlite:///{self.path / 'lumigraph.db'}"

    @contextmanager
    def lock(self, address: str) -> Iterator[None]:
        """Held by one server at a time. Raises InUseError naming the address of the one that holds it."""
        for folder in (self.path, self.path / "projects", self.path / "jobs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.path / "lock").open("a+b") as file:
            if not _locked(file):
                file.seek(0)
                other = file.read(200).decode("utf-8", "replace").strip() or "another process"
                raise InUseError(f"{self.path} is in use by the server at {other}")
            file.truncate(0)
            file.write(address.encode())
            file.flush()
            yield

    @contextmanager
    def lock_job(self, job_id: str) -> Iterator[Path]:
        """The folder of a job, which one worker holds at a time. Raises InUseError at once where another does."""
        folder = self.job(job_id)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("ab") as file:
            if not _locked(file):
                raise InUseError(f"another worker is still at {folder}")
            yield folder


def detect_file_system(path: Path) -> str:
    """The kind of the file system that holds `path`, as Linux names it; "" where that is not known."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return ""
    deepest, kind = -1, ""
    for line in mounts.read_text("utf-8", "replace").splitlines():
        _, point, name = line.split(" ")[:3]
        at = Path(point.encode().decode("unicode_escape"))
        if path.is_relative_to(at) and len(at.parts) >= deepest:  # the last of those mounted there is on top
            deepest, kind = len(at.parts), name
    return kind


def _locked(file: BinaryIO) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
