"""What is asked of each verb, as plain data: the same words on a command line, in an HTTP body and in a job's row.

Paths are the paths of the machine that does the work. `None` always means "choose for me, and say what was chosen".
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
Triple = tuple[float, float, float]
Scalar = str | int | float | bool | None


class Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Learning(Request):
    """What `train` and `scan` have in common: how long, how large, with what."""

    method: str | None = None
    settings: dict[str, Scalar | list[Scalar]] = {}  # fields of the method's Config; text is parsed by their types
    seconds: Annotated[float, Field(gt=0)] | None = None
    steps: Annotated[int, Field(gt=0)] | None = None
    downscale: Annotated[float, Field(ge=1)] | None = None
    holdout: Annotated[int, Field(ge=0)] | None = None  # every N-th photo; 0 none; None as the capture says
    device: Device = "auto"
    seed: int | None = None
    overwrite: bool = False


class PoseRequest(Request):
    source: Path  # folder, zip or video
    out: Path
    allow_partial: bool = False
    matching: Matching = "auto"
    frames: Annotated[int, Field(ge=3)] = 80  # taken from a video


class SampleRequest(Request):
    out: Path
    views: Annotated[int, Field(ge=3, le=2000)] = 60
    size: tuple[Pixels, Pixels] = (640, 480)  # width, height
    seed: int = 0


class TrainRequest(Learning):
    capture: Path
    out: Path
    resume: bool = False


class ScanRequest(Learning):
    source: Path
    out: Path
    frames: Annotated[int, Field(ge=3)] = 80  # taken from a video
    allow_partial: bool = False


class EvaluateRequest(Request):
    run: Path
    device: Device = "auto"
    renderer: Renderer = "kernels"


class RenderRequest(Request):
    run: Path
    out: Path
    path: str | None = None  # orbit, spiral or the name of a JSON file of key frames
    size: tuple[Pixels, Pixels] | None = None  # width, height
    frames: Annotated[int, Field(ge=1, le=100_000)] | None = None
    fps: Annotated[int, Field(ge=1, le=240)] = 30
    output: Output = "rgb"
    device: Device = "auto"


class CompareRequest(Request):
    runs: Annotated[list[Path], Field(min_length=1, max_length=20)]
    out: Path  # an HTML page
    device: Device = "auto"


class Placing(Request):
    """Where a scene comes to lie in a file. `auto` keeps splat files in the frame of the capture and lays all else
    upright, on its ground."""

    frame: Literal["auto", "capture", "upright"] = "auto"
    origin: Literal["auto", "capture", "centre", "ground"] = "auto"


Preset = Literal["web", "game", "print", "archive"]
Kind = Literal["splats", "mesh", "points", "centres", "voxels"]  # points: on the surface; centres: of the gaussians


class ExportRequest(Placing):
    run: Path
    out: Path  # the suffix chooses the format
    kind: Kind | None = None
    preset: Preset | None = None
    settings: dict[str, Scalar | list[Scalar]] = Field(
        default_factory=dict
    )  # of the format, and of what is made for it; over the preset


class ConvertRequest(Request):
    source: Path  # a file of a scene, or a capture
    out: Path  # the suffix chooses the format; of a capture, a folder to make
    dataset: Literal["colmap", "transforms"] = "colmap"  # the form of that folder
    keep_axes: bool = False  # do not turn what is up in the one format to what is up in the other
    settings: dict[str, Scalar | list[Scalar]] = {}


class ScaleRequest(Request):
    run: Path
    points: tuple[Triple, Triple] | None = None  # of the capture's world
    metres: Annotated[float, Field(gt=0)]  # between them; of one unit where no points are given
