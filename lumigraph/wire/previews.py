"""Previews for the browser: a posed capture, a run in training, an evaluation.

Workers write these as JSON next to the image and asset files that they name; the server serves both. All positions and
directions are in world coordinates of the capture. Cameras have OpenCV's axes (x right, y down, z forward). File names
are relative to the folder of the JSON file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from lumigraph.wire.requests import Scalar

Vector = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
Row = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
Box = Annotated[tuple[Vector, Vector], Field(description="smallest and largest corner of the relevant volume")]
Count = Annotated[int, Field(ge=0)]


class _Preview(BaseModel):
    model_config = ConfigDict(frozen=True)


class PosedImage(_Preview):
    """A photo and its camera."""

    name: str
    thumb: str = Field(description="thumbnail file; same aspect ratio as the photo")
    width: int = Field(description="in pixels of the full-size photo, as are focal and centre")
    height: int
    focal: tuple[FiniteFloat, FiniteFloat]
    centre: tuple[FiniteFloat, FiniteFloat]
    world_from_cam: tuple[Row, Row, Row]
    held_out: bool = Field(description="used for evaluation only, never for training")


class RejectedImage(_Preview):
    """A photo without a camera, and the reason."""

    name: str
    reason: str


class CapturePreview(_Preview):
    """The cameras of a capture."""

    version: Literal[1] = 1
    job: str | None = Field(description="id of the pose job; null if the poses came with the photos")
    box: Box
    up: Vector
    images: list[PosedImage]
    rejected: list[RejectedImage]
    points: str | None = Field(description="PLY file of the sparse points from pose estimation")


class ViewPreview(_Preview):
    """A held-out photo and its render. `psnr` in dB is null if both are equal."""

    name: str
    photo: str
    render: str
    psnr: FiniteFloat | None


class StartCamera(_Preview):
    """Initial camera of the viewer; `fov` is vertical, in degrees."""

    position: Vector
    look_at: Vector
    up: Vector
    fov: FiniteFloat


class RunPreview(_Preview):
    """The last saved state of a run: gaussians for the splat viewer, and renders of held-out views."""

    version: Literal[2] = 2
    method: str
    step: Count
    seconds: FiniteFloat = Field(description="training time")
    finished: bool
    count: Count | None = Field(description="number of gaussians; null if the method has none")
    parts: list[str] = Field(description="SPZ files; a large scene has several, the one that covers most of it first")
    bytes: Count | None = Field(description="total size of these files")
    box: Box
    up: Vector
    views: list[ViewPreview]
    start: StartCamera


class EvaluatedView(_Preview):
    """A held-out photo at training resolution."""

    name: str
    psnr: FiniteFloat | None
    ssim: FiniteFloat
    photo: str
    render: str


class EvaluationPreview(_Preview):
    """Metrics of a run on held-out views. `views` is sorted worst first and truncated if there are many."""

    version: Literal[1] = 1
    step: Count
    seconds: FiniteFloat
    psnr: FiniteFloat | None
    ssim: FiniteFloat | None
    total: Count = Field(description="number of evaluated views")
    views: list[EvaluatedView]


class RunSummary(_Preview):
    """An entry of the list of runs. Unknown values are null."""

    id: str
    method: str
    settings: dict[str, Scalar | list[Scalar]]
    seconds: FiniteFloat | None = Field(description="training budget")
    steps: int | None = Field(description="training budget")
    step: Count | None
    trained_seconds: FiniteFloat | None
    finished: bool
    count: Count | None = Field(description="number of gaussians")
    psnr: FiniteFloat | None = Field(description="from the evaluation")
    ssim: FiniteFloat | None
    created: float = Field(description="seconds since 1970")


class DiskUsage(_Preview):
    """Disk usage of a project."""

    files: Count = Field(description="files uploaded, or written by `sample`")
    photos: Count = Field(description="photos among them")
    bytes: Count = Field(description="total size of the project, including runs and artifacts of jobs")
