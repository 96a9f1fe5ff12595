"""Python client of the studio's HTTP API:

    with Client("http://127.0.0.1:7007", token) as client:
        project = client.projects.create("Garden")
        project.upload("photos")
        for event in project.pose().follow():
            print(event)
        job = project.train(method="splat", seconds=60)
        job.wait()
        project.export(form="ply").wait().download("out")

Every call survives a server that is down for a while: requests are sent again (an idempotency key keeps jobs from
being created twice), uploads and downloads resume at the last byte, and `follow` reconnects. AsyncClient has the same
methods as coroutines.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import websockets.sync.client
from pydantic import TypeAdapter
from websockets.exceptions import WebSocketException

from lumigraph.wire import resources as wire
from lumigraph.wire.events import Event, Progress

API = "/api/v1"
RETRY_TIMEOUT_S = 120.0  # without any progress
MIN_RETRY_DELAY_S, MAX_RETRY_DELAY_S = 0.1, 2.0
TRANSFER_CHUNK_BYTES = 4 << 20
HTTP_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
EVENT_LIST: TypeAdapter[list[Event]] = TypeAdapter(list[Event])

T = TypeVar("T")


class ClientError(Exception):
    """The server rejected a request; the message is the server's."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(f"{title}: {detail}" if detail else title)
        self.status = status


class JobError(Exception):
    """A job failed or was cancelled."""

    def __init__(self, job: wire.Job) -> None:
        super().__init__(
            f"the job {job.id} ({job.request.verb}) ended as {job.state}: {job.error or 'it was cancelled'}"
        )
        self.job = job


class Client:
    """A connection to one server. `retry_timeout_s`: how long to retry while the server does not answer."""

    def __init__(self, url: str, token: str, retry_timeout_s: float = RETRY_TIMEOUT_S) -> None:
        self._url, self._token, self.retry_timeout_s = url.rstrip("/"), token, retry_timeout_s
        self._http = httpx.Client(
            base_url=self._url, headers={"authorization": f"Bearer {token}"}, timeout=HTTP_TIMEOUT
        )
        self.projects = Projects(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def job(self, job_id: str) -> Job:
        return Job(self, wire.Job.model_validate_json(self._request("GET", f"{API}/jobs/{job_id}").content))

    def jobs(self) -> list[Job]:
        """Return the jobs of all projects, newest first."""
        return [Job(self, wire.Job.model_validate(job)) for job in self._request("GET", f"{API}/jobs").json()]

    def _request(self, method: str, path: str, idempotent: bool = True, **options: Any) -> httpx.Response:
        """Send a request, return a response below 400. Transport errors are retried until the timeout; if the request
        is not `idempotent`, only failed connections are, since then the server received nothing."""
        backoff = Backoff(self.retry_timeout_s)
        while True:
            try:
                return raise_for_problem(self._http.request(method, path, **options))
            except httpx.TransportError as error:
                if not (idempotent or isinstance(error, httpx.ConnectError)) or not backoff.wait():
                    raise


class Backoff:
    """Exponential delays between retries, limited to `timeout_s` after the last progress."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.reset()

    def reset(self) -> None:
        """Restart the timeout and the delays: the server made progress."""
        self._deadline, self._delay_s = time.monotonic() + self._timeout_s, MIN_RETRY_DELAY_S

    def wait(self) -> bool:
        """Sleep before the next retry. Returns False at once if the timeout has passed."""
        if time.monotonic() > self._deadline:
            return False
        time.sleep(self._delay_s)
        self._delay_s = min(MAX_RETRY_DELAY_S, 2 * self._delay_s)
        return True


def raise_for_problem(response: httpx.Response) -> httpx.Response:
    """Return the response. Raises ClientError if its status is 400 or above."""
    if response.status_code < 400:
        return response
    response.read()
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    raise ClientError(response.status_code, problem.get("title", response.reason_phrase), problem.get("detail", ""))


class Projects:
    """The projects of a server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, name: str) -> Project:
        response = self._client._request("POST", f"{API}/projects", idempotent=False, json={"name": name})
        return Project(self._client, wire.Project.model_validate_json(response.content))

    def get(self, project_id: str) -> Project:
        response = self._client._request("GET", f"{API}/projects/{project_id}")
        return Project(self._client, wire.Project.model_validate_json(response.content))

    def list(self) -> list[Project]:
        projects = self._client._request("GET", f"{API}/projects").json()
        return [Project(self._client, wire.Project.model_validate(project)) for project in projects]


