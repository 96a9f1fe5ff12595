"""Print the OpenAPI document of this version: `python -m tests.web.document > web/openapi.json`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from lumigraph.server.app import Settings, build
from lumigraph.server.auth.access import Guard


def openapi_document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("projects", "jobs"):
            (Path(folder) / name).mkdir()
        guard = build(Settings(data=Path(folder)))
        assert isinstance(guard, Guard)
        openapi: dict[str, Any] = guard.app.openapi()  # type: ignore[attr-defined]
        return openapi


if __name__ == "__main__":
    print(json.dumps(openapi_document(), indent=1, sort_keys=True))
