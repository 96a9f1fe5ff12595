"""Page benchmark: time to the first paint, and delay from a job's step to the screen."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lumigraph.wire import resources as wire
from tests.debian import find_program
from tests.server.studio_process import Studio
from tests.web.conftest import WEB

START_COUNT = 3


def rows() -> Iterator[dict[str, object]]:
    chromium = find_program("chromium")
    if chromium is None:
        raise RuntimeError("Chromium is not installed, and installing it failed")
    with tempfile.TemporaryDirectory(prefix="pages-") as name:
        studio = Studio(Path(name) / "data")
        try:
            with studio.client() as client:
                project = client.projects.create("watched")
                measurements = measure_page(studio, project.id, chromium)
        finally:
            studio.stop()
        start_seconds = []
        for _ in range(START_COUNT):
            begin = time.perf_counter()
            studio = Studio(Path(name) / "data")
            up = time.perf_counter() - begin
            studio.stop()
            start_seconds.append(up)
    paint = statistics.median(measurements["paint_ms"])
    yield {"case": "link opened until first paint", "ms": round(paint)}
    yield {"case": "until the page can be used", "ms": round(statistics.median(measurements["usable_ms"]))}
    yield {"case": "server start to first paint", "seconds": round(statistics.median(start_seconds) + paint / 1e3, 2)}
    delays = sorted(measurements["late_ms"])
    yield {
        "case": "a job's step until it is on the screen",
        "p50_ms": round(statistics.median(delays)),
        "p95_ms": round(delays[int(0.95 * (len(delays) - 1))]),
    }


def measure_page(studio: Studio, project: str, chromium: Path) -> dict[str, list[float]]:
    """Run a job that writes a file at each step, and return the times that the browser measured."""
    link = f"{studio.url}/?token={studio.token}"
    command = ["node", str(WEB / "tests" / "latency.mjs"), link, project]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env={**os.environ, "CHROMIUM": str(chromium)}
    ) as browser:
        assert browser.stdout is not None
        measurements: dict[str, list[float]] = json.loads(browser.stdout.readline())
        with studio.client() as client:
            job = client.projects.get(project).submit(wire.NoopJob(steps=40, pause=0.5, save_every=1))
            steps = _steps(studio.data / "jobs" / job.id / "count.json", 40)
        screen_times = {int(step): at for step, at in json.loads(browser.stdout.readline())}
    measurements["late_ms"] = [
        1e3 * (screen_times[step] / 1e3 - at) for step, at in steps.items() if step in screen_times
    ]
    return measurements


def _steps(file: Path, last: int) -> dict[int, float]:
    """Return the time of each step: the modification time of the file that it wrote."""
    step_times: dict[int, float] = {}
    while last not in step_times:
        time.sleep(0.02)
        if file.exists():
            at = file.stat().st_mtime
            step = json.loads(file.read_text())[0]
            if file.stat().st_mtime == at:
                step_times.setdefault(step, at)
    return step_times
