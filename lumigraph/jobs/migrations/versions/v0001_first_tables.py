"""The first tables. They are written out here because tables.py will change and this revision must not."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "counter",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO counter (id, seq) VALUES (1, 0)")
    op.create_table(
        "project",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("deleted", sa.Float),
        sa.Column("seq", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "job",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("project", sa.String(16), sa.ForeignKey("project.id", name="fk_job_project"), nullable=False),
        sa.Column("asked", sa.Text, nullable=False),
        sa.Column("key", sa.String(200)),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("paused", sa.Integer, nullable=False),
        sa.Column("cancel", sa.Integer, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("lane", sa.Text),
        sa.Column("cpus", sa.Integer, nullable=False),
        sa.Column("gpus", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("saves", sa.Integer, nullable=False),
        sa.Column("saves_at_start", sa.Integer, nullable=False),
        sa.Column("handle", sa.Text),
        sa.Column("stage", sa.Text),
        sa.Column("done", sa.Float, nullable=False),
        sa.Column("total", sa.Float),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("seconds_left", sa.Float),
        sa.Column("message", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("hook", sa.Text),
        sa.Column("told", sa.Integer, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("started", sa.Float),
        sa.Column("finished", sa.Float),
        sa.Column("born", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("project", "key", name="uq_job_project"),
        sa.CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="ck_job_state"),
    )
    op.create_table(
        "need",
        sa.Column("job", sa.String(16), sa.ForeignKey("job.id", name="fk_need_job"), primary_key=True),
        sa.Column("needs", sa.String(16), sa.ForeignKey("job.id", name="fk_need_needs"), primary_key=True),
    )
    op.create_table(
        "artifact",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("project", sa.String(16), sa.ForeignKey("project.id", name="fk_artifact_project"), nullable=False),
        sa.Column("job", sa.String(16), sa.ForeignKey("job.id", name="fk_artifact_job"), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.UniqueConstraint("job", "path", name="uq_artifact_job"),
    )
    for table, columns in (
        ("project", ["seq"]),
        ("job", ["project"]),
        ("job", ["seq"]),
        ("need", ["needs"]),
        ("artifact", ["project"]),
        ("artifact", ["job"]),
    ):
        op.create_index(f"ix_{table}_{columns[0]}", table, columns)
    op.create_index("ix_job_queue", "job", ["state", "priority", "born"])
