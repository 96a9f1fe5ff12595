"""Live view benchmark: frames per second while the camera moves, and the age of the displayed frame.

Server, renderer and viewer are three processes of one machine, connected by real sockets. The age of a frame is the
time from sending its camera to having its pixels decoded.
"""

import asyncio
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

SPLATS, SIZE = 50_000, (640, 480)
MOVES_A_SECOND = 60  # what a browser sends while somebody drags
WARM_UP = 2.0  # seconds in which the pace is found

Row = dict[str, object]


def rows(seconds: float = 10.0) -> Iterator[Row]:
    """One viewer that drags the camera; three of them, of whom one drags; single jumps from rest."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,))
    server.start()
    try:
        address = f"ws://127.0.0.1:{here.recv()}/blob"
        name = f"{SPLATS // 1000}k@{SIZE[0]}x{SIZE[1]}"
        for viewers in (1, 3):
            case = f"{name}, moving, {viewers} viewer{'s' * (viewers > 1)}"
            yield {"case": case, **asyncio.run(_moving(address, viewers, seconds))}
        yield {"case": f"{name}, jumps from rest", **asyncio.run(_jumps(address, 30))}
    finally:
        here.send("enough")
        server.join()


# -- viewers


async def _moving(address: str, viewers: int, seconds: float) -> Row:
    """Of the viewer who drags."""
    async with asyncio.TaskGroup() as group:
        others = [group.create_task(_watch(address, _idle)) for _ in range(viewers - 1)]
        frames = await _watch(address, lambda send: _drag(send, WARM_UP + seconds))
        for rival in others:
            rival.cancel()
    creation = frames[0].shown + WARM_UP
    frames = [frame for frame in frames if frame.shown >= creation and not frame.sharp]
    lasted = frames[-1].shown - frames[0].shown
    sizes = [frame.width for frame in frames]
    return {
        "frames_per_second": round((len(frames) - 1) / lasted, 1),
        **_ages([frame.age for frame in frames]),
        "render_ms_p50": round(statistics.median(frame.render_ms for frame in frames), 1),
        "width_p50": statistics.median(sizes),
        "kilobytes_p50": round(statistics.median(frame.bytes for frame in frames) / 1e3, 1),
    }


async def _jumps(address: str, count: int) -> Row:
    """One camera at a time, each after the last has become sharp: nothing is on its way that it could wait for."""
    frames = await _watch(address, lambda send: _jump(send, count))
    first = {frame.seq: frame for frame in reversed(frames) if frame.seq is not None}
    return {**_ages([frame.age for frame in first.values()])}


def _ages(ages: list[float]) -> Row:
    ages = sorted(1e3 * age for age in ages)
    result = {"p50": statistics.median(ages), "p95": ages[math.ceil(0.95 * len(ages)) - 1], "max": ages[-1]}
    return {f"camera_to_pixel_ms_{name}": round(value, 1) for name, value in result.items()}


class _Frame:
    def __init__(self, header: Any, size: int, patch_response: dict[int, float]) -> None:
        self.shown = time.perf_counter()
        self.age = self.shown - patch_response.get(header.seq, math.nan)
        self.seq, self.sharp, self.width = (
            header.seq if header.seq in patch_response else None,
            header.sharp,
            header.width,
        )
        self.render_ms, self.bytes = header.render_ms, size


Send = Callable[[float], Awaitable[None]]  # the camera at an angle


async def _watch(address: str, act: Callable[[Send], Awaitable[None]]) -> list[_Frame]:
    """Decode and acknowledge all frames while `act` goes on; those that show one of our own cameras."""
    import cv2
    import numpy as np
    from websockets.asyncio.client import connect

    from lumigraph.wire.live import Ack, Hello, Move, read_reply, unpack_frame

    patch_response: dict[int, float] = {}
    frames: list[_Frame] = []
    async with connect(address, compression=None, max_size=None) as socket:
        greeted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def read() -> None:
            async for message in socket:
                if isinstance(message, str):
                    reply = read_reply(message)
                    if isinstance(reply, Hello) and not greeted.done():
                        greeted.set_result(reply.viewer)
                    continue
                header, jpeg = unpack_frame(message)
                cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
                if header.by == await greeted and header.seq in patch_response:
                    frames.append(_Frame(header, len(message), patch_response))
                    preview.set()
                await socket.send(Ack(frame=header.frame).model_dump_json(exclude_none=True))

        async def send(angle: float) -> None:
            patch_response[seq := len(patch_response)] = time.perf_counter()
            position = (4.5 * math.cos(angle), -1.2, 4.5 * math.sin(angle))
            move = Move(position=position, look_at=(0.0, 0.0, 0.0), seq=seq)
            await socket.send(move.model_dump_json(exclude_none=True))

        preview = asyncio.Event()
        reading = asyncio.create_task(read())
        await greeted
        send.frames, send.shown = frames, preview  # type: ignore[attr-defined]
        try:
            await act(send)
        finally:
            reading.cancel()
    return frames


async def _idle(send: Send) -> None:
    await asyncio.Event().wait()


async def _drag(send: Send, seconds: float) -> None:
    start = time.perf_counter()
    for i in range(round(seconds * MOVES_A_SECOND)):
        await asyncio.sleep(max(0.0, start + i / MOVES_A_SECOND - time.perf_counter()))
        await send(0.01 * i)


async def _jump(send: Any, count: int) -> None:
    for i in range(count):
        await send(0.2 * i)
        while not (send.frames and send.frames[-1].seq == i and send.frames[-1].sharp):
            send.shown.clear()
            await send.shown.wait()


# -- the server and the process that renders


def _serve(pipe: Connection) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket

    from lumigraph.server.live.hub import LiveSessions

    async def main() -> None:
        sessions = LiveSessions(lambda run: [sys.executable, "-m", "benchmarks.live"])

        async def live(websocket: WebSocket) -> None:
            await websocket.accept()
            await sessions.watch(websocket, "blob")

        app = Starlette(routes=[WebSocketRoute("/blob", live)])
        server = uvicorn.Server(
            uvicorn.Config(app, port=0, log_level="error", lifespan="off", ws_per_message_deflate=False)
        )
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        pipe.send(server.servers[0].sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.recv)
        await sessions.close()
        server.should_exit = True
        await serving

    asyncio.run(main())


def _render() -> None:
    from benchmarks.scenes import blob, pack
    from lumigraph.live.renderer import inherited_socket, run_renderer
    from lumigraph.live.session import Session
    from lumigraph.methods.splat import SplatField
    from lumigraph.wire.live import Camera

    params, rest = pack(blob(SPLATS, SIZE))
    camera = Camera(position=(4.5, -1.2, 0.0), look_at=(0.0, 0.0, 0.0), up=(0.0, -1.0, 0.0), fov=45.0)
    run_renderer(
        inherited_socket(), lambda: SplatField(params, rest, 3), lambda: False, Session(camera, SIZE, method="splat")
    )


if __name__ == "__main__":
    _render()
