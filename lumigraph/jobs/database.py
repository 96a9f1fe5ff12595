"""One database by its URL: SQLite in a file, or PostgreSQL. Every write is one transaction that raises `seq` first.

Raising the counter first also puts all writers in a row, on either database: whatever a writer reads after it, nobody
changes until it has committed, and whoever has read up to `seq` never misses a change that commits later.
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

PATIENCE = 15.0  # seconds to wait for another writer


class Database:
    """Safe to use from many threads: each use takes a connection of its own."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        if self.sqlite:
            self._engine = create_engine(self.url, connect_args={"timeout": PATIENCE}, pool_size=8, max_overflow=64)
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        else:
            self._engine = create_engine(self.url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
        self._writing = self._engine.execution_options(writes=True)

    @property
    def engine(self) -> Engine:
        return self._engine

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with full_disk_said(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self, raised: int = 1) -> Iterator[tuple[Connection, int]]:
        """A transaction and its `seq`, which it has `raised` by so much. Raises OSError (ENOSPC) where the disk is
        full; nothing has changed then."""
        with full_disk_said(), self._writing.begin() as connection:
            new = update(counter).values(seq=counter.c.seq + raised).returning(counter.c.seq)
            yield connection, connection.execute(new).scalar_one()

    def seq(self) -> int:
        with self.read() as connection:
            return int(connection.execute(select(counter.c.seq)).scalar_one())

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def full_disk_said() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == "53100" or "disk is full" in str(error.orig):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "the database") from error
        raise


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin when we say so, see _begin_sqlite
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the lock at once: taking it after a read may fail, however long one waits."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")
