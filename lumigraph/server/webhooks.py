"""Webhooks: when a job has ended, the server POSTs it to the URL that was submitted with it.

The body is signed with the server's token (X-Lumigraph-Signature: sha256=HMAC), and redirects are not followed. A
response outside 200..299 is retried with exponential back-off. The table stores which webhooks are unsent, so a server
that stops in between sends them after its next start.
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

WEBHOOK_POLL_S = 1.0
WEBHOOK_TIMEOUT_S = 10.0
WEBHOOK_RETRY_DELAY_S, MAX_WEBHOOK_RETRY_DELAY_S, MAX_WEBHOOK_ATTEMPTS = 2.0, 600.0, 12

log = logging.getLogger(__name__)


class WebhookSender:
    """A thread that sends pending webhooks. The server starts it only if webhook hosts are configured."""

    def __init__(self, store: Store, token: Callable[[], str], retry_delay_s: float = WEBHOOK_RETRY_DELAY_S) -> None:
        self._store, self._token, self._retry_delay_s = store, token, retry_delay_s
        self._retries: dict[str, tuple[int, float]] = {}  # job id -> (attempts, time of the next one)
        self._stop_event = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop_event.set()

    def _run(self) -> None:
        while not self._stop_event.wait(min(WEBHOOK_POLL_S, self._retry_delay_s)):
            try:
                for url, job in self._store.pending_webhooks():
                    self._try(url, job)
            except (OSError, DBAPIError) as error:
                log.warning("pending webhooks could not be read: %s", error)

    def _try(self, url: str, job: Job) -> None:
        attempts, until = self._retries.get(job.id, (0, 0.0))
        if time.monotonic() < until:
            return
        if self._post(url, job) or attempts + 1 >= MAX_WEBHOOK_ATTEMPTS:
            self._store.mark_webhook_sent(job.id)
            self._retries.pop(job.id, None)
        else:
            delay = min(MAX_WEBHOOK_RETRY_DELAY_S, self._retry_delay_s * 2.0**attempts)
            self._retries[job.id] = (attempts + 1, time.monotonic() + delay)

    def _post(self, url: str, job: Job) -> bool:
        import httpx

        body = job.model_dump_json().encode()
        signature = hmac.new(self._token().encode(), body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-lumigraph-signature": f"sha256={signature}"}
        try:
            response = httpx.post(url, content=body, headers=headers, timeout=WEBHOOK_TIMEOUT_S, follow_redirects=False)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning("the webhook of job %s could not be sent: %s", job.id, error)
            return False
        return response.is_success
