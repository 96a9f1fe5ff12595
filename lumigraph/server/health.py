"""Monitoring: /healthz for people and containers, /metrics for Prometheus."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import lumigraph
from lumigraph.jobs.store import Store
from lumigraph.server.api.projects import ServerDep
from lumigraph.server.problems import Problem, error_responses

HTTP_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}  # any other method counts as "other"
MAX_COUNTED_JOBS = 1_000_000

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str = "ok"
    version: str = lumigraph.__version__


@router.get("/healthz", responses=error_responses(503))
def healthz(server: ServerDep) -> Health:
    """Health check. Needs no token; 503 if the dispatcher has ended."""
    if not server.dispatcher.alive:
        raise Problem(503, "Dispatcher ended", "The server no longer starts jobs; restart it.")
    server.store.database.seq()
    return Health()


@router.get(
    "/metrics",
    response_class=Response,
    responses={**error_responses(), 200: {"description": "Prometheus's text form", "content": {"text/plain": {}}}},
)
def metrics(server: ServerDep) -> Response:
    """Number of jobs by state and verb, and durations of requests."""
    registry = CollectorRegistry()
    registry.register(JobCollector(server.store))
    text = generate_latest(registry) + generate_latest(TimingMiddleware.registry)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


class JobCollector(Collector):
    """Counts jobs at each scrape."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        counts = Counter((job.state, job.request.verb) for job in self._store.jobs(limit=MAX_COUNTED_JOBS))
        family = GaugeMetricFamily("lumigraph_jobs", "Jobs by state and verb", labels=["state", "verb"])
        for (state, verb), count in sorted(counts.items()):
            family.add_metric([state, verb], count)
        yield family


class TimingMiddleware:
    """Measures the time from a request to the first byte of its response, by route: paths would make ids labels."""

    registry = CollectorRegistry()
    seconds = Histogram(
        "lumigraph_http_seconds", "Seconds to the first byte", ["method", "route", "status"], registry=registry
    )

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start_time = time.perf_counter()

        async def send_and_record(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if scope["method"] in HTTP_METHODS else "other"
                labels = (method, route, str(message["status"]))
                self.seconds.labels(*labels).observe(time.perf_counter() - start_time)
            await send(message)

        await self._app(scope, receive, send_and_record)
