"""The verb `render`: render a run along a camera path, to a video or images."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError
from pydantic import Field as Bounded
from torch import Tensor

from lumigraph.scene import poses
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import RunError
from lumigraph.scene.field import Field
from lumigraph.scene.images import write_png
from lumigraph.scene.visualize import OutputVisualizer
from lumigraph.studio.run import Run
from lumigraph.studio.training import load_field
from lumigraph.studio.video_encoder import mp4_writer
from lumigraph.wire.events import ArtifactWritten, Event, Note, Progress
from lumigraph.wire.requests import Output, RenderRequest

DEFAULT_FRAME_COUNT = 180  # six seconds at 30 frames per second
MAX_PATH_FILE_BYTES = 16 << 20
Point = tuple[FiniteFloat, FiniteFloat, FiniteFloat]


class KeyFrame(BaseModel):
    """Position and target of the camera in capture coordinates."""

    model_config = ConfigDict(extra="forbid")
    position: Point
    look_at: Point
    up: Point | None = None  # default: that of the capture
    fov: Annotated[float, Bounded(gt=0, lt=180)] | None = None  # vertical, degrees; default: that of the photos


class PathFile(BaseModel):
    """A file of key frames. The camera interpolates them smoothly, with equal time per segment."""

    model_config = ConfigDict(extra="forbid")
    keyframes: Annotated[list[KeyFrame], Bounded(min_length=1, max_length=10_000)]
    closed: bool = False  # return to the first key frame


def render(request: RenderRequest) -> Generator[Event, None, None]:
    """Render a run: OUT.mp4 is a video, OUT.png one image, a name without suffix a folder of images.

    One image shows the first frame of the path, or the first held-out view if there is no path.
    Raises RunError, and OSError if writing fails.
    """
    suffix = request.out.suffix.lower()
    if suffix not in (".mp4", ".png", ""):
        raise RunError(f"cannot render to {suffix!r}; name an .mp4, a .png, or a folder for images")
    run = Run(request.run)
    field, card = load_field(run, request.device)
    run_cameras, held_out = run.cameras()
    if suffix == ".png" and request.path is None:
        cameras = run_cameras[int(held_out.int().argmax())]  # the first held-out view, or the first view
    else:
        count = 1 if suffix == ".png" else request.frames or DEFAULT_FRAME_COUNT
        cameras = camera_path(request.path or "orbit", run_cameras, count)
    size = request.size or cameras.size(0)
    if suffix == ".mp4" and (size[0] % 2 or size[1] % 2):
        size = (size[0] // 2 * 2, size[1] // 2 * 2)
        yield Note(text=f"the video is {size[0]}x{size[1]} pixels: H.264 requires even numbers")
    cameras = resize(cameras, size)
    images = render_frames(field, cameras, card.over_white, request.output)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".png":
        write_png(request.out, next(images))
        yield ArtifactWritten(path=str(request.out), what="image")
    elif suffix == ".mp4":
        yield from _write_video(images, len(cameras), size, request.out, request.fps)
    else:
        yield from _write_images(images, len(cameras), request.out)


def camera_path(name: str, like: Cameras, count: int) -> Cameras:
    """Return `count` cameras along `orbit`, `spiral` or the key frames of a JSON file. Raises RunError."""
    if name == "orbit":
        return poses.capture_orbit(like, count)
    if name == "spiral":
        return poses.spiral(like, count)
    path = Path(name)
    if path.suffix.lower() != ".json":
        raise RunError(f"there is no path {name!r}; use orbit, spiral or a .json file of key frames")
    keys = _read_path(path)
    try:
        return poses.spline_path(_key_cameras(keys, like), count, keys.closed)
    except ValueError as error:
        raise RunError(f"{path}: {error}") from error


def resize(cameras: Cameras, size: tuple[int, int]) -> Cameras:
    """Return the cameras at another (width, height) with square pixels. Another aspect ratio crops the views and never
    extends them, since the scene beyond the photos is unknown."""
    width, height = size
    scale = max(width / cameras.size(0)[0], height / cameras.size(0)[1])
    target_size = torch.tensor(size)
    off_centre = (cameras.centre / cameras.sizes - 0.5) * cameras.sizes * scale
    return Cameras(
        cameras.world_from_cam,
        cameras.focal * scale,
        off_centre.to(cameras.focal) + target_size.to(cameras.focal) / 2,
        target_size.expand(len(cameras), 2).clone(),
    )


def render_frames(field: Field, cameras: Cameras, over_white: bool, output: Output = "rgb") -> Iterator[Tensor]:
    """Yield images, uint8 (H, W, 3), one at a time: a video need not fit into memory.

    Depth and normals are coloured by `OutputVisualizer`. Raises RunError if the method does not render `output`.
    """
    device = field.box.device
    background = torch.ones(3, device=device) if over_white else None
    visualizer = OutputVisualizer()
    for camera in cameras:
        camera = camera.to(device)
        with torch.no_grad():
            image = field.render(camera, background)
        yield visualizer(image, camera, output)


def _write_video(
    images: Iterator[Tensor], frame_count: int, size: tuple[int, int], out: Path, fps: int
) -> Generator[Event, None, None]:
    with mp4_writer(out, size, fps) as write:
        for count, frame in enumerate(images, start=1):
            write(frame)
            yield Progress(stage="render", done=count, total=frame_count, unit="frames")
    yield ArtifactWritten(path=str(out), what=f"video of {frame_count} frames, {size[0]}x{size[1]}")


def _write_images(images: Iterator[Tensor], frame_count: int, out: Path) -> Generator[Event, None, None]:
    out.mkdir(parents=True, exist_ok=True)
    for count, frame in enumerate(images, start=1):
        write_png(out / f"{count:05d}.png", frame)
        yield Progress(stage="render", done=count, total=frame_count, unit="frames")
    yield ArtifactWritten(path=str(out), what=f"{frame_count} images")


def _read_path(path: Path) -> PathFile:
    if not path.is_file():
        raise RunError(f"{path} does not exist; a path is orbit, spiral or a .json file of key frames")
    if path.stat().st_size > MAX_PATH_FILE_BYTES:
        raise RunError(f"{path} is too large for a file of key frames; at most {MAX_PATH_FILE_BYTES >> 20} MB")
    try:
        return PathFile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RunError(
            f"{path}: {location}: {first['msg']}; "
            'expected {"keyframes": [{"position": [x, y, z], "look_at": [x, y, z]}, ...]}'
        ) from error


def _key_cameras(keys: PathFile, like: Cameras) -> Cameras:
    """Return a camera for each key frame. Raises ValueError if a position equals its target."""
    up = poses.up_direction(like)
    world_from_cam = torch.stack(
        [
            poses.look_at(
                torch.tensor(key.position, dtype=torch.float64),
                torch.tensor(key.look_at, dtype=torch.float64),
                up.double() if key.up is None else torch.tensor(key.up, dtype=torch.float64),
            )
            for key in keys.keyframes
        ]
    )
    cameras = poses.path_cameras(like, world_from_cam)
    for i, key in enumerate(keys.keyframes):
        if key.fov is not None:
            cameras.focal[i] = cameras.size(i)[1] / (2 * math.tan(math.radians(key.fov) / 2))
    return cameras
