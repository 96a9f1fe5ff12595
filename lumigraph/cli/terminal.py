"""Event display: progress bars on a terminal, plain lines in a file or a pipe.

All output goes to stderr; stdout is reserved for results.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from lumigraph.wire.events import ArtifactWritten, Event, Metrics, Note, Progress

PLAIN_LINE_INTERVAL_S = 5.0  # per stage
STEP_RATE_WINDOW_S = 10.0


class Terminal:
    """Displays events and collects written artifacts. `quiet` shows only warnings."""

    def __init__(self, quiet: bool = False) -> None:
        self.artifacts: list[ArtifactWritten] = []
        self._quiet = quiet
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._printed_at = 0.0  # time of the last plain line
        self._rate = StageRate()

    @contextmanager
    def progress_bars(self) -> Iterator[None]:
        """Show progress bars within this block and remove them after it."""
        if self._quiet or not self._console.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}", markup=False),
        )
        with Bars(*columns, console=self._console, transient=True) as self._bars:
            yield
        self._bars = None

    def show(self, event: Event) -> None:
        if isinstance(event, Note):
            self._print(event.text, "yellow" if event.level == "warning" else "", event.level == "warning")
        elif isinstance(event, Metrics):
            self._rate.metrics(event)
        elif isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, ArtifactWritten):
            self.artifacts.append(event)

    def _progress(self, event: Progress) -> None:
        new = event.stage != self._stage
        if new:
            self._stage, self._printed_at = event.stage, 0.0
        self._rate.progress(event, new)
        status = self._rate.describe(event)
        if self._bars is not None:
            if new or self._task is None:
                if self._task is not None:
                    self._bars.remove_task(self._task)
                self._task = self._bars.add_task(event.stage, status="")
            self._bars.update(self._task, completed=event.done, total=event.total, status=status)
        elif self._printed_at < math.inf and (
            event.done == event.total or time.monotonic() - self._printed_at >= PLAIN_LINE_INTERVAL_S
        ):
            self._printed_at = math.inf if event.done == event.total else time.monotonic()  # the end is printed once
            self._print(f"{event.stage}: {status}")

    def _print(self, text: str, style: str = "", always: bool = False) -> None:
        """Print text without markup or control characters: file names may contain both."""
        if always or not self._quiet:
            plain = "".join(letter if letter.isprintable() else " " for letter in text)
            self._console.print(Text(plain, style=style))


class StageRate:
    """Speed, metrics and remaining time of the current stage."""

    def __init__(self) -> None:
        self._start = (0.0, 0.0)  # start time and start count of the stage
        self._steps: list[tuple[float, int]] = []  # recent (seconds, step)
        self._values: dict[str, float] = {}

    def progress(self, event: Progress, new: bool) -> None:
        if new:
            self._start = (time.monotonic(), event.done)
            self._steps, self._values = [], {}

    def metrics(self, event: Metrics) -> None:
        self._steps = [(s, n) for s, n in self._steps if s > event.seconds - STEP_RATE_WINDOW_S and n < event.step]
        self._steps.append((event.seconds, event.step))
        self._values.update(event.values)

    def describe(self, event: Progress) -> str:
        """Format as `1,200/7,000 steps, 31.2 steps/s, PSNR 24.31, 2 min left`."""
        if event.unit == "s":
            of = "" if event.total is None else f"/{event.total:.0f}"
            parts = [f"{event.done:.0f}{of} s"]
        else:
            of = "" if event.total is None else f"/{event.total:,.0f}"
            parts = [f"{event.done:,.0f}{of} {event.unit}".rstrip()]
        parts += [text for text in (self._speed(event), self._metrics(), self._left(event)) if text]
        return ", ".join(parts)

    def _units_per_second(self, event: Progress) -> float:
        """Compute the mean rate since the start of the stage; 0 while unknown."""
        start_time, first = self._start
        elapsed_s = time.monotonic() - start_time
        return (event.done - first) / elapsed_s if elapsed_s > 0.5 else 0.0

    def _speed(self, event: Progress) -> str:
        if len(self._steps) > 1:
            (s0, n0), (s1, n1) = self._steps[0], self._steps[-1]
            return f"{(n1 - n0) / (s1 - s0):.1f} steps/s" if s1 > s0 else ""
        rate = 0.0 if event.unit == "s" else self._units_per_second(event)
        return f"{rate:.1f} {event.unit}/s" if rate else ""

    def _metrics(self) -> str:
        metrics = [f"{name.upper()} {value:.2f}" for name, value in self._values.items() if "psnr" in name]
        if "gaussians" in self._values:
            metrics.append(f"{self._values['gaussians']:,.0f} gaussians")
        return ", ".join(metrics)

    def _left(self, event: Progress) -> str:
        left = event.seconds_left
        if left is None and event.total is not None and self._units_per_second(event) > 0:
            left = (event.total - event.done) / self._units_per_second(event)
        if left is None or left < 1:
            return ""
        return f"{left:.0f} s left" if left < 100 else f"{left / 60:.0f} min left"
