"""A real server for the tests: in a thread, or in a separate process that tests can kill.

python -m tests.server.running_server FOLDER: serves the projects in FOLDER and prints its port.
"""

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from lumigraph.server import problems
from lumigraph.server.api import uploads
from lumigraph.server.files.quotas import Limits
from lumigraph.server.problems import Problem

NO_LIMITS = Limits(free_bytes=0)


def application(data: Path, limits: Limits = NO_LIMITS) -> FastAPI:
    """Create an app with the upload routes alone. A project is a folder of `data` with an alphanumeric name."""

    def folder_of(project: str) -> Path:
        if not project.isalnum() or not (data / project).is_dir():
            raise Problem(404, "No such project", f"There is no project {project!r}.")
        return data / project

    app = FastAPI(title="uploads")
    problems.install(app)
    app.include_router(uploads.router(folder_of, limits))
    return app


def free_socket() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


@contextmanager
def serve(app: ASGIApp, listener: socket.socket | None = None) -> Iterator[str]:
    """Serve `app` inside the block; yield its address, http://127.0.0.1:PORT."""
    listener = listener or free_socket()
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(5)
        listener.close()


if __name__ == "__main__":
    listener = free_socket()
    listener.listen(16)
    print(listener.getsockname()[1], flush=True)
    app = application(Path(sys.argv[1]))
    uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off")).run([listener])
