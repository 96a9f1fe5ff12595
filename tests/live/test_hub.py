"""The viewer hub end to end, with a real web server, render processes and WebSocket clients."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from lumigraph.live.encoders import FrameRenderer
from lumigraph.server.live.hub import LiveSessions
from lumigraph.wire.live import (
    CLOSE_CODE_BUSY,
    CLOSE_CODE_ENDED,
    CLOSE_CODE_SLOW,
    MAX_COMMAND_BYTES,
    MAX_UNACKNOWLEDGED_FRAMES,
    Ack,
    CommandDone,
    CommandError,
    FrameHeader,
    Hello,
    Move,
    RenderFrame,
    SetOutput,
    read_reply,
    unpack_frame,
)
from tests.live.scenes import splat_field, write_field
from tests.live.test_encoders import decode_jpeg, psnr

ROOT = Path(__file__).parents[2]
HUB_TEST_TIMEOUT_S = 60.0  # a renderer needs seconds to import torch
ServerMessage = FrameHeader | CommandDone | CommandError | Hello


def renderer(run_path: str) -> list[str]:
    return [sys.executable, "-m", "tests.live.scenes", str(Path(run_path) / "field.safetensors")]


def greeter(run_path: str) -> list[str]:
    return [sys.executable, "-m", "tests.live.greeter", run_path]


class Viewer:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.jpeg = b""

    async def send(self, command: Move | RenderFrame | SetOutput | Ack) -> None:
        await self.socket.send(command.model_dump_json(exclude_none=True))

    async def next(self, acknowledge: bool = True) -> ServerMessage:
        message = await self.socket.recv()
        if isinstance(message, str):
            return read_reply(message)
        header, self.jpeg = unpack_frame(message)
        if acknowledge and header.id is None:
            with contextlib.suppress(ConnectionClosed):  # unread messages may remain
                await self.send(Ack(frame=header.frame))
        return header

    async def until(self, condition: Callable[[ServerMessage], bool]) -> ServerMessage:
        while not condition(result := await self.next()):
            pass
        return result

    async def sharp(self, seq: int | None = None) -> FrameHeader:
        result = await self.until(
            lambda message: isinstance(message, FrameHeader) and message.sharp and (seq is None or message.seq == seq)
        )
        assert isinstance(result, FrameHeader)
        return result

    async def error(self) -> CommandError:
        result = await self.until(lambda message: isinstance(message, CommandError))
        assert isinstance(result, CommandError)
        return result

    async def close_code(self) -> int | None:
        """Read all remaining messages and return the code with which the server closed the connection."""
        try:
            while True:
                await self.socket.recv()
        except ConnectionClosed:
            return self.socket.close_code


class Studio:
    """A server that offers only the live views of the runs `a`, `b` and `c`."""

    def __init__(self, sessions: LiveSessions, address: str) -> None:
        self.sessions, self.address = sessions, address

    @asynccontextmanager
    async def viewer(self, run: str = "a") -> AsyncIterator[Viewer]:
        async with connect(f"{self.address}/{run}", compression=None, max_size=None) as socket:
            yield Viewer(socket)


def with_studio(
    folder: Path,
    test: Callable[[Studio], Awaitable[None]],
    command: Callable[[str], list[str]] = renderer,
    linger_s: float = 30.0,
    viewer_timeout_s: float = 30.0,  # only one test exceeds it
) -> None:
    """Run `test` against a server on a free port."""

    async def main() -> None:
        sessions = LiveSessions(command, linger_s=linger_s, viewer_timeout_s=viewer_timeout_s)

        async def live(websocket: WebSocket) -> None:
            await websocket.accept()
            await sessions.watch(websocket, str(folder / websocket.path_params["run"]))

        app = Starlette(routes=[WebSocketRoute("/{run}", live)])
        config = uvicorn.Config(app, port=0, log_level="error", lifespan="off", ws_max_size=1 << 20)
        server = uvicorn.Server(config)
        server_task = asyncio.create_task(server.serve())
        try:
            async with asyncio.timeout(HUB_TEST_TIMEOUT_S):
                while not server.started:
                    await asyncio.sleep(0.01)
                port = server.servers[0].sockets[0].getsockname()[1]
                await test(Studio(sessions, f"ws://127.0.0.1:{port}"))
        finally:
            await sessions.close()
            server.should_exit = True
            await server_task
        assert sessions.processes == {}

    asyncio.run(main())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for number, name in enumerate("abc"):
        (folder / name).mkdir()
        write_field(splat_field(seed=number), folder / name / "field.safetensors")
    return folder


@pytest.fixture(autouse=True)
def run_from_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_hub_viewers_share_camera(runs: Path) -> None:
    async def test(studio: Studio) -> None:
        async with studio.viewer() as first, studio.viewer() as second:
            hello, second_hello = await first.next(), await second.next()
            assert isinstance(hello, Hello)
            assert isinstance(second_hello, Hello)
            assert (hello.viewer, second_hello.viewer, hello.method) == (1, 2, "splat")
            await check_shared_frames(first, second)
            await check_hostile_messages(first)
            await check_late_viewer(studio, second)
            await check_private_frame(first)
            await check_newer_scene(runs, first)

    with_studio(runs, test)


async def check_shared_frames(first: Viewer, second: Viewer) -> None:
    """Each viewer moves the camera once; both receive the same bytes, equal to a render of the field."""
    field = splat_field()
    for seq, (mover, number) in enumerate([(first, 1), (second, 2)]):
        command = Move(position=(3.0, -1.2, -3.2 + seq), look_at=(0.0, 0.0, 0.0), seq=seq)
        await mover.send(command)
        frames = [await first.sharp(seq), await second.sharp(seq)]
        assert frames[0] == frames[1]
        assert first.jpeg == second.jpeg
        assert (frames[0].by, frames[0].camera.position) == (number, command.position)
        expected = FrameRenderer(field).render(frames[0].camera, (160, 120), "rgb").numpy()
        assert psnr(decode_jpeg(first.jpeg), expected) > 30


async def check_hostile_messages(viewer: Viewer) -> None:
    """The server answers invalid messages with an error and keeps the connection open."""
    move = Move(position=(1, 1, 1), look_at=(0, 0, 0), id="x").model_dump(mode="json")
    hostile: list[tuple[str | bytes, str, str | None]] = [
        ("not JSON", "bad_message", None),
        (b"\x00\x01", "bad_message", None),
        ("x" * (MAX_COMMAND_BYTES + 1), "too_large", None),
        ("x" * (1 << 19), "too_large", None),
        (json.dumps({**move, "fov": float("nan")}), "bad_message", None),
        (json.dumps({**move, "kind": "explode"}), "bad_message", "x"),
        (json.dumps({**move, "version": 9}), "bad_message", "x"),
        (json.dumps({**move, "look_at": [1, 1, 1]}), "bad_message", "x"),
        ("[" * 15_000, "bad_message", None),
        ('{"kind":"ack","frame":-1}', "bad_message", None),
    ]
    for message, code, command_id in hostile:
        await viewer.socket.send(message)
        error = await viewer.error()
        assert error.code == code, message[:80]
        assert error.id == command_id or "fov" in error.message
    await viewer.send(Ack(frame=2**53))  # of a frame that does not exist
    await viewer.send(Move(position=(0, 0, -6), look_at=(0, 0, 0), seq=77))
    assert (await viewer.sharp(77)).seq == 77


async def check_late_viewer(studio: Studio, viewer: Viewer) -> None:
    """A late viewer receives the newest frame without a new render."""
    newest_header = await viewer.sharp(77)
    async with studio.viewer() as late:
        assert isinstance(await late.next(), Hello)
        assert await late.next() == newest_header
        assert late.jpeg == viewer.jpeg


async def check_private_frame(viewer: Viewer) -> None:
    await viewer.send(RenderFrame(position=(0, 0, -9), look_at=(0, 0, 0), size=(64, 32), output="depth", id="q"))
    header = await viewer.until(lambda message: isinstance(message, FrameHeader) and message.id == "q")
    assert isinstance(header, FrameHeader)
    assert (header.width, header.height, header.output, header.frame) == (64, 32, "depth", 0)
    assert decode_jpeg(viewer.jpeg).shape == (32, 64, 3)


async def check_newer_scene(runs: Path, viewer: Viewer) -> None:
    newer = splat_field(seed=9)
    write_field(newer, runs / "a" / "field.safetensors")
    header = await viewer.sharp()
    expected = FrameRenderer(newer).render(header.camera, (160, 120), "rgb").numpy()
    assert header.camera.position == (0.0, 0.0, -6.0)
    assert psnr(decode_jpeg(viewer.jpeg), expected) > 30


def is_frame(message: ServerMessage, seq: int) -> bool:
    return isinstance(message, FrameHeader) and message.seq == seq


def test_hub_disconnects_silent_viewer(runs: Path) -> None:
    async def test(studio: Studio) -> None:
        async with studio.viewer() as reader, studio.viewer() as silent:
            counter_task = asyncio.create_task(all_frames(silent))
            seq = 0
            while not counter_task.done():
                seq += 1
                await reader.send(Move(position=(0, 0, -4 - seq % 9), look_at=(0, 0, 0), seq=seq))
                await reader.until(partial(is_frame, seq=seq))
            assert seq > MAX_UNACKNOWLEDGED_FRAMES
            assert await counter_task == MAX_UNACKNOWLEDGED_FRAMES
            assert silent.socket.close_code == CLOSE_CODE_SLOW
            await reader.send(Move(position=(0, 0, -20), look_at=(0, 0, 0), seq=0))
            await reader.sharp(0)

    async def all_frames(viewer: Viewer) -> int:
        count = 0
        with contextlib.suppress(ConnectionClosed):
            while True:
                count += isinstance(await viewer.next(acknowledge=False), FrameHeader)
        return count

    with_studio(runs, test, viewer_timeout_s=0.5)


def test_hub_reports_killed_renderer(runs: Path) -> None:
    async def test(studio: Studio) -> None:
        async with studio.viewer("b") as first, studio.viewer("b") as second:
            await first.sharp()
            (pid,) = studio.sessions.processes.values()
            os.kill(pid, signal.SIGKILL)
            for viewer in (first, second):
                assert (await viewer.error()).code == "ended"
                assert await viewer.close_code() == CLOSE_CODE_ENDED
        async with studio.viewer("b") as new_viewer:
            assert isinstance(await new_viewer.next(), Hello)
            await new_viewer.sharp()
            assert pid not in studio.sessions.processes.values()

    with_studio(runs, test)


def test_hub_limits_renderers(runs: Path) -> None:
    """A third scene is rejected while two have viewers, and replaces a scene whose last viewer has left."""

    async def test(studio: Studio) -> None:
        async with studio.viewer("a") as first:
            await first.next()
            async with studio.viewer("b") as second:
                await second.next()
                pids = set(studio.sessions.processes.values())
                assert len(pids) == 2
                async with studio.viewer("c") as third:
                    error = await third.next()
                    assert isinstance(error, CommandError)
                    assert error.code == "busy"
                    assert await third.close_code() == CLOSE_CODE_BUSY
            while all(not session.is_idle for session in studio.sessions._sessions.values()):
                await asyncio.sleep(0.01)
            async with studio.viewer("c") as third:
                assert isinstance(await third.next(), Hello)
            assert {Path(run).name for run in studio.sessions.processes} == {"a", "c"}

    with_studio(runs, test, greeter)


def test_hub_ends_renderer_after_last_viewer(runs: Path) -> None:
    async def test(studio: Studio) -> None:
        async with studio.viewer() as viewer:
            await viewer.next()
            (pid,) = studio.sessions.processes.values()
        while studio.sessions.processes:
            await asyncio.sleep(0.01)
        await studio.sessions.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    with_studio(runs, test, greeter, linger_s=0.05)


def test_hub_kills_unresponsive_renderer(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The renderer neither reads nor writes, and ignores that its socket closed."""
    monkeypatch.setattr("lumigraph.server.live.hub.RENDERER_EXIT_TIMEOUT_S", 0.05)
    pids: list[int] = []

    async def test(studio: Studio) -> None:
        async with studio.viewer():
            while not studio.sessions.processes:
                await asyncio.sleep(0.01)
            pids.extend(studio.sessions.processes.values())
        await studio.sessions.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pids[0], 0)

    with_studio(runs, test, lambda run_path: ["sleep", "1000"])


@pytest.mark.parametrize("command", [["/no/such/program"], [sys.executable, "-c", "raise SystemExit(3)"]])
def test_hub_reports_failed_start(runs: Path, command: list[str]) -> None:
    async def test(studio: Studio) -> None:
        async with studio.viewer() as viewer:
            assert (await viewer.error()).code == "ended"
            assert await viewer.close_code() == CLOSE_CODE_ENDED

    with_studio(runs, test, lambda run_path: command)
