"""LAS: agreement with laspy in both directions; damaged files raise FormatError."""

from __future__ import annotations

import contextlib
import math
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumigraph.formats import las
from lumigraph.formats.chunked import BATCH_ROWS
from lumigraph.scene.assets import Mesh, Points
from lumigraph.scene.errors import FormatError
from tests.formats.test_ply import make_points, make_splats, same_bits

laspy = pytest.importorskip("laspy", reason="laspy is not installed")


def by_laspy(path: Path, kind: int, version: str, xyz: Any, scale: float = 1e-4, top: int = 65535) -> None:
    header = laspy.LasHeader(point_format=kind, version=version)
    header.scales, header.offsets = [scale] * 3, np.floor(xyz.min(axis=0))
    header.vlrs.append(laspy.VLR("somebody", 7, "", b"something else"))
    las_file = laspy.LasData(header)
    las_file.x, las_file.y, las_file.z = xyz.T
    if kind in las.COLOUR_OFFSETS:
        las_file.red, las_file.green, las_file.blue = np.linspace(0, top, 3 * len(xyz)).reshape(3, -1).astype(np.uint16)
    las_file.write(str(path))


@pytest.mark.parametrize("count", [0, 1, 50, BATCH_ROWS + 3])
@pytest.mark.parametrize("colours", [True, False])
def test_las_matches_laspy(tmp_path: Path, count: int, colours: bool) -> None:
    full = make_points(count)
    points = full if colours else Points(full.xyz)
    las.write(points, tmp_path / "a.las")
    external_scene = laspy.read(tmp_path / "a.las")
    assert str(external_scene.header.version) == "1.4" and external_scene.header.point_format.id == (
        7 if colours else 6
    )
    assert external_scene.header.point_count == count and external_scene.header.global_encoding.wkt
    assert external_scene.header.number_of_points_by_return[0] == count
    assert np.abs(external_scene.xyz - points.xyz.numpy()).max(initial=0) < 1e-6
    if count:
        assert np.allclose([external_scene.header.mins, external_scene.header.maxs], points.bounds().numpy(), atol=1e-6)
        assert set(external_scene.return_number) == {1} and set(external_scene.number_of_returns) == {1}
        step = np.log10(external_scene.header.scales)
        assert np.array_equal(step, np.rint(step))
    if colours and count:
        assert full.rgb is not None
        rgb = np.stack([external_scene.red, external_scene.green, external_scene.blue], axis=1)
        assert np.array_equal(rgb, full.rgb.numpy().astype(int) * 257)
    else:
        assert not count or "red" not in external_scene.point_format.dimension_names


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_las_roundtrip(tmp_path: Path, scale: float) -> None:
    points = make_points(1000)
    points = Points(points.xyz * scale + 3 * scale, points.rgb)
    las.write(points, tmp_path / "a.las")
    back = las.read(tmp_path / "a.las")
    assert back.rgb is not None and points.rgb is not None and same_bits(back.rgb, points.rgb)
    assert (back.xyz - points.xyz).abs().max() <= 2.0**-23 * 8 * scale
    las.write(back, tmp_path / "b.las")
    assert (tmp_path / "b.las").read_bytes()[227:] == (tmp_path / "a.las").read_bytes()[227:]


def test_las_resolution(tmp_path: Path) -> None:
    points = Points(torch.tensor([[0.0, 0, 0], [1.2344, 10, -3.0004], [-100, 2, 1]]))
    las.write(points, tmp_path / "a.las", las.Options(resolution=0.001))
    external_scene = laspy.read(tmp_path / "a.las")
    assert external_scene.header.scales.tolist() == [0.001] * 3
    assert np.allclose(external_scene.xyz, np.round(points.xyz.numpy(), 3), atol=1e-9)
    with pytest.raises(FormatError, match="choose a coarser resolution"):
        las.write(Points(torch.tensor([[0.0, 0, 0], [1e6, 0, 0]])), tmp_path / "b.las", las.Options(resolution=1e-5))
    assert not (tmp_path / "b.las").exists()


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 6, 7, 8, 10])
def test_las_reads_laspy_files(tmp_path: Path, kind: int) -> None:
    version = "1.4" if kind > 3 else "1.3" if kind == 3 else "1.2"
    xyz = np.random.default_rng(kind).normal(size=(70, 3)) * 50 + [1000, 2000, 30]
    by_laspy(tmp_path / "a.las", kind, version, xyz)
    points = las.read(tmp_path / "a.las")
    external_scene = laspy.read(tmp_path / "a.las")
    assert np.array_equal(points.xyz.numpy(), external_scene.xyz.astype(np.float32))
    if kind not in las.COLOUR_OFFSETS:
        assert points.rgb is None
        return
    rgb = np.stack([external_scene.red, external_scene.green, external_scene.blue], axis=1)
    assert points.rgb is not None and np.array_equal(points.rgb.numpy(), np.rint(rgb / 257))
    by_laspy(tmp_path / "b.las", kind, version, xyz, top=255)
    dark = las.read(tmp_path / "b.las").rgb
    assert dark is not None and int(dark.max()) == 255
    by_laspy(tmp_path / "c.las", kind, version, xyz, top=0)
    assert las.read(tmp_path / "c.las").rgb is None


