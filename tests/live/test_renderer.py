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
from tests.live.scenes import PlainField, splat_field
from tests.live.test_encoders import decode_jpeg, psnr

RENDERER_TEST_TIMEOUT_S = 20.0
ServerMessage = FrameHeader | CommandDone | CommandError | Hello


class Renderer:
    """The web process's end of the socket to a renderer."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, *messages: RendererMessage) -> None:
        self.connection.sendall(b"".join(map(encode_renderer_message, messages)))

    def send_command(self, command: Move | FlyTo | RenderFrame | SetOutput, viewer: int = 1) -> None:
        self.send(ViewerCommand(viewer=viewer, command=command))

    def next(self) -> tuple[int | None, ServerMessage, bytes]:
        """Return the viewer, the message and the JPEG of a frame. Request the next frame after each shared one."""
        prefix = self.connection.recv(4, socket.MSG_WAITALL)
        assert prefix, "the renderer closed its socket"
        envelope, body = decode_viewer_message(self.connection.recv(parse_length(prefix), socket.MSG_WAITALL))
        if envelope.text:
            reply: Reply = read_reply(body)
            return envelope.viewer, reply, b""
        header, jpeg = unpack_frame(body)
        if envelope.frame is not None:
            assert envelope.frame == header.frame
            self.send(FrameCredit())
        return envelope.viewer, header, jpeg

    def until(self, condition: Callable[[ServerMessage], bool]) -> tuple[int | None, ServerMessage, bytes]:
        while True:
            result = self.next()
            if condition(result[1]):
                return result

    def sharp(self) -> tuple[FrameHeader, bytes]:
        _, header, jpeg = self.until(lambda message: isinstance(message, FrameHeader) and message.sharp)
        assert isinstance(header, FrameHeader)
        return header, jpeg


@contextmanager
def running_renderer(
    load: Callable[[], Field], has_new_scene: Callable[[], bool] = lambda: False, session: Session | None = None
) -> Iterator[Renderer]:
    test_socket, renderer_socket = socket.socketpair()
    test_socket.settimeout(RENDERER_TEST_TIMEOUT_S)
    threads = torch.get_num_threads()
    session = session or Session(CAMERA, (64, 48))
    loop = threading.Thread(
        target=run_renderer, args=(renderer_socket, load, has_new_scene, session), kwargs={"poll_interval_s": 0.01}
    )
    loop.start()
    try:
        yield Renderer(test_socket)
    finally:
        test_socket.close()
        loop.join(RENDERER_TEST_TIMEOUT_S)
        torch.set_num_threads(threads)
        assert not loop.is_alive()  # the loop ends when its socket closes


def test_renderer_greets_and_renders() -> None:
    field = splat_field()
    with running_renderer(lambda: field) as renderer:
        renderer.send(ViewerJoined(viewer=1))
        viewer, hello, _ = renderer.next()
        assert isinstance(hello, Hello)
        assert (viewer, hello.viewer, hello.camera, hello.size) == (1, 1, CAMERA, (64, 48))
        header, jpeg = renderer.sharp()
        assert (header.width, header.height, header.camera) == (64, 48, CAMERA)
        expected = FrameRenderer(field).render(CAMERA, (64, 48), "rgb").numpy()
        assert psnr(decode_jpeg(jpeg), expected) > 30


def test_renderer_frames_name_their_camera() -> None:
    with running_renderer(PlainField) as renderer:
        renderer.send(ViewerJoined(viewer=1), ViewerJoined(viewer=2))
        renderer.sharp()
        for seq in range(50):
            renderer.send_command(Move(position=(0, 0, -1 - seq), look_at=(0, 0, 0), seq=seq), viewer=2)
        viewer, header, _ = renderer.until(lambda message: isinstance(message, FrameHeader) and message.seq == 49)
        assert isinstance(header, FrameHeader)
        assert (viewer, header.by, header.camera.position) == (None, 2, (0, 0, -50))
        number = header.frame
        header, _ = renderer.sharp()
        assert (header.seq, header.frame >= number) == (49, True)


def test_renderer_answers_commands() -> None:
    with running_renderer(splat_field) as renderer:
        renderer.send(ViewerJoined(viewer=1), ViewerJoined(viewer=2))
        renderer.sharp()
        renderer.send_command(Move(position=(0, 0, -4), look_at=(0, 0, 0), id="m"), viewer=2)
        viewer, reply, _ = renderer.until(lambda message: isinstance(message, CommandDone))
        assert (viewer, reply) == (2, CommandDone(id="m", command="move"))
        renderer.send_command(FlyTo(position=(0, 0, -5), look_at=(0, 0, 0), duration=0.1, id="f"))
        viewer, reply, _ = renderer.until(lambda message: isinstance(message, CommandDone))
        assert (viewer, reply) == (1, CommandDone(id="f", command="fly_to"))
        renderer.send_command(SetOutput(output="depth", id="s"))
        viewer, reply, _ = renderer.until(lambda message: isinstance(message, CommandDone))
        assert (viewer, reply) == (1, CommandDone(id="s", command="set"))
        renderer.until(lambda message: isinstance(message, FrameHeader) and message.output == "depth")
        renderer.send_command(
            RenderFrame(position=(0, 1, -4), look_at=(0, 0, 0), size=(80, 16), output="normal", id="r")
        )
        viewer, header, jpeg = renderer.until(lambda message: isinstance(message, FrameHeader) and message.id == "r")
        assert isinstance(header, FrameHeader)
        assert (viewer, header.frame, header.width, header.height, header.output) == (1, 0, 80, 16, "normal")
        assert decode_jpeg(jpeg).shape == (16, 80, 3)


def test_renderer_reports_error_once() -> None:
    field = PlainField()
    with running_renderer(lambda: field) as renderer:
        renderer.send(ViewerJoined(viewer=1))
        renderer.sharp()
        field.failure = "the memory is full"
        renderer.send_command(Move(position=(0, 0, -4), look_at=(0, 0, 0)))
        viewer, error, _ = renderer.until(lambda message: isinstance(message, CommandError))
        assert isinstance(error, CommandError)
        assert (viewer, error.id, error.code) == (None, None, "render_failed")
        assert "the memory is full" in error.message
        for z in range(5, 8):
            renderer.send_command(Move(position=(0, 0, -z), look_at=(0, 0, 0)))
            renderer.send_command(RenderFrame(position=(0, 0, -z), look_at=(0, 0, 0), id=str(z)))
            viewer, message, _ = renderer.next()  # the shared error is not repeated
            assert isinstance(message, CommandError)
            assert (viewer, message.id, message.code) == (1, str(z), "render_failed")
        field.failure = ""
        renderer.send_command(Move(position=(0, 0, -9), look_at=(0, 0, 0)))
        assert renderer.sharp()[0].camera.position == (0.0, 0.0, -9.0)


def test_renderer_falls_back_to_rgb() -> None:
    with running_renderer(PlainField) as renderer:
        renderer.send(ViewerJoined(viewer=1))
        renderer.sharp()
        renderer.send_command(SetOutput(output="depth"))
        _, error, _ = renderer.until(lambda message: isinstance(message, CommandError))
        assert isinstance(error, CommandError)
        assert error.message == "this run's method does not render depth"
        assert renderer.sharp()[0].output == "rgb"


def test_renderer_waits_for_scene() -> None:
    scene_ready = threading.Event()

    def load() -> PlainField:
        if not scene_ready.is_set():
            raise RunError("this run has learned nothing yet")
        return PlainField()

    with running_renderer(load) as renderer:
        for number in (1, 2):  # a later viewer receives the error as well
            renderer.send(ViewerJoined(viewer=number))
            renderer.until(lambda message: isinstance(message, Hello))
            _, error, _ = renderer.until(lambda message: isinstance(message, CommandError))
            assert error == CommandError(code="no_scene", message="this run has learned nothing yet")
        scene_ready.set()
        _, hello, _ = renderer.until(lambda message: isinstance(message, Hello))
        assert isinstance(hello, Hello)
        assert hello.box == ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
        assert renderer.sharp()[0].output == "rgb"


def test_renderer_newer_scene_keeps_camera() -> None:
    scene_written = threading.Event()
    scene_loaded = threading.Event()

    def load() -> PlainField:
        if scene_written.is_set():
            scene_loaded.set()
            return PlainField((0.0, 0.0, 1.0))
        return PlainField((1.0, 0.0, 0.0))

    with running_renderer(load, lambda: scene_written.is_set() and not scene_loaded.is_set()) as renderer:
        renderer.send(ViewerJoined(viewer=1))
        renderer.send_command(Move(position=(0, 0, -9), look_at=(0, 0, 0)))
        header, jpeg = renderer.sharp()
        while header.camera.position[2] != -9:
            header, jpeg = renderer.sharp()
        assert decode_jpeg(jpeg)[0, 0, 0] > 200
        scene_written.set()
        header, jpeg = renderer.sharp()
        assert header.camera.position[2] == -9
        assert decode_jpeg(jpeg)[0, 0, 2] > 200


def test_renderer_idles_without_viewers() -> None:
    field = PlainField()
    with running_renderer(lambda: field) as renderer:
        renderer.send(ViewerJoined(viewer=1))
        renderer.sharp()
        renderer.send(ViewerLeft(viewer=1))
        renderer.send_command(Move(position=(0, 0, -9), look_at=(0, 0, 0)))
        renderer.send(ViewerJoined(viewer=2))
        viewer, hello, _ = renderer.next()  # no frame before the hello
        assert isinstance(hello, Hello)
        assert (viewer, hello.camera.position) == (2, (0.0, 0.0, -9.0))
        assert renderer.sharp()[0].camera.position == (0.0, 0.0, -9.0)


def test_renderer_rejects_invalid_message() -> None:
    with running_renderer(PlainField) as renderer:
        renderer.send(ViewerJoined(viewer=1))
        renderer.sharp()
        renderer.connection.sendall(b"\x02\0\0\0{}")
        _, error, _ = renderer.until(lambda message: isinstance(message, CommandError))
        assert isinstance(error, CommandError)
        assert error.code == "bad_message"
        renderer.send_command(Move(position=(0, 0, -9), look_at=(0, 0, 0)))
        renderer.sharp()


@pytest.mark.parametrize("value", ["", "x", "100000"])
def test_inherited_socket_missing(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    from lumigraph.live.renderer import inherited_socket

    monkeypatch.setenv("LUMIGRAPH_LIVE_FD", value)
    with pytest.raises(RuntimeError, match="LUMIGRAPH_LIVE_FD must name"):
        inherited_socket()
