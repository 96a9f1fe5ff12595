"""What is known of projects and jobs, and the only ways to change it.

A job goes queued -> running -> succeeded, failed or cancelled, and from running back to queued when its worker is lost
or sets it aside. An end is final. A worker may write only while its attempt is the running one (the fence): whoever was
declared lost and comes back changes nothing.
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

LETTERS = string.ascii_lowercase + string.digits
MAX_CRASHES = 3  # in a row, without anything saved in between; one more, and the job has failed
CANDIDATES = 100  # of the queue's front, looked at for one that fits

Signal = Literal["go", "cancel", "pause", "fenced"]


class NotFoundError(LookupError):
    """There is no such project, job or file."""


class ConflictError(ValueError):
    """What is asked does not go together with what is."""


@dataclass(frozen=True)
class JobSpec:
    """A job to be made. `needs`: ids of jobs that must succeed first, of this order's chain or older ones."""

    asked: JobRequest
    needs: tuple[str, ...] = ()
    key: str | None = None
    priority: int = 0
    cpus: int = 1
    gpus: int = 0
    lane: str | None = None
    hook: str | None = None
    id: str = field(default_factory=lambda: new_id())


@dataclass(frozen=True)
class Lease:
    """An attempt that is to be started."""

    job: str
    project: str
    attempt: int
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Heartbeat:
    """How far an attempt has come. `saves` counts what it saved since it began."""

    stage: str | None = None
    done: float = 0.0
    total: float | None = None
    unit: str = ""
    seconds_left: float | None = None
    message: str | None = None
    saves: int = 0


@dataclass(frozen=True)
class OutputFile:
    """What a job made: `path` below the data folder."""

    what: str
    path: str
    bytes: int
    sha256: str


def new_id() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(16))


def id_of(project_id: str, key: str) -> str:
    """The id of the job with this idempotency key: later parts of a request that is sent twice name the same jobs."""
    digest = hashlib.blake2b(f"{project_id} {key}".encode(), digest_size=16).digest()
    return "".join(LETTERS[byte % len(LETTERS)] for byte in digest)


