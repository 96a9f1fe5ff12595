"""The voice of the process: events and the result on a pipe to the parent, one JSON object a line."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from lumigraph.wire.events import Note, Progress, to_line

TALK_SECONDS = 0.1  # between two progress lines


class Speaker:
    """The pipe to the parent, which is this process's standard output. Everything that libraries print there goes to
    standard error instead."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._stage, self._spoke = "", 0.0

    def line(self, content: dict[str, Any]) -> None:
        self._write(json.dumps(content))

    def note(self, text: str) -> None:
        self._write(to_line(Note(text=text, level="warning")))

    def progress(self, stage: str, done: int, total: int, unit: str) -> None:
        """Says how far a stage is, but not more often than anybody can read; its start and its end always."""
        now = time.monotonic()
        if stage != self._stage or done >= total or now - self._spoke >= TALK_SECONDS:
            self._stage, self._spoke = stage, now
            self._write(to_line(Progress(stage=stage, done=done, total=total, unit=unit)))

    def _write(self, line: str) -> None:
        self._pipe.write(line + "\n")
        self._pipe.flush()
