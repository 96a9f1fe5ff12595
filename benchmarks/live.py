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
MOVES_PER_SECOND = 60  # the rate of a browser during a drag
WARM_UP_S = 2.0  # the adaptive resolution settles meanwhile

Row = dict[str, object]


def rows(seconds: float = 10.0) -> Iterator[Row]:
    """Measure one viewer that drags the camera, one that drags among three viewers, and single jumps from rest."""
    control, server_end = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(server_end,))
    server.start()
    try:
        address = f"ws://127.0.0.1:{control.recv()}/blob"
        name = f"{SPLATS // 1000}k@{SIZE[0]}x{SIZE[1]}"
        for viewers in (1, 3):
            case = f"{name}, moving, {viewers} viewer{'s' * (viewers > 1)}"
            yield {"case": case, **asyncio.run(_measure_drag(address, viewers, seconds))}
        yield {"case": f"{name}, jumps from rest", **asyncio.run(_measure_jumps(address, 30))}
    finally:
        control.send("stop")
        server.join()


# -- viewers


async def _measure_drag(address: str, viewers: int, seconds: float) -> Row:
    """Measure the frames of the viewer that drags."""
    async with asyncio.TaskGroup() as group:
        idle_viewers = [group.create_task(_watch(address, _idle)) for _ in range(viewers - 1)]
        frames = await _watch(address, lambda send: _drag(send, WARM_UP_S + seconds))
        for viewer in idle_viewers:
            viewer.cancel()
    start = frames[0].display_time + WARM_UP_S
    frames = [frame for frame in frames if frame.display_time >= start and not frame.sharp]
    duration = frames[-1].display_time - frames[0].display_time
    widths = [frame.width for frame in frames]
    return {
        "frames_per_second": round((len(frames) - 1) / duration, 1),
        **_age_percentiles([frame.age for frame in frames]),
        "render_ms_p50": round(statistics.median(frame.render_ms for frame in frames), 1),
        "width_p50": statistics.median(widths),
        "kilobytes_p50": round(statistics.median(frame.bytes for frame in frames) / 1e3, 1),
    }


async def _measure_jumps(address: str, count: int) -> Row:
    """Send one camera at a time, each after the last frame became sharp, so that no earlier frame delays it."""
    frames = await _watch(address, lambda send: _jump(send, count))
    first = {frame.seq: frame for frame in reversed(frames) if frame.seq is not None}
    return {**_age_percentiles([frame.age for frame in first.values()])}


def _age_percentiles(ages: list[float]) -> Row:
    ages = sorted(1e3 * age for age in ages)
    percentiles = {"p50": statistics.median(ages), "p95": ages[math.ceil(0.95 * len(ages)) - 1], "max": ages[-1]}
    return {f"camera_to_pixel_ms_{name}": round(value, 1) for name, value in percentiles.items()}


class _Frame:
    def __init__(self, header: Any, size: int, send_times: dict[int, float]) -> None:
        self.display_time = time.perf_counter()
        self.age = self.display_time - send_times.get(header.seq, math.nan)
        self.seq, self.sharp, self.width = (
            header.seq if header.seq in send_times else None,
            header.sharp,
            header.width,
        )
        self.render_ms, self.bytes = header.render_ms, size


Send = Callable[[float], Awaitable[None]]  # sends the camera at an angle


async def _watch(address: str, act: Callable[[Send], Awaitable[None]]) -> list[_Frame]:
    """Decode and acknowledge all frames while `act` runs; return the frames of our own cameras."""
    import cv2
    import numpy as np
    from websockets.asyncio.client import connect

    from lumigraph.wire.live import Ack, Hello, Move, read_reply, unpack_frame

    send_times: dict[int, float] = {}
    frames: list[_Frame] = []
    async with connect(address, compression=None, max_size=None) as socket:
        viewer_id: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def read() -> None:
            async for message in socket:
                if isinstance(message, str):
                    reply = read_reply(message)
                    if isinstance(reply, Hello) and not viewer_id.done():
                        viewer_id.set_result(reply.viewer)
                    continue
                header, jpeg = unpack_frame(message)
                cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
                if header.by == await viewer_id and header.seq in send_times:
                    frames.append(_Frame(header, len(message), send_times))
                    new_frame.set()
                await socket.send(Ack(frame=header.frame).model_dump_json(exclude_none=True))

        async def send(angle: float) -> None:
            send_times[seq := len(send_times)] = time.perf_counter()
            position = (4.5 * math.cos(angle), -1.2, 4.5 * math.sin(angle))
            move = Move(position=position, look_at=(0.0, 0.0, 0.0), seq=seq)
            await socket.send(move.model_dump_json(exclude_none=True))

        new_frame = asyncio.Event()
        reader_task = asyncio.create_task(read())
        await viewer_id
        send.frames, send.new_frame = frames, new_frame  # type: ignore[attr-defined]
        try:
            await act(send)
        finally:
            reader_task.cancel()
    return frames


async def _idle(send: Send) -> None:
    await asyncio.Event().wait()


async def _drag(send: Send, seconds: float) -> None:
    start = time.perf_counter()
    for i in range(round(seconds * MOVES_PER_SECOND)):
        await asyncio.sleep(max(0.0, start + i / MOVES_PER_SECOND - time.perf_counter()))
        await send(0.01 * i)


async def _jump(send: Any, count: int) -> None:
    for i in range(count):
        await send(0.2 * i)
        while not (send.frames and send.frames[-1].seq == i and send.frames[-1].sharp):
            send.new_frame.clear()
            await send.new_frame.wait()


# -- server and renderer processes


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
        server_task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        pipe.send(server.servers[0].sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.recv)
        await sessions.close()
        server.should_exit = True
        await server_task

    asyncio.run(main())


def _render() -> None:
    from benchmarks.scenes import blob, pack
    from lumigraph.live.renderer import inherited_socket, run_renderer
    from lumigraph.live.session import Session
    from lumigraph.methods.splat import SplatField
    from lumigraph.wire.live import Camera

    params, sh_rest = pack(blob(SPLATS, SIZE))
    camera = Camera(position=(4.5, -1.2, 0.0), look_at=(0.0, 0.0, 0.0), up=(0.0, -1.0, 0.0), fov=45.0)
    run_renderer(
        inherited_socket(), lambda: SplatField(params, sh_rest, 3), lambda: False, Session(camera, SIZE, method="splat")
    )


if __name__ == "__main__":
    _render()
