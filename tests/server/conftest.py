from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.server.running_server import application


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Create a data folder with one project, `p`."""
    (tmp_path / "data" / "p").mkdir(parents=True)
    return tmp_path / "data"


@pytest.fixture
def client(data: Path) -> Iterator[TestClient]:
    with TestClient(application(data), raise_server_exceptions=False) as client:
        yield client
