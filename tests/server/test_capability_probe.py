"""The capability probe runs a worker once, and again after a failure."""

import sys
from pathlib import Path

import pytest

from lumigraph.server.capability_probe import CapabilityProbe
from lumigraph.server.problems import Problem

ONCE = """
import pathlib, sys
marker = pathlib.Path(sys.argv[1])
if not marker.exists():
    marker.touch()
    sys.exit("no memory left")
print('{"methods": {}, "default": "splat", "formats": []}')
"""


def test_capability_probe_retries_after_failure(tmp_path: Path) -> None:
    catalogue = CapabilityProbe([sys.executable, "-c", ONCE, str(tmp_path / "marker")])
    with pytest.raises(Problem, match="no memory left"):
        catalogue.get()
    assert catalogue.get().default == "splat"
