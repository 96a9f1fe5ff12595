"""`lumigraph up`: run one server on one data folder until a signal stops it."""

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

SHUTDOWN_TIMEOUT_S = 3  # for open connections
MAX_MESSAGE_BYTES = 1 << 16  # of a WebSocket message from a client


class ServerStartError(RuntimeError):
    """The server cannot start."""


def default_data_folder() -> Path:
    """The platform's default folder for application data."""
    from platformdirs import user_data_path

    return user_data_path("lumigraph", appauthor=False)


def up(settings: Settings, quiet: bool = False) -> None:
    """Serve until SIGINT or SIGTERM. Raises ServerStartError, or InUseError if another server holds the folder."""
    listener = listen(settings.host, settings.port)
    settings = dataclasses.replace(settings, port=listener.getsockname()[1])
    address = address_of(settings)
    folder = DataFolder(settings.data)
    with folder.lock(address):
        token = read_or_make_token(folder.token)
        configure_logging(quiet)
        app = build(settings)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            server_header=False,
            proxy_headers=False,  # settings.urls names the proxies instead
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,  # frames are JPEG already
        )
        for url in (address, *settings.urls):
            print(f"Lumigraph is up: {url.rstrip('/')}/?token={token}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket, before anything else starts. Raises ServerStartError if the address is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host.strip("[]"), port), family=family, backlog=256)
    except OSError as error:
        raise ServerStartError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port"
        ) from error
    # Connections inherit TCP_NODELAY. asyncio sets it only on sockets with an explicit TCP protocol number, which this
    # one lacks. Without it the body of a response waits 40 ms for the acknowledgement of its header.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def address_of(settings: Settings) -> str:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def configure_logging(quiet: bool) -> None:
    """Log to stderr: readable lines on a terminal, JSON otherwise."""
    is_terminal = sys.stderr.isatty()
    shared_processors: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if is_terminal else "iso", utc=not is_terminal),
        structlog.processors.format_exc_info,
    ]
    renderer = structlog.dev.ConsoleRenderer() if is_terminal else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared_processors,
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING if quiet else logging.INFO, force=True)
    for verbose_logger in ("httpx", "httpcore", "uvicorn.error", "alembic"):
        logging.getLogger(verbose_logger).setLevel(logging.WARNING)
