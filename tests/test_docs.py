"""The examples in the documentation run, and its links lead to files."""

import re
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lumigraph.cli.main import main
from lumigraph.methods import train as loop
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.capture import ArrayPhotos, Capture
from lumigraph.scene.errors import FormatError
from lumigraph.studio import config_schema
from lumigraph.wire.events import Metrics
from tests.studio.conftest import make_capture

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.fixture
def page_module(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Execute the page's Python block as a module."""
    text = (ROOT / "docs" / request.param).read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    module = types.ModuleType("page_module")
    sys.modules["page_module"] = module  # dataclasses look up their module
    exec(compile(block, request.param, "exec"), module.__dict__)
    yield module
    del sys.modules["page_module"]


@pytest.mark.parametrize("page_module", ["add-a-method.md"], indirect=True)
def test_add_a_method_example_trains(page_module: Any) -> None:
    sizes = torch.tensor([[4, 3]] * 5)
    poses = torch.eye(3, 4).expand(5, 3, 4)
    photos = ArrayPhotos([torch.full((3, 4, 3), 51, dtype=torch.uint8)] * 5)
    held_out = torch.tensor([True, False, False, False, False])
    cameras = Cameras(poses, sizes.float(), sizes.float() / 2, sizes)
    train, test = Capture(cameras, photos, tuple("abcde"), held_out).split()

    (setting,) = config_schema.settings(page_module.Config)
    assert setting.name == "rate" and setting.doc
    budget = loop.Budget(steps=60)
    training = page_module.start(train, page_module.Config(), budget)
    events = list(loop.train(training, test, budget, look_every=1e9, save=lambda *_: None))
    assert isinstance(events[-1], Metrics) and events[-1].values["psnr"] > 40
    resumed_training = page_module.resume(train, page_module.Config(), training.state(), budget)
    assert torch.equal(resumed_training.field.colour, training.field.colour)
    assert training.field.colour.tolist() == pytest.approx([0.2] * 3, abs=1e-2)


def test_add_a_method_example_is_the_installable_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = ROOT / "examples" / "constant-colour"
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "add-a-method.md").read_text(), re.DOTALL)
    assert (package / "lumigraph_constant.py").read_text() == block
    # metadata that an installer would write
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    metadata = tmp_path / "lumigraph_constant-1.0.dist-info"
    metadata.mkdir()
    metadata.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n")
    lines = [f"{name} = {module}" for name, module in project["entry-points"]["lumigraph.methods"].items()]
    metadata.joinpath("entry_points.txt").write_text("\n".join(["[lumigraph.methods]", *lines]) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(package))
    capture, run = make_capture(tmp_path / "capture", 10), tmp_path / "run"
    assert main(["train", str(capture), "-o", str(run), "-m", "constant", "--steps", "30", "--rate", "0.2"]) == 0
    assert main(["evaluate", str(run)]) == 0
    assert "30 steps" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["train", "--help", "-m", "constant"])
    assert "share of the way to the mean of a photo" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("page_module", ["add-a-format.md"], indirect=True)
def test_add_a_format_example_roundtrip_and_damage(page_module: Any, tmp_path: Path) -> None:
    points = Points(torch.randn(7, 3), torch.randint(0, 256, (7, 3), dtype=torch.uint8))
    page_module.write(points, tmp_path / "points.dots")
    points_read = page_module.read(tmp_path / "points.dots")
    torch.testing.assert_close(points_read.xyz, points.xyz)
    assert points.rgb is not None and torch.equal(points_read.rgb, points.rgb)
    for content in (b"1 2 3\n", b"1 2 nan 4 5 6\n", b"1 2 3 4 5 256\n", b"1 2 3 4 5 x\n"):
        (tmp_path / "damaged.dots").write_bytes(content)
        with pytest.raises(FormatError, match="damaged"):
            page_module.read(tmp_path / "damaged.dots")
    with pytest.raises(FormatError, match="coloured points only"):
        page_module.write(Points(torch.randn(7, 3)), tmp_path / "bare.dots")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_targets(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_make_targets_in_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    mentions = {name for page in PAGES for name in re.findall(r"`make ([a-z]+)", page.read_text())}
    assert mentions and mentions <= targets
