"""Input of the structure-from-motion process: plain data, serialised as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mapper = Literal["incremental", "global"]


@dataclass(frozen=True)
class Request:
    """Parameters of a pose estimation. `cameras[i]` is the number of the camera that took photo i."""

    folder: str  # contains the photos `names`
    model: str  # folder to write
    names: list[str]
    sizes: list[tuple[int, int]]  # width, height
    cameras: list[int]
    focals: list[float | None]  # pixels at `sizes`
    pairs: list[tuple[int, int]]
    mapper: Mapper
    masks: list[str | None]  # image files, black where a photo is ignored
    max_image_size: int
    max_features: int
    seed: int
