from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lumigraph.cli.main import main
from lumigraph.scene.errors import RunError
from lumigraph.studio import comparing
from lumigraph.wire.requests import CompareRequest
from tests.studio.conftest import PHOTOS, make_capture
from tests.studio.test_verbs import done, trained

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, capture: Path, plugin: Path) -> list[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(plugin))
        folder = tmp_path_factory.mktemp("compared")
        for name, steps in (("short", 2), ("long", 120)):
            trained(capture, folder / name, steps=steps)
        return [folder / "short", folder / "long"]


def test_runs_are_judged_by_the_same_views_and_stand_side_by_side(runs: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    rows: list[dict[str, Any]] = done(comparing.compare(CompareRequest(runs=runs, out=page)))[1]
    assert [row["run"] for row in rows] == ["short", "long"]
    assert rows[1]["psnr"] > rows[0]["psnr"] + 3
    for run, row in zip(runs, rows, strict=True):
        evaluation = json.loads((run / "evaluation.json").read_text())
        assert {key: row[key] for key in ("psnr", "ssim", "steps")} == {
            key: evaluation[key] for key in ("psnr", "ssim", "steps")
        }
        assert row["megabytes"] == pytest.approx((run / "field.safetensors").stat().st_size / 1e6)
        assert row["frames_per_second"] > 0
    text = page.read_text()
    views = len(evaluation["per_view"])
    assert text.count('<section class="view">') == views
    assert text.count("<img ") == 3 * views  # the photo and two renders
    assert "http" not in text.split("</head>")[1]
    lines = comparing.table(rows).splitlines()
    assert len(lines) == 3 and lines[0].startswith("run") and f"{rows[1]['psnr']:.2f}" in lines[2]


def test_the_command_prints_figures_and_says_where_the_page_is(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "a" / "page.html"
    assert main(["compare", *map(str, runs), "-o", str(page), "-q"]) == 0
    out = capsys.readouterr().out
    assert str(page) in out and "PSNR, dB" in out
    assert main(["compare", *map(str, runs), "-o", str(page), "-q", "--json"]) == 0
    assert [row["run"] for row in json.loads(capsys.readouterr().out)] == ["short", "long"]


def test_runs_of_different_captures_have_nothing_to_compare(runs: list[Path], tmp_path: Path) -> None:
    other = make_capture(tmp_path / "other", PHOTOS)
    transforms = json.loads((other / "transforms.json").read_text())
    for frame in transforms["frames"]:
        path = other / frame["file_path"]
        path.rename(path.with_name(f"x{path.name}"))
        frame["file_path"] = f"images/x{path.name}"
    (other / "transforms.json").write_text(json.dumps(transforms))
    trained(other, tmp_path / "foreign", steps=2)
    with pytest.raises(RunError, match="no held-out view in common"):
        done(comparing.compare(CompareRequest(runs=[runs[0], tmp_path / "foreign"], out=tmp_path / "page.html")))
    assert not (tmp_path / "page.html").exists()
