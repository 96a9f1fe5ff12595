"""The server behind a real TLS proxy, configured by deploy/Caddyfile."""

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
from websockets.typing import Origin

from lumigraph.client import Client
from lumigraph.wire import resources as wire
from tests.debian import find_program
from tests.server.running_server import free_socket
from tests.server.studio_process import ROOT, Studio

PROXY_TIMEOUT_S = 120.0
# The proxy must not change the machine: it installs no certificate and listens on one port only.
ISOLATED_CONFIG = "{\n\tskip_install_trust\n\tadmin off\n\tauto_https disable_redirects\n}\n"


class Site(NamedTuple):
    url: str
    token: str
    root: Path  # certificate that signed the proxy's certificate


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    caddy = find_program("caddy")
    if caddy is None:
        pytest.skip("Caddy is not installed, and installing it failed")
    folder = tmp_path_factory.mktemp("proxy")
    with free_socket() as free:
        url = f"https://localhost:{free.getsockname()[1]}"
    studio = Studio(folder / "data", "--url", url)
    (folder / "Caddyfile").write_text(ISOLATED_CONFIG + (ROOT / "deploy" / "Caddyfile").read_text())
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), "SITE": url, "SERVER": f"127.0.0.1:{studio.port}"}
    command = [str(caddy), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    with (folder / "caddy.log").open("w") as log:
        proxy = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield Site(url, studio.token, wait_for_certificate(folder, url))
    finally:
        proxy.terminate()
        proxy.wait(PROXY_TIMEOUT_S)
        studio.stop()


def wait_for_certificate(folder: Path, url: str) -> Path:
    """Wait until the proxy answers over TLS, then return the path of its root certificate."""
    root = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    end = time.monotonic() + PROXY_TIMEOUT_S
    while True:
        try:
            httpx.get(f"{url}/healthz", verify=ssl.create_default_context(cafile=str(root))).raise_for_status()
            return root
        except (OSError, httpx.HTTPError):
            assert time.monotonic() < end, (folder / "caddy.log").read_text()[-2000:]
            time.sleep(0.1)


def test_proxy_client(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(site.root))
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(20_000_000))
    with Client(site.url, site.token) as client:
        project = client.projects.create("through a proxy")
        project.upload(large)
        assert project.submit(wire.NoopJob(steps=20, pause=0.02)).wait().state.result == {"sum": 210}
        response = client._request(
            "GET", f"/api/v1/projects/{project.id}/files/large.bin", headers={"range": "bytes=-1000"}
        )
    assert response.status_code == 206
    assert response.content == large.read_bytes()[-1000:]


def test_proxy_browser_cookie_and_websocket(site: Site) -> None:
    tls_context = ssl.create_default_context(cafile=str(site.root))
    response = httpx.get(f"{site.url}/?token={site.token}", verify=tls_context)
    assert response.status_code == 303
    assert response.headers["location"] == "/"
    assert "; Secure" in response.headers["set-cookie"]
    cookie = {"cookie": response.headers["set-cookie"].partition(";")[0]}
    socket = site.url.replace("https", "wss") + "/api/v1/events"
    with websockets.sync.client.connect(
        socket, ssl=tls_context, additional_headers=cookie, origin=Origin(site.url)
    ) as events:
        wire.Snapshot.model_validate_json(events.recv(timeout=PROXY_TIMEOUT_S))
    for origin in ("https://evil.example", site.url.replace("https", "http")):
        with pytest.raises(InvalidStatus, match="403"):
            websockets.sync.client.connect(socket, ssl=tls_context, additional_headers=cookie, origin=Origin(origin))
        rejection = httpx.post(
            f"{site.url}/api/v1/projects", json={"name": "x"}, headers={**cookie, "origin": origin}, verify=tls_context
        )
        assert rejection.status_code == 403


def test_proxy_forwarded_headers_are_ignored(site: Site) -> None:
    tls_context = ssl.create_default_context(cafile=str(site.root))
    headers = {"x-forwarded-host": "localhost", "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http"}
    assert httpx.get(f"{site.url}/api/v1/projects", headers=headers, verify=tls_context).status_code == 401
