"""STL: closed surface, outward orientation, agreement with another program."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumigraph.formats import stl
from lumigraph.formats.triangles import count_open_edges, merge_equal_rows
from lumigraph.scene.assets import Mesh, Points
from lumigraph.scene.errors import FormatError
from tests.formats.sample_meshes import assert_trimesh_matches, load_with_trimesh, make_mesh


def test_stl_matches_trimesh(tmp_path: Path) -> None:
    mesh = make_mesh(texture=True)
    stl.write(mesh, tmp_path / "a.stl")
    assert (tmp_path / "a.stl").stat().st_size == 84 + 50 * len(mesh)
    external = load_with_trimesh(tmp_path / "a.stl")
    external.merge_vertices()
    joined_ball = tmp_path / "b.ply"
    external.export(joined_ball)
    assert_trimesh_matches(joined_ball, mesh)
    data = (tmp_path / "a.stl").read_bytes()
    assert data[:5] != b"solid" and b"unit mm" in data[:80]
    normals = np.frombuffer(data, stl.TRIANGLE_ROW, offset=84)["normal"]
    assert np.abs(normals - load_with_trimesh(tmp_path / "a.stl").face_normals).max() < 1e-3


def test_stl_roundtrip(tmp_path: Path) -> None:
    mesh = make_mesh()
    stl.write(mesh, tmp_path / "a.stl", stl.Options(unit="m"))
    back = stl.read(tmp_path / "a.stl")
    assert len(back.vertices) == len(mesh.vertices)
    assert torch.equal(back.vertices[back.faces.long()], mesh.vertices[mesh.faces.long()])
    assert b"unit m," in (tmp_path / "a.stl").read_bytes()[:80]


def test_stl_reads_text(tmp_path: Path) -> None:
    mesh = make_mesh()
    ball = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    ball.export(tmp_path / "a.stl", file_type="stl_ascii")
    back = stl.read(tmp_path / "a.stl")
    assert len(back.vertices) == len(mesh.vertices)
    assert torch.allclose(back.vertices[back.faces.long()], mesh.vertices[mesh.faces.long()], atol=1e-6)


def test_stl_texture_seam_is_closed(tmp_path: Path) -> None:
    mesh = make_mesh()
    apart = Mesh(mesh.vertices[mesh.faces.long().reshape(-1)], torch.arange(3 * len(mesh)).int().reshape(-1, 3))
    stl.write(apart, tmp_path / "a.stl")
    assert len(stl.read(tmp_path / "a.stl").vertices) == len(mesh.vertices)


def test_stl_rejects_open_surface(tmp_path: Path) -> None:
    mesh = make_mesh()
    open_mesh = replace(mesh, faces=mesh.faces[1:])
    with pytest.raises(FormatError, match=r"3 of 3837 edges .* allow_open"):
        stl.write(open_mesh, tmp_path / "a.stl")
    flipped_mesh = replace(mesh, faces=torch.cat([mesh.faces[:1].flip(1), mesh.faces[1:]]))
    with pytest.raises(FormatError, match="3 of 3840 edges"):
        stl.write(flipped_mesh, tmp_path / "a.stl")
    assert not list(tmp_path.iterdir())
    stl.write(open_mesh, tmp_path / "a.stl", stl.Options(allow_open=True))
    assert len(load_with_trimesh(tmp_path / "a.stl").faces) == len(mesh) - 1


def test_count_open_edges_matches_manual_count() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        faces = np.array([random.choice(8, 3, replace=False) for _ in range(random.integers(1, 12))])
        balance: dict[tuple[int, int], int] = {}
        for face in faces.tolist():
            for a, b in zip(face, face[1:] + face[:1], strict=True):
                edge = (min(a, b), max(a, b))
                balance[edge] = balance.get(edge, 0) + (1 if a < b else -1)
        assert count_open_edges(faces, 8) == sum(value != 0 for value in balance.values())


def test_merge_equal_rows_matches_dictionary() -> None:
    rows = np.random.default_rng(0).integers(-1, 2, (100, 3)).astype(np.float32)
    rows[::7] *= -0.0
    places, number = merge_equal_rows(rows)
    index_by_position: dict[tuple[float, ...], int] = {}
    assert number.tolist() == [
        index_by_position.setdefault(tuple(row), len(index_by_position)) for row in rows.tolist()
    ]
    assert places.tolist() == [list(row) for row in index_by_position]


def test_stl_rejects_unwritable_assets(tmp_path: Path) -> None:
    infinite_mesh = replace(make_mesh(), vertices=make_mesh().vertices * torch.inf)
    for asset, message in [
        (Points(torch.zeros(1, 3)), "meshes only"),
        (Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]], dtype=torch.int32)), "1 to 4 billion"),
        (infinite_mesh, "infinity"),
    ]:
        with pytest.raises(FormatError, match=message):
            stl.write(asset, tmp_path / "a.stl")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.binary(max_size=200), kind=st.integers(0, 2), count=st.integers(0, 2**32 - 1))
def test_stl_survives_damage(tmp_path: Path, text: bytes, kind: int, count: int) -> None:
    file = tmp_path / "a.stl"
    starts = [
        b"",
        b"solid x\nfacet normal 0 0 1\nouter loop\nvertex 1 2 3\nvertex ",
        bytes(80) + struct.pack("<I", count),
    ]
    file.write_bytes(starts[kind] + text)
    with pytest.raises(FormatError, match=r"a\.stl"):
        stl.read(file)


@pytest.mark.parametrize("word", [b"nan", b"inf", b"1e99", b"x"])
def test_stl_rejects_invalid_numbers(tmp_path: Path, word: bytes) -> None:
    (tmp_path / "a.stl").write_bytes(b"solid\n" + b"vertex 0 0 1\nvertex 0 1 0\nvertex 1 0 %s\n" % word + b"endsolid")
    with pytest.raises(FormatError):
        stl.read(tmp_path / "a.stl")