def test_las_rejects_points_far_from_origin(tmp_path: Path) -> None:
    centre, offsets = np.array([500_000, 5_400_000, 300]), np.random.default_rng(0).uniform(size=(100, 3))
    by_laspy(tmp_path / "a.las", 7, "1.4", centre + offsets)
    with pytest.raises(FormatError, match=r"steps of 0\.5; subtract an offset"):
        las.read(tmp_path / "a.las")
    wide = centre + offsets * 1e5
    by_laspy(tmp_path / "c.las", 7, "1.4", wide, scale=0.01)
    assert np.abs(las.read(tmp_path / "c.las").xyz.numpy() - wide).max() < 0.3


def test_las_rejects_unreadable_files(tmp_path: Path) -> None:
    file = tmp_path / "a.las"
    las.write(make_points(10), file)
    whole = file.read_bytes()

    def with_bytes(at: int, layout: str, *values: float) -> bytes:
        return whole[:at] + struct.pack(layout, *values) + whole[at + struct.calcsize(layout) :]

    for data, message in [
        (b"", "not a LAS header"),
        (b"ply\n" * 100, "not a LAS header"),
        (whole[:300], "ends inside its header"),
        (whole[:-1], "announces 10 points of 36 bytes there, but the file has 734"),
        (with_bytes(247, "<Q", 2**60), "announces"),
        (with_bytes(96, "<I", 0), "announces"),
        (with_bytes(104, "<B", 7 | 0x80), "unpack it with laszip"),
        (with_bytes(104, "<B", 11), "point format 11"),
        (with_bytes(105, "<H", 20), "point format 7 with 20 bytes"),
        (with_bytes(105, "<H", 0), "point format 7 with 0 bytes"),
        (with_bytes(131, "<d", math.nan), "byte 131"),
        (with_bytes(155, "<d", math.inf), "byte 131"),
        (with_bytes(155, "<d", 1e300), "too large"),
    ]:
        file.write_bytes(data)
        with pytest.raises(FormatError, match=message):
            las.read(file)
    with pytest.raises(FormatError, match="cannot be opened"):
        las.read(tmp_path / "none.las")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 450), st.binary(min_size=1, max_size=8)), max_size=6), st.integers(0, 470))
def test_las_survives_edits(tmp_path: Path, spoilt: list[tuple[int, bytes]], cut: int) -> None:
    file = tmp_path / "a.las"
    las.write(make_points(2), file)
    data = bytearray(file.read_bytes())
    for at, noise in spoilt:
        data[at : at + len(noise)] = noise
    file.write_bytes(data[: cut if cut < 300 else None])
    with contextlib.suppress(FormatError):
        assert torch.isfinite(las.read(file).xyz).all()


def test_las_memory_bound(tmp_path: Path) -> None:
    points = make_points(400_000)
    las.write(points, tmp_path / "a.las")
    tracemalloc.start()
    las.read(tmp_path / "a.las")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6 < (tmp_path / "a.las").stat().st_size  # tensors of the result are not traced


def test_las_rejects_unwritable_assets(tmp_path: Path) -> None:
    nan_points = make_points(3)
    nan_points.xyz[1, 1] = math.inf
    mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]], dtype=torch.int32))
    for asset, message in [
        (make_splats(3), "LAS holds points"),
        (mesh, "LAS holds points"),
        (nan_points, "1 of 3 points"),
    ]:
        with pytest.raises(FormatError, match=message):
            las.write(asset, tmp_path / "a.las")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
