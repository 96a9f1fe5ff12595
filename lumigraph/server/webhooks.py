"""Tells whoever asked that a job has ended: a POST of the job to the URL that came with it.

The body is signed with the server's token (X-Lumigraph-Signature: sha256=HMAC), redirects are not followed, and an
answer outside 200..299 is tried again, later each time. A server that stops in between tells at its next start: the
table knows who was not told yet.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from lumigraph.jobs.store import Store
from lumigraph.wire.resources import Job

LOOK = 1.0  # seconds between looks
PATIENCE = 10.0  # seconds for an answer
FIRST_WAIT, LONGEST_WAIT, TRIES = 2.0, 600.0, 12

log = logging.getLogger(__name__)


class WebhookSender:
    """A thread; only started where hooks are allowed at all."""

    def __init__(self, store: Store, token: Callable[[], str], first_wait: float = FIRST_WAIT) -> None:
        self._store, self._token, self._first_wait = store, token, first_wait
        self._tried: dict[str, tuple[int, float]] = {}  # job -> (times, when to try again)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(LOOK if self._first_wait >= LOOK else self._first_wait):
            try:
                for url, job in self._store.pending_webhooks():
                    self._try(url, job)
            except (OSError, DBAPIError) as error:
                log.warning("hooks could not be looked up: %s", error)

    def _try(self, url: str, job: Job) -> None:
        times, until = self._tried.get(job.id, (0, 0.0))
        if time.monotonic() < until:
            return
        if self._tell(url, job) or times + 1 >= TRIES:
            self._store.mark_webhook_sent(job.id)
            self._tried.pop(job.id, None)
        else:
            wait = min(LONGEST_WAIT, self._first_wait * 2.0**times)
            self._tried[job.id] = (times + 1, time.monotonic() + wait)

    def _tell(self, url: str, job: Job) -> bool:
        import httpx

        body = job.model_dump_json().encode()
        signature = hmac.new(self._token().encode(), body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-lumigraph-signature": f"sha256={signature}"}
        try:
            answered = httpx.post(url, content=body, headers=headers, timeout=PATIENCE, follow_redirects=False)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning("the hook of job %s could not be told: %s", job.id, error)
            return False
        return answered.is_success
