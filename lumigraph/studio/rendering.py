"""The verb `render`: a run seen from a path, as a film or as pictures."""

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

FRAMES = 180  # six seconds at 30 frames a second
PATH_FILE_LIMIT = 16 << 20  # bytes
Point = tuple[FiniteFloat, FiniteFloat, FiniteFloat]


class KeyFrame(BaseModel):
    """Where the camera stands and what it looks at, in the world of the capture."""

    model_config = ConfigDict(extra="forbid")
    position: Point
    look_at: Point
    up: Point | None = None  # the capture's own up
    fov: Annotated[float, Bounded(gt=0, lt=180)] | None = None  # vertical, degrees; that of the photos


class PathFile(BaseModel):
    """A file of key frames: the camera passes them smoothly, taking the same time for each stretch."""

    model_config = ConfigDict(extra="forbid")
    keyframes: Annotated[list[KeyFrame], Bounded(min_length=1, max_length=10_000)]
    closed: bool = False  # back to the first


def render(request: RenderRequest) -> Generator[Event, None, None]:
    """OUT.mp4 is a film, OUT.png one picture, a name without suffix a folder of pictures.

    One picture shows the first held-out view, or the first frame of the path where one is named.
    Raises RunError, and OSError where the disk refuses.
    """
    suffix = request.out.suffix.lower()
    if suffix not in (".mp4", ".png", ""):
        raise RunError(f"cannot render to {suffix!r}; name an .mp4, a .png, or a folder for pictures")
    run = Run(request.run)
    field, card = load_field(run, request.device)
    trained_with, held_out = run.cameras()
    if suffix == ".png" and request.path is None:
        cameras = trained_with[int(held_out.int().argmax())]  # the first held out, or the first of all
    else:
        count = 1 if suffix == ".png" else request.frames or FRAMES
        cameras = camera_path(request.path or "orbit", trained_with, count)
    size = request.size or cameras.size(0)
    if suffix == ".mp4" and (size[0] % 2 or size[1] % 2):
        size = (size[0] // 2 * 2, size[1] // 2 * 2)
        yield Note(text=f"the film is {size[0]}x{size[1]} pixels: H.264 wants even numbers")
    cameras = resize(cameras, size)
    pictures = frames(field, cameras, card.over_white, request.output)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".png":
        write_png(request.out, next(pictures))
        yield ArtifactWritten(path=str(request.out), what="picture")
    elif suffix == ".mp4":
        yield from _film(pictures, len(cameras), size, request.out, request.fps)
    else:
        yield from _folder(pictures, len(cameras), request.out)


def camera_path(name: str, like: Cameras, count: int) -> Cameras:
    """`count` cameras along `orbit`, `spiral` or the key frames of a JSON file. Raises RunError."""
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
    """The same views as pictures of `size`, with square pixels: of another shape, they show less and never more, since
    nothing is known beyond what photos showed."""
    width, height = size
    scale = max(width / cameras.size(0)[0], height / cameras.size(0)[1])
    wanted = torch.tensor(size)
    off_centre = (cameras.centre / cameras.sizes - 0.5) * cameras.sizes * scale
    return Cameras(
        cameras.world_from_cam,
        cameras.focal * scale,
        off_centre.to(cameras.focal) + wanted.to(cameras.focal) / 2,
        wanted.expand(len(cameras), 2).clone(),
    )


def frames(field: Field, cameras: Cameras, over_white: bool, output: Output = "rgb") -> Iterator[Tensor]:
    """uint8 (H, W, 3) pictures, one after another: a film need not fit into memory.

    As `OutputVisualizer` shows them. Raises RunError where the method does not render what is asked for.
    """
    device = field.box.device
    background = torch.ones(3, device=device) if over_white else None
    showing = OutputVisualizer()
    for camera in cameras:
        camera = camera.to(device)
        with torch.no_grad():
            image = field.render(camera, background)
        yield showing(image, camera, output)


def _film(
    pictures: Iterator[Tensor], count: int, size: tuple[int, int], out: Path, fps: int
) -> Generator[Event, None, None]:
    with mp4_writer(out, size, fps) as write:
        for done, frame in enumerate(pictures, start=1):
            write(frame)
            yield Progress(stage="render", done=done, total=count, unit="frames")
    yield ArtifactWritten(path=str(out), what=f"film of {count} frames, {size[0]}x{size[1]}")


def _folder(pictures: Iterator[Tensor], count: int, out: Path) -> Generator[Event, None, None]:
    out.mkdir(parents=True, exist_ok=True)
    for done, frame in enumerate(pictures, start=1):
        write_png(out / f"{done:05d}.png", frame)
        yield Progress(stage="render", done=done, total=count, unit="frames")
    yield ArtifactWritten(path=str(out), what=f"{count} pictures")


def _read_path(path: Path) -> PathFile:
    if not path.is_file():
        raise RunError(f"{path} does not exist; a path is orbit, spiral or a .json file of key frames")
    if path.stat().st_size > PATH_FILE_LIMIT:
        raise RunError(f"{path} is larger than a file of key frames can be")
    try:
        return PathFile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RunError(
            f"{path}: {where}: {first['msg']}; "
            'wanted is {"keyframes": [{"position": [x, y, z], "look_at": [x, y, z]}, ...]}'
        ) from error


def _key_cameras(keys: PathFile, like: Cameras) -> Cameras:
    """A camera for each key frame. Raises ValueError where one looks at where it stands."""
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
