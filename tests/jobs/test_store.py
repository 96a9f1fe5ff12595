"""The rules of the job table, on both databases."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import insert, inspect

from lumigraph.jobs import migrate as migrations
from lumigraph.jobs.database import Database
from lumigraph.jobs.store import (
    MAX_CRASHES,
    ConflictError,
    Heartbeat,
    JobSpec,
    Lease,
    NotFoundError,
    OutputFile,
    Store,
    new_id,
)
from lumigraph.jobs.tables import artifact, metadata
from lumigraph.wire.resources import Job, NoopJob


def submit(store: Store, *job_specs: JobSpec, project: str | None = None) -> list[Job]:
    return store.submit(project or store.create_project("p").id, job_specs or [JobSpec(NoopJob())])


def try_lease(store: Store, cpus: int = 2, waiting: set[str] | None = None) -> Lease | None:
    return store.lease(cpus, 0, 2, waiting or set())


def lease_next(store: Store) -> Lease:
    job_lease = try_lease(store)
    assert job_lease is not None
    return job_lease


def test_migrate_matches_tables(database: Database) -> None:
    schema = inspect(database.engine)
    assert set(schema.get_table_names()) == {*metadata.tables, "alembic_version"}
    for table in metadata.tables.values():
        columns = {column["name"]: column["nullable"] for column in schema.get_columns(table.name)}
        assert columns == {column.name: column.nullable for column in table.columns}
        indexes = {index["name"] for index in schema.get_indexes(table.name) if not index.get("duplicates_constraint")}
        assert indexes == {index.name for index in table.indexes}
    assert migrations.revision_of(database) == migrations.HEAD
    migrations.migrate(database)  # a second call changes nothing


def test_migrate_backs_up(store: Store, database: Database) -> None:
    if not database.sqlite:
        return  # only SQLite files are copied
    [job] = submit(store)
    backup = Database(f"sqlite:///{migrations.back_up(database, '0000')}")
    assert Store(backup).job(job.id) == job
    assert migrations.revision_of(backup) == migrations.HEAD
    backup.close()


def test_migrate_rejects_later_version(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(migrations.TooNewError, match="install a newer one"):
        migrations.migrate(database)


def test_store_job_lifecycle(store: Store) -> None:
    [job] = submit(store)
    assert (job.state, job.attempt, job.started) == ("queued", 0, None)
    job_lease = lease_next(store)
    assert job_lease == Lease(job.id, job.project, 1, 1, 0)
    assert store.heartbeat(job.id, 1, Heartbeat("count", 3, 10, "steps", 1.5, "hello", saves=1)) == "go"
    stored_job = store.job(job.id)
    assert (stored_job.state, stored_job.stage, stored_job.done, stored_job.total, stored_job.message) == (
        "running",
        "count",
        3,
        10,
        "hello",
    )
    assert store.finish(
        job.id, 1, "succeeded", {"sum": 55}, files=[OutputFile("count", "jobs/x/count.json", 3, "0" * 64)]
    )
    stored_job = store.job(job.id)
    assert (stored_job.state, stored_job.result, stored_job.error) == ("succeeded", {"sum": 55}, None)
    [output] = store.artifacts(job_id=job.id)
    assert (output.name, output.bytes) == ("count.json", 3)
    assert store.artifact(output.id) == (output, "jobs/x/count.json")


def test_store_end_is_final(store: Store) -> None:
    [job] = submit(store)
    lease_next(store)
    assert store.finish(job.id, 1, "failed", error="no")
    assert not store.finish(job.id, 1, "succeeded")
    assert store.mark_lost(job.id, 1, "gone") is None
    assert store.cancel(job.id).state == "failed"
    with pytest.raises(ConflictError, match="has failed already"):
        store.pause(job.id)


def test_store_fences_lost_attempts(store: Store, database: Database) -> None:
    [job] = submit(store)
    lease_next(store)
    assert store.mark_lost(job.id, 1, "gone") == "queued"
    assert lease_next(store).attempt == 2
    before = store.job(job.id)
    assert store.heartbeat(job.id, 1, Heartbeat("count", 9, saves=7)) == "fenced"
    assert store.signal(job.id, 1) == "fenced"
    assert not store.finish(job.id, 1, "succeeded", files=[OutputFile("x", "x", 1, "0" * 64)])
    assert not store.requeue(job.id, 1)
    assert store.mark_lost(job.id, 1, "gone again") is None
    assert store.job(job.id) == before
    assert store.artifacts() == []


def test_store_counts_crashes_without_checkpoint(store: Store) -> None:
    [job] = submit(store)
    for _ in range(3 * MAX_CRASHES):  # each attempt saves a checkpoint
        job_lease = lease_next(store)
        store.heartbeat(job.id, job_lease.attempt, Heartbeat(saves=1))
        assert store.mark_lost(job.id, job_lease.attempt, "gone") == "queued"
        assert store.job(job.id).crashes == 1
    for expected in ["queued"] * (MAX_CRASHES - 1) + ["failed"]:
        assert store.mark_lost(job.id, lease_next(store).attempt, "gone") == expected
    assert "4th time" in str(store.job(job.id).error)


def test_store_restart_is_no_crash(store: Store) -> None:
    [job] = submit(store)
    for _ in range(3 * MAX_CRASHES):
        assert store.mark_lost(job.id, lease_next(store).attempt, "restart", blame=False) == "queued"
    assert store.job(job.id).crashes == 0


def test_store_idempotency_key(store: Store) -> None:
    project = store.create_project("p").id
    [first] = submit(store, JobSpec(NoopJob(steps=3), key="k"), project=project)
    [second] = submit(store, JobSpec(NoopJob(steps=3), key="k"), project=project)
    assert first.id == second.id
    with pytest.raises(ConflictError, match="used for another request"):
        submit(store, JobSpec(NoopJob(steps=4), key="k"), project=project)
    [other_job] = submit(store, JobSpec(NoopJob(steps=4), key="k"))  # of another project
    assert other_job.id != first.id
    assert len(store.jobs()) == 2


def test_store_submit_is_atomic(store: Store) -> None:
    project = store.create_project("p").id
    with pytest.raises(NotFoundError):
        submit(store, JobSpec(NoopJob()), JobSpec(NoopJob(), needs=(new_id(),)), project=project)
    assert store.jobs() == []


def test_store_queue_order(store: Store) -> None:
    first, second, urgent = submit(store, JobSpec(NoopJob()), JobSpec(NoopJob()), JobSpec(NoopJob(), priority=5))
    second = store.set_priority(second.id, 1)
    leased_ids = [lease_next(store).job_id for _ in range(3)]
    assert leased_ids == [urgent.id, second.id, first.id]
    assert try_lease(store) is None


def test_store_dependencies(store: Store) -> None:
    pose = JobSpec(NoopJob())
    train = JobSpec(NoopJob(), needs=(pose.id,))
    submit(store, pose, train, JobSpec(NoopJob(), needs=(pose.id, train.id)))
    assert lease_next(store).job_id == pose.id
    assert try_lease(store) is None
    store.finish(pose.id, 1, "succeeded")
    assert lease_next(store).job_id == train.id


def test_store_cancels_dependents_of_failed_job(store: Store) -> None:
    pose = JobSpec(NoopJob())
    train = JobSpec(NoopJob(), needs=(pose.id,))
    export = JobSpec(NoopJob(), needs=(train.id,))
    project = submit(store, pose, train, export)[0].project
    lease_next(store)
    store.finish(pose.id, 1, "failed", error="blurred")
    assert [store.job(job_spec.id).state for job_spec in (train, export)] == ["cancelled", "cancelled"]
    assert pose.id in str(store.job(train.id).error)
    with pytest.raises(ConflictError, match="which this one needs, has failed"):
        submit(store, JobSpec(NoopJob(), needs=(pose.id,)), project=project)


def test_store_job_for_all_cores_waits(store: Store) -> None:
    big, small = submit(store, JobSpec(NoopJob(), cpus=64), JobSpec(NoopJob(), cpus=1))
    assert store.lease(1, 0, 4) == Lease(small.id, small.project, 1, 1, 0)
    assert store.lease(3, 0, 4) is None
    assert store.lease(4, 0, 4) == Lease(big.id, big.project, 1, 4, 0)


def test_store_concurrency_key(store: Store) -> None:
    first, second, other_job = submit(
        store, *(JobSpec(NoopJob(), concurrency_key=key) for key in ("run:1", "run:1", "run:2"))
    )
    assert [lease_next(store).job_id, lease_next(store).job_id] == [first.id, other_job.id]
    assert try_lease(store) is None
    store.finish(first.id, 1, "succeeded")
    assert lease_next(store).job_id == second.id


def test_store_job_waits_for_gpu(store: Store) -> None:
    [job] = submit(store, JobSpec(NoopJob(), gpus=1))
    assert store.lease(2, 0, 2) is None
    assert store.lease(2, 1, 2) == Lease(job.id, job.project, 1, 1, 1)


def test_store_lease_skips_waiting_jobs(store: Store) -> None:
    first, second = submit(store, JobSpec(NoopJob()), JobSpec(NoopJob()))
    job_lease = try_lease(store, waiting={first.id})
    assert job_lease is not None
    assert job_lease.job_id == second.id


def test_store_cancel(store: Store) -> None:
    waiting, running = submit(store, JobSpec(NoopJob()), JobSpec(NoopJob(), priority=1))
    lease_next(store)
    assert store.cancel(waiting.id).state == "cancelled"
    cancelled_job = store.cancel(running.id)
    assert (cancelled_job.state, cancelled_job.cancelling) == ("running", True)
    assert store.signal(running.id, 1) == store.heartbeat(running.id, 1, Heartbeat()) == "cancel"
    assert store.mark_lost(running.id, 1, "killed") == "cancelled"
    assert not store.job(running.id).cancelling


def test_store_pause(store: Store) -> None:
    [job] = submit(store)
    lease_next(store)
    assert store.pause(job.id).paused
    assert store.signal(job.id, 1) == "pause"
    assert store.requeue(job.id, 1)
    assert store.job(job.id).state == "queued"
    assert try_lease(store) is None
    store.pause(job.id, paused=False)
    assert lease_next(store).attempt == 2
    store.pause(job.id)
    assert store.mark_lost(job.id, 2, "killed: it did not stop") == "queued"
    assert store.job(job.id).crashes == 0


def test_store_changes(store: Store) -> None:
    seq, projects, jobs = store.changes(None)
    assert (projects, jobs) == ([], [])
    [job] = submit(store)
    later_seq, projects, jobs = store.changes(seq)
    assert ([p.id for p in projects], [j.id for j in jobs]) == ([job.project], [job.id])
    assert store.changes(later_seq) == (later_seq, [], [])
    lease_next(store)
    store.heartbeat(job.id, 1, Heartbeat("count", 1))
    store.heartbeat(job.id, 1, Heartbeat("count", 2))
    newest_seq, projects, [job_update] = store.changes(later_seq)
    assert (projects, job_update.done) == ([], 2)
    assert newest_seq > later_seq


def test_store_changes_with_concurrent_writers(store: Store) -> None:
    """A client that follows `seq` has the same jobs as a new client, in any order of the writers."""
    project = store.create_project("p").id
    client_jobs: dict[str, Job] = {}
    since = store.database.seq()

    def write() -> None:
        for _ in range(5):
            [job] = store.submit(project, [JobSpec(NoopJob())])
            store.set_priority(job.id, 1)

    writers = [threading.Thread(target=write) for _ in range(10)]
    for writer in writers:
        writer.start()
    while True:
        alive = any(writer.is_alive() for writer in writers)
        since, _, jobs = store.changes(since)
        client_jobs |= {job.id: job for job in jobs}
        if not alive:
            break
    since, _, jobs = store.changes(since)
    client_jobs |= {job.id: job for job in jobs}
    assert client_jobs == {job.id: job for job in store.jobs()}
    assert len(client_jobs) == 50


def test_store_concurrent_leases_are_unique(store: Store) -> None:
    submit(store, *(JobSpec(NoopJob()) for _ in range(40)))
    leased_ids: list[str] = []

    def work() -> None:
        while (job_lease := store.lease(2, 0, 2)) is not None:
            leased_ids.append(job_lease.job_id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leased_ids) == len(set(leased_ids)) == 40


def test_store_projects(store: Store) -> None:
    first, second = store.create_project("one"), store.create_project("two")
    assert [p.name for p in store.projects()] == ["two", "one"]
    assert store.update_project(first.id, name="ONE").name == "ONE"
    assert store.update_project(first.id, deleted=True).deleted is not None
    assert [p.id for p in store.projects()] == [second.id]
    assert [p.id for p in store.projects(deleted=True)] == [first.id]
    with pytest.raises(ConflictError, match="in the bin"):
        submit(store, project=first.id)
    store.update_project(first.id, deleted=False)
    assert store.project(first.id).deleted is None
    with pytest.raises(NotFoundError):
        store.project(new_id())


def test_store_webhook_is_sent_once(store: Store) -> None:
    [job] = submit(store, JobSpec(NoopJob(), webhook_url="http://example.com/"))
    assert store.pending_webhooks() == []
    lease_next(store)
    store.finish(job.id, 1, "succeeded")
    [(url, finished_job)] = store.pending_webhooks()
    assert (url, finished_job.state) == ("http://example.com/", "succeeded")
    store.mark_webhook_sent(job.id)
    assert store.pending_webhooks() == []


def test_store_jobs_limit(store: Store) -> None:
    project = store.create_project("p").id
    for _ in range(5):
        submit(store, project=project)
    assert len(store.jobs(project, limit=2)) == 2
    assert store.jobs(project, states=["running"]) == []


def test_store_artifact_needs_job(database: Database) -> None:
    with pytest.raises(Exception, match=r"(?i)foreign key"), database.write() as (connection, _):
        row = {"id": new_id(), "project": new_id(), "job": new_id(), "attempt": 1, "what": "", "path": ""}
        connection.execute(insert(artifact).values(**row, bytes=0, sha256="", created=0.0))
