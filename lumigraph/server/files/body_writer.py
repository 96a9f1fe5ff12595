"""From a request's body to a file: in large pieces, in other threads, with little memory.

While one piece is written the next one comes in. The loop that serves everybody else never touches the disk.
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

from lumigraph.server.files.content_type import HEAD
from lumigraph.server.files.quotas import Limits, check_free
from lumigraph.server.problems import Problem, answer, understood

PIECE = 2 << 20  # bytes handed to the disk at once; three of them are in memory for each upload
SHOWN = 64  # bytes; a file whose first piece is shorter is looked at when it is complete
LINGER_SECONDS = 2.0
LINGER_BYTES = 32 << 20


class Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class FileSink:
    """An open file that grows from byte `at` to at most byte `most`. `grow(count)` is asked before bytes are added, and
    may refuse; so may `begins(bytes)`, which is shown the first piece of a file, since a film that is none should not
    have to come to its end. Raises Problem 413 or 507, or OSError; what was written until then stays."""

    def __init__(
        self,
        descriptor: int,
        at: int,
        most: int,
        limits: Limits,
        begins: Callable[[bytes], None],
        grow: Callable[[int], None] = lambda count: None,
        digest: Digest | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.at = at
        self.most = most
        self.limits = limits
        self.begins = begins
        self.grow = grow
        self.digest = digest

    def write(self, pieces: list[bytes]) -> None:
        data = b"".join(pieces)
        pieces.clear()
        if self.at + len(data) > self.most:
            raise Problem(413, "More than was declared", f"The file ends at byte {self.most:,}; more bytes came.")
        if self.at == 0 and len(data) >= SHOWN:
            self.begins(data[:HEAD])
        check_free(self.descriptor, len(data), self.limits)
        self.grow(len(data))
        if self.digest is not None:
            self.digest.update(data)
        left = memoryview(data)
        while left:
            written = os.pwrite(self.descriptor, left, self.at)
            self.at += written
            left = left[written:]


class WriteTurn:
    """The right to write one file, until somebody else asks for it: the newest connection wins, since an older one to
    the same file is most likely dead without knowing it."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.superseded = False
        self.timer: asyncio.Timeout | None = None

    def end(self) -> None:
        self.superseded = True
        if self.timer is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self.timer.reschedule(0)


async def pour(request: Request, sink: FileSink, turn: WriteTurn) -> None:
    """All of the body into `sink`. However it ends, what arrived is in the file when this returns or raises:
    ClientDisconnect, Problem 408 (nothing came for a while), 409 (another request took over), 413 or 507, OSError."""
    loop = asyncio.get_running_loop()
    idle = sink.limits.idle_seconds
    pieces: list[bytes] = []
    size = 0
    writing: asyncio.Future[None] | None = None
    try:
        async with asyncio.timeout(idle) as turn.timer:
            if turn.superseded:
                raise TimeoutError
            async for piece in request.stream():
                if not turn.superseded:
                    turn.timer.reschedule(loop.time() + idle)
                pieces.append(piece)
                size += len(piece)
                if size >= PIECE:
                    if writing is not None:
                        await asyncio.shield(writing)
                    writing, pieces, size = loop.run_in_executor(None, sink.write, pieces), [], 0
    except TimeoutError:
        if turn.superseded:
            raise Problem(409, "Superseded", "Another request goes on with this upload.") from None
        raise Problem(408, "Body too slow", f"Nothing came for {idle:g} seconds. What came is kept.") from None
    finally:
        turn.timer = None
        if writing is not None:
            await asyncio.shield(writing)
        if pieces:
            await asyncio.shield(loop.run_in_executor(None, sink.write, pieces))


class StreamedRoute(APIRoute):
    """A route that may refuse a body before it has all come. Its answer is sent first and the rest of the body is
    listened to for a moment: a connection closed at once would take the answer with it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except ClientDisconnect:
                return Response(status_code=400)  # for the log; nobody is there to read it
            except (Problem, OSError) as error:
                problem = understood(error)
                if problem is None or request._stream_consumed or request.method not in ("POST", "PUT", "PATCH"):
                    raise
                return LingeringResponse(answer(problem, request.url.path))

        return handle


class LingeringResponse(Response):
    """Another response, whose connection closes when the client has stopped sending, or soon."""

    def __init__(self, inner: Response) -> None:
        super().__init__()
        self.inner = inner
        self.status_code = inner.status_code
        self.raw_headers = [*inner.raw_headers, (b"connection", b"close")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.inner.body, "more_body": True})
        came = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while came < LINGER_BYTES:
                    message = await receive()
                    came += len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        break
        await send({"type": "http.response.body", "body": b""})
