"""Photos as a pinhole camera would have taken them, reduced once, kept on disk.

Crop rule: picture size and principal point stay; the focal length is divided by the largest `zoom` at which every
pixel of the new picture still looks at a pixel of the old one. So nothing is invented at the borders and no mask is
needed: a barrel lens loses its outermost corners, a pincushion lens gains none. A fisheye would stretch its rim without
end, so its new picture also stops at MAX_FISHEYE_ANGLE from the axis.

Resampling: one cubic look-up (INTER_CUBIC: INTER_LINEAR softens by half a pixel, which a radiance field then
learns; Lanczos rings at edges for four times the cost), then one area average to the final size. Where the new focal
length is shorter than the old one, the look-up runs on a finer grid first, so that no source pixel is jumped over.
Colours with alpha are premultiplied in between.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lumigraph.captures.parallel import in_order
from lumigraph.captures.pixels import MaskFiles, PhotoFiles
from lumigraph.scene.cameras import Cameras, Lens, project
from lumigraph.scene.capture import Capture, LazyPhotos, Photos
from lumigraph.scene.errors import CaptureError
from lumigraph.scene.files import written_beside
from lumigraph.scene.images import area_downscale
from lumigraph.wire.events import Event, Progress

VERSION = 1  # of the arithmetic below: a change makes old cache entries unfindable
MAX_FISHEYE_ANGLE = math.radians(60)  # from the axis to the corner: beyond, a pinhole spends most pixels on its rim
MIN_ZOOM, MAX_ZOOM = 0.1, 2.0
BORDER_SAMPLES = 256  # along each side of the picture
CACHE_BYTES = 512 << 20

Map = cv2.typing.MatLike


@dataclass(frozen=True)
class _Plan:
    """How one picture is resampled; hashable, so that pictures of one lens share their look-up tables."""

    lens: Lens
    focal: tuple[float, ...]
    centre: tuple[float, ...]
    distortion: tuple[float, ...]
    size: tuple[int, int]  # (width, height) of the source
    zoom: float  # old focal length over new
    target: tuple[int, int]  # (width, height) of the result

    @property
    def grid(self) -> tuple[int, int]:
        """The size at which the lens is looked up: never coarser than the source at the centre of the picture."""
        finer = max(1.0, self.zoom)
        return math.ceil(self.size[0] * finer), math.ceil(self.size[1] * finer)


def prepare(capture: Capture, cache: Path, downscale: float = 1) -> Generator[Event, None, Capture]:
    """The same capture with pinhole cameras and photos (and masks) undistorted and reduced by `downscale`, in `cache`.

    Photos of a pinhole camera at downscale 1 stay where they are. Cached pictures are found again by the path, time and
    size of their photo (its pixels where there is no file) and all parameters; each is written beside and renamed, so
    an interrupted run leaves only whole ones. Raises CaptureError when a photo cannot be decoded, or when a lens leaves
    no picture, ValueError when downscale < 1.
    """
    plain = capture.cameras.lens == "pinhole"
    if plain and downscale == 1:
        return capture
    cache.mkdir(parents=True, exist_ok=True)
    zooms = [1.0] * len(capture) if plain else _zooms(capture)
    cameras = _pinholes(capture.cameras, zooms).downscaled(downscale)
    plans = [_plan(capture.cameras, i, zooms[i], cameras.size(i)) for i in range(len(capture))]
    channels = 4 if capture.has_alpha else 3
    photos = yield from _cached(capture.photos, plans, channels, cache, capture.names)
    masks = None
    if capture.masks is not None:
        masks = yield from _cached(capture.masks, plans, 1, cache, capture.names)
    return dataclasses.replace(capture, cameras=cameras, photos=photos, masks=masks)


# ---------------------------------------------------------------------------------------------------------- cameras


def _pinholes(cameras: Cameras, zooms: Sequence[float]) -> Cameras:
    zoom = torch.tensor(zooms, dtype=cameras.focal.dtype)[:, None]
    return dataclasses.replace(cameras, focal=cameras.focal / zoom, lens="pinhole", distortion=None)


def _plan(cameras: Cameras, i: int, zoom: float, target: tuple[int, int]) -> _Plan:
    distortion = () if cameras.distortion is None else tuple(cameras.distortion[i].tolist())
    focal, centre = tuple(cameras.focal[i].tolist()), tuple(cameras.centre[i].tolist())
    return _Plan(cameras.lens, focal, centre, distortion, cameras.size(i), zoom, target)


def _zooms(capture: Capture) -> list[float]:
    """One zoom for each camera; equal lenses are computed once."""
    cameras = capture.cameras
    known: dict[_Plan, float] = {}
    zooms = []
    for i in range(len(cameras)):
        key = _plan(cameras, i, 1.0, cameras.size(i))
        if key not in known:
            known[key] = largest_zoom(cameras[i])
            if known[key] < MIN_ZOOM:
                raise CaptureError(
                    f"the lens of {capture.names[i]} leaves no usable picture after undistortion: calibrate it again"
                )
        zooms.append(known[key])
    return zooms


def largest_zoom(camera: Cameras) -> float:
    """How far the focal length of one camera may shrink until the border of its pinhole picture leaves the photo.

    A border pixel p of the new picture looks along (zoom (p - c) / f, 1). Along that line the lens moves outwards, so
    bisection finds the last zoom at which the photo still covers it; the smallest over the border counts. Covered means
    between the centres of the outermost pixels, where interpolation needs no invention.
    """
    eye = torch.eye(3, 4, dtype=torch.float64)[None]
    camera = dataclasses.replace(camera.to(dtype=torch.float64), world_from_cam=eye)
    width, height = camera.size(0)
    along = torch.linspace(0, 1, BORDER_SAMPLES, dtype=torch.float64)
    x, y = along * width, along * height
    zero = torch.zeros_like(along)
    border = torch.cat([torch.stack(s, dim=1) for s in ((x, zero), (x, zero + height), (zero, y), (zero + width, y))])
    flat = (border - camera.centre[0]) / camera.focal[0]
    low = torch.zeros(len(flat), dtype=torch.float64)
    high = torch.full_like(low, MAX_ZOOM)
    if camera.lens == "fisheye":
        high = high.clamp(max=math.tan(MAX_FISHEYE_ANGLE) / flat.norm(dim=1).max())
    limit = camera.sizes[0].double() - 0.5
    for step in range(32):
        middle = high.clone() if step == 0 else (low + high) / 2  # first: is the most that is allowed possible?
        points = torch.cat([flat * middle[:, None], torch.ones_like(flat[:, :1])], dim=1)
        pixels, _ = project(camera, points)
        covered = ((pixels[0] >= 0.5) & (pixels[0] <= limit)).all(dim=1)  # NaN, no answer from the lens, is not covered
        low, high = torch.where(covered, middle, low), torch.where(covered, high, middle)
    return float(low.min())


# -------------------------------------------------------------------------------------------------------- resampling


def resample(pixels: Tensor, plan: _Plan) -> Tensor:
    """uint8 (H, W, C) as stored -> uint8 (height, width, C) of plan.target. C = 1 is a mask, 4 is straight RGBA.

    A mask stays 255 only where every pixel that contributes counts.
    """
    if plan.lens != "pinhole":
        pixels = _looked_up(pixels, plan)
    if pixels.shape[-1] != 1:
        return area_downscale(pixels, plan.target)
    return torch.where(area_downscale(pixels.float(), plan.target) > 254.5, 255, 0).to(torch.uint8)


def _looked_up(pixels: Tensor, plan: _Plan) -> Tensor:
    """The picture through the pinhole camera of `plan`, at the size plan.grid."""
    maps = _maps(dataclasses.replace(plan, target=plan.size))
    source = pixels.numpy()
    if source.shape[-1] != 4:
        # A mask is looked up linearly: cubic weights overshoot, and would call a border pixel fully used.
        kind = cv2.INTER_LINEAR if source.shape[-1] == 1 else cv2.INTER_CUBIC
        found = cv2.remap(source, *maps, kind, borderMode=cv2.BORDER_REPLICATE)
        return torch.from_numpy(found.reshape(*found.shape[:2], -1))
    premultiplied = source.astype(np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255
    found = cv2.remap(premultiplied, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    alpha = found[..., 3:].clip(0, 255)
    colour = (found[..., :3] * (255 / alpha.clip(min=0.5))).clip(0, 255)
    return torch.from_numpy(np.concatenate([colour, alpha], axis=-1).round().astype(np.uint8))


@lru_cache(maxsize=4)  # captures have one lens or two; a table takes 6 bytes a pixel
def _maps(plan: _Plan) -> tuple[Map, Map]:
    """OpenCV's fixed-point look-up tables. Its pixel centres stand at whole numbers, ours at + 0.5."""
    finer = (plan.grid[0] / plan.size[0], plan.grid[1] / plan.size[1])
    old = _matrix(plan.focal, plan.centre)
    new = _matrix(
        [f / plan.zoom * k for f, k in zip(plan.focal, finer, strict=True)],
        [c * k for c, k in zip(plan.centre, finer, strict=True)],
    )
    k, same = np.array(plan.distortion), np.eye(3)
    if plan.lens == "fisheye":
        return cv2.fisheye.initUndistortRectifyMap(old, k, same, new, plan.grid, cv2.CV_16SC2)
    return cv2.initUndistortRectifyMap(old, k, same, new, plan.grid, cv2.CV_16SC2)


