"""`lumigraph scan --remote`: upload the photos, run the jobs on a server, download their artifacts.

OUT/remote.json stores the ids of the jobs, so that the same command continues after an interruption.
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

JOBS_FILE = "remote.json"


def scan(address: str, source: Path, out: Path, pose: PoseJob | None, train: TrainJob) -> Generator[Event, None, Any]:
    """Run a scan on a server and return the evaluation. Raises RunError.

    `address` is the URL printed by `lumigraph up`, including the token.
    """
    if not source.exists():
        raise RunError(f"{source} does not exist")
    parts = urlsplit(address)
    token = parse_qs(parts.query).get("token", [""])[0]
    if not (parts.scheme in ("http", "https") and parts.netloc and token):
        raise RunError("--remote expects the address that `lumigraph up` prints, http://HOST:PORT/?token=TOKEN")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with Client(f"{parts.scheme}://{parts.netloc}", token) as client:
            jobs = yield from _submit(client, source, out, pose, train)
            return (yield from _follow(jobs, out))
    except (ClientError, JobError) as error:
        raise RunError(str(error)) from error
    except (httpx.HTTPError, WebSocketException) as error:
        raise LumigraphError(f"the server at {parts.netloc} cannot be reached: {error}") from error


def _submit(
    client: Client, source: Path, out: Path, pose: PoseJob | None, train: TrainJob
) -> Generator[Event, None, list[Job]]:
    """Return the jobs of the interrupted command, or submit new ones."""
    jobs_file = out / JOBS_FILE
    if jobs_file.exists():
        record = json.loads(jobs_file.read_text())
        yield Note(text=f"continuing the project {record['project']}")
        return [client.job(job) for job in record["jobs"]]
    folder = source.resolve()
    project = client.projects.create(folder.parent.name if folder.name == "images" else folder.name)
    names = project.upload(source)
    yield Note(text=f"{len(names)} files uploaded")
    jobs = project.scan(pose=pose and pose.model_dump(), train=train.model_dump(exclude_none=True))
    temporary = jobs_file.with_suffix(".new")
    temporary.write_text(json.dumps({"project": project.id, "jobs": [job.id for job in jobs]}))
    temporary.replace(jobs_file)
    return jobs


def _follow(jobs: list[Job], out: Path) -> Generator[Event, None, Any]:
    evaluation = None
    for job in jobs:
        for event in job.follow():
            if not isinstance(event, ArtifactWritten):  # its path is on the server's disk
                yield event
        for artifact, path in zip(job.artifacts(), job.download(out), strict=True):
            yield ArtifactWritten(path=str(path), what=artifact.what, sha256=artifact.sha256)
        if job.state.request.verb == "evaluate":
            evaluation = job.state.result
    return evaluation