class Project:
    """One project; `state` is the last known description."""

    def __init__(self, client: Client, state: wire.Project) -> None:
        self._client, self.state = client, state

    @property
    def id(self) -> str:
        return self.state.id

    # ---- files

    def upload(self, *paths: str | Path) -> list[str]:
        """Upload files, and all visible files of folders under their relative names. Returns the names. A broken
        upload resumes; a file of the same name is replaced."""
        names = []
        for path in map(Path, paths):
            for file in visible_files(path) if path.is_dir() else [path]:
                name = file.relative_to(path).as_posix() if path.is_dir() else file.name
                self._upload(file, name)
                names.append(name)
        return names

    def _upload(self, file: Path, name: str) -> None:
        """Upload by tus 1.0: create the upload, then send from the offset that the server has."""
        size = file.stat().st_size
        metadata_fields = {"filename": name, "overwrite": "true"}
        metadata = ",".join(
            f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata_fields.items()
        )
        headers = {"tus-resumable": "1.0.0", "upload-length": str(size), "upload-metadata": metadata}
        endpoint = f"{API}/projects/{self.id}/uploads"
        response = self._client._request("POST", endpoint, headers=headers, params={"overwrite": "true"})
        url = response.headers["location"]
        backoff, offset = Backoff(self._client.retry_timeout_s), 0
        while offset < size:
            try:
                offset = self._send(file, url, offset)
            except (httpx.TransportError, ClientError) as error:
                if isinstance(error, ClientError) and error.status not in (409, 423):
                    raise  # 409: the server has another offset. 423: it still writes the previous request.
                if not backoff.wait():
                    raise
                previous_offset, offset = offset, self._offset(url)
                if offset > previous_offset:
                    backoff.reset()

    def _send(self, file: Path, url: str, offset: int) -> int:
        """Send the file from `offset`. Returns the new offset."""

        def chunks() -> Iterator[bytes]:
            with file.open("rb") as source:
                source.seek(offset)
                while chunk := source.read(TRANSFER_CHUNK_BYTES):
                    yield chunk

        headers = {
            "tus-resumable": "1.0.0",
            "upload-offset": str(offset),
            "content-type": "application/offset+octet-stream",
            "content-length": str(file.stat().st_size - offset),
        }
        response = raise_for_problem(self._client._http.patch(url, content=chunks(), headers=headers))
        return int(response.headers["upload-offset"])

    def _offset(self, url: str) -> int:
        response = self._client._request("HEAD", url, headers={"tus-resumable": "1.0.0"})
        return int(response.headers["upload-offset"])

    # ---- jobs

    def submit(self, request: wire.JobRequest, needs: Sequence[str] = ()) -> Job:
        """Submit a job of any verb. `needs`: ids of jobs that must succeed first. A retry creates no second job."""
        headers = {"idempotency-key": str(uuid.uuid4()), "content-type": "application/json"}
        endpoint, body = f"{API}/projects/{self.id}/jobs", request.model_dump_json()
        response = self._client._request("POST", endpoint, content=body, headers=headers, params={"needs": list(needs)})
        return Job(self._client, wire.Job.model_validate_json(response.content))

    def pose(self, **options: Any) -> Job:
        return self.submit(wire.PoseJob(**options))

    def train(self, **options: Any) -> Job:
        """Submit a training job: method, seconds, steps, settings, ... The id of the job names its run."""
        return self.submit(wire.TrainJob(**options))

    def evaluate(self, **options: Any) -> Job:
        return self.submit(wire.EvaluateJob(**options))

    def render(self, **options: Any) -> Job:
        return self.submit(wire.RenderJob(**options))

    def export(self, **options: Any) -> Job:
        return self.submit(wire.ExportJob(**options))

    def sample(self, **options: Any) -> Job:
        return self.submit(wire.SampleJob(**options))

    def scan(self, **options: Any) -> list[Job]:
        """Submit `pose` (unless the photos are posed) and `train`."""
        headers = {"idempotency-key": str(uuid.uuid4())}
        response = self._client._request("POST", f"{API}/projects/{self.id}/scan", json=options, headers=headers)
        return [Job(self._client, wire.Job.model_validate(job)) for job in response.json()]

    def jobs(self) -> list[Job]:
        jobs = self._client._request("GET", f"{API}/projects/{self.id}/jobs").json()
        return [Job(self._client, wire.Job.model_validate(job)) for job in jobs]

    def delete(self) -> None:
        """Move the project to the bin. Its jobs are cancelled."""
        self._client._request("DELETE", f"{API}/projects/{self.id}")

    def restore(self) -> None:
        """Restore the project from the bin."""
        self._client._request("POST", f"{API}/projects/{self.id}/restore")

    def purge(self) -> None:
        """Delete a project in the bin from the server's disk for good."""
        self._client._request("DELETE", f"{API}/projects/{self.id}/forever")


