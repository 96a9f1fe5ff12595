"""A posed capture of ten small photos, and the tiny method installed as another package would install its own."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lumigraph.scene.cameras import Cameras
from lumigraph.scene.images import write_png
from lumigraph.scene.poses import look_at
from tests.studio.tiny import TinyField

SIZE = (48, 40)
PHOTOS = 10
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Pictures this small are lost on threads, and on a busy machine these wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to put on the path: the metadata of a package with the entry point `tiny`."""
    folder = tmp_path_factory.mktemp("site")
    metadata = folder / "tiny_method-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-method\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[lumigraph.methods]\ntiny = tests.studio.tiny\nbroken = tests.studio.no_such_module\n"
    )
    return folder


@pytest.fixture
def tiny(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(plugin))


@pytest.fixture(scope="session")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of a coloured sky from a ring of cameras, as transforms.json says where."""
    return make_capture(tmp_path_factory.mktemp("data") / "capture", PHOTOS)


def make_capture(folder: Path, count: int) -> Path:
    (folder / "images").mkdir(parents=True)
    sky = TinyField(torch.rand(10, 3, generator=torch.Generator().manual_seed(3)) * 0.25)
    sky.weights[0] = 0.3
    frames = []
    for i in range(count):
        angle = 2 * math.pi * i / count
        eye = torch.tensor([2 * math.cos(angle), 2 * math.sin(angle), 0.8])
        pose = look_at(eye, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
        camera = Cameras(pose[None], torch.full((1, 2), 50.0), torch.tensor([[24.0, 20.0]]), torch.tensor([SIZE]))
        write_png(folder / "images" / f"{i:03d}.png", sky.render(camera).rgb[0].clamp(0, 1))
        opengl = pose * torch.tensor([1.0, -1.0, -1.0, 1.0])
        rows = [*opengl.tolist(), [0.0, 0.0, 0.0, 1.0]]
        frames.append({"file_path": f"images/{i:03d}.png", "transform_matrix": rows})
    lens = {"fl_x": 50.0, "fl_y": 50.0, "cx": 24.0, "cy": 20.0, "w": SIZE[0], "h": SIZE[1]}
    (folder / "transforms.json").write_text(json.dumps({**lens, "frames": frames}))
    return folder
