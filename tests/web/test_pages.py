"""Web pages of the server: access, security policy, size; and up-to-date API types."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lumigraph.server.static_pages import STATIC
from tests.server.studio_process import Studio
from tests.web.conftest import WEB
from tests.web.document import openapi_document

MAX_FIRST_PAGE_BYTES = 200_000  # gzipped, all files of the page before the first click
BROWSER = {"accept": "text/html,application/xhtml+xml", "sec-fetch-mode": "navigate"}

pytestmark = pytest.mark.skipif(not (STATIC / "index.html").exists(), reason="the pages are not built: make web")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("pages") / "data")
    yield studio
    studio.stop()


@pytest.fixture(scope="module")
def browser_client(studio: Studio) -> Iterator[httpx.Client]:
    """Client that has opened the link with the token."""
    with httpx.Client(base_url=studio.url, headers=BROWSER, follow_redirects=True) as client:
        client.get(f"/?token={studio.token}").raise_for_status()
        yield client


def page_assets() -> list[str]:
    return re.findall(r'(?:src|href)="/(assets/[^"]+)"', (STATIC / "index.html").read_text())


def test_pages_without_token_show_a_form(studio: Studio) -> None:
    for path in ("/", "/projects/abc/view", "/projects/%22%3E%3Cscript%3E/view"):
        answer = httpx.get(studio.url + path, headers=BROWSER)
        assert answer.status_code == 401
        assert answer.headers["content-type"].startswith("text/html")
        assert '<form method="get"' in answer.text
        assert "<script" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_pages_without_token_answer_programs_with_json(studio: Studio) -> None:
    for path in ("/", "/icon.svg", *(f"/{name}" for name in page_assets())):
        answer = httpx.get(studio.url + path)
        assert answer.status_code == 401, path
        assert answer.headers["content-type"] == "application/problem+json"
    assert httpx.post(f"{studio.url}/", headers=BROWSER).headers["content-type"] == "application/problem+json"


def test_pages_strict_content_security_policy(browser_client: httpx.Client) -> None:
    nonces = set()
    for path in ("/", "/projects/abc/view"):
        answer = browser_client.get(path)
        assert answer.headers["content-type"].startswith("text/html")
        rules = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == "'self' 'wasm-unsafe-eval'"
        assert "'unsafe-inline'" not in rules["style-src"]
        assert "http" not in answer.headers["content-security-policy"]
        [nonce] = re.findall(r"'nonce-([\w-]+)'", rules["style-src"])
        assert f'content="{nonce}"' in answer.text
        nonces.add(nonce)
    assert len(nonces) == 2


def test_assets_with_hash_are_immutable(browser_client: httpx.Client) -> None:
    for name in page_assets():
        answer = browser_client.get(f"/{name}", headers={"accept-encoding": "gzip"})
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.content == (STATIC / name).read_bytes()
        assert browser_client.get(f"/{name}", headers={"accept-encoding": "identity"}).content == answer.content


@pytest.mark.parametrize("name", ["../pages.py", "..%2fpages.py", "%2e%2e/pages.py", ".hidden", "none.js", "a%00b"])
def test_assets_path_traversal(browser_client: httpx.Client, name: str) -> None:
    assert browser_client.get(f"/assets/{name}").status_code in (400, 404)


def test_first_page_size() -> None:
    gzipped_files = [gzip.compress((STATIC / name).read_bytes(), 9) for name in ("index.html", *page_assets())]
    assert sum(map(len, gzipped_files)) < MAX_FIRST_PAGE_BYTES


def test_api_types_match_the_openapi_document(tmp_path: Path) -> None:
    current = json.dumps(openapi_document(), indent=1, sort_keys=True) + "\n"
    assert (WEB / "openapi.json").read_text() == current, "python -m tests.web.document > web/openapi.json"
    tool = WEB / "node_modules" / ".bin" / "openapi-typescript"
    if not tool.exists():
        pytest.skip("openapi-typescript is not installed: make web")
    output = tmp_path / "schema.d.ts"
    options = json.loads((WEB / "package.json").read_text())["scripts"]["types"].split()[1:]
    arguments = [str(output) if option == "src/api/schema.d.ts" else option for option in options]
    subprocess.run([str(tool), *arguments], cwd=WEB, check=True, stdout=subprocess.DEVNULL)
    assert output.read_text() == (WEB / "src" / "api" / "schema.d.ts").read_text(), "npm run types"
