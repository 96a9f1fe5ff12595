"""Brings a database to the tables that this version knows. An older SQLite file is copied beside itself first."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from sqlalchemy import inspect, text

from lumigraph.jobs.database import Database

HEAD = "0001"  # the newest revision in migrations/versions; a test compares


class TooNewError(RuntimeError):
    """The database was written by a later version of this program."""


def migrate(database: Database) -> None:
    """Raises TooNewError where the database is ahead of this program."""
    found = revision_of(database)
    if found == HEAD:
        return  # the usual case, without the half second that importing Alembic takes
    if found is not None and found > HEAD:
        raise TooNewError(f"the database is at revision {found}, and this version knows {HEAD}; install a newer one")
    if found is not None and database.sqlite:
        back_up(database, found)

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
    """A copy of a SQLite database beside it, also while others write."""
    file = Path(str(database.url.database))
    copy = file.with_name(f"{file.stem}-{revision}{file.suffix}")
    copy.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(file)) as connection:  # not the engine's: it would begin a transaction
        connection.execute("VACUUM INTO ?", (str(copy),))
    return copy
