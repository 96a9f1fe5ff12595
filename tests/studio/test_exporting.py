"""A run as files of other programs: right side up, of the right size, and read back by somebody else."""

from __future__ import annotations

import json
import math
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from lumigraph.formats import mesh_ply, stl
from lumigraph.formats.chunked import Stream
from lumigraph.scene.assets import Mesh, Splats
from lumigraph.scene.cameras import Cameras, generate_rays, pixel_grid
from lumigraph.scene.errors import FormatError, RunError
from lumigraph.scene.images import Image
from lumigraph.scene.poses import look_at
from lumigraph.studio import converting, exporting, inspecting, orientation, registry
from lumigraph.wire.events import ArtifactWritten, Event, ExportReport, Note
from lumigraph.wire.requests import ConvertRequest, ExportRequest, OrientationOptions, ScaleRequest
from tests.formats.test_ply import make_splats

UP = torch.nn.functional.normalize(torch.tensor([0.3, -0.8, 0.5], dtype=torch.float64), dim=0)
SMALL = {"resolution": 40, "faces": 1500, "texture": 64, "views": 24, "size": 96}
BODY, HEAD = 0.5, 0.25  # radii of a snowman that stands along UP, its body's centre at CENTRE
CENTRE = torch.tensor([0.4, -0.2, 0.1], dtype=torch.float64)
NECK = 0.6  # from centre to centre
TALL = BODY + NECK + HEAD


