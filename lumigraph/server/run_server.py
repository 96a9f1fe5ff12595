"""`lumigraph up`: one server, one data folder, until it is told to stop."""

from __future__ import annotations

import dataclasses
import logging
import socket
import sys
from pathlib import Path

import structlog
import uvicorn

from lumigraph.jobs.data_folder import DataFolder
from lumigraph.server.app import Settings, build
from lumigraph.server.auth.tokens import read_or_make_token

GOODBYE = 3  # seconds that open connections have when the server ends
MESSAGE = 1 << 16  # bytes of a WebSocket message that a client may send


class ServerStartError(RuntimeError):
    """The server cannot start; said in a sentence."""


def default_data_folder() -> Path:
    """The platform's usual place for what programs keep."""
    from platformdirs import user_data_path

    return user_data_path("lumigraph", appauthor=False)


def up(settings: Settings, quiet: bool = False) -> None:
    """Serve until SIGINT or SIGTERM. Raises ServerStartError, or InUseError if another server holds the folder."""
    listening = bound(settings.host, settings.port)
    settings = dataclasses.replace(settings, port=listening.getsockname()[1])
    address = address_of(settings)
    folder = DataFolder(settings.data)
    with folder.lock(address):
        token = read_or_make_token(folder.token)
        log_plainly(quiet)
        app = build(settings)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            server_header=False,
            proxy_headers=False,  # what is in front of us stands in settings.urls
            timeout_graceful_shutdown=GOODBYE,
            ws_max_size=MESSAGE,
            ws_per_message_deflate=False,  # pictures are compressed already
        )
        for url in (address, *settings.urls):
            print(f"Lumigraph is up: {url.rstrip('/')}/?token={token}", flush=True)
        uvicorn.Server(config).run(sockets=[listening])


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there, taken before anything is started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host.strip("[]"), port), family=family, backlog=256)
    except OSError as error:
        raise ServerStartError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port"
        ) from error
    # Connections inherit this. asyncio asks it only of sockets that say they are TCP, and ours does not; without it the
    # body of an answer waits 40 ms for the acknowledgement of its header.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def address_of(settings: Settings) -> str:
    shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{settings.port}"


def log_plainly(quiet: bool) -> None:
    """What happens, on stderr: lines for a person on a terminal, JSON for a program."""
    person = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if person else "iso", utc=not person),
        structlog.processors.format_exc_info,
    ]
    shown = structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, shown], foreign_pre_chain=shared
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING if quiet else logging.INFO, force=True)
    for chatty in ("httpx", "httpcore", "uvicorn.error", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
