"""FBX: assimp reads the same mesh."""

from __future__ import annotations

import dataclasses
import io
import math
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from lumigraph.formats import fbx, fbx_nodes
from lumigraph.scene.assets import Mesh
from lumigraph.scene.errors import FormatError
from tests.debian import install_package
from tests.formats.test_ply import make_points, make_splats


@pytest.fixture(scope="session")
def assimp() -> Path:
    library_path = install_package("assimp-utils", lambda: Path(path) if (path := shutil.which("assimp")) else None)
    if library_path is None:
        pytest.skip("assimp is not installed, and could not be")
    return library_path


def read(assimp: Path, path: Path) -> ElementTree.Element:
    """The scene as an XML dump of assimp."""
    dump = path.with_suffix(".assxml")
    process = subprocess.run([assimp, "dump", path, dump, "-x"], capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stdout
    return ElementTree.fromstring(dump.read_text())


def numbers(scene: ElementTree.Element, tag: str) -> Any:
    """(corners, components) of a table of the only mesh."""
    (mesh,) = scene.iter("Mesh")
    (table,) = mesh.iter(tag)
    return np.array((table.text or "").split(), dtype=np.float64).reshape(int(table.attrib["num"]), -1)


def ball(turns: int = 12, has_texture: bool = True) -> Mesh:
    """A lopsided globe with a texture whose pixels all differ."""
    v, u = np.meshgrid(np.linspace(0, 1, turns + 1), np.linspace(0, 1, 2 * turns + 1), indexing="ij")
    sphere = [np.sin(np.pi * v) * np.cos(2 * np.pi * u), np.cos(np.pi * v), np.sin(np.pi * v) * np.sin(2 * np.pi * u)]
    normals = np.stack(sphere, axis=-1).reshape(-1, 3)
    first = (np.arange(turns)[:, None] * (2 * turns + 1) + np.arange(2 * turns)).reshape(-1)
    a, b, c, d = first, first + 1, first + 2 * turns + 1, first + 2 * turns + 2
    faces = np.concatenate([np.stack([a, b, c], axis=1), np.stack([b, d, c], axis=1)])
    y, x = np.mgrid[:32, :64]
    picture = np.stack([8 * y, 4 * x, 255 - 4 * x], axis=-1).astype(np.uint8)
    mesh_out = Mesh(
        torch.from_numpy((normals * [1, 2, 3]).astype(np.float32)),
        torch.from_numpy(faces.astype(np.int32)),
        torch.from_numpy(normals.astype(np.float32)),
        torch.from_numpy(np.stack([u, v], axis=-1).reshape(-1, 2).astype(np.float32)),
        torch.from_numpy((normals * 127.5 + 127.5).astype(np.uint8)),
        torch.from_numpy(picture),
    )
    return mesh_out if has_texture else dataclasses.replace(mesh_out, texture=None, uv=None)


def corners(mesh: Mesh, values: torch.Tensor) -> Any:
    return values[mesh.faces.long().reshape(-1)].double().numpy()


def test_fbx_matches_assimp(assimp: Path, tmp_path: Path) -> None:
    mesh = ball()
    assert mesh.normals is not None and mesh.uv is not None and mesh.texture is not None
    fbx.write(mesh, tmp_path / "a ball.fbx")
    assert [file.name for file in tmp_path.iterdir()] == ["a ball.fbx"]
    scene = read(assimp, tmp_path / "a ball.fbx")
    assert len(list(scene.iter("Face"))) == len(mesh) and len(list(scene.iter("Mesh"))) == 1
    assert np.abs(numbers(scene, "Positions") - corners(mesh, mesh.vertices)).max() < 1e-5
    assert np.abs(numbers(scene, "Normals") - corners(mesh, mesh.normals)).max() < 1e-5
    picture = np.asarray(Image.open(io.BytesIO(embedded(scene))))
    assert np.array_equal(picture, mesh.texture.numpy())
    # Texture coordinates of the corners: v counts from the bottom row in FBX, from the top row in `Mesh`.
    external, expected_uv = numbers(scene, "TextureCoords"), corners(mesh, mesh.uv)
    assert (
        np.abs(external[:, 0] - expected_uv[:, 0]).max() < 1e-5
        and np.abs(1 - external[:, 1] - expected_uv[:, 1]).max() < 1e-5
    )
    assert not list(scene.iter("Colors"))


def embedded(scene: ElementTree.Element) -> bytes:
    (data,) = scene.iter("Data")
    return bytes(int(byte, 16) for byte in (data.text or "").split())


def test_fbx_vertex_colours(assimp: Path, tmp_path: Path) -> None:
    mesh = ball(has_texture=False)
    assert mesh.rgb is not None
    fbx.write(mesh, tmp_path / "a.fbx")
    scene = read(assimp, tmp_path / "a.fbx")
    colours = numbers(scene, "Colors")
    assert colours.shape == (3 * len(mesh), 4) and (colours[:, 3] == 1).all()
    assert np.abs(colours[:, :3] - corners(mesh, mesh.rgb) / 255).max() < 1e-5
    assert not list(scene.iter("Texture"))


def test_fbx_bare_triangles(assimp: Path, tmp_path: Path) -> None:
    mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]], dtype=torch.int32))
    fbx.write(mesh, tmp_path / "a.fbx")
    scene = read(assimp, tmp_path / "a.fbx")
    assert numbers(scene, "Positions").tolist() == np.eye(3).tolist()
    assert not list(scene.iter("TextureCoords")) and not list(scene.iter("Colors"))


