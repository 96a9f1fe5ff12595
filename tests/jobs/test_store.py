"""The rules of the job table, the same on either database."""

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


def ask(store: Store, *orders: JobSpec, project: str | None = None) -> list[Job]:
    return store.submit(project or store.create_project("p").id, orders or [JobSpec(NoopJob())])


def claim(store: Store, cpus: int = 2, waiting: set[str] | None = None) -> Lease | None:
    return store.lease(cpus, 0, 2, waiting or set())


def claimed(store: Store) -> Lease:
    found = claim(store)
    assert found is not None
    return found


def test_a_migrated_database_is_what_the_tables_say(database: Database) -> None:
    found = inspect(database.engine)
    assert set(found.get_table_names()) == {*metadata.tables, "alembic_version"}
    for table in metadata.tables.values():
        columns = {column["name"]: column["nullable"] for column in found.get_columns(table.name)}
        assert columns == {column.name: column.nullable for column in table.columns}
        indexes = {index["name"] for index in found.get_indexes(table.name) if not index.get("duplicates_constraint")}
        assert indexes == {index.name for index in table.indexes}
    assert migrations.revision_of(database) == migrations.HEAD
    migrations.migrate(database)  # again: nothing to do


def test_a_copy_is_made_before_an_older_database_is_changed(store: Store, database: Database) -> None:
    if not database.sqlite:
        return  # a server of databases has its own ways
    [job] = ask(store)
    copy = Database(f"sqlite:///{migrations.back_up(database, '0000')}")
    assert Store(copy).job(job.id) == job
    assert migrations.revision_of(copy) == migrations.HEAD
    copy.close()


