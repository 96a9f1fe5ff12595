"""From file to file in batches: the same file and the same report as of the whole, in memory that does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lumigraph.formats import obj, ply
from lumigraph.formats.chunked import BATCH_ROWS
from lumigraph.formats.gltf import gltf_format as gltf
from lumigraph.scene.assets import Points
from lumigraph.scene.errors import FormatError
from lumigraph.studio import inspecting, progress, registry
from lumigraph.wire.events import ArtifactWritten, Event, ExportReport, Note, Progress
from tests.formats.sample_meshes import make_mesh
from tests.formats.test_ply import make_points, make_splats
from tests.studio.test_exporting import convert

# What should be zeros of turned harmonics is noise of 1e-16, which differs from run to run.
TURNED = [("a.spz", "b.ply")]
STREAMS = ("stream", "write_stream")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("a.ply", "b.ply"),
        ("a.ply", "b.splat"),
        ("a.ply", "b.spz"),
        ("a.ply", "b.compressed.ply"),
        ("a.ply", "b.las"),  # gaussians as points
        ("a.ply", "b.glb"),  # wants the whole
        ("a.spz", "b.ply"),
        ("a.splat", "b.spz"),
        ("a.compressed.ply", "b.ply"),
        ("p.ply", "b.las"),
        ("p.las", "b.xyz"),
        ("p.xyz", "b.ply"),
        ("p.las", "b.ply"),
    ],
)
def test_batches_and_the_whole_come_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, out: str
) -> None:
    """The same bytes, the same report, the same words, though one of both knows nothing of streams."""
    asset: Any = make_points(BATCH_ROWS + 5000) if source.startswith("p") else make_splats(BATCH_ROWS + 5000, 2)
    registry.format_for(tmp_path / source, type(asset)).write(asset, tmp_path / source)
    forms = registry.formats()
    events, report = convert(tmp_path / source, tmp_path / out)
    data = (tmp_path / out).read_bytes()
    before = vars(registry.asset_reader(tmp_path / out).read(tmp_path / out))
    (tmp_path / out).unlink()
    unstreamed: Any = [SimpleNamespace(**{k: v for k, v in vars(it).items() if k not in STREAMS}) for it in forms]
    monkeypatch.setattr(registry, "formats", lambda: unstreamed)
    whole, same = convert(tmp_path / source, tmp_path / out)
    assert report == same and without_progress(events) == without_progress(whole)
    assert data == (tmp_path / out).read_bytes() or (source, out) in TURNED
    for name, value in vars(registry.asset_reader(tmp_path / out).read(tmp_path / out)).items():
        assert value is None or not value.is_floating_point() or (value - before[name]).abs().max() < 1e-14
    assert report.read_back and report.bounds != ((0, 0, 0), (0, 0, 0))


def without_progress(events: list[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, Progress)]


def test_what_takes_long_says_how_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ply.write(make_splats(3 * BATCH_ROWS, 0), tmp_path / "a.ply")
    assert [type(event) for event in convert(tmp_path / "a.ply", tmp_path / "a.spz")[0]] == [
        Note,
        ExportReport,
        ArtifactWritten,
    ]
    monkeypatch.setattr(progress, "PROGRESS_EVENT_INTERVAL_S", 0.0)
    events, _ = convert(tmp_path / "a.ply", tmp_path / "a.las")
    said = [event for event in events if isinstance(event, Progress)]
    assert list(dict.fromkeys(event.stage for event in said)) == ["count", "write", "check"]
    for stage in ("count", "write", "check"):
        steps = [event for event in said if event.stage == stage]
        assert all(event.total and 0 < event.done <= event.total for event in steps)
        assert steps[-1].done == steps[-1].total and steps[-1].seconds_left == 0
        assert all(event.seconds_left is not None for event in steps) and len(steps) > 1


def test_files_of_splats_that_nothing_turns_stay_as_they_are(tmp_path: Path) -> None:
    ply.write(make_splats(100, 3), tmp_path / "a.ply")
    convert(tmp_path / "a.ply", tmp_path / "b.ply")
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


@pytest.mark.parametrize(("form", "name"), [(obj, "a.obj"), (gltf, "a.gltf")])
def test_what_comes_back_different_goes_with_its_companions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any, name: str
) -> None:
    gltf.write(make_mesh(texture=True), tmp_path / "mesh.glb")
    out = tmp_path / "out"
    convert(tmp_path / "mesh.glb", out / "other" / name)
    assert len(list((out / "other").iterdir())) == 3  # with its texture and its material or data
    (out / "mine.txt").write_text("not of this file")
    before = form.read
    monkeypatch.setattr(form, "read", lambda path: before(path) if path.suffix == ".glb" else make_mesh(subdivisions=1))
    with pytest.raises(FormatError, match="read back; this is a bug"):
        convert(tmp_path / "mesh.glb", out / name)
    assert sorted(path.name for path in out.iterdir()) == ["mine.txt", "other"]
    # A companion that another file brought there before stays: that one needs it, and its name says what is in it.
    with pytest.raises(FormatError, match="read back"):
        convert(tmp_path / "mesh.glb", out / "other" / name)
    assert len(list((out / "other").iterdir())) == 2


def test_inspect_says_of_batches_what_torch_says_of_the_whole(tmp_path: Path) -> None:
    splats, points = make_splats(2 * BATCH_ROWS + 11, 1), make_points(BATCH_ROWS + 9)
    ply.write(splats, tmp_path / "a.ply")
    said = inspecting.inspect(tmp_path / "a.ply")
    opacity, size = torch.sigmoid(splats.logit_opacities), splats.log_scales.exp().amax(dim=1)
    assert said == {
        "format": "PLY",
        "bytes": (tmp_path / "a.ply").stat().st_size,
        "holds": "gaussians",
        "count": len(splats),
        "bounds": tuple(map(tuple, splats.bounds().tolist())),
        "sh_degree": 1,
        "opacity_median": round(float(opacity.median()), 4),
        "size_median": float(size.median()),
    }
    assert json.loads(json.dumps(said))["count"] == len(splats)
    ply.write(Points(points.xyz, points.rgb), tmp_path / "p.ply")
    said = inspecting.inspect(tmp_path / "p.ply")
    assert said["bounds"] == tuple(map(tuple, points.bounds().tolist()))
    assert (said["holds"], said["count"], said["coloured"], said["normals"]) == ("points", BATCH_ROWS + 9, True, False)


PEAK = """
import resource, sys
from pathlib import Path
import torch
from lumigraph.formats import ply
from lumigraph.formats.chunked import Stream, drain, select_rows
from lumigraph.studio import converting, inspecting
from lumigraph.wire.requests import ConvertRequest
from tests.formats.test_ply import make_splats

folder, targets = Path(sys.argv[1]), sys.argv[2:]
torch.set_num_threads(1)
block = make_splats(1 << 14, 3)

def made(count, path):
    starts = range(0, count, len(block))
    batches = lambda: (select_rows(block, slice(min(len(block), count - i))) for i in starts)
    drain(ply.write_stream(Stream(select_rows(block, slice(0)), count, batches), path))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

for name, count in (("small", 40_000), ("large", 600_000)):
    made(count, folder / f"{name}.ply")
    for target in targets:
        list(converting.convert(ConvertRequest(source=folder / f"{name}.ply", out=folder / f"{name}{target}")))
    inspecting.inspect(folder / f"{name}.ply")
    print(peak())
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """In a process of its own, whose peak after files of 10 MB is compared with that after files of 149 MB."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path), ".spz", ".compressed.ply"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    small, large = map(float, done.stdout.split())
    assert (tmp_path / "large.ply").stat().st_size > 148e6
    assert large - small < 48, f"{small:.0f} MiB for small files and {large:.0f} for large ones"
