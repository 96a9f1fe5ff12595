"""glTF: no errors of the Khronos validator, agreement with glTF-Transform and trimesh, robustness to hostile files."""

from __future__ import annotations

import base64
import copy
import json
import math
import random
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lumigraph.formats.gltf import gltf_format as gltf
from lumigraph.formats.gltf.gltf_format import Options
from lumigraph.formats.texture_images import encode_image
from lumigraph.scene.assets import Mesh, Points, Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.harmonics import C0
from tests.formats.sample_meshes import (
    assert_same_positions,
    assert_trimesh_matches,
    make_mesh,
    trimesh_colours,
    vertex_colours,
)

JUDGES = Path(__file__).parent / "gltf"
NEW_TO_THE_VALIDATOR = "MESH_PRIMITIVE_INVALID_ATTRIBUTE"  # the validator does not support KHR_gaussian_splatting yet


def make_points(count: int = 1000, normals: bool = False) -> Points:
    g = torch.Generator().manual_seed(2)
    xyz = torch.randn(count, 3, generator=g) * torch.tensor([1.0, 3.0, 0.1]) + 7
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    rgb = torch.randint(256, (count, 3), generator=g, dtype=torch.uint8)
    return Points(xyz, rgb, directions if normals else None)


def make_splats(degree: int = 3, count: int = 100) -> Splats:
    g = torch.Generator().manual_seed(3)
    sh = torch.randn(count, (degree + 1) ** 2, 3, generator=g)
    return Splats(
        torch.randn(count, 3, generator=g),
        torch.randn(count, 3, generator=g) - 4,
        torch.randn(count, 4, generator=g) * 3,
        torch.randn(count, generator=g) * 3,
        sh,
    )


CASES: dict[str, tuple[Mesh | Points | Splats, Options]] = {
    "plain.glb": (make_mesh(texture=True, normals=True), Options()),
    "beside.gltf": (make_mesh(texture=True, normals=True), Options(texture_format="jpeg", jpeg_quality=95)),
    "lit.glb": (make_mesh(texture=True, normals=True), Options(unlit=False)),
    "coloured.glb": (make_mesh(rgb=True), Options()),
    "bare.glb": (make_mesh(), Options()),
    "large.glb": (make_mesh(subdivisions=7), Options()),  # more vertices than 16-bit indices allow
    "draco.glb": (make_mesh(texture=True, normals=True), Options("draco")),
    "draco-coloured.gltf": (make_mesh(rgb=True), Options("draco", position_bits=16)),
    "meshopt.glb": (make_mesh(texture=True, normals=True), Options("meshopt")),
    "meshopt-coloured.gltf": (make_mesh(rgb=True), Options("meshopt", position_bits=16)),
    "points.glb": (make_points(), Options()),
    "points-beside.gltf": (make_points(normals=True), Options()),
    "points-meshopt.glb": (make_points(normals=True), Options("meshopt")),
    "splats.glb": (make_splats(3), Options()),
    "splats.gltf": (make_splats(0), Options()),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("gltf")
    for name, (asset, options) in CASES.items():
        gltf.write(asset, folder / name, options)
    return folder


@pytest.fixture(scope="module")
def reports(folder: Path) -> dict[str, Any]:
    """Reports of external programs for each file."""
    if shutil.which("npm") is None:
        pytest.skip("Node is not installed, which the validators of glTF need")
    if not (JUDGES / "node_modules" / "installed").exists():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=JUDGES, check=True, timeout=600)
        (JUDGES / "node_modules" / "installed").touch()
    command = ["node", str(JUDGES / "judge.mjs"), *(str(folder / name) for name in CASES)]
    lines = subprocess.run(command, check=True, capture_output=True, timeout=600).stdout.splitlines()
    return dict(zip(CASES, map(json.loads, lines), strict=True))


def places_of(asset: Mesh | Points | Splats) -> torch.Tensor:
    if isinstance(asset, Mesh):
        return asset.vertices
    return asset.xyz if isinstance(asset, Points) else asset.means


def step_of(asset: Mesh | Points | Splats, options: Options) -> float:
    """Tolerance of a coordinate."""
    extent = float((asset.bounds()[1] - asset.bounds()[0]).max())
    return 1e-6 if options.compression == "none" else 0.51 * extent / (2**options.position_bits - 1) + 1e-6


