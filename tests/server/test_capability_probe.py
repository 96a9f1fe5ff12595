"""What the server asks of a worker process once, and again where it failed."""

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


def test_a_worker_that_failed_to_tell_is_asked_again(tmp_path: Path) -> None:
    catalogue = CapabilityProbe([sys.executable, "-c", ONCE, str(tmp_path / "marker")])
    with pytest.raises(Problem, match="no memory left"):
        catalogue.get()
    assert catalogue.get().default == "splat"
