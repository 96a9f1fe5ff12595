"""Shared state of the routes: data folder, job store, dispatcher, capabilities, change feed and live sessions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from starlette.requests import HTTPConnection

from lumigraph.jobs.data_folder import DataFolder
from lumigraph.jobs.dispatcher import Dispatcher
from lumigraph.jobs.store import NotFoundError, Store
from lumigraph.server.capability_probe import CapabilityProbe
from lumigraph.server.change_feed import ChangeFeed
from lumigraph.server.live.hub import LiveSessions
from lumigraph.server.problems import Problem


@dataclass(frozen=True)
class ServerState:
    folder: DataFolder
    store: Store
    dispatcher: Dispatcher
    probe: CapabilityProbe
    feed: ChangeFeed
    live: LiveSessions
    cores: int
    webhook_hosts: frozenset[str] = frozenset()  # hosts to which webhooks may be sent

    def project_folder(self, project_id: str) -> Path:
        """The folder of a project. Raises Problem 404 if the project does not exist, 409 if it is in the bin."""
        try:
            project = self.store.project(project_id)
        except NotFoundError as error:
            raise Problem(404, "No such project", str(error)) from error
        if project.deleted is not None:
            raise Problem(409, "Project in the bin", "Restore this project first.")
        folder = self.folder.project(project_id)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def server_state(connection: HTTPConnection) -> ServerState:
    return cast(ServerState, connection.app.state.server)
