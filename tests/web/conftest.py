"""Fixtures and helpers of the browser tests."""

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
    """Path of Debian's Chromium. Skips without Chromium, Node or the built pages."""
    if shutil.which("node") is None or not (WEB / "node_modules").exists() or not (STATIC / "index.html").exists():
        pytest.skip("the pages are not built: make web")
    executable = find_program("chromium")
    if executable is None:
        pytest.skip("Chromium is not installed, and installing it failed")
    return executable


def run_script(
    script: str, *arguments: object, chromium: Path, on_wait: Callable[[Any], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Run a script of web/tests and return its JSON lines. `on_wait` is called for each line with `wait`."""
    command = ["node", str(WEB / "tests" / script), *map(str, arguments)]
    environment = {**os.environ, "CHROMIUM": str(chromium)}
    messages = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as node:
        assert node.stdin is not None
        assert node.stdout is not None
        for line in node.stdout:
            messages.append(json.loads(line))
            print(line.strip())
            if messages[-1].get("wait"):
                on_wait(messages[-1])
                node.stdin.write("\n")
                node.stdin.flush()
    return messages
