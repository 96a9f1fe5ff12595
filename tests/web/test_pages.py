"""The pages as the server hands them out: to whom, under which policy, how large; and whether their types are fresh."""

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
from tests.web.document import document

FIRST_PAGE = 200_000  # bytes, packed, of all that stands in the page before anything is clicked
BROWSER = {"accept": "text/html,application/xhtml+xml", "sec-fetch-mode": "navigate"}

pytestmark = pytest.mark.skipif(not (STATIC / "index.html").exists(), reason="the pages are not built: make web")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("pages") / "data")
    yield studio
    studio.stop()


@pytest.fixture(scope="module")
def inside(studio: Studio) -> Iterator[httpx.Client]:
    """A browser that has followed the link."""
    with httpx.Client(base_url=studio.url, headers=BROWSER, follow_redirects=True) as client:
        client.get(f"/?token={studio.token}").raise_for_status()
        yield client


def files_of_the_page() -> list[str]:
    return re.findall(r'(?:src|href)="/(assets/[^"]+)"', (STATIC / "index.html").read_text())


def test_without_a_token_a_person_is_asked_for_it(studio: Studio) -> None:
    for path in ("/", "/projects/abc/view", "/projects/%22%3E%3Cscript%3E/view"):
        answer = httpx.get(studio.url + path, headers=BROWSER)
        assert answer.status_code == 401
        assert answer.headers["content-type"].startswith("text/html")
        assert '<form method="get"' in answer.text
        assert "<script" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_without_a_token_a_program_is_told_so(studio: Studio) -> None:
    for path in ("/", "/icon.svg", *(f"/{name}" for name in files_of_the_page())):
        answer = httpx.get(studio.url + path)
        assert answer.status_code == 401, path
        assert answer.headers["content-type"] == "application/problem+json"
    assert httpx.post(f"{studio.url}/", headers=BROWSER).headers["content-type"] == "application/problem+json"


def test_the_page_stands_under_a_strict_policy(inside: httpx.Client) -> None:
    nonces = set()
    for path in ("/", "/projects/abc/view"):
        answer = inside.get(path)
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


def test_files_with_a_hash_are_kept_for_ever(inside: httpx.Client) -> None:
    for name in files_of_the_page():
        answer = inside.get(f"/{name}", headers={"accept-encoding": "gzip"})
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.content == (STATIC / name).read_bytes()
        assert inside.get(f"/{name}", headers={"accept-encoding": "identity"}).content == answer.content


@pytest.mark.parametrize("name", ["../pages.py", "..%2fpages.py", "%2e%2e/pages.py", ".hidden", "none.js", "a%00b"])
def test_no_name_leads_out_of_the_assets(inside: httpx.Client, name: str) -> None:
    assert inside.get(f"/assets/{name}").status_code in (400, 404)


def test_the_first_page_is_small() -> None:
    packed = [gzip.compress((STATIC / name).read_bytes(), 9) for name in ("index.html", *files_of_the_page())]
    assert sum(map(len, packed)) < FIRST_PAGE


def test_the_types_are_those_of_the_document(tmp_path: Path) -> None:
    fresh = json.dumps(document(), indent=1, sort_keys=True) + "\n"
    assert (WEB / "openapi.json").read_text() == fresh, "python -m tests.web.document > web/openapi.json"
    tool = WEB / "node_modules" / ".bin" / "openapi-typescript"
    if not tool.exists():
        pytest.skip("openapi-typescript is not installed: make web")
    made = tmp_path / "schema.d.ts"
    options = json.loads((WEB / "package.json").read_text())["scripts"]["types"].split()[1:]
    arguments = [str(made) if one == "src/api/schema.d.ts" else one for one in options]
    subprocess.run([str(tool), *arguments], cwd=WEB, check=True, stdout=subprocess.DEVNULL)
    assert made.read_text() == (WEB / "src" / "api" / "schema.d.ts").read_text(), "npm run types"
