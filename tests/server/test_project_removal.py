"""Crashes at each step of the permanent removal of a project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lumigraph.jobs.data_folder import DataFolder
from lumigraph.jobs.database import Database
from lumigraph.jobs.migrate import migrate
from lumigraph.jobs.store import ConflictError, JobSpec, NotFoundError, Store
from lumigraph.server.files import project_removal
from lumigraph.wire.resources import NoopJob


class SimulatedKill(BaseException):
    """A simulated kill: no handler of ordinary exceptions runs."""


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    for name in ("projects", "jobs"):
        (tmp_path / name).mkdir()
    return DataFolder(tmp_path)


@pytest.fixture
def store(folder: DataFolder) -> Iterator[Store]:
    database = Database(folder.database_url())
    migrate(database)
    yield Store(database)
    database.close()


@pytest.fixture
def binned_project(folder: DataFolder, store: Store) -> tuple[str, str]:
    """Create (project, job) with one file each, and move the project to the bin."""
    project = store.create_project("p").id
    [job] = store.submit(project, [JobSpec(NoopJob())])
    for own_folder in (folder.project(project) / "files", folder.job(job.id)):
        own_folder.mkdir(parents=True)
        (own_folder / "file").write_text("something")
    store.cancel(job.id)
    store.update_project(project, deleted=True)
    return project, job.id


def test_purge_removes_all(folder: DataFolder, store: Store, binned_project: tuple[str, str]) -> None:
    project_removal.purge(folder, store, binned_project[0])
    assert not list((folder.path / "projects").iterdir())
    assert not list((folder.path / "jobs").iterdir())
    with pytest.raises(NotFoundError):
        store.project(binned_project[0])
    assert store.jobs() == []


def test_purge_undone_after_crash_before_delete(
    folder: DataFolder, store: Store, binned_project: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed_folder = folder.project(binned_project[0]).with_name(binned_project[0] + project_removal.REMOVED_SUFFIX)
    monkeypatch.setattr(store, "delete_project", lambda _: (_ for _ in ()).throw(SimulatedKill))
    monkeypatch.setattr(Path, "rename", lambda self, to: None if self == renamed_folder else ORIGINAL_RENAME(self, to))
    with pytest.raises((SimulatedKill, FileNotFoundError)):
        project_removal.purge(folder, store, binned_project[0])
    monkeypatch.undo()
    assert renamed_folder.exists()
    project_removal.finish(folder, store)
    assert sorted(path.name for path in folder.project(binned_project[0]).iterdir()) == ["files"]
    assert (folder.job(binned_project[1]) / "file").exists()
    store.update_project(binned_project[0], deleted=False)


def test_purge_completed_after_crash_before_removal(
    folder: DataFolder, store: Store, binned_project: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lumigraph.server.files.project_removal._remove", lambda *_: (_ for _ in ()).throw(SimulatedKill)
    )
    with pytest.raises(SimulatedKill):
        project_removal.purge(folder, store, binned_project[0])
    monkeypatch.undo()
    assert folder.job(binned_project[1]).exists()
    project_removal.finish(folder, store)
    assert not list((folder.path / "projects").iterdir())
    assert not list((folder.path / "jobs").iterdir())


def test_purge_rejects_running_or_unbinned(folder: DataFolder, store: Store, binned_project: tuple[str, str]) -> None:
    store.update_project(binned_project[0], deleted=False)
    with pytest.raises(ConflictError, match="only a project in the bin"):
        project_removal.purge(folder, store, binned_project[0])
    store.submit(binned_project[0], [JobSpec(NoopJob())])
    assert store.lease(1, 0, 1) is not None
    store.update_project(binned_project[0], deleted=True)
    with pytest.raises(ConflictError, match="still being stopped"):
        project_removal.purge(folder, store, binned_project[0])
    assert (folder.project(binned_project[0]) / "files" / "file").exists()


ORIGINAL_RENAME = Path.rename
