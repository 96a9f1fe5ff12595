"""The web process: it answers, relays and keeps watch, and computes nothing. torch never comes in here."""

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
from lumigraph.server.api.projects import ID
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
ABOUT = """\
Photos in, a scene out. Make a project, upload photos to it (tus 1.0, or a plain PUT), ask for jobs, follow them on the
socket `/api/v1/events`, and fetch what they made. Every request needs the token that the server printed at its start:
`Authorization: Bearer TOKEN`. Every error is `application/problem+json`.
"""

live = APIRouter()


@live.websocket("/projects/{project}/runs/{run}/live")
async def watch(
    websocket: WebSocket, project: Annotated[str, Path(pattern=ID)], run: Annotated[str, Path(pattern=ID)]
) -> None:
    """A run as the server renders it, for as long as somebody looks."""
    service = server_state(websocket)
    path = service.folder.project(project) / "runs" / run
    if not (path / "config.json").is_file():
        raise Problem(404, "No such run", f"this project has no run {run}")
    await websocket.accept()
    await service.live.watch(websocket, str(path))


@dataclass(frozen=True)
class Settings:
    """How a server is reached and bounded. `database`: a URL of PostgreSQL; None: a file in the data folder."""

    data: FilePath
    host: str = "127.0.0.1"
    port: int = 7007
    database: str | None = None
    urls: tuple[str, ...] = ()  # by which it is reached besides, as behind a proxy
    origins: tuple[str, ...] = ()  # other web origins that may use the API
    hook_hosts: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


def build(settings: Settings) -> ASGIApp:
    """The application behind its guard. Jobs are started when it starts, and put aside when it ends."""
    folder = DataFolder(settings.data)
    url = settings.database or folder.database_url()
    store = Store(Database(url))
    migrate(store.database)
    project_removal.finish(folder, store)
    executor = PreforkExecutor(folder, url)
    service = ServerState(
        folder=folder,
        store=store,
        dispatcher=Dispatcher(store, executor),
        catalogue=capability_probe.CapabilityProbe(),
        feed=ChangeFeed(store),
        live=LiveSessions(lambda run: [sys.executable, "-m", "lumigraph.worker", "--live", run]),
        cores=executor.cores,
        hook_hosts=frozenset(settings.hook_hosts),
    )
    token = token_file(folder.token)
    app = FastAPI(
        title="Lumigraph",
        version=lumigraph.__version__,
        description=ABOUT,
        lifespan=_life(service, token),
        docs_url=None,  # these pages would fetch their scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    problems.install(app)
    app.include_router(health.router)
    for router in (projects.router, jobs.router, previews.router, capabilities.router, events.router, live):
        app.include_router(router, prefix=API)
    app.include_router(uploads.router(service.project_folder, settings.limits), prefix=API)
    app.include_router(static_pages.router)
    app.add_middleware(health.TimingMiddleware)
    hosts = allowed_hosts(settings.host, settings.port, settings.urls)
    return Guard(app, token, hosts, settings.origins)


def _life(service: ServerState, token: Callable[[], str]) -> Lifespan:
    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        teller = webhooks.WebhookSender(service.store, token) if service.hook_hosts else None
        service.dispatcher.start()
        if teller:
            teller.start()
        try:
            yield
        finally:
            if teller:
                teller.stop()
            await service.feed.close()
            await service.live.close()
            await asyncio.to_thread(service.dispatcher.stop)
            service.store.database.close()

    return life
