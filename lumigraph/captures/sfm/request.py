"""What `captures.pose` asks of the process: plain data that travels as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mapper = Literal["incremental", "global"]


@dataclass(frozen=True)
class Request:
    """What the process is to do. `cameras[i]` is the number of the camera that took photo i."""

    folder: str  # holds the photos `names` and, afterwards, beside it the model
    model: str  # folder to write
    names: list[str]
    sizes: list[tuple[int, int]]  # width, height
    cameras: list[int]
    focals: list[float | None]  # pixels at `sizes`
    pairs: list[tuple[int, int]]
    mapper: Mapper
    masks: list[str | None]  # files that are black where a photo is to be ignored
    max_image_size: int
    max_features: int
    seed: int
