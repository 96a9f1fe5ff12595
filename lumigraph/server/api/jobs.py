"""Routes for jobs: submit, control and inspect them. Workers run them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, TypeVar, cast
from urllib.parse import urlsplit

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from lumigraph.jobs.store import ConflictError, JobSpec, NotFoundError, job_id_for_key, new_id
from lumigraph.server.api.projects import ID_PATTERN, ProjectId, ServerDep
from lumigraph.server.files.downloads import send_file
from lumigraph.server.problems import Problem, error_responses
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

JobId = Annotated[str, Path(pattern=ID_PATTERN, description="id of a job")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", max_length=200, description="a repeated request with the same key returns the same job"
    ),
]
Priority = Annotated[int, Query(ge=-100, le=100, description="jobs with a higher priority start first")]
Webhook = Annotated[str | None, Query(max_length=2000, description="URL that gets a POST when the job has ended")]
ACCEPTED = {
    "description": "accepted; Location is the URL of the job",
    "headers": {"Location": {"schema": {"type": "string"}}},
}
EXAMPLES = {
    "pose": {"value": {"verb": "pose"}},
    "train": {"value": {"verb": "train", "seconds": 60}},
    "export": {"value": {"verb": "export", "form": "ply"}},
}
MAX_LOG_BYTES = 1_000_000
ALL_CORES = 4096  # more than any machine has: the job gets all cores


class Scan(BaseModel):
    """A chain of jobs from photos to a scene: poses (if needed), training, evaluation, a video and a PLY export."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"train": {"seconds": 120}}]})

    pose: PoseJob | None = Field(default=PoseJob(), description="null if the photos have poses already")
    train: TrainJob = TrainJob()


class JobPriority(BaseModel):
    model_config = ConfigDict(extra="forbid")

    priority: Annotated[int, Field(ge=-100, le=100)]


@router.post(
    "/projects/{project}/jobs", status_code=202, responses={**error_responses(404, 409, 503, 507), 202: ACCEPTED}
)
def submit_job(
    project: ProjectId,
    request: Annotated[JobRequest, Body(openapi_examples=EXAMPLES)],
    server: ServerDep,
    response: Response,
    key: Key = None,
    priority: Priority = 0,
    needs: Annotated[list[str] | None, Query(max_length=100, description="jobs that must succeed first")] = None,
    hook: Webhook = None,
) -> Job:
    """Submit a job. `train` creates a run with the job's id; other jobs use the newest run unless they name one."""
    spec = build_spec(server, project, request, key=key, priority=priority, needs=tuple(needs or ()), webhook_url=hook)
    [job] = submit_specs(server, project, [spec])
    response.headers["location"] = f"/api/v1/jobs/{job.id}"
    return job


@router.post("/projects/{project}/scan", status_code=202, responses=error_responses(404, 409, 503, 507))
def scan(project: ProjectId, scan: Scan, server: ServerDep, key: Key = None, priority: Priority = 0) -> list[Job]:
    """Submit the whole chain, as jobs that depend on each other."""
    chain: list[JobSpec] = []

    def append(request: JobRequest) -> str:
        needs = (chain[-1].id,) if chain else ()
        job_key = None if key is None else f"{key}:{request.verb}"
        chain.append(build_spec(server, project, request, key=job_key, priority=priority, needs=needs))
        return chain[-1].id

    if scan.pose is not None:
        append(scan.pose)
    run = append(scan.train)
    append(EvaluateJob(run=run))
    append(RenderJob(run=run))
    append(ExportJob(run=run))
    return submit_specs(server, project, chain)


