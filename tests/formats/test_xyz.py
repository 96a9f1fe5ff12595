"""XYZ text: agreement with numpy and other programs; damaged files raise FormatError."""

from __future__ import annotations

import contextlib
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumigraph.formats import xyz
from lumigraph.formats.chunked import BATCH_ROWS
from lumigraph.scene.assets import Mesh, Points
from lumigraph.scene.errors import FormatError
from tests.formats.test_ply import make_points, make_splats, same_bits


def unit_points(count: int = 50) -> Points:
    points = make_points(count)
    assert points.normals is not None
    return Points(points.xyz, points.rgb, torch.nn.functional.normalize(points.normals, dim=1))


def write_text(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("count", [1, 50, BATCH_ROWS + 3, 60_000])
def test_xyz_roundtrip(tmp_path: Path, count: int) -> None:
    points = make_points(count)
    xyz.write(points, tmp_path / "a.xyz")
    back = xyz.read(tmp_path / "a.xyz")
    assert points.rgb is not None and back.rgb is not None and back.normals is None
    assert same_bits(back.xyz, points.xyz) and same_bits(back.rgb, points.rgb)


@pytest.mark.parametrize("colours", [True, False])
def test_xyz_normals_option(tmp_path: Path, colours: bool) -> None:
    points, longer = unit_points(), make_points()
    if not colours:
        points, longer = Points(points.xyz, None, points.normals), Points(longer.xyz, None, longer.normals)
    xyz.write(longer, tmp_path / "a.xyz", xyz.Options(normals=True))  # any length; they are read back as unit vectors
    back = xyz.read(tmp_path / "a.xyz")
    assert back.normals is not None and points.normals is not None and (back.rgb is not None) == colours
    assert (back.normals - points.normals).abs().max() < 1e-6
    assert same_bits(back.xyz, points.xyz)


def test_xyz_distinguishes_normals_from_colours(tmp_path: Path) -> None:
    up = torch.tensor([[0.0, 0, 1]]).repeat(5, 1)
    xyz.write(Points(torch.rand(5, 3), None, up), tmp_path / "a.xyz", xyz.Options(normals=True))
    back = xyz.read(tmp_path / "a.xyz")
    assert back.rgb is None and back.normals is not None and torch.equal(back.normals, up)
    xyz.write(Points(torch.rand(5, 3), up.to(torch.uint8)), tmp_path / "b.xyz")
    dark = xyz.read(tmp_path / "b.xyz")
    assert dark.normals is None and dark.rgb is not None and torch.equal(dark.rgb, up.to(torch.uint8))


def test_xyz_matches_numpy_and_trimesh(tmp_path: Path) -> None:
    points = make_points(500)
    assert points.rgb is not None
    xyz.write(points, tmp_path / "a.xyz")
    table = np.genfromtxt(tmp_path / "a.xyz")
    assert np.array_equal(table[:, :3].astype(np.float32), points.xyz.numpy())
    assert np.array_equal(table[:, 3:], points.rgb.numpy())
    cloud = trimesh.load(tmp_path / "a.xyz")
    assert np.allclose(cloud.vertices, points.xyz.numpy(), atol=1e-7)  # type: ignore[union-attr]
    assert np.array_equal(cloud.colors[:, :3], points.rgb.numpy())  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "1 2 3 10 20 30\n4 5 6 40 50 60\n",
        "1 2 3 10 20 30\r\n4 5 6 40 50 60\r\n",
        "//X Y Z R G B\n1 2 3 10 20 30\n4 5 6 40 50 60",
        "# by hand\n\n1,2,3,10,20,30\n# more\n  4,5,6,40,50,60  \n\n",
        "x y z red green blue\n1\t2\t3\t10\t20\t30\n4\t5\t6\t40\t50\t60\n",
        "2\n1;2;3;10;20;30\n4;5;6;40;50;60\n",
        "1e0 +2 3.0 10.0 20.0 30.0\n4 5 6 40 50 60\n",
        "1 2 3 10 20 30 0 0 1.0\n4 5 6 40 50 60 0 1 0\n",
        "1 2 3 0 0.6 -0.8 10 20 30\n4 5 6 0 0 1 40 50 60\n",
    ],
)
def test_xyz_reads_external_files(tmp_path: Path, text: str) -> None:
    points = xyz.read(write_text(tmp_path / "a.xyz", text))
    assert points.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert points.rgb is not None and points.rgb.tolist() == [[10, 20, 30], [40, 50, 60]]


