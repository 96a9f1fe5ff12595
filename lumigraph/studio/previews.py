"""Previews for the browser: small files next to a capture and a run, served without changes.

    PROJECT/shown/     capture.json, thumbs/0000.jpg .., points.ply
    RUN/shown/         index.json, scene-0-001234.spz, photo-0.jpg, render-0-001234.jpg ..
                       evaluation.json, views/3-photo.jpg, views/3-render.jpg ..

wire/previews.py defines the JSON files. They are written last, so the files that they name exist. All previews can be
written again from the capture and the run.
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
from lumigraph.studio.training import load_field, prepare_capture, read_capture
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
POSE_REPORT = "pose.json"  # report of the pose estimation, in the capture folder
THUMBNAIL_SIDE_PX, THUMBNAIL_JPEG_QUALITY = 320, 80
MAX_PREVIEW_POINTS = 200_000
MAX_SNAPSHOT_SIDE_PX, SNAPSHOT_JPEG_QUALITY = 640, 85  # renders of a run in training
MIN_SNAPSHOT_SIDE_PX = 160  # also the first side of a method whose speed is not measured yet
MAX_SNAPSHOT_VIEWS = 4
SNAPSHOT_RENDER_S = 0.6  # time budget of all renders of a snapshot; slow methods render smaller images
MAX_UPDATE_SHARE = 0.25  # duration of an update, relative to the time since the previous update
# Larger scenes are split into parts. Loading a part must not block the browser for more than 0.2 s.
MAX_UNSPLIT_GAUSSIANS, FIRST_PART_GAUSSIANS, PART_GAUSSIANS = 400_000, 100_000, 250_000
KEPT_SNAPSHOTS = 2  # a browser may still fetch files of the previous snapshot
MAX_EVALUATED_VIEWS, EVALUATION_JPEG_QUALITY = 100, 90
MIN_VISIBLE_OPACITY = 0.1  # of gaussians that define the scene box and the start camera
MAX_START_CAMERA_POINTS = 5000  # approximate sample of gaussian centres
UNREGISTERED_REASON = "too few of its features match the other photos"


# ---- a capture


def write_capture_preview(source: Path, folder: Path, job: str | None = None) -> Generator[Event, None, None]:
    """Write the preview of the capture at `source` into `folder`. Raises CaptureError and OSError."""
    capture = registry.capture_reader(source).read(source)
    (folder / THUMBS).mkdir(parents=True, exist_ok=True)
    remove_stale_files(folder)

    def thumb(i: int) -> str:
        name = f"{THUMBS}/{i:04d}.jpg"
        _write_file(folder / name, encode_jpeg(_make_thumbnail(capture, i), THUMBNAIL_JPEG_QUALITY))
        return name

    images, thumbnails = [], ordered_map(thumb, range(len(capture)))
    cameras = capture.cameras
    try:
        for i, name in enumerate(thumbnails):
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
        thumbnails.close()
    points = capture.points if capture.points is not None and len(capture.points) else None
    if points is not None:
        _write_points(points, folder / POINTS)
    preview = CapturePreview(
        job=job,
        box=_camera_box(cameras) if points is None else _robust_box(points.xyz),
        up=_vector(up_direction(cameras)),
        images=images,
        rejected=_rejected_images(source),
        points=None if points is None else POINTS,
    )
    _write_file(folder / CAPTURE, preview.model_dump_json().encode())
    for old in (folder / THUMBS).glob("*.jpg"):
        if f"{THUMBS}/{old.name}" not in {image.thumb for image in images}:
            old.unlink(missing_ok=True)
    if points is None:
        (folder / POINTS).unlink(missing_ok=True)


def is_capture_preview_current(source: Path, folder: Path, job: str | None) -> bool:
    """Return whether `folder` has a preview of this capture that is newer than every file of an uploaded capture."""
    try:
        stamp = (folder / CAPTURE).stat().st_mtime_ns
        preview = json.loads((folder / CAPTURE).read_bytes())
    except (OSError, ValueError):
        return False
    if preview.get("job") != job:
        return False
    return job is not None or all(path.stat().st_mtime_ns <= stamp for path in (source, *source.rglob("*")))


def _make_thumbnail(capture: Capture, i: int) -> Tensor:
    """Return a thumbnail, uint8 (h, w, 3). Large JPEG files are decoded at a fraction of their size, which is fast.

    Pixels keep the orientation of the file, since poses refer to it.
    """
    photos = capture.photos
    if isinstance(photos, PhotoFiles):
        with open_photo(photos.paths[i]) as image_file:
            if image_file.format == "JPEG":
                image_file.draft("RGB", (2 * THUMBNAIL_SIDE_PX, 2 * THUMBNAIL_SIDE_PX))
            pixels = torch.from_numpy(decode_pixels(image_file, capture.names[i]))
    else:
        pixels = capture.photo(i)
    opaque = composite_over(pixels, torch.ones(3)) if pixels.shape[-1] == 4 else pixels
    small = area_downscale(opaque, _fit_size((opaque.shape[1], opaque.shape[0]), THUMBNAIL_SIDE_PX))
    return small if small.dtype == torch.uint8 else to_uint8(small)


def _write_points(points: Points, path: Path) -> None:
    if len(points) > MAX_PREVIEW_POINTS:
        indices = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:MAX_PREVIEW_POINTS]
        points = points.select(indices.sort().values)
    ply.write(Points(points.xyz, points.rgb), path)


def _rejected_images(source: Path) -> list[RejectedImage]:
    try:
        names = json.loads((source / POSE_REPORT).read_bytes())["not_registered"]
    except (OSError, ValueError, KeyError):
        return []  # the poses came with the photos
    return [RejectedImage(name=str(name), reason=UNREGISTERED_REASON) for name in names]


def _camera_box(cameras: Cameras) -> Box:
    """Return the box of the camera positions and their focus point, for captures without points."""
    points = torch.cat([cameras.positions, focus_point(cameras)[None].to(cameras.positions)])
    return _box_of(torch.stack([points.amin(dim=0), points.amax(dim=0)]))


# ---- a run


class RunPreviewer:
    """Updates the preview of a run in training. The photos for comparison are read once."""

    def __init__(self, path: Path, device: str = "auto") -> None:
        self.run, self.device = Run(path), device
        self.folder = path / PREVIEWS_FOLDER
        self.update_s, self.last_update = 0.0, -math.inf  # duration and end time of the previous update
        self._photos: list[tuple[str, Cameras, Tensor]] | None = None
        self._side: int | None = None

    def is_due(self) -> bool:
        """Return whether an update is cheap enough now. Training pauses during an update."""
        return self.update_s <= MAX_UPDATE_SHARE * (time.monotonic() - self.last_update)

    def update(self) -> None:
        """Write the preview of the last saved field. Raises RunError, CaptureError, FormatError and OSError."""
        start = time.monotonic()
        try:
            self._write_preview()
        finally:
            self.last_update = time.monotonic()
            self.update_s = self.last_update - start

    def _write_preview(self) -> None:
        field, card = load_field(self.run, self.device)
        cameras, held_out = self.run.cameras()
        self.folder.mkdir(exist_ok=True)
        remove_stale_files(self.folder)
        splats: Splats | None = field.splats() if hasattr(field, "splats") else None
        parts = [] if splats is None else self._write_parts(splats, card.step)
        centres = _visible_centres(splats)
        index = RunPreview(
            method=card.method,
            step=card.step,
            seconds=card.seconds,
            finished=card.finished,
            count=None if splats is None else len(splats),
            parts=parts,
            bytes=sum((self.folder / part).stat().st_size for part in parts) if parts else None,
            box=_robust_box(centres) if len(centres) else _box_of(field.box),
            up=_vector(up_direction(cameras)),
            views=self._write_views(field, card.step, card.over_white, splats is not None),
            start=_start_camera(cameras, held_out, centres),
        )
        _write_file(self.folder / INDEX, index.model_dump_json().encode())
        _remove_old_snapshots(self.folder)

    def _write_parts(self, splats: Splats, step: int) -> list[str]:
        """Write the scene files; return their names in loading order."""
        parts = _split_by_coverage(splats)

        def write(k: int) -> str:
            name = f"scene-{k}-{step:06d}.spz"
            spz.write(splats if len(parts) == 1 else splats.select(parts[k]), self.folder / name)
            return name

        return list(ordered_map(write, range(len(parts))))

    def _write_views(self, field: Field, step: int, over_white: bool, fast: bool) -> list[ViewPreview]:
        device, white = field.box.device, torch.ones(3)
        views: list[ViewPreview] = []
        first_start = time.monotonic()
        for k, (name, camera, photo) in enumerate(self._comparison_views()):
            start = time.monotonic()
            side = self._side or (MAX_SNAPSHOT_SIDE_PX if fast else MIN_SNAPSHOT_SIDE_PX)
            width, height = _fit_size(camera.size(0), side)
            with torch.no_grad():
                scaled_camera = camera.resize(torch.tensor([width, height])).to(device)
                rgb = field.render(scaled_camera, white.to(device) if over_white else None).rgb[0].clamp(0, 1).cpu()
            render = f"render-{k}-{step:06d}.jpg"
            _write_file(self.folder / render, encode_jpeg(to_uint8(rgb), SNAPSHOT_JPEG_QUALITY))
            value = psnr(rgb, composite_over(area_downscale(photo, (width, height)), white))
            views.append(
                ViewPreview(
                    name=name, photo=f"photo-{k}.jpg", render=render, psnr=value if math.isfinite(value) else None
                )
            )
            now = time.monotonic()
            pixel_s = (now - start) / (width * height)
            affordable_side = (
                math.sqrt(SNAPSHOT_RENDER_S / len(self._comparison_views()) / pixel_s / (width * height)) * side
            )
            self._side = int(min(max(affordable_side, MIN_SNAPSHOT_SIDE_PX), MAX_SNAPSHOT_SIDE_PX))
            if now - first_start > SNAPSHOT_RENDER_S:
                break
        return views

    def _comparison_views(self) -> list[tuple[str, Cameras, Tensor]]:
        """Return (name, camera, photo uint8 (H, W, C)) of a few downscaled held-out views; write the photos too."""
        if self._photos is None:
            config = self.run.config
            capture = _run_to_end(prepare_capture(self.run, read_capture(Path(config.capture), config.holdout)))
            _, held_out = capture.split()
            self._photos = []
            for k, i in enumerate(
                range(0, len(held_out), max(1, len(held_out) // MAX_SNAPSHOT_VIEWS))[:MAX_SNAPSHOT_VIEWS]
            ):
                size = _fit_size(held_out.cameras.size(i), MAX_SNAPSHOT_SIDE_PX)
                photo = area_downscale(held_out.photo(i), size)
                opaque = to_uint8(composite_over(photo, torch.ones(3)))
                _write_file(self.folder / f"photo-{k}.jpg", encode_jpeg(opaque, SNAPSHOT_JPEG_QUALITY))
                self._photos.append((held_out.names[i], held_out.cameras[i].resize(torch.tensor(size)), photo))
        return self._photos


def write_run_preview(path: Path, device: str = "auto") -> None:
    """Write the preview of a run once."""
    RunPreviewer(path, device).update()


def write_evaluation_preview(path: Path, device: str = "auto") -> Generator[Event, None, None]:
    """Write photos and renders of the worst held-out views of a run. Raises RunError, CaptureError and OSError."""
    run = Run(path)
    evaluation = json.loads((path / EVALUATION).read_bytes())
    folder = path / PREVIEWS_FOLDER
    (folder / VIEWS).mkdir(parents=True, exist_ok=True)
    field, _ = load_field(run, device)
    capture = yield from prepare_capture(run, read_capture(Path(run.config.capture), run.config.holdout))
    _, held_out = capture.split()
    per_view = evaluation["per_view"]
    if [view["name"] for view in per_view] != list(held_out.names):
        raise CaptureError("the photos of this run have changed since its evaluation; evaluate it again")
    worst = sorted(range(len(per_view)), key=lambda i: math.inf if per_view[i]["psnr"] is None else per_view[i]["psnr"])
    views = []
    for count, i in enumerate(worst[:MAX_EVALUATED_VIEWS], start=1):
        photo, render = f"{VIEWS}/{i}-photo.jpg", f"{VIEWS}/{i}-render.jpg"
        _write_file(
            folder / photo,
            encode_jpeg(to_uint8(composite_over(held_out.photo(i), torch.ones(3))), EVALUATION_JPEG_QUALITY),
        )
        _write_file(folder / render, encode_jpeg(_held_out_render(run, field, held_out, i), EVALUATION_JPEG_QUALITY))
        view = per_view[i]
        views.append(EvaluatedView(name=view["name"], psnr=view["psnr"], ssim=view["ssim"], photo=photo, render=render))
        yield Progress(stage="pictures", done=count, total=min(len(worst), MAX_EVALUATED_VIEWS), unit="views")
    preview = EvaluationPreview(
        step=evaluation["steps"],
        seconds=evaluation["train_seconds"],
        psnr=evaluation["psnr"],
        ssim=evaluation["ssim"],
        total=len(per_view),
        views=views,
    )
    _write_file(folder / EVALUATION, preview.model_dump_json().encode())


def _held_out_render(run: Run, field: Field, held_out: Capture, i: int) -> Tensor:
    """Return a held-out render, uint8 (H, W, 3); read it from disk if the evaluation saved it."""
    file = run.path / RENDERS / f"held-out-{i:04d}.png"
    if file.exists():
        with Image.open(file) as image_file:
            return torch.from_numpy(np.array(image_file.convert("RGB")))
    white, device = torch.ones(3), field.box.device
    with torch.no_grad():
        image = field.render(held_out.cameras[i].to(device), white.to(device) if held_out.has_alpha else None)
    return to_uint8(image.rgb[0]).cpu()


def _visible_centres(splats: Splats | None) -> Tensor:
    """Return the centres (M, 3) of a sample of the visible gaussians."""
    if splats is None:
        return torch.zeros(0, 3)
    means = splats.means[torch.sigmoid(splats.logit_opacities) > MIN_VISIBLE_OPACITY].cpu()
    return means[:: max(1, len(means) // MAX_START_CAMERA_POINTS)]


def _start_camera(cameras: Cameras, held_out: Tensor, centres: Tensor) -> StartCamera:
    """Return the held-out camera, or any if none is held out, that sees most of `centres` (M, 3).

    If M = 0, return the first held-out camera, as the live view does.
    """
    candidates = held_out.nonzero()[:, 0].tolist() or list(range(len(cameras)))
    best = candidates[0]
    if len(centres):
        pixels, depth = project(cameras[candidates].to(dtype=torch.float32), centres.float())
        sizes = cameras.sizes[candidates][:, None]
        inside = ((pixels >= 0) & (pixels < sizes)).all(dim=-1) & (depth > 0)
        best = candidates[int(inside.sum(dim=1).argmax())]
    return StartCamera(**initial_camera(cameras, best).model_dump())


def _split_by_coverage(splats: Splats) -> list[Tensor]:
    """Return the gaussian indices of each part, by falling opacity times area of the larger two axes."""
    if len(splats) <= MAX_UNSPLIT_GAUSSIANS:
        return [torch.arange(len(splats))]
    area = splats.log_scales.sort(dim=1).values[:, 1:].sum(dim=1).exp()
    order = (torch.sigmoid(splats.logit_opacities) * area).argsort(descending=True)
    return [order[:FIRST_PART_GAUSSIANS], *torch.split(order[FIRST_PART_GAUSSIANS:], PART_GAUSSIANS)]


def _remove_old_snapshots(folder: Path) -> None:
    """Remove files of old snapshots, ordered by file time: a run resumed after a crash repeats steps."""
    for pattern in ("scene-*.spz", "render-*.jpg"):
        newest = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        newest_steps = list(dict.fromkeys(map(_step_of, newest)))[:KEPT_SNAPSHOTS]
        for path in newest:
            if _step_of(path) not in newest_steps:
                path.unlink(missing_ok=True)


def _step_of(path: Path) -> str:
    """Return the step in a file name: `scene-0-001234.spz` -> 001234."""
    return path.stem.rpartition("-")[2]


# ---- helpers


def _write_file(path: Path, data: bytes) -> None:
    with atomic_write(path) as file:
        file.write(data)


def _fit_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Scale `size` down so that its longer side is at most `side`."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _robust_box(points: Tensor) -> Box:
    """Return a box around `points` (M, 3), M > 0, that ignores sky and outliers.

    It drops 5 % of the coordinates at each end of an axis, then adds a margin of 10 % on each side.
    """
    values = np.sort(points.double().numpy(), axis=0)
    cut = len(values) // 20
    low, high = values[cut], values[-1 - cut]
    margin = 0.1 * (high - low) if cut else 0.0
    return _box_of(torch.from_numpy(np.stack([low - margin, high + margin])))


def _box_of(box: Tensor) -> Box:
    return _vector(box[0]), _vector(box[1])


def _vector(values: Tensor) -> Vector:
    x, y, z = values.double().cpu().tolist()
    return x, y, z


def _run_to_end(work: Generator[Event, None, Capture]) -> Capture:
    """Run a generator, ignore its events and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            capture: Capture = end.value
            return capture


__all__ = [
    "RunPreviewer",
    "is_capture_preview_current",
    "write_capture_preview",
    "write_evaluation_preview",
    "write_run_preview",
]
