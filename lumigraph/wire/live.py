"""Protocol between a viewer and the render server: commands in, replies and frames out.

A command is one text message of JSON, at most MAX_COMMAND_BYTES bytes; a reply is one text message of JSON. A frame is
one binary message: the length of its header in 4 bytes, little-endian, the header as JSON, and the image as JPEG.

Positions and directions are in the axes and units of the scene's world; `fov` is the vertical angle of view in degrees.
All viewers of a session share one camera, size and output; only `render_frame` is private to its sender.

    command       effect                                                    answer
    move          sets the camera; the newest wins                          done at once, if it has an id
    fly_to        moves the camera there within `duration` seconds          done on arrival, or error `superseded`
    set           sets the output, or the size in pixels of sharp frames    done at once, if it has an id
    render_frame  renders one sharp frame for its sender alone              a frame with the command's id
    ack           this frame and all earlier ones are drawn                 none

Each command may have an `id`, which its answer repeats. An invalid command is answered with an `error`; the
connection stays open. A viewer gets no further frame while MAX_UNACKNOWLEDGED_FRAMES of them wait for its ack. It is
disconnected if an ack stays out for too long. Answers to `render_frame` need no ack.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

PROTOCOL_VERSION: Literal[1] = 1
MAX_COMMAND_BYTES = 16_000  # of JSON
MAX_HEADER_BYTES = 64_000  # of JSON
MAX_UNACKNOWLEDGED_FRAMES = 2  # sent to one viewer

# WebSocket close codes from the range that RFC 6455 leaves to applications, chosen near HTTP's status codes.
CLOSE_CODE_SLOW, CLOSE_CODE_BUSY, CLOSE_CODE_ENDED = 4408, 4429, 4500

Output = Literal["rgb", "depth", "normal"]
Easing = Literal["linear", "ease_in_out"]
ErrorCode = Literal[
    "bad_message",  # not a command of this version; `message` names the fault
    "too_large",  # longer than MAX_COMMAND_BYTES
    "superseded",  # replaced by a newer command before it finished
    "no_scene",  # the scene does not exist yet, or cannot be read
    "render_failed",
    "busy",  # the server already renders its maximum number of scenes
    "ended",  # the renderer process has ended; reopening the view starts another
]

Number = Annotated[float, Field(ge=-1e9, le=1e9)]
Vector = tuple[Number, Number, Number]
Degrees = Annotated[float, Field(ge=1, le=170)]
Side = Annotated[int, Field(ge=16, le=4096)]
Size = tuple[Side, Side]  # width, height in pixels
Count = Annotated[int, Field(ge=0, le=2**53)]  # exact in JavaScript
Id = Annotated[str, Field(max_length=64)]


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class _View(_Plain):
    """Camera position and look-at target. None keeps the previous value."""

    position: Vector
    look_at: Vector
    up: Vector | None = None
    fov: Degrees | None = None

    @model_validator(mode="after")
    def _is_a_view(self) -> _View:
        reach = max(map(abs, (*self.position, *self.look_at)))
        if math.dist(self.position, self.look_at) <= 1e-9 * reach + 1e-12:
            raise ValueError("a camera cannot look at its own position")
        if self.up is not None and math.hypot(*self.up) < 1e-9:
            raise ValueError("up must not be the zero vector")
        return self


class Camera(_View):
    """The complete camera of a session."""

    up: Vector
    fov: Degrees


# -- commands --------------------------------------------------------------------------------------------------------


class _Command(_Plain):
    version: Literal[1] = PROTOCOL_VERSION
    id: Id | None = None


class Move(_Command, _View):
    kind: Literal["move"] = "move"
    seq: Count | None = None  # repeated in the header of the frame that shows this camera


class FlyTo(_Command, _View):
    kind: Literal["fly_to"] = "fly_to"
    duration: Annotated[float, Field(ge=0, le=60)] = 1.0  # seconds
    easing: Easing = "ease_in_out"


class RenderFrame(_Command, _View):
    """A request for one sharp frame. `size` and `output` default to the session's."""

    kind: Literal["render_frame"] = "render_frame"
    size: Size | None = None
    output: Output | None = None


class SetOutput(_Command):
    kind: Literal["set"] = "set"
    size: Size | None = None
    output: Output | None = None


class Ack(_Command):
    kind: Literal["ack"] = "ack"
    frame: Count


