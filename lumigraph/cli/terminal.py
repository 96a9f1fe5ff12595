"""A stream of events for the person at the terminal: moving bars there, plain lines in a file or a pipe.

All of it goes to stderr; stdout belongs to results.
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

PLAIN_EVERY = 5.0  # seconds between plain lines of one stage
STEPS_MEMORY = 10.0  # seconds over which steps a second are averaged


class Terminal:
    """Shows events as they come and remembers what was made. `quiet` leaves only warnings."""

    def __init__(self, quiet: bool = False) -> None:
        self.made: list[ArtifactWritten] = []
        self._quiet = quiet
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._said = 0.0  # when the last plain line went out
        self._pace = Pace()

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Bars move within this block and are gone after it."""
        if self._quiet or not self._console.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[said]}", markup=False),
        )
        with Bars(*columns, console=self._console, transient=True) as self._bars:
            yield
        self._bars = None

    def show(self, event: Event) -> None:
        if isinstance(event, Note):
            self._say(event.text, "yellow" if event.level == "warning" else "", event.level == "warning")
        elif isinstance(event, Metrics):
            self._pace.metrics(event)
        elif isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, ArtifactWritten):
            self.made.append(event)

    def _progress(self, event: Progress) -> None:
        new = event.stage != self._stage
        if new:
            self._stage, self._said = event.stage, 0.0
        self._pace.progress(event, new)
        said = self._pace.describe(event)
        if self._bars is not None:
            if new or self._task is None:
                if self._task is not None:
                    self._bars.remove_task(self._task)
                self._task = self._bars.add_task(event.stage, said="")
            self._bars.update(self._task, completed=event.done, total=event.total, said=said)
        elif self._said < math.inf and (event.done == event.total or time.monotonic() - self._said >= PLAIN_EVERY):
            self._said = math.inf if event.done == event.total else time.monotonic()  # the end is said once
            self._say(f"{event.stage}: {said}")

    def _say(self, text: str, style: str = "", always: bool = False) -> None:
        """A line of text as it is: names of files may look like markup, or hide control characters."""
        if always or not self._quiet:
            plain = "".join(letter if letter.isprintable() else " " for letter in text)
            self._console.print(Text(plain, style=style))


class Pace:
    """How fast a stage goes, how well training does, how long both will take."""

    def __init__(self) -> None:
        self._start = (0.0, 0.0)  # when the stage began, and from which count
        self._steps: list[tuple[float, int]] = []  # (seconds, step) of late
        self._values: dict[str, float] = {}

    def progress(self, event: Progress, new: bool) -> None:
        if new:
            self._start = (time.monotonic(), event.done)
            self._steps, self._values = [], {}

    def metrics(self, event: Metrics) -> None:
        self._steps = [(s, n) for s, n in self._steps if s > event.seconds - STEPS_MEMORY and n < event.step]
        self._steps.append((event.seconds, event.step))
        self._values.update(event.values)

    def describe(self, event: Progress) -> str:
        """`1,200/7,000 steps, 31.2 steps/s, PSNR 24.31, 2 min left`"""
        if event.unit == "s":
            of = "" if event.total is None else f"/{event.total:.0f}"
            parts = [f"{event.done:.0f}{of} s"]
        else:
            of = "" if event.total is None else f"/{event.total:,.0f}"
            parts = [f"{event.done:,.0f}{of} {event.unit}".rstrip()]
        parts += [text for text in (self._speed(event), self._figures(), self._left(event)) if text]
        return ", ".join(parts)

    def _rate(self, event: Progress) -> float:
        """Units a second since the stage began; 0 while unknown."""
        began, first = self._start
        elapsed = time.monotonic() - began
        return (event.done - first) / elapsed if elapsed > 0.5 else 0.0

    def _speed(self, event: Progress) -> str:
        if len(self._steps) > 1:
            (s0, n0), (s1, n1) = self._steps[0], self._steps[-1]
            return f"{(n1 - n0) / (s1 - s0):.1f} steps/s" if s1 > s0 else ""
        rate = 0.0 if event.unit == "s" else self._rate(event)
        return f"{rate:.1f} {event.unit}/s" if rate else ""

    def _figures(self) -> str:
        figures = [f"{name.upper()} {value:.2f}" for name, value in self._values.items() if "psnr" in name]
        if "gaussians" in self._values:
            figures.append(f"{self._values['gaussians']:,.0f} gaussians")
        return ", ".join(figures)

    def _left(self, event: Progress) -> str:
        left = event.seconds_left
        if left is None and event.total is not None and self._rate(event) > 0:
            left = (event.total - event.done) / self._rate(event)
        if left is None or left < 1:
            return ""
        return f"{left:.0f} s left" if left < 100 else f"{left / 60:.0f} min left"
