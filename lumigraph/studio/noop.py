"""The verb `check`: counts, saving as it goes. It shows that workers start, go on after a crash and stop when asked,
and computes nothing, so that it needs neither torch nor time."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path

from lumigraph.studio.files import beside
from lumigraph.wire.events import CheckpointWritten, Event, Progress


def check(place: Path, steps: int, pause: float, save_every: int) -> Generator[Event, None, dict[str, int]]:
    """The sum of 1 .. steps, kept in `place`/count.json every `save_every` steps of `pause` seconds."""
    file = place / "count.json"
    done, total = json.loads(file.read_text()) if file.exists() else (0, 0)
    try:
        while done < steps:
            time.sleep(pause)
            done, total = done + 1, total + done + 1
            if done % save_every == 0:
                with beside(file) as temporary:
                    temporary.write_text(json.dumps([done, total]))
                yield CheckpointWritten(step=done, path=str(file))
            yield Progress(stage="count", done=done, total=steps, unit="steps")
    finally:
        with beside(file) as temporary:
            temporary.write_text(json.dumps([done, total]))
    return {"sum": total}
