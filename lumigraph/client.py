"""The studio over HTTP, for programs:

    with Client("http://127.0.0.1:7007", token) as client:
        project = client.projects.create("Garden")
        project.upload("photos")
        for event in project.pose().follow():
            print(event)
        job = project.train(method="splat", seconds=60)
        job.wait()
        project.export(form="ply").wait().download("out")

Everything survives a server that goes away for a while: requests are asked again (jobs carry an idempotency key, so
none is doubled), uploads and downloads go on where they broke off, and `follow` connects anew. AsyncClient has the
same names, each to be awaited.
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
PATIENCE = 120.0  # seconds that a server may be away
FIRST_WAIT, LONGEST_WAIT = 0.1, 2.0  # seconds between tries
PIECE = 4 << 20  # bytes sent or written at once
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
EVENTS: TypeAdapter[list[Event]] = TypeAdapter(list[Event])

T = TypeVar("T")


class ClientError(Exception):
    """The server refused, in its own words."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(f"{title}: {detail}" if detail else title)
        self.status = status


class JobError(Exception):
    """A job ended without success."""

    def __init__(self, job: wire.Job) -> None:
        super().__init__(
            f"the job {job.id} ({job.request.verb}) has {job.state}: {job.error or 'it was asked to stop'}"
        )
        self.job = job


