"""Pipe to the parent process: events and the result, one JSON object per line."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from lumigraph.wire.events import Note, Progress, to_line

PROGRESS_INTERVAL_S = 0.1  # minimum between two progress lines of a stage


class EventPipe:
    """The pipe to the parent process: a duplicate of standard output. Library output is redirected to stderr."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._stage, self._sent_at = "", 0.0

    def send(self, content: dict[str, Any]) -> None:
        self._write(json.dumps(content))

    def note(self, text: str) -> None:
        self._write(to_line(Note(text=text, level="warning")))

    def progress(self, stage: str, count: int, total: int, unit: str) -> None:
        """Send progress at most every PROGRESS_INTERVAL_S; the start and the end of a stage are always sent."""
        now = time.monotonic()
        if stage != self._stage or count >= total or now - self._sent_at >= PROGRESS_INTERVAL_S:
            self._stage, self._sent_at = stage, now
            self._write(to_line(Progress(stage=stage, done=count, total=total, unit=unit)))

    def _write(self, line: str) -> None:
        self._pipe.write(line + "\n")
        self._pipe.flush()
