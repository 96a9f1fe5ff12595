"""What tests of the pages need: the pages, Node, and a browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lumigraph.server.pages import STATIC
from tests.debian import program

WEB = Path(__file__).parents[2] / "web"


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Debian's Chromium; Node and the built pages beside it."""
    if shutil.which("node") is None or not (WEB / "node_modules").exists() or not (STATIC / "index.html").exists():
        pytest.skip("the pages are not built: make web")
    found = program("chromium")
    if found is None:
        pytest.skip("Chromium is not installed, and could not be")
    return found
