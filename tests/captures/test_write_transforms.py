"""Written transforms.json: cameras follow the OpenGL definition, and our reader restores the capture."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData

from lumigraph.captures.image_file import MaskFiles, PhotoFiles
from lumigraph.captures.readers import transforms
from lumigraph.captures.writers import write_transforms
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import project
from lumigraph.scene.errors import CaptureError
from lumigraph.wire.events import Note, Progress

from .common import finish, save_image
from .test_write_colmap import DISTORTION, assert_same, some_capture


@pytest.mark.parametrize("kinds", [1, 2, 3])
@pytest.mark.parametrize("model", DISTORTION)
def test_write_transforms_roundtrip(tmp_path: Path, model: str, kinds: int) -> None:
    capture = some_capture(tmp_path, model, kinds=kinds)
    held_out = torch.arange(9) % 4 == 1
    capture = dataclasses.replace(capture, held_out=held_out)
    _, events = finish(write_transforms.write(capture, tmp_path / "out"))
    assert [event.done for event in events if isinstance(event, Progress)] == list(range(10))
    assert any(isinstance(event, Note) for event in events) == (model == "FULL_OPENCV")
    document = json.loads((tmp_path / "out" / "transforms.json").read_text())
    assert document["camera_model"] == model
    assert ("fl_x" in document) == (kinds == 1) and ("fl_x" in document["frames"][0]) == (kinds > 1)
    result = transforms.read(tmp_path / "out")
    order = sorted(range(9), key=lambda i: f"images/{capture.names[i]}")
    assert result.names == tuple(f"images/{capture.names[i]}" for i in order)
    assert_same(dataclasses.replace(result, names=tuple(capture.names[i] for i in order)), capture, order, False)
    assert capture.points is not None and result.points is not None
    assert torch.equal(result.points.xyz, capture.points.xyz)
    assert result.points.rgb is not None and capture.points.rgb is not None
    assert torch.equal(result.points.rgb, capture.points.rgb)
    assert isinstance(result.photos, PhotoFiles)
    for path, i in zip(result.photos.paths, order, strict=True):
        assert path.read_bytes() == (tmp_path / "in" / capture.names[i]).read_bytes()


def test_write_transforms_camera_looks_along_minus_z_with_y_up(tmp_path: Path) -> None:
    """By definition, without a matrix product, compared with the projections of our own cameras."""
    capture = some_capture(tmp_path, "PINHOLE", kinds=1)
    finish(write_transforms.write(capture, tmp_path / "out"))
    document = json.loads((tmp_path / "out" / "transforms.json").read_text())
    for i, frame in enumerate(document["frames"]):
        right, up, result, eye = torch.tensor(frame["transform_matrix"])[:3].T
        points = torch.stack([eye - 2 * result, eye - 2 * result + 0.2 * up, eye - 2 * result + 0.2 * right])
        pixels, depth = project(capture.cameras[i], points)
        centre = torch.tensor([document["cx"], document["cy"]])
        image_offsets = [[0, 0], [0, -0.1 * document["fl_y"]], [0.1 * document["fl_x"], 0]]
        assert torch.allclose(pixels[0] - centre, torch.tensor(image_offsets), atol=1e-3)
        assert torch.allclose(depth, torch.full((1, 3), 2.0), atol=1e-5)


def test_write_transforms_ply_is_readable_by_others(tmp_path: Path) -> None:
    capture = some_capture(tmp_path)
    assert capture.points is not None and capture.points.rgb is not None
    finish(write_transforms.write(capture, tmp_path / "out"))
    vertex = PlyData.read(tmp_path / "out" / "sparse_pc.ply")["vertex"]
    assert np.array_equal(np.stack([vertex[a] for a in "xyz"], axis=1), capture.points.xyz.numpy())
    colours = np.stack([vertex[c] for c in ("red", "green", "blue")], axis=1)
    assert colours.dtype == np.uint8 and np.array_equal(colours, capture.points.rgb.numpy())
    finish(write_transforms.write(dataclasses.replace(capture, points=Points(torch.eye(3))), tmp_path / "grey"))
    vertex = PlyData.read(tmp_path / "grey" / "sparse_pc.ply")["vertex"]
    assert set(vertex["green"].tolist()) == {128}
    finish(write_transforms.write(dataclasses.replace(capture, points=None), tmp_path / "none"))
    assert not (tmp_path / "none" / "sparse_pc.ply").exists()
    assert "ply_file_path" not in json.loads((tmp_path / "none" / "transforms.json").read_text())


def test_write_transforms_split_and_masks(tmp_path: Path) -> None:
    capture = some_capture(tmp_path, kinds=1)
    for i in range(9):
        save_image(tmp_path / "masks" / f"{i}.png", seed=i, mode="L")
    masks = MaskFiles([tmp_path / "masks" / f"{i}.png" for i in range(9)])
    finish(write_transforms.write(dataclasses.replace(capture, masks=masks), tmp_path / "out"))
    document = json.loads((tmp_path / "out" / "transforms.json").read_text())
    paths = [frame["file_path"] for frame in document["frames"]]
    assert sorted(document["train_filenames"] + document["test_filenames"]) == sorted(paths)
    assert document["val_filenames"] == document["test_filenames"]
    assert document["test_filenames"] == [p for p, out in zip(paths, capture.held_out.tolist(), strict=True) if out]
    result = transforms.read(tmp_path / "out")
    assert result.masks is not None
    order = sorted(range(9), key=lambda i: paths[i])
    assert all(torch.equal(result.masks[i], masks[j]) for i, j in enumerate(order))
    without = dataclasses.replace(capture, held_out=torch.zeros(9, dtype=torch.bool))
    finish(write_transforms.write(without, tmp_path / "all"))
    assert "train_filenames" not in json.loads((tmp_path / "all" / "transforms.json").read_text())


def test_write_transforms_third_radial_coefficient_is_opencv(tmp_path: Path) -> None:
    capture = some_capture(tmp_path)
    assert capture.cameras.distortion is not None
    capture.cameras.distortion[:, 4] = 0.01
    _, events = finish(write_transforms.write(capture, tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "transforms.json").read_text())["camera_model"] == "OPENCV"
    assert not any(isinstance(event, Note) for event in events)
    result = transforms.read(tmp_path / "out").cameras.distortion
    assert result is not None and torch.allclose(result[:, 4], torch.tensor(0.01))


def test_write_transforms_is_atomic(tmp_path: Path) -> None:
    capture, out = some_capture(tmp_path), tmp_path / "out"
    task = write_transforms.write(capture, out)
    for _ in range(5):
        next(task)
        assert not out.exists()
    task.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    finish(write_transforms.write(capture, out))
    with pytest.raises(CaptureError, match="is not empty"):
        finish(write_transforms.write(capture, out))
