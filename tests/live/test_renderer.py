"""The renderer's loop, tested through its socket. Tests wait for messages and never sleep."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from lumigraph.live.encoders import FrameRenderer
from lumigraph.live.renderer import run_renderer
from lumigraph.live.session import Session
from lumigraph.scene.errors import RunError
from lumigraph.scene.field import Field
from lumigraph.wire.live import (
    CommandDone,
    CommandError,
    FlyTo,
    FrameHeader,
    Hello,
    Move,
    RenderFrame,
    Reply,
    SetOutput,
    read_reply,
    unpack_frame,
)
from lumigraph.wire.pipe import (
    FrameCredit,
    RendererMessage,
    ViewerCommand,
    ViewerJoined,
    ViewerLeft,
    decode_viewer_message,
    encode_renderer_message,
    parse_length,
)
from tests.live.camera import CAMERA
from tests.live.scenes import Plain, splats
from tests.live.test_encoders import decoded, psnr

SECONDS = 20.0  # after which a test that waits has failed
Answer = FrameHeader | CommandDone | CommandError | Hello


class Renderer:
    """What the web process sees of it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def tell(self, *messages: RendererMessage) -> None:
        self.connection.sendall(b"".join(map(encode_renderer_message, messages)))

    def say(self, command: Move | FlyTo | RenderFrame | SetOutput, viewer: int = 1) -> None:
        self.tell(ViewerCommand(viewer=viewer, command=command))

    def next(self) -> tuple[int | None, Answer, bytes]:
        """For whom, what, and the picture where it is one. For each frame the next is asked for."""
        prefix = self.connection.recv(4, socket.MSG_WAITALL)
        assert prefix, "the renderer has gone"
        envelope, body = decode_viewer_message(self.connection.recv(parse_length(prefix), socket.MSG_WAITALL))
        if envelope.text:
            reply: Reply = read_reply(body)
            return envelope.viewer, reply, b""
        header, picture = unpack_frame(body)
        if envelope.frame is not None:
            assert envelope.frame == header.frame
            self.tell(FrameCredit())
        return envelope.viewer, header, picture

    def until(self, condition: Callable[[Answer], bool]) -> tuple[int | None, Answer, bytes]:
        while True:
            result = self.next()
            if condition(result[1]):
                return result

    def sharp(self) -> tuple[FrameHeader, bytes]:
        _, header, picture = self.until(lambda answer: isinstance(answer, FrameHeader) and answer.sharp)
        assert isinstance(header, FrameHeader)
        return header, picture


@contextmanager
def rendering(
    load: Callable[[], Field], post_response: Callable[[], bool] = lambda: False, session: Session | None = None
) -> Iterator[Renderer]:
    ours, theirs = socket.socketpair()
    ours.settimeout(SECONDS)
    threads = torch.get_num_threads()
    session = session or Session(CAMERA, (64, 48))
    loop = threading.Thread(
        target=run_renderer, args=(theirs, load, post_response, session), kwargs={"poll_interval_s": 0.01}
    )
    loop.start()
    try:
        yield Renderer(ours)
    finally:
        ours.close()
        loop.join(SECONDS)
        torch.set_num_threads(threads)
        assert not loop.is_alive()  # it ends when its socket closes


def test_renderer_greets_and_renders() -> None:
    field = splats()
    with rendering(lambda: field) as renderer:
        renderer.tell(ViewerJoined(viewer=1))
        viewer, hello, _ = renderer.next()
        assert isinstance(hello, Hello)
        assert (viewer, hello.viewer, hello.camera, hello.size) == (1, 1, CAMERA, (64, 48))
        header, picture = renderer.sharp()
        assert (header.width, header.height, header.camera) == (64, 48, CAMERA)
        expected = FrameRenderer(field).render(CAMERA, (64, 48), "rgb").numpy()
        assert psnr(decoded(picture), expected) > 30


def test_renderer_frames_name_their_camera() -> None:
    with rendering(Plain) as renderer:
        renderer.tell(ViewerJoined(viewer=1), ViewerJoined(viewer=2))
        renderer.sharp()
        for seq in range(50):
            renderer.say(Move(position=(0, 0, -1 - seq), look_at=(0, 0, 0), seq=seq), viewer=2)
        viewer, header, _ = renderer.until(lambda answer: isinstance(answer, FrameHeader) and answer.seq == 49)
        assert isinstance(header, FrameHeader)
        assert (viewer, header.by, header.camera.position) == (None, 2, (0, 0, -50))
        number = header.frame
        header, _ = renderer.sharp()
        assert (header.seq, header.frame >= number) == (49, True)


def test_renderer_answers_commands() -> None:
    with rendering(splats) as renderer:
        renderer.tell(ViewerJoined(viewer=1), ViewerJoined(viewer=2))
        renderer.sharp()
        renderer.say(Move(position=(0, 0, -4), look_at=(0, 0, 0), id="m"), viewer=2)
        viewer, reply, _ = renderer.until(lambda answer: isinstance(answer, CommandDone))
        assert (viewer, reply) == (2, CommandDone(id="m", command="move"))
        renderer.say(FlyTo(position=(0, 0, -5), look_at=(0, 0, 0), duration=0.1, id="f"))
        viewer, reply, _ = renderer.until(lambda answer: isinstance(answer, CommandDone))
        assert (viewer, reply) == (1, CommandDone(id="f", command="fly_to"))
        renderer.say(SetOutput(output="depth", id="s"))
        viewer, reply, _ = renderer.until(lambda answer: isinstance(answer, CommandDone))
        assert (viewer, reply) == (1, CommandDone(id="s", command="set"))
        renderer.until(lambda answer: isinstance(answer, FrameHeader) and answer.output == "depth")
        renderer.say(RenderFrame(position=(0, 1, -4), look_at=(0, 0, 0), size=(80, 16), output="normal", id="r"))
        viewer, header, picture = renderer.until(lambda answer: isinstance(answer, FrameHeader) and answer.id == "r")
        assert isinstance(header, FrameHeader)
        assert (viewer, header.frame, header.width, header.height, header.output) == (1, 0, 80, 16, "normal")
        assert decoded(picture).shape == (16, 80, 3)


