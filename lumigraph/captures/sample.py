"""Photos of a made-up scene, for a first try without a camera or a download, and for tests that need the truth.

The pictures are what a careful person with a 33 mm lens would bring home: two rounds about a still life, one low and
one high, hand-held. They carry the focal length in their EXIF block as any photo does, and nothing else; where the
cameras really stood is written apart, for judging what was estimated from the pictures alone.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image

from lumigraph.captures.exif import FULL_FRAME_DIAGONAL
from lumigraph.captures.synthetic.raytracer import BakedScene, Scene, bake, reflection_maps, render_photo
from lumigraph.captures.synthetic.still_life import still_life
from lumigraph.captures.synthetic.vectors import Floats
from lumigraph.captures.thread_map import ordered_map
from lumigraph.scene.atomic_files import atomic_write
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import CaptureError
from lumigraph.scene.poses import look_at
from lumigraph.wire.events import ArtifactWritten, Event, Note, Progress

EQUIVALENT = 33  # millimetres on 35 mm film: 55 degrees across a 4:3 picture
QUALITY = 95
SMALLEST, LARGEST = 32, 4096  # pixels along a side
FINEST = 1.5  # detail of the charts, which take 0.2 GB at 1 and grow with its square


def render_sample(
    out: Path, views: int = 60, size: tuple[int, int] = (640, 480), seed: int = 0
) -> Generator[Event, None, Path]:
    """Render `views` photos of `size` (width, height) into out/images and the cameras into out/transforms.json.

    Returns out/images. The same numbers give the same pictures. The photos appear together when the last one is done;
    a run that is closed early leaves nothing. Raises CaptureError for sizes that cannot be rendered, for a folder that
    already holds photos and for a disk that refuses.
    """
    out = Path(out)
    images = out / "images"
    if views < 1 or not all(SMALLEST <= side <= LARGEST for side in size):
        raise CaptureError(
            f"cannot render {views} views of {size[0]}x{size[1]} pixels: ask for at least one view and for sides of"
            f" {SMALLEST} to {LARGEST} pixels"
        )
    if images.exists() and (not images.is_dir() or any(images.iterdir())):
        raise CaptureError(f"{images} already holds something: choose another folder or remove it")
    beside = out / f"images.tmp-{os.getpid()}"
    try:
        beside.mkdir(parents=True)
        baked = yield from _bake(still_life(seed), detail=min(max(size) / 640, FINEST))
        cameras = handheld_orbit(views, size, seed)
        yield from _render_photos(baked, cameras, beside, seed)
        with atomic_write(out / "transforms.json") as file:
            file.write(json.dumps(transforms_json(cameras), indent=1).encode())
        if images.exists():
            images.rmdir()
        beside.replace(images)
    except OSError as error:
        reason = error.strerror or error
        raise CaptureError(f"{out}: cannot be written ({reason}); free some space or choose another folder") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    yield ArtifactWritten(path=str(images), what=f"{views} photos")
    yield Note(text=f"The true cameras lie in {out / 'transforms.json'}, to compare with or to train from.")
    return images


def handheld_orbit(views: int, size: tuple[int, int], seed: int) -> Cameras:
    """Two rounds about the scene, at 21 and 40 degrees above the table, as steady as a hand. World z is up, metres."""
    rng = np.random.default_rng((seed, 1))
    low = (views + 1) // 2
    k = np.arange(views)
    upper = k >= low
    turns = np.where(upper, (k - low + 0.5) / max(views - low, 1), k / low)
    azimuth = 2 * math.pi * turns + math.radians(-118) + rng.normal(0, math.radians(1.3), views)
    height = np.radians(np.where(upper, 40, 21) + rng.normal(0, 1.2, views))
    distance = np.where(upper, 1.32, 1.28) * rng.normal(1, 0.025, views)
    target = np.array([-0.02, -0.01, 0.075]) + rng.normal(0, 0.018, (views, 3))
    level = np.stack([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)], 1)
    eye = target + distance[:, None] * level
    sideways = np.stack([-np.sin(azimuth), np.cos(azimuth), np.zeros(views)], 1)
    up = np.array([0.0, 0.0, 1.0]) + sideways * np.tan(rng.normal(0, math.radians(1.4), views))[:, None]
    focal = EQUIVALENT * math.hypot(*size) / FULL_FRAME_DIAGONAL
    return Cameras(
        world_from_cam=look_at(torch.from_numpy(eye), torch.from_numpy(target), torch.from_numpy(up)),
        focal=torch.full((views, 2), focal, dtype=torch.float64),
        centre=torch.tensor(size, dtype=torch.float64).expand(views, 2) / 2,
        sizes=torch.tensor(size).expand(views, 2),
    )


def transforms_json(cameras: Cameras) -> dict[str, Any]:
    """The cameras in the form of nerfstudio and instant-ngp: camera to world, OpenGL axes (x right, y up, z back)."""
    width, height = cameras.size(0)
    bottom = torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    flip = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)  # OpenCV's y and z axes turned around
    frames = [
        {"file_path": f"images/{_name(i)}", "transform_matrix": torch.cat([pose.double() * flip, bottom]).tolist()}
        for i, pose in enumerate(cameras.world_from_cam)
    ]
    (fx, fy), (cx, cy) = cameras.focal[0].tolist(), cameras.centre[0].tolist()
    return {
        "camera_model": "PINHOLE",
        "camera_angle_x": 2 * math.atan(width / (2 * fx)),
        **{"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": width, "h": height},
        "frames": frames,
    }


def _bake(scene: Scene, detail: float) -> Generator[Event, None, BakedScene]:
    """Light for all shapes, the costly ones first so that no thread is left alone with one at the end."""
    shapes = scene.visible.shapes
    order = sorted(range(len(shapes)), key=lambda i: -math.prod(shapes[i].light_texels))
    charts: list[Floats] = [np.zeros((0, 0, 4), np.float32)] * len(shapes)
    total = sum(math.prod(shape.light_texels) for shape in shapes)
    done = 0
    yield Progress(stage="light", done=0, total=total, unit="texels")
    for i, chart in zip(order, ordered_map(lambda i: bake(scene, shapes[i], detail), order), strict=True):
        charts[i] = chart
        done += math.prod(shapes[i].light_texels)
        yield Progress(stage="light", done=done, total=total, unit="texels")
    return BakedScene(scene.visible, charts, reflection_maps(scene, detail))


def _render_photos(baked: BakedScene, cameras: Cameras, folder: Path, seed: int) -> Generator[Event, None, None]:
    poses = cameras.world_from_cam.numpy().astype(np.float32)
    focal, size = float(cameras.focal[0, 0]), cameras.size(0)
    exif = _exif()

    def take(i: int) -> bytes:
        rng = np.random.default_rng((seed, 2, i))  # of its own, so that the order of the threads does not matter
        picture = Image.fromarray(render_photo(baked, poses[i], focal, size, rng))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=QUALITY, subsampling=0, exif=exif)
        return buffer.getvalue()

    views, start = len(cameras), time.monotonic()
    yield Progress(stage="render", done=0, total=views, unit="photos")
    for i, data in enumerate(ordered_map(take, range(views))):
        (folder / _name(i)).write_bytes(data)
        left = (time.monotonic() - start) / (i + 1) * (views - i - 1)
        yield Progress(stage="render", done=i + 1, total=views, unit="photos", seconds_left=left)


def _name(i: int) -> str:
    return f"IMG_{i + 1:04d}.jpg"


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Lumigraph"
    exif[ExifTags.Base.Model] = "Made-up camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = EQUIVALENT
    return exif
