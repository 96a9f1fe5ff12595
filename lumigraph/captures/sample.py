"""Photos of a synthetic scene, for a first try without a camera or a download, and for tests with ground truth.

The images are those of a careful person with a 33 mm lens: two hand-held orbits around a still life, one low and one
high. Their EXIF block has the focal length and nothing else. The true cameras are in a separate file, to evaluate
poses that were estimated from the images alone.
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

from lumigraph.captures.exif import FULL_FRAME_DIAGONAL_MM
from lumigraph.captures.synthetic.raytracer import BakedScene, Scene, bake, reflection_maps, render_photo
from lumigraph.captures.synthetic.still_life import still_life
from lumigraph.captures.synthetic.vectors import Floats
from lumigraph.captures.thread_map import ordered_map
from lumigraph.scene.atomic_files import atomic_write
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import CaptureError
from lumigraph.scene.poses import look_at
from lumigraph.wire.events import ArtifactWritten, Event, Note, Progress

FOCAL_35MM_EQUIVALENT = 33  # millimetres: 55 degrees across a 4:3 image
SAMPLE_JPEG_QUALITY = 95
MIN_SIDE_PX, MAX_SIDE_PX = 32, 4096
MAX_CHART_DETAIL = 1.5  # charts take 0.2 GB at detail 1 and grow with its square


def render_sample(
    out: Path, views: int = 60, size: tuple[int, int] = (640, 480), seed: int = 0
) -> Generator[Event, None, Path]:
    """Render `views` photos of `size` (width, height) into out/images and write the cameras to out/transforms.json.

    Returns out/images. The result depends only on the arguments. The photos appear together after the last one; closing
    the generator early leaves no files. Raises CaptureError if a size cannot be rendered, the folder already contains
    photos, or the disk cannot be written.
    """
    out = Path(out)
    images = out / "images"
    if views < 1 or not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in size):
        raise CaptureError(
            f"cannot render {views} views of {size[0]}x{size[1]} pixels: use at least one view and sides of"
            f" {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels"
        )
    if images.exists() and (not images.is_dir() or any(images.iterdir())):
        raise CaptureError(f"{images} is not empty: choose another folder or remove it")
    tmp_images = out / f"images.tmp-{os.getpid()}"
    try:
        tmp_images.mkdir(parents=True)
        baked_scene = yield from _bake(still_life(seed), detail=min(max(size) / 640, MAX_CHART_DETAIL))
        cameras = handheld_orbit(views, size, seed)
        yield from _render_photos(baked_scene, cameras, tmp_images, seed)
        with atomic_write(out / "transforms.json") as file:
            file.write(json.dumps(transforms_json(cameras), indent=1).encode())
        if images.exists():
            images.rmdir()
        tmp_images.replace(images)
    except OSError as error:
        reason = error.strerror or error
        raise CaptureError(f"{out}: cannot be written ({reason}); free some space or choose another folder") from error
    finally:
        shutil.rmtree(tmp_images, ignore_errors=True)
    yield ArtifactWritten(path=str(images), what=f"{views} photos")
    yield Note(text=f"The true cameras are in {out / 'transforms.json'}, to compare with or to train from.")
    return images


def handheld_orbit(views: int, size: tuple[int, int], seed: int) -> Cameras:
    """Cameras of two orbits at 21 and 40 degrees above the table, with the jitter of a hand. World z is up, metres."""
    rng = np.random.default_rng((seed, 1))
    low_count = (views + 1) // 2
    k = np.arange(views)
    is_high = k >= low_count
    turn = np.where(is_high, (k - low_count + 0.5) / max(views - low_count, 1), k / low_count)
    azimuth = 2 * math.pi * turn + math.radians(-118) + rng.normal(0, math.radians(1.3), views)
    height = np.radians(np.where(is_high, 40, 21) + rng.normal(0, 1.2, views))
    distance = np.where(is_high, 1.32, 1.28) * rng.normal(1, 0.025, views)
    target = np.array([-0.02, -0.01, 0.075]) + rng.normal(0, 0.018, (views, 3))
    level = np.stack([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)], 1)
    eye = target + distance[:, None] * level
    sideways = np.stack([-np.sin(azimuth), np.cos(azimuth), np.zeros(views)], 1)
    up = np.array([0.0, 0.0, 1.0]) + sideways * np.tan(rng.normal(0, math.radians(1.4), views))[:, None]
    focal = FOCAL_35MM_EQUIVALENT * math.hypot(*size) / FULL_FRAME_DIAGONAL_MM
    return Cameras(
        world_from_cam=look_at(torch.from_numpy(eye), torch.from_numpy(target), torch.from_numpy(up)),
        focal=torch.full((views, 2), focal, dtype=torch.float64),
        centre=torch.tensor(size, dtype=torch.float64).expand(views, 2) / 2,
        sizes=torch.tensor(size).expand(views, 2),
    )


def transforms_json(cameras: Cameras) -> dict[str, Any]:
    """The cameras in the format of nerfstudio and instant-ngp: camera to world, OpenGL axes (x right, y up, z back)."""
    width, height = cameras.size(0)
    bottom = torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    flip = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)  # OpenCV to OpenGL: y and z change sign
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
    """Bake the light of all shapes, the most expensive first, so that no thread ends alone with a long one."""
    shapes = scene.visible.shapes
    order = sorted(range(len(shapes)), key=lambda i: -math.prod(shapes[i].light_texels))
    charts: list[Floats] = [np.zeros((0, 0, 4), np.float32)] * len(shapes)
    total = sum(math.prod(shape.light_texels) for shape in shapes)
    texels_baked = 0
    yield Progress(stage="light", done=0, total=total, unit="texels")
    for i, chart in zip(order, ordered_map(lambda i: bake(scene, shapes[i], detail), order), strict=True):
        charts[i] = chart
        texels_baked += math.prod(shapes[i].light_texels)
        yield Progress(stage="light", done=texels_baked, total=total, unit="texels")
    return BakedScene(scene.visible, charts, reflection_maps(scene, detail))


def _render_photos(baked_scene: BakedScene, cameras: Cameras, folder: Path, seed: int) -> Generator[Event, None, None]:
    poses = cameras.world_from_cam.numpy().astype(np.float32)
    focal, size = float(cameras.focal[0, 0]), cameras.size(0)
    exif = _exif()

    def encode_photo(i: int) -> bytes:
        rng = np.random.default_rng((seed, 2, i))  # one per photo, so that the order of the threads does not matter
        image = Image.fromarray(render_photo(baked_scene, poses[i], focal, size, rng))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=SAMPLE_JPEG_QUALITY, subsampling=0, exif=exif)
        return buffer.getvalue()

    views, start = len(cameras), time.monotonic()
    yield Progress(stage="render", done=0, total=views, unit="photos")
    for i, data in enumerate(ordered_map(encode_photo, range(views))):
        (folder / _name(i)).write_bytes(data)
        seconds_left = (time.monotonic() - start) / (i + 1) * (views - i - 1)
        yield Progress(stage="render", done=i + 1, total=views, unit="photos", seconds_left=seconds_left)


def _name(i: int) -> str:
    return f"IMG_{i + 1:04d}.jpg"


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Lumigraph"
    exif[ExifTags.Base.Model] = "Synthetic camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = FOCAL_35MM_EQUIVALENT
    return exif