def test_a_database_of_a_later_version_is_left_alone(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(migrations.TooNewError, match="install a newer one"):
        migrations.migrate(database)


def test_from_asked_to_done(store: Store) -> None:
    [job] = ask(store)
    assert (job.state, job.attempt, job.started) == ("queued", 0, None)
    work = claimed(store)
    assert work == Lease(job.id, job.project, 1, 1, 0)
    assert store.heartbeat(job.id, 1, Heartbeat("count", 3, 10, "steps", 1.5, "hello", saves=1)) == "go"
    seen = store.job(job.id)
    assert (seen.state, seen.stage, seen.done, seen.total, seen.message) == ("running", "count", 3, 10, "hello")
    assert store.finish(
        job.id, 1, "succeeded", {"sum": 55}, files=[OutputFile("count", "jobs/x/count.json", 3, "0" * 64)]
    )
    seen = store.job(job.id)
    assert (seen.state, seen.result, seen.error) == ("succeeded", {"sum": 55}, None)
    [made] = store.artifacts(job_id=job.id)
    assert (made.name, made.bytes) == ("count.json", 3)
    assert store.artifact(made.id) == (made, "jobs/x/count.json")


def test_an_end_is_final(store: Store) -> None:
    [job] = ask(store)
    claimed(store)
    assert store.finish(job.id, 1, "failed", error="no")
    assert not store.finish(job.id, 1, "succeeded")
    assert store.mark_lost(job.id, 1, "gone") is None
    assert store.cancel(job.id).state == "failed"
    with pytest.raises(ConflictError, match="has failed already"):
        store.pause(job.id)


def test_only_the_running_attempt_may_write(store: Store, database: Database) -> None:
    [job] = ask(store)
    claimed(store)
    assert store.mark_lost(job.id, 1, "gone") == "queued"
    assert claimed(store).attempt == 2
    before = store.job(job.id)
    assert store.heartbeat(job.id, 1, Heartbeat("count", 9, saves=7)) == "fenced"
    assert store.signal(job.id, 1) == "fenced"
    assert not store.finish(job.id, 1, "succeeded", files=[OutputFile("x", "x", 1, "0" * 64)])
    assert not store.requeue(job.id, 1)
    assert store.mark_lost(job.id, 1, "gone again") is None
    assert store.job(job.id) == before
    assert store.artifacts() == []


def test_only_crashes_that_saved_nothing_count(store: Store) -> None:
    [job] = ask(store)
    for _ in range(3 * MAX_CRASHES):  # each saves something
        work = claimed(store)
        store.heartbeat(job.id, work.attempt, Heartbeat(saves=1))
        assert store.mark_lost(job.id, work.attempt, "gone") == "queued"
        assert store.job(job.id).crashes == 1
    for expected in ["queued"] * (MAX_CRASHES - 1) + ["failed"]:
        assert store.mark_lost(job.id, claimed(store).attempt, "gone") == expected
    assert "4th time" in str(store.job(job.id).error)


def test_a_restart_is_nobodys_fault(store: Store) -> None:
    [job] = ask(store)
    for _ in range(3 * MAX_CRASHES):
        assert store.mark_lost(job.id, claimed(store).attempt, "restart", blame=False) == "queued"
    assert store.job(job.id).crashes == 0


def test_the_same_key_is_the_same_job(store: Store) -> None:
    project = store.create_project("p").id
    [one] = ask(store, JobSpec(NoopJob(steps=3), key="k"), project=project)
    [two] = ask(store, JobSpec(NoopJob(steps=3), key="k"), project=project)
    assert one.id == two.id
    with pytest.raises(ConflictError, match="used for another request"):
        ask(store, JobSpec(NoopJob(steps=4), key="k"), project=project)
    [other] = ask(store, JobSpec(NoopJob(steps=4), key="k"))  # of another project
    assert other.id != one.id
    assert len(store.jobs()) == 2


def test_all_orders_or_none(store: Store) -> None:
    project = store.create_project("p").id
    with pytest.raises(NotFoundError):
        ask(store, JobSpec(NoopJob()), JobSpec(NoopJob(), needs=(new_id(),)), project=project)
    assert store.jobs() == []


def test_the_queue_goes_by_priority_then_age(store: Store) -> None:
    first, second, urgent = ask(store, JobSpec(NoopJob()), JobSpec(NoopJob()), JobSpec(NoopJob(), priority=5))
    second = store.set_priority(second.id, 1)
    order = [claimed(store).job_id for _ in range(3)]
    assert order == [urgent.id, second.id, first.id]
    assert claim(store) is None


def test_a_job_waits_for_what_it_needs(store: Store) -> None:
    pose = JobSpec(NoopJob())
    train = JobSpec(NoopJob(), needs=(pose.id,))
    ask(store, pose, train, JobSpec(NoopJob(), needs=(pose.id, train.id)))
    assert claimed(store).job_id == pose.id
    assert claim(store) is None
    store.finish(pose.id, 1, "succeeded")
    assert claimed(store).job_id == train.id


def test_what_needs_a_failed_job_is_cancelled(store: Store) -> None:
    pose = JobSpec(NoopJob())
    train = JobSpec(NoopJob(), needs=(pose.id,))
    export = JobSpec(NoopJob(), needs=(train.id,))
    project = ask(store, pose, train, export)[0].project
    claimed(store)
    store.finish(pose.id, 1, "failed", error="blurred")
    assert [store.job(order.id).state for order in (train, export)] == ["cancelled", "cancelled"]
    assert pose.id in str(store.job(train.id).error)
    with pytest.raises(ConflictError, match="which this one needs, has failed"):
        ask(store, JobSpec(NoopJob(), needs=(pose.id,)), project=project)


def test_a_job_for_all_cores_waits_until_they_are_free(store: Store) -> None:
    big, small = ask(store, JobSpec(NoopJob(), cpus=64), JobSpec(NoopJob(), cpus=1))
    assert store.lease(1, 0, 4) == Lease(small.id, small.project, 1, 1, 0)
    assert store.lease(3, 0, 4) is None
    assert store.lease(4, 0, 4) == Lease(big.id, big.project, 1, 4, 0)


def test_of_the_jobs_in_a_lane_one_runs(store: Store) -> None:
    one, two, other = ask(store, *(JobSpec(NoopJob(), concurrency_key=key) for key in ("run:1", "run:1", "run:2")))
    assert [claimed(store).job_id, claimed(store).job_id] == [one.id, other.id]
    assert claim(store) is None
    store.finish(one.id, 1, "succeeded")
    assert claimed(store).job_id == two.id


def test_jobs_without_a_gpu_for_them_wait(store: Store) -> None:
    [job] = ask(store, JobSpec(NoopJob(), gpus=1))
    assert store.lease(2, 0, 2) is None
    assert store.lease(2, 1, 2) == Lease(job.id, job.project, 1, 1, 1)


def test_those_that_wait_after_a_crash_are_passed_over(store: Store) -> None:
    first, second = ask(store, JobSpec(NoopJob()), JobSpec(NoopJob()))
    found = claim(store, waiting={first.id})
    assert found is not None
    assert found.job_id == second.id


def test_cancelling(store: Store) -> None:
    waiting, running = ask(store, JobSpec(NoopJob()), JobSpec(NoopJob(), priority=1))
    claimed(store)
    assert store.cancel(waiting.id).state == "cancelled"
    asked = store.cancel(running.id)
    assert (asked.state, asked.cancelling) == ("running", True)
    assert store.signal(running.id, 1) == store.heartbeat(running.id, 1, Heartbeat()) == "cancel"
    assert store.mark_lost(running.id, 1, "killed") == "cancelled"
    assert not store.job(running.id).cancelling


def test_pausing(store: Store) -> None:
    [job] = ask(store)
    claimed(store)
    assert store.pause(job.id).paused
    assert store.signal(job.id, 1) == "pause"
    assert store.requeue(job.id, 1)
    assert store.job(job.id).state == "queued"
    assert claim(store) is None
    store.pause(job.id, paused=False)
    assert claimed(store).attempt == 2
    store.pause(job.id)
    assert store.mark_lost(job.id, 2, "killed: it did not stop") == "queued"
    assert store.job(job.id).crashes == 0


def test_changes_are_never_missed_and_never_stale(store: Store) -> None:
    seq, projects, jobs = store.changes(None)
    assert (projects, jobs) == ([], [])
    [job] = ask(store)
    seen, projects, jobs = store.changes(seq)
    assert ([p.id for p in projects], [j.id for j in jobs]) == ([job.project], [job.id])
    assert store.changes(seen) == (seen, [], [])
    claimed(store)
    store.heartbeat(job.id, 1, Heartbeat("count", 1))
    store.heartbeat(job.id, 1, Heartbeat("count", 2))
    newest, projects, [changed] = store.changes(seen)
    assert (projects, changed.done) == ([], 2)
    assert newest > seen


def test_ten_writers_and_a_reader_who_follows(store: Store) -> None:
    """However writers interleave, whoever follows `seq` ends with what a newcomer sees."""
    project = store.create_project("p").id
    followed: dict[str, Job] = {}
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
        followed |= {job.id: job for job in jobs}
        if not alive:
            break
    since, _, jobs = store.changes(since)
    followed |= {job.id: job for job in jobs}
    assert followed == {job.id: job for job in store.jobs()}
    assert len(followed) == 50


def test_four_dispatchers_never_claim_the_same(store: Store) -> None:
    ask(store, *(JobSpec(NoopJob()) for _ in range(40)))
    found: list[str] = []

    def work() -> None:
        while (taken := store.lease(2, 0, 2)) is not None:
            found.append(taken.job_id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found)) == 40


