"""Voxels as NumPy arrays: round trip, agreement with numpy, robustness to hostile files."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lumigraph.formats import npz
from lumigraph.formats.npz import Options
from lumigraph.scene.assets import Points, VoxelGrid, Voxels
from lumigraph.scene.errors import FormatError
from tests.formats.corrupted_files import assert_survives, iterate_damage

SHAPE = (9, 7, 8)


def make_voxels(count: int = 100) -> Voxels:
    """Voxels of a rotated grid with a different size along each axis."""
    draw = torch.Generator().manual_seed(0)
    indices = torch.randperm(math.prod(SHAPE), generator=draw)[:count].sort().values
    index = torch.stack([indices // 56, indices // 8 % 7, indices % 8], 1)
    angle = torch.tensor(0.3, dtype=torch.float64)
    axes = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]]).double()
    axes = torch.linalg.qr(axes).Q * torch.tensor([-1.0, -1.0, 1.0]).double()
    grid = VoxelGrid(torch.tensor([1.0, -2.0, 3.0]).double(), axes, 0.25, SHAPE, 1.0)
    rgb = torch.randint(256, (count, 3), generator=draw, dtype=torch.uint8)
    return Voxels(grid.centres(index), rgb, distance=torch.rand(count, generator=draw) * 2 - 1, grid=grid)


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_npz_roundtrip_and_numpy(tmp_path: Path, layout: Any) -> None:
    voxels, path = make_voxels(), tmp_path / "a.npz"
    npz.write(voxels, path, Options(layout))
    with np.load(path, allow_pickle=False) as stored_arrays:
        files = {name: stored_arrays[name] for name in stored_arrays.files}
    index = np.argwhere(files["known"]) if layout == "dense" else files["index"]
    row = tuple(index.T) if layout == "dense" else slice(None)
    places = files["origin"] + files["voxel"] * index @ files["axes"].T
    assert np.abs(places - voxels.xyz.numpy()).max() < 1e-5
    assert (files["distance"][row] == voxels.distance.numpy()).all()
    assert (files["color"][row] == voxels.rgb.numpy()).all()
    assert tuple(files["shape"]) == SHAPE and files["truncation"] == 1
    if layout == "dense":
        assert files["distance"].shape == SHAPE and files["color"].shape == (*SHAPE, 3)
        assert (files["distance"][~files["known"]] == 1).all()

    again = npz.read(path)
    assert torch.allclose(again.xyz, voxels.xyz, atol=1e-5) and torch.equal(again.rgb, voxels.rgb)
    assert torch.equal(again.distance, voxels.distance) and torch.equal(again.index, voxels.index)
    assert again.grid.shape == SHAPE and again.grid.voxel == 0.25 and torch.equal(again.grid.origin, voxels.grid.origin)
    assert torch.allclose(again.grid.axes, voxels.grid.axes, atol=1e-6)


def test_npz_is_reproducible(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        npz.write(make_voxels(), tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_npz_rejects_unwritable_assets(tmp_path: Path) -> None:
    path, voxels = tmp_path / "a.npz", make_voxels()
    large = replace(voxels.grid, shape=(4000, 4000, 4000))
    for asset, message in (
        (Points(voxels.xyz), "holds voxels"),
        (replace(voxels, grid=large), "4000 x 4000 x 4000 voxels takes 512.0 GB, .* or the layout sparse"),
        (replace(voxels, grid=replace(voxels.grid, shape=(3, 3, 3))), "are outside the grid"),
        (replace(voxels, distance=voxels.distance * torch.inf), "distances hold NaN"),
    ):
        with pytest.raises(FormatError, match=message):
            npz.write(asset, path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    npz.write(replace(voxels, grid=large), path, Options("sparse"))
    assert len(npz.read(path)) == len(voxels)


# --- hostile files ---------------------------------------------------------------------------------------------------


def stored_arrays_of(path: Path) -> dict[str, Any]:
    npz.write(make_voxels(), path, Options("sparse"))
    with np.load(path) as stored_arrays:
        return {name: stored_arrays[name] for name in stored_arrays.files}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distance": np.zeros(3, "f4")}, "an array 'distance' of float32"),
        ({"distance": np.full(100, np.nan, "f4")}, "NaN or infinity in 'distance'"),
        ({"distance": np.full(100, 5, "f4")}, "beyond its truncation"),
        ({"distance": np.zeros(100, "f8")}, "of float64"),
        ({"distance": np.array([{}] * 100)}, "cannot be read|of object"),
        ({"index": np.full((100, 3), 8, "i4")}, "beyond its shape"),
        ({"index": np.full((100, 3), -1, "i4")}, "beyond its shape"),
        ({"shape": np.array([9, 7, 0])}, "invalid grid shape"),
        ({"shape": np.array([2**62, 2**62, 4])}, "invalid grid shape"),
        ({"axes": np.ones((3, 3))}, "right angles"),
        ({"axes": np.eye(4)}, "an array 'axes'"),
        ({"voxel": np.array(-1.0)}, "invalid voxel size"),
        ({"origin": np.array([np.inf, 0, 0])}, "NaN or infinity"),
    ],
)
def test_npz_rejects_invalid_arrays(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **(stored_arrays_of(path) | changes))
    with pytest.raises(FormatError, match=message):
        npz.read(path)


def test_npz_rejects_bombs(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    stored_arrays = stored_arrays_of(path)
    np.savez_compressed(path, **stored_arrays)
    with pytest.raises(FormatError, match="is compressed, which is not supported"):
        npz.read(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(path, "w") as bundle:
        for name, values in stored_arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, np.asarray(values))
            bundle.writestr(f"{name}.npy", header.getvalue() if name == "distance" else data.getvalue())
    with pytest.raises(FormatError, match="an array 'distance'"):
        npz.read(path)


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_npz_survives_damage(tmp_path: Path, layout: Any) -> None:
    path = tmp_path / "a.npz"
    npz.write(make_voxels(), path, Options(layout))

    def points(path: Path) -> Points:
        voxels = npz.read(path)
        assert voxels.distance.isfinite().all() and voxels.grid.axes.isfinite().all()
        return Points(voxels.xyz, voxels.rgb)

    assert_survives(points, path, iterate_damage(path.read_bytes()))
    for text in (b"", b"PK\x05\x06" + bytes(18), b"\x93NUMPY"):
        path.write_bytes(text)
        with pytest.raises(FormatError):
            npz.read(path)