def test_fbx_separate_texture(assimp: Path, tmp_path: Path) -> None:
    mesh = ball()
    assert mesh.texture is not None
    fbx.write(mesh, tmp_path / "ä.fbx", fbx.Options(embed=False))
    (picture,) = tmp_path.glob("*.png")
    assert np.array_equal(np.asarray(Image.open(picture)), mesh.texture.numpy())
    scene = read(assimp, tmp_path / "ä.fbx")
    files = [p.text for p in scene.iter("MatProperty") if p.attrib["key"] == "$tex.file"]
    assert [(file or "").strip().strip('"') for file in files] == [picture.name] and picture.name.isascii()
    assert not list(scene.iter("Texture"))


@pytest.mark.parametrize(("unit", "centimetres"), [("m", 100), ("cm", 1), ("mm", 0.1)])
def test_fbx_unit_and_axes(tmp_path: Path, unit: Any, centimetres: float) -> None:
    fbx.write(ball(), tmp_path / "a.fbx", fbx.Options(unit=unit))
    (settings,) = [n for n in tree(tmp_path / "a.fbx") if n[0] == "GlobalSettings"]
    (properties,) = [n for n in settings[2] if n[0] == "Properties70"]
    properties_by_name = {values[0]: values[4] for _, values, _ in properties[2]}
    assert properties_by_name["UnitScaleFactor"] == centimetres
    axes = [properties_by_name[name] for name in ("UpAxis", "UpAxisSign", "FrontAxis", "CoordAxis")]
    assert axes == [1, 1, 2, 0]


ParsedNode = tuple[str, list[Any], list[Any]]


def tree(path: Path) -> list[ParsedNode]:
    """Parse all nodes strictly: check the end of each node and the length of each array."""
    data = path.read_bytes()
    assert data[:23] == b"Kaydara FBX Binary  \x00\x1a\x00" and struct.unpack_from("<I", data, 23) == (7400,)
    nodes, at = children(data, 27, len(data))
    assert data[at : at + 16] == fbx_nodes.FOOTER_ID and data.endswith(fbx_nodes.FOOTER_MAGIC)
    version = len(data) - 16 - 120 - 4  # at a multiple of 16, as in Autodesk's files
    assert version % 16 == 0 and struct.unpack_from("<I", data, version) == (7400,)
    return nodes


def children(data: bytes, at: int, end: int) -> tuple[list[ParsedNode], int]:
    nodes: list[ParsedNode] = []
    while at < end:
        stop, count, size, length = struct.unpack_from("<IIIB", data, at)
        if stop == 0:
            return nodes, at + 13
        name = data[at + 13 : at + 13 + length].decode()
        at += 13 + length
        values = []
        for _ in range(count):
            value, at = parse_value(data, at)
            values.append(value)
        assert size == 0 or count > 0
        below, at = children(data, at, stop)
        assert at == stop
        nodes.append((name, values, below))
    return nodes, at


def parse_value(data: bytes, at: int) -> tuple[Any, int]:
    kind, at = chr(data[at]), at + 1
    if kind in "CILD":
        layout = "<" + {"C": "B", "I": "i", "L": "q", "D": "d"}[kind]
        return struct.unpack_from(layout, data, at)[0], at + struct.calcsize(layout)
    if kind in "SR":
        (length,) = struct.unpack_from("<I", data, at)
        raw = data[at + 4 : at + 4 + length]
        return raw.decode() if kind == "S" else raw, at + 4 + length
    count, encoding, length = struct.unpack_from("<III", data, at)
    values = np.frombuffer(zlib.decompress(data[at + 12 : at + 12 + length]), {"d": "<f8", "i": "<i4"}[kind])
    assert encoding == 1 and len(values) == count
    return values, at + 12 + length


def test_fbx_rejects_unwritable_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for asset in (make_splats(3), make_points(3)):
        with pytest.raises(FormatError, match=r"FBX holds a mesh; choose \.ply"):
            fbx.write(asset, tmp_path / "a.fbx")
    with pytest.raises(FormatError, match="no triangles"):
        fbx.write(Mesh(torch.zeros(1, 3), torch.zeros(0, 3, dtype=torch.int32)), tmp_path / "a.fbx")
    invalid_mesh = ball()
    invalid_mesh.vertices[3, 1] = math.nan
    with pytest.raises(FormatError, match=r"1 of \d+ vertices hold NaN"):
        fbx.write(invalid_mesh, tmp_path / "a.fbx")
    with pytest.raises(FormatError, match="choose another folder"):
        fbx.write(ball(), tmp_path / "nowhere" / "a.fbx")
    monkeypatch.setattr(fbx_nodes, "FBX_MAX_BYTES", 10_000)
    with pytest.raises(FormatError, match="less than 4 GB"):
        fbx.write(ball(), tmp_path / "a.fbx")
    assert not list(tmp_path.iterdir())
