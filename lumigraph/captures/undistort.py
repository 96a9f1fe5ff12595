"""Photos as a pinhole camera would have taken them, reduced once, kept on disk.

Crop rule: picture size and principal point stay; the focal length is divided by the largest `zoom` at which every
pixel of the new picture still looks at a pixel of the old one. So nothing is invented at the borders and no mask is
needed: a barrel lens loses its outermost corners, a pincushion lens the middles of its edges. A fisheye would stretch
its rim without end, so its new picture also stops at MAX_FISHEYE_ANGLE from the axis.

Resampling: one cubic look-up (INTER_CUBIC: INTER_LINEAR softens by half a pixel, which a radiance field then
learns; Lanczos rings at edges for four times the cost), then one area average to the final size. Where the new focal
length is much shorter than the old one, the look-up runs on a finer grid, so that no source pixel is jumped over.
Colours with alpha are premultiplied in between.

Decoding: a JPEG that is at least four times as large as its result is decoded at a half, a quarter or an eighth of its
size, and keeps at least DECODED_PER_TARGET pixels along each side of a pixel of the result for the look-up and the
average. On photos of a phone the result differs from that of a whole decoding by 52 dB and has the same sharpness.
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

from lumigraph.captures.image_file import MaskFiles, PhotoFiles
from lumigraph.captures.thread_map import ordered_map, threads
from lumigraph.scene.atomic_files import atomic_write
from lumigraph.scene.cameras import Cameras, Lens, distort_fisheye, distort_opencv, lens_limit
from lumigraph.scene.capture import Capture, LazyPhotos, Photos
from lumigraph.scene.errors import CaptureError
from lumigraph.scene.images import area_downscale
from lumigraph.wire.events import Event, Progress

VERSION = 2  # of the arithmetic below: a change makes old cache entries unfindable
MAX_FISHEYE_ANGLE = math.radians(60)  # from the axis to the corner: beyond, a pinhole spends most pixels on its rim
MIN_ZOOM, MAX_ZOOM = 0.1, 2.0
FINER_FROM = 1.25  # zoom; below, jumping over a pixel now and then harms less than averaging all of them would
BORDER_SAMPLES = 128  # along each side of the picture
CACHE_BYTES = 512 << 20
REDUCTIONS = (8, 4, 2)  # at which a JPEG decodes
DECODED_PER_TARGET = 2
IN_FLIGHT_BYTES = 2 << 30  # pixels of all photos that are being prepared at one time
# Of one photo, by its channels: as Pillow holds it, as bytes, as an array, looked up; with alpha also as floats.
PIXEL_BYTES = {1: 16, 3: 16, 4: 80}

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
        """The size at which the lens is looked up, as fine as the source at the centre of the picture, or nearly."""
        finer = self.zoom if self.zoom > FINER_FROM else 1.0
        return math.ceil(self.size[0] * finer), math.ceil(self.size[1] * finer)

    @property
    def reduction(self) -> int:
        """The largest at which a JPEG may be decoded."""
        (width, height), least = self.size, [side * DECODED_PER_TARGET for side in self.target]
        return next((by for by in REDUCTIONS if width >= by * least[0] and height >= by * least[1]), 1)

    def reduced(self, by: int) -> _Plan:
        """The same for a source at 1/`by` of its size."""
        width, height = self.size
        focal, centre = (tuple(value / by for value in pair) for pair in (self.focal, self.centre))
        return dataclasses.replace(self, size=(width // by, height // by), focal=focal, centre=centre)


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
    cameras = _pinholes(capture.cameras, zooms).downscale(downscale)
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
    """One zoom for each camera; most captures have one lens, so each different lens is looked at once."""
    c = capture.cameras
    assert c.distortion is not None
    rows = torch.cat([c.focal.double(), c.centre.double(), c.sizes.double(), c.distortion.double()], dim=1)
    lenses, lens_of = torch.unique(rows, dim=0, return_inverse=True)
    first = [int((lens_of == i).nonzero()[0, 0]) for i in range(len(lenses))]
    zooms: list[float] = largest_zooms(c[first])[lens_of].tolist()
    for name, zoom in zip(capture.names, zooms, strict=True):
        if zoom < MIN_ZOOM:
            raise CaptureError(f"the lens of {name} leaves no usable picture after undistortion: calibrate it again")
    return zooms


def largest_zooms(cameras: Cameras) -> Tensor:
    """(N,) float64: how far each focal length may shrink until the border of the pinhole picture leaves the photo.

    A border pixel p of the new picture looks along (zoom (p - c) / f, 1). As zoom grows the lens moves that ray
    outwards, so bisection finds the last zoom at which the photo still covers it; the smallest over the border counts.
    Covered means between the centres of the outermost pixels, where interpolation needs no invention.
    """
    assert cameras.distortion is not None
    k, limits = cameras.distortion.double(), lens_limit(cameras.lens, cameras.distortion)[:, None]
    focal, centre, sizes = (t.double()[:, None] for t in (cameras.focal, cameras.centre, cameras.sizes))
    along = torch.linspace(0, 1, BORDER_SAMPLES, dtype=torch.float64)
    zero = torch.zeros_like(along)
    sides = ((along, zero), (along, zero + 1), (zero, along), (zero + 1, along))
    flat = (torch.cat([torch.stack(side, dim=1) for side in sides]) * sizes - centre) / focal  # (N, P, 2)

    def covered(zoom: Tensor) -> Tensor:
        ray = flat * zoom[..., None]
        if cameras.lens == "fisheye":
            r = ray.norm(dim=-1).clamp(min=1e-30)
            angle = r.atan()
            landed = ray * (distort_fisheye(k[:, None], angle) / r)[..., None]
        else:
            angle = ray.norm(dim=-1)  # its tangent, as lens_limit wants it
            landed = distort_opencv(k[:, None], ray)
        pixels = landed * focal + centre
        inside = torch.logical_and(pixels >= 0.5, pixels <= sizes - 0.5).all(dim=-1)
        return torch.logical_and(inside, angle < limits)

    low = torch.zeros(flat.shape[:2], dtype=torch.float64)
    high = torch.full_like(low, MAX_ZOOM)
    if cameras.lens == "fisheye":
        high = torch.minimum(high, math.tan(MAX_FISHEYE_ANGLE) / flat.norm(dim=-1).amax(dim=1, keepdim=True))
    low = torch.where(covered(high), high, low)
    for _ in range(32):
        middle = (low + high) / 2
        fits = covered(middle)
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return low.amin(dim=1)


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
    # Cubic weights overshoot at edges, colour and alpha alike, so the division comes before either is clipped.
    colour = found[..., :3] * (255 / found[..., 3:].clip(min=0.5))
    straight = np.concatenate([colour, found[..., 3:]], axis=-1)
    return torch.from_numpy(straight.clip(0, 255).round().astype(np.uint8))


def _maps(plan: _Plan) -> tuple[Map, Map]:
    """The look-up tables of `plan`. Threads that need one at the same time compute it once."""
    with _MAPS_LOCK:
        return _computed_maps(plan)


_MAPS_LOCK = threading.Lock()


@lru_cache(maxsize=4)  # captures have one lens or two; a table takes 8 bytes a pixel
def _computed_maps(plan: _Plan) -> tuple[Map, Map]:
    """OpenCV's look-up tables, x and y of the source. Its pixel centres stand at whole numbers, ours at + 0.5."""
    finer = (plan.grid[0] / plan.size[0], plan.grid[1] / plan.size[1])
    old = _matrix(plan.focal, plan.centre)
    new = _matrix(
        [f / plan.zoom * k for f, k in zip(plan.focal, finer, strict=True)],
        [c * k for c, k in zip(plan.centre, finer, strict=True)],
    )
    k, same = np.array(plan.distortion), np.eye(3)
    if plan.lens == "fisheye":
        return cv2.fisheye.initUndistortRectifyMap(old, k, same, new, plan.grid, cv2.CV_32FC1)
    return cv2.initUndistortRectifyMap(old, k, same, new, plan.grid, cv2.CV_32FC1)


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
        # The name keeps two equal pictures from being written to one place at one time.
        key = hashlib.blake2b(repr((VERSION, names[i], identity, plan, channels)).encode(), digest_size=16).hexdigest()
        path = cache / f"{key}.npy"
        if not _is_whole(path, shape):
            source, by = load(plan.reduction)
            whole = (source.shape[0] * by, source.shape[1] * by, source.shape[2])
            if whole != (plan.size[1], plan.size[0], channels):
                raise CaptureError(f"{names[i]} decodes to {whole}, not to what its camera says")
            _save(path, resample(source, plan.reduced(by)))
        return path

    cv_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the pictures run in parallel; threads within a picture would only compete with them
    results = ordered_map(make, range(len(plans)), _workers(plans, channels))
    try:
        for done, path in enumerate(results, start=1):
            paths.append(path)
            left = (time.monotonic() - started) / done * (len(plans) - done)
            yield Progress(stage=stage, done=done, total=len(plans), unit="photos", seconds_left=left)
    finally:
        results.close()
        cv2.setNumThreads(cv_threads)
    return LazyPhotos(paths, _load, CACHE_BYTES)


