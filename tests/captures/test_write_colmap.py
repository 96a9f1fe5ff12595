"""Written COLMAP models: pycolmap reads the same cameras, poses and points, and projects them to the same pixels."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lumigraph.captures.image_file import MaskFiles, PhotoFiles
from lumigraph.captures.readers import colmap
from lumigraph.captures.writers import write_colmap
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Cameras, Lens, project
from lumigraph.scene.capture import ArrayPhotos, Capture, hold_out_every_eighth
from lumigraph.scene.errors import CaptureError
from lumigraph.scene.poses import look_at
from lumigraph.wire.events import Note, Progress

from .common import finish, save_image

DISTORTION: dict[str, tuple[Lens, list[float] | None]] = {
    "PINHOLE": ("pinhole", None),
    "OPENCV": ("opencv", [0.05, -0.02, 0.003, -0.004, 0, 0, 0, 0]),
    "FULL_OPENCV": ("opencv", [0.05, -0.02, 0.003, -0.004, 0.01, 0.02, 0.01, 0.003]),
    "OPENCV_FISHEYE": ("fisheye", [0.02, -0.01, 0.003, -0.001]),
}


def some_capture(folder: Path, model: str = "OPENCV", count: int = 9, kinds: int = 2) -> Capture:
    """Photos of two sizes and `kinds` lenses around the origin, and points with their views."""
    draw = torch.Generator().manual_seed(len(model))
    lens, k = DISTORTION[model]
    eyes = torch.nn.functional.normalize(torch.randn(count, 3, generator=draw), dim=1) * 4
    sizes = torch.tensor([[64, 48], [48, 64]])[torch.arange(count) % min(kinds, 2)]
    cameras = Cameras(
        world_from_cam=look_at(eyes, torch.zeros(3), torch.tensor([0.0, 0, 1])),
        focal=torch.tensor([60.25, 62.5]).repeat(count, 1) + (torch.arange(count) % kinds)[:, None],
        centre=sizes / 2 + torch.tensor([1.5, -1.25]),
        sizes=sizes,
        lens=lens,
        distortion=None if k is None else torch.tensor(k).repeat(count, 1),
    )
    names = [f"{'sub/' if i == 4 else ''}IMG {i:02d}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        save_image(folder / "in" / name, cameras.size(i), seed=i)
    views = [1 + i % 4 for i in range(30)]
    images = torch.cat([torch.randperm(count, generator=draw)[:n].sort().values for n in views]).to(torch.int32)
    offsets = torch.tensor([0, *views]).cumsum(0)
    points = Points(
        xyz=torch.randn(30, 3, generator=draw) / 2,
        rgb=torch.randint(0, 256, (30, 3), generator=draw, dtype=torch.uint8),
        view_offsets=offsets,
        view_indices=images,
    )
    photos = PhotoFiles([folder / "in" / name for name in names], alpha=False)
    return Capture(cameras, photos, tuple(names), hold_out_every_eighth(names), points=points)


def read_with_pycolmap(model: Path) -> dict[str, Any]:
    script = Path(__file__).parent / "read_colmap.py"
    command = [sys.executable, str(script), str(model)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    model_data: dict[str, Any] = json.loads(process.stdout)
    return model_data


def without_blanks(capture: Capture) -> Capture:
    return dataclasses.replace(capture, names=tuple(name.replace(" ", "_") for name in capture.names))


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("model", DISTORTION)
def test_write_colmap_agrees_with_pycolmap(tmp_path: Path, model: str, text: bool) -> None:
    capture = some_capture(tmp_path, model)
    capture = without_blanks(capture) if text else capture
    points = capture.points
    assert points is not None and points.rgb is not None
    assert points.view_offsets is not None and points.view_indices is not None
    finish(write_colmap.write(capture, tmp_path / "out", text=text))
    model_data = read_with_pycolmap(tmp_path / "out" / "sparse" / "0")
    assert model_data["cameras"] == 2 and sorted(model_data["images"]) == sorted(capture.names)
    assert np.array_equal(np.array(model_data["xyz"], np.float32), points.xyz.numpy())
    assert model_data["rgb"] == points.rgb.tolist()
    pixels, _ = project(capture.cameras, points.xyz)
    poses = capture.cameras.cam_from_world
    for i, name in enumerate(capture.names):
        image = model_data["images"][name]
        assert image["model"] == model and tuple(image["size"]) == capture.cameras.size(i)
        assert image["params"][:4] == [*capture.cameras.focal[i].tolist(), *capture.cameras.centre[i].tolist()]
        assert np.abs(np.array(image["pose"]) - poses[i].numpy()).max() < 1e-6
        assert np.abs(np.array(image["pixels"]) - pixels[i].numpy()).max() < 2e-3
        for pixel, keypoint in zip(image["pixels"], image["keypoints"], strict=True):
            assert keypoint is None or np.abs(np.array(pixel) - keypoint).max() < 2e-3
    for i, names in enumerate(model_data["seen"]):
        row = points.view_indices[points.view_offsets[i] : points.view_offsets[i + 1]].tolist()
        assert names == sorted(capture.names[j] for j in row)
        assert [n for n in sorted(model_data["images"]) if model_data["images"][n]["keypoints"][i] is not None] == names


@pytest.mark.parametrize("model", DISTORTION)
def test_write_colmap_roundtrip(tmp_path: Path, model: str) -> None:
    capture = some_capture(tmp_path, model)
    _, events = finish(write_colmap.write(capture, tmp_path / "out"))
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.done for event in progress] == list(range(10)) and {event.total for event in progress} == {9}
    assert progress == events
    result = colmap.read(tmp_path / "out")
    assert_same(result, capture, sorted(range(9), key=lambda i: capture.names[i]))
    for i, name in enumerate(result.names):
        photo = tmp_path / "in" / name
        assert isinstance(result.photos, PhotoFiles)
        assert result.photos.paths[i].read_bytes() == photo.read_bytes() and not result.photos.paths[i].samefile(photo)


def assert_same(result: Capture, capture: Capture, order: list[int], exact_tracks: bool = True) -> None:
    """Compare captures. `order`: photo order of the reader."""
    assert result.names == tuple(capture.names[i] for i in order)
    assert result.cameras.lens == capture.cameras.lens
    expected = capture.select(order)
    for name in ("world_from_cam", "focal", "centre", "sizes", "distortion"):
        actual_value, expected_value = getattr(result.cameras, name), getattr(expected.cameras, name)
        assert (actual_value is None and expected_value is None) or torch.allclose(
            actual_value, expected_value, atol=1e-6
        ), name
    assert torch.equal(result.held_out, expected.held_out)
    if not exact_tracks:
        return
    assert result.points is not None and expected.points is not None
    assert torch.equal(result.points.xyz, expected.points.xyz)
    assert result.points.view_counts is not None and expected.points.view_counts is not None
    assert torch.equal(result.points.view_counts, expected.points.view_counts)


def test_write_colmap_without_colours_views_or_points(tmp_path: Path) -> None:
    capture = some_capture(tmp_path)
    bare_capture = dataclasses.replace(capture, points=Points(torch.eye(3)))
    finish(write_colmap.write(bare_capture, tmp_path / "a"))
    model_data = read_with_pycolmap(tmp_path / "a" / "sparse" / "0")
    assert (
        model_data["xyz"] == torch.eye(3).tolist()
        and model_data["rgb"] == [[128] * 3] * 3
        and model_data["seen"] == [[]] * 3
    )
    _, events = finish(write_colmap.write(dataclasses.replace(capture, points=None), tmp_path / "b"))
    assert isinstance(events[-1], Note) and "no points" in events[-1].text
    assert colmap.read(tmp_path / "b").points is None
    assert read_with_pycolmap(tmp_path / "b" / "sparse" / "0")["xyz"] == []


def test_write_colmap_drops_view_behind_camera(tmp_path: Path) -> None:
    capture = some_capture(tmp_path)
    behind = (capture.cameras.positions[3] - capture.cameras.forwards[3])[None]
    points = Points(behind, None, None, torch.tensor([0, 1]), torch.tensor([3], dtype=torch.int32))
    finish(write_colmap.write(dataclasses.replace(capture, points=points), tmp_path / "a"))
    assert read_with_pycolmap(tmp_path / "a" / "sparse" / "0")["seen"] == [[]]


def test_write_colmap_notes_other_held_out_photos(tmp_path: Path) -> None:
    capture = some_capture(tmp_path)
    held_out = ~capture.held_out
    _, events = finish(write_colmap.write(dataclasses.replace(capture, held_out=held_out), tmp_path / "a"))
    assert isinstance(events[-1], Note) and "held out" in events[-1].text


def test_write_colmap_computed_photos_become_png(tmp_path: Path) -> None:
    capture = some_capture(tmp_path, kinds=1)
    pixels = [torch.full((48, 64, 4), i * 20, dtype=torch.uint8) for i in range(9)]
    for i in range(9):
        save_image(tmp_path / "masks" / f"{i}.jpg", seed=i, mode="L")
    masks = MaskFiles([tmp_path / "masks" / f"{i}.jpg" for i in range(9)])
    source = dataclasses.replace(capture, photos=ArrayPhotos(pixels), has_alpha=True, masks=masks)
    finish(write_colmap.write(source, tmp_path / "out"))
    result = colmap.read(tmp_path / "out")
    assert result.names[:2] == ("IMG 00.png", "IMG 01.png") and result.has_alpha and result.masks is not None
    order = [source.names.index(name.replace(".png", ".jpg")) for name in result.names]
    for i, j in enumerate(order):
        assert torch.equal(result.photo(i), pixels[j]) and torch.equal(result.masks[i], masks[j])
    with Image.open(tmp_path / "out" / "masks" / "IMG 00.png.png") as mask:
        assert mask.mode == "L"


def test_write_colmap_selection(tmp_path: Path) -> None:
    """A selection writes only its own photos; its points have no other views."""
    capture = some_capture(tmp_path).select([6, 2, 3])
    finish(write_colmap.write(capture, tmp_path / "out"))
    files = sorted(file.name for file in (tmp_path / "out" / "images").iterdir())
    assert files == ["IMG 02.jpg", "IMG 03.jpg", "IMG 06.jpg"]
    for file in files:
        assert (tmp_path / "out" / "images" / file).read_bytes() == (tmp_path / "in" / file).read_bytes()
    assert len(read_with_pycolmap(tmp_path / "out" / "sparse" / "0")["images"]) == 3


def test_write_colmap_is_atomic(tmp_path: Path) -> None:
    capture, out = some_capture(tmp_path), tmp_path / "out"
    task = write_colmap.write(capture, out)
    for _ in range(5):
        next(task)
        assert not out.exists()
    task.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    (tmp_path / "in" / capture.names[7]).unlink()
    with pytest.raises(CaptureError, match=r"IMG 07\.jpg cannot be read .*restore the photo"):
        finish(write_colmap.write(capture, out))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    save_image(tmp_path / "in" / capture.names[7], capture.cameras.size(7))
    out.mkdir()  # an empty folder is allowed
    finish(write_colmap.write(capture, out))
    with pytest.raises(CaptureError, match="is not empty"):
        finish(write_colmap.write(capture, out))
    with pytest.raises(CaptureError, match="is not empty"):
        finish(write_colmap.write(capture, tmp_path / "in" / capture.names[0]))


@pytest.mark.parametrize("name", ["../x.jpg", "/x.jpg", "a\nb.jpg", "IMG 01.JPG"])
def test_write_colmap_rejects_unsafe_names(tmp_path: Path, name: str) -> None:
    capture = some_capture(tmp_path)
    with pytest.raises(CaptureError):
        finish(write_colmap.write(dataclasses.replace(capture, names=(name, *capture.names[1:])), tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_write_colmap_text_rejects_blanks_in_names(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="choose the binary form"):
        finish(write_colmap.write(some_capture(tmp_path), tmp_path / "out", text=True))
