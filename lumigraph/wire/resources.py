"""A job over the wire: what is asked of it, spoken in ids instead of paths, and what can be seen of it.

A job belongs to a project. `train` makes a run, whose id is the job's; `evaluate`, `render` and `export` name the run
they mean, or None for the project's newest. The same words stand in an HTTP body, in a job's row and in what the
client sends.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from lumigraph.wire.requests import Device, Kind, Matching, Output, Pixels, Placing, Preset, Request, Scalar

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("succeeded", "failed", "cancelled")
Id = Annotated[str, Field(pattern=r"^[a-z0-9]{16}$", description="16 letters and digits, made by the server")]
Vector = tuple[float, float, float]


# ---- what is asked


class SampleJob(Request):
    """Photos of a made-up scene become the project's files."""

    verb: Literal["sample"] = "sample"
    views: Annotated[int, Field(ge=3, le=2000)] = 60
    size: tuple[Pixels, Pixels] = (640, 480)
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class PoseJob(Request):
    """The project's photos or video become a capture: photos with known cameras."""

    verb: Literal["pose"] = "pose"
    frames: Annotated[int, Field(ge=3, le=10_000)] = 80
    matching: Matching = "auto"
    allow_partial: bool = False


class TrainJob(Request):
    """The capture becomes a run. With `run`, that run goes on until its new budget is spent."""

    verb: Literal["train"] = "train"
    method: Annotated[str, Field(max_length=100)] | None = None
    settings: dict[str, Scalar | list[Scalar]] = Field(default={}, max_length=100)
    seconds: Annotated[float, Field(gt=0, le=1e7)] | None = None
    steps: Annotated[int, Field(gt=0, le=10**9)] | None = None
    downscale: Annotated[float, Field(ge=1, le=64)] | None = None
    holdout: Annotated[int, Field(ge=0, le=10**6)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    device: Device = "auto"
    run: Id | None = None


class EvaluateJob(Request):
    """How good a run is on the views it never saw."""

    verb: Literal["evaluate"] = "evaluate"
    run: Id | None = None
    device: Device = "auto"


class KeyFrame(Request):
    position: Vector
    look_at: Vector
    up: Vector | None = None
    fov: Annotated[float, Field(ge=1, le=170, description="vertical, degrees; that of the photos")] | None = None


class RenderJob(Request):
    """A film (mp4) or the first held-out view (png)."""

    verb: Literal["render"] = "render"
    run: Id | None = None
    form: Literal["mp4", "png"] = "mp4"
    path: Literal["orbit", "spiral"] | Annotated[list[KeyFrame], Field(min_length=1, max_length=10_000)] = "orbit"
    size: tuple[Pixels, Pixels] | None = None
    frames: Annotated[int, Field(ge=1, le=100_000)] | None = None
    fps: Annotated[int, Field(ge=1, le=240)] = 30
    output: Output = "rgb"
    device: Device = "auto"


class ExportJob(Placing):
    """A run as a file of another program. What each form can hold, and its settings, are in /formats."""

    verb: Literal["export"] = "export"
    run: Id | None = None
    form: Annotated[str, Field(pattern=r"^[a-z0-9]{1,12}(\.[a-z0-9]{1,8})?$")] = "ply"
    kind: Kind | None = None
    preset: Preset | None = None
    settings: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)


class ScaleJob(Request):
    """How large the place of a run is: `metres` between two points of the capture's world, or of one unit."""

    verb: Literal["scale"] = "scale"
    run: Id | None = None
    points: tuple[Vector, Vector] | None = None
    metres: Annotated[float, Field(gt=0)]


class CompareJob(Request):
    """Runs of this project side by side, on one page."""

    verb: Literal["compare"] = "compare"
    runs: Annotated[list[Id], Field(min_length=1, max_length=20)]
    device: Device = "auto"


class CheckJob(Request):
    """Counts, saving as it goes: whether workers start, go on after a crash and stop when asked."""

    verb: Literal["check"] = "check"
    steps: Annotated[int, Field(ge=0, le=10**6)] = 0
    pause: Annotated[float, Field(ge=0, le=60)] = 0.0  # seconds a step
    save_every: Annotated[int, Field(ge=1)] = 5  # steps


Asked = Annotated[
    SampleJob | PoseJob | TrainJob | EvaluateJob | RenderJob | ExportJob | ScaleJob | CompareJob | CheckJob,
    Field(discriminator="verb"),
]
ASKED: TypeAdapter[Asked] = TypeAdapter(Asked)


# ---- what can be seen


class Seen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Job(Seen):
    """One job as it stands. `seq` grows with each change of anything: who has seen `seq` asks for what came after."""

    id: Id
    project: Id
    asked: Asked
    state: State
    paused: bool = Field(description="set aside until resumed; a running job saves and stops first")
    cancelling: bool = Field(description="asked to stop, and stopping")
    priority: int
    needs: list[Id] = Field(description="jobs that must succeed before")
    attempt: int = Field(description="times it was started")
    crashes: int = Field(description="in a row, without anything saved in between")
    stage: str | None = Field(description="what it is doing")
    done: float
    total: float | None
    unit: str
    seconds_left: float | None
    message: str | None = Field(description="the last thing it said")
    error: str | None
    result: JsonValue
    created: float = Field(description="seconds since 1970")
    started: float | None
    finished: float | None
    seq: int


class Artifact(Seen):
    """A file that a job made."""

    id: Id
    project: Id
    job: Id
    what: str
    name: str
    bytes: int
    sha256: str
    created: float


class Project(Seen):
    id: Id
    name: str
    created: float
    deleted: float | None = Field(description="when it was put into the bin, from where it can be restored")
    seq: int


class Snapshot(Seen):
    """The first message of the socket of events: all that is, as of `seq`."""

    kind: Literal["snapshot"] = "snapshot"
    seq: int
    projects: list[Project]
    jobs: list[Job]


class Change(Seen):
    """What changed since: the newest state of each, never those between."""

    kind: Literal["change"] = "change"
    seq: int
    projects: list[Project]
    jobs: list[Job]


def request_of(asked: Any) -> Asked:
    """Raises pydantic.ValidationError."""
    return ASKED.validate_python(asked)