def test_projects(store: Store) -> None:
    one, two = store.create_project("one"), store.create_project("two")
    assert [p.name for p in store.projects()] == ["two", "one"]
    assert store.update_project(one.id, name="ONE").name == "ONE"
    assert store.update_project(one.id, deleted=True).deleted is not None
    assert [p.id for p in store.projects()] == [two.id]
    assert [p.id for p in store.projects(deleted=True)] == [one.id]
    with pytest.raises(ConflictError, match="in the bin"):
        ask(store, project=one.id)
    store.update_project(one.id, deleted=False)
    assert store.project(one.id).deleted is None
    with pytest.raises(NotFoundError):
        store.project(new_id())


def test_who_wants_to_be_told_is_told_once(store: Store) -> None:
    [job] = ask(store, JobSpec(NoopJob(), webhook_url="http://example.com/"))
    assert store.pending_webhooks() == []
    claimed(store)
    store.finish(job.id, 1, "succeeded")
    [(url, told)] = store.pending_webhooks()
    assert (url, told.state) == ("http://example.com/", "succeeded")
    store.mark_webhook_sent(job.id)
    assert store.pending_webhooks() == []


def test_pages_of_jobs(store: Store) -> None:
    project = store.create_project("p").id
    for _ in range(5):
        ask(store, project=project)
    assert len(store.jobs(project, limit=2)) == 2
    assert store.jobs(project, states=["running"]) == []


def test_a_file_of_no_job_is_refused_by_the_database(database: Database) -> None:
    with pytest.raises(Exception, match=r"(?i)foreign key"), database.write() as (connection, _):
        row = {"id": new_id(), "project": new_id(), "job": new_id(), "attempt": 1, "what": "", "path": ""}
        connection.execute(insert(artifact).values(**row, bytes=0, sha256="", created=0.0))