def test_xyz_ignores_intensity(tmp_path: Path) -> None:
    for text in ("1 2 3\n4 5 6", "1 2 3 -800\n4 5 6 900"):
        points = xyz.read(write_text(tmp_path / "a.xyz", text))
        assert points.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
        assert points.rgb is None and points.normals is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no points"),
        ("\n\n# nothing\n", "no points"),
        ("1 2\n3 4\n", "line 1: '1 2' is not x y z"),
        ("1 2 3\n4 5\n", "line 2: '4 5' is not 3 finite numbers"),
        ("1 2 3\n\n#\n4 five 6\n", "line 4: '4 five 6'"),
        ("1 2 3\n4 nan 6\n", "line 2: '4 nan 6'"),
        ("1 2 3\n1e999 0 0\n", "line 2: "),
        ("1 2 3\n1_0 0 0\n", "line 2: '1_0 0 0'"),
        ("1 2 3 4 5\n", "line 1: "),
        ("3\nwater\nO 0 0 0\nH 0 0 1\n", "line 2: 'water' is not x y z"),
        ("1 2 3 0.1 0.2 0.9\n1 2 3 0.3 0.3 0.3\n", "columns 4 to 6 are neither colours"),
        ("1 2 3 256 0 0\n", "columns 4 to 6 are neither colours"),
        ("1e39 2 3\n", "too large"),
        ("5000000 0 0\n5000001 0 0\n", "steps of 0.5; subtract an offset"),
        (b"\x89PNG\r\n\x1a\n\0\0", "line 2: "),
        ("x" * 5000, "line 1: longer than 4096"),
        ("1 2 3\n" + "x" * (2 << 20) + "\n", "line 2: longer than 1048576"),
        ("\n" * 101 + "1 2 3", "first 100 lines"),
    ],
)
def test_xyz_rejects_unreadable_files(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        xyz.read(write_text(tmp_path / "a.xyz", text))


def test_xyz_reports_line_of_damage(tmp_path: Path) -> None:
    xyz.write(make_points(100_000), tmp_path / "a.xyz")
    lines = (tmp_path / "a.xyz").read_bytes().split(b"\n")
    lines[77_776] = b"here"
    with pytest.raises(FormatError, match="line 77777: 'here'"):
        xyz.read(write_text(tmp_path / "a.xyz", b"\n".join(lines)))


def test_xyz_memory_bound(tmp_path: Path) -> None:
    write_text(tmp_path / "a.xyz", "0 0 1\n" * 200_000)
    tracemalloc.start()
    xyz.read(tmp_path / "a.xyz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * (tmp_path / "a.xyz").stat().st_size


def test_xyz_rejects_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be opened"):
        xyz.read(tmp_path / "a.xyz")
    with pytest.raises(FormatError):
        xyz.read(tmp_path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text("0123456789.-+eE# \t\n\r,;/nixaf_", max_size=200).map(str.encode),
        st.lists(st.lists(st.floats(width=32), min_size=3, max_size=9), max_size=5).map(
            lambda rows: "\n".join(" ".join(map(repr, row)) for row in rows).encode()
        ),
    )
)
def test_xyz_survives_edits(tmp_path: Path, data: bytes) -> None:
    with contextlib.suppress(FormatError):
        points = xyz.read(write_text(tmp_path / "a.xyz", data))
        assert len(points) and torch.isfinite(points.xyz).all()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 3, *[st.integers(0, 255)] * 3), min_size=1, max_size=9))
def test_xyz_roundtrip_of_any_points(tmp_path: Path, rows: list[tuple[float, ...]]) -> None:
    table = np.array(rows)
    points = Points(torch.tensor(table[:, :3], dtype=torch.float32), torch.tensor(table[:, 3:], dtype=torch.uint8))
    xyz.write(points, tmp_path / "a.xyz")
    with contextlib.suppress(FormatError):  # a few points far from the origin and close together
        back = xyz.read(tmp_path / "a.xyz")
        assert back.rgb is not None and points.rgb is not None
        assert torch.equal(back.xyz, points.xyz) and torch.equal(back.rgb, points.rgb)


def test_xyz_rejects_unwritable_assets(tmp_path: Path) -> None:
    nan_points = make_points(3)
    nan_points.xyz[1, 1] = math.nan
    mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]], dtype=torch.int32))
    for asset, message in [
        (make_splats(3), "XYZ holds points"),
        (mesh, "XYZ holds points"),
        (nan_points, "1 of 3 points hold NaN"),
        (Points(torch.zeros(0, 3)), "no points"),
    ]:
        with pytest.raises(FormatError, match=message):
            xyz.write(asset, tmp_path / "a.xyz")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