def test_renderer_reports_error_once() -> None:
    field = Plain()
    with rendering(lambda: field) as renderer:
        renderer.tell(ViewerJoined(viewer=1))
        renderer.sharp()
        field.trouble = "the memory is full"
        renderer.say(Move(position=(0, 0, -4), look_at=(0, 0, 0)))
        viewer, error, _ = renderer.until(lambda answer: isinstance(answer, CommandError))
        assert isinstance(error, CommandError)
        assert (viewer, error.id, error.code) == (None, None, "render_failed")
        assert "the memory is full" in error.message
        for z in range(5, 8):
            renderer.say(Move(position=(0, 0, -z), look_at=(0, 0, 0)))
            renderer.say(RenderFrame(position=(0, 0, -z), look_at=(0, 0, 0), id=str(z)))
            viewer, answer, _ = renderer.next()  # the one for all is not said again
            assert isinstance(answer, CommandError)
            assert (viewer, answer.id, answer.code) == (1, str(z), "render_failed")
        field.trouble = ""
        renderer.say(Move(position=(0, 0, -9), look_at=(0, 0, 0)))
        assert renderer.sharp()[0].camera.position == (0.0, 0.0, -9.0)


def test_renderer_falls_back_to_rgb() -> None:
    with rendering(Plain) as renderer:
        renderer.tell(ViewerJoined(viewer=1))
        renderer.sharp()
        renderer.say(SetOutput(output="depth"))
        _, error, _ = renderer.until(lambda answer: isinstance(answer, CommandError))
        assert isinstance(error, CommandError)
        assert error.message == "this run's method does not render depth"
        assert renderer.sharp()[0].output == "rgb"


def test_renderer_waits_for_scene() -> None:
    there = threading.Event()

    def load() -> Plain:
        if not there.is_set():
            raise RunError("this run has learned nothing yet")
        return Plain()

    with rendering(load) as renderer:
        for number in (1, 2):  # who comes later is told as well
            renderer.tell(ViewerJoined(viewer=number))
            renderer.until(lambda answer: isinstance(answer, Hello))
            _, error, _ = renderer.until(lambda answer: isinstance(answer, CommandError))
            assert error == CommandError(code="no_scene", message="this run has learned nothing yet")
        there.set()
        _, hello, _ = renderer.until(lambda answer: isinstance(answer, Hello))
        assert isinstance(hello, Hello)
        assert hello.box == ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
        assert renderer.sharp()[0].output == "rgb"


def test_renderer_newer_scene_keeps_camera() -> None:
    newer = threading.Event()
    taken = threading.Event()

    def load() -> Plain:
        if newer.is_set():
            taken.set()
            return Plain((0.0, 0.0, 1.0))
        return Plain((1.0, 0.0, 0.0))

    with rendering(load, lambda: newer.is_set() and not taken.is_set()) as renderer:
        renderer.tell(ViewerJoined(viewer=1))
        renderer.say(Move(position=(0, 0, -9), look_at=(0, 0, 0)))
        header, picture = renderer.sharp()
        while header.camera.position[2] != -9:
            header, picture = renderer.sharp()
        assert decoded(picture)[0, 0, 0] > 200
        newer.set()
        header, picture = renderer.sharp()
        assert header.camera.position[2] == -9
        assert decoded(picture)[0, 0, 2] > 200


def test_renderer_idles_without_viewers() -> None:
    field = Plain()
    with rendering(lambda: field) as renderer:
        renderer.tell(ViewerJoined(viewer=1))
        renderer.sharp()
        renderer.tell(ViewerLeft(viewer=1))
        renderer.say(Move(position=(0, 0, -9), look_at=(0, 0, 0)))
        renderer.tell(ViewerJoined(viewer=2))
        viewer, hello, _ = renderer.next()  # and no frame before it
        assert isinstance(hello, Hello)
        assert (viewer, hello.camera.position) == (2, (0.0, 0.0, -9.0))
        assert renderer.sharp()[0].camera.position == (0.0, 0.0, -9.0)


def test_renderer_rejects_invalid_message() -> None:
    with rendering(Plain) as renderer:
        renderer.tell(ViewerJoined(viewer=1))
        renderer.sharp()
        renderer.connection.sendall(b"\x02\0\0\0{}")
        _, error, _ = renderer.until(lambda answer: isinstance(answer, CommandError))
        assert isinstance(error, CommandError)
        assert error.code == "bad_message"
        renderer.say(Move(position=(0, 0, -9), look_at=(0, 0, 0)))
        renderer.sharp()


@pytest.mark.parametrize("value", ["", "x", "100000"])
def test_inherited_socket_missing(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    from lumigraph.live.renderer import inherited_socket

    monkeypatch.setenv("LUMIGRAPH_LIVE_FD", value)
    with pytest.raises(RuntimeError, match="LUMIGRAPH_LIVE_FD must name"):
        inherited_socket()
