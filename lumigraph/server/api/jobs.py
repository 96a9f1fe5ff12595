"""Jobs: asked for here, done by workers, looked at here."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, TypeVar, cast
from urllib.parse import urlsplit

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from lumigraph.jobs.store import ConflictError, JobSpec, NotFoundError, id_of, new_id
from lumigraph.server.api.projects import ID, Known, ProjectId
from lumigraph.server.files.downloads import send_file
from lumigraph.server.problems import Problem, documented
from lumigraph.server.state import ServerState
from lumigraph.wire.events import Event, from_line
from lumigraph.wire.resources import (
    Artifact,
    CompareJob,
    EvaluateJob,
    ExportJob,
    Job,
    JobRequest,
    JobState,
    PoseJob,
    RenderJob,
    SampleJob,
    TrainJob,
)

T = TypeVar("T")

router = APIRouter(tags=["jobs"])

JobId = Annotated[str, Path(pattern=ID, description="id of a job")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", max_length=200, description="asked again with the same key, the same job is answered"
    ),
]
Priority = Annotated[int, Query(ge=-100, le=100, description="higher goes first")]
Hook = Annotated[str | None, Query(max_length=2000, description="URL that is told when the job has ended")]
ACCEPTED = {
    "description": "accepted; Location says where to look",
    "headers": {"Location": {"schema": {"type": "string"}}},
}
EXAMPLES = {
    "pose": {"value": {"verb": "pose"}},
    "train": {"value": {"verb": "train", "seconds": 60}},
    "export": {"value": {"verb": "export", "form": "ply"}},
}
LONGEST_LOG = 1_000_000  # bytes that are shown
ALL_CORES = 4096  # more than any machine has: the job takes what there is


class Scan(BaseModel):
    """From photos to a scene: poses, unless they are known, then training, evaluation, a film and a PLY."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"train": {"seconds": 120}}]})

    pose: PoseJob | None = Field(default=PoseJob(), description="null where the photos have their poses")
    train: TrainJob = TrainJob()


class Prioritised(BaseModel):
    model_config = ConfigDict(extra="forbid")

    priority: Annotated[int, Field(ge=-100, le=100)]


@router.post("/projects/{project}/jobs", status_code=202, responses={**documented(404, 409, 503, 507), 202: ACCEPTED})
def ask(
    project: ProjectId,
    asked: Annotated[JobRequest, Body(openapi_examples=EXAMPLES)],
    service: Known,
    response: Response,
    key: Key = None,
    priority: Priority = 0,
    needs: Annotated[list[str] | None, Query(max_length=100, description="jobs that must succeed first")] = None,
    hook: Hook = None,
) -> Job:
    """A job into the queue. `train` makes a run with the job's id; the others take the newest run unless told."""
    order = order_of(service, project, asked, key=key, priority=priority, needs=tuple(needs or ()), hook=hook)
    [job] = submitted(service, project, [order])
    response.headers["location"] = f"/api/v1/jobs/{job.id}"
    return job


@router.post("/projects/{project}/scan", status_code=202, responses=documented(404, 409, 503, 507))
def scan(project: ProjectId, scan: Scan, service: Known, key: Key = None, priority: Priority = 0) -> list[Job]:
    """All of it, as jobs that wait for each other."""
    chain: list[JobSpec] = []

    def then(asked: JobRequest) -> str:
        needs = (chain[-1].id,) if chain else ()
        named = None if key is None else f"{key}:{asked.verb}"
        chain.append(order_of(service, project, asked, key=named, priority=priority, needs=needs))
        return chain[-1].id

    if scan.pose is not None:
        then(scan.pose)
    run = then(scan.train)
    then(EvaluateJob(run=run))
    then(RenderJob(run=run))
    then(ExportJob(run=run))
    return submitted(service, project, chain)