@pytest.mark.parametrize("name", CASES)
def test_gltf_passes_validator(reports: dict[str, Any], name: str) -> None:
    errors = [finding for finding in reports[name]["findings"] if finding["severity"] == 0]
    if isinstance(CASES[name][0], Splats):
        attributes = [a for a in reports[name]["parts"][0]["attributes"] if a.startswith("KHR_gaussian_splatting:")]
        assert len(errors) == len(attributes)
        assert all(e["code"] == NEW_TO_THE_VALIDATOR for e in errors)
        assert all(e["pointer"].split("/")[-1] in attributes for e in errors)
    else:
        assert errors == []
    warnings = {finding["code"] for finding in reports[name]["findings"] if finding["severity"] == 1}
    assert warnings == set()


@pytest.mark.parametrize("name", CASES)
def test_gltf_matches_gltf_transform(reports: dict[str, Any], name: str) -> None:
    asset, options = CASES[name]
    (part,) = reports[name]["parts"]
    is_mesh = isinstance(asset, Mesh)
    assert part["mode"] == (4 if is_mesh else 0)
    assert part["vertices"] == len(places_of(asset))
    assert part["indices"] == (3 * len(asset) if is_mesh else None)
    tolerance = step_of(asset, options)
    assert np.abs(np.array([part["low"], part["high"]]) - asset.bounds().numpy()).max() <= tolerance
    stand_in = Mesh(places_of(asset), torch.zeros(0, 3, dtype=torch.int32))
    indices = assert_same_positions(np.array(part["positions"]), stand_in, tolerance)
    if part["normals"] is not None:
        assert np.abs(np.array(part["normals"]) - asset.normals.numpy()[indices]).max() < 0.02
    if part["colours"] is not None:
        colours = asset.colours().clamp(0, 1).numpy() if isinstance(asset, Splats) else asset.rgb.numpy() / 255
        linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)[indices]
        coarse = options.compression != "none" or isinstance(asset, Splats)  # 8-bit quantization somewhere
        assert np.abs(np.array(part["colours"])[:, :3] - linear).max() < (0.005 if coarse else 1e-5)
    has_colours = getattr(asset, "rgb", None) is not None or getattr(asset, "texture", None) is not None
    if is_mesh:
        assert part["unlit"] == (has_colours and options.unlit)
        assert part["texture"] == (f"image/{options.texture_format}" if asset.texture is not None else None)


@pytest.mark.parametrize("name", ["plain.glb", "beside.gltf", "bare.glb", "large.glb"])
def test_gltf_matches_trimesh(folder: Path, name: str) -> None:
    mesh, options = CASES[name]
    assert isinstance(mesh, Mesh)
    external = assert_trimesh_matches(folder / name, mesh)
    if mesh.texture is not None:
        off = np.abs(trimesh_colours(external).astype(int) - vertex_colours(mesh)).max()
        assert off <= (0 if options.texture_format == "png" else 60)


@pytest.mark.parametrize("name", CASES)
def test_gltf_roundtrip(folder: Path, name: str) -> None:
    asset, options = CASES[name]
    back = gltf.read(folder / name)
    assert type(back) is type(asset) and len(back) == len(asset)
    exact = options.compression == "none"
    if exact:
        assert torch.equal(places_of(back), places_of(asset))
    indices = assert_same_positions(
        places_of(back).numpy(), Mesh(places_of(asset), torch.zeros(0, 3, dtype=torch.int32)), step_of(asset, options)
    )
    for field, limit in (("normals", 0.02), ("uv", 2.0**-12), ("faces", 0)):
        was, now = getattr(asset, field, None), getattr(back, field, None)
        assert (was is None) == (now is None) or field == "uv"
        if was is None or now is None:
            continue
        if field != "faces":
            assert (now - was[indices]).abs().max() <= (1e-6 if exact else limit)
        elif exact:
            assert torch.equal(now, was)
        else:  # the same triangles in any order and with any first corner
            assert {frozenset(f) for f in indices[now.numpy()].tolist()} == {frozenset(f) for f in was.tolist()}
    if isinstance(asset, Mesh | Points) and asset.rgb is not None:
        off = (back.rgb.int() - asset.rgb[indices].int()).abs().max()
        assert off <= (0 if exact else 6)  # 8 bits of linear light are coarse for dark colours
    if isinstance(asset, Mesh) and asset.texture is not None and options.texture_format == "png":
        assert torch.equal(back.texture, asset.texture)
    if isinstance(asset, Splats):
        assert torch.equal(back.sh, asset.sh)
        assert (back.log_scales - asset.log_scales).abs().max() < 1e-5
        assert (back.logit_opacities - asset.logit_opacities).abs().max() < 1e-3
        assert (back.quats - torch.nn.functional.normalize(asset.quats, dim=1)).abs().max() < 1e-6


