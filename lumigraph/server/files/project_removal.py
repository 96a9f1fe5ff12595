"""Removing a project for good: its files and what the table knows of it, both or neither, whatever happens in between.

The project's folder is renamed first, with the names of its jobs' folders inside; then the table forgets it; then the
files go. A server that died in between finds the renamed folder at its next start, and what the table says decides.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lumigraph.jobs.data_folder import DataFolder
from lumigraph.jobs.store import NotFoundError, Store

GONE = ".gone"
JOBS = "jobs.json"


def purge(folder: DataFolder, store: Store, project_id: str) -> None:
    """Raises NotFoundError, and ConflictError where it is not in the bin or a job still runs: nothing happened then."""
    store.project(project_id)
    own = folder.project(project_id)
    own.mkdir(parents=True, exist_ok=True)
    (own / JOBS).write_text(json.dumps([job.id for job in store.jobs(project_id, limit=10**9)]))
    gone = own.with_name(own.name + GONE)
    own.rename(gone)
    try:
        store.delete_project(project_id)
    except BaseException:
        gone.rename(own)
        (own / JOBS).unlink()
        raise
    _remove(folder, gone)


def finish(folder: DataFolder, store: Store) -> None:
    """What a server that died left half done: to its end where the table has forgotten the project, else undone."""
    for gone in (folder.path / "projects").glob(f"*{GONE}"):
        own = gone.with_name(gone.name.removesuffix(GONE))
        try:
            store.project(own.name)
        except NotFoundError:
            _remove(folder, gone)
        else:
            gone.rename(own)
            (own / JOBS).unlink(missing_ok=True)


def _remove(folder: DataFolder, gone: Path) -> None:
    for job_id in json.loads((gone / JOBS).read_text()):
        shutil.rmtree(folder.job(job_id), ignore_errors=True)
    kept = gone / JOBS
    for path in gone.iterdir():  # the list goes last, so that a second try knows the jobs too
        if path != kept:
            shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(gone, ignore_errors=True)
