"""Permanent removal of a project: its files and its rows, both or neither.

The project's folder is renamed first, with a list of its jobs inside; then the rows are deleted, then the files. After
a crash in between, the next start finds the renamed folder. If the rows are deleted it completes the removal, else it
restores the folder.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lumigraph.jobs.data_folder import DataFolder
from lumigraph.jobs.store import NotFoundError, Store

REMOVED_SUFFIX = ".gone"
JOB_LIST = "jobs.json"


def purge(folder: DataFolder, store: Store, project_id: str) -> None:
    """Remove a project permanently.

    Raises NotFoundError, or ConflictError if the project is not in the bin or a job runs; nothing is changed then.
    """
    store.project(project_id)
    project_folder = folder.project(project_id)
    project_folder.mkdir(parents=True, exist_ok=True)
    (project_folder / JOB_LIST).write_text(json.dumps([job.id for job in store.jobs(project_id, limit=10**9)]))
    removed_folder = project_folder.with_name(project_folder.name + REMOVED_SUFFIX)
    project_folder.rename(removed_folder)
    try:
        store.delete_project(project_id)
    except BaseException:
        removed_folder.rename(project_folder)
        (project_folder / JOB_LIST).unlink()
        raise
    _remove(folder, removed_folder)


def finish(folder: DataFolder, store: Store) -> None:
    """Complete or undo the removals that a crashed server left unfinished."""
    for removed_folder in (folder.path / "projects").glob(f"*{REMOVED_SUFFIX}"):
        project_folder = removed_folder.with_name(removed_folder.name.removesuffix(REMOVED_SUFFIX))
        try:
            store.project(project_folder.name)
        except NotFoundError:
            _remove(folder, removed_folder)
        else:
            removed_folder.rename(project_folder)
            (project_folder / JOB_LIST).unlink(missing_ok=True)


def _remove(folder: DataFolder, removed_folder: Path) -> None:
    for job_id in json.loads((removed_folder / JOB_LIST).read_text()):
        shutil.rmtree(folder.job(job_id), ignore_errors=True)
    job_list = removed_folder / JOB_LIST
    for path in removed_folder.iterdir():  # the job list goes last, because a retry needs it
        if path != job_list:
            shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(removed_folder, ignore_errors=True)