def _matrix(focal: Sequence[float], centre: Sequence[float]) -> NDArray[np.float64]:
    return np.array([[focal[0], 0, centre[0] - 0.5], [0, focal[1], centre[1] - 0.5], [0, 0, 1]])


# ------------------------------------------------------------------------------------------------------------- cache


def _cached(
    photos: Photos, plans: Sequence[_Plan], channels: int, cache: Path, names: Sequence[str]
) -> Generator[Event, None, LazyPhotos]:
    """Resamples what `cache` does not hold yet, a few pictures at a time, and returns the cached pictures."""
    fetch = _fetcher(photos)
    stage, started, paths = "masks" if channels == 1 else "undistort", time.monotonic(), []

    def make(i: int) -> Path:
        identity, load = fetch(i)
        plan = plans[i]
        shape = (plan.target[1], plan.target[0], channels)
        key = hashlib.blake2b(repr((VERSION, identity, plan, channels)).encode(), digest_size=16).hexdigest()
        path = cache / f"{key}.npy"
        if not _is_whole(path, shape):
            source = load()
            if tuple(source.shape) != (plan.size[1], plan.size[0], channels):
                raise CaptureError(f"{names[i]} decodes to {tuple(source.shape)}, not to what its camera says")
            _save(path, resample(source, plan))
        return path

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the pictures run in parallel; threads within a picture would only compete with them
    results = in_order(make, range(len(plans)))
    try:
        for done, path in enumerate(results, start=1):
            paths.append(path)
            left = (time.monotonic() - started) / done * (len(plans) - done)
            yield Progress(stage=stage, done=done, total=len(plans), unit="photos", seconds_left=left)
    finally:
        results.close()
        cv2.setNumThreads(threads)
    return LazyPhotos(paths, _load, CACHE_BYTES)


