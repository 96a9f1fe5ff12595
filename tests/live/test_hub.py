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
from tests.live.scenes import splats, write
from tests.live.test_encoders import decoded, psnr

ROOT = Path(__file__).parents[2]
SECONDS = 60.0  # after which a test that waits has failed: a process that renders needs a while to import torch
Answer = FrameHeader | CommandDone | CommandError | Hello


def renderer(run_path: str) -> list[str]:
    return [sys.executable, "-m", "tests.live.scenes", str(Path(run_path) / "field.safetensors")]


def greeter(run_path: str) -> list[str]:
    return [sys.executable, "-m", "tests.live.greeter", run_path]


class Viewer:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.picture = b""

    async def say(self, command: Move | RenderFrame | SetOutput | Ack) -> None:
        await self.socket.send(command.model_dump_json(exclude_none=True))

    async def next(self, acknowledge: bool = True) -> Answer:
        message = await self.socket.recv()
        if isinstance(message, str):
            return read_reply(message)
        header, self.picture = unpack_frame(message)
        if acknowledge and header.id is None:
            with contextlib.suppress(ConnectionClosed):  # there may still be something to read
                await self.say(Ack(frame=header.frame))
        return header

    async def until(self, condition: Callable[[Answer], bool]) -> Answer:
        while not condition(result := await self.next()):
            pass
        return result

    async def sharp(self, seq: int | None = None) -> FrameHeader:
        result = await self.until(
            lambda answer: isinstance(answer, FrameHeader) and answer.sharp and (seq is None or answer.seq == seq)
        )
        assert isinstance(result, FrameHeader)
        return result

    async def error(self) -> CommandError:
        result = await self.until(lambda answer: isinstance(answer, CommandError))
        assert isinstance(result, CommandError)
        return result

    async def close_code(self) -> int | None:
        """The code with which the server closes, after whatever it still sends."""
        try:
            while True:
                await self.socket.recv()
        except ConnectionClosed:
            return self.socket.close_code


class Studio:
    """A server with two runs, `a` and `b`, and no more words about them than a live view needs."""

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
    """Run `test` beside a server on a free port."""

    async def main() -> None:
        sessions = LiveSessions(command, linger_s=linger_s, viewer_timeout_s=viewer_timeout_s)

        async def live(websocket: WebSocket) -> None:
            await websocket.accept()
            await sessions.watch(websocket, str(folder / websocket.path_params["run"]))

        app = Starlette(routes=[WebSocketRoute("/{run}", live)])
        config = uvicorn.Config(app, port=0, log_level="error", lifespan="off", ws_max_size=1 << 20)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        try:
            async with asyncio.timeout(SECONDS):
                while not server.started:
                    await asyncio.sleep(0.01)
                port = server.servers[0].sockets[0].getsockname()[1]
                await test(Studio(sessions, f"ws://127.0.0.1:{port}"))
        finally:
            await sessions.close()
            server.should_exit = True
            await serving
        assert sessions.processes == {}

    asyncio.run(main())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for number, name in enumerate("abc"):
        (folder / name).mkdir()
        write(splats(seed=number), folder / name / "field.safetensors")
    return folder


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_hub_viewers_share_camera(runs: Path) -> None:
    async def test(studio: Studio) -> None:
        async with studio.viewer() as first, studio.viewer() as second:
            hello, rival = await first.next(), await second.next()
            assert isinstance(hello, Hello)
            assert isinstance(rival, Hello)
            assert (hello.viewer, rival.viewer, hello.method) == (1, 2, "splat")
            await one_picture_for_both(first, second)
            await whatever_is_said(first)
            await what_a_new_viewer_gets(studio, second)
            await what_is_asked_alone(first)
            await a_scene_that_is_learned_further(runs, first)

    with_studio(runs, test)


async def one_picture_for_both(first: Viewer, second: Viewer) -> None:
    """Either moves, both see the same bytes: what the field renders."""
    field = splats()
    for seq, (mover, number) in enumerate([(first, 1), (second, 2)]):
        command = Move(position=(3.0, -1.2, -3.2 + seq), look_at=(0.0, 0.0, 0.0), seq=seq)
        await mover.say(command)
        frames = [await first.sharp(seq), await second.sharp(seq)]
        assert frames[0] == frames[1]
        assert first.picture == second.picture
        assert (frames[0].by, frames[0].camera.position) == (number, command.position)
        expected = FrameRenderer(field).render(frames[0].camera, (160, 120), "rgb").numpy()
        assert psnr(decoded(first.picture), expected) > 30


async def whatever_is_said(viewer: Viewer) -> None:
    """What is no command is answered with an error, and the connection stays open."""
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
    for message, code, named in hostile:
        await viewer.socket.send(message)
        error = await viewer.error()
        assert error.code == code, message[:80]
        assert error.id == named or "fov" in error.message
    await viewer.say(Ack(frame=2**53))  # of a frame that never was
    await viewer.say(Move(position=(0, 0, -6), look_at=(0, 0, 0), seq=77))
    assert (await viewer.sharp(77)).seq == 77


async def what_a_new_viewer_gets(studio: Studio, rival: Viewer) -> None:
    """The frame that is there, without rendering it again."""
    history = await rival.sharp(77)
    async with studio.viewer() as late:
        assert isinstance(await late.next(), Hello)
        assert await late.next() == history
        assert late.picture == rival.picture


async def what_is_asked_alone(viewer: Viewer) -> None:
    await viewer.say(RenderFrame(position=(0, 0, -9), look_at=(0, 0, 0), size=(64, 32), output="depth", id="q"))
    header = await viewer.until(lambda answer: isinstance(answer, FrameHeader) and answer.id == "q")
    assert isinstance(header, FrameHeader)
    assert (header.width, header.height, header.output, header.frame) == (64, 32, "depth", 0)
    assert decoded(viewer.picture).shape == (32, 64, 3)


async def a_scene_that_is_learned_further(runs: Path, viewer: Viewer) -> None:
    newer = splats(seed=9)
    write(newer, runs / "a" / "field.safetensors")
    header = await viewer.sharp()
    expected = FrameRenderer(newer).render(header.camera, (160, 120), "rgb").numpy()
    assert header.camera.position == (0.0, 0.0, -6.0)
    assert psnr(decoded(viewer.picture), expected) > 30


def is_frame(answer: Answer, seq: int) -> bool:
    return isinstance(answer, FrameHeader) and answer.seq == seq


def test_hub_disconnects_silent_viewer(runs: Path) -> None:
    async def test(studio: Studio) -> None:
        async with studio.viewer() as reader, studio.viewer() as silent:
            owed = asyncio.create_task(all_frames(silent))
            seq = 0
            while not owed.done():
                seq += 1
                await reader.say(Move(position=(0, 0, -4 - seq % 9), look_at=(0, 0, 0), seq=seq))
                await reader.until(partial(is_frame, seq=seq))
            assert seq > MAX_UNACKNOWLEDGED_FRAMES
            assert await owed == MAX_UNACKNOWLEDGED_FRAMES
            assert silent.socket.close_code == CLOSE_CODE_SLOW
            await reader.say(Move(position=(0, 0, -20), look_at=(0, 0, 0), seq=0))
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
        async with studio.viewer("b") as again:
            assert isinstance(await again.next(), Hello)
            await again.sharp()
            assert pid not in studio.sessions.processes.values()

    with_studio(runs, test)


def test_hub_limits_renderers(runs: Path) -> None:
    """A third scene is refused while two are watched, and takes the place of one that nobody watches any more."""

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
    """One that neither reads nor writes, and does not care that its socket closed."""
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
