"""What a long task says while it runs: six kinds of events, plain data that crosses processes and sockets.

A long task is a generator of events, ``Iterator[Event]``. Not pulling is pause, ``close()`` is cancel, ``finally``
cleans up; a result, where there is one, is the generator's return value (``result = yield from task(...)``).
One event is one line of JSON: ``to_line(event)`` and ``from_line(line)`` are inverse to each other.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeFloat, NonNegativeInt, TypeAdapter


class _Event(BaseModel):
    # JSON has no NaN: a loss that diverged must still arrive, so it travels as the string "NaN".
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Progress(_Event):
    """How far a stage has come. `done` and `total` count `unit`s; `total` is None while nobody knows it."""

    kind: Literal["progress"] = "progress"
    stage: str
    done: Annotated[FiniteFloat, Field(ge=0)]
    total: Annotated[FiniteFloat, Field(ge=0)] | None = None
    unit: str = ""
    seconds_left: Annotated[FiniteFloat, Field(ge=0)] | None = None


class Metrics(_Event):
    """Named numbers measured at a training step. `seconds` is training time, without evaluation or pauses."""

    kind: Literal["metrics"] = "metrics"
    step: NonNegativeInt
    seconds: NonNegativeFloat
    values: dict[str, float]


class Snapshot(_Event):
    """A checkpoint or a preview now lies at `path`, complete."""

    kind: Literal["snapshot"] = "snapshot"
    step: NonNegativeInt
    path: str


class Note(_Event):
    """A sentence for the person who waits."""

    kind: Literal["note"] = "note"
    text: str
    level: Literal["info", "warning"] = "info"


class Made(_Event):
    """A finished artefact: `what` it is in a word or two, and the hex SHA-256 of its bytes where it was computed."""

    kind: Literal["made"] = "made"
    path: str
    what: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class ExportReport(_Event):
    """A written file, read back and compared with what was to be in it."""

    kind: Literal["export"] = "export"
    path: str
    format: str
    holds: str  # gaussians, triangles or points
    count: NonNegativeInt
    bytes: NonNegativeInt
    read_back: bool  # False where this program writes the format and cannot read it
    bounds: tuple[tuple[FiniteFloat, FiniteFloat, FiniteFloat], tuple[FiniteFloat, FiniteFloat, FiniteFloat]]
    watertight: bool | None = None  # of a mesh
    textured: bool | None = None
    up: str  # the direction in the file that points up
    metres_per_unit: Annotated[FiniteFloat, Field(gt=0)] | None = None
    file_from_capture: tuple[tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat], ...]  # three rows


Event = Annotated[Progress | Metrics | Snapshot | Note | Made | ExportReport, Field(discriminator="kind")]

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def to_line(event: Event) -> str:
    """One event as one line of JSON, without the newline."""
    return event.model_dump_json()


def from_line(line: str | bytes) -> Event:
    """The event that `to_line` wrote. Raises pydantic.ValidationError (a ValueError) on anything else."""
    return _EVENT.validate_json(line)
