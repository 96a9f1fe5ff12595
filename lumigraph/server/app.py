"""The application of the web process. It serves requests and starts workers, computes nothing and imports no torch."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, FastAPI, Path, WebSocket
from starlette.types import ASGIApp

import lumigraph
from lumigraph.jobs.data_folder import DataFolder
from lumigraph.jobs.database import Database
from lumigraph.jobs.dispatcher import Dispatcher
from lumigraph.jobs.executors.prefork import PreforkExecutor
from lumigraph.jobs.migrate import migrate
from lumigraph.jobs.store import Store
from lumigraph.server import capability_probe, health, problems, static_pages, webhooks
from lumigraph.server.api import capabilities, events, jobs, previews, projects, uploads
from lumigraph.server.api.projects import ID_PATTERN
from lumigraph.server.auth.access import Guard, allowed_hosts
from lumigraph.server.auth.tokens import token_file
from lumigraph.server.change_feed import ChangeFeed
from lumigraph.server.files import project_removal
from lumigraph.server.files.quotas import Limits
from lumigraph.server.live.hub import LiveSessions
from lumigraph.server.problems import Problem
from lumigraph.server.state import ServerState, server_state

API = "/api/v1"
Lifespan = Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]
API_DESCRIPTION = """\
From photos to a 3D scene. Create a project, upload photos to it (tus 1.0, or a plain PUT), submit jobs, follow them on
the WebSocket `/api/v1/events`, and download their outputs. Every request needs the token that the server printed at its
start: `Authorization: Bearer TOKEN`. Every error is `application/problem+json`.
"""

live = APIRouter()


@live.websocket("/projects/{project}/runs/{run}/live")
async def watch(
    websocket: WebSocket,
    project: Annotated[str, Path(pattern=ID_PATTERN)],
    run: Annotated[str, Path(pattern=ID_PATTERN)],
) -> None:
    """Stream a run, rendered by the server, until the viewer disconnects."""
    server = server_state(websocket)
    path = server.folder.project(project) / "runs" / run
    if not (path / "config.json").is_file():
        raise Problem(404, "No such run", f"this project has no run {run}")
    await websocket.accept()
    await server.live.watch(websocket, str(path))


@dataclass(frozen=True)
class Settings:
    """Addresses and limits of a server. `database` is a PostgreSQL URL; None means SQLite in the data folder."""

    data: FilePath
    host: str = "127.0.0.1"
    port: int = 7007
    database: str | None = None
    urls: tuple[str, ...] = ()  # further public URLs, for example of a proxy
    origins: tuple[str, ...] = ()  # other web origins that may use the API
    hook_hosts: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


def build(settings: Settings) -> ASGIApp:
    """Build the application behind its guard. Its lifespan starts the dispatcher, and requeues running jobs at exit."""
    folder = DataFolder(settings.data)
    url = settings.database or folder.database_url()
    store = Store(Database(url))
    migrate(store.database)
    project_removal.finish(folder, store)
    executor = PreforkExecutor(folder, url)
    server = ServerState(
        folder=folder,
        store=store,
        dispatcher=Dispatcher(store, executor),
        probe=capability_probe.CapabilityProbe(),
        feed=ChangeFeed(store),
        live=LiveSessions(lambda run: [sys.executable, "-m", "lumigraph.worker", "--live", run]),
        cores=executor.cores,
        webhook_hosts=frozenset(settings.hook_hosts),
    )
    token = token_file(folder.token)
    app = FastAPI(
        title="Lumigraph",
        version=lumigraph.__version__,
        description=API_DESCRIPTION,
        lifespan=_lifespan(server, token),
        docs_url=None,  # these pages would load scripts from other origins
        redoc_url=None,
    )
    app.state.server = server
    problems.install(app)
    app.include_router(health.router)
    for router in (projects.router, jobs.router, previews.router, capabilities.router, events.router, live):
        app.include_router(router, prefix=API)
    app.include_router(uploads.router(server.project_folder, settings.limits), prefix=API)
    app.include_router(static_pages.router)
    app.add_middleware(health.TimingMiddleware)
    hosts = allowed_hosts(settings.host, settings.port, settings.urls)
    return Guard(app, token, hosts, settings.origins)


def _lifespan(server: ServerState, token: Callable[[], str]) -> Lifespan:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sender = webhooks.WebhookSender(server.store, token) if server.webhook_hosts else None
        server.dispatcher.start()
        if sender:
            sender.start()
        try:
            yield
        finally:
            if sender:
                sender.stop()
            await server.feed.close()
            await server.live.close()
            await asyncio.to_thread(server.dispatcher.stop)
            server.store.database.close()

    return lifespan
