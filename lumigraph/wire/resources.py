"""Jobs, projects and artifacts as the API serves them: requests refer to ids instead of paths.

A job belongs to a project. `train` creates a run whose id is the job's. `evaluate`, `render` and `export` refer to a
run by id; None selects the project's newest. HTTP bodies, job rows and the client share these models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from lumigraph.wire.requests import (
    AssetKind,
    Device,
    Matching,
    OrientationOptions,
    Output,
    Pixels,
    Preset,
    Request,
    Scalar,
    Vector,
)

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINAL_STATES: tuple[JobState, ...] = ("succeeded", "failed", "cancelled")
Id = Annotated[str, Field(pattern=r"^[a-z0-9]{16}$", description="16 letters and digits, assigned by the server")]


# ---- requests


class SampleJob(Request):
    """Render photos of a synthetic scene into the project's files."""

    verb: Literal["sample"] = "sample"
    views: Annotated[int, Field(ge=3, le=2000)] = 60
    size: tuple[Pixels, Pixels] = (640, 480)
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class PoseJob(Request):
    """Estimate camera poses for the project's photos or video. The result is a capture."""

    verb: Literal["pose"] = "pose"
    frames: Annotated[int, Field(ge=3, le=10_000)] = 80
    matching: Matching = "auto"
    allow_partial: bool = False


class TrainJob(Request):
    """Train a run on the newest capture. If `run` is given, that run continues until its new budget is spent."""

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
    """Evaluate a run on its held-out views."""

    verb: Literal["evaluate"] = "evaluate"
    run: Id | None = None
    device: Device = "auto"


class KeyFrame(Request):
    position: Vector
    look_at: Vector
    up: Vector | None = None
    fov: Annotated[float, Field(ge=1, le=170, description="vertical, degrees; default: that of the photos")] | None = (
        None
    )


class RenderJob(Request):
    """Render a video along a camera path (mp4), or the first held-out view (png)."""

    verb: Literal["render"] = "render"
    run: Id | None = None
    form: Literal["mp4", "png"] = "mp4"
    path: Literal["orbit", "spiral"] | Annotated[list[KeyFrame], Field(min_length=1, max_length=10_000)] = "orbit"
    size: tuple[Pixels, Pixels] | None = None
    frames: Annotated[int, Field(ge=1, le=100_000)] | None = None
    fps: Annotated[int, Field(ge=1, le=240)] = 30
    output: Output = "rgb"
    device: Device = "auto"


class ExportJob(OrientationOptions):
    """Export a run to a file format. /formats lists the asset kinds and settings of each format."""

    verb: Literal["export"] = "export"
    run: Id | None = None
    form: Annotated[str, Field(pattern=r"^[a-z0-9]{1,12}(\.[a-z0-9]{1,8})?$")] = "ply"
    kind: AssetKind | None = None
    preset: Preset | None = None
    settings: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)


class ScaleJob(Request):
    """Set the metric scale of a run: `metres` between two points in world coordinates of the capture, or per unit."""

    verb: Literal["scale"] = "scale"
    run: Id | None = None
    points: tuple[Vector, Vector] | None = None
    metres: Annotated[float, Field(gt=0)]


class CompareJob(Request):
    """Compare runs of this project side by side, on one page."""

    verb: Literal["compare"] = "compare"
    runs: Annotated[list[Id], Field(min_length=1, max_length=20)]
    device: Device = "auto"


class NoopJob(Request):
    """Count steps and save in between, to test that workers start, resume after a crash, and stop on request."""

    verb: Literal["check"] = "check"
    steps: Annotated[int, Field(ge=0, le=10**6)] = 0
    pause: Annotated[float, Field(ge=0, le=60)] = 0.0  # seconds per step
    save_every: Annotated[int, Field(ge=1)] = 5  # steps


JobRequest = Annotated[
    SampleJob | PoseJob | TrainJob | EvaluateJob | RenderJob | ExportJob | ScaleJob | CompareJob | NoopJob,
    Field(discriminator="verb"),
]
JOB_REQUEST: TypeAdapter[JobRequest] = TypeAdapter(JobRequest)


# ---- resources


class Resource(BaseModel):
    model_config = ConfigDict(frozen=True, serialize_by_alias=True)


class Job(Resource):
    """The state of one job. `seq` increases with every change on the server: a client that has seen `seq` asks for
    later changes."""

    id: Id
    project: Id
    request: JobRequest = Field(alias="asked")
    state: JobState
    paused: bool = Field(description="not scheduled until resumed; a running job saves and stops first")
    cancelling: bool = Field(description="cancellation was requested and is under way")
    priority: int
    needs: list[Id] = Field(description="jobs that must succeed before")
    attempt: int = Field(description="number of starts")
    crashes: int = Field(description="consecutive crashes without a checkpoint in between")
    stage: str | None = Field(description="current stage of the work")
    done: float
    total: float | None
    unit: str
    seconds_left: float | None
    message: str | None = Field(description="latest message")
    error: str | None
    result: JsonValue
    created: float = Field(description="seconds since 1970")
    started: float | None
    finished: float | None
    seq: int


class Artifact(Resource):
    """An output file of a job."""

    id: Id
    project: Id
    job: Id
    what: str
    name: str
    bytes: int
    sha256: str
    created: float


class Project(Resource):
    id: Id
    name: str
    created: float
    deleted: float | None = Field(description="time of deletion; a deleted project stays in the bin until purged")
    seq: int


class Snapshot(Resource):
    """The first message of the event socket: the complete state as of `seq`."""

    kind: Literal["snapshot"] = "snapshot"
    seq: int
    projects: list[Project]
    jobs: list[Job]


class Change(Resource):
    """Resources that changed since the last message: the newest state of each, without intermediate states."""

    kind: Literal["change"] = "change"
    seq: int
    projects: list[Project]
    jobs: list[Job]


def parse_job_request(data: Any) -> JobRequest:
    """Parse a job request. Raises pydantic.ValidationError."""
    return JOB_REQUEST.validate_python(data)