def test_gltf_gaussian_extension_layout(tmp_path: Path) -> None:
    sh = torch.arange(12.0).reshape(1, 4, 3)
    sh[0, 0] = torch.tensor([0.0, -10.0, (0.5 - 0.5) / C0])
    splat = Splats(
        torch.tensor([[1.0, 2.0, 3.0]]), torch.zeros(1, 3), torch.tensor([[2.0, 0.0, 0.0, -2.0]]), torch.zeros(1), sh
    )
    gltf.write(splat, tmp_path / "a.glb")
    tree, binary = taken_apart((tmp_path / "a.glb").read_bytes())
    (primitive,) = tree["meshes"][0]["primitives"]
    assert primitive["mode"] == 0 and tree["extensionsUsed"] == ["KHR_gaussian_splatting"]
    meaning = primitive["extensions"]["KHR_gaussian_splatting"]
    assert meaning == {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}

    def values(name: str, form: str) -> tuple[float, ...]:
        accessor = tree["accessors"][primitive["attributes"][name]]
        return struct.unpack_from("<" + form, binary, tree["bufferViews"][accessor["bufferView"]]["byteOffset"])

    root = math.sqrt(0.5)
    assert values("KHR_gaussian_splatting:ROTATION", "4f") == pytest.approx((0, 0, -root, root))
    assert values("KHR_gaussian_splatting:SCALE", "3f") == (1, 1, 1)
    assert values("KHR_gaussian_splatting:OPACITY", "f") == (0.5,)
    assert values("KHR_gaussian_splatting:SH_DEGREE_1_COEF_2", "3f") == (9, 10, 11)
    # The display value 0.5 is 0.214 in linear light; the opacity is one half.
    assert values("COLOR_0", "4H") == pytest.approx((0.2158605 * 65535, 0, 0.2158605 * 65535, 32768), abs=1)
    assert sorted(primitive["attributes"]) == sorted(
        ["POSITION", "COLOR_0"]
        + [f"KHR_gaussian_splatting:{x}" for x in ("ROTATION", "SCALE", "OPACITY", "SH_DEGREE_0_COEF_0")]
        + [f"KHR_gaussian_splatting:SH_DEGREE_1_COEF_{m}" for m in range(3)]
    )


def test_gltf_compression_reduces_size(tmp_path: Path) -> None:
    mesh = make_mesh(subdivisions=6)
    sizes = {}
    for compression in ("none", "draco", "meshopt"):
        gltf.write(mesh, tmp_path / "a.glb", Options(compression))
        sizes[compression] = (tmp_path / "a.glb").stat().st_size
    assert sizes["draco"] < sizes["none"] / 10 and sizes["meshopt"] < sizes["none"] / 3
    direction = torch.nn.functional.normalize(make_points(200_000).xyz - 7, dim=1)
    colours = (127.5 + 127.5 * torch.sin(6 * direction)).to(torch.uint8)
    gltf.write(Points(direction, colours), tmp_path / "p.glb", Options("meshopt"))
    assert (tmp_path / "p.glb").stat().st_size < 6 * 200_000


# --- external files --------------------------------------------------------------------------------------------------


def taken_apart(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[12:16], "little")
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def put_together(tree: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(binary))
    return head + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary


