"""Writes request bodies to files: in large chunks, in worker threads, with little memory.

While one chunk is written, the next one is received. The event loop never touches the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lumigraph.server.files.content_type import HEAD_BYTES
from lumigraph.server.files.quotas import Limits, check_free
from lumigraph.server.problems import Problem, problem_response, to_problem

WRITE_CHUNK_BYTES = 2 << 20  # of one write; three chunks are in memory for each upload
MIN_HEAD_BYTES = 64  # a file with a shorter first chunk is checked after its last byte
LINGER_SECONDS = 2.0
LINGER_BYTES = 32 << 20


class Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class FileSink:
    """An open file that grows from byte `at` to at most byte `max_bytes`.

    `reserve(count)` is called before bytes are added, and may raise. `check_head(bytes)` is called with the first chunk
    of a file, and may raise: a file of a wrong type is rejected before it has been sent completely. `write` raises
    Problem 413 or 507, or OSError; bytes written before that stay in the file.
    """

    def __init__(
        self,
        descriptor: int,
        at: int,
        max_bytes: int,
        limits: Limits,
        check_head: Callable[[bytes], None],
        reserve: Callable[[int], None] = lambda count: None,
        digest: Digest | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.at = at
        self.max_bytes = max_bytes
        self.limits = limits
        self.check_head = check_head
        self.reserve = reserve
        self.digest = digest

    def write(self, chunks: list[bytes]) -> None:
        """Append the chunks to the file, and clear the list."""
        data = b"".join(chunks)
        chunks.clear()
        if self.at + len(data) > self.max_bytes:
            raise Problem(413, "More than was declared", f"The body has more bytes than the file's {self.max_bytes:,}.")
        if self.at == 0 and len(data) >= MIN_HEAD_BYTES:
            self.check_head(data[:HEAD_BYTES])
        check_free(self.descriptor, len(data), self.limits)
        self.reserve(len(data))
        if self.digest is not None:
            self.digest.update(data)
        remaining = memoryview(data)
        while remaining:
            count = os.pwrite(self.descriptor, remaining, self.at)
            self.at += count
            remaining = remaining[count:]


class WriteTurn:
    """The right of a request to write one file, until a newer request for the file takes over.

    The newest connection wins, because an older one to the same file is most likely broken.
    """

    def __init__(self) -> None:
        self.release_event = asyncio.Event()
        self.is_superseded = False
        self.timer: asyncio.Timeout | None = None

    def end(self) -> None:
        """Ask the request to stop writing."""
        self.is_superseded = True
        if self.timer is not None:
            with contextlib.suppress(RuntimeError):  # it has just expired
                self.timer.reschedule(0)


async def write_body(request: Request, sink: FileSink, turn: WriteTurn) -> None:
    """Write the whole body into `sink`. All received bytes are in the file when this returns or raises.

    Raises ClientDisconnect, Problem 408 (no data for a while), 409 (another request took over), 413 or 507, or OSError.
    """
    loop = asyncio.get_running_loop()
    idle = sink.limits.idle_seconds
    chunks: list[bytes] = []
    size = 0
    write_future: asyncio.Future[None] | None = None
    try:
        async with asyncio.timeout(idle) as turn.timer:
            if turn.is_superseded:
                raise TimeoutError
            async for chunk in request.stream():
                if not turn.is_superseded:
                    turn.timer.reschedule(loop.time() + idle)
                chunks.append(chunk)
                size += len(chunk)
                if size >= WRITE_CHUNK_BYTES:
                    if write_future is not None:
                        await asyncio.shield(write_future)
                    write_future, chunks, size = loop.run_in_executor(None, sink.write, chunks), [], 0
    except TimeoutError:
        if turn.is_superseded:
            raise Problem(409, "Superseded", "Another request continues this upload.") from None
        raise Problem(408, "Body too slow", f"No data for {idle:g} seconds. The received bytes are kept.") from None
    finally:
        turn.timer = None
        if write_future is not None:
            await asyncio.shield(write_future)
        if chunks:
            await asyncio.shield(loop.run_in_executor(None, sink.write, chunks))


class StreamedRoute(APIRoute):
    """A route that may reject a body before it is complete.

    It sends the response first and reads the rest of the body for a moment. If the connection closed at once, the
    client would lose the response.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except ClientDisconnect:
                return Response(status_code=400)  # for the log only: the client has gone
            except (Problem, OSError) as error:
                problem = to_problem(error)
                if problem is None or request._stream_consumed or request.method not in ("POST", "PUT", "PATCH"):
                    raise
                return LingeringResponse(problem_response(problem, request.url.path))

        return handle


class LingeringResponse(Response):
    """A response whose connection closes when the client stops sending, or after LINGER_SECONDS."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response
        self.status_code = response.status_code
        self.raw_headers = [*response.raw_headers, (b"connection", b"close")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.response.body, "more_body": True})
        received_bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while received_bytes < LINGER_BYTES:
                    message = await receive()
                    received_bytes += len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        break
        await send({"type": "http.response.body", "body": b""})
