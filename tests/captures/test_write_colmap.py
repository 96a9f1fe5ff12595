"""Written COLMAP models: pycolmap sees our cameras, poses and points, and projects them to our pixels."""

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

from .common import finish, save_picture

DISTORTION: dict[str, tuple[Lens, list[float] | None]] = {
    "PINHOLE": ("pinhole", None),
    "OPENCV": ("opencv", [0.05, -0.02, 0.003, -0.004, 0, 0, 0, 0]),
    "FULL_OPENCV": ("opencv", [0.05, -0.02, 0.003, -0.004, 0.01, 0.02, 0.01, 0.003]),
    "OPENCV_FISHEYE": ("fisheye", [0.02, -0.01, 0.003, -0.001]),
}


def some_capture(folder: Path, model: str = "OPENCV", count: int = 9, kinds: int = 2) -> Capture:
    """Photos of two sizes and `kinds` lenses about the origin, and points that some of them saw."""
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
        save_picture(folder / "in" / name, cameras.size(i), seed=i)
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


def judged(model: Path) -> dict[str, Any]:
    script = Path(__file__).parent / "read_colmap.py"
    command = [sys.executable, str(script), str(model)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def plainly_named(capture: Capture) -> Capture:
    return dataclasses.replace(capture, names=tuple(name.replace(" ", "_") for name in capture.names))


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("model", DISTORTION)
def test_pycolmap_sees_the_same_capture(tmp_path: Path, model: str, text: bool) -> None:
    capture = some_capture(tmp_path, model)
    capture = plainly_named(capture) if text else capture
    points = capture.points
    assert points is not None and points.rgb is not None
    assert points.view_offsets is not None and points.view_indices is not None
    finish(write_colmap.write(capture, tmp_path / "out", text=text))
    found = judged(tmp_path / "out" / "sparse" / "0")
    assert found["cameras"] == 2 and sorted(found["images"]) == sorted(capture.names)
    assert np.array_equal(np.array(found["xyz"], np.float32), points.xyz.numpy())
    assert found["rgb"] == points.rgb.tolist()
    pixels, _ = project(capture.cameras, points.xyz)
    poses = capture.cameras.cam_from_world
    for i, name in enumerate(capture.names):
        image = found["images"][name]
        assert image["model"] == model and tuple(image["size"]) == capture.cameras.size(i)
        assert image["params"][:4] == [*capture.cameras.focal[i].tolist(), *capture.cameras.centre[i].tolist()]
        assert np.abs(np.array(image["pose"]) - poses[i].numpy()).max() < 1e-6
        assert np.abs(np.array(image["pixels"]) - pixels[i].numpy()).max() < 2e-3
        for pixel, keypoint in zip(image["pixels"], image["keypoints"], strict=True):
            assert keypoint is None or np.abs(np.array(pixel) - keypoint).max() < 2e-3
    for i, names in enumerate(found["seen"]):
        row = points.view_indices[points.view_offsets[i] : points.view_offsets[i + 1]].tolist()
        assert names == sorted(capture.names[j] for j in row)
        assert [n for n in sorted(found["images"]) if found["images"][n]["keypoints"][i] is not None] == names


@pytest.mark.parametrize("model", DISTORTION)
def test_our_reader_brings_it_back(tmp_path: Path, model: str) -> None:
    capture = some_capture(tmp_path, model)
    _, events = finish(write_colmap.write(capture, tmp_path / "out"))
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.done for event in progress] == list(range(10)) and {event.total for event in progress} == {9}
    assert progress == events
    back = colmap.read(tmp_path / "out")
    assert_same(back, capture, sorted(range(9), key=lambda i: capture.names[i]))
    for i, name in enumerate(back.names):
        photo = tmp_path / "in" / name
        assert isinstance(back.photos, PhotoFiles)
        assert back.photos.paths[i].read_bytes() == photo.read_bytes() and not back.photos.paths[i].samefile(photo)


def assert_same(back: Capture, capture: Capture, order: list[int], exact_tracks: bool = True) -> None:
    """`order` is in which the reader puts the photos."""
    assert back.names == tuple(capture.names[i] for i in order)
    assert back.cameras.lens == capture.cameras.lens
    meant = capture.select(order)
    for name in ("world_from_cam", "focal", "centre", "sizes", "distortion"):
        there, here = getattr(back.cameras, name), getattr(meant.cameras, name)
        assert (there is None and here is None) or torch.allclose(there, here, atol=1e-6), name
    assert torch.equal(back.held_out, meant.held_out)
    if not exact_tracks:
        return
    assert back.points is not None and meant.points is not None
    assert torch.equal(back.points.xyz, meant.points.xyz)
    assert back.points.view_counts is not None and meant.points.view_counts is not None
    assert torch.equal(back.points.view_counts, meant.points.view_counts)


