"""How long a piece of work still takes, while it is pulled."""

from __future__ import annotations

import time
from collections.abc import Iterator

from lumigraph.wire.events import Progress

EVERY = 0.5  # seconds between two words of it; what takes less is not worth one


def paced(shares: Iterator[float], stage: str, total: int, unit: str) -> Iterator[Progress]:
    """Do all of a work that yields the share of it that is done; `total` is how many `unit`s that are in the end."""
    said = time.monotonic()
    first: tuple[float, float] | None = None  # what comes before the first share says nothing of the speed
    for share in shares:
        now = time.monotonic()
        since, before = first = first or (now, share)
        if now - said >= EVERY and share > before:
            said, left = now, (now - since) * (1 - share) / (share - before)
            yield Progress(stage=stage, done=round(share * total), total=total, unit=unit, seconds_left=max(left, 0.0))