class Job:
    """One job; `state` is the last known state, `refresh` fetches the current one."""

    def __init__(self, client: Client, state: wire.Job) -> None:
        self._client, self.state = client, state

    @property
    def id(self) -> str:
        return self.state.id

    def refresh(self) -> wire.Job:
        self.state = wire.Job.model_validate_json(self._client._request("GET", f"{API}/jobs/{self.id}").content)
        return self.state

    def cancel(self) -> wire.Job:
        return self._post("cancel")

    def pause(self) -> wire.Job:
        return self._post("pause")

    def resume(self) -> wire.Job:
        return self._post("resume")

    def follow(self) -> Generator[Event, None, wire.Job]:
        """Yield the events of the job from its start to its end, then return its final state. All events are
        yielded, except that of progress only the newest is. Raises JobError if the job did not succeed."""
        event_count, progress = 0, None
        for state in self._states():
            self.state = state
            response = self._client._request("GET", f"{API}/jobs/{self.id}/events", params={"after": event_count})
            new_events = EVENT_LIST.validate_json(response.content)
            event_count += len(new_events)
            yield from new_events
            new_progress = (state.stage, state.done, state.total)
            if state.stage is not None and new_progress != progress:
                progress = new_progress
                yield Progress(
                    stage=state.stage,
                    done=state.done,
                    total=state.total,
                    unit=state.unit,
                    seconds_left=state.seconds_left,
                )
        if self.state.state != "succeeded":
            raise JobError(self.state)
        return self.state

    def wait(self) -> Job:
        """Wait until the job has ended. Raises JobError if it did not succeed."""
        for _ in self.follow():
            pass
        return self

    def artifacts(self) -> list[wire.Artifact]:
        """Return the output files of the job."""
        artifacts = self._client._request("GET", f"{API}/jobs/{self.id}/artifacts").json()
        return [wire.Artifact.model_validate(artifact) for artifact in artifacts]

    def download(self, folder: str | Path) -> list[Path]:
        """Download all output files of the job into a folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        return [download(self._client, artifact, Path(folder) / artifact.name) for artifact in self.artifacts()]

    def _states(self) -> Iterator[wire.Job]:
        """Yield the state of the job after each change; the last one is final."""
        backoff = Backoff(self._client.retry_timeout_s)
        yield self.refresh()
        while self.state.state not in wire.FINAL_STATES:
            try:
                for message in self._changes(self.state.seq):
                    backoff.reset()
                    yield from (job for job in message.jobs if job.id == self.id)
                    if self.state.state in wire.FINAL_STATES:
                        return
            except (OSError, WebSocketException):
                if not backoff.wait():
                    raise
                yield self.refresh()

    def _changes(self, since: int) -> Iterator[wire.Change]:
        url = f"{self._client._url.replace('http', 'ws', 1)}{API}/events?since={since}"
        headers = {"authorization": f"Bearer {self._client._token}"}
        with websockets.sync.client.connect(url, additional_headers=headers, open_timeout=5, max_size=None) as socket:
            for message in socket:
                yield wire.Change.model_validate_json(message)

    def _post(self, action: str) -> wire.Job:
        self.state = wire.Job.model_validate_json(
            self._client._request("POST", f"{API}/jobs/{self.id}/{action}").content
        )
        return self.state


def visible_files(folder: Path) -> list[Path]:
    """Return all files below a folder without dotfiles and the contents of dot folders."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def download(client: Client, artifact: wire.Artifact, path: Path) -> Path:
    """Download an artifact to `path`. A broken download resumes; the file is moved to `path` after its SHA-256 was
    verified. Raises ClientError if the hash differs."""
    part, backoff = path.with_name(f".{path.name}.{artifact.id}.part"), Backoff(client.retry_timeout_s)
    while (size := part.stat().st_size if part.exists() else 0) < artifact.bytes or not part.exists():
        headers = {"range": f"bytes={size}-"} if size else {}
        try:
            with client._http.stream("GET", f"{API}/artifacts/{artifact.id}", headers=headers) as response:
                raise_for_problem(response)
                with part.open("ab" if response.status_code == 206 else "wb") as file:
                    for chunk in response.iter_bytes(TRANSFER_CHUNK_BYTES):
                        file.write(chunk)
                        backoff.reset()
        except httpx.TransportError:
            if not backoff.wait():
                raise
    with part.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != artifact.sha256:
            part.unlink()
            raise ClientError(502, "Hash mismatch", f"{artifact.name} differs from the SHA-256 that the server reports")
    return part.replace(path)


