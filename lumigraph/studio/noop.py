"""The verb `check`: counts steps and saves in between.

It tests that workers start, resume after a crash and stop on request. It needs neither torch nor much time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path

from lumigraph.studio.files import atomic_path
from lumigraph.wire.events import CheckpointWritten, Event, Progress


def count_steps(folder: Path, steps: int, pause: float, save_every: int) -> Generator[Event, None, dict[str, int]]:
    """Sum 1 .. `steps` with `pause` seconds per step; save `folder`/count.json every `save_every` steps."""
    file = folder / "count.json"
    step, total = json.loads(file.read_text()) if file.exists() else (0, 0)
    try:
        while step < steps:
            time.sleep(pause)
            step, total = step + 1, total + step + 1
            if step % save_every == 0:
                with atomic_path(file) as temporary:
                    temporary.write_text(json.dumps([step, total]))
                yield CheckpointWritten(step=step, path=str(file))
            yield Progress(stage="count", done=step, total=steps, unit="steps")
    finally:
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps([step, total]))
    return {"sum": total}