def handmade(
    columns: dict[str, tuple[np.ndarray, dict[str, Any]]],
    indices: np.ndarray | None = None,
    **primitive: Any,
) -> tuple[dict[str, Any], bytes]:
    """One primitive of the given tables, each with additional fields of its accessor."""
    codes = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
    tree: dict[str, Any] = {"asset": {"version": "2.0"}, "accessors": [], "bufferViews": [], "scene": 0}
    binary = b""
    rows = dict(columns) | ({} if indices is None else {"": (indices.reshape(-1, 1), {})})
    for values, more in rows.values():
        view = {"buffer": 0, "byteOffset": len(binary), "byteLength": values.nbytes}
        accessor = {"componentType": codes[values.dtype.str[1:]], "count": len(values)}
        accessor["type"] = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}[values.shape[1]]
        tree["accessors"].append({"bufferView": len(tree["bufferViews"]), **accessor, **more})
        tree["bufferViews"].append(view)
        binary += values.tobytes() + bytes(-values.nbytes % 4)
    part = {"attributes": {name: i for i, name in enumerate(columns)}, **primitive}
    if indices is not None:
        part["indices"] = len(columns)
    tree |= {"buffers": [{"byteLength": len(binary)}], "meshes": [{"primitives": [part]}]}
    tree |= {"nodes": [{"mesh": 0}], "scenes": [{"nodes": [0]}]}
    return tree, binary


CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0.5, 2, 0]], np.float32)


def read_of(tmp_path: Path, tree: dict[str, Any], binary: bytes) -> Any:
    (tmp_path / "a.glb").write_bytes(put_together(tree, binary))
    return gltf.read(tmp_path / "a.glb")


def test_gltf_node_transforms(tmp_path: Path) -> None:
    tree, binary = handmade(
        {"POSITION": (CORNERS, {}), "NORMAL": (np.float32([[0, 0, 1]] * 5), {})}, np.uint8([0, 1, 2])
    )
    half = math.sqrt(0.5)
    tree["nodes"] = [
        {"children": [1, 2], "translation": [10, 0, 0], "rotation": [half, 0, 0, half]},  # y -> z
        {"mesh": 0, "scale": [2, 3, 1]},
        {"mesh": 0, "matrix": [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 5, 1]},
    ]
    mesh = read_of(tmp_path, tree, binary)
    sceneless = read_of(tmp_path, {key: tree[key] for key in tree if key not in ("scene", "scenes")}, binary)
    assert torch.equal(sceneless.vertices, mesh.vertices)
    assert np.allclose(mesh.vertices[:3], [[10, 0, 0], [12, 0, 0], [10, 0, 3]], atol=1e-6)
    assert np.allclose(mesh.vertices[5:8], [[10, -5, 0], [9, -5, 0], [10, -5, 1]], atol=1e-6)
    assert mesh.faces.tolist() == [[0, 1, 2], [7, 6, 5]]
    assert np.allclose(mesh.normals, [[0, -1, 0]] * 10, atol=1e-6)
    for a, b, c in mesh.vertices[mesh.faces.long()]:  # viewed against the normals
        assert torch.linalg.cross(b - a, c - a)[1] < 0


@pytest.mark.parametrize(
    ("mode", "faces"),
    [(4, [[0, 1, 2]]), (5, [[0, 1, 2], [2, 1, 3], [2, 3, 4]]), (6, [[1, 2, 0], [2, 3, 0], [3, 4, 0]])],
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32])
def test_gltf_strips_and_fans(tmp_path: Path, mode: int, faces: list[list[int]], kind: type) -> None:
    tree, binary = handmade({"POSITION": (CORNERS, {})}, np.arange(3 if mode == 4 else 5).astype(kind), mode=mode)
    assert sorted(map(sorted, read_of(tmp_path, tree, binary).faces.tolist())) == sorted(map(sorted, faces))
    mesh = read_of(tmp_path, tree, binary)
    corners = mesh.vertices[mesh.faces.long()].double()
    face_normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2]
    assert (face_normals > 0).all() or mode == 6