class Snowman:
    """Two balls, seen exactly: the body white, the head red."""

    box = torch.tensor([[-1.0, -1.5, -1.0], [1.5, 1.0, 1.5]])

    def render(self, cameras: Cameras, background: Tensor | None = None) -> Image:
        width, height = cameras.size(0)
        pictures = [self._picture(cameras[i], (width, height)) for i in range(len(cameras))]
        rgb, alpha, depth = (
            torch.stack(parts).view(len(cameras), height, width, -1) for parts in zip(*pictures, strict=True)
        )
        back = torch.zeros(3) if background is None else background
        return Image(rgb * alpha + back * (1 - alpha), alpha, depth)

    def _picture(self, camera: Cameras, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        pixels = pixel_grid(size).reshape(-1, 2)
        seen = generate_rays(camera, torch.zeros(len(pixels), dtype=torch.int64), pixels)
        forward = camera.world_from_cam[0, :, 2].double()
        best = torch.full((len(pixels),), math.inf, dtype=torch.float64)
        rgb = torch.zeros(len(pixels), 3)
        for centre, radius, colour in ((CENTRE, BODY, (1.0, 1.0, 1.0)), (CENTRE + NECK * UP, HEAD, (1.0, 0.0, 0.0))):
            at, way = seen.origins.double() - centre, seen.directions.double()
            b, c = (at * way).sum(-1), (at * at).sum(-1) - radius**2
            far = -b - (b * b - c).clamp(min=0).sqrt()
            nearer = (b * b > c) & (far < best)
            best = torch.where(nearer, far, best)
            rgb[nearer] = torch.tensor(colour)
        hit = best.isfinite()
        depth = torch.where(hit, best, 0.0) * (seen.directions.double() @ forward)
        return rgb, hit.float()[:, None], depth.float()[:, None]

    def state(self) -> dict[str, Tensor]:
        return {}

    def splats(self) -> Splats:
        splats = make_splats(200, 1)
        shift = torch.nn.functional.normalize(splats.means, dim=1) * BODY + CENTRE.float()
        return Splats(shift, splats.log_scales - 5, splats.quats, splats.logit_opacities, splats.sh)


def around() -> Cameras:
    poses = []
    side = torch.linalg.cross(UP, torch.tensor([1.0, 0, 0], dtype=torch.float64))
    other = torch.linalg.cross(UP, side)
    for i in range(24):
        angle, height = i * 2.4, 2.4 * math.sin(i)
        eye = CENTRE + 3 * (math.cos(angle) * side + math.sin(angle) * other) + height * UP
        poses.append(look_at(eye, CENTRE + 0.3 * UP, UP))
    count = len(poses)
    return Cameras(
        torch.stack(poses).float(),
        torch.full((count, 2), 120.0),
        torch.full((count, 2), 48.0),
        torch.full((count, 2), 96),
    )


@pytest.fixture
def snowman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run, whose field is a snowman."""
    path = tmp_path / "run"
    path.mkdir()
    cameras = around()
    run = SimpleNamespace(path=path, cameras=lambda: (cameras, torch.arange(len(cameras)) % 8 == 0))
    monkeypatch.setattr(exporting, "Run", lambda asked: run)
    monkeypatch.setattr(exporting, "load_field", lambda run, device: (Snowman(), SimpleNamespace(method="snow")))
    return path


def done(verb: Generator[Event, None, Any]) -> tuple[list[Event], Any]:
    events = []
    while True:
        try:
            events.append(next(verb))
        except StopIteration as end:
            return events, end.value


def export(run: Path, out: Path, **asked: Any) -> ExportReport:
    report = done(exporting.export(ExportRequest(run=run, out=out, **asked)))[1]
    assert isinstance(report, ExportReport)
    return report


def thinner_end(vertices: Any, axis: int) -> float:
    """The sign of the direction in which the head lies: there is less of it."""
    heights = np.asarray(vertices)[:, axis]
    middle = (heights.min() + heights.max()) / 2
    across = np.delete(np.asarray(vertices), axis, axis=1)
    spread = [
        np.ptp(across[part], axis=0).max()
        for part in (heights > middle + 0.3 * (heights.max() - middle), heights < middle)
    ]
    return 1.0 if spread[0] < spread[1] else -1.0


@pytest.mark.parametrize(
    ("name", "axis", "unit"),
    [("a.glb", 1, 1.0), ("a.obj", 1, 1.0), ("a.stl", 2, 0.001), ("a.ply", 2, 1.0), ("a.gltf", 1, 1.0)],
)
def test_a_mesh_opens_upright_and_in_its_size(snowman: Path, tmp_path: Path, name: str, axis: int, unit: float) -> None:
    done(exporting.scale(ScaleRequest(run=snowman, points=((0, 0, 0), (0, 0, 1)), metres=2.0)))
    asked = {**SMALL, **({"allow_open": True} if name.endswith("stl") else {})}
    report = export(snowman, tmp_path / name, kind="mesh", settings=asked)
    assert report.holds == "triangles" and report.read_back
    loaded = trimesh.load(tmp_path / name, force="mesh")
    assert len(loaded.faces) == report.count
    assert np.ptp(loaded.vertices[:, axis]) == pytest.approx(2 * TALL / unit, rel=0.05)
    assert np.ptp(loaded.vertices, axis=0).min() == pytest.approx(2 * 2 * BODY / unit, rel=0.05)
    assert thinner_end(loaded.vertices, axis) == 1
    assert abs(loaded.vertices[:, axis].min()) < 0.03 * 2 * TALL / unit  # stands on the ground
    assert report.metres_per_unit == unit
    assert loaded.volume > 0


def test_what_other_formats_say_of_up_and_units(snowman: Path, tmp_path: Path) -> None:
    from pxr import Usd, UsdGeom

    export(snowman, tmp_path / "a.usdc", kind="mesh", settings={**SMALL, "up": "z", "unit": "cm"})
    stage = Usd.Stage.Open(str(tmp_path / "a.usdc"))
    assert UsdGeom.GetStageUpAxis(stage) == "Z"
    assert UsdGeom.GetStageMetersPerUnit(stage) == pytest.approx(0.01)
    [mesh] = [prim for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)]
    points = np.array(UsdGeom.Mesh(mesh).GetPointsAttr().Get())
    assert np.ptp(points[:, 2]) == pytest.approx(100 * TALL, rel=0.05)
    assert thinner_end(points, 2) == 1


def test_splat_files_keep_the_axes_of_the_capture_and_others_stand(snowman: Path, tmp_path: Path) -> None:
    means = Snowman().splats().means
    export(snowman, tmp_path / "a.ply")
    kept = registry.asset_reader(tmp_path / "a.ply").read(tmp_path / "a.ply")
    assert torch.equal(kept.means, means)
    export(snowman, tmp_path / "a.spz")  # right-up-back, where trainers are right-down-front
    packed = registry.asset_reader(tmp_path / "a.spz").read(tmp_path / "a.spz")
    torch.testing.assert_close(packed.means, means * torch.tensor([1.0, -1.0, -1.0]), atol=1e-3, rtol=0)
    report = export(snowman, tmp_path / "a.glb", kind="splats")
    standing = registry.asset_reader(tmp_path / "a.glb").read(tmp_path / "a.glb")
    matrix = torch.tensor(report.file_from_capture, dtype=torch.float64)
    torch.testing.assert_close(
        standing.means.double(), means.double() @ matrix[:, :3].T + matrix[:, 3], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(matrix[:, :3] @ UP, torch.tensor([0.0, 1, 0], dtype=torch.float64), atol=0.02, rtol=0)
    report = export(snowman, tmp_path / "b.glb", kind="splats", frame="capture")
    still = registry.asset_reader(tmp_path / "b.glb").read(tmp_path / "b.glb")
    torch.testing.assert_close(still.means, means, atol=1e-5, rtol=0)


def test_every_form_says_what_it_holds_and_its_settings_have_one_meaning() -> None:
    offers = exporting.forms()
    assert {offer["form"] for offer in offers} >= {
        "ply",
        "glb",
        "obj",
        "stl",
        "usdz",
        "fbx",
        "spz",
        "sog",
        "las",
        "xyz",
    }
    for offer in offers:
        for kind in offer["kinds"]:
            names = [setting["name"] for setting in kind["settings"]]
            assert len(names) == len(set(names)), (offer["form"], kind["kind"])
            for preset, values in kind["presets"].items():
                writer = registry.format_for(Path(f"a.{offer['form']}"), exporting.TYPES[kind["kind"]])
                exporting.resolve_settings(writer, kind["kind"], preset, {})  # the values are of the right types
                assert values


def test_presets_count_less_than_what_is_asked() -> None:
    glb = registry.format_for(Path("a.glb"), Mesh)
    options, config = exporting.resolve_settings(glb, "mesh", "web", {"faces": 77})
    assert options.compression == "draco"
    assert config.faces == 77
    with pytest.raises(RunError, match=r"glTF of mesh has no setting 'facets'; settings: .*faces"):
        exporting.resolve_settings(glb, "mesh", None, {"facets": 1})


def test_without_a_known_scale_that_is_said(snowman: Path, tmp_path: Path) -> None:
    events, report = done(exporting.export(ExportRequest(run=snowman, out=tmp_path / "a.glb", kind="splats")))
    assert report.metres_per_unit is None
    assert any(isinstance(event, Note) and "lumigraph scale" in event.text for event in events)
    assert isinstance(events[-1], ArtifactWritten)


def test_a_file_that_comes_back_different_is_taken_away(
    snowman: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spz = registry.format_for(tmp_path / "a.spz")
    monkeypatch.setattr(spz, "stream", lambda path: Stream.from_asset(make_splats(3, 1)))
    with pytest.raises(FormatError, match="200 gaussians were written and 3 gaussians read back; this is a bug"):
        export(snowman, tmp_path / "a.spz")
    assert not (tmp_path / "a.spz").exists()


def test_a_damaged_scale_is_said(snowman: Path, tmp_path: Path) -> None:
    for text in ("", "{}", '{"metres_per_unit": -1}', '{"metres_per_unit": "x"}', "[1]"):
        (snowman / exporting.SCALE_FILE).write_text(text)
        with pytest.raises(RunError, match="is damaged; set the scale again"):
            export(snowman, tmp_path / "a.glb", kind="splats")
    with pytest.raises(RunError, match="the two points are equal"):
        done(exporting.scale(ScaleRequest(run=snowman, points=((1, 1, 1), (1, 1, 1)), metres=2.0)))


@pytest.mark.parametrize("up", ["+y", "-y", "+z", "+x", "-x", "-z"])
def test_turning_is_the_smallest_rotation(up: str) -> None:
    for start in (UP, orientation.direction("-y"), orientation.direction(up), -orientation.direction(up)):
        rotation = orientation.turn(start, orientation.direction(up))
        torch.testing.assert_close(rotation @ start, orientation.direction(up))
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64))
        assert torch.det(rotation) == pytest.approx(1)
        angle = math.acos(max(-1, min(1, (float(torch.trace(rotation)) - 1) / 2)))
        assert angle == pytest.approx(math.acos(max(-1, min(1, float(start @ orientation.direction(up))))), abs=1e-6)
    half = orientation.turn(orientation.direction("-y"), orientation.direction("+y"))
    torch.testing.assert_close(half, torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)))


def test_an_unknown_origin_needs_no_scene() -> None:
    nothing = make_splats(3, 0).select(torch.zeros(3, dtype=torch.bool))
    world = orientation.World(UP)
    placed = orientation.placement(nothing, world, registry.format_for(Path("a.glb")), None, OrientationOptions())
    assert placed.file_from_capture.translation.abs().max() == 0


# --- convert and inspect ---------------------------------------------------------------------------------------------


def convert(source: Path, out: Path, **asked: Any) -> tuple[list[Event], ExportReport]:
    events, report = done(converting.convert(ConvertRequest(source=source, out=out, **asked)))
    assert isinstance(report, ExportReport)
    return events, report


def test_there_and_back_nothing_turns(tmp_path: Path) -> None:
    splats = make_splats(300, 3)
    ply = registry.format_for(tmp_path / "a.ply", Splats)
    ply.write(splats, tmp_path / "a.ply")
    convert(tmp_path / "a.ply", tmp_path / "b.glb")
    assert inspecting.inspect(tmp_path / "b.glb")["bounds"][0][1] == pytest.approx(
        -float(splats.means[:, 1].max()), rel=1e-5
    )
    convert(tmp_path / "b.glb", tmp_path / "c.ply")
    back = ply.read(tmp_path / "c.ply")
    torch.testing.assert_close(back.means, splats.means, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(back.sh, splats.sh, atol=1e-4, rtol=1e-4)
    convert(tmp_path / "a.ply", tmp_path / "d.glb", keep_axes=True)
    kept = registry.asset_reader(tmp_path / "d.glb").read(tmp_path / "d.glb")
    torch.testing.assert_close(kept.means, splats.means, atol=1e-5, rtol=1e-5)


def test_metres_stay_metres(tmp_path: Path) -> None:
    box = trimesh.creation.box((1, 2, 3))
    box.export(tmp_path / "a.glb")
    convert(tmp_path / "a.glb", tmp_path / "a.stl")
    loaded = stl.read(tmp_path / "a.stl")
    assert (loaded.bounds()[1] - loaded.bounds()[0]).tolist() == pytest.approx([1000, 3000, 2000])  # y up to z up
    convert(tmp_path / "a.glb", tmp_path / "b.stl", settings={"unit": "cm"})
    assert float((stl.read(tmp_path / "b.stl").bounds()[1]).max()) == pytest.approx(150)


def test_gaussians_become_points_where_only_those_are_held(tmp_path: Path) -> None:
    registry.format_for(tmp_path / "a.ply", Splats).write(make_splats(50, 0), tmp_path / "a.ply")
    events, report = convert(tmp_path / "a.ply", tmp_path / "a.xyz")
    assert report.holds == "points" and 0 < report.count <= 50
    assert any(isinstance(event, Note) and "holds no gaussians" in event.text for event in events)
    with pytest.raises(FormatError, match=r"STL .*holds no splats; these do: \.ply"):
        convert(tmp_path / "a.ply", tmp_path / "a.stl")
    with pytest.raises(FormatError, match="formats that can be written"):
        convert(tmp_path / "a.ply", tmp_path / "a.doc")
    with pytest.raises(FormatError, match="no format of this suffix can be read"):
        convert(tmp_path / "a.doc", tmp_path / "b.ply")


def test_a_ply_is_what_it_declares(tmp_path: Path) -> None:
    box = trimesh.creation.box()
    box.export(tmp_path / "mesh.ply")
    assert registry.asset_reader(tmp_path / "mesh.ply") is mesh_ply
    said = inspecting.inspect(tmp_path / "mesh.ply")
    assert (said["holds"], said["count"], said["watertight"]) == ("triangles", 12, True)
    trimesh.PointCloud(box.vertices).export(tmp_path / "points.ply")
    assert inspecting.inspect(tmp_path / "points.ply")["holds"] == "points"
    assert json.loads(json.dumps(said)) is not None


@pytest.mark.parametrize("dataset", ["colmap", "transforms"])
def test_a_capture_for_other_trainers(capture: Path, tmp_path: Path, dataset: str) -> None:
    events, report = done(converting.convert(ConvertRequest(source=capture, out=tmp_path / "out", dataset=dataset)))  # type: ignore[arg-type]
    assert report is None and isinstance(events[-1], ArtifactWritten)
    before, after = (registry.capture_reader(path).read(path) for path in (capture, tmp_path / "out"))
    assert len(after) == len(before)
    torch.testing.assert_close(after.cameras.world_from_cam, before.cameras.world_from_cam, atol=1e-5, rtol=1e-5)
    assert torch.equal(after.photo(3), before.photo(3))
