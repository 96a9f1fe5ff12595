"""Feed of changes to projects and jobs. One poll of the tables serves all listeners.

Each listener holds only the newest state of every job until it is fetched. A slow listener therefore misses states in
between, and no queue can grow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from sqlalchemy.exc import DBAPIError

from lumigraph.jobs.store import Store
from lumigraph.wire.resources import Change, Job, Project, Snapshot

CHANGE_POLL_S = 0.1  # while there are listeners
POLL_ERROR_DELAY_S = 1.0

log = logging.getLogger(__name__)


class Listener:
    """The changes that one client has not received yet."""

    def __init__(self) -> None:
        self._projects: dict[str, Project] = {}
        self._jobs: dict[str, Job] = {}
        self._seq = -1
        self._has_changes = asyncio.Event()

    def add(self, seq: int, projects: list[Project], jobs: list[Job]) -> None:
        self._seq = max(seq, self._seq)
        for project in projects:
            self._projects[project.id] = project
        for job in jobs:
            if job.id not in self._jobs or self._jobs[job.id].seq <= job.seq:
                self._jobs[job.id] = job
        if projects or jobs:
            self._has_changes.set()

    async def next(self) -> Change:
        """Wait for the next change."""
        await self._has_changes.wait()
        self._has_changes.clear()
        change = Change(seq=self._seq, projects=[*self._projects.values()], jobs=[*self._jobs.values()])
        self._projects.clear()
        self._jobs.clear()
        return change


class ChangeFeed:
    """Distributes changes to listeners. All calls must come from one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def listen(self, since: int | None) -> AsyncIterator[tuple[Snapshot | Change, Listener]]:
        """Everything, or all changes after `since`, together with a listener for later changes."""
        listener = Listener()
        self._listeners.add(listener)  # before the first read: a change in between arrives twice rather than never
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll())
        try:
            seq, projects, jobs = await asyncio.to_thread(self._store.changes, since)
            message_type = Snapshot if since is None else Change
            yield message_type(seq=seq, projects=projects, jobs=jobs), listener
        finally:
            self._listeners.discard(listener)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _poll(self) -> None:
        since = await asyncio.to_thread(self._store.database.seq) - 1
        while self._listeners:
            try:
                since, projects, jobs = await asyncio.to_thread(self._store.changes, since)
                for listener in self._listeners:
                    listener.add(since, projects, jobs)
            except (OSError, DBAPIError) as error:
                log.warning("the changes could not be read: %s", error)
                await asyncio.sleep(POLL_ERROR_DELAY_S)
            await asyncio.sleep(CHANGE_POLL_S)