@router.get("/projects/{project}/jobs", responses=documented(404))
def of_project(project: ProjectId, service: Known, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[Job]:
    """The jobs of a project, newest first."""
    found(service.store.project, project)
    return service.store.jobs(project, limit=limit)


@router.get("/jobs", responses=documented())
def all_jobs(
    service: Known,
    state: Annotated[list[JobState] | None, Query(max_length=5)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[Job]:
    """The jobs of all projects, newest first."""
    return service.store.jobs(states=state or (), limit=limit)


@router.get("/jobs/{job}", responses=documented(404))
def one(job: JobId, service: Known) -> Job:
    """A job as it stands."""
    return found(service.store.job, job)


@router.post("/jobs/{job}/cancel", responses=documented(404, 507))
def cancel(job: JobId, service: Known) -> Job:
    """Asked to stop: it keeps what it saved. A job that has ended stays as it is."""
    done = found(service.store.cancel, job)
    service.dispatcher.wake()
    return done


@router.post("/jobs/{job}/pause", responses=documented(404, 409, 507))
def pause(job: JobId, service: Known) -> Job:
    """Set aside: it saves, and its place is free for another."""
    return found(service.store.pause, job)


@router.post("/jobs/{job}/resume", responses=documented(404, 409, 507))
def resume(job: JobId, service: Known) -> Job:
    """On from where it was set aside."""
    done = found(lambda one: service.store.pause(one, paused=False), job)
    service.dispatcher.wake()
    return done


@router.patch("/jobs/{job}", responses=documented(404, 409, 507))
def prioritise(job: JobId, body: Prioritised, service: Known) -> Job:
    """Another place in the queue."""
    return found(lambda one: service.store.set_priority(one, body.priority), job)


@router.get("/jobs/{job}/events", responses=documented(404))
def events(
    job: JobId,
    service: Known,
    after: Annotated[int, Query(ge=0, description="leave so many out")] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> list[Event]:
    """What happened, oldest first: metrics, notes, snapshots, what was made. Progress is in the job itself."""
    found(service.store.job, job)
    told = []
    file = service.folder.job(job) / "events.jsonl"
    if not file.exists():
        return []
    with file.open("rb") as lines:
        for number, line in enumerate(lines):
            if number >= after + limit or not line.endswith(b"\n"):
                break
            if number >= after:
                told.append(from_line(line))
    return told


@router.get(
    "/jobs/{job}/log",
    response_class=Response,
    responses={**documented(404), 200: {"description": "text", "content": {"text/plain": {}}}},
)
def log(job: JobId, service: Known) -> Response:
    """What its workers printed: the last megabyte of it."""
    found(service.store.job, job)
    try:
        with (service.folder.job(job) / "log.txt").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LONGEST_LOG))
            text = file.read(LONGEST_LOG)
    except FileNotFoundError:
        text = b""
    return Response(text, media_type="text/plain")


@router.get("/jobs/{job}/artifacts", responses=documented(404))
def made_by(job: JobId, service: Known) -> list[Artifact]:
    """What a job made."""
    found(service.store.job, job)
    return service.store.artifacts(job_id=job)


@router.get("/projects/{project}/artifacts", responses=documented(404))
def made_in(project: ProjectId, service: Known) -> list[Artifact]:
    """All that was made in a project, oldest first."""
    found(service.store.project, project)
    return service.store.artifacts(project)


@router.get(
    "/artifacts/{artifact}",
    response_class=Response,
    responses={
        **documented(404, 409, 416),
        200: {"description": "the file", "content": {"application/octet-stream": {}}},
        206: {"description": "a part of it", "content": {"application/octet-stream": {}}},
        304: {"description": "the client has it"},
    },
)
def artifact(
    artifact: Annotated[str, Path(pattern=ID, description="id of an artifact")], service: Known, request: Request
) -> Response:
    """The file itself, whole or a range of it."""
    known, path = found(service.store.artifact, artifact)
    return send_file(request, service.folder.path, path, filename=known.name, inline=True, sha256=known.sha256)


@router.get("/projects/{project}/runs/{run}/checkpoints", responses=documented(404))
def checkpoints(project: ProjectId, run: Annotated[str, Path(pattern=ID)], service: Known) -> JsonValue:
    """The checkpoints that a run can go on from, newest first."""
    return _record(service, project, run, "checkpoint/latest.json")


@router.get("/projects/{project}/runs/{run}/evaluation", responses=documented(404))
def evaluation(project: ProjectId, run: Annotated[str, Path(pattern=ID)], service: Known) -> JsonValue:
    """How good a run is on the views that it never saw."""
    return _record(service, project, run, "evaluation.json")


def order_of(
    service: ServerState,
    project: str,
    asked: JobRequest,
    *,
    key: str | None = None,
    priority: int = 0,
    needs: tuple[str, ...] = (),
    hook: str | None = None,
) -> JobSpec:
    """How heavy a job is, and what it must not run beside. Raises Problem 422 where no method knows what it asks."""
    service.catalogue.check(asked)
    if hook is not None and urlsplit(hook).netloc not in service.hook_hosts:
        raise Problem(422, "Hook not allowed", "The server tells only hosts named at its start by --hook-host.")
    heavy = isinstance(asked, PoseJob | TrainJob | SampleJob | EvaluateJob | CompareJob)
    job_id, lane = new_id() if key is None else id_of(project, key), None
    if isinstance(asked, TrainJob):
        lane = f"run:{asked.run or job_id}"
    elif isinstance(asked, SampleJob | PoseJob):
        lane = f"project:{project}"
    return JobSpec(asked, needs, key, priority, ALL_CORES if heavy else 1, 0, lane, hook, job_id)


def submitted(service: ServerState, project: str, orders: list[JobSpec]) -> list[Job]:
    service.project_folder(project)
    try:
        jobs = service.store.submit(project, orders)
    except NotFoundError as error:
        raise Problem(404, "Not found", str(error)) from error
    except ConflictError as error:
        raise Problem(409, "Conflict", str(error)) from error
    service.dispatcher.wake()
    return jobs


def found(look: Callable[[str], T], name: str) -> T:
    """Raises Problem 404 or 409 where the table refuses."""
    try:
        return look(name)
    except NotFoundError as error:
        raise Problem(404, "Not found", str(error)) from error
    except ConflictError as error:
        raise Problem(409, "Conflict", str(error)) from error


def _record(service: ServerState, project: str, run: str, name: str) -> JsonValue:
    """A JSON file of a run's folder."""
    found(service.store.project, project)
    file = service.folder.project(project) / "runs" / run / name
    try:
        return cast(JsonValue, json.loads(file.read_bytes()))
    except (FileNotFoundError, ValueError) as error:
        raise Problem(404, "Not found", f"this run has no {name} yet") from error
