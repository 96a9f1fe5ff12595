"""What a viewer and a render server say to each other: commands in, replies and frames out.

A command is one text message of JSON, at most LARGEST_COMMAND bytes; a reply is one text message of JSON. A frame is
one binary message: the length of its header in 4 bytes, little-endian, the header as JSON, and the picture as JPEG.

Positions and directions are in the axes and units of the scene's world; `fov` is the vertical angle of view in degrees.
One camera, size and output belong to all viewers of a session; `render_frame` alone is for the one who asks.

    command       what it does                                              its answer
    move          the camera stands here from now on; the newest wins       done at once, where it has an id
    fly_to        the camera goes there within `duration` seconds           done on arrival, or error `superseded`
    set           another output or size, in pixels of a frame at rest      done at once, where it has an id
    render_frame  one sharp frame for the asker, whatever others look at    a frame with the command's id
    ack           the frame of this number, and all before it, are drawn    none

Each may have an `id`, which comes back in its answer. What is wrong with a command is said in an `error`; the
connection stays open. A viewer gets no further frame while UNACKNOWLEDGED of them wait for its ack, and is cut off when
it owes one for too long; `render_frame`'s answers need none.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

VERSION: Literal[1] = 1
LARGEST_COMMAND = 16_000  # bytes of JSON
LARGEST_HEADER = 64_000  # bytes of JSON
UNACKNOWLEDGED = 2  # frames on their way to one viewer

# The codes with which a connection is closed, of those that RFC 6455 leaves to the application; near HTTP's.
CLOSED_SLOW, CLOSED_BUSY, CLOSED_ENDED = 4408, 4429, 4500

Output = Literal["rgb", "depth", "normal"]
Easing = Literal["linear", "ease_in_out"]
ErrorCode = Literal[
    "bad_message",  # not a command of this version; `message` says what is wrong with it
    "too_large",  # longer than LARGEST_COMMAND
    "superseded",  # a newer command took its place before it was done
    "no_scene",  # there is nothing to show yet, or it cannot be read
    "render_failed",
    "busy",  # as many scenes are being shown as this server allows
    "ended",  # the process that renders has ended; opening the view again starts another
]

Number = Annotated[float, Field(ge=-1e9, le=1e9)]
Vector = tuple[Number, Number, Number]
Degrees = Annotated[float, Field(ge=1, le=170)]
Side = Annotated[int, Field(ge=16, le=4096)]
Size = tuple[Side, Side]  # width, height in pixels
Count = Annotated[int, Field(ge=0, le=2**53)]  # what JavaScript can count
Id = Annotated[str, Field(max_length=64)]


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class _Stand(_Plain):
    """Where a camera stands and what it looks at; a None is as it was before."""

    position: Vector
    look_at: Vector
    up: Vector | None = None
    fov: Degrees | None = None

    @model_validator(mode="after")
    def _is_a_view(self) -> _Stand:
        reach = max(map(abs, (*self.position, *self.look_at)))
        if math.dist(self.position, self.look_at) <= 1e-9 * reach + 1e-12:
            raise ValueError("a camera cannot look at the point where it stands")
        if self.up is not None and math.hypot(*self.up) < 1e-9:
            raise ValueError("up must have a length")
        return self


class Camera(_Stand):
    """All that there is to know about the camera of a session."""

    up: Vector
    fov: Degrees


# -- commands --------------------------------------------------------------------------------------------------------


class _Command(_Plain):
    version: Literal[1] = VERSION
    id: Id | None = None


class Move(_Command, _Stand):
    kind: Literal["move"] = "move"
    seq: Count | None = None  # comes back in the header of the frame that shows this camera


class FlyTo(_Command, _Stand):
    kind: Literal["fly_to"] = "fly_to"
    duration: Annotated[float, Field(ge=0, le=60)] = 1.0  # seconds
    easing: Easing = "ease_in_out"


class RenderFrame(_Command, _Stand):
    """`size` and `output` are the session's where they are not given."""

    kind: Literal["render_frame"] = "render_frame"
    size: Size | None = None
    output: Output | None = None


class Set(_Command):
    kind: Literal["set"] = "set"
    size: Size | None = None
    output: Output | None = None