def _workers(plans: Sequence[_Plan], channels: int) -> int:
    """The photos that may be prepared at one time: one a thread, fewer where they are so large that memory is short."""
    pixels = max((math.prod(plan.size) for plan in plans), default=1)
    return max(1, min(threads(), IN_FLIGHT_BYTES // (pixels * PIXEL_BYTES[channels])))


Load = Callable[[int], tuple[Tensor, int]]


def _fetcher(photos: Photos) -> Callable[[int], tuple[str, Load]]:
    """i -> (what identifies picture i, how to get its pixels), safe to call from threads.

    Pixels are asked for at a reduction, and come with the one that they have: that or 1.
    """
    if isinstance(photos, PhotoFiles | MaskFiles):
        files = photos

        def from_file(i: int) -> tuple[str, Load]:
            path = files.paths[i].resolve()
            stat = path.stat()

            def load(reduction: int) -> tuple[Tensor, int]:
                if isinstance(files, PhotoFiles):
                    return files.load_reduced(files.paths[i], reduction)
                return files.load(files.paths[i]), 1

            return f"{path} {stat.st_mtime_ns} {stat.st_size}", load

        return from_file
    lock = threading.Lock()  # other sources may not be safe to share

    def from_pixels(i: int) -> tuple[str, Load]:
        with lock:
            pixels = photos[i].contiguous()
        identity = f"{hashlib.blake2b(pixels.numpy().tobytes()).hexdigest()} {tuple(pixels.shape)}"
        return identity, lambda reduction: (pixels, 1)

    return from_pixels


def _is_whole(path: Path, shape: tuple[int, int, int]) -> bool:
    """True when `path` has the length of an array of that shape; anything else is made again."""
    return path.is_file() and path.stat().st_size == _HEADER + math.prod(shape)


_HEADER = 128  # bytes before the pixels in a .npy file of up to four dimensions (numpy pads to 64)


def _save(path: Path, pixels: Tensor) -> None:
    with atomic_write(path) as file:
        np.save(file, pixels.contiguous().numpy(), allow_pickle=False)


def _load(path: Path) -> Tensor:
    """Read, not mapped: a mapping keeps its file descriptor open, and a capture may have thousands of photos."""
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise CaptureError(f"the prepared photo {path} is gone or damaged: prepare the capture again") from error
