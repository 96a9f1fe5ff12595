"""Protocol between the web process and a renderer process, over one socket.

Each message has a length prefix, 4 bytes little-endian, at most MAX_PIPE_MESSAGE_BYTES. The web process sends a
`RendererMessage` as JSON. The renderer answers with an `Envelope` as JSON, packed with the bytes for a viewer, so that
the web process forwards them without parsing.
The environment variable LIVE_FD_VARIABLE holds the number of the descriptor that the renderer inherits.
"""

from __future__ import annotations

import struct
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from lumigraph.wire.live import Command, pack, unpack

LIVE_FD_VARIABLE = "LUMIGRAPH_LIVE_FD"
MAX_PIPE_MESSAGE_BYTES = 64 << 20  # a JPEG of 4096 x 4096 pixels is smaller
LENGTH_PREFIX_BYTES = 4


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ViewerJoined(_Plain):
    kind: Literal["joined"] = "joined"
    viewer: int


class ViewerLeft(_Plain):
    kind: Literal["left"] = "left"
    viewer: int


class ViewerCommand(_Plain):
    kind: Literal["said"] = "said"
    viewer: int
    command: Command


class FrameCredit(_Plain):
    """Permission to send one more shared frame. The web process sends one for each frame it received; the renderer
    starts with a credit of one."""

    kind: Literal["ready"] = "ready"


RendererMessage = Annotated[ViewerJoined | ViewerLeft | ViewerCommand | FrameCredit, Field(discriminator="kind")]


class Envelope(_Plain):
    """The recipient of a body: one `viewer`, or all if None. A number in `frame` marks a shared frame."""

    viewer: int | None = None
    frame: int | None = None
    text: bool = False  # a text body; binary if False


_RENDERER_MESSAGE: TypeAdapter[RendererMessage] = TypeAdapter(RendererMessage)


def encode_renderer_message(message: RendererMessage) -> bytes:
    """Encode a message to the renderer, with its length prefix."""
    return add_length_prefix(message.model_dump_json().encode())


def decode_renderer_message(message: bytes) -> RendererMessage:
    """Parse a message to the renderer. Raises ValueError on anything else."""
    return _RENDERER_MESSAGE.validate_json(message)


def encode_viewer_message(envelope: Envelope, body: bytes) -> bytes:
    """Encode a message to the web process, with its length prefix."""
    return add_length_prefix(pack(envelope.model_dump_json().encode(), body))


def decode_viewer_message(message: bytes) -> tuple[Envelope, bytes]:
    """Parse a message to the web process. Raises ValueError on anything else."""
    envelope, body = unpack(message)
    return Envelope.model_validate_json(envelope), body


def add_length_prefix(message: bytes) -> bytes:
    return struct.pack("<I", len(message)) + message


def parse_length(prefix: bytes) -> int:
    """Parse the length prefix of a message. Raises ValueError if it exceeds MAX_PIPE_MESSAGE_BYTES."""
    (length,) = struct.unpack("<I", prefix)
    if length > MAX_PIPE_MESSAGE_BYTES:
        raise ValueError(f"a message of {length} bytes; the limit is {MAX_PIPE_MESSAGE_BYTES}")
    return int(length)
