"""Projects: a name, what was uploaded, and all that jobs made of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from lumigraph.jobs.store import ConflictError, NotFoundError
from lumigraph.server.files import project_removal
from lumigraph.server.problems import Problem, documented
from lumigraph.server.state import ServerState, server_state
from lumigraph.wire.resources import Project

ID = r"^[a-z0-9]{16}$"
ProjectId = Annotated[str, Path(pattern=ID, description="id of a project", examples=["k3v9x2m4q8w1z7n5"])]
Known = Annotated[ServerState, Depends(server_state)]

router = APIRouter(tags=["projects"])


class Named(BaseModel):
    """What a person calls it; any text."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Garden in May"}]})

    name: Annotated[str, Field(min_length=1, max_length=200)]


@router.post("/projects", status_code=201, responses=documented(507))
def create(body: Named, service: Known, response: Response) -> Project:
    """A new, empty project."""
    made = service.store.create_project(body.name)
    service.project_folder(made.id)
    response.headers["location"] = f"/api/v1/projects/{made.id}"
    return made


@router.get("/projects", responses=documented())
def listed(
    service: Known, deleted: Annotated[bool, Query(description="those in the bin instead")] = False
) -> list[Project]:
    """All projects, newest first."""
    return service.store.projects(deleted)


@router.get("/projects/{project}", responses=documented(404))
def one(project: ProjectId, service: Known) -> Project:
    """A project, also one in the bin."""
    return _found(service, project)


@router.patch("/projects/{project}", responses=documented(404, 507))
def rename(project: ProjectId, body: Named, service: Known) -> Project:
    """Another name."""
    return _changed(service, project, name=body.name)


@router.delete("/projects/{project}", responses=documented(404, 507))
def bin_it(project: ProjectId, service: Known) -> Project:
    """Into the bin: nothing is lost, its jobs are cancelled."""
    for job in service.store.jobs(project, states=["queued", "running"]):
        service.store.cancel(job.id)
    return _changed(service, project, deleted=True)


@router.delete("/projects/{project}/forever", status_code=204, responses=documented(404, 409, 507))
def purge(project: ProjectId, service: Known) -> None:
    """Out of the bin and off the disk, with all its jobs and files. Nothing brings them back."""
    try:
        project_removal.purge(service.folder, service.store, project)
    except NotFoundError as error:
        raise Problem(404, "No such project", str(error)) from error
    except ConflictError as error:
        raise Problem(409, "Not to be removed now", str(error)) from error


@router.post("/projects/{project}/restore", responses=documented(404, 507))
def restore(project: ProjectId, service: Known) -> Project:
    """Out of the bin."""
    return _changed(service, project, deleted=False)


def _found(service: ServerState, project: str) -> Project:
    try:
        return service.store.project(project)
    except NotFoundError as error:
        raise Problem(404, "No such project", str(error)) from error


def _changed(service: ServerState, project: str, name: str | None = None, deleted: bool | None = None) -> Project:
    try:
        return service.store.update_project(project, name, deleted)
    except NotFoundError as error:
        raise Problem(404, "No such project", str(error)) from error
