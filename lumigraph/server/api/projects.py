"""Routes for projects. A project has a name, uploaded files, and the outputs of its jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from lumigraph.jobs.store import ConflictError, NotFoundError
from lumigraph.server.files import project_removal
from lumigraph.server.problems import Problem, error_responses
from lumigraph.server.state import ServerState, server_state
from lumigraph.wire.resources import Project

ID_PATTERN = r"^[a-z0-9]{16}$"
ProjectId = Annotated[str, Path(pattern=ID_PATTERN, description="id of a project", examples=["k3v9x2m4q8w1z7n5"])]
ServerDep = Annotated[ServerState, Depends(server_state)]

router = APIRouter(tags=["projects"])


class ProjectName(BaseModel):
    """The name of a project; any text."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Garden in May"}]})

    name: Annotated[str, Field(min_length=1, max_length=200)]


@router.post("/projects", status_code=201, responses=error_responses(507))
def create(body: ProjectName, server: ServerDep, response: Response) -> Project:
    """Create an empty project."""
    project = server.store.create_project(body.name)
    server.project_folder(project.id)
    response.headers["location"] = f"/api/v1/projects/{project.id}"
    return project


@router.get("/projects", responses=error_responses())
def list_projects(
    server: ServerDep, deleted: Annotated[bool, Query(description="list the projects in the bin instead")] = False
) -> list[Project]:
    """All projects, newest first."""
    return server.store.projects(deleted)


@router.get("/projects/{project}", responses=error_responses(404))
def get_project(project: ProjectId, server: ServerDep) -> Project:
    """A project; projects in the bin are included."""
    return _get(server, project)


@router.patch("/projects/{project}", responses=error_responses(404, 507))
def rename(project: ProjectId, body: ProjectName, server: ServerDep) -> Project:
    """Rename a project."""
    return _update(server, project, name=body.name)


@router.delete("/projects/{project}", responses=error_responses(404, 507))
def move_to_bin(project: ProjectId, server: ServerDep) -> Project:
    """Move a project to the bin and cancel its jobs. Its files are kept."""
    for job in server.store.jobs(project, states=["queued", "running"]):
        server.store.cancel(job.id)
    return _update(server, project, deleted=True)


@router.delete("/projects/{project}/forever", status_code=204, responses=error_responses(404, 409, 507))
def purge(project: ProjectId, server: ServerDep) -> None:
    """Delete a project in the bin permanently, with all its jobs and files."""
    try:
        project_removal.purge(server.folder, server.store, project)
    except NotFoundError as error:
        raise Problem(404, "No such project", str(error)) from error
    except ConflictError as error:
        raise Problem(409, "Not to be removed now", str(error)) from error


@router.post("/projects/{project}/restore", responses=error_responses(404, 507))
def restore(project: ProjectId, server: ServerDep) -> Project:
    """Restore a project from the bin."""
    return _update(server, project, deleted=False)


def _get(server: ServerState, project: str) -> Project:
    try:
        return server.store.project(project)
    except NotFoundError as error:
        raise Problem(404, "No such project", str(error)) from error


def _update(server: ServerState, project: str, name: str | None = None, deleted: bool | None = None) -> Project:
    try:
        return server.store.update_project(project, name, deleted)
    except NotFoundError as error:
        raise Problem(404, "No such project", str(error)) from error
