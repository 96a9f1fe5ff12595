"""OBJ: agreement with other programs, and rejection of invalid text."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lumigraph.formats import obj
from lumigraph.scene.assets import Mesh, Points
from lumigraph.scene.errors import FormatError
from tests.formats.sample_meshes import assert_trimesh_matches, make_mesh, trimesh_colours, vertex_colours

MESHES = {
    "bare": make_mesh(),
    "normals": make_mesh(normals=True),
    "textured": make_mesh(texture=True, normals=True),
    "uv": replace(make_mesh(texture=True), texture=None),
    "coloured": make_mesh(rgb=True),
}


@pytest.mark.parametrize("name", MESHES)
def test_obj_roundtrip(tmp_path: Path, name: str) -> None:
    mesh = MESHES[name]
    obj.write(mesh, tmp_path / "a.obj")
    back = obj.read(tmp_path / "a.obj")
    assert torch.allclose(back.vertices, mesh.vertices, rtol=1e-6, atol=1e-6)
    for field in ("faces", "rgb", "texture"):
        was, now = getattr(mesh, field), getattr(back, field)
        assert (was is None and now is None) or torch.equal(was, now)
    for field, limit in (("uv", 1e-6), ("normals", 1e-3)):
        was, now = getattr(mesh, field), getattr(back, field)
        assert (was is None and now is None) or (was - now).abs().max() < limit


@pytest.mark.parametrize("name", ["bare", "textured", "coloured"])
def test_obj_matches_trimesh(tmp_path: Path, name: str) -> None:
    mesh = MESHES[name]
    obj.write(mesh, tmp_path / "a scan, of mine.obj")
    external = assert_trimesh_matches(tmp_path / "a scan, of mine.obj", mesh)
    if name != "bare":
        assert np.abs(trimesh_colours(external).astype(int) - vertex_colours(mesh)).max() <= (
            1 if name == "coloured" else 0
        )
    if name == "textured":
        (library,) = tmp_path.glob("*.mtl")
        lines = library.read_text().splitlines()
        assert "Kd 1 1 1" in lines and f"map_Kd {library.stem}.png" in lines
        assert " " not in library.name and (tmp_path / f"{library.stem}.png").exists()


def test_obj_reads_trimesh_files(tmp_path: Path) -> None:
    mesh = make_mesh(texture=True, normals=True)
    material = trimesh.visual.material.SimpleMaterial(image=Image.fromarray(mesh.texture.numpy()))
    look = trimesh.visual.TextureVisuals(uv=mesh.uv.numpy() * [1, -1] + [0, 1], material=material)
    ball = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), visual=look, process=False)
    ball.export(tmp_path / "a.obj", include_normals=True)
    back = obj.read(tmp_path / "a.obj")
    assert torch.allclose(back.vertices[back.faces.long()], mesh.vertices[mesh.faces.long()], atol=1e-6)
    assert np.array_equal(vertex_colours(back)[back.faces], vertex_colours(mesh)[mesh.faces])


def text_of(*lines: str) -> bytes:
    return "\n".join(["v 0 0 0", "v 1 0 0", "v 1 1 0", "v 0 1 0", "vt 0 0", "vt 1 0", "vn 0 0 1", *lines]).encode()


def read_of(tmp_path: Path, text: bytes) -> Mesh:
    (tmp_path / "a.obj").write_bytes(text)
    return obj.read(tmp_path / "a.obj")


MIXED = [[0, 1, 2], [0, 1, 2], [0, 2, 3], [0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize(
    ("lines", "faces"),
    [
        (["f 1 2 3"], [[0, 1, 2]]),
        (["f 1 2 3 4"], [[0, 1, 2], [0, 2, 3]]),
        (["f -4 -3 -2", "v 9 9 9", "f -1 -2 -3"], [[0, 1, 2], [4, 3, 2]]),
        (["  f  1 2 \\", " 3 \r", "g x", "s off", "usemtl none", "f 1 3 4"], [[0, 1, 2], [0, 2, 3]]),
        (["f 1// 2// 3//"], None),
        (["f 1/1 2/2 3/", "f 1 2 3"], None),
        (["f 1//1 2//1 3//1", "# words", "f 1 3 4"], [[0, 1, 2], [0, 2, 3]]),
        (["l 1 2", "p 1", "f 1 2 3"], [[0, 1, 2]]),
        (["f -4 -3 -2", "f 1/1 2/-1 3/2", "", "f 1//-1 3//1 4//1", "f 1/2/1 2/1/-1 3/1/1 4/1/1"], MIXED),
    ],
)
def test_obj_face_syntaxes(tmp_path: Path, lines: list[str], faces: list[list[int]] | None) -> None:
    if faces is None:
        with pytest.raises(FormatError, match="not a face"):
            read_of(tmp_path, text_of(*lines))
        return
    mesh = read_of(tmp_path, text_of(*lines))
    places = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [9, 9, 9]])
    assert torch.equal(mesh.vertices[mesh.faces.long()], places[torch.tensor(faces)])


def test_obj_splits_vertices_by_corner(tmp_path: Path) -> None:
    mesh = read_of(tmp_path, text_of("f 1/1/1 2/2/1 3/1/1", "f 1/2/1 3/1/1 4/1/1"))
    assert mesh.faces.tolist() == [[0, 1, 2], [3, 2, 4]]
    assert mesh.uv.tolist() == [[0, 1], [1, 1], [0, 1], [1, 1], [0, 1]]
    assert mesh.normals.tolist() == [[0, 0, 1]] * 5


def test_obj_tables_of_different_lengths(tmp_path: Path) -> None:
    mesh = read_of(tmp_path, text_of("vt 0 1", "f 1/1 2/2 3/3"))
    assert mesh.uv[mesh.faces[0].long()].tolist() == [[0, 1], [1, 1], [0, 0]]


def test_obj_corners_with_missing_indices(tmp_path: Path) -> None:
    mesh = read_of(tmp_path, text_of("g a", "f 1/1 2/2 3/-1", "s 1", "f 1 3 4", "f 1//1 3//1 4//-1"))
    assert mesh.normals is None and len(mesh) == 3
    assert mesh.uv[mesh.faces[0].long()].tolist() == [[0, 1], [1, 1], [1, 1]]


def test_obj_reads_interleaved_lines(tmp_path: Path) -> None:
    lines = [f"vn 0 0 2\nv {x} {y} 0 1 0 0.50196" for x, y in ((0, 0), (1, 0), (0, 1))]
    mesh = read_of(tmp_path, "\n".join([*lines, "f 1//1 2//2 3//3", ""]).encode())
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert mesh.rgb.tolist() == [[255, 0, 128]] * 3 and mesh.normals.tolist() == [[0, 0, 1]] * 3


def test_obj_merges_textures(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    for name, colour in (("red.png", (255, 0, 0)), ("maps/blue sky.png", (0, 0, 255))):
        Image.new("RGB", (3, 5), colour).save(tmp_path / name)
    (tmp_path / "my materials.mtl").write_text(
        "newmtl a\nKd 1 1 1\nmap_Kd -s 1 1 1 red.png\nnewmtl b b\nmap_Kd maps\\blue sky.png\nnewmtl c\n"
    )
    text = text_of(
        "mtllib my materials.mtl", "usemtl a", "f 1/1 2/2 3/1", "usemtl b b", "f 1/1 2/2 3/1", "usemtl c", "f 1 2 3"
    )
    mesh = read_of(tmp_path, text)
    assert vertex_colours(mesh)[mesh.faces[:, 0]].tolist() == [[255, 0, 0], [0, 0, 255], [255, 255, 255]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no faces"),
        (["f 1 2 9"], "names v 9"),
        (["f 1/3 2/1 3/1"], "names vt 3"),
        (["f 1 2 0"], "no index 0"),
        (["f 1 2 -5"], "line 8: there is no index -5"),
        (["f 1 2 99999999999999999999"], "."),
        (["f 1 2 3.5"], "line 8"),
        (["v 1 2", "f 1 2 3"], "unlike before"),
        (["v 1 2 3x", "f 1 2 3"], "line 8"),
        (["v 1-2 3 4", "f 1 2 3"], "not a number"),
        (["v 1 2 nan", "f 1 2 3"], "line 8"),
        (["v 1 2 1e999", "f 1 2 3"], "not a number"),
        (["v 1 2 3 0 0 0", "f 1 2 3"], "unlike before|have colours"),
        (["\x00\x01", "f 1 2 3"], "cannot be read"),
        (["mtllib ../m.mtl", "usemtl x", "f 1/1 2/1 3/1"], "is not in its folder"),
        (["mtllib /etc/passwd", "usemtl x", "f 1/1 2/1 3/1"], "is not in its folder"),
        (["mtllib gone.mtl", "usemtl x", "f 1/1 2/1 3/1"], "cannot be opened"),
    ],
)
def test_obj_rejects_unreadable_files(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_of(tmp_path, text_of(*lines))


def test_obj_rejects_unwritable_assets(tmp_path: Path) -> None:
    nan_mesh = make_mesh(texture=True)
    nan_mesh.uv[3] = torch.inf
    for asset, message in [(Points(torch.zeros(1, 3)), "meshes only"), (nan_mesh, "infinity")]:
        with pytest.raises(FormatError, match=message):
            obj.write(asset, tmp_path / "a.obj")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_obj_reads_large_file_fast(tmp_path: Path) -> None:
    mesh = make_mesh(texture=True, normals=True, subdivisions=7)
    start = time.process_time()
    obj.write(mesh, tmp_path / "a.obj")
    assert len(obj.read(tmp_path / "a.obj")) == len(mesh)
    assert time.process_time() - start < 20  # 3 s; a loop over the vertices in Python takes minutes


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_obj_survives_damage(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    data = bytearray(text_of("f 1/1/1 2/2/1 3/1/1", "f 1 2 3 4", "f -1//-1 2//1 3//1", "usemtl x", "f 1/1 2/2 3/2", ""))
    for _ in range(dice.randint(1, 4)):
        data[dice.randrange(len(data))] = dice.choice([*b" \n/-9.ef\\#v", dice.randrange(256)])
    try:
        mesh = read_of(tmp_path, bytes(data[: dice.choice([len(data), dice.randrange(len(data))])]))
    except FormatError:
        return
    assert mesh.vertices.isfinite().all()