def test_gltf_normalized_integers(tmp_path: Path) -> None:
    """Compare with the table of the specification: c / 255, max(c / 127, -1), c / 65535."""
    share: dict[str, Any] = {"normalized": True}
    tree, binary = handmade(
        {
            "POSITION": (
                np.int8([[-128, 127, 0, 0], [127, 0, 0, 0], [0, 0, 127, 0]]),
                share | {"type": "VEC3"},
            ),
            "COLOR_0": (np.uint16([[0, 65535, 14146, 0]] * 3), share),
            "TEXCOORD_0": (
                np.uint8([[0, 255, 0, 0], [51, 102, 0, 0], [255, 0, 0, 0]]),
                share | {"type": "VEC2"},
            ),
        },
        material=0,
    )
    for view in (0, 2):
        tree["bufferViews"][view]["byteStride"] = 4
    tree |= {"extensionsRequired": ["KHR_mesh_quantization", "KHR_texture_transform"]}
    picture = encode_image(make_mesh(texture=True).texture, "png")
    tree["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(picture)})
    tree["buffers"][0]["byteLength"] += len(picture)
    transform = {"KHR_texture_transform": {"offset": [0.5, 0.25], "scale": [0.5, 0.25]}}
    surface = {"baseColorTexture": {"index": 0, "extensions": transform}}
    tree |= {"materials": [{"pbrMetallicRoughness": surface}], "textures": [{"source": 0}]}
    tree |= {"images": [{"bufferView": 3, "mimeType": "image/png"}]}
    mesh = read_of(tmp_path, tree, binary + picture)
    assert np.allclose(mesh.vertices, [[-1, 1, 0], [1, 0, 0], [0, 0, 1]])
    assert mesh.rgb.tolist() == [[0, 255, 128]] * 3
    assert np.allclose(mesh.uv, [[0.5, 0.5], [0.6, 0.35], [1, 0.25]])
    assert torch.equal(mesh.texture, make_mesh(texture=True).texture)


def test_gltf_merges_textures(tmp_path: Path) -> None:
    """trimesh writes two textured balls and one without texture; every vertex keeps its colour."""
    scene, expected_colours = trimesh.Scene(), []
    for i in range(3):
        mesh = make_mesh(texture=True, subdivisions=1)
        picture = mesh.texture.flip(i) if i < 2 else None
        mesh = replace(mesh, texture=picture) if picture is not None else mesh
        material = trimesh.visual.material.PBRMaterial(baseColorFactor=[255, 0, 0, 255])
        if picture is not None:
            material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(picture.numpy()))
        uv = mesh.uv.numpy() * [1, -1] + [0, 1]
        look = trimesh.visual.TextureVisuals(uv=uv, material=material)
        ball = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), visual=look, process=False)
        scene.add_geometry(ball, transform=trimesh.transformations.translation_matrix([5.0 * i, 0, 0]))
        expected_colours.append(
            vertex_colours(mesh) if picture is not None else np.full((len(mesh.vertices), 3), [255, 0, 0])
        )
    scene.export(tmp_path / "three.glb")
    mesh = gltf.read(tmp_path / "three.glb")
    assert np.abs(vertex_colours(mesh).astype(int) - np.concatenate(expected_colours)).max() == 0
    assert np.allclose(mesh.bounds(), scene.bounds, atol=1e-5)


def test_gltf_reads_draco_of_trimesh(tmp_path: Path) -> None:
    mesh = make_mesh()
    ball = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    data = trimesh.exchange.gltf.export_glb(trimesh.Scene(ball), extension_draco=True)
    (tmp_path / "a.glb").write_bytes(data)
    assert "KHR_draco_mesh_compression" in taken_apart(data)[0]["extensionsUsed"]
    back = gltf.read(tmp_path / "a.glb")
    assert len(back) == len(mesh) and np.allclose(back.bounds(), mesh.bounds(), atol=1e-3)


def test_gltf_data_uris(folder: Path, tmp_path: Path) -> None:
    tree = json.loads((folder / "beside.gltf").read_text())
    for item in (*tree["buffers"], *tree["images"]):
        data = (folder / item["uri"]).read_bytes()
        item["uri"] = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    (tmp_path / "a.gltf").write_text(json.dumps(tree))
    embedded_scene, separate_scene = gltf.read(tmp_path / "a.gltf"), gltf.read(folder / "beside.gltf")
    assert torch.equal(embedded_scene.vertices, separate_scene.vertices) and torch.equal(
        embedded_scene.texture, separate_scene.texture
    )


# --- rejections ------------------------------------------------------------------------------------------------------


