"""Alembic's entry script. lumigraph.jobs.migrate is its only caller and provides the connection."""

from alembic import context

from lumigraph.jobs.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
