"""What changes, for whoever listens. The job table is looked at once for all listeners.

Each listener has a place where the newest state of every job waits until it is fetched: who is slow misses what was in
between, and nothing queues.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from sqlalchemy.exc import DBAPIError

from lumigraph.jobs.store import Store
from lumigraph.wire.resources import Change, Job, Project, Snapshot

EVERY = 0.1  # seconds between looks, while anybody listens

log = logging.getLogger(__name__)


class Listener:
    """What one client has yet to be told."""

    def __init__(self) -> None:
        self._projects: dict[str, Project] = {}
        self._jobs: dict[str, Job] = {}
        self._seq = -1
        self._news = asyncio.Event()

    def add(self, seq: int, projects: list[Project], jobs: list[Job]) -> None:
        self._seq = max(seq, self._seq)
        for project in projects:
            self._projects[project.id] = project
        for job in jobs:
            if job.id not in self._jobs or self._jobs[job.id].seq <= job.seq:
                self._jobs[job.id] = job
        if projects or jobs:
            self._news.set()

    async def next(self) -> Change:
        """Waits until there is something."""
        await self._news.wait()
        self._news.clear()
        change = Change(seq=self._seq, projects=[*self._projects.values()], jobs=[*self._jobs.values()])
        self._projects.clear()
        self._jobs.clear()
        return change


class ChangeFeed:
    """Belongs to one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def listen(self, since: int | None) -> AsyncIterator[tuple[Snapshot | Change, Listener]]:
        """All that is, or all that changed after `since`; and who hears of what comes then."""
        listener = Listener()
        self._listeners.add(listener)  # before looking: what comes in between is told twice, not never
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            seq, projects, jobs = await asyncio.to_thread(self._store.changes, since)
            kind = Snapshot if since is None else Change
            yield kind(seq=seq, projects=projects, jobs=jobs), listener
        finally:
            self._listeners.discard(listener)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _look(self) -> None:
        since = await asyncio.to_thread(self._store.database.seq) - 1
        while self._listeners:
            try:
                since, projects, jobs = await asyncio.to_thread(self._store.changes, since)
                for listener in self._listeners:
                    listener.add(since, projects, jobs)
            except (OSError, DBAPIError) as error:
                log.warning("the changes could not be read: %s", error)
                await asyncio.sleep(1.0)
            await asyncio.sleep(EVERY)
