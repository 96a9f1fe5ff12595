"""LLFF: the axes of its matrix, the match of table and photos, and damaged tables."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumigraph.captures.readers import llff
from lumigraph.scene.cameras import project
from lumigraph.scene.errors import CaptureError

from .common import pose, save_image


def write(folder: Path, count: int = 10, width: int = 16) -> Any:
    """Write photos 64x48 whose table claims 128x96 and focal length 120; returns the OpenGL poses."""
    rng = np.random.default_rng(0)
    rows, poses = [], []
    for i in range(count):
        save_image(folder / "images" / f"{i:02d}.jpg", seed=i)
        c2w = pose(rng)
        right, up, back, eye = c2w[:3].T
        rows.append([*np.stack([-up, right, back, eye, [96, 128, 120]], axis=1).flatten(), 0.5, 9.0])
        poses.append(c2w)
    np.save(folder / "poses_bounds.npy", np.array(rows))
    return poses


def test_llff_axes_are_down_right_backwards(tmp_path: Path) -> None:
    """A point ahead projects to the image centre, one above it higher, one to its right further right."""
    poses = write(tmp_path)
    assert llff.accepts(tmp_path)
    capture = llff.read(tmp_path)
    assert capture.names == tuple(f"{i:02d}.jpg" for i in range(10))
    assert capture.held_out.nonzero().flatten().tolist() == [0, 8]
    for i, c2w in enumerate(poses):
        right, up, back, eye = torch.tensor(c2w[:3].T.copy()).float()
        points = torch.stack([eye - 2 * back, eye - 2 * back + 0.2 * up, eye - 2 * back + 0.2 * right])
        pixels, depth = project(capture.cameras[i], points)
        assert torch.allclose(pixels[0], torch.tensor([[32.0, 24.0], [32.0, 18.0], [38.0, 24.0]]), atol=1e-3)
        assert (depth > 1.9).all()


def test_llff_reduced_photos_replace_missing_ones(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "images").rename(tmp_path / "images_4")
    capture = llff.read(tmp_path)
    assert len(capture) == 10 and "images_4" in capture.notes[0]
    (tmp_path / "images_4" / "03.jpg").unlink()
    with pytest.raises(CaptureError, match="10 poses but images_4/ has 9"):
        llff.read(tmp_path)


def test_llff_rejects_pickle(tmp_path: Path) -> None:
    write(tmp_path)
    np.save(tmp_path / "poses_bounds.npy", np.array([{"a": 1}] * 10, dtype=object), allow_pickle=True)
    with pytest.raises(CaptureError, match="not a valid table"):
        llff.read(tmp_path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((10, 16)), "must be N x 17"),
        (np.zeros(17), "must be N x 17"),
        (np.zeros((0, 17)), "must be N x 17"),
        (np.full((10, 17), np.nan), "not finite in row 0"),
        (np.zeros((10, 17)), r"00\.jpg"),
        (np.zeros((10, 17), dtype="S8"), "not a valid table"),
    ],
)
def test_llff_rejects_invalid_table(tmp_path: Path, table: Any, message: str) -> None:
    write(tmp_path)
    np.save(tmp_path / "poses_bounds.npy", table)
    with pytest.raises(CaptureError, match=message):
        llff.read(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_llff_damage_raises_only_capture_error(tmp_path: Path, data: st.DataObject) -> None:
    if not (tmp_path / "images").exists():
        write(tmp_path, 2)
        (tmp_path / "poses_bounds.npy").rename(tmp_path / "good")
    content = bytearray((tmp_path / "good").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + 8] = data.draw(st.binary(max_size=8) | st.sampled_from([b"99999999", b"(((((((", b"'O'"]))
    (tmp_path / "poses_bounds.npy").write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with contextlib.suppress(CaptureError):
        llff.read(tmp_path)