class Store:
    def __init__(self, database: Database) -> None:
        self.database = database

    # ---- projects

    def create_project(self, name: str) -> Project:
        with self.database.write() as (connection, seq):
            made = Project(id=new_id(), name=name, created=time.time(), deleted=None, seq=seq)
            connection.execute(insert(project).values(made.model_dump()))
            return made

    def project(self, project_id: str) -> Project:
        with self.database.read() as connection:
            return _project(_one(connection, select(project).where(project.c.id == project_id), "project"))

    def projects(self, deleted: bool = False) -> list[Project]:
        """Newest first."""
        which = project.c.deleted.is_not(None) if deleted else project.c.deleted.is_(None)
        with self.database.read() as connection:
            return [_project(row) for row in connection.execute(select(project).where(which).order_by(-project.c.seq))]

    def update_project(self, project_id: str, name: str | None = None, deleted: bool | None = None) -> Project:
        """Rename it, put it into the bin or take it out."""
        with self.database.write() as (connection, seq):
            changes: dict[str, Any] = {"seq": seq}
            if name is not None:
                changes["name"] = name
            if deleted is not None:
                changes["deleted"] = time.time() if deleted else None
            found = update(project).where(project.c.id == project_id).values(changes).returning(project)
            return _project(_one(connection, found, "project"))

    def delete_project(self, project_id: str) -> None:
        """Everything about it, for good. Raises ConflictError where it is not in the bin, or a job still runs."""
        with self.database.write() as (connection, _):
            found = _one(connection, select(project.c.deleted).where(project.c.id == project_id), "project")
            if found.deleted is None:
                raise ConflictError("only a project in the bin can be removed for good")
            if connection.execute(
                select(job.c.id).where(job.c.project == project_id, job.c.state == "running")
            ).first():
                raise ConflictError("a job of this project is still being stopped; try again in some seconds")
            its = select(job.c.id).where(job.c.project == project_id)
            connection.execute(delete(need).where(need.c.job.in_(its)))
            connection.execute(delete(artifact).where(artifact.c.project == project_id))
            connection.execute(delete(job).where(job.c.project == project_id))
            connection.execute(delete(project).where(project.c.id == project_id))

    # ---- asking for jobs

    def submit(self, project_id: str, orders: Sequence[JobSpec]) -> list[Job]:
        """All of them or none. An order whose key this project has seen gives the job it gave then. Raises
        ConflictError where the key was another request's, or a job that is needed has failed already."""
        with self.database.write(raised=len(orders)) as (connection, seq):
            found = _one(connection, select(project.c.deleted).where(project.c.id == project_id), "project")
            if found.deleted is not None:
                raise ConflictError("this project is in the bin; restore it first")
            first = seq - len(orders) + 1  # each has a number of its own, in the order asked
            ids = [self._submit(connection, first + k, seq, project_id, order) for k, order in enumerate(orders)]
            return [_job(connection, job_id) for job_id in ids]

    def _submit(self, connection: Connection, born: int, seq: int, project_id: str, order: JobSpec) -> str:
        asked = order.asked.model_dump_json()
        if order.key is not None:
            same = select(job.c.id, job.c.asked).where(job.c.project == project_id, job.c.key == order.key)
            known = connection.execute(same).first()
            if known is not None and known.asked != asked:
                raise ConflictError(f"the idempotency key {order.key!r} was used for another request")
            if known is not None:
                return str(known.id)
        for other in order.needs:
            row = _one(connection, select(job.c.state, job.c.project).where(job.c.id == other), "job")
            if row.project != project_id:
                raise NotFoundError(f"there is no job {other} in this project")
            if row.state in ("failed", "cancelled"):
                raise ConflictError(f"the job {other}, which this one needs, has {row.state}")
        values = {name: getattr(order, name) for name in ("id", "key", "priority", "cpus", "gpus", "lane", "hook")}
        values |= {"project": project_id, "asked": asked, "state": "queued", "created": time.time()}
        connection.execute(insert(job).values(**values, born=born, seq=seq))
        if order.needs:
            connection.execute(insert(need), [{"job": order.id, "needs": other} for other in order.needs])
        return order.id

    # ---- looking at jobs

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
        """Newest first; `before` is the `born` number that the page begins below."""
        which = select(job).order_by(job.c.born.desc(), job.c.id).limit(limit)
        if project_id is not None:
            which = which.where(job.c.project == project_id)
        if states:
            which = which.where(job.c.state.in_(states))
        if before is not None:
            which = which.where(job.c.born < before)
        with self.database.read() as connection:
            return _jobs(connection, which)

    def changes(self, since: int | None) -> tuple[int, list[Project], list[Job]]:
        """What changed after `since` (everything for None), and the `seq` that it is complete up to."""
        seq = self.database.seq()  # read first: a change that comes in between is sent twice, not never
        projects, jobs = select(project).order_by(project.c.seq), select(job).order_by(job.c.seq)
        if since is not None:
            if since >= seq:
                return seq, [], []
            projects, jobs = projects.where(project.c.seq > since), jobs.where(job.c.seq > since)
        with self.database.read() as connection:
            return seq, [_project(row) for row in connection.execute(projects)], _jobs(connection, jobs)

    # ---- asking of jobs

    def cancel(self, job_id: str) -> Job:
        """At once where it waits; where it runs, it is asked to stop. An ended job stays as it ended."""
        with self.database.write() as (connection, seq):
            row = _one(connection, select(job.c.state).where(job.c.id == job_id), "job")
            if row.state == "queued":
                self._end(connection, seq, job_id, "cancelled", error=None)
            elif row.state == "running":
                connection.execute(update(job).where(job.c.id == job_id).values(cancel=1, seq=seq))
            return _job(connection, job_id)

    def pause(self, job_id: str, paused: bool = True) -> Job:
        """Set aside, or let go on. Raises ConflictError where it has ended."""
        return self._change(job_id, paused=int(paused))

    def set_priority(self, job_id: str, priority: int) -> Job:
        return self._change(job_id, priority=priority)

    def _change(self, job_id: str, **values: Any) -> Job:
        with self.database.write() as (connection, seq):
            row = _one(connection, select(job.c.state).where(job.c.id == job_id), "job")
            if row.state in FINAL_STATES:
                raise ConflictError(f"this job has {row.state} already")
            connection.execute(update(job).where(job.c.id == job_id).values(**values, seq=seq))
            return _job(connection, job_id)

    # ---- what the dispatcher does

    def lease(self, cpus: int, gpus: int, cores: int, waiting: Collection[str] = ()) -> Lease | None:
        """The first job of the queue that fits into what is free becomes running. A job for more than the machine's
        `cores` fits when they are free. `waiting`: jobs to leave alone for now."""

        def fitting(connection: Connection) -> Lease | None:
            for row in connection.execute(_queue().where(job.c.gpus <= gpus).limit(CANDIDATES + len(waiting))):
                if row.id not in waiting and min(row.cpus, cores) <= cpus:
                    return Lease(row.id, row.project, row.attempt + 1, min(row.cpus, cores), row.gpus)
            return None

        with self.database.read() as connection:  # asked many times a second, so it does not write unless it must
            if fitting(connection) is None:
                return None
        with self.database.write() as (connection, seq):
            claim = fitting(connection)
            if claim is not None:
                values = {"state": "running", "attempt": claim.attempt, "saves_at_start": job.c.saves, "handle": None}
                started = func.coalesce(job.c.started, time.time())
                changed = (
                    update(job).where(job.c.id == claim.job).values(**values, started=started, error=None, seq=seq)
                )
                connection.execute(changed)
            return claim

    def set_handle(self, claim: Lease, handle: str) -> None:
        with self.database.write() as (connection, seq):
            connection.execute(update(job).where(_runs(claim.job, claim.attempt)).values(handle=handle, seq=seq))

    def mark_lost(self, job_id: str, attempt: int, why: str, blame: bool = True) -> JobState | None:
        """The worker of this attempt is known to be gone: back into the queue, unless it was to stop, or has crashed
        too often without saving anything in between. None where the attempt had ended by itself."""
        with self.database.write() as (connection, seq):
            row = connection.execute(select(job).where(_runs(job_id, attempt))).first()
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
            back = {"state": "queued", "crashes": crashes, "handle": None, "error": why if blame else None}
            connection.execute(update(job).where(job.c.id == job_id).values(**back, seq=seq))
            return "queued"

    def running_attempts(self) -> list[tuple[str, int, bool, bool]]:
        """(job, attempt, whether it is to stop, whether it is to be set aside) of all that run."""
        with self.database.read() as connection:
            which = select(job.c.id, job.c.attempt, job.c.cancel, job.c.paused).where(job.c.state == "running")
            return [(row.id, row.attempt, bool(row.cancel), bool(row.paused)) for row in connection.execute(which)]

    # ---- what a worker does

    def signal(self, job_id: str, attempt: int) -> Signal:
        """What the worker of this attempt is to do."""
        with self.database.read() as connection:
            row = connection.execute(select(job.c.cancel, job.c.paused).where(_runs(job_id, attempt))).first()
        return "fenced" if row is None else "cancel" if row.cancel else "pause" if row.paused else "go"

    def heartbeat(self, job_id: str, attempt: int, beat: Heartbeat) -> Signal:
        with self.database.write() as (connection, seq):
            now = {name: getattr(beat, name) for name in ("stage", "done", "total", "unit", "seconds_left", "message")}
            changed = update(job).where(_runs(job_id, attempt))
            changed = changed.values(**now, saves=job.c.saves_at_start + beat.saves, seq=seq)
            row = connection.execute(changed.returning(job.c.cancel, job.c.paused)).first()
        return "fenced" if row is None else "cancel" if row.cancel else "pause" if row.paused else "go"

    def finish(
        self,
        job_id: str,
        attempt: int,
        state: Literal["succeeded", "failed", "cancelled"],
        result: object = None,
        error: str | None = None,
        files: Iterable[OutputFile] = (),
    ) -> bool:
        """The end of this attempt and what it made, at once. False where the attempt was not the running one any more:
        nothing has changed then."""
        with self.database.write() as (connection, seq):
            row = connection.execute(select(job.c.project).where(_runs(job_id, attempt))).first()
            if row is None:
                return False
            for file in files:
                made = {"what": file.what, "path": file.path, "bytes": file.bytes, "sha256": file.sha256}
                of = {"id": new_id(), "project": row.project, "job": job_id, "attempt": attempt}
                connection.execute(insert(artifact).values(**made, **of, created=time.time()))
            self._end(connection, seq, job_id, state, error=error, result=json.dumps(result))
            return True

    def requeue(self, job_id: str, attempt: int) -> bool:
        """Back into the queue, where a paused job waits; nobody is to blame."""
        with self.database.write() as (connection, seq):
            back = update(job).where(_runs(job_id, attempt)).values(state="queued", handle=None, crashes=0, seq=seq)
            return connection.execute(back).rowcount == 1

    # ---- what was made

    def artifacts(self, project_id: str | None = None, job_id: str | None = None) -> list[Artifact]:
        which = select(artifact).order_by(artifact.c.created, artifact.c.id)
        if project_id is not None:
            which = which.where(artifact.c.project == project_id)
        if job_id is not None:
            which = which.where(artifact.c.job == job_id)
        with self.database.read() as connection:
            return [_artifact(row) for row in connection.execute(which)]

    def artifact(self, artifact_id: str) -> tuple[Artifact, str]:
        """The artifact and its path below the data folder."""
        with self.database.read() as connection:
            row = _one(connection, select(artifact).where(artifact.c.id == artifact_id), "artifact")
        return _artifact(row), row.path

    # ---- who wants to be told

    def pending_webhooks(self) -> list[tuple[str, Job]]:
        """(URL, job) of ended jobs whose hook was not told yet."""
        which = select(job.c.id, job.c.hook).where(
            job.c.hook.is_not(None), job.c.told == 0, job.c.state.in_(FINAL_STATES)
        )
        with self.database.read() as connection:
            return [(row.hook, _job(connection, row.id)) for row in connection.execute(which).all()]

    def mark_webhook_sent(self, job_id: str) -> None:
        with self.database.write() as (connection, _):
            connection.execute(update(job).where(job.c.id == job_id).values(told=1))

    def _end(self, connection: Connection, seq: int, job_id: str, state: JobState, **values: Any) -> None:
        """Ends a job, and those that needed one which did not succeed."""
        now = {"state": state, "handle": None, "cancel": 0, "paused": 0, "finished": time.time(), "seq": seq}
        connection.execute(update(job).where(job.c.id == job_id).values(**now, **values))
        if state == "succeeded":
            return
        dependent = select(need.c.job).join(job, job.c.id == need.c.job)
        for row in connection.execute(dependent.where(need.c.needs == job_id, job.c.state == "queued")).all():
            self._end(connection, seq, row.job, "cancelled", error=f"it needed the job {job_id}, which has {state}")


