"""Whether it works, for whoever watches over it: /healthz for a person or a container, /metrics for Prometheus."""

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
from lumigraph.server.api.projects import Known
from lumigraph.server.problems import Problem, documented

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str = "ok"
    version: str = lumigraph.__version__


@router.get("/healthz", responses=documented(503))
def healthz(service: Known) -> Health:
    """Needs no token. 503 where jobs are not being started."""
    if not service.dispatcher.alive:
        raise Problem(503, "Dispatcher ended", "No jobs are started any more; restart the server.")
    service.store.database.seq()
    return Health()


@router.get(
    "/metrics",
    response_class=Response,
    responses={**documented(), 200: {"description": "Prometheus's text form", "content": {"text/plain": {}}}},
)
def metrics(service: Known) -> Response:
    """Jobs by state and verb, and how long requests take."""
    jobs = CollectorRegistry()
    jobs.register(Jobs(service.store))
    text = generate_latest(jobs) + generate_latest(TimingMiddleware.registry)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


class Jobs(Collector):
    """Counted when asked."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        found = Counter((job.state, job.request.verb) for job in self._store.jobs(limit=1_000_000))
        family = GaugeMetricFamily("lumigraph_jobs", "Jobs by state and verb", labels=["state", "verb"])
        for (state, verb), count in sorted(found.items()):
            family.add_metric([state, verb], count)
        yield family


class TimingMiddleware:
    """Measures every answer from its request to its first byte. Routes, not paths: an id is no label."""

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
        began = time.perf_counter()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if scope["method"] in METHODS else "other"
                labels = (method, route, str(message["status"]))
                self.seconds.labels(*labels).observe(time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, noted)


METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
