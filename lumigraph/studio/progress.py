"""Progress events with the estimated time left."""

from __future__ import annotations

import time
from collections.abc import Iterator

from lumigraph.wire.events import Progress

PROGRESS_EVENT_INTERVAL_S = 0.5  # shorter tasks emit no event


def report_progress(shares: Iterator[float], stage: str, total: int, unit: str) -> Iterator[Progress]:
    """Run `shares` to its end and yield Progress events. `shares` yields the finished share 0..1 of `total` `unit`s."""
    last_event = time.monotonic()
    first: tuple[float, float] | None = None  # (time, share); setup before the first share does not count in the speed
    for share in shares:
        now = time.monotonic()
        first_time, first_share = first = first or (now, share)
        if now - last_event >= PROGRESS_EVENT_INTERVAL_S and share > first_share:
            last_event, left = now, (now - first_time) * (1 - share) / (share - first_share)
            yield Progress(stage=stage, done=round(share * total), total=total, unit=unit, seconds_left=max(left, 0.0))
