"""The main loop of the render process: it reads commands from a socket and sends frames to it, until it closes.

The calling thread reads, a second one renders. They share one Session under a lock: a newer camera replaces an older
one there, so no queue can grow. Errors of the scene do not end the loop.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable

import cv2
import torch

from lumigraph.live.encoders import COARSE_JPEG_QUALITY, SHARP_JPEG_QUALITY, FrameRenderer, encode_jpeg
from lumigraph.live.session import FrameTask, Session
from lumigraph.scene.errors import LumigraphError
from lumigraph.scene.field import Field
from lumigraph.wire.live import Ack, CommandError, ErrorCode, FrameHeader, Reply, pack_frame
from lumigraph.wire.pipe import (
    LENGTH_PREFIX_BYTES,
    LIVE_FD_VARIABLE,
    Envelope,
    ViewerCommand,
    ViewerJoined,
    ViewerLeft,
    decode_renderer_message,
    encode_viewer_message,
    parse_length,
)

SCENE_POLL_S = 1.0  # between two checks whether the scene was replaced
RENDER_JOIN_TIMEOUT_S = 2.0  # for the current frame to finish after the socket has closed


def inherited_socket() -> socket.socket:
    """The socket whose descriptor is in the environment. Raises RuntimeError if there is none."""
    try:
        return socket.socket(fileno=int(os.environ[LIVE_FD_VARIABLE]))
    except (KeyError, ValueError, OSError) as error:
        raise RuntimeError(f"{LIVE_FD_VARIABLE} must name the descriptor of a connected socket") from error


def run_renderer(
    connection: socket.socket,
    load: Callable[[], Field],
    has_changed: Callable[[], bool],
    session: Session,
    *,
    over_white: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    poll_interval_s: float = SCENE_POLL_S,
) -> None:
    """Render the field that `load` returns for all viewers, starting at the session's camera, until the socket closes.

    `has_changed` returns whether `load` would return a newer field. The render thread calls both, `has_changed` every
    `poll_interval_s` seconds while there are viewers. An exception of `load` is sent to the viewers as an error, and
    `load` is called again until it succeeds once; `over_white` then says which background the scene has.
    Raises ValueError if the incoming bytes are not valid messages.
    """
    loop = _Loop(connection, load, has_changed, session, over_white, clock, poll_interval_s)
    renderer = threading.Thread(target=loop.render, name="render", daemon=True)
    renderer.start()
    try:
        loop.read()
    finally:
        with loop.condition:
            loop.is_closed = True
            loop.condition.notify()
        renderer.join(RENDER_JOIN_TIMEOUT_S)
        connection.close()


class _Loop:
    """`condition` guards `session` and `is_closed`. Only the render thread uses `renderer`."""

    def __init__(
        self,
        connection: socket.socket,
        load: Callable[[], Field],
        has_changed: Callable[[], bool],
        session: Session,
        over_white: Callable[[], bool],
        clock: Callable[[], float],
        poll_interval_s: float,
    ) -> None:
        self.connection, self.load, self.has_changed, self.session = connection, load, has_changed, session
        self.over_white, self.clock, self.poll_interval_s = over_white, clock, poll_interval_s
        self.condition = threading.Condition()
        self.write_lock = threading.Lock()
        self.is_closed = False
        self.renderer: FrameRenderer | None = None
        self.last_poll: float | None = None  # time of the last check whether the scene was replaced
        self.frame_number = 0  # of the last shared frame
        self.last_error: CommandError | None = None  # of the newest shared frame; sent once, not for each frame

    # -- the read thread

    def read(self) -> None:
        """Handle messages until the socket closes."""
        while True:
            prefix = self._receive_exactly(LENGTH_PREFIX_BYTES)
            message = None if prefix is None else self._receive_exactly(parse_length(prefix))
            if message is None:
                return
            try:
                self._handle(message)
            except ValueError as error:  # a web process of another version: it has validated the viewers' commands
                self._broadcast_error("bad_message", str(error))

    def _handle(self, data: bytes) -> None:
        message = decode_renderer_message(data)
        with self.condition:
            if isinstance(message, ViewerJoined):
                self.session.add_viewer(message.viewer)
                if self.last_error is not None:
                    self.session.replies.append((message.viewer, self.last_error))
            elif isinstance(message, ViewerLeft):
                self.session.remove_viewer(message.viewer)
            elif isinstance(message, ViewerCommand):
                if not isinstance(message.command, Ack):
                    self.session.handle_command(message.viewer, message.command, self.clock())
            else:
                self.session.mark_ready()
            self.condition.notify()
        self._send_replies()

    def _receive_exactly(self, count: int) -> bytes | None:
        """Receive `count` bytes; None if the socket closed."""
        data = bytearray()
        while len(data) < count:
            try:
                chunk = self.connection.recv(min(count - len(data), 1 << 16))
            except OSError:
                return None
            if not chunk:
                return None
            data += chunk
        return bytes(data)

    # -- the render thread

    def render(self) -> None:
        """Render the session's tasks until `is_closed`."""
        torch.set_num_threads(1)  # torch's threads would spin on the cores that the kernels need
        cv2.setNumThreads(1)
        try:
            while (task := self._wait()) is not None:
                self._poll_scene()
                self._send_replies()  # an animation can end without a command
                if isinstance(task, FrameTask):
                    self._render_task(task)
        finally:  # if rendering fails, viewers must not wait for frames
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _wait(self) -> FrameTask | bool | None:
        """The next frame to render; True if replies or a check of the scene are due, None after closing."""
        with self.condition:
            while not self.is_closed:
                now = self.clock()
                if self.last_poll is None:
                    return True
                task = self.session.next_task(now)
                if task is not None:
                    return task
                if self.session.replies:
                    return True
                waits = [self.session.seconds_until_due(now)]
                if self.session.viewers:
                    waits.append(max(0.0, self.last_poll + self.poll_interval_s - now))
                    if waits[-1] == 0:
                        return True
                due = [wait for wait in waits if wait is not None]
                self.condition.wait(min(due) if due else None)
        return None

    def _poll_scene(self) -> None:
        """Load the scene for the first time, or again if it was replaced."""
        now = self.clock()
        if self.last_poll is not None and now - self.last_poll < self.poll_interval_s:
            return
        self.last_poll = now
        try:
            if self.renderer is not None and not self.has_changed():
                return
            field = self.load()
            if self.renderer is None:
                self.renderer = FrameRenderer(field, self.over_white())
            else:
                self.renderer.set_field(field)
            box = self.renderer.box.double().cpu().tolist()
        except Exception as error:  # the session continues after any error: a later state of the scene may load
            self._broadcast_error("no_scene", _message(error, "the scene cannot be read"))
            return
        with self.condition:
            self.session.set_scene(box)

    def _render_task(self, task: FrameTask) -> None:
        seconds = None
        try:
            if self.renderer is None:
                message = self.last_error.message if self.last_error else "the scene is not loaded yet"
                self._send_error(task, "no_scene", message)
                return
            start = time.perf_counter()
            image = self.renderer.render(task.camera, task.size, task.output)
            jpeg = encode_jpeg(image, SHARP_JPEG_QUALITY if task.sharp else COARSE_JPEG_QUALITY)
            seconds = time.perf_counter() - start
        except Exception as error:  # another camera may render without this error
            self._send_error(task, "render_failed", _message(error, "this frame cannot be rendered"))
        else:
            self._send_frame(task, jpeg, seconds)
            if task.requester is None:
                self.last_error = None
        finally:
            with self.condition:
                self.session.finish_task(task, seconds)

    def _send_frame(self, task: FrameTask, jpeg: bytes, seconds: float) -> None:
        if task.requester is None:
            self.frame_number += 1
        number = self.frame_number if task.requester is None else 0
        header = FrameHeader(
            frame=number,
            id=task.id,
            width=task.size[0],
            height=task.size[1],
            sharp=task.sharp,
            output=task.output,
            camera=task.camera,
            seq=task.seq,
            by=task.by,
            render_ms=round(1e3 * seconds, 2),
        )
        self._send(Envelope(viewer=task.requester, frame=number or None), pack_frame(header, jpeg))

    def _send_error(self, task: FrameTask, code: ErrorCode, message: str) -> None:
        if task.requester is None:
            self._broadcast_error(code, message)
        else:
            self._reply(task.requester, CommandError(id=task.id, code=code, message=message))

    # -- both threads

    def _broadcast_error(self, code: ErrorCode, message: str) -> None:
        error = CommandError(code=code, message=message)
        if error != self.last_error:
            self.last_error = error
            self._reply(None, error)

    def _send_replies(self) -> None:
        with self.write_lock:  # covers fetching and sending, so that the two threads keep the order of replies
            with self.condition:
                replies, self.session.replies = self.session.replies, []
            for viewer, reply in replies:
                self._write(Envelope(viewer=viewer, text=True), reply.model_dump_json(exclude_none=True).encode())

    def _reply(self, viewer: int | None, reply: Reply) -> None:
        self._send(Envelope(viewer=viewer, text=True), reply.model_dump_json(exclude_none=True).encode())

    def _send(self, envelope: Envelope, body: bytes) -> None:
        with self.write_lock:
            self._write(envelope, body)

    def _write(self, envelope: Envelope, body: bytes) -> None:
        with contextlib.suppress(OSError):  # the read thread notices that the socket closed
            self.connection.sendall(encode_viewer_message(envelope, body))


def _message(error: Exception, fallback: str) -> str:
    """The message for viewers: a LumigraphError speaks for itself, others get the `fallback` and their type."""
    return str(error) if isinstance(error, LumigraphError) else f"{fallback} ({type(error).__name__}: {error})"[:500]
