"""What tests of the pages need: the pages, Node, and a browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lumigraph.server.static_pages import STATIC
from tests.debian import find_program

WEB = Path(__file__).parents[2] / "web"


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Debian's Chromium; Node and the built pages beside it."""
    if shutil.which("node") is None or not (WEB / "node_modules").exists() or not (STATIC / "index.html").exists():
        pytest.skip("the pages are not built: make web")
    found = find_program("chromium")
    if found is None:
        pytest.skip("Chromium is not installed, and could not be")
    return found


def play(
    script: str, *arguments: object, chromium: Path, at_wait: Callable[[Any], None] = lambda _: None
) -> list[dict[str, Any]]:
    """What a script of web/tests tells, line by line. `at_wait` gets the lines it waits after."""
    command = ["node", str(WEB / "tests" / script), *map(str, arguments)]
    environment = {**os.environ, "CHROMIUM": str(chromium)}
    told = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as story:
        assert story.stdin is not None
        assert story.stdout is not None
        for line in story.stdout:
            told.append(json.loads(line))
            print(line.strip())
            if told[-1].get("wait"):
                at_wait(told[-1])
                story.stdin.write("\n")
                story.stdin.flush()
    return told
