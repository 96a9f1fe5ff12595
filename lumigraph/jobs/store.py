"""Store of projects and jobs: every read and every change of the tables goes through it.

A job goes queued -> running -> succeeded, failed or cancelled. It goes from running back to queued when its worker is
lost or requeues it. The three end states are final. A worker may write only while its attempt is the running one
(fencing): the writes of a worker that was declared lost are rejected.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import string
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, and_, delete, exists, func, insert, select, update

from lumigraph.jobs.database import Database
from lumigraph.jobs.tables import artifact, job, need, project
from lumigraph.wire.resources import FINAL_STATES, Artifact, Job, JobRequest, JobState, Project, parse_job_request

ID_ALPHABET = string.ascii_lowercase + string.digits
MAX_CRASHES = 3  # in a row without a checkpoint in between; the next crash fails the job
MAX_QUEUE_CANDIDATES = 100  # jobs at the front of the queue that are tried for the free CPUs and GPUs
SQL_VARIABLES = 500  # ids in one query; SQLite allows few more

Signal = Literal["go", "cancel", "pause", "fenced"]


class NotFoundError(LookupError):
    """The project, job or file does not exist."""


class ConflictError(ValueError):
    """The request contradicts the current state."""


@dataclass(frozen=True)
class JobSpec:
    """A job to submit. `needs`: ids of jobs that must succeed first, from the same submission or older ones."""

    request: JobRequest
    needs: tuple[str, ...] = ()
    key: str | None = None
    priority: int = 0
    cpus: int = 1
    gpus: int = 0
    concurrency_key: str | None = None
    webhook_url: str | None = None
    id: str = field(default_factory=lambda: new_id())


@dataclass(frozen=True)
class Lease:
    """An attempt that the dispatcher is to start."""

    job_id: str
    project_id: str
    attempt: int
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Heartbeat:
    """Progress of an attempt. `saves` counts its checkpoints since it started."""

    stage: str | None = None
    progress: float = 0.0
    total: float | None = None
    unit: str = ""
    seconds_left: float | None = None
    message: str | None = None
    saves: int = 0


@dataclass(frozen=True)
class OutputFile:
    """An output file of a job. `path` is relative to the data folder."""

    what: str
    path: str
    bytes: int
    sha256: str


def new_id() -> str:
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(16))


def job_id_for_key(project_id: str, key: str) -> str:
    """The id of the job with this idempotency key, so that a repeated request with several jobs names the same ones."""
    digest = hashlib.blake2b(f"{project_id} {key}".encode(), digest_size=16).digest()
    return "".join(ID_ALPHABET[byte % len(ID_ALPHABET)] for byte in digest)


class Store:
    def __init__(self, database: Database) -> None:
        self.database = database

    # ---- projects

    def create_project(self, name: str) -> Project:
        with self.database.write() as (connection, seq):
            new_project = Project(id=new_id(), name=name, created=time.time(), deleted=None, seq=seq)
            connection.execute(insert(project).values(new_project.model_dump()))
            return new_project

    def project(self, project_id: str) -> Project:
        with self.database.read() as connection:
            return _project(_fetch_one(connection, select(project).where(project.c.id == project_id), "project"))

    def projects(self, deleted: bool = False) -> list[Project]:
        """All projects, newest first; with `deleted`, those in the bin instead."""
        condition = project.c.deleted.is_not(None) if deleted else project.c.deleted.is_(None)
        query = select(project).where(condition).order_by(-project.c.seq)
        with self.database.read() as connection:
            return [_project(row) for row in connection.execute(query)]

    def update_project(self, project_id: str, name: str | None = None, deleted: bool | None = None) -> Project:
        """Rename a project, move it to the bin or restore it."""
        with self.database.write() as (connection, seq):
            changes: dict[str, Any] = {"seq": seq}
            if name is not None:
                changes["name"] = name
            if deleted is not None:
                changes["deleted"] = time.time() if deleted else None
            statement = update(project).where(project.c.id == project_id).values(changes).returning(project)
            return _project(_fetch_one(connection, statement, "project"))

    def delete_project(self, project_id: str) -> None:
        """Delete all rows of a project. Raises ConflictError if it is not in the bin, or a job still runs."""
        with self.database.write() as (connection, _):
            row = _fetch_one(connection, select(project.c.deleted).where(project.c.id == project_id), "project")
            if row.deleted is None:
                raise ConflictError("only a project in the bin can be removed for good")
            if connection.execute(
                select(job.c.id).where(job.c.project == project_id, job.c.state == "running")
            ).first():
                raise ConflictError("a job of this project is still being stopped; try again in some seconds")
            job_ids = select(job.c.id).where(job.c.project == project_id)
            connection.execute(delete(need).where(need.c.job.in_(job_ids)))
            connection.execute(delete(artifact).where(artifact.c.project == project_id))
            connection.execute(delete(job).where(job.c.project == project_id))
            connection.execute(delete(project).where(project.c.id == project_id))

    # ---- submitting jobs

    def submit(self, project_id: str, specs: Sequence[JobSpec]) -> list[Job]:
        """Submit all jobs or none. A spec whose idempotency key is already used in this project returns that job.

        Raises ConflictError if the key belongs to a different request, or a job in `needs` has already failed.
        """
        with self.database.write(increment=len(specs)) as (connection, seq):
            row = _fetch_one(connection, select(project.c.deleted).where(project.c.id == project_id), "project")
            if row.deleted is not None:
                raise ConflictError("this project is in the bin; restore it first")
            first = seq - len(specs) + 1  # each job has its own number, in the order of submission
            ids = [self._submit(connection, first + k, seq, project_id, spec) for k, spec in enumerate(specs)]
            return [_job(connection, job_id) for job_id in ids]

    def _submit(self, connection: Connection, created_seq: int, seq: int, project_id: str, spec: JobSpec) -> str:
        request = spec.request.model_dump_json()
        if spec.key is not None:
            query = select(job.c.id, job.c.request).where(job.c.project == project_id, job.c.key == spec.key)
            duplicate = connection.execute(query).first()
            if duplicate is not None and duplicate.request != request:
                raise ConflictError(f"the idempotency key {spec.key!r} was used for another request")
            if duplicate is not None:
                return str(duplicate.id)
        for dependency in spec.needs:
            row = _fetch_one(connection, select(job.c.state, job.c.project).where(job.c.id == dependency), "job")
            if row.project != project_id:
                raise NotFoundError(f"there is no job {dependency} in this project")
            if row.state in ("failed", "cancelled"):
                raise ConflictError(f"the job {dependency}, which this one needs, has {row.state}")
        column_names = ("id", "key", "priority", "cpus", "gpus", "concurrency_key", "webhook_url")
        values = {name: getattr(spec, name) for name in column_names}
        values |= {"project": project_id, "request": request, "state": "queued", "created": time.time()}
        connection.execute(insert(job).values(**values, created_seq=created_seq, seq=seq))
        if spec.needs:
            connection.execute(insert(need), [{"job": spec.id, "needs": dependency} for dependency in spec.needs])
        return spec.id

    # ---- reading jobs

    def job(self, job_id: str) -> Job:
        with self.database.read() as connection:
            return _job(connection, job_id)

    def jobs(
        self,
        project_id: str | None = None,
        states: Collection[JobState] = (),
        limit: int = 1000,
        before: int | None = None,
    ) -> list[Job]:
        """Jobs, newest first. A page holds jobs whose `created_seq` is less than `before`."""
        query = select(job).order_by(job.c.created_seq.desc(), job.c.id).limit(limit)
        if project_id is not None:
            query = query.where(job.c.project == project_id)
        if states:
            query = query.where(job.c.state.in_(states))
        if before is not None:
            query = query.where(job.c.created_seq < before)
        with self.database.read() as connection:
            return _jobs(connection, query)

    def changes(self, since: int | None) -> tuple[int, list[Project], list[Job]]:
        """All changes after `since` (everything for None), and the `seq` up to which they are complete."""
        seq = self.database.seq()  # read first: a change in between is sent twice rather than lost
        projects, jobs = select(project).order_by(project.c.seq), select(job).order_by(job.c.seq)
        if since is not None:
            if since >= seq:
                return seq, [], []
            projects, jobs = projects.where(project.c.seq > since), jobs.where(job.c.seq > since)
        with self.database.read() as connection:
            return seq, [_project(row) for row in connection.execute(projects)], _jobs(connection, jobs)

    # ---- controlling jobs

    def cancel(self, job_id: str) -> Job:
        """Cancel a queued job at once; ask a running one to stop. An ended job does not change."""
        with self.database.write() as (connection, seq):
            row = _fetch_one(connection, select(job.c.state).where(job.c.id == job_id), "job")
            if row.state == "queued":
                self._end(connection, seq, job_id, "cancelled", error=None)
            elif row.state == "running":
                connection.execute(update(job).where(job.c.id == job_id).values(cancel=1, seq=seq))
            return _job(connection, job_id)

    def pause(self, job_id: str, paused: bool = True) -> Job:
        """Pause or resume a job. Raises ConflictError if it has ended."""
        return self._change(job_id, paused=int(paused))

    def set_priority(self, job_id: str, priority: int) -> Job:
        return self._change(job_id, priority=priority)

    def _change(self, job_id: str, **values: Any) -> Job:
        with self.database.write() as (connection, seq):
            row = _fetch_one(connection, select(job.c.state).where(job.c.id == job_id), "job")
            if row.state in FINAL_STATES:
                raise ConflictError(f"this job has {row.state} already")
            connection.execute(update(job).where(job.c.id == job_id).values(**values, seq=seq))
            return _job(connection, job_id)

    # ---- for the dispatcher

    def lease(self, cpus: int, gpus: int, cores: int, waiting: Collection[str] = ()) -> Lease | None:
        """Start the first job of the queue that fits the free `cpus` and `gpus`; return None if no job fits.

        A job that needs more CPUs than the machine's `cores` gets all of them. Jobs in `waiting` are skipped.
        """

        def next_lease(connection: Connection) -> Lease | None:
            candidates = _queue().where(job.c.gpus <= gpus).limit(MAX_QUEUE_CANDIDATES + len(waiting))
            for row in connection.execute(candidates):
                if row.id not in waiting and min(row.cpus, cores) <= cpus:
                    return Lease(row.id, row.project, row.attempt + 1, min(row.cpus, cores), row.gpus)
            return None

        with self.database.read() as connection:  # called many times a second: write only if there is a job
            if next_lease(connection) is None:
                return None
        with self.database.write() as (connection, seq):
            lease = next_lease(connection)
            if lease is not None:
                values = {"state": "running", "attempt": lease.attempt, "saves_at_start": job.c.saves, "handle": None}
                start_time = func.coalesce(job.c.started, time.time())
                statement = update(job).where(job.c.id == lease.job_id)
                connection.execute(statement.values(**values, started=start_time, error=None, seq=seq))
            return lease

    def set_handle(self, lease: Lease, handle: str) -> None:
        with self.database.write() as (connection, seq):
            condition = _is_running(lease.job_id, lease.attempt)
            connection.execute(update(job).where(condition).values(handle=handle, seq=seq))

    def mark_lost(self, job_id: str, attempt: int, why: str, blame: bool = True) -> JobState | None:
        """Requeue a job whose worker has exited, and return its new state; None if the attempt had already ended.

        A job that was being cancelled becomes cancelled. After MAX_CRASHES crashes in a row without a checkpoint, the
        next one fails the job. `blame=False` does not count as a crash.
        """
        with self.database.write() as (connection, seq):
            row = connection.execute(select(job).where(_is_running(job_id, attempt))).first()
            if row is None:
                return None
            blame = blame and not row.paused
            crashes = (0 if row.saves > row.saves_at_start else row.crashes) + int(blame)
            if row.cancel:
                self._end(connection, seq, job_id, "cancelled", error=None, crashes=crashes)
                return "cancelled"
            if crashes > MAX_CRASHES:
                error = f"{why}, for the {crashes}th time in a row without saving anything in between"
                self._end(connection, seq, job_id, "failed", error=error, crashes=crashes)
                return "failed"
            values = {"state": "queued", "crashes": crashes, "handle": None, "error": why if blame else None}
            connection.execute(update(job).where(job.c.id == job_id).values(**values, seq=seq))
            return "queued"

    def running_attempts(self) -> list[tuple[str, int, bool, bool]]:
        """(job id, attempt, whether a cancel is requested, whether a pause is requested) of all running jobs."""
        query = select(job.c.id, job.c.attempt, job.c.cancel, job.c.paused).where(job.c.state == "running")
        with self.database.read() as connection:
            return [(row.id, row.attempt, bool(row.cancel), bool(row.paused)) for row in connection.execute(query)]

    # ---- for a worker

    def signal(self, job_id: str, attempt: int) -> Signal:
        """The instruction for the worker of this attempt."""
        with self.database.read() as connection:
            row = connection.execute(select(job.c.cancel, job.c.paused).where(_is_running(job_id, attempt))).first()
        return _signal(row)

    def heartbeat(self, job_id: str, attempt: int, heartbeat: Heartbeat) -> Signal:
        """Store the progress of an attempt, and return the instruction for its worker."""
        values = {name: getattr(heartbeat, name) for name in ("stage", "total", "unit", "seconds_left", "message")}
        with self.database.write() as (connection, seq):
            statement = update(job).where(_is_running(job_id, attempt)).values(**values, done=heartbeat.progress)
            statement = statement.values(saves=job.c.saves_at_start + heartbeat.saves, seq=seq)
            row = connection.execute(statement.returning(job.c.cancel, job.c.paused)).first()
        return _signal(row)

    def finish(
        self,
        job_id: str,
        attempt: int,
        state: Literal["succeeded", "failed", "cancelled"],
        result: object = None,
        error: str | None = None,
        files: Iterable[OutputFile] = (),
    ) -> bool:
        """Store the end of an attempt and its output files in one transaction.

        Returns False, and changes nothing, if the attempt is no longer the running one.
        """
        with self.database.write() as (connection, seq):
            row = connection.execute(select(job.c.project).where(_is_running(job_id, attempt))).first()
            if row is None:
                return False
            for file in files:
                values = {"what": file.what, "path": file.path, "bytes": file.bytes, "sha256": file.sha256}
                origin = {"id": new_id(), "project": row.project, "job": job_id, "attempt": attempt}
                connection.execute(insert(artifact).values(**values, **origin, created=time.time()))
            self._end(connection, seq, job_id, state, error=error, result=json.dumps(result))
            return True

    def requeue(self, job_id: str, attempt: int) -> bool:
        """Put the job back into the queue without counting a crash; a paused job waits there."""
        values = {"state": "queued", "handle": None, "crashes": 0}
        with self.database.write() as (connection, seq):
            statement = update(job).where(_is_running(job_id, attempt)).values(**values, seq=seq)
            return connection.execute(statement).rowcount == 1

    # ---- artifacts

    def artifacts(self, project_id: str | None = None, job_id: str | None = None) -> list[Artifact]:
        query = select(artifact).order_by(artifact.c.created, artifact.c.id)
        if project_id is not None:
            query = query.where(artifact.c.project == project_id)
        if job_id is not None:
            query = query.where(artifact.c.job == job_id)
        with self.database.read() as connection:
            return [_artifact(row) for row in connection.execute(query)]

    def artifact(self, artifact_id: str) -> tuple[Artifact, str]:
        """The artifact and its path relative to the data folder."""
        with self.database.read() as connection:
            row = _fetch_one(connection, select(artifact).where(artifact.c.id == artifact_id), "artifact")
        return _artifact(row), row.path

    # ---- webhooks

    def pending_webhooks(self) -> list[tuple[str, Job]]:
        """(URL, job) of ended jobs whose webhook is not sent yet."""
        unsent = and_(job.c.webhook_url.is_not(None), job.c.webhook_sent == 0, job.c.state.in_(FINAL_STATES))
        with self.database.read() as connection:
            rows = connection.execute(select(job.c.id, job.c.webhook_url).where(unsent)).all()
            return [(row.webhook_url, _job(connection, row.id)) for row in rows]

    def mark_webhook_sent(self, job_id: str) -> None:
        with self.database.write() as (connection, _):
            connection.execute(update(job).where(job.c.id == job_id).values(webhook_sent=1))

    def _end(self, connection: Connection, seq: int, job_id: str, state: JobState, **values: Any) -> None:
        """End a job. If it did not succeed, cancel the jobs that need it."""
        end_values = {"state": state, "handle": None, "cancel": 0, "paused": 0, "finished": time.time(), "seq": seq}
        connection.execute(update(job).where(job.c.id == job_id).values(**end_values, **values))
        if state == "succeeded":
            return
        dependent = select(need.c.job).join(job, job.c.id == need.c.job)
        for row in connection.execute(dependent.where(need.c.needs == job_id, job.c.state == "queued")).all():
            self._end(connection, seq, row.job, "cancelled", error=f"it needed the job {job_id}, which has {state}")


def _queue() -> Select[Any]:
    """The jobs that may start, by priority and age: all their dependencies succeeded, their concurrency key is free."""
    dependency, rival = job.alias(), job.alias()
    is_blocked = exists().where(
        need.c.job == job.c.id, need.c.needs == dependency.c.id, dependency.c.state != "succeeded"
    )
    is_key_busy = exists().where(rival.c.concurrency_key == job.c.concurrency_key, rival.c.state == "running")
    return (
        select(job.c.id, job.c.project, job.c.attempt, job.c.cpus, job.c.gpus)
        .where(job.c.state == "queued", job.c.paused == 0, ~is_blocked, ~is_key_busy)
        .order_by(job.c.priority.desc(), job.c.created_seq, job.c.id)
    )


def _signal(row: Row[*tuple[Any, ...]] | None) -> Signal:
    return "fenced" if row is None else "cancel" if row.cancel else "pause" if row.paused else "go"


def _is_running(job_id: str, attempt: int) -> Any:
    return and_(job.c.id == job_id, job.c.attempt == attempt, job.c.state == "running")


def _fetch_one(connection: Connection, statement: Any, item: str) -> Row[Any]:
    row = connection.execute(statement).first()
    if row is None:
        raise NotFoundError(f"there is no such {item}")
    return row


def _job(connection: Connection, job_id: str) -> Job:
    jobs = _jobs(connection, select(job).where(job.c.id == job_id))
    if not jobs:
        raise NotFoundError("there is no such job")
    return jobs[0]


def _jobs(connection: Connection, query: Select[Any]) -> list[Job]:
    rows = connection.execute(query).all()
    needs: dict[str, list[str]] = {row.id: [] for row in rows}
    ids = list(needs)
    for k in range(0, len(ids), SQL_VARIABLES):
        for row in connection.execute(select(need).where(need.c.job.in_(ids[k : k + SQL_VARIABLES]))):
            needs[row.job].append(row.needs)
    column_names = [name for name in Job.model_fields if name in job.c and name not in ("request", "paused", "result")]
    return [
        Job(
            **{name: getattr(row, name) for name in column_names},
            asked=parse_job_request(json.loads(row.request)),
            paused=bool(row.paused),
            cancelling=bool(row.cancel),
            needs=sorted(needs[row.id]),
            result=None if row.result is None else json.loads(row.result),
        )
        for row in rows
    ]


def _project(row: Row[Any]) -> Project:
    return Project(id=row.id, name=row.name, created=row.created, deleted=row.deleted, seq=row.seq)


def _artifact(row: Row[Any]) -> Artifact:
    column_names = ("id", "project", "job", "what", "bytes", "sha256", "created")
    return Artifact(**{name: getattr(row, name) for name in column_names}, name=row.path.rpartition("/")[2])
