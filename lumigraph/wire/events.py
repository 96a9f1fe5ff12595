"""Events that a long task yields: six kinds of plain data that cross processes and sockets.

A long task is a generator of events, ``Iterator[Event]``. A consumer that stops pulling pauses it, ``close()`` cancels
it, and its ``finally`` blocks clean up. The generator's return value is the task's result
(``result = yield from task(...)``).
One event is one line of JSON: ``to_line(event)`` and ``from_line(line)`` are inverse to each other.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeFloat, NonNegativeInt, TypeAdapter


class _Event(BaseModel):
    # JSON has no NaN: a diverged loss must still arrive, so it is serialized as the string "NaN".
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Progress(_Event):
    """Progress of one stage. `done` and `total` count `unit`s; `total` is None while it is unknown."""

    kind: Literal["progress"] = "progress"
    stage: str
    done: Annotated[FiniteFloat, Field(ge=0)]
    total: Annotated[FiniteFloat, Field(ge=0)] | None = None
    unit: str = ""
    seconds_left: Annotated[FiniteFloat, Field(ge=0)] | None = None


class Metrics(_Event):
    """Named values measured at a training step. `seconds` is training time, without evaluation or pauses."""

    kind: Literal["metrics"] = "metrics"
    step: NonNegativeInt
    seconds: NonNegativeFloat
    values: dict[str, float]


class CheckpointWritten(_Event):
    """A complete checkpoint or preview at `path`."""

    kind: Literal["snapshot"] = "snapshot"
    step: NonNegativeInt
    path: str


class Note(_Event):
    """A message for the user."""

    kind: Literal["note"] = "note"
    text: str
    level: Literal["info", "warning"] = "info"


class ArtifactWritten(_Event):
    """A finished artifact. `what` describes it in a few words; `sha256` is the hex digest of its bytes, if computed."""

    kind: Literal["made"] = "made"
    path: str
    what: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class ExportReport(_Event):
    """Properties of an exported file, read back and compared with the source asset."""

    kind: Literal["export"] = "export"
    path: str
    format: str
    holds: str  # gaussians, triangles or points
    count: NonNegativeInt
    bytes: NonNegativeInt
    read_back: bool  # False if this program can write the format but not read it
    bounds: tuple[tuple[FiniteFloat, FiniteFloat, FiniteFloat], tuple[FiniteFloat, FiniteFloat, FiniteFloat]]
    watertight: bool | None = None  # meshes only
    textured: bool | None = None
    up: str  # up axis of the file
    metres_per_unit: Annotated[FiniteFloat, Field(gt=0)] | None = None
    file_from_capture: tuple[tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat], ...]  # three rows


Event = Annotated[
    Progress | Metrics | CheckpointWritten | Note | ArtifactWritten | ExportReport, Field(discriminator="kind")
]

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def to_line(event: Event) -> str:
    """Serialize an event to one line of JSON, without the newline."""
    return event.model_dump_json()


def from_line(line: str | bytes) -> Event:
    """Parse an event written by `to_line`. Raises pydantic.ValidationError (a ValueError) on anything else."""
    return _EVENT.validate_json(line)
