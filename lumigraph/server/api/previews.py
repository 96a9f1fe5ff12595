"""What there is to look at in a project: its cover, its capture, its runs as they grow. Workers made all of it and left
it beside what it shows (see wire/previews.py); here it is found, read and sent."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ValidationError

from lumigraph.server.api.jobs import found
from lumigraph.server.api.projects import ID, Known, ProjectId
from lumigraph.server.files import filenames, project_files, safe_open
from lumigraph.server.files.downloads import send_file
from lumigraph.server.problems import Problem, documented
from lumigraph.server.state import ServerState
from lumigraph.wire.previews import CapturePreview, DiskUsage, EvaluationPreview, RunPreview, RunSummary

SHOWN, RUNS = "shown", "runs"
RunId = Annotated[str, Path(pattern=ID, description="id of a run, which is that of the job that began it")]
ShownName = Annotated[str, Path(description="as the JSON beside it names it", examples=["scene-0-001200.spz"])]
Model = TypeVar("Model", bound=BaseModel)

PICTURES = ("jpg", "jpeg", "png", "webp")
OF_A_STEP = re.compile(r"(scene|render)-\d+-\d{6,12}\.(spz|jpg)")  # what has this name once never changes
FOR_EVER = "private, max-age=31536000, immutable"
MOST_JOBS = 1000

BINARY = {"schema": {"type": "string", "format": "binary"}}
SENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the file",
        "content": dict.fromkeys(("image/jpeg", "application/json", "application/octet-stream"), BINARY),
    },
    206: {"description": "a part of it", "content": {"application/octet-stream": BINARY}},
    304: {"description": "the client has it"},
}
PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"description": "a picture", "content": {f"image/{kind}": BINARY for kind in ("jpeg", "png", "webp")}},
    206: {"description": "a part of it", "content": {"image/jpeg": BINARY}},
    304: {"description": "the client has it"},
}

router = APIRouter(tags=["shown"])


@router.get("/projects/{project}/usage", responses=documented(404, 409))
def usage(project: ProjectId, service: Known) -> DiskUsage:
    """How much a project holds. Files that lie in it under two names count once."""
    folder = _folder(service, project)
    uploaded = [name.rpartition(".")[2].lower() for name, _ in _uploaded(folder)]
    return DiskUsage(
        files=len(uploaded), photos=sum(kind in filenames.IMAGES for kind in uploaded), bytes=_bytes(folder)
    )


@router.get("/projects/{project}/cover", response_class=Response, responses={**documented(404, 409, 416), **PICTURE})
def cover(project: ProjectId, service: Known, request: Request) -> Response:
    """A picture to know the project by: of its newest run, else of its capture, else the first photo as uploaded."""
    folder = _folder(service, project)
    for root, name in _covers(folder, service, project):
        try:
            return send_file(request, root, name, inline=True)
        except Problem as problem:
            if problem.status_code not in (404, 409):  # just replaced, or tampered with: the next will do
                raise
    raise Problem(404, "Nothing to show", "This project has no picture yet.")


@router.get("/projects/{project}/capture", responses=documented(404, 409))
def capture(project: ProjectId, service: Known) -> CapturePreview | None:
    """Where the photos were taken, and what they look like. Null until poses are known and shown."""
    return _read(CapturePreview, _folder(service, project), SHOWN, "capture.json")


@router.get(
    "/projects/{project}/capture/{name:path}", response_class=Response, responses={**documented(404, 409, 416), **SENT}
)
def capture_file(project: ProjectId, name: ShownName, service: Known, request: Request) -> Response:
    """A thumbnail of the capture, or its points."""
    return _sent(request, _folder(service, project) / SHOWN, name)


@router.get("/projects/{project}/runs", responses=documented(404, 409))
def runs(project: ProjectId, service: Known) -> list[RunSummary]:
    """The runs of a project, newest first."""
    return [summary for summary, _ in _runs(_folder(service, project), service, project)]


@router.get("/projects/{project}/runs/{run}/shown", responses=documented(404, 409))
def run_shown(project: ProjectId, run: RunId, service: Known) -> RunPreview | None:
    """A run as last saved. Null before its first snapshot."""
    return _read(RunPreview, _folder(service, project), RUNS, run, SHOWN, "index.json")


@router.get("/projects/{project}/runs/{run}/shown/evaluation", responses=documented(404, 409))
def evaluation_shown(project: ProjectId, run: RunId, service: Known) -> EvaluationPreview | None:
    """How good a run is on views that it never saw, with their pictures. Null before its evaluation."""
    return _read(EvaluationPreview, _folder(service, project), RUNS, run, SHOWN, "evaluation.json")


@router.get(
    "/projects/{project}/runs/{run}/shown/{name:path}",
    response_class=Response,
    responses={**documented(404, 409, 416), **SENT},
)
def run_file(project: ProjectId, run: RunId, name: ShownName, service: Known, request: Request) -> Response:
    """A scene, a render or a photo of a run. A file of one step may be kept by the client for ever."""
    return _sent(request, _folder(service, project) / RUNS / run / SHOWN, name)


# ---- finding


def _folder(service: ServerState, project: str) -> FilePath:
    """Also of a project in the bin, which can be looked at. Raises Problem 404."""
    found(service.store.project, project)
    return service.folder.project(project)


def _sent(request: Request, root: FilePath, name: str) -> Response:
    parts = filenames.parts_of(name)
    response = send_file(request, root, "/".join(parts), inline=True)
    if OF_A_STEP.fullmatch(parts[-1]):
        response.headers["cache-control"] = FOR_EVER
    return response


def _covers(folder: FilePath, service: ServerState, project: str) -> Iterator[tuple[FilePath, str]]:
    """(folder, name) of pictures that could stand for a project, the best first."""
    for summary, shown in _runs(folder, service, project):
        if shown is not None and shown.views:
            yield folder / RUNS / summary.id / SHOWN, shown.views[0].render
    posed = _read(CapturePreview, folder, SHOWN, "capture.json")
    if posed is not None and posed.images:
        yield folder / SHOWN, posed.images[0].thumb
    photos = (name for name, _ in _uploaded(folder) if name.rpartition(".")[2].lower() in PICTURES)
    first = min(photos, default=None)
    if first is not None:
        yield folder / project_files.FILES, first


def _runs(folder: FilePath, service: ServerState, project: str) -> list[tuple[RunSummary, RunPreview | None]]:
    """The runs of a project, newest first; those that cannot be read are passed over."""
    created = {job.id: job.created for job in service.store.jobs(project, limit=MOST_JOBS)}
    listed = []
    for run in (folder / RUNS).glob("*"):
        config = _json(folder, RUNS, run.name, "config.json") if re.fullmatch(ID, run.name) else None
        if config is None:
            continue
        try:
            since = created.get(run.name) or (run / "config.json").stat().st_mtime
            shown = _read(RunPreview, folder, RUNS, run.name, SHOWN, "index.json")
        except FileNotFoundError:
            continue
        except Problem:
            shown = None
        judged = _json(folder, RUNS, run.name, "evaluation.json") or {}
        try:
            listed.append((_summary(run.name, config, judged, shown, since), shown))
        except (ValidationError, TypeError):
            continue
    return sorted(listed, key=lambda one: (one[0].created, one[0].id), reverse=True)


def _summary(
    run: str, config: dict[str, Any], judged: dict[str, Any], shown: RunPreview | None, created: float
) -> RunSummary:
    if shown is not None and (judged.get("steps") or 0) < shown.step:  # it has been trained further since
        judged = {}
    return RunSummary.model_validate(
        {
            "id": run,
            **{name: config.get(name) for name in ("method", "settings", "seconds", "steps")},
            "step": judged.get("steps") if shown is None else shown.step,
            "trained_seconds": judged.get("train_seconds") if shown is None else shown.seconds,
            "finished": bool(judged.get("finished")) if shown is None else shown.finished,
            "count": None if shown is None else shown.count,
            "psnr": judged.get("psnr"),
            "ssim": judged.get("ssim"),
            "created": created,
        }
    )


def _uploaded(folder: FilePath) -> list[tuple[str, os.stat_result]]:
    return list(project_files.walk(folder))


def _bytes(folder: FilePath) -> int:
    """Of all files below `folder`, which may come and go meanwhile; links are not followed."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for inside, _, files in os.walk(folder):
        for name in files:
            try:
                status = (FilePath(inside) / name).lstat()
            except FileNotFoundError:
                continue
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_size
    return total


# ---- reading


def _read(model: type[Model], root: FilePath, *parts: str) -> Model | None:
    """None where there is no such file, or it is not what it should be. Raises Problem 409 where a link lies there."""
    try:
        return model.model_validate_json(_content(root, *parts))
    except (FileNotFoundError, ValidationError):
        return None


def _json(root: FilePath, *parts: str) -> dict[str, Any] | None:
    try:
        read = json.loads(_content(root, *parts))
    except (FileNotFoundError, ValueError, Problem):
        return None
    return read if isinstance(read, dict) else None


def _content(root: FilePath, *parts: str) -> bytes:
    with safe_open.folder(root, parts[:-1]) as folder:
        descriptor = safe_open.file(folder, parts[-1], os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as file:
        return file.read()
