"""Requests, one model per verb: plain data shared by the command line, HTTP bodies and job rows.

Paths are paths of the machine that runs the verb. `None` always means "choose a default and report the choice".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Device = Literal["auto", "cpu", "cuda"]
Matching = Literal["auto", "exhaustive", "sequential", "spatial"]
Pixels = Annotated[int, Field(ge=16, le=16384)]
Renderer = Literal["kernels", "reference"]
Output = Literal["rgb", "depth", "normal", "alpha"]
Vector = tuple[float, float, float]
Scalar = str | int | float | bool | None


class Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainingOptions(Request):
    """Options common to `train` and `scan`: method, budget, resolution, device."""

    method: str | None = None
    settings: dict[str, Scalar | list[Scalar]] = {}  # fields of the method's Config; text is parsed by their types
    seconds: Annotated[float, Field(gt=0)] | None = None
    steps: Annotated[int, Field(gt=0)] | None = None
    downscale: Annotated[float, Field(ge=1)] | None = None
    holdout: Annotated[int, Field(ge=0)] | None = None  # every N-th photo; 0 none; None: default of the capture
    device: Device = "auto"
    seed: int | None = None
    overwrite: bool = False


class PoseRequest(Request):
    source: Path  # folder, zip or video
    out: Path
    allow_partial: bool = False
    matching: Matching = "auto"
    frames: Annotated[int, Field(ge=3)] = 80  # extracted from a video


class SampleRequest(Request):
    out: Path
    views: Annotated[int, Field(ge=3, le=2000)] = 60
    size: tuple[Pixels, Pixels] = (640, 480)  # width, height
    seed: int = 0


class TrainRequest(TrainingOptions):
    capture: Path
    out: Path
    resume: bool = False


class ScanRequest(TrainingOptions):
    source: Path
    out: Path
    frames: Annotated[int, Field(ge=3)] = 80  # extracted from a video
    allow_partial: bool = False


class EvaluateRequest(Request):
    run: Path
    device: Device = "auto"
    renderer: Renderer = "kernels"


class RenderRequest(Request):
    run: Path
    out: Path
    path: str | None = None  # orbit, spiral or the name of a JSON file of keyframes
    size: tuple[Pixels, Pixels] | None = None  # width, height
    frames: Annotated[int, Field(ge=1, le=100_000)] | None = None
    fps: Annotated[int, Field(ge=1, le=240)] = 30
    output: Output = "rgb"
    device: Device = "auto"


class CompareRequest(Request):
    runs: Annotated[list[Path], Field(min_length=1, max_length=20)]
    out: Path  # an HTML page
    device: Device = "auto"


class OrientationOptions(Request):
    """Axes and origin of an exported file. `auto` keeps splat files in capture coordinates; any other format is
    rotated upright with its origin on the ground."""

    frame: Literal["auto", "capture", "upright"] = "auto"
    origin: Literal["auto", "capture", "centre", "ground"] = "auto"


Preset = Literal["web", "game", "print", "archive"]
# points: sampled on the surface; centres: positions of the gaussians
AssetKind = Literal["splats", "mesh", "points", "centres", "voxels"]


class ExportRequest(OrientationOptions):
    run: Path
    out: Path  # the suffix selects the format
    kind: AssetKind | None = None
    preset: Preset | None = None
    settings: dict[str, Scalar | list[Scalar]] = Field(
        default_factory=dict
    )  # of the format and of the extraction; they override the preset


class ConvertRequest(Request):
    source: Path  # a scene file, or a capture
    out: Path  # the suffix selects the format; for a capture, a new folder
    dataset: Literal["colmap", "transforms"] = "colmap"  # format of that folder
    keep_axes: bool = False  # keep coordinates instead of rotating one format's up axis to the other's
    settings: dict[str, Scalar | list[Scalar]] = {}


class ScaleRequest(Request):
    run: Path
    points: tuple[Vector, Vector] | None = None  # in world coordinates of the capture
    metres: Annotated[float, Field(gt=0)]  # distance between them; length of one unit if points is None
