"""WebSocket of changes: a snapshot of all projects and jobs, then every change to them."""

from __future__ import annotations

import asyncio
import contextlib

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from lumigraph.server.state import server_state

router = APIRouter()

SEND_TIMEOUT_S = 30.0
MAX_SEQ_DIGITS = 18


@router.websocket("/events")
async def events(websocket: WebSocket) -> None:
    """With `?since=SEQ`, the first message holds the changes after SEQ instead. Client messages are ignored."""
    await websocket.accept()
    since = websocket.query_params.get("since", "")
    feed = server_state(websocket).feed
    is_seq = since.isdecimal() and len(since) <= MAX_SEQ_DIGITS
    async with feed.listen(int(since) if is_seq else None) as (first_message, listener):
        disconnect = asyncio.ensure_future(_wait_for_disconnect(websocket))
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await websocket.send_text(first_message.model_dump_json())
            while True:
                change = asyncio.ensure_future(listener.next())
                await asyncio.wait({change, disconnect}, return_when=asyncio.FIRST_COMPLETED)
                if disconnect.done():
                    change.cancel()
                    return
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await websocket.send_text(change.result().model_dump_json())
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            with contextlib.suppress(RuntimeError):
                await websocket.close(1008)
        finally:
            disconnect.cancel()


async def _wait_for_disconnect(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
