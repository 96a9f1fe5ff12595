"""Server benchmark: start time, idle memory, latency while jobs use all cores, delay of events, jobs per minute."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import websockets.sync.client

from lumigraph.client import Project
from lumigraph.wire import resources as wire
from tests.server.studio_process import Studio, resident_megabytes

GET_COUNT, NOOP_JOB_COUNT, EVENT_COUNT, CANCEL_COUNT = 400, 60, 40, 20


def rows() -> Iterator[dict[str, object]]:
    with tempfile.TemporaryDirectory(prefix="server-") as name:
        yield {"case": "start to /healthz", "seconds": round(statistics.median(measure_starts(Path(name))), 2)}
        studio = Studio(Path(name) / "data")
        try:
            time.sleep(8)  # until the worker that lists the methods has ended
            yield {"case": "idle", "rss_mb": round(resident_megabytes(studio.process.pid), 1)}
            yield {"case": "GET, idle", **measure_gets(studio)}
            with studio.client() as client:
                project = client.projects.create("busy")
                project.sample(views=40, size=(320, 240)).wait()
                training = project.train(seconds=60)
                while training.refresh().stage != "train":
                    time.sleep(0.1)
                yield {"case": "GET while a job trains", **measure_gets(studio)}
                training.cancel()
                while training.refresh().state == "running":
                    time.sleep(0.1)
                yield {"case": "a job's step to its listener", **measure_events(studio, project.id)}
                yield {"case": "cancel until the job has stopped", **measure_cancels(studio, project)}
                start = time.perf_counter()
                for job in [project.submit(wire.NoopJob()) for _ in range(NOOP_JOB_COUNT)]:
                    job.wait()
                yield {
                    "case": "jobs that do nothing",
                    "per_minute": round(60 * NOOP_JOB_COUNT / (time.perf_counter() - start)),
                }
        finally:
            studio.stop()


def measure_starts(folder: Path) -> list[float]:
    """Time three starts in seconds; the first one creates the data folder."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        studio = Studio(folder / "started")
        seconds.append(time.perf_counter() - start)
        studio.stop()
    return seconds


def measure_gets(studio: Studio) -> dict[str, object]:
    with studio.http() as http:
        path = "/api/v1/projects"
        return percentiles([time_get(http, path) for _ in range(GET_COUNT)])


def time_get(http: httpx.Client, path: str) -> float:
    start = time.perf_counter()
    http.get(path).raise_for_status()
    return time.perf_counter() - start


def measure_events(studio: Studio, project: str) -> dict[str, object]:
    """Measure the delay from a step's end (the time of its file) to its event. Steps are rare, so each has an event."""
    url, headers = studio.url.replace("http", "ws") + "/api/v1/events", {"authorization": f"Bearer {studio.token}"}
    delays = []
    with (
        studio.client() as client,
        websockets.sync.client.connect(url, additional_headers=headers, max_size=None) as socket,
    ):
        socket.recv()  # the snapshot
        job = client.projects.get(project).submit(wire.NoopJob(steps=EVENT_COUNT, pause=0.5, save_every=1))
        file = studio.data / "jobs" / job.id / "count.json"
        while True:
            change = wire.Change.model_validate_json(socket.recv())
            update = next((item for item in change.jobs if item.id == job.id), None)
            if update is not None and update.done:
                delays.append(time.time() - file.stat().st_mtime)
            if update is not None and update.state in wire.FINAL_STATES:
                return percentiles(delays[:-1])


def measure_cancels(studio: Studio, project: Project) -> dict[str, object]:
    """Measure the delay from the request until the job table says that the worker has saved and stopped."""
    delays = []
    with studio.client() as client:
        for _ in range(CANCEL_COUNT):
            job = client.projects.get(project.id).submit(wire.NoopJob(steps=10_000, pause=0.01))
            while not job.refresh().done:
                time.sleep(0.02)
            start = time.perf_counter()
            job.cancel()
            while job.refresh().state == "running":
                time.sleep(0.005)
            delays.append(time.perf_counter() - start)
    return percentiles(delays)


def percentiles(seconds: list[float]) -> dict[str, object]:
    milliseconds = sorted(1e3 * item for item in seconds)
    return {
        f"p{percent}_ms": round(milliseconds[min(len(milliseconds) - 1, len(milliseconds) * percent // 100)], 1)
        for percent in (50, 95, 99)
    }
