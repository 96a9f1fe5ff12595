"""The socket of events: everything that is, then everything that changes, for as long as somebody listens."""

from __future__ import annotations

import asyncio
import contextlib

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from lumigraph.server.state import server_state

router = APIRouter()

PATIENCE = 30.0  # seconds that a message may take to leave


@router.websocket("/events")
async def events(websocket: WebSocket) -> None:
    """`?since=SEQ`: instead of a snapshot, what changed after it. Messages of the client are not read."""
    await websocket.accept()
    since = websocket.query_params.get("since", "")
    feed = server_state(websocket).feed
    async with feed.listen(int(since) if since.isdecimal() and len(since) < 19 else None) as (first, listener):
        gone = asyncio.ensure_future(_until_closed(websocket))
        try:
            async with asyncio.timeout(PATIENCE):
                await websocket.send_text(first.model_dump_json())
            while True:
                news = asyncio.ensure_future(listener.next())
                await asyncio.wait({news, gone}, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    news.cancel()
                    return
                async with asyncio.timeout(PATIENCE):
                    await websocket.send_text(news.result().model_dump_json())
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            with contextlib.suppress(RuntimeError):
                await websocket.close(1008)
        finally:
            gone.cancel()


async def _until_closed(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
