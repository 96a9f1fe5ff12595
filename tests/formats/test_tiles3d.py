"""3D Tiles: agreement with another viewer, validation of each tile, robustness to hostile files."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from lumigraph.formats import tiles3d
from lumigraph.formats.gltf import gltf_format as gltf
from lumigraph.formats.tiles3d import Options
from lumigraph.scene.assets import Mesh, Points
from lumigraph.scene.errors import FormatError
from tests.formats.corrupted_files import assert_survives, iterate_damage

JUDGES = Path(__file__).parent / "gltf"
CASES = {
    "tileset.json": Options(tile=1000),
    "town-tileset.json": Options(tile=1000, compression="meshopt"),
    "one-tileset.json": Options(),
}


def make_points(count: int = 12_000) -> Points:
    """A hill with a dense corner, and a hundred coincident points."""
    g = torch.Generator().manual_seed(4)
    xy = torch.rand(count, 2, generator=g) * 10
    xy[: count // 4] *= 0.05
    xy[-100:] = 3.0
    xyz = torch.cat([xy, (xy[:, :1].sin() + xy[:, 1:].cos()) * 2], 1)
    rgb = torch.randint(256, (count, 3), generator=g, dtype=torch.uint8)
    return Points(xyz, rgb, torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("tiles")
    for name, options in CASES.items():
        tiles3d.write(make_points(), folder / name, options)
    return folder


def judge(script: str, *arguments: object) -> list[Any]:
    if shutil.which("node") is None or not (JUDGES / "node_modules" / "3d-tiles-renderer").exists():
        pytest.skip("judges of tilesets are not installed: run `npm ci` in tests/formats/gltf")
    command = ["node", str(JUDGES / script), *map(str, arguments)]
    process = subprocess.run(command, check=True, capture_output=True, timeout=300)
    return [json.loads(line) for line in process.stdout.splitlines()]


def tree(path: Path) -> list[tuple[int, dict[str, Any], dict[str, Any] | None]]:
    """(depth, tile, parent tile) of all tiles."""
    tiles, queue = [], [(0, json.loads(path.read_bytes())["root"], None)]
    while queue:
        depth, tile, above = queue.pop()
        tiles.append((depth, tile, above))
        queue += [(depth + 1, child, tile) for child in tile.get("children", [])]
    return tiles


def ends(tile: dict[str, Any]) -> np.ndarray[Any, Any]:
    box = np.array(tile["boundingVolume"]["box"])
    return np.stack([box[:3] - box[[3, 7, 11]], box[:3] + box[[3, 7, 11]]])


@pytest.mark.parametrize("name", CASES)
def test_tiles3d_matches_3dtilesrendererjs(folder: Path, name: str) -> None:
    """A small error target loads all tiles, a large one only the coarsest tile."""
    points = make_points()
    near, far = judge("tiles.mjs", folder / name, 0, 1e9)
    assert near["failed"] == far["failed"] == []
    assert near["points"] == len(points) and near["parts"] == len(tree(folder / name))
    assert np.abs(np.array([near["low"], near["high"]]) - points.bounds().numpy()).max() < 1e-3
    assert far["parts"] == 1 and far["points"] == (12_000 if name.startswith("one") else far["points"]) <= 12_000


@pytest.mark.parametrize("name", CASES)
def test_tiles3d_tiles_pass_validator(folder: Path, name: str) -> None:
    files = sorted((folder / tree(folder / name)[0][1]["content"]["uri"]).parent.glob("*.glb"))
    assert len(files) == len(tree(folder / name))
    for report in judge("judge.mjs", *files[:12]):
        assert [finding for finding in report["findings"] if finding["severity"] < 2] == []


@pytest.mark.parametrize("name", CASES)
def test_tiles3d_roundtrip(folder: Path, name: str) -> None:
    points, again = make_points(), tiles3d.read(folder / name)
    assert len(again) == len(points) and again.rgb is not None and again.normals is not None
    far, indices = cKDTree(again.xyz.numpy()).query(points.xyz.numpy()[:-100])
    is_compressed = CASES[name].compression == "meshopt"
    assert far.max() <= (1e-3 if is_compressed else 0)
    colour_error = (again.rgb[indices].float() - points.rgb[:-100].float()).abs()
    assert (
        float(colour_error.mean()) < 3 if is_compressed else float(colour_error.max()) == 0
    )  # bytes of linear light merge dark colours
    normal_cosines = (again.normals[indices] * points.normals[:-100]).sum(1)
    assert float(normal_cosines.median()) > 0.999


@pytest.mark.parametrize("name", CASES)
def test_tiles3d_octree_bounds_and_errors(folder: Path, name: str) -> None:
    whole = json.loads((folder / name).read_bytes())
    root = whole["root"]
    assert whole["asset"] == {"version": "1.1"} and root["refine"] == "ADD"
    assert whole["geometricError"] >= root["geometricError"]
    for depth, tile, above in tree(folder / name):
        part = gltf.read(folder / tile["content"]["uri"])
        assert isinstance(part, Points) and len(part) <= CASES[name].tile
        x, y, z = part.xyz.numpy().T
        positions = np.stack([x, -z, y], 1)  # from y up to z up
        low, high = ends(tile)
        assert (positions >= low).all() and (positions <= high).all()
        assert tile["geometricError"] == (root["geometricError"] / 2**depth if "children" in tile else 0)
        if above is not None:
            assert (low >= ends(above)[0] - 1e-9).all() and (high <= ends(above)[1] + 1e-9).all()


def test_tiles3d_coarse_tiles_cover_scene(folder: Path) -> None:
    points = make_points()
    coarse = gltf.read(folder / tree(folder / "tileset.json")[0][1]["content"]["uri"])
    assert isinstance(coarse, Points)
    x, y, z = coarse.xyz.numpy().T
    chance = points.xyz[torch.randperm(len(points), generator=torch.Generator().manual_seed(5))[: len(coarse)]]
    gaps = [cKDTree(some).query(points.xyz.numpy())[0] for some in (np.stack([x, -z, y], 1), chance.numpy())]
    assert np.square(gaps[0]).mean() < np.square(gaps[1]).mean()


def test_tiles3d_coincident_points(tmp_path: Path) -> None:
    points = Points(torch.full((20_000, 3), 2.5))
    tiles3d.write(points, tmp_path / "tileset.json", Options(tile=1000))
    again = tiles3d.read(tmp_path / "tileset.json")
    assert torch.equal(again.xyz, points.xyz) and again.rgb is None and again.normals is None
    assert all(len(gltf.read(file)) <= 1000 for file in tmp_path.glob("*/*.glb"))


def test_tiles3d_write_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "tileset.json"
    tiles3d.write(make_points(3000), out, Options(tile=1000))
    before = out.read_bytes()
    tiles3d.write(make_points(3000), out, Options(tile=1000))  # the same scene again
    assert out.read_bytes() == before and len(list(tmp_path.iterdir())) == 2

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gltf, "write", full)
    with pytest.raises(FormatError, match=r"not written \(No space left on device\)"):
        tiles3d.write(make_points(4000), out, Options(tile=1000))
    assert out.read_bytes() == before and len(list(tmp_path.iterdir())) == 2
    assert len(tiles3d.read(out)) == 3000


def test_tiles3d_rejects_unwritable_assets(tmp_path: Path) -> None:
    out = tmp_path / "tileset.json"
    for asset, message in (
        (Points(torch.zeros(0, 3)), "no points"),
        (Points(torch.tensor([[0, 0, torch.nan]])), "1 of 1 points hold NaN"),
        (Mesh(torch.zeros(3, 3), torch.zeros(1, 3, dtype=torch.int32)), "holds points here"),
    ):
        with pytest.raises(FormatError, match=message):
            tiles3d.write(asset, out)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# --- hostile files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def town(tmp_path: Path) -> Path:
    path = tmp_path / "town" / "tileset.json"
    path.parent.mkdir()
    tiles3d.write(make_points(2500), path, Options(tile=1000))
    gltf.write(make_points(50), tmp_path / "secret.glb")
    return path


def write_changed(path: Path, **root: Any) -> Path:
    whole = json.loads(path.read_bytes())
    whole["root"] |= root
    path.write_text(json.dumps(whole))
    return path


@pytest.mark.parametrize(
    "uri",
    [
        "../secret.glb",
        "%2e%2e/secret.glb",
        "..\\secret.glb",
        "/etc/passwd.glb",
        "http://example.org/a.glb",
        "file:///a.glb",
        "a/../../secret.glb",
        "\0.glb",
        "link.glb",
    ],
)
def test_tiles3d_rejects_tiles_outside_folder(town: Path, uri: str) -> None:
    (town.parent / "link.glb").symlink_to(town.parents[1] / "secret.glb")
    with pytest.raises(FormatError, match="is not in its folder"):
        tiles3d.read(write_changed(town, content={"uri": uri}))


def nest_tiles(depth: int, fields: dict[str, Any] | None = None, last: dict[str, Any] | None = None) -> dict[str, Any]:
    tile = last or {}
    for _ in range(depth):
        tile = {"children": [tile], **(fields or {})}
    return tile


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ({"content": {"uri": "tileset.json"}}, "is not a .glb"),
        ({"content": {"uri": 7}}, "is not a .glb"),
        ({"content": [1]}, "is not a .glb"),
        ({"content": {"uri": "missing.glb"}}, "cannot be opened"),
        ({"children": 3}, "another type"),
        ({"children": [3]}, "not an object"),
        ({"refine": "MULTIPLY"}, "another type"),
        ({"transform": [1, 2]}, "16 finite numbers"),
        ({"transform": [1e300] * 16}, "16 finite numbers"),
        (nest_tiles(40, {"transform": [1e11] * 16}, {"content": {"uri": "a.glb"}}), "not finite after"),
        ({"implicitTiling": {}}, "implicit"),
        (nest_tiles(100), "more than 64 levels"),
        ({"children": [{}] * 100_001}, "more than 100000 tiles"),
    ],
)
def test_tiles3d_rejects_invalid_tilesets(town: Path, root: dict[str, Any], message: str) -> None:
    gltf.write(make_points(50), town.parent / "a.glb")
    with pytest.raises(FormatError, match=message):
        tiles3d.read(write_changed(town, **root))


def test_tiles3d_rejects_repeated_tile(town: Path) -> None:
    uri = json.loads(town.read_bytes())["root"]["content"]
    with pytest.raises(FormatError, match="twice"):
        tiles3d.read(write_changed(town, children=[{"content": uri}] * 1000))


def test_tiles3d_replace_refinement_and_transforms(town: Path) -> None:
    content = json.loads(town.read_bytes())["root"]["content"]
    size = len(gltf.read(town.parent / content["uri"]))
    gltf.write(make_points(70), town.parent / "a.glb")
    move = [0, 2, 0, 0, -2, 0, 0, 0, 0, 0, 2, 0, 5, 6, 7, 1]  # a quarter turn about z, scaled by two, translated
    child = {"content": {"uri": "a.glb"}, "transform": move}
    assert len(tiles3d.read(write_changed(town, refine="ADD", children=[child]))) == size + 70
    again = tiles3d.read(write_changed(town, refine="REPLACE"))
    x, y, z = make_points(70).xyz.numpy().T
    expected_positions = np.stack([2 * z + 5, 2 * x + 6, 2 * y + 7], 1)
    assert len(again) == 70 and np.abs(again.xyz.numpy() - expected_positions).max() < 1e-4
    assert again.normals is not None and torch.allclose(again.normals.norm(dim=1), torch.ones(70), atol=1e-5)


def test_tiles3d_limits_total_memory(town: Path) -> None:
    """A small tile may announce millions of zeros; a thousand such tiles may not."""
    zeros = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "scene": 0,
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"mode": 0, "attributes": {"POSITION": 0}}]}],
        "accessors": [{"componentType": 5126, "count": 500_000, "type": "VEC3"}],
    }
    for i in range(40):
        (town.parent / f"{i}.gltf").write_text(json.dumps(zeros))
    with pytest.raises(FormatError, match="decode to more than"):
        tiles3d.read(write_changed(town, children=[{"content": {"uri": f"{i}.gltf"}} for i in range(40)]))


def test_tiles3d_survives_damage(town: Path) -> None:
    assert_survives(tiles3d.read, town, iterate_damage(town.read_bytes(), cuts=20, flips=60))
    deep = b'{"asset":{"version":"1.1"},"root":' + b'{"children":[' * 200_000
    for text in (b"", b"[]", b"{}", b'{"asset":{"version":"2.0"}}', b'{"asset":{"version":"1.1"}}', deep, b"\xff"):
        town.write_bytes(text)
        with pytest.raises(FormatError):
            tiles3d.read(town)