def _fetcher(photos: Photos) -> Callable[[int], tuple[str, Callable[[], Tensor]]]:
    """i -> (what identifies picture i, how to get its pixels), safe to call from threads."""
    if isinstance(photos, PhotoFiles | MaskFiles):
        files = photos

        def from_file(i: int) -> tuple[str, Callable[[], Tensor]]:
            path = files.paths[i].resolve()
            stat = path.stat()
            return f"{path} {stat.st_mtime_ns} {stat.st_size}", lambda: files.load(files.paths[i])

        return from_file
    lock = threading.Lock()  # other sources may not be safe to share

    def from_pixels(i: int) -> tuple[str, Callable[[], Tensor]]:
        with lock:
            pixels = photos[i].contiguous()
        return f"{hashlib.blake2b(pixels.numpy().tobytes()).hexdigest()} {tuple(pixels.shape)}", lambda: pixels

    return from_pixels


def _is_whole(path: Path, shape: tuple[int, int, int]) -> bool:
    """True when `path` has the length of an array of that shape; anything else is made again."""
    return path.is_file() and path.stat().st_size == _HEADER + math.prod(shape)


_HEADER = 128  # bytes before the pixels in a .npy file of up to four dimensions (numpy pads to 64)


def _save(path: Path, pixels: Tensor) -> None:
    with written_beside(path) as file:
        np.save(file, pixels.contiguous().numpy(), allow_pickle=False)


def _load(path: Path) -> Tensor:
    """Read, not mapped: a mapping keeps its file descriptor open, and a capture may have thousands of photos."""
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise CaptureError(f"the prepared photo {path} is gone or damaged: prepare the capture again") from error
