"""Routes for the previews of a project: its cover, its capture, and its runs during training.

Workers write the preview files next to the capture or run (see wire/previews.py); these routes only read and send them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ValidationError

from lumigraph.server.api.jobs import call_store
from lumigraph.server.api.projects import ID_PATTERN, ProjectId, ServerDep
from lumigraph.server.files import filenames, project_files, safe_open
from lumigraph.server.files.downloads import send_file
from lumigraph.server.problems import Problem, error_responses
from lumigraph.server.state import ServerState
from lumigraph.wire.previews import CapturePreview, DiskUsage, EvaluationPreview, RunPreview, RunSummary

PREVIEWS, RUNS = "shown", "runs"
RunId = Annotated[str, Path(pattern=ID_PATTERN, description="id of a run: the id of the job that created it")]
PreviewName = Annotated[
    str, Path(description="file name as listed in the JSON next to it", examples=["scene-0-001200.spz"])
]
Model = TypeVar("Model", bound=BaseModel)

BROWSER_IMAGES = ("jpg", "jpeg", "png", "webp")  # suffixes that every browser shows
STEP_FILE = re.compile(r"(scene|render)-\d+-\d{6,12}\.(spz|jpg)")  # a file of one step never changes
IMMUTABLE_PREVIEW = "private, max-age=31536000, immutable"
MAX_LISTED_JOBS = 1000

BINARY = {"schema": {"type": "string", "format": "binary"}}
FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the file",
        "content": dict.fromkeys(("image/jpeg", "application/json", "application/octet-stream"), BINARY),
    },
    206: {"description": "a range of the file", "content": {"application/octet-stream": BINARY}},
    304: {"description": "the client's copy is current"},
}
IMAGE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "an image", "content": {f"image/{kind}": BINARY for kind in ("jpeg", "png", "webp")}},
    206: {"description": "a range of the file", "content": {"image/jpeg": BINARY}},
    304: {"description": "the client's copy is current"},
}

router = APIRouter(tags=["shown"])


@router.get("/projects/{project}/usage", responses=error_responses(404, 409))
def usage(project: ProjectId, server: ServerDep) -> DiskUsage:
    """The number of uploaded files and the disk space of a project. A file with two names counts once."""
    folder = _folder(server, project)
    suffixes = [name.rpartition(".")[2].lower() for name, _ in project_files.walk(folder)]
    photos = sum(suffix in filenames.IMAGES for suffix in suffixes)
    return DiskUsage(files=len(suffixes), photos=photos, bytes=_count_bytes(folder))


@router.get(
    "/projects/{project}/cover",
    response_class=Response,
    responses={**error_responses(404, 409, 416), **IMAGE_RESPONSES},
)
def cover(project: ProjectId, server: ServerDep, request: Request) -> Response:
    """The cover image of a project: from its newest run, else its capture, else the first uploaded photo."""
    folder = _folder(server, project)
    for root, name in _covers(folder, server, project):
        try:
            return send_file(request, root, name, inline=True)
        except Problem as problem:
            if problem.status_code not in (404, 409):  # just replaced, or a link: try the next candidate
                raise
    raise Problem(404, "Nothing to show", "This project has no image yet.")


@router.get("/projects/{project}/capture", responses=error_responses(404, 409))
def capture(project: ProjectId, server: ServerDep) -> CapturePreview | None:
    """Camera poses and thumbnails of the capture. Null until the poses are estimated and previewed."""
    return _read(CapturePreview, _folder(server, project), PREVIEWS, "capture.json")


@router.get(
    "/projects/{project}/capture/{name:path}",
    response_class=Response,
    responses={**error_responses(404, 409, 416), **FILE_RESPONSES},
)
def capture_file(project: ProjectId, name: PreviewName, server: ServerDep, request: Request) -> Response:
    """A thumbnail of the capture, or its points."""
    return _send(request, _folder(server, project) / PREVIEWS, name)


@router.get("/projects/{project}/runs", responses=error_responses(404, 409))
def runs(project: ProjectId, server: ServerDep) -> list[RunSummary]:
    """The runs of a project, newest first."""
    return [summary for summary, _ in _runs(_folder(server, project), server, project)]


@router.get("/projects/{project}/runs/{run}/shown", responses=error_responses(404, 409))
def run_preview(project: ProjectId, run: RunId, server: ServerDep) -> RunPreview | None:
    """The newest preview of a run. Null before its first snapshot."""
    return _read(RunPreview, _folder(server, project), RUNS, run, PREVIEWS, "index.json")


@router.get("/projects/{project}/runs/{run}/shown/evaluation", responses=error_responses(404, 409))
def evaluation_preview(project: ProjectId, run: RunId, server: ServerDep) -> EvaluationPreview | None:
    """The evaluation of a run on held-out views, with their images. Null before its evaluation."""
    return _read(EvaluationPreview, _folder(server, project), RUNS, run, PREVIEWS, "evaluation.json")


@router.get(
    "/projects/{project}/runs/{run}/shown/{name:path}",
    response_class=Response,
    responses={**error_responses(404, 409, 416), **FILE_RESPONSES},
)
def run_file(project: ProjectId, run: RunId, name: PreviewName, server: ServerDep, request: Request) -> Response:
    """A scene, a render or a photo of a run. Files of one step may be cached for ever."""
    return _send(request, _folder(server, project) / RUNS / run / PREVIEWS, name)


# ---- locating files


def _folder(server: ServerState, project: str) -> FilePath:
    """The folder of a project, which may be in the bin. Raises Problem 404 if the project does not exist."""
    call_store(server.store.project, project)
    return server.folder.project(project)


def _send(request: Request, root: FilePath, name: str) -> Response:
    parts = filenames.parts_of(name)
    response = send_file(request, root, "/".join(parts), inline=True)
    if STEP_FILE.fullmatch(parts[-1]):
        response.headers["cache-control"] = IMMUTABLE_PREVIEW
    return response


def _covers(folder: FilePath, server: ServerState, project: str) -> Iterator[tuple[FilePath, str]]:
    """(folder, name) of candidates for the cover, best first."""
    for summary, preview in _runs(folder, server, project):
        if preview is not None and preview.views:
            yield folder / RUNS / summary.id / PREVIEWS, preview.views[0].render
    capture = _read(CapturePreview, folder, PREVIEWS, "capture.json")
    if capture is not None and capture.images:
        yield folder / PREVIEWS, capture.images[0].thumb
    photos = (name for name, _ in project_files.walk(folder) if name.rpartition(".")[2].lower() in BROWSER_IMAGES)
    first = min(photos, default=None)
    if first is not None:
        yield folder / project_files.FILES, first


def _runs(folder: FilePath, server: ServerState, project: str) -> list[tuple[RunSummary, RunPreview | None]]:
    """The runs of a project, newest first; unreadable ones are skipped."""
    job_times = {job.id: job.created for job in server.store.jobs(project, limit=MAX_LISTED_JOBS)}
    runs = []
    for run in (folder / RUNS).glob("*"):
        config = _read_json(folder, RUNS, run.name, "config.json") if re.fullmatch(ID_PATTERN, run.name) else None
        if config is None:
            continue
        try:
            created = job_times.get(run.name) or (run / "config.json").stat().st_mtime
            preview = _read(RunPreview, folder, RUNS, run.name, PREVIEWS, "index.json")
        except FileNotFoundError:
            continue
        except Problem:
            preview = None
        metrics = _read_json(folder, RUNS, run.name, "evaluation.json") or {}
        try:
            runs.append((_summarize(run.name, config, metrics, preview, created), preview))
        except (ValidationError, TypeError):
            continue
    return sorted(runs, key=lambda pair: (pair[0].created, pair[0].id), reverse=True)


def _summarize(
    run: str, config: dict[str, Any], metrics: dict[str, Any], preview: RunPreview | None, created: float
) -> RunSummary:
    if preview is not None and (metrics.get("steps") or 0) < preview.step:  # training continued after the evaluation
        metrics = {}
    return RunSummary.model_validate(
        {
            "id": run,
            **{name: config.get(name) for name in ("method", "settings", "seconds", "steps")},
            "step": metrics.get("steps") if preview is None else preview.step,
            "trained_seconds": metrics.get("train_seconds") if preview is None else preview.seconds,
            "finished": bool(metrics.get("finished")) if preview is None else preview.finished,
            "count": None if preview is None else preview.count,
            "psnr": metrics.get("psnr"),
            "ssim": metrics.get("ssim"),
            "created": created,
        }
    )


def _count_bytes(folder: FilePath) -> int:
    """Total size of the files below `folder`, which may change meanwhile. Links are not followed."""
    inodes: set[tuple[int, int]] = set()
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                status = (FilePath(parent) / name).lstat()
            except FileNotFoundError:
                continue
            if (status.st_dev, status.st_ino) not in inodes:
                inodes.add((status.st_dev, status.st_ino))
                total += status.st_size
    return total


# ---- reading files


def _read(model: type[Model], root: FilePath, *parts: str) -> Model | None:
    """Read a JSON file as `model`; None if it is missing or invalid. Raises Problem 409 if the path has a link."""
    try:
        return model.model_validate_json(_read_bytes(root, *parts))
    except (FileNotFoundError, ValidationError):
        return None


def _read_json(root: FilePath, *parts: str) -> dict[str, Any] | None:
    try:
        value = json.loads(_read_bytes(root, *parts))
    except (FileNotFoundError, ValueError, Problem):
        return None
    return value if isinstance(value, dict) else None


def _read_bytes(root: FilePath, *parts: str) -> bytes:
    with safe_open.folder(root, parts[:-1]) as folder:
        descriptor = safe_open.file(folder, parts[-1], os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as file:
        return file.read()
