"""What a browser is given to look at: a posed capture, a run as it grows, its evaluation.

Workers write these as JSON beside the pictures and files that they name; the server hands both out. All positions and
directions are in the world of the capture, cameras have OpenCV's axes (x right, y down, z forward). Names of files are
relative to the folder in which the JSON lies.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from lumigraph.wire.requests import Scalar

Vector = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
Row = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
Box = Annotated[tuple[Vector, Vector], Field(description="smallest and largest corner of what is worth seeing")]
Count = Annotated[int, Field(ge=0)]


class _Shown(BaseModel):
    model_config = ConfigDict(frozen=True)


class PosedImage(_Shown):
    """A photo and the camera that took it."""

    name: str
    thumb: str = Field(description="its picture, reduced; of the same shape")
    width: int = Field(description="pixels of the photo itself, as the next two are")
    height: int
    focal: tuple[FiniteFloat, FiniteFloat]
    centre: tuple[FiniteFloat, FiniteFloat]
    world_from_cam: tuple[Row, Row, Row]
    held_out: bool = Field(description="kept for judging, never trained with")


class Rejected(_Shown):
    """A photo without a camera, and why it has none."""

    name: str
    reason: str


class ShownCapture(_Shown):
    """Where the photos were taken."""

    version: Literal[1] = 1
    job: str | None = Field(description="that found the poses; null where they came with the photos")
    box: Box
    up: Vector
    images: list[PosedImage]
    rejected: list[Rejected]
    points: str | None = Field(description="a PLY of the points that the poses were found with")


class ShownView(_Shown):
    """A held-out photo and what the run makes of it. `psnr` in dB is null where both are equal."""

    name: str
    photo: str
    render: str
    psnr: FiniteFloat | None


class Start(_Shown):
    """A camera to begin looking with; `fov` is vertical, in degrees."""

    position: Vector
    look_at: Vector
    up: Vector
    fov: FiniteFloat


class ShownRun(_Shown):
    """A run as last saved: its scene for a viewer of gaussians, and renders of views that it never saw."""

    version: Literal[2] = 2
    method: str
    step: Count
    seconds: FiniteFloat = Field(description="of training")
    finished: bool
    count: Count | None = Field(description="of gaussians; null where the method has none")
    parts: list[str] = Field(
        description="SPZs of them; of a large scene several, each a part of it, and what covers most of it first"
    )
    bytes: Count | None = Field(description="of these files")
    box: Box
    up: Vector
    views: list[ShownView]
    start: Start


class EvaluatedView(_Shown):
    """A held-out photo at the size trained with."""

    name: str
    psnr: FiniteFloat | None
    ssim: FiniteFloat
    photo: str
    render: str


class ShownEvaluation(_Shown):
    """How good a run is on views that it never saw; the worst come first, and not all of many."""

    version: Literal[1] = 1
    step: Count
    seconds: FiniteFloat
    psnr: FiniteFloat | None
    ssim: FiniteFloat | None
    total: Count = Field(description="of the views judged")
    views: list[EvaluatedView]


class RunSummary(_Shown):
    """A run in a list. What nobody knows yet is null."""

    id: str
    method: str
    settings: dict[str, Scalar | list[Scalar]]
    seconds: FiniteFloat | None = Field(description="the budget")
    steps: int | None = Field(description="the budget")
    step: Count | None
    trained_seconds: FiniteFloat | None
    finished: bool
    count: Count | None = Field(description="of gaussians")
    psnr: FiniteFloat | None = Field(description="of its evaluation")
    ssim: FiniteFloat | None
    created: float = Field(description="seconds since 1970")


class Usage(_Shown):
    """What a project takes on the disk."""

    files: Count = Field(description="that were uploaded, or made by `sample`")
    photos: Count = Field(description="of them")
    bytes: Count = Field(description="of all that the project holds, runs and what jobs made included")
