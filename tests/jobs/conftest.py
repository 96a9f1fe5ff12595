"""Stores on both databases: SQLite in a file, and a real PostgreSQL if Debian's package can be installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from lumigraph.jobs.database import Database
from lumigraph.jobs.migrate import migrate
from lumigraph.jobs.store import Store
from tests.debian import install_package


class Postgres:
    """A PostgreSQL server in a temporary folder, reached through a Unix socket: no port, no password."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: a socket path has at most 107 bytes
        self._user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        if self._user:
            shutil.chown(self._folder, "postgres")
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", "lumigraph", "-A", "trust", "--no-sync")
        self._data, self.count = data, 0
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}'"
        self._run("pg_ctl", "-D", data, "-o", options, "-l", str(self._folder / "log"), "-w", "start")

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        self.count += 1
        name = f"test{self.count}"
        self._run("createdb", "-h", str(self._folder), "-U", "lumigraph", name)
        return f"postgresql://lumigraph@/{name}?host={self._folder}"

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._user, str(self._programs / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    programs = find_postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed, and installing it failed")
    server = Postgres(programs)
    yield server
    server.stop()


def find_postgres_programs() -> Path | None:
    def find() -> Path | None:
        return max((p.parent for p in Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=None)

    return install_package("postgresql", find)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'lumigraph.db'}"
    else:
        url = request.getfixturevalue("postgres").new_database()
    database = Database(url)
    migrate(database)
    yield database
    if database.sqlite:
        with database.read() as connection:
            assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
    database.close()


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)