def test_gltf_rejects_unwritable_assets(tmp_path: Path) -> None:
    no_rows = torch.zeros(0, 3)
    empty = Mesh(no_rows, no_rows.int())
    nan_mesh = replace(make_mesh(), vertices=make_mesh().vertices.clone())
    nan_mesh.vertices[3, 1] = math.nan
    still = make_splats()
    still.quats[4] = 0
    for asset, options, message in [
        (empty, Options(), "no triangles"),
        (Points(no_rows), Options(), "no points"),
        (make_splats().select(torch.zeros(0, dtype=torch.int64)), Options(), "no gaussians"),
        (make_points(), Options("draco"), "triangles only"),
        (make_splats(), Options("meshopt"), "not compressed"),
        (nan_mesh, Options(), "NaN"),
        (nan_mesh, Options("draco"), "NaN"),
        (still, Options(), "rotation of zero"),
    ]:
        for name in ("a.glb", "a.gltf"):
            with pytest.raises(FormatError, match=message):
                gltf.write(asset, tmp_path / name, options)
    assert not list(tmp_path.iterdir())


def test_gltf_overwrite_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a b.gltf"
    gltf.write(make_mesh(texture=True), file)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FormatError, match="No space left"):
        gltf.write(make_mesh(rgb=True), file)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert len(gltf.read(file)) == len(make_mesh())


def lies() -> dict[str, Callable[[dict[str, Any]], object]]:
    """Faulty variants of the JSON of a mesh with one texture."""
    return {
        "version": lambda t: t["asset"].update(version="1.0"),
        "needs": lambda t: t.update(extensionsRequired=["EXT_unheard_of"]),
        "circle": lambda t: t["nodes"][0].update(children=[0]),
        "two parents": lambda t: t["scenes"][0].update(nodes=[0, 0]),
        "no such mesh": lambda t: t["nodes"][0].update(mesh=7),
        "negative": lambda t: t["nodes"][0].update(mesh=-1),
        "true": lambda t: t["nodes"][0].update(mesh=True),
        "matrix": lambda t: t["nodes"][0].update(matrix=[1, 2, 3]),
        "rotation": lambda t: t["nodes"][0].update(rotation=[0, 0, 0, 0]),
        "far": lambda t: t["nodes"][0].update(translation=[1e300, 0, 0]),
        "farther": lambda t: t.update(nodes=[{"children": [1], "scale": [1e29] * 3}, {"mesh": 0, "scale": [1e29] * 3}]),
        "count": lambda t: t["accessors"][0].update(count=2**40),
        "zeros": lambda t: t["accessors"][0].update(count=2**40) or t["accessors"][0].pop("bufferView"),
        "offset": lambda t: t["accessors"][0].update(byteOffset=2**30),
        "type": lambda t: t["accessors"][0].update(type="MAT4"),
        "kind": lambda t: t["accessors"][0].update(componentType=5124),
        "sparse": lambda t: t["accessors"][0].update(sparse={"count": 1}),
        "view": lambda t: t["bufferViews"][0].update(byteLength=2**40),
        "stride": lambda t: t["bufferViews"][0].update(byteStride=1),
        "buffer": lambda t: t["buffers"][0].update(byteLength=2**40),
        "elsewhere": lambda t: t["buffers"][0].update(uri="../../../../etc/passwd"),
        "network": lambda t: t["buffers"][0].update(uri="https://example.org/a.bin"),
        "root": lambda t: t["buffers"][0].update(uri="/etc/passwd"),
        "escaped": lambda t: t["buffers"][0].update(uri="%2e%2e/%2e%2e/etc/passwd"),
        "empty": lambda t: t["buffers"][0].update(uri=""),
        "no base64": lambda t: t["buffers"][0].update(uri="data:;base64,###"),
        "indices": lambda t: t["meshes"][0]["primitives"][0].update(indices=0),
        "mode": lambda t: t["meshes"][0]["primitives"][0].update(mode=9),
        "mixture": lambda t: t["meshes"][0]["primitives"].append({"attributes": {"POSITION": 0}, "mode": 0}),
        "repeats": lambda t: t["meshes"][0].update(primitives=t["meshes"][0]["primitives"] * 10_000),
        "uv": lambda t: t["meshes"][0]["primitives"][0]["attributes"].update(TEXCOORD_0=0),
        "image": lambda t: t["images"][0].update(bufferView=0),
        "material": lambda t: t.update(materials=[]),
        "no list": lambda t: t.update(nodes={}),
        "no object": lambda t: t.update(asset=[]),
    }


@pytest.mark.parametrize("lie", lies())
def test_gltf_rejects_unreadable_files(tmp_path: Path, lie: str) -> None:
    gltf.write(make_mesh(texture=True), tmp_path / "a.glb")
    tree, binary = taken_apart((tmp_path / "a.glb").read_bytes())
    lies()[lie](tree)
    with pytest.raises(FormatError, match=r"a\.glb"):
        read_of(tmp_path, tree, binary)