class Client:
    """`patience`: seconds to wait for a server that does not answer."""

    def __init__(self, url: str, token: str, patience: float = PATIENCE) -> None:
        self._url, self._token, self.patience = url.rstrip("/"), token, patience
        self._http = httpx.Client(base_url=self._url, headers={"authorization": f"Bearer {token}"}, timeout=TIMEOUT)
        self.projects = Projects(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def job(self, job_id: str) -> Job:
        return Job(self, wire.Job.model_validate_json(self._ask("GET", f"{API}/jobs/{job_id}").content))

    def jobs(self) -> list[Job]:
        """Of all projects, newest first."""
        return [Job(self, wire.Job.model_validate(one)) for one in self._ask("GET", f"{API}/jobs").json()]

    def _ask(self, method: str, path: str, again: bool = True, **more: Any) -> httpx.Response:
        """An answer below 400. Asks again while nobody answers; without `again`, only where nothing was sent yet."""
        patience = Patience(self.patience)
        while True:
            try:
                return checked(self._http.request(method, path, **more))
            except httpx.TransportError as error:
                if not (again or isinstance(error, httpx.ConnectError)) or patience.spent():
                    raise


class Patience:
    """With a server that is away: so many seconds from the last time that something went on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.went_on()

    def went_on(self) -> None:
        self._end, self._pause = time.monotonic() + self._seconds, FIRST_WAIT

    def spent(self) -> bool:
        """Waits a while, longer each time; or says that it has been long enough."""
        if time.monotonic() > self._end:
            return True
        time.sleep(self._pause)
        self._pause = min(LONGEST_WAIT, 2 * self._pause)
        return False


def checked(answered: httpx.Response) -> httpx.Response:
    """Raises ClientError where it is a refusal."""
    if answered.status_code < 400:
        return answered
    answered.read()
    try:
        problem = answered.json()
    except ValueError:
        problem = {}
    raise ClientError(answered.status_code, problem.get("title", answered.reason_phrase), problem.get("detail", ""))


class Projects:
    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, name: str) -> Project:
        made = self._client._ask("POST", f"{API}/projects", again=False, json={"name": name})
        return Project(self._client, wire.Project.model_validate_json(made.content))

    def get(self, project_id: str) -> Project:
        found = self._client._ask("GET", f"{API}/projects/{project_id}")
        return Project(self._client, wire.Project.model_validate_json(found.content))

    def list(self) -> list[Project]:
        found = self._client._ask("GET", f"{API}/projects").json()
        return [Project(self._client, wire.Project.model_validate(one)) for one in found]


class Project:
    def __init__(self, client: Client, state: wire.Project) -> None:
        self._client, self.state = client, state

    @property
    def id(self) -> str:
        return self.state.id

    # ---- files

    def upload(self, *paths: str | Path) -> list[str]:
        """Files, and all files of folders, by their names below them; returns those names. An upload that breaks goes
        on where it was; a file of the same name is replaced."""
        names = []
        for path in map(Path, paths):
            for file in shown_files(path) if path.is_dir() else [path]:
                name = file.relative_to(path).as_posix() if path.is_dir() else file.name
                self._upload(file, name)
                names.append(name)
        return names

    def _upload(self, file: Path, name: str) -> None:
        """By tus 1.0: declared once, then sent from wherever the server is."""
        size = file.stat().st_size
        told = {"filename": name, "overwrite": "true"}
        metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in told.items())
        headers = {"tus-resumable": "1.0.0", "upload-length": str(size), "upload-metadata": metadata}
        where = f"{API}/projects/{self.id}/uploads"
        place = self._client._ask("POST", where, headers=headers, params={"overwrite": "true"}).headers["location"]
        patience, offset = Patience(self._client.patience), 0
        while offset < size:
            try:
                offset = self._send(file, place, offset)
            except (httpx.TransportError, ClientError) as error:
                if isinstance(error, ClientError) and error.status not in (409, 423):
                    raise  # these two: the server is still busy with what came before, or at another byte
                if patience.spent():
                    raise
                before, offset = offset, self._offset(place)
                if offset > before:
                    patience.went_on()

    def _send(self, file: Path, place: str, offset: int) -> int:
        def pieces() -> Iterator[bytes]:
            with file.open("rb") as source:
                source.seek(offset)
                while piece := source.read(PIECE):
                    yield piece

        headers = {
            "tus-resumable": "1.0.0",
            "upload-offset": str(offset),
            "content-type": "application/offset+octet-stream",
            "content-length": str(file.stat().st_size - offset),
        }
        answered = checked(self._client._http.patch(place, content=pieces(), headers=headers))
        return int(answered.headers["upload-offset"])

    def _offset(self, place: str) -> int:
        answered = self._client._ask("HEAD", place, headers={"tus-resumable": "1.0.0"})
        return int(answered.headers["upload-offset"])

    # ---- jobs

    def ask(self, asked: wire.JobRequest, needs: Sequence[str] = ()) -> Job:
        """Any job. Asked again after a broken connection, it is the same one."""
        headers = {"idempotency-key": str(uuid.uuid4()), "content-type": "application/json"}
        where, body = f"{API}/projects/{self.id}/jobs", asked.model_dump_json()
        made = self._client._ask("POST", where, content=body, headers=headers, params={"needs": list(needs)})
        return Job(self._client, wire.Job.model_validate_json(made.content))

    def pose(self, **asked: Any) -> Job:
        return self.ask(wire.PoseJob(**asked))

    def train(self, **asked: Any) -> Job:
        """method, seconds, steps, settings, ... The job's id names the run that it makes."""
        return self.ask(wire.TrainJob(**asked))

    def evaluate(self, **asked: Any) -> Job:
        return self.ask(wire.EvaluateJob(**asked))

    def render(self, **asked: Any) -> Job:
        return self.ask(wire.RenderJob(**asked))

    def export(self, **asked: Any) -> Job:
        return self.ask(wire.ExportJob(**asked))

    def sample(self, **asked: Any) -> Job:
        return self.ask(wire.SampleJob(**asked))

    def scan(self, **asked: Any) -> list[Job]:
        """All of it: `pose` (None where the photos have their poses), `train`."""
        headers = {"idempotency-key": str(uuid.uuid4())}
        made = self._client._ask("POST", f"{API}/projects/{self.id}/scan", json=asked, headers=headers)
        return [Job(self._client, wire.Job.model_validate(one)) for one in made.json()]

    def jobs(self) -> list[Job]:
        found = self._client._ask("GET", f"{API}/projects/{self.id}/jobs").json()
        return [Job(self._client, wire.Job.model_validate(one)) for one in found]

    def delete(self) -> None:
        """Into the bin; its jobs are cancelled."""
        self._client._ask("DELETE", f"{API}/projects/{self.id}")

    def restore(self) -> None:
        """Out of the bin."""
        self._client._ask("POST", f"{API}/projects/{self.id}/restore")

    def purge(self) -> None:
        """Out of the bin and off the server's disk, for good."""
        self._client._ask("DELETE", f"{API}/projects/{self.id}/forever")


class Job:
    """`state` is what was known last; `refresh` asks again."""

    def __init__(self, client: Client, state: wire.Job) -> None:
        self._client, self.state = client, state

    @property
    def id(self) -> str:
        return self.state.id

    def refresh(self) -> wire.Job:
        self.state = wire.Job.model_validate_json(self._client._ask("GET", f"{API}/jobs/{self.id}").content)
        return self.state

    def cancel(self) -> wire.Job:
        return self._post("cancel")

    def pause(self) -> wire.Job:
        return self._post("pause")

    def resume(self) -> wire.Job:
        return self._post("resume")

    def follow(self) -> Generator[Event, None, wire.Job]:
        """What happens, from the job's beginning, until it has ended; returns how. Raises JobError where that was not
        with success. Of progress the newest is told, of all else everything."""
        told, progress = 0, None
        for state in self._states():
            self.state = state
            new = EVENTS.validate_json(
                self._client._ask("GET", f"{API}/jobs/{self.id}/events", params={"after": told}).content
            )
            told += len(new)
            yield from new
            now = (state.stage, state.done, state.total)
            if state.stage is not None and now != progress:
                progress = now
                left = state.seconds_left
                yield Progress(
                    stage=state.stage, done=state.done, total=state.total, unit=state.unit, seconds_left=left
                )
        if self.state.state != "succeeded":
            raise JobError(self.state)
        return self.state

    def wait(self) -> Job:
        """Until it has ended. Raises JobError where that was not with success."""
        for _ in self.follow():
            pass
        return self

    def artifacts(self) -> list[wire.Artifact]:
        """What it made."""
        found = self._client._ask("GET", f"{API}/jobs/{self.id}/artifacts").json()
        return [wire.Artifact.model_validate(one) for one in found]

    def download(self, folder: str | Path) -> list[Path]:
        """All that it made, into a folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        return [download(self._client, one, Path(folder) / one.name) for one in self.artifacts()]

    def _states(self) -> Iterator[wire.Job]:
        """The job whenever it changed, its end last."""
        patience = Patience(self._client.patience)
        yield self.refresh()
        while self.state.state not in wire.FINAL_STATES:
            try:
                for message in self._changes(self.state.seq):
                    patience.went_on()
                    yield from (job for job in message.jobs if job.id == self.id)
                    if self.state.state in wire.FINAL_STATES:
                        return
            except (OSError, WebSocketException):
                if patience.spent():
                    raise
                yield self.refresh()

    def _changes(self, since: int) -> Iterator[wire.Change]:
        url = f"{self._client._url.replace('http', 'ws', 1)}{API}/events?since={since}"
        headers = {"authorization": f"Bearer {self._client._token}"}
        with websockets.sync.client.connect(url, additional_headers=headers, open_timeout=5, max_size=None) as socket:
            for message in socket:
                yield wire.Change.model_validate_json(message)

    def _post(self, what: str) -> wire.Job:
        self.state = wire.Job.model_validate_json(self._client._ask("POST", f"{API}/jobs/{self.id}/{what}").content)
        return self.state


def shown_files(folder: Path) -> list[Path]:
    """All files below it, but for what hides behind a dot."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def download(client: Client, artifact: wire.Artifact, path: Path) -> Path:
    """To `path`, going on after each break, compared with its SHA-256 and then put in its place."""
    part, patience = path.with_name(f".{path.name}.{artifact.id}.part"), Patience(client.patience)
    while (have := part.stat().st_size if part.exists() else 0) < artifact.bytes or not part.exists():
        headers = {"range": f"bytes={have}-"} if have else {}
        try:
            with client._http.stream("GET", f"{API}/artifacts/{artifact.id}", headers=headers) as answered:
                checked(answered)
                with part.open("ab" if answered.status_code == 206 else "wb") as file:
                    for piece in answered.iter_bytes(PIECE):
                        file.write(piece)
                        patience.went_on()
        except httpx.TransportError:
            if patience.spent():
                raise
    with part.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != artifact.sha256:
            part.unlink()
            raise ClientError(502, "Wrong bytes", f"{artifact.name} is not what the server says it is")
    return part.replace(path)


# ---- the same, to be awaited


class AsyncClient:
    """As Client, for programs that run an event loop: each call waits in a thread."""

    def __init__(self, url: str, token: str, patience: float = PATIENCE) -> None:
        self._client = Client(url, token, patience)
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
        return [AsyncProject(one) for one in await asyncio.to_thread(self._projects.list)]


class AsyncProject:
    def __init__(self, project: Project) -> None:
        self._project = project

    @property
    def id(self) -> str:
        return self._project.id

    async def upload(self, *paths: str | Path) -> list[str]:
        return await asyncio.to_thread(self._project.upload, *paths)

    async def ask(self, asked: wire.JobRequest, needs: Sequence[str] = ()) -> AsyncJob:
        return AsyncJob(await asyncio.to_thread(self._project.ask, asked, needs))

    async def pose(self, **asked: Any) -> AsyncJob:
        return await self.ask(wire.PoseJob(**asked))

    async def train(self, **asked: Any) -> AsyncJob:
        return await self.ask(wire.TrainJob(**asked))

    async def evaluate(self, **asked: Any) -> AsyncJob:
        return await self.ask(wire.EvaluateJob(**asked))

    async def render(self, **asked: Any) -> AsyncJob:
        return await self.ask(wire.RenderJob(**asked))

    async def export(self, **asked: Any) -> AsyncJob:
        return await self.ask(wire.ExportJob(**asked))

    async def sample(self, **asked: Any) -> AsyncJob:
        return await self.ask(wire.SampleJob(**asked))

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
