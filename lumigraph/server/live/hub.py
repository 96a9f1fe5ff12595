"""The relay of live views: viewers' WebSockets on one side, one process that renders for each run on the other.

This process renders nothing and decodes nothing. It checks what viewers say, sends each of them the newest frame that
it can take, and tells the renderer when somebody can take another. A viewer has one place where the newest frame waits,
so a slow one misses frames and holds up nobody; one that acknowledges nothing is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from lumigraph.wire.live import (
    CLOSE_CODE_BUSY,
    CLOSE_CODE_ENDED,
    CLOSE_CODE_SLOW,
    MAX_UNACKNOWLEDGED_FRAMES,
    Ack,
    Command,
    CommandError,
    ErrorCode,
    read_command,
)
from lumigraph.wire.pipe import (
    LENGTH_PREFIX_BYTES,
    LIVE_FD_VARIABLE,
    FrameCredit,
    RendererMessage,
    ViewerCommand,
    ViewerJoined,
    ViewerLeft,
    decode_viewer_message,
    encode_renderer_message,
    parse_length,
)

MOST = 2  # processes that render
LINGER = 30.0  # seconds that one stays after its last viewer left, with its camera
PATIENCE = 5.0  # seconds for an acknowledgement, and for a message to leave
GOODBYE = 3.0  # seconds for a process to end by itself
BUFFER = 1 << 20  # bytes of frames that may wait to be read here
REPLIES = 16  # that wait for one viewer; until some have gone, nothing more is read from it

log = logging.getLogger(__name__)
Close = tuple[int, str]  # the code and the reason with which a connection is closed


class LiveSessions:
    """At most `most` processes that render, one a run, from its first viewer until `linger` seconds after its last.

    `command(run_path)` is the command line of such a process. It inherits a connected socket, whose descriptor stands
    in its environment as LUMIGRAPH_LIVE_FD (wire.pipe). Belongs to one event loop.
    """

    def __init__(
        self,
        command: Callable[[str], list[str]],
        *,
        most: int = MOST,
        linger: float = LINGER,
        patience: float = PATIENCE,
    ) -> None:
        self._command, self._most, self._linger, self._patience = command, most, linger, patience
        self._sessions: dict[str, _Session] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def watch(self, websocket: WebSocket, run_path: str) -> None:
        """Show the run to an accepted and authorised WebSocket until either side ends it; closes it."""
        try:
            session = self._session(run_path)
        except _BusyError as error:
            await _refuse(websocket, "busy", str(error), CLOSE_CODE_BUSY)
            return
        try:
            await session.start()
        except OSError as error:
            log.error("live view of %s: %s", run_path, error)
            self._forget(session)
            await _refuse(websocket, "ended", "the process that renders could not be started", CLOSE_CODE_ENDED)
            return
        viewer = session.join(websocket)
        try:
            await viewer.serve()
        finally:
            session.leave(viewer)

    async def close(self) -> None:
        """End all processes, and wait until they have ended."""
        for session in list(self._sessions.values()):
            self._forget(session)
        await asyncio.gather(*self._endings)

    @property
    def processes(self) -> dict[str, int]:
        """The process number of each run that is being shown."""
        return {run: session.process.pid for run, session in self._sessions.items() if session.process is not None}

    def _session(self, run_path: str) -> _Session:
        session = self._sessions.get(run_path)
        if session is not None:
            return session
        if len(self._sessions) >= self._most:
            idle = next((one for one in self._sessions.values() if one.idle), None)
            if idle is None:
                raise _BusyError(f"{self._most} scenes are being shown, which is all that this server allows")
            self._forget(idle)
        session = _Session(self._command(run_path), self._linger, self._patience, self._forget)
        self._sessions[run_path] = session
        return session

    def _forget(self, session: _Session) -> None:
        """A new viewer of this run gets a new session; this one ends in its own time."""
        for run, known in list(self._sessions.items()):
            if known is session:
                del self._sessions[run]
                ending = asyncio.create_task(session.end())
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)


class _BusyError(Exception):
    pass


class _Session:
    """One process that renders, and its viewers. `over` is called once, when it is of no more use."""

    def __init__(self, command: list[str], linger: float, patience: float, over: Callable[[_Session], None]) -> None:
        self.command, self.linger, self.patience, self.over = command, linger, patience, over
        self.viewers: dict[int, _Viewer] = {}
        self.newest: tuple[int, bytes] | None = None  # the last frame for all, for whoever comes next
        self.process: asyncio.subprocess.Process | None = None
        self.ended = False
        self.asking = False  # a frame came, and the renderer has not been asked for another
        self._joined = 0
        self._coming = 0  # viewers that wait for the start
        self._starting: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def idle(self) -> bool:
        return not self.viewers and not self._coming

    # -- the process

    async def start(self) -> None:
        """Returns when the process runs; the first viewer starts it. Raises OSError."""
        self._stay()
        self._coming += 1
        try:
            if self._starting is None:
                self._starting = asyncio.create_task(self._start())
            await asyncio.shield(self._starting)  # a viewer that gives up does not take the others with it
        finally:
            self._coming -= 1
            self._leave_later()

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the server, which then closes the socket
                env={**os.environ, LIVE_FD_VARIABLE: str(theirs.fileno())},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=BUFFER)
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Hand on what the renderer says until its socket closes; then it has ended for everybody."""
        try:
            while True:
                envelope, body = decode_viewer_message(
                    await reader.readexactly(parse_length(await reader.readexactly(LENGTH_PREFIX_BYTES)))
                )
                one = None if envelope.viewer is None else self.viewers.get(envelope.viewer)
                if envelope.frame is not None:
                    self.newest, self.asking = (envelope.frame, body), True
                    for viewer in self.viewers.values():
                        viewer.show(envelope.frame, body)
                    self.ask()
                elif envelope.viewer is None:
                    for viewer in self.viewers.values():
                        viewer.say(body.decode())
                elif one is not None:
                    one.greeted = True  # that is the first thing which it hears from there
                    one.say(body.decode() if envelope.text else body)
        except (asyncio.IncompleteReadError, OSError):
            pass
        except ValueError as error:
            log.error("the process that renders speaks another language: %s", error)
        self.ended = True
        for viewer in self.viewers.values():
            self._dismiss(viewer)
        self.over(self)

    def _dismiss(self, viewer: _Viewer) -> None:
        text = "the process that renders this scene has ended; opening the view again starts another"
        viewer.end(CommandError(code="ended", message=text), (CLOSE_CODE_ENDED, "the renderer has ended"))

    async def tell(self, message: RendererMessage) -> None:
        """Say something to the renderer; waits while it does not read, which holds up whoever says too much."""
        assert self._writer is not None
        with contextlib.suppress(OSError):  # that it ended is noticed where it is read
            self._writer.write(encode_renderer_message(message))
            await self._writer.drain()

    def ask(self) -> None:
        """Ask for another frame, once for each that came, when somebody could take it at once."""
        if self.asking and any(viewer.has_room for viewer in self.viewers.values()):
            self.asking = False
            self._tell_soon(FrameCredit())

    def _tell_soon(self, message: RendererMessage) -> None:
        """Of the few small messages that are bounded by the number of frames and viewers."""
        assert self._writer is not None
        with contextlib.suppress(OSError):
            self._writer.write(encode_renderer_message(message))

    async def end(self) -> None:
        """Close the socket, at which a healthy process ends; end it otherwise."""
        self._stay()
        if self._starting is not None:
            with contextlib.suppress(OSError):
                await self._starting
        if self._writer is not None:
            self._writer.close()
        if self.process is not None:
            try:
                await asyncio.wait_for(self.process.wait(), GOODBYE)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                await self.process.wait()
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    # -- its viewers

    def join(self, websocket: WebSocket) -> _Viewer:
        self._stay()
        self._joined += 1
        viewer = self.viewers[self._joined] = _Viewer(self._joined, websocket, self)
        if self.newest is not None:
            viewer.show(*self.newest)
        self._tell_soon(ViewerJoined(viewer=viewer.number))
        self.ask()
        if self.ended:  # while this viewer waited for its start
            self._dismiss(viewer)
        return viewer

    def leave(self, viewer: _Viewer) -> None:
        del self.viewers[viewer.number]
        self._tell_soon(ViewerLeft(viewer=viewer.number))
        self.ask()
        self._leave_later()

    def _stay(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _leave_later(self) -> None:
        if self.idle and self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(self.linger, self.over, self)


class _Viewer:
    """One WebSocket: a task that reads commands, and one that sends replies and the newest frame."""

    def __init__(self, number: int, websocket: WebSocket, session: _Session) -> None:
        self.number, self.websocket, self.session = number, websocket, session
        self.replies: deque[str | bytes] = deque()
        self.newest: tuple[int, bytes] | None = None  # the one place where a frame waits
        self.unacknowledged: deque[tuple[int, float]] = deque()  # frames and when they were sent
        self.greeted = False  # frames come after the renderer's first word
        self.closing: Close | None = None
        self.changed = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()

    @property
    def has_room(self) -> bool:
        """Whether a frame that came now could be sent now."""
        return self.newest is None and len(self.unacknowledged) < MAX_UNACKNOWLEDGED_FRAMES

    def show(self, number: int, frame: bytes) -> None:
        self.newest = (number, frame)
        self.changed.set()

    def say(self, reply: str | bytes) -> None:
        self.replies.append(reply)
        if len(self.replies) >= REPLIES:
            self.room.clear()
        self.changed.set()

    def end(self, error: CommandError, close: Close) -> None:
        """Say why, and close."""
        self.closing = close
        self.say(error.model_dump_json(exclude_none=True))

    async def serve(self) -> None:
        """Until the viewer goes, is cut off, or the session ends."""
        reading, sending = asyncio.create_task(self._read()), asyncio.create_task(self._send())
        try:
            await asyncio.wait({reading, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reading, sending):
                task.cancel()
            ended = await asyncio.gather(reading, sending, return_exceptions=True)
        for how in ended:
            if isinstance(how, tuple):
                await self._close(how)
                return
            if not isinstance(how, WebSocketDisconnect | asyncio.CancelledError | OSError | None):
                log.error("live view: %r", how)

    async def _close(self, how: Close) -> None:
        """A viewer that does not read cannot be told, so there is an end to waiting for that."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.websocket.close(*how), self.session.patience)

    # -- reading

    async def _read(self) -> None:
        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            command = read_command(message.get("bytes") or b"" if text is None else text)
            if isinstance(command, CommandError):
                self.say(command.model_dump_json(exclude_none=True))
            elif isinstance(command, Ack):
                self._acknowledge(command.frame)
            else:
                await self.session.tell(_said(self.number, command))
            await self.room.wait()

    def _acknowledge(self, frame: int) -> None:
        while self.unacknowledged and self.unacknowledged[0][0] <= frame:
            self.unacknowledged.popleft()
        self.changed.set()
        self.session.ask()

    # -- sending

    async def _send(self) -> Close:
        """Returns why it closes."""
        while True:
            self.changed.clear()
            while self.replies:
                reply = self.replies.popleft()
                self.room.set()
                if not await self._sent(reply):
                    return CLOSE_CODE_SLOW, "messages were not read"
            if self.closing is not None:
                return self.closing
            if self.greeted and self.newest is not None and len(self.unacknowledged) < MAX_UNACKNOWLEDGED_FRAMES:
                number, frame = self.newest
                self.newest = None
                self.unacknowledged.append((number, time.monotonic()))
                self.session.ask()  # the next is rendered while this one leaves
                if not await self._sent(frame):
                    return CLOSE_CODE_SLOW, "frames were not read"
                continue
            if not await self._something_new():
                return CLOSE_CODE_SLOW, "frames were not acknowledged"

    async def _sent(self, message: str | bytes) -> bool:
        """Whether it left in time."""
        sending: Coroutine[Any, Any, None] = (
            self.websocket.send_text(message) if isinstance(message, str) else self.websocket.send_bytes(message)
        )
        try:
            await asyncio.wait_for(sending, self.session.patience)
        except TimeoutError:
            return False
        return True

    async def _something_new(self) -> bool:
        """Waits for something to send or to note; False where an acknowledgement is overdue."""
        if not self.unacknowledged:
            await self.changed.wait()
            return True
        left = self.unacknowledged[0][1] + self.session.patience - time.monotonic()
        try:
            await asyncio.wait_for(self.changed.wait(), left)
        except TimeoutError:
            return False
        return True


def _said(viewer: int, command: Command) -> RendererMessage:
    return ViewerCommand(viewer=viewer, command=command)


async def _refuse(websocket: WebSocket, code: ErrorCode, message: str, close: int) -> None:
    with contextlib.suppress(WebSocketDisconnect, OSError, RuntimeError):
        await websocket.send_text(CommandError(code=code, message=message).model_dump_json(exclude_none=True))
        await websocket.close(close, message)
