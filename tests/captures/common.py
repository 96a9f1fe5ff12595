"""Small images and captures shared by the tests of captures."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from lumigraph.wire.events import Event

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"  # real captures; tests skip if they are absent

Result = TypeVar("Result")


def finish(task: Generator[Event, None, Result]) -> tuple[Result, list[Event]]:
    """Run a task to its end: (its result, its events)."""
    events: list[Event] = []
    while True:
        try:
            events.append(next(task))
        except StopIteration as stop:
            return stop.value, events


def save_image(path: Path, size: tuple[int, int] = (64, 48), seed: int = 0, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)).convert(mode).save(path)


def distinct_values(pixels: Tensor) -> list[int]:
    """The distinct values of a tensor, sorted."""
    return sorted(set(pixels.flatten().tolist()))


def rotation(rng: np.random.Generator) -> Any:
    """A random rotation matrix (3, 3)."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q * [1, 1, -1]


def pose(rng: np.random.Generator) -> Any:
    """A random rigid matrix (4, 4)."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(rng), rng.normal(size=3)
    return matrix
