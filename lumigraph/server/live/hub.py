"""The viewer hub: relays live views between the viewers' WebSockets and one render process for each run.

The hub renders and decodes nothing. It validates commands, sends each viewer the newest frame that it has room for, and
asks the renderer for another frame when a viewer has room. Each viewer has a one-frame slot: slow viewers drop frames
instead of stalling others. A viewer that acknowledges no frames is disconnected.
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

MAX_RENDERERS = 2
LINGER_S = 30.0  # a render process stays, with its camera, after its last viewer has left
VIEWER_TIMEOUT_S = 5.0  # to acknowledge a frame or to receive a message
RENDERER_EXIT_TIMEOUT_S = 3.0  # until a render process whose socket closed is killed
FRAME_BUFFER_BYTES = 1 << 20  # of frames that wait to be read by the hub
MAX_QUEUED_REPLIES = 16  # for one viewer; while the queue is full, no command of that viewer is read

log = logging.getLogger(__name__)
Close = tuple[int, str]  # WebSocket close code and reason


class LiveSessions:
    """Starts and ends render processes: at most `max_renderers`, one for each run that has viewers.

    `command(run_path)` is the command line of a render process. The process inherits a connected socket, whose
    descriptor is in its environment as LUMIGRAPH_LIVE_FD (wire.pipe). It ends `linger_s` seconds after its last viewer
    has left. All calls must come from one event loop.
    """

    def __init__(
        self,
        command: Callable[[str], list[str]],
        *,
        max_renderers: int = MAX_RENDERERS,
        linger_s: float = LINGER_S,
        viewer_timeout_s: float = VIEWER_TIMEOUT_S,
    ) -> None:
        self._command, self._max_renderers = command, max_renderers
        self._linger_s, self._viewer_timeout_s = linger_s, viewer_timeout_s
        self._sessions: dict[str, _Session] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def watch(self, websocket: WebSocket, run_path: str) -> None:
        """Stream the run to an accepted, authorized WebSocket until either side ends, then close it."""
        try:
            session = self._session(run_path)
        except _BusyError as error:
            await _reject(websocket, "busy", str(error), CLOSE_CODE_BUSY)
            return
        try:
            await session.start()
        except OSError as error:
            log.error("live view of %s: %s", run_path, error)
            self._forget(session)
            await _reject(websocket, "ended", "the render process could not be started", CLOSE_CODE_ENDED)
            return
        viewer = session.join(websocket)
        try:
            await viewer.serve()
        finally:
            session.leave(viewer)

    async def close(self) -> None:
        """End all render processes, and wait for them."""
        for session in list(self._sessions.values()):
            self._forget(session)
        await asyncio.gather(*self._endings)

    @property
    def processes(self) -> dict[str, int]:
        """The process id of the renderer of each run."""
        return {run: session.process.pid for run, session in self._sessions.items() if session.process is not None}

    def _session(self, run_path: str) -> _Session:
        session = self._sessions.get(run_path)
        if session is not None:
            return session
        if len(self._sessions) >= self._max_renderers:
            idle_session = next((session for session in self._sessions.values() if session.is_idle), None)
            if idle_session is None:
                raise _BusyError(f"{self._max_renderers} scenes have viewers, the maximum on this server; try later")
            self._forget(idle_session)
        session = _Session(self._command(run_path), self._linger_s, self._viewer_timeout_s, self._forget)
        self._sessions[run_path] = session
        return session

    def _forget(self, session: _Session) -> None:
        """End a session in the background; the next viewer of its run gets a new one."""
        for run, candidate in list(self._sessions.items()):
            if candidate is session:
                del self._sessions[run]
                ending = asyncio.create_task(session.end())
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)


class _BusyError(Exception):
    pass


class _Session:
    """One render process and its viewers. `on_end` is called once, when the session can be removed."""

    def __init__(
        self, command: list[str], linger_s: float, viewer_timeout_s: float, on_end: Callable[[_Session], None]
    ) -> None:
        self.command, self.linger_s, self.viewer_timeout_s, self.on_end = command, linger_s, viewer_timeout_s, on_end
        self.viewers: dict[int, _Viewer] = {}
        self.newest_frame: tuple[int, bytes] | None = None  # shared frame, for viewers that join later
        self.process: asyncio.subprocess.Process | None = None
        self.has_ended = False
        self.owes_request = False  # a frame arrived, and the renderer is not yet asked for another
        self._last_viewer = 0
        self._pending_viewers = 0  # that wait for the start of the process
        self._start_task: asyncio.Task[None] | None = None
        self._read_task: asyncio.Task[None] | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def is_idle(self) -> bool:
        return not self.viewers and not self._pending_viewers

    # -- the process

    async def start(self) -> None:
        """Wait until the process runs; the first viewer starts it. Raises OSError if it cannot be started."""
        self._stop_linger_timer()
        self._pending_viewers += 1
        try:
            if self._start_task is None:
                self._start_task = asyncio.create_task(self._start())
            await asyncio.shield(self._start_task)  # a viewer that disconnects must not cancel the start for others
        finally:
            self._pending_viewers -= 1
            self._start_linger_timer()

    async def _start(self) -> None:
        hub_socket, renderer_socket = socket.socketpair()
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(renderer_socket.fileno(),),
                start_new_session=True,  # Ctrl-C must reach only the server, which then closes the socket
                env={**os.environ, LIVE_FD_VARIABLE: str(renderer_socket.fileno())},
            )
        except BaseException:
            hub_socket.close()
            raise
        finally:
            renderer_socket.close()
        reader, self._writer = await asyncio.open_connection(sock=hub_socket, limit=FRAME_BUFFER_BYTES)
        self._read_task = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Relay the renderer's messages until its socket closes; then end the session for all viewers."""
        try:
            while True:
                envelope, body = decode_viewer_message(
                    await reader.readexactly(parse_length(await reader.readexactly(LENGTH_PREFIX_BYTES)))
                )
                recipient = None if envelope.viewer is None else self.viewers.get(envelope.viewer)
                if envelope.frame is not None:
                    self.newest_frame, self.owes_request = (envelope.frame, body), True
                    for viewer in self.viewers.values():
                        viewer.put_frame(envelope.frame, body)
                    self.request_frame()
                elif envelope.viewer is None:
                    for viewer in self.viewers.values():
                        viewer.queue_reply(body.decode())
                elif recipient is not None:
                    recipient.is_greeted = True  # the first message to a viewer is its greeting
                    recipient.queue_reply(body.decode() if envelope.text else body)
        except (asyncio.IncompleteReadError, OSError):
            pass
        except ValueError as error:
            log.error("the render process sent an invalid message: %s", error)
        self.has_ended = True
        for viewer in self.viewers.values():
            self._end_viewer(viewer)
        self.on_end(self)

    def _end_viewer(self, viewer: _Viewer) -> None:
        text = "the render process of this scene has ended; open the view again to start a new one"
        viewer.end(CommandError(code="ended", message=text), (CLOSE_CODE_ENDED, "the renderer has ended"))

    async def send(self, message: RendererMessage) -> None:
        """Send a message to the renderer. Waits while the renderer does not read: back-pressure on the sender."""
        assert self._writer is not None
        with contextlib.suppress(OSError):  # the read task notices the end of the process
            self._writer.write(encode_renderer_message(message))
            await self._writer.drain()

    def request_frame(self) -> None:
        """Request the next frame, once for each frame that arrived, if a viewer has room for it."""
        if self.owes_request and any(viewer.has_room for viewer in self.viewers.values()):
            self.owes_request = False
            self._send_nowait(FrameCredit())

    def _send_nowait(self, message: RendererMessage) -> None:
        """Send a small message without back-pressure. The numbers of frames and viewers bound such messages."""
        assert self._writer is not None
        with contextlib.suppress(OSError):
            self._writer.write(encode_renderer_message(message))

    async def end(self) -> None:
        """Close the socket, on which a healthy process exits; kill the process if it does not."""
        self._stop_linger_timer()
        if self._start_task is not None:
            with contextlib.suppress(OSError):
                await self._start_task
        if self._writer is not None:
            self._writer.close()
        if self.process is not None:
            try:
                await asyncio.wait_for(self.process.wait(), RENDERER_EXIT_TIMEOUT_S)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                await self.process.wait()
        if self._read_task is not None:
            self._read_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._read_task

    # -- its viewers

    def join(self, websocket: WebSocket) -> _Viewer:
        self._stop_linger_timer()
        self._last_viewer += 1
        viewer = self.viewers[self._last_viewer] = _Viewer(self._last_viewer, websocket, self)
        if self.newest_frame is not None:
            viewer.put_frame(*self.newest_frame)
        self._send_nowait(ViewerJoined(viewer=viewer.number))
        self.request_frame()
        if self.has_ended:  # while this viewer waited for the start
            self._end_viewer(viewer)
        return viewer

    def leave(self, viewer: _Viewer) -> None:
        del self.viewers[viewer.number]
        self._send_nowait(ViewerLeft(viewer=viewer.number))
        self.request_frame()
        self._start_linger_timer()

    def _stop_linger_timer(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None

    def _start_linger_timer(self) -> None:
        if self.is_idle and self._linger_timer is None:
            self._linger_timer = asyncio.get_running_loop().call_later(self.linger_s, self.on_end, self)


class _Viewer:
    """One WebSocket: a task reads commands, another one sends replies and the newest frame."""

    def __init__(self, number: int, websocket: WebSocket, session: _Session) -> None:
        self.number, self.websocket, self.session = number, websocket, session
        self.replies: deque[str | bytes] = deque()
        self.frame_slot: tuple[int, bytes] | None = None
        self.unacknowledged: deque[tuple[int, float]] = deque()  # (frame number, send time)
        self.is_greeted = False  # frames are sent only after the renderer's greeting
        self.close_reason: Close | None = None
        self.wake_event = asyncio.Event()
        self.reply_room = asyncio.Event()
        self.reply_room.set()

    @property
    def has_room(self) -> bool:
        """Whether a frame that arrives now can be sent at once."""
        return self.frame_slot is None and len(self.unacknowledged) < MAX_UNACKNOWLEDGED_FRAMES

    def put_frame(self, number: int, frame: bytes) -> None:
        """Put a frame into the slot; an unsent older one is dropped."""
        self.frame_slot = (number, frame)
        self.wake_event.set()

    def queue_reply(self, reply: str | bytes) -> None:
        self.replies.append(reply)
        if len(self.replies) >= MAX_QUEUED_REPLIES:
            self.reply_room.clear()
        self.wake_event.set()

    def end(self, error: CommandError, close: Close) -> None:
        """Send the error, then close the connection."""
        self.close_reason = close
        self.queue_reply(error.model_dump_json(exclude_none=True))

    async def serve(self) -> None:
        """Serve the connection until the viewer disconnects, is disconnected, or the session ends."""
        read_task, send_task = asyncio.create_task(self._read()), asyncio.create_task(self._send())
        try:
            await asyncio.wait({read_task, send_task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (read_task, send_task):
                task.cancel()
            results = await asyncio.gather(read_task, send_task, return_exceptions=True)
        for result in results:
            if isinstance(result, tuple):
                await self._close(result)
                return
            if not isinstance(result, WebSocketDisconnect | asyncio.CancelledError | OSError | None):
                log.error("live view: %r", result)

    async def _close(self, close: Close) -> None:
        """Close the connection. The wait is limited, because the viewer may not read."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.websocket.close(*close), self.session.viewer_timeout_s)

    # -- reading

    async def _read(self) -> None:
        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            command = read_command(message.get("bytes") or b"" if text is None else text)
            if isinstance(command, CommandError):
                self.queue_reply(command.model_dump_json(exclude_none=True))
            elif isinstance(command, Ack):
                self._acknowledge(command.frame)
            else:
                await self.session.send(ViewerCommand(viewer=self.number, command=command))
            await self.reply_room.wait()

    def _acknowledge(self, frame: int) -> None:
        while self.unacknowledged and self.unacknowledged[0][0] <= frame:
            self.unacknowledged.popleft()
        self.wake_event.set()
        self.session.request_frame()

    # -- sending

    async def _send(self) -> Close:
        """Send replies and frames; return the reason for closing the connection."""
        while True:
            self.wake_event.clear()
            while self.replies:
                reply = self.replies.popleft()
                self.reply_room.set()
                if not await self._try_send(reply):
                    return CLOSE_CODE_SLOW, "messages were not read"
            if self.close_reason is not None:
                return self.close_reason
            if self.is_greeted and self.frame_slot is not None and len(self.unacknowledged) < MAX_UNACKNOWLEDGED_FRAMES:
                number, frame = self.frame_slot
                self.frame_slot = None
                self.unacknowledged.append((number, time.monotonic()))
                self.session.request_frame()  # the next frame is rendered while this one is sent
                if not await self._try_send(frame):
                    return CLOSE_CODE_SLOW, "frames were not read"
                continue
            if not await self._wait_for_event():
                return CLOSE_CODE_SLOW, "frames were not acknowledged"

    async def _try_send(self, message: str | bytes) -> bool:
        """Send a message; return False if it was not sent in time."""
        send_call: Coroutine[Any, Any, None] = (
            self.websocket.send_text(message) if isinstance(message, str) else self.websocket.send_bytes(message)
        )
        try:
            await asyncio.wait_for(send_call, self.session.viewer_timeout_s)
        except TimeoutError:
            return False
        return True

    async def _wait_for_event(self) -> bool:
        """Wait for a message to send or an acknowledgement; return False if an acknowledgement is overdue."""
        if not self.unacknowledged:
            await self.wake_event.wait()
            return True
        remaining_s = self.unacknowledged[0][1] + self.session.viewer_timeout_s - time.monotonic()
        try:
            await asyncio.wait_for(self.wake_event.wait(), remaining_s)
        except TimeoutError:
            return False
        return True


async def _reject(websocket: WebSocket, code: ErrorCode, message: str, close: int) -> None:
    with contextlib.suppress(WebSocketDisconnect, OSError, RuntimeError):
        await websocket.send_text(CommandError(code=code, message=message).model_dump_json(exclude_none=True))
        await websocket.close(close, message)