class Ack(_Command):
    kind: Literal["ack"] = "ack"
    frame: Count


Command = Annotated[Move | FlyTo | RenderFrame | Set | Ack, Field(discriminator="kind")]


# -- answers ---------------------------------------------------------------------------------------------------------


class Done(_Plain):
    version: Literal[1] = VERSION
    kind: Literal["done"] = "done"
    id: Id | None = None
    command: Literal["move", "fly_to", "set"]


class Error(_Plain):
    version: Literal[1] = VERSION
    kind: Literal["error"] = "error"
    id: Id | None = None
    code: ErrorCode
    message: str


class Hello(_Plain):
    """The first word to a viewer: what is shown, and how. Said again when the scene is there at last."""

    version: Literal[1] = VERSION
    kind: Literal["hello"] = "hello"
    viewer: Count  # the number of this viewer, which headers name as `by`
    method: str  # that learned the scene
    box: tuple[Vector, Vector] | None = None  # smallest and largest corner of the scene; None while there is none
    camera: Camera
    size: Size
    output: Output


Reply = Annotated[Done | Error | Hello, Field(discriminator="kind")]


class Frame(_Plain):
    """The header of a frame. Pictures in between are smaller than the session's size and coarser; `sharp` ones are at
    rest. One that answers a `render_frame` has the number 0 and its id."""

    version: Literal[1] = VERSION
    kind: Literal["frame"] = "frame"
    frame: Count  # rises by one with each that is shown to all; ack this
    id: Id | None = None
    width: Annotated[int, Field(ge=1, le=4096)]
    height: Annotated[int, Field(ge=1, le=4096)]
    sharp: bool
    output: Output
    camera: Camera
    seq: Count | None = None  # of the newest `move` that is in this picture
    by: Count | None = None  # the viewer who sent that
    render_ms: Annotated[float, Field(ge=0)]  # spent on the picture and its JPEG


_COMMAND: TypeAdapter[Command] = TypeAdapter(Command)
_REPLY: TypeAdapter[Reply] = TypeAdapter(Reply)


def read_command(message: str | bytes) -> Command | Error:
    """The command in a message, or the error that answers it; nothing is raised, whatever came."""
    if len(message) > LARGEST_COMMAND or (isinstance(message, str) and len(message.encode()) > LARGEST_COMMAND):
        return Error(code="too_large", message=f"a command has at most {LARGEST_COMMAND} bytes")
    if isinstance(message, bytes):
        return Error(code="bad_message", message="a command is a text message, not a binary one")
    try:
        return _COMMAND.validate_json(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        said = f"{where}: {first['msg']}" if where else str(first["msg"])
        return Error(id=_id_of(message), code="bad_message", message=said[:500])


def read_reply(message: str | bytes) -> Reply:
    """The reply in a text message. Raises ValueError on anything else."""
    return _REPLY.validate_json(message)


def pack_frame(header: Frame, jpeg: bytes) -> bytes:
    """A frame as one binary message."""
    return pack(header.model_dump_json(exclude_none=True).encode(), jpeg)


def unpack_frame(message: bytes) -> tuple[Frame, bytes]:
    """The header and the JPEG of a binary message. Raises ValueError where it is no frame."""
    header, jpeg = unpack(message)
    return Frame.model_validate_json(header), jpeg


def pack(header: bytes, body: bytes) -> bytes:
    """Two parts as one message: the length of the first in 4 bytes, little-endian, and then both."""
    return struct.pack("<I", len(header)) + header + body


def unpack(message: bytes) -> tuple[bytes, bytes]:
    """The inverse of `pack`. Raises ValueError where the length is not one of a header."""
    if len(message) < 4:
        raise ValueError(f"a message of {len(message)} bytes has no header")
    (length,) = struct.unpack_from("<I", message)
    if length > min(LARGEST_HEADER, len(message) - 4):
        raise ValueError(f"a message of {len(message)} bytes has no header of {length}")
    return message[4 : 4 + length], message[4 + length :]


def _id_of(message: str) -> str | None:
    """The id of a command that is wrong in another place, so that its sender knows which it was."""
    try:
        found = json.loads(message)["id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) and len(found) <= 64 else None
