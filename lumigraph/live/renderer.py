"""The loop of the process that renders: commands come in by a socket and frames go out by it, until it closes.

The calling thread reads, and another renders. Between them is one Session under a lock: a newer camera replaces an
older one there, so that no queue can grow. Nothing that goes wrong with the scene ends the loop.
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

from lumigraph.live.encoders import COARSE, SHARP, FrameRenderer, encode_jpeg
from lumigraph.live.session import Session, Work
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

LOOK_EVERY = 1.0  # seconds between two looks whether the scene was replaced
FAREWELL = 2.0  # seconds for the picture that is being rendered when the socket closes


def inherited_socket() -> socket.socket:
    """The socket whose descriptor the environment names. Raises RuntimeError where there is none."""
    try:
        return socket.socket(fileno=int(os.environ[LIVE_FD_VARIABLE]))
    except (KeyError, ValueError, OSError) as error:
        raise RuntimeError(f"{LIVE_FD_VARIABLE} must name the descriptor of a connected socket") from error


def run_renderer(
    connection: socket.socket,
    load: Callable[[], Field],
    changed: Callable[[], bool],
    session: Session,
    *,
    over_white: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    poll_interval_s: float = LOOK_EVERY,
) -> None:
    """Render the field that `load` returns for all viewers, starting at the session's camera, until the socket closes.

    `changed` returns whether `load` would return a newer field. The render thread calls both; it calls `changed` every
    `poll_interval_s` seconds while there are viewers. An exception of `load` is sent to the viewers as an error, and
    `load` is called again until it succeeds once; `over_white` then says which background the scene has.
    Raises ValueError if the incoming bytes are not valid messages.
    """
    loop = _Loop(connection, load, changed, session, over_white, clock, poll_interval_s)
    renderer = threading.Thread(target=loop.render, name="render", daemon=True)
    renderer.start()
    try:
        loop.read()
    finally:
        with loop.changed_state:
            loop.closed = True
            loop.changed_state.notify()
        renderer.join(FAREWELL)
        connection.close()


class _Loop:
    """`session` and `closed` are used under `changed_state` alone, `painter` by the thread that renders."""

    def __init__(
        self,
        connection: socket.socket,
        load: Callable[[], Field],
        changed: Callable[[], bool],
        session: Session,
        over_white: Callable[[], bool],
        clock: Callable[[], float],
        poll_interval_s: float,
    ) -> None:
        self.connection, self.load, self.changed, self.session = connection, load, changed, session
        self.over_white, self.clock, self.poll_interval_s = over_white, clock, poll_interval_s
        self.changed_state = threading.Condition()
        self.writing = threading.Lock()
        self.closed = False
        self.painter: FrameRenderer | None = None
        self.looked: float | None = None  # when it was last asked whether the scene was replaced
        self.number = 0  # of the last frame for all
        self.trouble: CommandError | None = None  # of the newest picture for all; said once and not at each frame

    # -- the thread that reads

    def read(self) -> None:
        """Take messages until the socket closes."""
        while True:
            prefix = self._exactly(LENGTH_PREFIX_BYTES)
            message = None if prefix is None else self._exactly(parse_length(prefix))
            if message is None:
                return
            try:
                self._take(message)
            except ValueError as error:  # of another version; the web process reads what viewers say before we do
                self._to_all("bad_message", str(error))

    def _take(self, message: bytes) -> None:
        said = decode_renderer_message(message)
        with self.changed_state:
            if isinstance(said, ViewerJoined):
                self.session.joined(said.viewer)
                if self.trouble is not None:
                    self.session.replies.append((said.viewer, self.trouble))
            elif isinstance(said, ViewerLeft):
                self.session.left(said.viewer)
            elif isinstance(said, ViewerCommand):
                if not isinstance(said.command, Ack):
                    self.session.take(said.viewer, said.command, self.clock())
            else:
                self.session.ready()
            self.changed_state.notify()
        self._send_replies()

    def _exactly(self, count: int) -> bytes | None:
        """So many bytes; None where the socket closed."""
        parts = bytearray()
        while len(parts) < count:
            try:
                part = self.connection.recv(min(count - len(parts), 1 << 16))
            except OSError:
                return None
            if not part:
                return None
            parts += part
        return bytes(parts)

    # -- the thread that renders

    def render(self) -> None:
        """Render what the session asks for until `closed`."""
        torch.set_num_threads(1)  # its own would spin on the cores that the kernels need
        cv2.setNumThreads(1)
        try:
            while (work := self._wait()) is not None:
                self._look()
                self._send_replies()  # flights end by themselves
                if isinstance(work, Work):
                    self._do(work)
        finally:  # should it ever fail, nobody shall wait for frames that do not come
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _wait(self) -> Work | bool | None:
        """The next picture to render; True when it is time to look around, None when all is over."""
        with self.changed_state:
            while not self.closed:
                now = self.clock()
                if self.looked is None:
                    return True
                work = self.session.work(now)
                if work is not None:
                    return work
                if self.session.replies:
                    return True
                waits = [self.session.wake(now)]
                if self.session.watchers:
                    waits.append(max(0.0, self.looked + self.poll_interval_s - now))
                    if waits[-1] == 0:
                        return True
                due = [wait for wait in waits if wait is not None]
                self.changed_state.wait(min(due) if due else None)
        return None

    def _look(self) -> None:
        """Take the scene if it was replaced, or for the first time."""
        now = self.clock()
        if self.looked is not None and now - self.looked < self.poll_interval_s:
            return
        self.looked = now
        try:
            if self.painter is not None and not self.changed():
                return
            field = self.load()
            if self.painter is None:
                self.painter = FrameRenderer(field, self.over_white())
            else:
                self.painter.replace(field)
            box = self.painter.box.double().cpu().tolist()
        except Exception as error:  # whatever is wrong with a scene, the session lives on until a better one comes
            self._to_all("no_scene", _sentence(error, "the scene cannot be read"))
            return
        with self.changed_state:
            self.session.replaced(box)

    def _do(self, work: Work) -> None:
        seconds = None
        try:
            if self.painter is None:
                self._failed(work, "no_scene", self.trouble.message if self.trouble else "there is nothing to show yet")
                return
            start = time.perf_counter()
            picture = self.painter.paint(work.camera, work.size, work.output)
            encoded = encode_jpeg(picture, SHARP if work.sharp else COARSE)
            seconds = time.perf_counter() - start
        except Exception as error:  # a scene that cannot be rendered from here may be rendered from elsewhere
            self._failed(work, "render_failed", _sentence(error, "this picture cannot be rendered"))
        else:
            self._show(work, encoded, seconds)
            if work.asker is None:
                self.trouble = None
        finally:
            with self.changed_state:
                self.session.finished(work, seconds)

    def _show(self, work: Work, encoded: bytes, seconds: float) -> None:
        if work.asker is None:
            self.number += 1
        number = self.number if work.asker is None else 0
        header = FrameHeader(
            frame=number,
            id=work.id,
            width=work.size[0],
            height=work.size[1],
            sharp=work.sharp,
            output=work.output,
            camera=work.camera,
            seq=work.seq,
            by=work.by,
            render_ms=round(1e3 * seconds, 2),
        )
        self._send(Envelope(viewer=work.asker, frame=number or None), pack_frame(header, encoded))

    def _failed(self, work: Work, code: ErrorCode, message: str) -> None:
        if work.asker is None:
            self._to_all(code, message)
        else:
            self._reply(work.asker, CommandError(id=work.id, code=code, message=message))

    # -- both

    def _to_all(self, code: ErrorCode, message: str) -> None:
        error = CommandError(code=code, message=message)
        if error != self.trouble:
            self.trouble = error
            self._reply(None, error)

    def _send_replies(self) -> None:
        with self.writing:  # from taking to sending, so that the other thread's do not overtake
            with self.changed_state:
                replies, self.session.replies = self.session.replies, []
            for viewer, reply in replies:
                self._write(Envelope(viewer=viewer, text=True), reply.model_dump_json(exclude_none=True).encode())

    def _reply(self, viewer: int | None, reply: Reply) -> None:
        self._send(Envelope(viewer=viewer, text=True), reply.model_dump_json(exclude_none=True).encode())

    def _send(self, envelope: Envelope, body: bytes) -> None:
        with self.writing:
            self._write(envelope, body)

    def _write(self, envelope: Envelope, body: bytes) -> None:
        with contextlib.suppress(OSError):  # that it closed is noticed by the thread that reads
            self.connection.sendall(encode_viewer_message(envelope, body))


def _sentence(error: Exception, otherwise: str) -> str:
    """What a person may read of an error: ours are made for that, and of others the kind is said too."""
    return str(error) if isinstance(error, LumigraphError) else f"{otherwise} ({type(error).__name__}: {error})"[:500]