@router.get("/projects/{project}/jobs", responses=error_responses(404))
def list_jobs(project: ProjectId, server: ServerDep, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[Job]:
    """The jobs of a project, newest first."""
    call_store(server.store.project, project)
    return server.store.jobs(project, limit=limit)


@router.get("/jobs", responses=error_responses())
def list_all_jobs(
    server: ServerDep,
    state: Annotated[list[JobState] | None, Query(max_length=5)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[Job]:
    """The jobs of all projects, newest first."""
    return server.store.jobs(states=state or (), limit=limit)


@router.get("/jobs/{job}", responses=error_responses(404))
def get_job(job: JobId, server: ServerDep) -> Job:
    """The current state of a job."""
    return call_store(server.store.job, job)


@router.post("/jobs/{job}/cancel", responses=error_responses(404, 507))
def cancel(job: JobId, server: ServerDep) -> Job:
    """Cancel a job; its saved files are kept. An ended job does not change."""
    cancelled_job = call_store(server.store.cancel, job)
    server.dispatcher.wake()
    return cancelled_job


@router.post("/jobs/{job}/pause", responses=error_responses(404, 409, 507))
def pause(job: JobId, server: ServerDep) -> Job:
    """Pause a job: it saves and stops, and its CPUs and GPUs become free."""
    return call_store(server.store.pause, job)


@router.post("/jobs/{job}/resume", responses=error_responses(404, 409, 507))
def resume(job: JobId, server: ServerDep) -> Job:
    """Resume a paused job from its last checkpoint."""
    resumed_job = call_store(lambda job_id: server.store.pause(job_id, paused=False), job)
    server.dispatcher.wake()
    return resumed_job


@router.patch("/jobs/{job}", responses=error_responses(404, 409, 507))
def set_priority(job: JobId, body: JobPriority, server: ServerDep) -> Job:
    """Change the priority of a job."""
    return call_store(lambda job_id: server.store.set_priority(job_id, body.priority), job)


@router.get("/jobs/{job}/events", responses=error_responses(404))
def events(
    job: JobId,
    server: ServerDep,
    after: Annotated[int, Query(ge=0, description="skip this many events")] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> list[Event]:
    """The events of a job, oldest first: metrics, notes, snapshots, output files. Progress is in the job itself."""
    call_store(server.store.job, job)
    page = []
    file = server.folder.job(job) / "events.jsonl"
    if not file.exists():
        return []
    with file.open("rb") as lines:
        for number, line in enumerate(lines):
            if number >= after + limit or not line.endswith(b"\n"):
                break
            if number >= after:
                page.append(from_line(line))
    return page


@router.get(
    "/jobs/{job}/log",
    response_class=Response,
    responses={**error_responses(404), 200: {"description": "text", "content": {"text/plain": {}}}},
)
def log(job: JobId, server: ServerDep) -> Response:
    """The output of the job's workers: the last megabyte."""
    call_store(server.store.job, job)
    try:
        with (server.folder.job(job) / "log.txt").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - MAX_LOG_BYTES))
            text = file.read(MAX_LOG_BYTES)
    except FileNotFoundError:
        text = b""
    return Response(text, media_type="text/plain")


@router.get("/jobs/{job}/artifacts", responses=error_responses(404))
def list_job_artifacts(job: JobId, server: ServerDep) -> list[Artifact]:
    """The output files of a job."""
    call_store(server.store.job, job)
    return server.store.artifacts(job_id=job)


@router.get("/projects/{project}/artifacts", responses=error_responses(404))
def list_project_artifacts(project: ProjectId, server: ServerDep) -> list[Artifact]:
    """The output files of all jobs of a project, oldest first."""
    call_store(server.store.project, project)
    return server.store.artifacts(project)


@router.get(
    "/artifacts/{artifact}",
    response_class=Response,
    responses={
        **error_responses(404, 409, 416),
        200: {"description": "the file", "content": {"application/octet-stream": {}}},
        206: {"description": "a range of the file", "content": {"application/octet-stream": {}}},
        304: {"description": "the client's copy is current"},
    },
)
def artifact(
    artifact: Annotated[str, Path(pattern=ID_PATTERN, description="id of an artifact")],
    server: ServerDep,
    request: Request,
) -> Response:
    """Download an artifact, or one range of it."""
    record, path = call_store(server.store.artifact, artifact)
    return send_file(request, server.folder.path, path, filename=record.name, inline=True, sha256=record.sha256)


@router.get("/projects/{project}/runs/{run}/checkpoints", responses=error_responses(404))
def checkpoints(project: ProjectId, run: Annotated[str, Path(pattern=ID_PATTERN)], server: ServerDep) -> JsonValue:
    """The checkpoints from which a run can resume, newest first."""
    return _read_run_file(server, project, run, "checkpoint/latest.json")


@router.get("/projects/{project}/runs/{run}/evaluation", responses=error_responses(404))
def evaluation(project: ProjectId, run: Annotated[str, Path(pattern=ID_PATTERN)], server: ServerDep) -> JsonValue:
    """The evaluation of a run on held-out views."""
    return _read_run_file(server, project, run, "evaluation.json")


def build_spec(
    server: ServerState,
    project: str,
    request: JobRequest,
    *,
    key: str | None = None,
    priority: int = 0,
    needs: tuple[str, ...] = (),
    webhook_url: str | None = None,
) -> JobSpec:
    """Add the CPUs and the concurrency key to a request. Raises Problem 422 if the request or webhook is invalid."""
    server.probe.check(request)
    if webhook_url is not None and urlsplit(webhook_url).netloc not in server.webhook_hosts:
        raise Problem(422, "Hook not allowed", "Webhooks are sent only to hosts given at the start by --hook-host.")
    needs_all_cores = isinstance(request, PoseJob | TrainJob | SampleJob | EvaluateJob | CompareJob)
    job_id, concurrency_key = new_id() if key is None else job_id_for_key(project, key), None
    if isinstance(request, TrainJob):
        concurrency_key = f"run:{request.run or job_id}"
    elif isinstance(request, SampleJob | PoseJob):
        concurrency_key = f"project:{project}"
    return JobSpec(
        request,
        needs=needs,
        key=key,
        priority=priority,
        cpus=ALL_CORES if needs_all_cores else 1,
        concurrency_key=concurrency_key,
        webhook_url=webhook_url,
        id=job_id,
    )


def submit_specs(server: ServerState, project: str, specs: list[JobSpec]) -> list[Job]:
    server.project_folder(project)
    try:
        jobs = server.store.submit(project, specs)
    except NotFoundError as error:
        raise Problem(404, "Not found", str(error)) from error
    except ConflictError as error:
        raise Problem(409, "Conflict", str(error)) from error
    server.dispatcher.wake()
    return jobs


def call_store(call: Callable[[str], T], item_id: str) -> T:
    """Call the store. Raises Problem 404 or 409 instead of NotFoundError or ConflictError."""
    try:
        return call(item_id)
    except NotFoundError as error:
        raise Problem(404, "Not found", str(error)) from error
    except ConflictError as error:
        raise Problem(409, "Conflict", str(error)) from error


def _read_run_file(server: ServerState, project: str, run: str, name: str) -> JsonValue:
    """Read a JSON file of a run's folder. Raises Problem 404 if it does not exist yet."""
    call_store(server.store.project, project)
    file = server.folder.project(project) / "runs" / run / name
    try:
        return cast(JsonValue, json.loads(file.read_bytes()))
    except (FileNotFoundError, ValueError) as error:
        raise Problem(404, "Not found", f"this run has no {name} yet") from error
