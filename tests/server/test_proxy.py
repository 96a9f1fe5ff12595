"""The server behind a real proxy that speaks TLS, by the file that people are given for it."""

from __future__ import annotations

import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import websockets.sync.client
from websockets.exceptions import InvalidStatus

from lumigraph.client import Client
from lumigraph.wire import resources as wire
from tests.debian import program
from tests.server.running_server import free_socket
from tests.server.studio_process import ROOT, Studio

PATIENCE = 120.0
# So that the proxy leaves this machine as it is: no certificate installed in it, no port but the one it is given.
APART = "{\n\tskip_install_trust\n\tadmin off\n\tauto_https disable_redirects\n}\n"


class Site(NamedTuple):
    url: str
    token: str
    root: Path  # certificate of who signed the proxy's


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    caddy = program("caddy")
    if caddy is None:
        pytest.skip("Caddy is not installed, and could not be")
    folder = tmp_path_factory.mktemp("proxy")
    with free_socket() as free:
        url = f"https://localhost:{free.getsockname()[1]}"
    studio = Studio(folder / "data", "--url", url)
    (folder / "Caddyfile").write_text(APART + (ROOT / "deploy" / "Caddyfile").read_text())
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), "SITE": url, "SERVER": f"127.0.0.1:{studio.port}"}
    command = [str(caddy), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    with (folder / "caddy.log").open("w") as log:
        proxy = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield Site(url, studio.token, certificate(folder, url))
    finally:
        proxy.terminate()
        proxy.wait(PATIENCE)
        studio.stop()


def certificate(folder: Path, url: str) -> Path:
    """Where it lies, once the proxy answers by it."""
    root = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    end = time.monotonic() + PATIENCE
    while True:
        try:
            httpx.get(f"{url}/healthz", verify=ssl.create_default_context(cafile=str(root))).raise_for_status()
            return root
        except (OSError, httpx.HTTPError):
            assert time.monotonic() < end, (folder / "caddy.log").read_text()[-2000:]
            time.sleep(0.1)


def test_the_client_works_through_it(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(site.root))
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(20_000_000))
    with Client(site.url, site.token) as client:
        project = client.projects.create("through a proxy")
        project.upload(large)
        assert project.ask(wire.NoopJob(steps=20, pause=0.02)).wait().state.result == {"sum": 210}
        answered = client._ask(
            "GET", f"/api/v1/projects/{project.id}/files/large.bin", headers={"range": "bytes=-1000"}
        )
    assert answered.status_code == 206
    assert answered.content == large.read_bytes()[-1000:]


def test_a_browser_gets_a_secure_cookie_and_its_socket(site: Site) -> None:
    trusted = ssl.create_default_context(cafile=str(site.root))
    answered = httpx.get(f"{site.url}/?token={site.token}", verify=trusted)
    assert answered.status_code == 303
    assert answered.headers["location"] == "/"
    assert "; Secure" in answered.headers["set-cookie"]
    cookie = {"cookie": answered.headers["set-cookie"].partition(";")[0]}
    socket = site.url.replace("https", "wss") + "/api/v1/events"
    with websockets.sync.client.connect(socket, ssl=trusted, additional_headers=cookie, origin=site.url) as events:
        wire.Snapshot.model_validate_json(events.recv(timeout=PATIENCE))
    for origin in ("https://evil.example", site.url.replace("https", "http")):
        with pytest.raises(InvalidStatus, match="403"):
            websockets.sync.client.connect(socket, ssl=trusted, additional_headers=cookie, origin=origin)
        changed = httpx.post(
            f"{site.url}/api/v1/projects", json={"name": "x"}, headers={**cookie, "origin": origin}, verify=trusted
        )
        assert changed.status_code == 403


def test_a_forwarded_header_opens_nothing(site: Site) -> None:
    trusted = ssl.create_default_context(cafile=str(site.root))
    headers = {"x-forwarded-host": "localhost", "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http"}
    assert httpx.get(f"{site.url}/api/v1/projects", headers=headers, verify=trusted).status_code == 401
