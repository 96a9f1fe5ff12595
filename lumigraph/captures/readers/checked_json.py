"""Untrusted JSON: bounded before it is parsed; each value is checked when it is read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumigraph.scene.errors import CaptureError

MAX_JSON_BYTES = 32 * 2**20  # about 20,000 frames; nested lists need ten times their text in memory


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object of a file. Raises CaptureError if it is missing, too large, invalid or not an object."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CaptureError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MB, too much for a list of cameras")
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CaptureError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise CaptureError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(document, dict):
        raise CaptureError(f"{path} must hold one JSON object")
    return document


def parse_number(value: Any, label: str) -> float:
    """Convert `value` to a finite number. Raises CaptureError with `label` if it is not one."""
    try:
        result = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not math.isfinite(result):
        raise CaptureError(f"{label} must be a finite number, not {str(value)[:40]!r}")
    return result


def parse_pose(value: Any, label: str) -> NDArray[np.float64]:
    """Parse a pose, 3 or 4 rows of 4 numbers, as (3, 4) float64; a fourth row must be 0 0 0 1."""
    if not isinstance(value, list) or len(value) not in (3, 4):
        raise CaptureError(f"{label} must be a list of 3 or 4 rows")
    for row in value:
        if not isinstance(row, list) or len(row) != 4:
            raise CaptureError(f"{label} must have rows of 4 numbers")
    rows = np.array([[parse_number(entry, f"every entry of {label}") for entry in row] for row in value])
    if len(rows) == 4 and not np.allclose(rows[3], [0, 0, 0, 1], atol=1e-6):
        raise CaptureError(f"{label} must end with the row 0 0 0 1")
    return rows[:3]


def parse_text(value: Any, label: str) -> str:
    """Check that `value` is a non-empty string without NUL. Raises CaptureError with `label` if it is not."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise CaptureError(f"{label} must be a non-empty text")
    return value
