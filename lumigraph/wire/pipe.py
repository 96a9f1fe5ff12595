"""What the web process and the process that renders say to each other, over one socket between them.

Each message has its length in front, 4 bytes little-endian, at most LARGEST of them. Down goes a `Down` as JSON; up
comes an `Up` as JSON packed with what a viewer shall get, byte for byte: the web process need not look into it.
The number of the descriptor that the process that renders inherits stands in its environment as DESCRIPTOR.
"""

from __future__ import annotations

import struct
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from lumigraph.wire.live import Command, pack, unpack

DESCRIPTOR = "LUMIGRAPH_LIVE_FD"
LARGEST = 64 << 20  # bytes of one message: a JPEG of 4096 x 4096 pixels has less
LENGTH = 4  # bytes in front of each message


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Joined(_Plain):
    kind: Literal["joined"] = "joined"
    viewer: int


class Left(_Plain):
    kind: Literal["left"] = "left"
    viewer: int


class Said(_Plain):
    kind: Literal["said"] = "said"
    viewer: int
    command: Command


class Ready(_Plain):
    """Somebody can take another frame. One is sent for each that came; at the start one may come unasked."""

    kind: Literal["ready"] = "ready"


Down = Annotated[Joined | Left | Said | Ready, Field(discriminator="kind")]


class Up(_Plain):
    """For whom the body is: a `viewer`, or all of them. With a number in `frame` it is a picture for all."""

    viewer: int | None = None
    frame: int | None = None
    text: bool = False  # the body is text, else binary


_DOWN: TypeAdapter[Down] = TypeAdapter(Down)


def down(message: Down) -> bytes:
    """A message to the process that renders, with its length."""
    return framed(message.model_dump_json().encode())


def read_down(message: bytes) -> Down:
    """Raises ValueError on anything else."""
    return _DOWN.validate_json(message)


def up(envelope: Up, body: bytes) -> bytes:
    """A message to the web process, with its length."""
    return framed(pack(envelope.model_dump_json().encode(), body))


def read_up(message: bytes) -> tuple[Up, bytes]:
    """Raises ValueError on anything else."""
    envelope, body = unpack(message)
    return Up.model_validate_json(envelope), body


def framed(message: bytes) -> bytes:
    return struct.pack("<I", len(message)) + message


def length_of(prefix: bytes) -> int:
    """The length that stands in front of a message. Raises ValueError where it is more than LARGEST."""
    (length,) = struct.unpack("<I", prefix)
    if length > LARGEST:
        raise ValueError(f"a message of {length} bytes; the largest has {LARGEST}")
    return int(length)
