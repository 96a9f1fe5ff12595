"""The database tables. They are the only source of truth about jobs; processes come and go.

Times are seconds since 1970 by the server's clock. They are for display only: no decision uses them, so the clock may
jump. `seq` orders all changes: one counter, incremented in the transaction of each change.
A column whose name differs from its `key` keeps the name of the first revision; Python code uses the key.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

# Explicit constraint names, so that later migrations can refer to them on either database.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

counter = Table("counter", metadata, Column("id", Integer, primary_key=True), Column("seq", BigInteger, nullable=False))

project = Table(
    "project",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("deleted", Float),
    Column("seq", BigInteger, nullable=False, index=True),
)

job = Table(
    "job",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("project", String(16), ForeignKey("project.id"), nullable=False, index=True),
    Column("asked", Text, key="request", nullable=False),  # JSON of a request of wire.resources
    Column("key", String(200)),  # Idempotency-Key
    Column("state", String(10), nullable=False),
    Column("paused", Integer, nullable=False, default=0),
    Column("cancel", Integer, nullable=False, default=0),
    Column("priority", Integer, nullable=False, default=0),
    Column("lane", Text, key="concurrency_key"),  # one job per key runs at a time
    Column("cpus", Integer, nullable=False, default=1),
    Column("gpus", Integer, nullable=False, default=0),
    Column("attempt", Integer, nullable=False, default=0),
    Column("crashes", Integer, nullable=False, default=0),
    Column("saves", Integer, nullable=False, default=0),  # checkpoints over all attempts
    Column("saves_at_start", Integer, nullable=False, default=0),  # `saves` when the current attempt started
    Column("handle", Text),  # the executor's name for the worker process
    Column("stage", Text),
    Column("done", Float, nullable=False, default=0.0),
    Column("total", Float),
    Column("unit", Text, nullable=False, default=""),
    Column("seconds_left", Float),
    Column("message", Text),
    Column("error", Text),
    Column("result", Text),  # JSON
    Column("hook", Text, key="webhook_url"),  # receives a POST when the job has ended
    Column("told", Integer, key="webhook_sent", nullable=False, default=0),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("finished", Float),
    Column("born", BigInteger, key="created_seq", nullable=False),  # unique, in the order of submission
    Column("seq", BigInteger, nullable=False, index=True),
    UniqueConstraint("project", "key"),
    CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="state"),
    Index("ix_job_queue", "state", "priority", "created_seq"),
)

need = Table(
    "need",
    metadata,
    Column("job", String(16), ForeignKey("job.id"), primary_key=True),
    Column("needs", String(16), ForeignKey("job.id"), primary_key=True, index=True),
)

artifact = Table(
    "artifact",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("project", String(16), ForeignKey("project.id"), nullable=False, index=True),
    Column("job", String(16), ForeignKey("job.id"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("what", Text, nullable=False),
    Column("path", Text, nullable=False),  # relative to the data folder, with forward slashes
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created", Float, nullable=False),
    UniqueConstraint("job", "path"),
)