@pytest.mark.parametrize("name", ["draco.glb", "meshopt.glb"])
@pytest.mark.parametrize("count", [0, 3, 2**20, 2**33])
def test_gltf_rejects_false_compressed_counts(folder: Path, tmp_path: Path, name: str, count: int) -> None:
    tree, binary = taken_apart((folder / name).read_bytes())
    tree["accessors"][tree["meshes"][0]["primitives"][0]["indices"]]["count"] = count
    for view in tree["bufferViews"]:
        if "extensions" in view:
            view["extensions"]["EXT_meshopt_compression"]["count"] = count
    with pytest.raises(FormatError):
        read_of(tmp_path, tree, binary)


def test_gltf_limits_draco_time(tmp_path: Path) -> None:
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.3]])
    uv = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    square = Mesh(corners, faces, uv=uv, texture=torch.zeros(8, 8, 3, dtype=torch.uint8))
    gltf.write(square, tmp_path / "a.glb", Options("draco", position_bits=8))
    tree, binary = taken_apart((tmp_path / "a.glb").read_bytes())
    assert binary.count(b"\2\0\0\0\x80") == 1  # two predicted triangle sides, followed by the coded bits
    slow = binary.replace(b"\2\0\0\0\x80", struct.pack("<I", 250_000_000) + b"\x80")
    assert len(read_of(tmp_path, tree, slow)) == 2  # indistinguishable from a valid one except by time
    tree["meshes"][0]["primitives"] *= 1000
    with pytest.raises(FormatError, match="takes far too long to unpack"):
        read_of(tmp_path, tree, slow)


@pytest.mark.parametrize("side", [9000, 60000])
def test_gltf_rejects_huge_textures(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">II", side, side)
    head = chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0]))
    gltf.write(make_mesh(texture=True), tmp_path / "a.gltf")
    (picture,) = tmp_path.glob("*.png")
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(FormatError, match="shrink it"):
        gltf.read(tmp_path / "a.gltf")


def test_gltf_rejects_invalid_json(tmp_path: Path) -> None:
    file = tmp_path / "a.gltf"
    for text in (
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"asset": NaN}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"\xff\xfe",
        b"glTF",
    ):
        file.write_bytes(text)
        with pytest.raises(FormatError):
            gltf.read(file)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32), name=st.sampled_from(["plain.glb", "meshopt.glb", "splats.glb", "points-meshopt.glb"])
)
def test_gltf_survives_damage(folder: Path, seed: int, name: str) -> None:
    dice = random.Random(seed)
    data = bytearray((folder / name).read_bytes())
    behind = 20 + int.from_bytes(data[12:16], "little")
    for _ in range(dice.randint(1, 4)):
        data[dice.randrange(dice.choice([behind, len(data)]))] = dice.choice([0, 255, 0x2D, 0x30, dice.randrange(256)])
    file = folder / "damaged.glb"
    file.write_bytes(data[: dice.choice([len(data), len(data), dice.randrange(len(data))])])
    try:
        back = gltf.read(file)
    except FormatError:
        return
    assert places_of(back).isfinite().all()


JUNK = [None, True, -1, 0, 1, 3.5, 2**31, 2**60, 1e308, "", "x", [], {}, [0], [-1], [[0]], {"a": 1}]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), name=st.sampled_from(["plain.glb", "draco.glb", "meshopt.glb", "splats.glb"]))
def test_gltf_survives_json_edits(folder: Path, seed: int, name: str) -> None:
    dice = random.Random(seed)
    tree, binary = taken_apart((folder / name).read_bytes())
    for _ in range(dice.randint(1, 3)):
        place: Any = tree
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            key = dice.choice(list(keys))
            if not isinstance(place[key], dict | list) or not place[key] or dice.random() < 0.15:
                place[key] = copy.deepcopy(dice.choice(JUNK))
                break
            place = place[key]
        if not tree:
            break
    file = folder / "nonsense.glb"
    file.write_bytes(put_together(tree, binary))
    try:
        back = gltf.read(file)
    except FormatError:
        return
    assert places_of(back).isfinite().all()
