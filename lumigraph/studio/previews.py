"""What a browser gets to see: small files beside a capture and a run, which a server hands out as they are.

    PROJECT/shown/     capture.json, thumbs/0000.jpg .., points.ply
    RUN/shown/         index.json, scene-0-001234.spz, photo-0.jpg, render-0-001234.jpg ..
                       evaluation.json, views/3-photo.jpg, views/3-render.jpg ..

The JSON, whose shapes are in wire/previews.py, is written last: what it names is there. All of it can be made again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lumigraph.captures.image_file import PhotoFiles, decode_pixels, open_photo
from lumigraph.captures.thread_map import ordered_map
from lumigraph.formats import ply, spz
from lumigraph.live.encoders import encode_jpeg, initial_camera
from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.atomic_files import atomic_write
from lumigraph.scene.cameras import Cameras, project
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import CaptureError
from lumigraph.scene.field import Field
from lumigraph.scene.images import area_downscale, composite_over, to_uint8
from lumigraph.scene.metrics import psnr
from lumigraph.scene.poses import focus_point, up_direction
from lumigraph.studio import registry
from lumigraph.studio.files import remove_stale_files
from lumigraph.studio.run import EVALUATION, PREVIEWS_FOLDER, RENDERS, Run
from lumigraph.studio.training import load_field, prepared, read_capture
from lumigraph.wire.events import Event, Progress
from lumigraph.wire.previews import (
    Box,
    CapturePreview,
    EvaluatedView,
    EvaluationPreview,
    PosedImage,
    RejectedImage,
    RunPreview,
    StartCamera,
    Vector,
    ViewPreview,
)

CAPTURE, INDEX, THUMBS, POINTS, VIEWS = "capture.json", "index.json", "thumbs", "points.ply", "views"
POSES = "pose.json"  # what the search for poses says about itself, in the capture that it made
THUMB_SIDE, THUMB_QUALITY = 320, 80
MOST_POINTS = 200_000
SIDE, QUALITY = 640, 85  # of a snapshot's renders
FIRST_SIDE = 160  # of a method of which nobody knows yet how long it takes
MOST_VIEWS = 4
SECONDS = 0.6  # that the renders of a snapshot may take; slow methods are shown smaller
SHARE = 0.25  # of the time since the last showing, that the next may take
# Gaussians: from where on a scene comes in parts, and how many the first and each other has. A browser is not to stand
# still for longer than a fifth of a second while it takes one in.
MAX_UNSPLIT_GAUSSIANS, FIRST_PART_GAUSSIANS, PART_GAUSSIANS = 400_000, 100_000, 250_000
KEPT = 2  # steps whose files stay: a browser may still be fetching those of the one before
JUDGED, SHARP = 100, 90  # views of an evaluation, and their quality
SOLID = 0.1  # opacity of the gaussians that say where the scene is
SAMPLED = 5000  # of them, to choose a first camera by
UNREGISTERED_REASON = "too little of what it shows was found again in the other photos"


# ---- a capture


def write_capture_preview(source: Path, folder: Path, job: str | None = None) -> Generator[Event, None, None]:
    """The posed photos at `source`, into `folder`. Raises CaptureError and OSError."""
    capture = registry.capture_reader(source).read(source)
    (folder / THUMBS).mkdir(parents=True, exist_ok=True)
    remove_stale_files(folder)

    def thumb(i: int) -> str:
        name = f"{THUMBS}/{i:04d}.jpg"
        _put(folder / name, encode_jpeg(_thumbnail(capture, i), THUMB_QUALITY))
        return name

    images, made = [], ordered_map(thumb, range(len(capture)))
    cameras = capture.cameras
    try:
        for i, name in enumerate(made):
            width, height = cameras.size(i)
            images.append(
                PosedImage.model_validate(
                    {
                        "name": capture.names[i],
                        "thumb": name,
                        "width": width,
                        "height": height,
                        "focal": cameras.focal[i].tolist(),
                        "centre": cameras.centre[i].tolist(),
                        "world_from_cam": cameras.world_from_cam[i].tolist(),
                        "held_out": bool(capture.held_out[i]),
                    }
                )
            )
            yield Progress(stage="thumbnails", done=i + 1, total=len(capture), unit="photos")
    finally:
        made.close()
    points = capture.points if capture.points is not None and len(capture.points) else None
    if points is not None:
        _write_points(points, folder / POINTS)
    shown = CapturePreview(
        job=job,
        box=_around(cameras) if points is None else _box(points.xyz),
        up=_vector(up_direction(cameras)),
        images=images,
        rejected=_rejected(source),
        points=None if points is None else POINTS,
    )
    _put(folder / CAPTURE, shown.model_dump_json().encode())
    for old in (folder / THUMBS).glob("*.jpg"):
        if f"{THUMBS}/{old.name}" not in {image.thumb for image in images}:
            old.unlink(missing_ok=True)
    if points is None:
        (folder / POINTS).unlink(missing_ok=True)


def is_capture_preview_current(source: Path, folder: Path, job: str | None) -> bool:
    """Whether `folder` shows this capture, and as it is: photos that were put there since change it."""
    try:
        stamp = (folder / CAPTURE).stat().st_mtime_ns
        shown = json.loads((folder / CAPTURE).read_bytes())
    except (OSError, ValueError):
        return False
    if shown.get("job") != job:
        return False
    return job is not None or all(path.stat().st_mtime_ns <= stamp for path in (source, *source.rglob("*")))


def _thumbnail(capture: Capture, i: int) -> Tensor:
    """uint8 (h, w, 3). Of a large JPEG a decoder can give an eighth at little cost; pixels stay as the camera saw them,
    since poses speak of them so."""
    photos = capture.photos
    if isinstance(photos, PhotoFiles):
        with open_photo(photos.paths[i]) as picture:
            if picture.format == "JPEG":
                picture.draft("RGB", (2 * THUMB_SIDE, 2 * THUMB_SIDE))
            pixels = torch.from_numpy(decode_pixels(picture, capture.names[i]))
    else:
        pixels = capture.photo(i)
    white = composite_over(pixels, torch.ones(3)) if pixels.shape[-1] == 4 else pixels
    small = area_downscale(white, _within((white.shape[1], white.shape[0]), THUMB_SIDE))
    return small if small.dtype == torch.uint8 else to_uint8(small)


def _write_points(points: Points, path: Path) -> None:
    if len(points) > MOST_POINTS:
        chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:MOST_POINTS]
        points = points.select(chosen.sort().values)
    ply.write(Points(points.xyz, points.rgb), path)


def _rejected(source: Path) -> list[RejectedImage]:
    try:
        names = json.loads((source / POSES).read_bytes())["not_registered"]
    except (OSError, ValueError, KeyError):
        return []  # poses that came with the photos
    return [RejectedImage(name=str(name), reason=UNREGISTERED_REASON) for name in names]


def _around(cameras: Cameras) -> Box:
    """All that can be said of a place without points: where photos were taken, and what they look at."""
    seen = torch.cat([cameras.positions, focus_point(cameras)[None].to(cameras.positions)])
    return _corners(torch.stack([seen.amin(dim=0), seen.amax(dim=0)]))


# ---- a run


class RunPreviewer:
    """One run, shown again and again while it grows. Photos to compare with are read once."""

    def __init__(self, path: Path, device: str = "auto") -> None:
        self.run, self.device = Run(path), device
        self.folder = path / PREVIEWS_FOLDER
        self.took, self.ended = 0.0, -math.inf  # seconds of the last showing, and when it ended
        self._photos: list[tuple[str, Cameras, Tensor]] | None = None
        self._side: int | None = None

    def is_due(self) -> bool:
        """Whether showing is cheap enough now: it is time that nobody trains in."""
        return self.took <= SHARE * (time.monotonic() - self.ended)

    def update(self) -> None:
        """The field as last saved. Raises RunError, CaptureError, FormatError and OSError."""
        start = time.monotonic()
        try:
            self._write_preview()
        finally:
            self.ended = time.monotonic()
            self.took = self.ended - start

    def _write_preview(self) -> None:
        field, card = load_field(self.run, self.device)
        cameras, held_out = self.run.cameras()
        self.folder.mkdir(exist_ok=True)
        remove_stale_files(self.folder)
        splats: Splats | None = field.splats() if hasattr(field, "splats") else None
        parts = [] if splats is None else self._parts(splats, card.step)
        solid = _solid(splats)
        index = RunPreview(
            method=card.method,
            step=card.step,
            seconds=card.seconds,
            finished=card.finished,
            count=None if splats is None else len(splats),
            parts=parts,
            bytes=sum((self.folder / part).stat().st_size for part in parts) if parts else None,
            box=_box(solid) if len(solid) else _corners(field.box),
            up=_vector(up_direction(cameras)),
            views=self._views(field, card.step, card.over_white, splats is not None),
            start=_start(cameras, held_out, solid),
        )
        _put(self.folder / INDEX, index.model_dump_json().encode())
        _prune(self.folder)

    def _parts(self, splats: Splats, step: int) -> list[str]:
        """The names of the files, in the order in which they are to be shown."""
        chosen = _foremost(splats)

        def write(k: int) -> str:
            name = f"scene-{k}-{step:06d}.spz"
            spz.write(splats if len(chosen) == 1 else splats.select(chosen[k]), self.folder / name)
            return name

        return list(ordered_map(write, range(len(chosen))))

    def _views(self, field: Field, step: int, over_white: bool, fast: bool) -> list[ViewPreview]:
        device, white = field.box.device, torch.ones(3)
        views: list[ViewPreview] = []
        begun = time.monotonic()
        for k, (name, camera, photo) in enumerate(self._compared()):
            started = time.monotonic()
            side = self._side or (SIDE if fast else FIRST_SIDE)
            width, height = _within(camera.size(0), side)
            with torch.no_grad():
                seen = camera.resize(torch.tensor([width, height])).to(device)
                rgb = field.render(seen, white.to(device) if over_white else None).rgb[0].clamp(0, 1).cpu()
            render = f"render-{k}-{step:06d}.jpg"
            _put(self.folder / render, encode_jpeg(to_uint8(rgb), QUALITY))
            value = psnr(rgb, composite_over(area_downscale(photo, (width, height)), white))
            views.append(
                ViewPreview(
                    name=name, photo=f"photo-{k}.jpg", render=render, psnr=value if math.isfinite(value) else None
                )
            )
            now = time.monotonic()
            pixel = (now - started) / (width * height)
            allowed = math.sqrt(SECONDS / len(self._compared()) / pixel / (width * height)) * side
            self._side = int(min(max(allowed, FIRST_SIDE), SIDE))
            if now - begun > SECONDS:
                break
        return views

    def _compared(self) -> list[tuple[str, Cameras, Tensor]]:
        """(name, camera, photo uint8 (H, W, C)) of a few held-out views, reduced; the photos are written as well."""
        if self._photos is None:
            config = self.run.config
            capture = _finished(prepared(self.run, read_capture(Path(config.capture), config.holdout)))
            _, held_out = capture.split()
            self._photos = []
            for k, i in enumerate(range(0, len(held_out), max(1, len(held_out) // MOST_VIEWS))[:MOST_VIEWS]):
                size = _within(held_out.cameras.size(i), SIDE)
                photo = area_downscale(held_out.photo(i), size)
                shown = to_uint8(composite_over(photo, torch.ones(3)))
                _put(self.folder / f"photo-{k}.jpg", encode_jpeg(shown, QUALITY))
                self._photos.append((held_out.names[i], held_out.cameras[i].resize(torch.tensor(size)), photo))
        return self._photos


def write_run_preview(path: Path, device: str = "auto") -> None:
    """Once, as `RunPreviewer` does again and again."""
    RunPreviewer(path, device).update()


def write_evaluation_preview(path: Path, device: str = "auto") -> Generator[Event, None, None]:
    """The worst held-out views of an evaluated run beside their photos. Raises RunError, CaptureError and OSError."""
    run = Run(path)
    said = json.loads((path / EVALUATION).read_bytes())
    folder = path / PREVIEWS_FOLDER
    (folder / VIEWS).mkdir(parents=True, exist_ok=True)
    field, _ = load_field(run, device)
    capture = yield from prepared(run, read_capture(Path(run.config.capture), run.config.holdout))
    _, held_out = capture.split()
    per_view = said["per_view"]
    if [view["name"] for view in per_view] != list(held_out.names):
        raise CaptureError("the photos of this run have changed since it was judged; evaluate it again")
    worst = sorted(range(len(per_view)), key=lambda i: math.inf if per_view[i]["psnr"] is None else per_view[i]["psnr"])
    views = []
    for done, i in enumerate(worst[:JUDGED], start=1):
        photo, render = f"{VIEWS}/{i}-photo.jpg", f"{VIEWS}/{i}-render.jpg"
        _put(folder / photo, encode_jpeg(to_uint8(composite_over(held_out.photo(i), torch.ones(3))), SHARP))
        _put(folder / render, encode_jpeg(_rendered(run, field, held_out, i), SHARP))
        view = per_view[i]
        views.append(EvaluatedView(name=view["name"], psnr=view["psnr"], ssim=view["ssim"], photo=photo, render=render))
        yield Progress(stage="pictures", done=done, total=min(len(worst), JUDGED), unit="views")
    shown = EvaluationPreview(
        step=said["steps"],
        seconds=said["train_seconds"],
        psnr=said["psnr"],
        ssim=said["ssim"],
        total=len(per_view),
        views=views,
    )
    _put(folder / EVALUATION, shown.model_dump_json().encode())


def _rendered(run: Run, field: Field, held_out: Capture, i: int) -> Tensor:
    """uint8 (H, W, 3): as the report kept it, where it did."""
    kept = run.path / RENDERS / f"held-out-{i:04d}.png"
    if kept.exists():
        with Image.open(kept) as picture:
            return torch.from_numpy(np.array(picture.convert("RGB")))
    white, device = torch.ones(3), field.box.device
    with torch.no_grad():
        image = field.render(held_out.cameras[i].to(device), white.to(device) if held_out.has_alpha else None)
    return to_uint8(image.rgb[0]).cpu()


def _solid(splats: Splats | None) -> Tensor:
    """(M, 3) centres of some of the gaussians that can be seen."""
    if splats is None:
        return torch.zeros(0, 3)
    means = splats.means[torch.sigmoid(splats.logit_opacities) > SOLID].cpu()
    return means[:: max(1, len(means) // SAMPLED)]


def _start(cameras: Cameras, held_out: Tensor, solid: Tensor) -> StartCamera:
    """From where most of the scene is seen, of the held-out cameras or, where there are none, of all. A method without
    gaussians begins as the live view does, with the first held out."""
    candidates = held_out.nonzero()[:, 0].tolist() or list(range(len(cameras)))
    best = candidates[0]
    if len(solid):
        pixels, depth = project(cameras[candidates].to(dtype=torch.float32), solid.float())
        sizes = cameras.sizes[candidates][:, None]
        inside = ((pixels >= 0) & (pixels < sizes)).all(dim=-1) & (depth > 0)
        best = candidates[int(inside.sum(dim=1).argmax())]
    return StartCamera(**initial_camera(cameras, best).model_dump())


def _foremost(splats: Splats) -> list[Tensor]:
    """Indices of the gaussians of each part; first those that cover most of the scene: by opacity times the area of
    the larger two axes."""
    if len(splats) <= MAX_UNSPLIT_GAUSSIANS:
        return [torch.arange(len(splats))]
    area = splats.log_scales.sort(dim=1).values[:, 1:].sum(dim=1).exp()
    order = (torch.sigmoid(splats.logit_opacities) * area).argsort(descending=True)
    return [order[:FIRST_PART_GAUSSIANS], *torch.split(order[FIRST_PART_GAUSSIANS:], PART_GAUSSIANS)]


def _prune(folder: Path) -> None:
    """The files of older steps go; by their time, since a run that goes on after a crash repeats steps."""
    for pattern in ("scene-*.spz", "render-*.jpg"):
        newest = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        kept = list(dict.fromkeys(map(_step_of, newest)))[:KEPT]
        for path in newest:
            if _step_of(path) not in kept:
                path.unlink(missing_ok=True)


def _step_of(path: Path) -> str:
    """`scene-0-001234.spz` -> 001234."""
    return path.stem.rpartition("-")[2]


# ---- small parts


def _put(path: Path, data: bytes) -> None:
    with atomic_write(path) as file:
        file.write(data)


def _within(size: tuple[int, int], side: int) -> tuple[int, int]:
    """`size` reduced so that its longer side is at most `side`."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _box(points: Tensor) -> Box:
    """Around all but the outermost twentieths, and half as much again of a tenth on each side: sky and strays are not
    what a person wants to see framed. (M, 3), M > 0."""
    values = np.sort(points.double().numpy(), axis=0)
    cut = len(values) // 20
    low, high = values[cut], values[-1 - cut]
    margin = 0.1 * (high - low) if cut else 0.0
    return _corners(torch.from_numpy(np.stack([low - margin, high + margin])))


def _corners(box: Tensor) -> Box:
    return _vector(box[0]), _vector(box[1])


def _vector(values: Tensor) -> Vector:
    x, y, z = values.double().cpu().tolist()
    return x, y, z


def _finished(work: Generator[Event, None, Capture]) -> Capture:
    """What a generator returns, its events unheard."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: Capture = end.value
            return found


__all__ = [
    "RunPreviewer",
    "is_capture_preview_current",
    "write_capture_preview",
    "write_evaluation_preview",
    "write_run_preview",
]
