"""The OpenAPI document as this version serves it: `python -m tests.web.document > web/openapi.json`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from lumigraph.server.app import Settings, build
from lumigraph.server.auth.access import Guard


def document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("projects", "jobs"):
            (Path(folder) / name).mkdir()
        guard = build(Settings(data=Path(folder)))
        assert isinstance(guard, Guard)
        found: dict[str, Any] = guard.app.openapi()  # type: ignore[attr-defined]
        return found


if __name__ == "__main__":
    print(json.dumps(document(), indent=1, sort_keys=True))
