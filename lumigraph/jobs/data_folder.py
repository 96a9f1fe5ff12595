"""The data folder: all persistent files of a server. Copying it while no server runs is a backup.

lumigraph.db          projects and jobs
lock                  locked by the running server; contains its address
token                 the access token
projects/ID/          files/ (uploads), captures/, runs/, made/JOB/ATTEMPT/ (owner outputs of jobs)
jobs/ID/              events.jsonl and log.txt of a job, and the lock of its worker
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs", "lustre"}


class InUseError(RuntimeError):
    """Another server or worker holds the lock."""


class DataFolder:
    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    def project(self, project_id: str) -> Path:
        return self.path / "projects" / project_id

    def job(self, job_id: str) -> Path:
        return self.path / "jobs" / job_id

    def outputs(self, project_id: str, job_id: str, attempt: int) -> Path:
        """The output folder of one attempt; no owner attempt writes there."""
        return self.project(project_id) / "made" / job_id / f"a{attempt}"

    def relative_name(self, path: Path) -> str:
        """`path` relative to this folder, with forward slashes."""
        return path.resolve().relative_to(self.path).as_posix()

    @property
    def token(self) -> Path:
        return self.path / "token"

    def database_url(self) -> str:
        """The SQLite URL. Raises ValueError if the folder is on a network: the write-ahead log needs shared memory."""
        file_system = detect_file_system(self.path)
        if file_system in NETWORK_FILE_SYSTEMS:
            raise ValueError(
                f"{self.path} is on a network file system ({file_system}), where SQLite loses data; "
                "choose a local folder, or a PostgreSQL database with --database"
            )
        return f"sqlite:///{self.path / 'lumigraph.db'}"

    @contextmanager
    def lock(self, address: str) -> Iterator[None]:
        """Lock the folder for one server. Raises InUseError with the address of the server that holds the lock."""
        for folder in (self.path, self.path / "projects", self.path / "jobs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.path / "lock").open("a+b") as file:
            if not _try_lock(file):
                file.seek(0)
                owner = file.read(200).decode("utf-8", "replace").strip() or "another process"
                raise InUseError(f"{self.path} is in use by the server at {owner}")
            file.truncate(0)
            file.write(address.encode())
            file.flush()
            yield

    @contextmanager
    def lock_job(self, job_id: str) -> Iterator[Path]:
        """Lock the folder of a job for one worker, and yield it. Raises InUseError at once if it is locked."""
        folder = self.job(job_id)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("ab") as file:
            if not _try_lock(file):
                raise InUseError(f"another worker still holds the lock of {folder}")
            yield folder


def detect_file_system(path: Path) -> str:
    """The type of the file system that holds `path`, as Linux names it; "" if unknown."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return ""
    max_depth, file_system = -1, ""
    for line in mounts.read_text("utf-8", "replace").splitlines():
        _, escaped_path, name = line.split(" ")[:3]
        mount_point = Path(escaped_path.encode().decode("unicode_escape"))
        if path.is_relative_to(mount_point) and len(mount_point.parts) >= max_depth:  # the last mount hides the others
            max_depth, file_system = len(mount_point.parts), name
    return file_system


def _try_lock(file: BinaryIO) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
