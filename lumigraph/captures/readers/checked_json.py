"""JSON from outside: bounded before it is parsed, and each value checked as it is taken out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumigraph.scene.errors import CaptureError

MAX_BYTES = 32 * 2**20  # some 20,000 frames; a list of lists takes ten times its text in memory


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; CaptureError when it is missing, too large, broken or no object."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CaptureError(f"{path} is larger than {MAX_BYTES >> 20} MB, too much for a list of cameras")
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CaptureError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise CaptureError(f"{path} is not sound JSON ({error})") from error
    if not isinstance(document, dict):
        raise CaptureError(f"{path} must hold one JSON object")
    return document


def number(value: Any, what: str) -> float:
    """A finite number, or a CaptureError that names `what`."""
    try:
        found = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise CaptureError(f"{what} must be a finite number, not {str(value)[:40]!r}")
    return found


def matrix(value: Any, what: str) -> NDArray[np.float64]:
    """A pose as (3, 4) float64 out of 3 or 4 rows of 4 numbers; a fourth row must be 0 0 0 1."""
    if not isinstance(value, list) or len(value) not in (3, 4):
        raise CaptureError(f"{what} must be a list of 3 or 4 rows")
    for row in value:
        if not isinstance(row, list) or len(row) != 4:
            raise CaptureError(f"{what} must have rows of 4 numbers")
    rows = np.array([[number(entry, f"every entry of {what}") for entry in row] for row in value])
    if len(rows) == 4 and not np.allclose(rows[3], [0, 0, 0, 1], atol=1e-6):
        raise CaptureError(f"{what} must end with the row 0 0 0 1")
    return rows[:3]


def text(value: Any, what: str) -> str:
    """A non-empty string without NUL, or a CaptureError that names `what`."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise CaptureError(f"{what} must be a non-empty text")
    return value
