"""`lumigraph scan --remote`: the photos go to a server, the jobs run there, what they make comes back.

OUT/remote.json remembers what was asked, so that the same command goes on where it was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from websockets.exceptions import WebSocketException

from lumigraph.client import Client, ClientError, Job, JobError
from lumigraph.scene.errors import LumigraphError, RunError
from lumigraph.wire.events import ArtifactWritten, Event, Note
from lumigraph.wire.resources import PoseJob, TrainJob

MEMORY = "remote.json"


def scan(address: str, source: Path, out: Path, pose: PoseJob | None, train: TrainJob) -> Generator[Event, None, Any]:
    """Returns the evaluation. `address` is what `lumigraph up` printed, with its token. Raises RunError."""
    if not source.exists():
        raise RunError(f"{source} does not exist")
    parts = urlsplit(address)
    token = parse_qs(parts.query).get("token", [""])[0]
    if not (parts.scheme in ("http", "https") and parts.netloc and token):
        raise RunError("--remote wants the address that `lumigraph up` prints, http://HOST:PORT/?token=TOKEN")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with Client(f"{parts.scheme}://{parts.netloc}", token) as client:
            jobs = yield from _asked(client, source, out, pose, train)
            return (yield from _followed(jobs, out))
    except (ClientError, JobError) as error:
        raise RunError(str(error)) from error
    except (httpx.HTTPError, WebSocketException) as error:
        raise LumigraphError(f"the server at {parts.netloc} cannot be reached: {error}") from error


def _asked(
    client: Client, source: Path, out: Path, pose: PoseJob | None, train: TrainJob
) -> Generator[Event, None, list[Job]]:
    """The jobs: those of the last time, or new ones."""
    memory = out / MEMORY
    if memory.exists():
        told = json.loads(memory.read_text())
        yield Note(text=f"going on with the project {told['project']}")
        return [client.job(job) for job in told["jobs"]]
    named = source.resolve()
    project = client.projects.create(named.parent.name if named.name == "images" else named.name)
    names = project.upload(source)
    yield Note(text=f"{len(names)} files are on the server")
    asked = {"pose": pose and pose.model_dump(), "train": train.model_dump(exclude_none=True)}
    jobs = project.scan(**asked)
    beside = memory.with_suffix(".new")
    beside.write_text(json.dumps({"project": project.id, "jobs": [job.id for job in jobs]}))
    beside.replace(memory)
    return jobs


def _followed(jobs: list[Job], out: Path) -> Generator[Event, None, Any]:
    evaluation = None
    for job in jobs:
        for event in job.follow():
            if not isinstance(event, ArtifactWritten):  # paths of the server's disk
                yield event
        for artifact, path in zip(job.artifacts(), job.download(out), strict=True):
            yield ArtifactWritten(path=str(path), what=artifact.what, sha256=artifact.sha256)
        if job.state.request.verb == "evaluate":
            evaluation = job.state.result
    return evaluation
