"""Migration of a database to this version's tables. An older SQLite file is backed up next to the original first."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from sqlalchemy import inspect, text

from lumigraph.jobs.database import Database

HEAD = "0001"  # the newest revision in migrations/versions; a test checks it


class TooNewError(RuntimeError):
    """The database was written by a later version of this program."""


def migrate(database: Database) -> None:
    """Upgrade the tables to HEAD. Raises TooNewError if a later version wrote the database."""
    revision = revision_of(database)
    if revision == HEAD:
        return  # the usual case: importing Alembic would take half a second
    if revision is not None and revision > HEAD:
        raise TooNewError(f"the database is at revision {revision}, and this version knows {HEAD}; install a newer one")
    if revision is not None and database.sqlite:
        back_up(database, revision)

    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)


def revision_of(database: Database) -> str | None:
    with database.read() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def back_up(database: Database, revision: str) -> Path:
    """Copy a SQLite database to a file next to it; safe during writes."""
    file = Path(str(database.url.database))
    copy = file.with_name(f"{file.stem}-{revision}{file.suffix}")
    copy.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(file)) as connection:  # the engine's connection would open a transaction
        connection.execute("VACUUM INTO ?", (str(copy),))
    return copy
