"""The real thing, small: gaussian splatting on the sample scene, by the command line alone."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from lumigraph.captures.sample import render_sample
from lumigraph.cli import main as cli
from lumigraph.formats import ply
from lumigraph.scene.assets import Splats


@pytest.fixture(scope="module")
def still_life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's photos with the cameras that took them."""
    folder = tmp_path_factory.mktemp("sample")
    made: Generator[object, None, Path] = render_sample(folder, views=24, size=(160, 120))
    for _ in made:
        pass
    return folder


def test_a_scan_of_the_sample_learns_it(still_life: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert cli.main(["scan", str(still_life), "-o", str(run), "--steps", "250", "--sh-degree", "1", "-q"]) == 0
    out = capsys.readouterr().out
    for name in ("field.safetensors", "evaluation.json", "report.html", "turntable.mp4", "scene.ply"):
        assert f"{run / name}  (" in out
        assert (run / name).stat().st_size > 500

    assert cli.main(["evaluate", str(run), "--json", "-q"]) == 0
    evaluation = json.loads(capsys.readouterr().out)
    assert evaluation["method"] == "splat"
    assert evaluation["steps"] == 250
    assert evaluation["views"] == 3
    assert evaluation["psnr"] > 18  # a picture of the mean colour has 15
    splats = ply.read(run / "scene.ply")
    assert isinstance(splats, Splats)
    assert len(splats) == evaluation["size"]
    assert splats.sh_degree == 1