def test_points_without_colours_or_views_and_none_at_all(tmp_path: Path) -> None:
    capture = some_capture(tmp_path)
    bare = dataclasses.replace(capture, points=Points(torch.eye(3)))
    finish(write_colmap.write(bare, tmp_path / "a"))
    found = judged(tmp_path / "a" / "sparse" / "0")
    assert found["xyz"] == torch.eye(3).tolist() and found["rgb"] == [[128] * 3] * 3 and found["seen"] == [[]] * 3
    _, events = finish(write_colmap.write(dataclasses.replace(capture, points=None), tmp_path / "b"))
    assert isinstance(events[-1], Note) and "no points" in events[-1].text
    assert colmap.read(tmp_path / "b").points is None
    assert judged(tmp_path / "b" / "sparse" / "0")["xyz"] == []


def test_a_point_behind_a_camera_that_claims_to_have_seen_it(tmp_path: Path) -> None:
    capture = some_capture(tmp_path)
    behind = (capture.cameras.positions[3] - capture.cameras.forwards[3])[None]
    points = Points(behind, None, None, torch.tensor([0, 1]), torch.tensor([3], dtype=torch.int32))
    finish(write_colmap.write(dataclasses.replace(capture, points=points), tmp_path / "a"))
    assert judged(tmp_path / "a" / "sparse" / "0")["seen"] == [[]]


def test_other_held_out_photos_are_noted(tmp_path: Path) -> None:
    capture = some_capture(tmp_path)
    held_out = ~capture.held_out
    _, events = finish(write_colmap.write(dataclasses.replace(capture, held_out=held_out), tmp_path / "a"))
    assert isinstance(events[-1], Note) and "held out" in events[-1].text


def test_photos_that_are_only_pixels_become_png_and_masks_grey(tmp_path: Path) -> None:
    capture = some_capture(tmp_path, kinds=1)
    pixels = [torch.full((48, 64, 4), i * 20, dtype=torch.uint8) for i in range(9)]
    for i in range(9):
        save_picture(tmp_path / "masks" / f"{i}.jpg", seed=i, mode="L")
    masks = MaskFiles([tmp_path / "masks" / f"{i}.jpg" for i in range(9)])
    made = dataclasses.replace(capture, photos=ArrayPhotos(pixels), has_alpha=True, masks=masks)
    finish(write_colmap.write(made, tmp_path / "out"))
    back = colmap.read(tmp_path / "out")
    assert back.names[:2] == ("IMG 00.png", "IMG 01.png") and back.has_alpha and back.masks is not None
    order = [made.names.index(name.replace(".png", ".jpg")) for name in back.names]
    for i, j in enumerate(order):
        assert torch.equal(back.photo(i), pixels[j]) and torch.equal(back.masks[i], masks[j])
    with Image.open(tmp_path / "out" / "masks" / "IMG 00.png.png") as mask:
        assert mask.mode == "L"


def test_some_of_the_photos(tmp_path: Path) -> None:
    """A selection copies the files of those that it holds; their points forget the others."""
    capture = some_capture(tmp_path).select([6, 2, 3])
    finish(write_colmap.write(capture, tmp_path / "out"))
    files = sorted(file.name for file in (tmp_path / "out" / "images").iterdir())
    assert files == ["IMG 02.jpg", "IMG 03.jpg", "IMG 06.jpg"]
    for file in files:
        assert (tmp_path / "out" / "images" / file).read_bytes() == (tmp_path / "in" / file).read_bytes()
    assert len(judged(tmp_path / "out" / "sparse" / "0")["images"]) == 3


def test_the_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
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
    save_picture(tmp_path / "in" / capture.names[7], capture.cameras.size(7))
    out.mkdir()  # empty: that is no obstacle
    finish(write_colmap.write(capture, out))
    with pytest.raises(CaptureError, match="is not empty"):
        finish(write_colmap.write(capture, out))
    with pytest.raises(CaptureError, match="is not empty"):
        finish(write_colmap.write(capture, tmp_path / "in" / capture.names[0]))


@pytest.mark.parametrize("name", ["../x.jpg", "/x.jpg", "a\nb.jpg", "IMG 01.JPG"])
def test_names_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    capture = some_capture(tmp_path)
    with pytest.raises(CaptureError):
        finish(write_colmap.write(dataclasses.replace(capture, names=(name, *capture.names[1:])), tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_text_takes_no_blanks_in_names(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="choose the binary form"):
        finish(write_colmap.write(some_capture(tmp_path), tmp_path / "out", text=True))
