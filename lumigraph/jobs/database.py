"""Access to one database by its URL: SQLite in a file, or PostgreSQL. Every write increments `seq` first.

Incrementing the counter first also serializes all writers, on either database. No other writer changes the rows that a
writer reads until it commits, and a reader that has read up to `seq` never misses a change that commits later.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from lumigraph.jobs.tables import counter

WRITE_LOCK_TIMEOUT_S = 15.0


class Database:
    """A pool of connections. Thread-safe: each use takes its own connection."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        if self.sqlite:
            self._engine = create_engine(
                self.url, connect_args={"timeout": WRITE_LOCK_TIMEOUT_S}, pool_size=8, max_overflow=64
            )
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        else:
            self._engine = create_engine(self.url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
        self._write_engine = self._engine.execution_options(writes=True)

    @property
    def engine(self) -> Engine:
        return self._engine

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with translate_disk_full(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self, increment: int = 1) -> Iterator[tuple[Connection, int]]:
        """A transaction and its new `seq`, which is the old one plus `increment`.

        Raises OSError (ENOSPC), and changes nothing, if the disk is full.
        """
        with translate_disk_full(), self._write_engine.begin() as connection:
            statement = update(counter).values(seq=counter.c.seq + increment).returning(counter.c.seq)
            yield connection, connection.execute(statement).scalar_one()

    def seq(self) -> int:
        with self.read() as connection:
            return int(connection.execute(select(counter.c.seq)).scalar_one())

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def translate_disk_full() -> Iterator[None]:
    """Raises OSError (ENOSPC) instead of the driver's exception if the disk is full."""
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == "53100" or "disk is full" in str(error.orig):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "the database") from error
        raise


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver opens no transaction by itself; _begin_sqlite does
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at the start: taking it after a read can fail, however long the timeout is."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")
