"""The sample: its true cameras and its pictures must tell one story, the same one each time."""

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
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    out = tmp_path_factory.mktemp("sample") / "demo"
    events, images = run(sample.render_sample(out, VIEWS, SIZE, SEED))
    assert images == out / "images"
    return out, events


def pictures(out: Path) -> Tensor:
    """(N, H, W, 3) 0..1"""
    paths = sorted((out / "images").iterdir())
    return torch.stack([torch.from_numpy(np.array(Image.open(path).convert("RGB"))) for path in paths]) / 255


def truth(out: Path) -> Cameras:
    """Read from the JSON by hand, so that our own reader of such files is not both judge and party."""
    said = json.loads((out / "transforms.json").read_text())
    poses = torch.tensor([frame["transform_matrix"] for frame in said["frames"]], dtype=torch.float64)
    n = len(poses)
    return Cameras(
        world_from_cam=poses[:, :3] * torch.tensor([1.0, -1.0, -1.0, 1.0]),
        focal=torch.tensor([[said["fl_x"], said["fl_y"]]] * n, dtype=torch.float64),
        centre=torch.tensor([[said["cx"], said["cy"]]] * n, dtype=torch.float64),
        sizes=torch.tensor([[said["w"], said["h"]]] * n),
    )


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_photos_like_anyones(made: tuple[Path, list[Event]]) -> None:
    out, events = made
    names = sorted(path.name for path in (out / "images").iterdir())
    assert names == [f"IMG_{i:04d}.jpg" for i in range(1, VIEWS + 1)]
    assert sorted(path.name for path in out.iterdir()) == ["images", "transforms.json"]
    with Image.open(out / "images" / names[0]) as photo:
        assert photo.format == "JPEG" and photo.size == SIZE
        focal = exif.focal_px(photo)
        assert exif.gps_position(photo) is None and exif.orientation_transpose(photo) is None
    said = json.loads((out / "transforms.json").read_text())
    assert focal == pytest.approx(said["fl_x"])
    assert math.degrees(said["camera_angle_x"]) == pytest.approx(55, abs=1)
    for frame, name in zip(said["frames"], names, strict=True):
        assert (out / frame["file_path"]).resolve() == (out / "images" / name).resolve()
    photographed = [event.done for event in events if isinstance(event, Progress) and event.stage == "render"]
    assert photographed == list(range(VIEWS + 1))
    assert [event.path for event in events if isinstance(event, ArtifactWritten)] == [str(out / "images")]


def test_pictures_are_bright_and_nowhere_plain(made: tuple[Path, list[Event]]) -> None:
    for picture in pictures(made[0]):
        assert 0.2 < float(picture.mean()) < 0.6
        assert float(picture.amax(-1).min()) > 0.01  # a ray that meets nothing would be black
        blocks = picture.unfold(0, 12, 12).unfold(1, 12, 12)
        assert float(blocks.std(dim=(-1, -2)).amax(-1).min()) > 0.01


def test_the_same_numbers_give_the_same_files(made: tuple[Path, list[Event]], tmp_path: Path) -> None:
    run(sample.render_sample(tmp_path / "again", VIEWS, SIZE, SEED))
    files = [path for path in made[0].rglob("*") if path.is_file()]
    assert len(files) == VIEWS + 1
    for file in files:
        assert (tmp_path / "again" / file.relative_to(made[0])).read_bytes() == file.read_bytes(), file.name


# --- the cameras are where the pictures were taken --------------------------------------------------------------------


def table_colours(photos: Tensor, cameras: Cameras) -> Tensor:
    """(N, P, 3) what each picture shows at points of the table top, NaN outside of the picture."""
    x, y = torch.meshgrid(torch.linspace(-0.8, 0.8, 161), torch.linspace(-0.8, 0.8, 161), indexing="xy")
    points = torch.stack([x, y, torch.zeros_like(x)], -1).reshape(-1, 3).double()
    pixels, _ = project(cameras, points)
    place = pixels / torch.tensor(SIZE) * 2 - 1
    outside = ~(place.abs() < 1).all(-1)
    colours = torch.nn.functional.grid_sample(
        photos.permute(0, 3, 1, 2).double(), place[:, :, None], align_corners=False, padding_mode="border"
    )
    return colours[..., 0].permute(0, 2, 1).masked_fill(outside[..., None], torch.nan)


def disagreement(photos: Tensor, cameras: Cameras) -> float:
    """How far two pictures that follow each other differ where they agree best: the lowest tenth over the table. The
    rest of it is hidden behind what stands there, from one side or the other, or shines."""
    colours = table_colours(photos, cameras)
    apart = (colours[1:] - colours[:-1]).abs().amax(-1)
    return float(apart[~apart.isnan()].quantile(0.1))


def test_the_table_lies_where_the_true_cameras_see_it(made: tuple[Path, list[Event]]) -> None:
    photos, cameras = pictures(made[0]), truth(made[0])
    right = disagreement(photos, cameras)
    assert right < 0.03
    for axis in range(3):  # every camera turned by two degrees about one of its own axes
        a = math.radians(2)
        turn = torch.eye(3, dtype=torch.float64)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[i, i], turn[j, j], turn[i, j], turn[j, i] = math.cos(a), math.cos(a), -math.sin(a), math.sin(a)
        poses = cameras.world_from_cam.clone()
        poses[::2, :, :3] = poses[::2, :, :3] @ turn
        moved = Cameras(poses, cameras.focal, cameras.centre, cameras.sizes)
        assert disagreement(photos, moved) > 1.2 * right, axis
