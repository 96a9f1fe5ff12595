"""Meshes in PLY: agreement with other programs."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import plyfile
import pytest
import torch
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumigraph.formats import mesh_ply
from lumigraph.formats.triangles import triangulate_fans
from lumigraph.scene.assets import Mesh
from lumigraph.scene.errors import FormatError
from tests.formats.sample_meshes import assert_trimesh_matches, make_mesh, trimesh_colours, vertex_colours

MESHES = {
    "bare": make_mesh(),
    "textured": make_mesh(texture=True, normals=True),
    "coloured": make_mesh(rgb=True),
    "uv": replace(make_mesh(texture=True), texture=None),
}


@pytest.mark.parametrize("name", MESHES)
def test_mesh_ply_roundtrip(tmp_path: Path, name: str) -> None:
    mesh = MESHES[name]
    mesh_ply.write(mesh, tmp_path / "a.ply")
    back = mesh_ply.read(tmp_path / "a.ply")
    for field in ("vertices", "faces", "normals", "rgb", "texture"):
        was, now = getattr(mesh, field), getattr(back, field)
        assert (was is None and now is None) or torch.equal(was, now)
    assert mesh.uv is None or torch.allclose(back.uv, mesh.uv, atol=1e-7)


@pytest.mark.parametrize("name", ["bare", "textured", "coloured"])
def test_mesh_ply_matches_trimesh(tmp_path: Path, name: str) -> None:
    mesh = MESHES[name]
    mesh_ply.write(mesh, tmp_path / "a.ply")
    external = assert_trimesh_matches(tmp_path / "a.ply", mesh)
    if name != "bare":
        assert np.abs(trimesh_colours(external).astype(int) - vertex_colours(mesh)).max() == 0


def test_mesh_ply_matches_plyfile(tmp_path: Path) -> None:
    mesh = make_mesh(texture=True, rgb=True, normals=True)
    mesh_ply.write(mesh, tmp_path / "a.ply")
    external = plyfile.PlyData.read(tmp_path / "a.ply")
    rows = external["vertex"].data
    assert rows.dtype.names == ("x", "y", "z", "nx", "ny", "nz", "red", "green", "blue", "s", "t")
    assert np.array_equal(np.stack(list(external["face"].data["vertex_indices"])), mesh.faces.numpy())
    assert np.array_equal(np.stack([rows[name] for name in ("red", "green", "blue")], axis=1), mesh.rgb.numpy())
    assert np.allclose(rows["t"], 1 - mesh.uv[:, 1].numpy(), atol=1e-6)


@pytest.mark.parametrize("order", ["<", ">", "ascii"])
@pytest.mark.parametrize("count", ["u1", "i4"])
def test_mesh_ply_reads_polygons(tmp_path: Path, order: str, count: str) -> None:
    """plyfile writes triangles, squares, a pentagon and degenerate faces, with columns around the lists."""
    random_ = np.random.default_rng(0)
    points = random_.normal(size=(30, 3))
    polygons = [[0, 1, 2], [3, 4, 5, 6], [7, 8], [9, 10, 11, 12, 13], [14, 15, 16]]
    vertices = np.array([tuple(p) for p in points], dtype=[("x", "f8"), ("y", "f8"), ("z", "f4")])
    faces = np.empty(5, dtype=[("flags", "u2"), ("vertex_index", "O"), ("texcoord", "O"), ("quality", "f4")])
    for i, polygon in enumerate(polygons):
        faces[i] = (i, np.array(polygon, "u2"), np.zeros(2 * len(polygon), "f4"), 0.5)
    edges = np.array([(1, 2)], dtype=[("a", "i4"), ("b", "i4")])
    types = {"val_types": {"vertex_index": "u2", "texcoord": "f4"}, "len_types": {"vertex_index": count}}
    elements = [
        plyfile.PlyElement.describe(edges, "edge"),
        plyfile.PlyElement.describe(faces, "face", **types),
        plyfile.PlyElement.describe(vertices, "vertex"),
    ]
    ascii_ = order == "ascii"
    plyfile.PlyData(elements, text=ascii_, byte_order="=" if ascii_ else order).write(tmp_path / "a.ply")
    mesh = mesh_ply.read(tmp_path / "a.ply")
    assert np.allclose(mesh.vertices, points, atol=1e-6)
    expected_faces = [[p[0], p[i], p[i + 1]] for p in polygons for i in range(1, len(p) - 1)]
    assert mesh.faces.tolist() == expected_faces


def test_triangulate_fans_empty() -> None:
    assert triangulate_fans(np.zeros(0, np.int64), np.zeros(0, np.int64)).shape == (0, 3)
    assert triangulate_fans(np.array([1, 2]), np.array([0, 2, 0])).shape == (0, 3)


def test_mesh_ply_reads_trimesh_files(tmp_path: Path) -> None:
    mesh = make_mesh(rgb=True)
    ball = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), vertex_colors=mesh.rgb.numpy(), process=False)
    for encoding in ("ascii", "binary"):
        ball.export(tmp_path / "a.ply", encoding=encoding)
        back = mesh_ply.read(tmp_path / "a.ply")
        assert torch.allclose(back.vertices, mesh.vertices, atol=1e-6)
        assert torch.equal(back.faces, mesh.faces) and torch.equal(back.rgb, mesh.rgb)


def test_mesh_ply_write_is_atomic(tmp_path: Path) -> None:
    mesh = make_mesh(texture=True)
    mesh.uv[5, 0] = torch.nan
    with pytest.raises(FormatError, match="NaN"):
        mesh_ply.write(mesh, tmp_path / "a.ply")
    assert not list(tmp_path.iterdir())


HEAD = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
FACES = "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
GOOD = HEAD + FACES + "0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("3 0 1 2", "3 0 1 3"),
        ("3 0 1 2", "3 0 1 -1"),
        ("3 0 1 2", "4 0 1 2"),
        ("3 0 1 2", "-1 0 1 2"),
        ("3 0 1 2", "3 0 1 x"),
        ("3 0 1 2", f"3 0 1 {2**70}"),
        ("1 0 0", "1 0 nan"),
        ("1 0 0", "1 0"),
        ("vertex 3", "vertex 999999999999"),
        ("face 1", "face 999999999999"),
        ("list uchar", "list float"),
        ("list uchar int", "list uchar strange"),
        ("float z", "float y"),
        ("float z", "float w"),
        ("format ascii 1.0", "format ascii 2.0"),
        ("end_header", "end"),
        ("element face", "element vertex"),
        ("element face", "element other"),
    ],
)
def test_mesh_ply_rejects_unreadable_files(tmp_path: Path, was: str, now: str) -> None:
    file = tmp_path / "a.ply"
    file.write_text(GOOD)
    assert mesh_ply.read(file).faces.tolist() == [[0, 1, 2]]
    file.write_text(GOOD.replace(was, now, 1))
    with pytest.raises(FormatError, match=r"a\.ply"):
        mesh_ply.read(file)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "nowhere.png"])
def test_mesh_ply_rejects_texture_outside_folder(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    mesh_ply.write(make_mesh(texture=True), inside / "a.ply")
    (picture,) = inside.glob("*.png")
    picture.rename(tmp_path / "secret.png")
    data = (inside / "a.ply").read_bytes().replace(picture.name.encode(), name.encode())
    (inside / "a.ply").write_bytes(data)
    with pytest.raises(FormatError, match=r"is not in its folder|cannot be opened"):
        mesh_ply.read(inside / "a.ply")


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), text=st.booleans())
def test_mesh_ply_survives_damage(tmp_path: Path, seed: int, text: bool) -> None:
    dice = random.Random(seed)
    file = tmp_path / "a.ply"
    if text:
        file.write_text(GOOD)
    else:
        mesh_ply.write(make_mesh(normals=True, subdivisions=0), file)
    data = bytearray(file.read_bytes())
    for _ in range(dice.randint(1, 3)):
        data[dice.randrange(len(data))] = dice.choice([0, 255, 0x20, 0x39, dice.randrange(256)])
    file.write_bytes(data[: dice.choice([len(data), dice.randrange(len(data))])])
    try:
        back = mesh_ply.read(file)
    except FormatError:
        return
    assert isinstance(back, Mesh) and back.vertices.isfinite().all()