def _queue() -> Select[Any]:
    """The jobs that may start, first come first: nothing that they need is missing, and their lane is free."""
    other, lane = job.alias(), job.alias()
    blocked = exists().where(need.c.job == job.c.id, need.c.needs == other.c.id, other.c.state != "succeeded")
    taken = exists().where(lane.c.lane == job.c.lane, lane.c.state == "running")
    return (
        select(job.c.id, job.c.project, job.c.attempt, job.c.cpus, job.c.gpus)
        .where(job.c.state == "queued", job.c.paused == 0, ~blocked, ~taken)
        .order_by(job.c.priority.desc(), job.c.born, job.c.id)
    )


def _runs(job_id: str, attempt: int) -> Any:
    return and_(job.c.id == job_id, job.c.attempt == attempt, job.c.state == "running")


def _one(connection: Connection, statement: Any, what: str) -> Row[Any]:
    row = connection.execute(statement).first()
    if row is None:
        raise NotFoundError(f"there is no such {what}")
    return row


def _job(connection: Connection, job_id: str) -> Job:
    found = _jobs(connection, select(job).where(job.c.id == job_id))
    if not found:
        raise NotFoundError("there is no such job")
    return found[0]


def _jobs(connection: Connection, which: Select[Any]) -> list[Job]:
    rows = connection.execute(which).all()
    needs: dict[str, list[str]] = {row.id: [] for row in rows}
    ids = list(needs)
    for k in range(0, len(ids), 500):  # SQLite takes so many at once, and few more
        for row in connection.execute(select(need).where(need.c.job.in_(ids[k : k + 500]))):
            needs[row.job].append(row.needs)
    same = [name for name in Job.model_fields if name in job.c and name not in ("request", "paused", "result")]
    return [
        Job(
            **{name: getattr(row, name) for name in same},
            asked=parse_job_request(json.loads(row.asked)),
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
    same = ("id", "project", "job", "what", "bytes", "sha256", "created")
    return Artifact(**{name: getattr(row, name) for name in same}, name=row.path.rpartition("/")[2])