Command = Annotated[Move | FlyTo | RenderFrame | SetOutput | Ack, Field(discriminator="kind")]


# -- answers ---------------------------------------------------------------------------------------------------------


class CommandDone(_Plain):
    version: Literal[1] = PROTOCOL_VERSION
    kind: Literal["done"] = "done"
    id: Id | None = None
    command: Literal["move", "fly_to", "set"]


class CommandError(_Plain):
    version: Literal[1] = PROTOCOL_VERSION
    kind: Literal["error"] = "error"
    id: Id | None = None
    code: ErrorCode
    message: str


class Hello(_Plain):
    """The first message to a viewer: scene and view settings. It is sent again once a late scene becomes available."""

    version: Literal[1] = PROTOCOL_VERSION
    kind: Literal["hello"] = "hello"
    viewer: Count  # number of this viewer; frame headers repeat it as `by`
    method: str  # training method of the scene
    box: tuple[Vector, Vector] | None = None  # smallest and largest corner of the scene; None while it is missing
    camera: Camera
    size: Size
    output: Output


Reply = Annotated[CommandDone | CommandError | Hello, Field(discriminator="kind")]


class FrameHeader(_Plain):
    """The header of a frame. Interim frames are smaller than the session's size and coarser; `sharp` frames show a
    camera at rest. The answer to a `render_frame` has the number 0 and the command's id."""

    version: Literal[1] = PROTOCOL_VERSION
    kind: Literal["frame"] = "frame"
    frame: Count  # incremented by one for each shared frame; `ack` names it
    id: Id | None = None
    width: Annotated[int, Field(ge=1, le=4096)]
    height: Annotated[int, Field(ge=1, le=4096)]
    sharp: bool
    output: Output
    camera: Camera
    seq: Count | None = None  # of the newest `move` included in this frame
    by: Count | None = None  # the viewer that sent this `move`
    render_ms: Annotated[float, Field(ge=0)]  # rendering and JPEG encoding


_COMMAND: TypeAdapter[Command] = TypeAdapter(Command)
_REPLY: TypeAdapter[Reply] = TypeAdapter(Reply)


def read_command(message: str | bytes) -> Command | CommandError:
    """Parse a command, or return the error that answers it. Never raises."""
    if len(message) > MAX_COMMAND_BYTES or (isinstance(message, str) and len(message.encode()) > MAX_COMMAND_BYTES):
        return CommandError(code="too_large", message=f"a command has at most {MAX_COMMAND_BYTES} bytes")
    if isinstance(message, bytes):
        return CommandError(code="bad_message", message="a command is a text message, not a binary one")
    try:
        return _COMMAND.validate_json(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        location = ".".join(map(str, first["loc"]))
        text = f"{location}: {first['msg']}" if location else str(first["msg"])
        return CommandError(id=_parse_id(message), code="bad_message", message=text[:500])


def read_reply(message: str | bytes) -> Reply:
    """Parse a reply. Raises ValueError on anything else."""
    return _REPLY.validate_json(message)


def pack_frame(header: FrameHeader, jpeg: bytes) -> bytes:
    """Encode a frame as one binary message."""
    return pack(header.model_dump_json(exclude_none=True).encode(), jpeg)


def unpack_frame(message: bytes) -> tuple[FrameHeader, bytes]:
    """Split a binary message into header and JPEG. Raises ValueError if it is not a frame."""
    header, jpeg = unpack(message)
    return FrameHeader.model_validate_json(header), jpeg


def pack(header: bytes, body: bytes) -> bytes:
    """Join two parts: the length of the first in 4 bytes, little-endian, and then both."""
    return struct.pack("<I", len(header)) + header + body


def unpack(message: bytes) -> tuple[bytes, bytes]:
    """Invert `pack`. Raises ValueError if the length prefix is not that of a header."""
    if len(message) < 4:
        raise ValueError(f"a message of {len(message)} bytes has no header")
    (length,) = struct.unpack_from("<I", message)
    if length > min(MAX_HEADER_BYTES, len(message) - 4):
        raise ValueError(f"a message of {len(message)} bytes has no header of {length}")
    return message[4 : 4 + length], message[4 + length :]


def _parse_id(message: str) -> str | None:
    """Extract the id of an otherwise invalid command, so that its sender can match the error to it."""
    try:
        command_id = json.loads(message)["id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return command_id if isinstance(command_id, str) and len(command_id) <= 64 else None