# ---- async API


class AsyncClient:
    """Client for programs that run an event loop: each call runs in a thread."""

    def __init__(self, url: str, token: str, retry_timeout_s: float = RETRY_TIMEOUT_S) -> None:
        self._client = Client(url, token, retry_timeout_s)
        self.projects = AsyncProjects(self._client.projects)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)

    async def job(self, job_id: str) -> AsyncJob:
        return AsyncJob(await asyncio.to_thread(self._client.job, job_id))


class AsyncProjects:
    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    async def create(self, name: str) -> AsyncProject:
        return AsyncProject(await asyncio.to_thread(self._projects.create, name))

    async def get(self, project_id: str) -> AsyncProject:
        return AsyncProject(await asyncio.to_thread(self._projects.get, project_id))

    async def list(self) -> list[AsyncProject]:
        return [AsyncProject(project) for project in await asyncio.to_thread(self._projects.list)]


class AsyncProject:
    def __init__(self, project: Project) -> None:
        self._project = project

    @property
    def id(self) -> str:
        return self._project.id

    async def upload(self, *paths: str | Path) -> list[str]:
        return await asyncio.to_thread(self._project.upload, *paths)

    async def submit(self, request: wire.JobRequest, needs: Sequence[str] = ()) -> AsyncJob:
        return AsyncJob(await asyncio.to_thread(self._project.submit, request, needs))

    async def pose(self, **options: Any) -> AsyncJob:
        return await self.submit(wire.PoseJob(**options))

    async def train(self, **options: Any) -> AsyncJob:
        return await self.submit(wire.TrainJob(**options))

    async def evaluate(self, **options: Any) -> AsyncJob:
        return await self.submit(wire.EvaluateJob(**options))

    async def render(self, **options: Any) -> AsyncJob:
        return await self.submit(wire.RenderJob(**options))

    async def export(self, **options: Any) -> AsyncJob:
        return await self.submit(wire.ExportJob(**options))

    async def sample(self, **options: Any) -> AsyncJob:
        return await self.submit(wire.SampleJob(**options))

    async def delete(self) -> None:
        await asyncio.to_thread(self._project.delete)

    async def restore(self) -> None:
        await asyncio.to_thread(self._project.restore)

    async def purge(self) -> None:
        await asyncio.to_thread(self._project.purge)


class AsyncJob:
    def __init__(self, job: Job) -> None:
        self._job = job

    @property
    def id(self) -> str:
        return self._job.id

    @property
    def state(self) -> wire.Job:
        return self._job.state

    async def refresh(self) -> wire.Job:
        return await asyncio.to_thread(self._job.refresh)

    async def cancel(self) -> wire.Job:
        return await asyncio.to_thread(self._job.cancel)

    async def pause(self) -> wire.Job:
        return await asyncio.to_thread(self._job.pause)

    async def resume(self) -> wire.Job:
        return await asyncio.to_thread(self._job.resume)

    async def follow(self) -> AsyncIterator[Event]:
        events = self._job.follow()
        while (event := await asyncio.to_thread(next, events, None)) is not None:
            yield event

    async def wait(self) -> AsyncJob:
        await asyncio.to_thread(self._job.wait)
        return self

    async def artifacts(self) -> list[wire.Artifact]:
        return await asyncio.to_thread(self._job.artifacts)

    async def download(self, folder: str | Path) -> list[Path]:
        return await asyncio.to_thread(self._job.download, folder)
