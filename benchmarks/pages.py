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

STARTS = 3


def rows() -> Iterator[dict[str, object]]:
    chromium = find_program("chromium")
    if chromium is None:
        raise RuntimeError("Chromium is not installed, and could not be")
    with tempfile.TemporaryDirectory(prefix="pages-") as name:
        studio = Studio(Path(name) / "data")
        try:
            with studio.client() as client:
                project = client.projects.create("watched")
                headers = watched(studio, project.id, chromium)
        finally:
            studio.stop()
        started = []
        for _ in range(STARTS):
            begin = time.perf_counter()
            studio = Studio(Path(name) / "data")
            up = time.perf_counter() - begin
            studio.stop()
            started.append(up)
    paint = statistics.median(headers["paint_ms"])
    yield {"case": "link opened until first paint", "ms": round(paint)}
    yield {"case": "until the page can be used", "ms": round(statistics.median(headers["usable_ms"]))}
    yield {"case": "server start to first paint", "seconds": round(statistics.median(started) + paint / 1e3, 2)}
    late = sorted(headers["late_ms"])
    yield {
        "case": "a job's step until it is on the screen",
        "p50_ms": round(statistics.median(late)),
        "p95_ms": round(late[int(0.95 * (len(late) - 1))]),
    }


def watched(studio: Studio, project: str, chromium: Path) -> dict[str, list[float]]:
    """What the browser measured while a job counted, whose steps are files of their own time."""
    link = f"{studio.url}/?token={studio.token}"
    command = ["node", str(WEB / "tests" / "measure.mjs"), link, project]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env={**os.environ, "CHROMIUM": str(chromium)}
    ) as measuring:
        assert measuring.stdout is not None
        headers: dict[str, list[float]] = json.loads(measuring.stdout.readline())
        with studio.client() as client:
            job = client.projects.get(project).ask(wire.NoopJob(steps=40, pause=0.5, save_every=1))
            steps = _steps(studio.data / "jobs" / job.id / "count.json", 40)
        history = {int(step): at for step, at in json.loads(measuring.stdout.readline())}
    headers["late_ms"] = [1e3 * (history[step] / 1e3 - at) for step, at in steps.items() if step in history]
    return headers


def _steps(file: Path, last: int) -> dict[int, float]:
    """When each step was done, by the time of the file that it wrote."""
    result: dict[int, float] = {}
    while last not in result:
        time.sleep(0.02)
        if file.exists():
            at = file.stat().st_mtime
            outcome = json.loads(file.read_text())[0]
            if file.stat().st_mtime == at:
                result.setdefault(outcome, at)
    return result
