"""The sample: its true cameras agree with its images, and it is reproducible."""

from __future__ import annotations

import json
import math
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lumigraph.captures import exif, sample
from lumigraph.scene.cameras import Cameras, project
from lumigraph.wire.events import ArtifactWritten, Event, Progress

SIZE = (96, 72)
VIEWS = 6
SEED = 3
Result = TypeVar("Result")


def run(task: Generator[Event, None, Result]) -> tuple[list[Event], Result]:
    events = []
    while True:
        try:
            events.append(next(task))
        except StopIteration as end:
            return events, end.value


@pytest.fixture(scope="module")
def sample_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    out = tmp_path_factory.mktemp("sample") / "demo"
    events, images = run(sample.render_sample(out, VIEWS, SIZE, SEED))
    assert images == out / "images"
    return out, events


def images(out: Path) -> Tensor:
    """(N, H, W, 3), 0..1"""
    paths = sorted((out / "images").iterdir())
    return torch.stack([torch.from_numpy(np.array(Image.open(path).convert("RGB"))) for path in paths]) / 255


def true_cameras(out: Path) -> Cameras:
    """Cameras parsed from the JSON here, so that the test does not depend on our reader."""
    document = json.loads((out / "transforms.json").read_text())
    poses = torch.tensor([frame["transform_matrix"] for frame in document["frames"]], dtype=torch.float64)
    n = len(poses)
    return Cameras(
        world_from_cam=poses[:, :3] * torch.tensor([1.0, -1.0, -1.0, 1.0]),
        focal=torch.tensor([[document["fl_x"], document["fl_y"]]] * n, dtype=torch.float64),
        centre=torch.tensor([[document["cx"], document["cy"]]] * n, dtype=torch.float64),
        sizes=torch.tensor([[document["w"], document["h"]]] * n),
    )


# --- output -----------------------------------------------------------------------------------------------------------


def test_sample_photos_have_only_usual_exif(sample_run: tuple[Path, list[Event]]) -> None:
    out, events = sample_run
    names = sorted(path.name for path in (out / "images").iterdir())
    assert names == [f"IMG_{i:04d}.jpg" for i in range(1, VIEWS + 1)]
    assert sorted(path.name for path in out.iterdir()) == ["images", "transforms.json"]
    with Image.open(out / "images" / names[0]) as photo:
        assert photo.format == "JPEG" and photo.size == SIZE
        focal = exif.focal_px(photo)
        assert exif.gps_position(photo) is None and exif.orientation_transpose(photo) is None
    document = json.loads((out / "transforms.json").read_text())
    assert focal == pytest.approx(document["fl_x"])
    assert math.degrees(document["camera_angle_x"]) == pytest.approx(55, abs=1)
    for frame, name in zip(document["frames"], names, strict=True):
        assert (out / frame["file_path"]).resolve() == (out / "images" / name).resolve()
    counts = [event.done for event in events if isinstance(event, Progress) and event.stage == "render"]
    assert counts == list(range(VIEWS + 1))
    assert [event.path for event in events if isinstance(event, ArtifactWritten)] == [str(out / "images")]


def test_sample_images_are_bright_and_textured(sample_run: tuple[Path, list[Event]]) -> None:
    for image in images(sample_run[0]):
        assert 0.2 < float(image.mean()) < 0.6
        assert float(image.amax(-1).min()) > 0.01  # a ray without a hit would be black
        blocks = image.unfold(0, 12, 12).unfold(1, 12, 12)
        assert float(blocks.std(dim=(-1, -2)).amax(-1).min()) > 0.01


def test_sample_is_reproducible(sample_run: tuple[Path, list[Event]], tmp_path: Path) -> None:
    run(sample.render_sample(tmp_path / "again", VIEWS, SIZE, SEED))
    files = [path for path in sample_run[0].rglob("*") if path.is_file()]
    assert len(files) == VIEWS + 1
    for file in files:
        assert (tmp_path / "again" / file.relative_to(sample_run[0])).read_bytes() == file.read_bytes(), file.name


# --- agreement of cameras and images ----------------------------------------------------------------------------------


def table_colours(photos: Tensor, cameras: Cameras) -> Tensor:
    """Colours (N, P, 3) of each image at points of the table top, NaN outside of the image."""
    x, y = torch.meshgrid(torch.linspace(-0.8, 0.8, 161), torch.linspace(-0.8, 0.8, 161), indexing="xy")
    points = torch.stack([x, y, torch.zeros_like(x)], -1).reshape(-1, 3).double()
    pixels, _ = project(cameras, points)
    grid = pixels / torch.tensor(SIZE) * 2 - 1
    is_outside = ~(grid.abs() < 1).all(-1)
    colours = torch.nn.functional.grid_sample(
        photos.permute(0, 3, 1, 2).double(), grid[:, :, None], align_corners=False, padding_mode="border"
    )
    return colours[..., 0].permute(0, 2, 1).masked_fill(is_outside[..., None], torch.nan)


def colour_difference(photos: Tensor, cameras: Cameras) -> float:
    """Colour difference of consecutive images where they agree best: the lowest tenth over the table. Elsewhere the
    table is occluded in one of the two, or reflects."""
    colours = table_colours(photos, cameras)
    difference = (colours[1:] - colours[:-1]).abs().amax(-1)
    return float(difference[~difference.isnan()].quantile(0.1))


def test_sample_images_agree_with_true_cameras(sample_run: tuple[Path, list[Event]]) -> None:
    photos, cameras = images(sample_run[0]), true_cameras(sample_run[0])
    true_difference = colour_difference(photos, cameras)
    assert true_difference < 0.03
    for axis in range(3):  # every other camera rotated by two degrees about one of its own axes
        a = math.radians(2)
        rotation = torch.eye(3, dtype=torch.float64)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        rotation[i, i], rotation[j, j], rotation[i, j], rotation[j, i] = (
            math.cos(a),
            math.cos(a),
            -math.sin(a),
            math.sin(a),
        )
        poses = cameras.world_from_cam.clone()
        poses[::2, :, :3] = poses[::2, :, :3] @ rotation
        rotated_cameras = Cameras(poses, cameras.focal, cameras.centre, cameras.sizes)
        assert colour_difference(photos, rotated_cameras) > 1.2 * true_difference, axis
