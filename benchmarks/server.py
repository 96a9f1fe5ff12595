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

GETS, EMPTY, LISTENED, CANCELLED = 400, 60, 40, 20


def rows() -> Iterator[dict[str, object]]:
    with tempfile.TemporaryDirectory(prefix="server-") as name:
        yield {"case": "start to /healthz", "seconds": round(statistics.median(starts(Path(name))), 2)}
        studio = Studio(Path(name) / "data")
        try:
            time.sleep(8)  # the worker that describes the methods has gone
            yield {"case": "idle", "rss_mb": round(resident_megabytes(studio.process.pid), 1)}
            yield {"case": "GET, idle", **gets(studio)}
            with studio.client() as client:
                project = client.projects.create("busy")
                project.sample(views=40, size=(320, 240)).wait()
                training = project.train(seconds=60)
                while training.refresh().stage != "train":
                    time.sleep(0.1)
                yield {"case": "GET while a job trains", **gets(studio)}
                training.cancel()
                while training.refresh().state == "running":
                    time.sleep(0.1)
                yield {"case": "a job's step to its listener", **news(studio, project.id)}
                yield {"case": "cancel until the job has stopped", **cancels(studio, project)}
                start = time.perf_counter()
                for job in [project.ask(wire.NoopJob()) for _ in range(EMPTY)]:
                    job.wait()
                yield {"case": "jobs that do nothing", "per_minute": round(60 * EMPTY / (time.perf_counter() - start))}
        finally:
            studio.stop()


def starts(folder: Path) -> list[float]:
    """Seconds of three starts, the first of which makes the data folder."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        studio = Studio(folder / "started")
        seconds.append(time.perf_counter() - start)
        studio.stop()
    return seconds


def gets(studio: Studio) -> dict[str, object]:
    with studio.http() as http:
        path = "/api/v1/projects"
        return spread([seconds(http, path) for _ in range(GETS)])


def seconds(http: httpx.Client, path: str) -> float:
    start = time.perf_counter()
    http.get(path).raise_for_status()
    return time.perf_counter() - start


def news(studio: Studio, project: str) -> dict[str, object]:
    """From a step's end, which the job writes down beside, to the message about it. Steps are rare: each is told."""
    url, headers = studio.url.replace("http", "ws") + "/api/v1/events", {"authorization": f"Bearer {studio.token}"}
    late = []
    with (
        studio.client() as client,
        websockets.sync.client.connect(url, additional_headers=headers, max_size=None) as socket,
    ):
        socket.recv()  # all that was before
        job = client.projects.get(project).ask(wire.NoopJob(steps=LISTENED, pause=0.5, save_every=1))
        file = studio.data / "jobs" / job.id / "count.json"
        while True:
            change = wire.Change.model_validate_json(socket.recv())
            told = next((item for item in change.jobs if item.id == job.id), None)
            if told is not None and told.done:
                late.append(time.time() - file.stat().st_mtime)
            if told is not None and told.state in wire.FINAL_STATES:
                return spread(late[:-1])


def cancels(studio: Studio, project: Project) -> dict[str, object]:
    """From the request to the table's word that the worker has saved and stopped."""
    late = []
    with studio.client() as client:
        for _ in range(CANCELLED):
            job = client.projects.get(project.id).ask(wire.NoopJob(steps=10_000, pause=0.01))
            while not job.refresh().done:
                time.sleep(0.02)
            start = time.perf_counter()
            job.cancel()
            while job.refresh().state == "running":
                time.sleep(0.005)
            late.append(time.perf_counter() - start)
    return spread(late)


def spread(result: list[float]) -> dict[str, object]:
    ordered = sorted(1e3 * item for item in result)
    return {
        f"p{percent}_ms": round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 1)
        for percent in (50, 95, 99)
    }
