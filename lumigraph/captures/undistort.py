"""Undistortion and downscaling of photos to pinhole images, with a cache on disk.

Crop rule: image size and principal point are kept. The focal length is divided by the largest `zoom` at which every
pixel of the new image is still inside the old one. So no border pixel is invented and no mask is needed. A barrel lens
loses its outermost corners, a pincushion lens the middles of its edges. A fisheye would stretch its rim without bound,
so its new image also ends at MAX_FISHEYE_ANGLE from the axis.

Resampling: one cubic interpolation, then one area average to the final size. INTER_LINEAR blurs by half a pixel, which
a radiance field then learns; Lanczos rings at edges and costs four times as much. A much shorter new focal length would
skip source pixels, so the interpolation then runs on a finer grid. Colours with alpha are premultiplied in between.

Decoding: a JPEG at least four times as large as its result is decoded at 1/2, 1/4 or 1/8 of its size. That keeps at
least MIN_DECODED_PER_TARGET source pixels along each side of a result pixel. On phone photos the result differs from
that of a full decode by 52 dB and is equally sharp.
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
from lumigraph.captures.thread_map import ordered_map, thread_count
from lumigraph.scene.atomic_files import atomic_write
from lumigraph.scene.cameras import Cameras, Lens, distort_fisheye, distort_opencv, lens_limit
from lumigraph.scene.capture import Capture, LazyPhotos, Photos
from lumigraph.scene.errors import CaptureError
from lumigraph.scene.images import area_downscale
from lumigraph.wire.events import Event, Progress

CACHE_VERSION = 2  # of the arithmetic below: a change invalidates the cache
MAX_FISHEYE_ANGLE = math.radians(60)  # from the axis to the corner: beyond, a pinhole spends most pixels on its rim
MIN_ZOOM, MAX_ZOOM = 0.1, 2.0
MIN_SUPERSAMPLING_ZOOM = 1.25  # below, skipping a pixel now and then costs less sharpness than averaging all of them
BORDER_SAMPLES = 128  # along each side of the image
CACHE_BYTES = 512 << 20
JPEG_REDUCTIONS = (8, 4, 2)
MIN_DECODED_PER_TARGET = 2
MAX_IN_FLIGHT_BYTES = 2 << 30  # pixels of all photos in preparation at one time
# Memory per pixel of one photo, by its channels: Pillow's copy, bytes, array and remapped; with alpha also as floats.
PIXEL_BYTES = {1: 16, 3: 16, 4: 80}

RemapTable = cv2.typing.MatLike


@dataclass(frozen=True)
class _Plan:
    """Resampling of one image; hashable, so that images of one lens share their remap tables."""

    lens: Lens
    focal: tuple[float, ...]
    centre: tuple[float, ...]
    distortion: tuple[float, ...]
    size: tuple[int, int]  # (width, height) of the source
    zoom: float  # old focal length over new focal length
    target: tuple[int, int]  # (width, height) of the result

    @property
    def grid(self) -> tuple[int, int]:
        """Size at which the lens is remapped: about as fine as the source at the image centre."""
        scale = self.zoom if self.zoom > MIN_SUPERSAMPLING_ZOOM else 1.0
        return math.ceil(self.size[0] * scale), math.ceil(self.size[1] * scale)

    @property
    def reduction(self) -> int:
        """The largest reduction at which a JPEG may be decoded."""
        (width, height), min_size = self.size, [side * MIN_DECODED_PER_TARGET for side in self.target]
        return next((by for by in JPEG_REDUCTIONS if width >= by * min_size[0] and height >= by * min_size[1]), 1)

    def at_reduction(self, by: int) -> _Plan:
        """The plan for a source at 1/`by` of its size."""
        width, height = self.size
        focal, centre = (tuple(value / by for value in pair) for pair in (self.focal, self.centre))
        return dataclasses.replace(self, size=(width // by, height // by), focal=focal, centre=centre)


def prepare(capture: Capture, cache: Path, downscale: float = 1) -> Generator[Event, None, Capture]:
    """Return the capture with pinhole cameras, its photos and masks undistorted and downscaled by `downscale`.

    Pinhole photos at downscale 1 are used unchanged. The key of a cache file hashes all parameters and its photo:
    path, time and size, or the pixels if there is no file. Cache files are written atomically, so an interrupted run
    leaves only complete ones. Raises CaptureError if a photo cannot be decoded or a lens leaves no usable image,
    ValueError if downscale < 1.
    """
    is_pinhole = capture.cameras.lens == "pinhole"
    if is_pinhole and downscale == 1:
        return capture
    cache.mkdir(parents=True, exist_ok=True)
    zooms = [1.0] * len(capture) if is_pinhole else _zooms(capture)
    cameras = _pinholes(capture.cameras, zooms).downscale(downscale)
    plans = [_plan(capture.cameras, i, zooms[i], cameras.size(i)) for i in range(len(capture))]
    channels = 4 if capture.has_alpha else 3
    photos = yield from _cache_photos(capture.photos, plans, channels, cache, capture.names)
    masks = None
    if capture.masks is not None:
        masks = yield from _cache_photos(capture.masks, plans, 1, cache, capture.names)
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
    """The zoom of each camera. Most captures have one lens, so each distinct lens is evaluated once."""
    c = capture.cameras
    assert c.distortion is not None
    rows = torch.cat([c.focal.double(), c.centre.double(), c.sizes.double(), c.distortion.double()], dim=1)
    lenses, lens_of = torch.unique(rows, dim=0, return_inverse=True)
    first = [int((lens_of == i).nonzero()[0, 0]) for i in range(len(lenses))]
    zooms: list[float] = largest_zooms(c[first])[lens_of].tolist()
    for name, zoom in zip(capture.names, zooms, strict=True):
        if zoom < MIN_ZOOM:
            raise CaptureError(f"the lens of {name} leaves no usable image after undistortion: calibrate it again")
    return zooms


def largest_zooms(cameras: Cameras) -> Tensor:
    """(N,) float64: the largest factor to divide each focal length by, with the pinhole's border still in the photo.

    A border pixel p of the new image has the ray (zoom (p - c) / f, 1). As zoom grows the lens moves that ray
    outwards, so bisection finds the last zoom at which the photo covers it. The minimum over the border is returned.
    Covered means between the centres of the outermost pixels, where no extrapolation is needed.
    """
    assert cameras.distortion is not None
    k, limits = cameras.distortion.double(), lens_limit(cameras.lens, cameras.distortion)[:, None]
    focal, centre, sizes = (t.double()[:, None] for t in (cameras.focal, cameras.centre, cameras.sizes))
    along = torch.linspace(0, 1, BORDER_SAMPLES, dtype=torch.float64)
    zero = torch.zeros_like(along)
    sides = ((along, zero), (along, zero + 1), (zero, along), (zero + 1, along))
    flat = (torch.cat([torch.stack(side, dim=1) for side in sides]) * sizes - centre) / focal  # (N, P, 2)

    def is_covered(zoom: Tensor) -> Tensor:
        ray = flat * zoom[..., None]
        if cameras.lens == "fisheye":
            r = ray.norm(dim=-1).clamp(min=1e-30)
            angle = r.atan()
            distorted_ray = ray * (distort_fisheye(k[:, None], angle) / r)[..., None]
        else:
            angle = ray.norm(dim=-1)  # its tangent, as lens_limit expects
            distorted_ray = distort_opencv(k[:, None], ray)
        pixels = distorted_ray * focal + centre
        is_inside = torch.logical_and(pixels >= 0.5, pixels <= sizes - 0.5).all(dim=-1)
        return torch.logical_and(is_inside, angle < limits)

    low = torch.zeros(flat.shape[:2], dtype=torch.float64)
    high = torch.full_like(low, MAX_ZOOM)
    if cameras.lens == "fisheye":
        high = torch.minimum(high, math.tan(MAX_FISHEYE_ANGLE) / flat.norm(dim=-1).amax(dim=1, keepdim=True))
    low = torch.where(is_covered(high), high, low)
    for _ in range(32):
        middle = (low + high) / 2
        does_fit = is_covered(middle)
        low, high = torch.where(does_fit, middle, low), torch.where(does_fit, high, middle)
    return low.amin(dim=1)


# -------------------------------------------------------------------------------------------------------- resampling


def resample(pixels: Tensor, plan: _Plan) -> Tensor:
    """Resample uint8 (H, W, C) as stored to uint8 (height, width, C) of plan.target. C = 1: mask, 4: straight RGBA.

    A mask pixel is 255 only if every contributing pixel is.
    """
    if plan.lens != "pinhole":
        pixels = _remap(pixels, plan)
    if pixels.shape[-1] != 1:
        return area_downscale(pixels, plan.target)
    return torch.where(area_downscale(pixels.float(), plan.target) > 254.5, 255, 0).to(torch.uint8)


def _remap(pixels: Tensor, plan: _Plan) -> Tensor:
    """Remap the image to the pinhole camera of `plan`, at the size plan.grid."""
    maps = _get_maps(dataclasses.replace(plan, target=plan.size))
    source = pixels.numpy()
    if source.shape[-1] != 4:
        # A mask is interpolated linearly: cubic weights overshoot and would mark a border pixel as used.
        interpolation = cv2.INTER_LINEAR if source.shape[-1] == 1 else cv2.INTER_CUBIC
        pinhole_pixels = cv2.remap(source, *maps, interpolation, borderMode=cv2.BORDER_REPLICATE)
        return torch.from_numpy(pinhole_pixels.reshape(*pinhole_pixels.shape[:2], -1))
    rgba = source.astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    pinhole_pixels = cv2.remap(rgba, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    # Cubic weights overshoot at edges, colour and alpha alike, so the division comes before either is clipped.
    colour = pinhole_pixels[..., :3] * (255 / pinhole_pixels[..., 3:].clip(min=0.5))
    straight = np.concatenate([colour, pinhole_pixels[..., 3:]], axis=-1)
    return torch.from_numpy(straight.clip(0, 255).round().astype(np.uint8))


def _get_maps(plan: _Plan) -> tuple[RemapTable, RemapTable]:
    """The remap tables of `plan`, computed once even if several threads need them at the same time."""
    with _MAPS_LOCK:
        return _compute_maps(plan)


_MAPS_LOCK = threading.Lock()


@lru_cache(maxsize=4)  # captures have one or two lenses; a table takes 8 bytes per pixel
def _compute_maps(plan: _Plan) -> tuple[RemapTable, RemapTable]:
    """OpenCV's remap tables, x and y of the source. Its pixel centres are at whole numbers, ours at + 0.5."""
    scale = (plan.grid[0] / plan.size[0], plan.grid[1] / plan.size[1])
    source_matrix = _matrix(plan.focal, plan.centre)
    target_matrix = _matrix(
        [f / plan.zoom * k for f, k in zip(plan.focal, scale, strict=True)],
        [c * k for c, k in zip(plan.centre, scale, strict=True)],
    )
    k, identity = np.array(plan.distortion), np.eye(3)
    if plan.lens == "fisheye":
        return cv2.fisheye.initUndistortRectifyMap(source_matrix, k, identity, target_matrix, plan.grid, cv2.CV_32FC1)
    return cv2.initUndistortRectifyMap(source_matrix, k, identity, target_matrix, plan.grid, cv2.CV_32FC1)


def _matrix(focal: Sequence[float], centre: Sequence[float]) -> NDArray[np.float64]:
    return np.array([[focal[0], 0, centre[0] - 0.5], [0, focal[1], centre[1] - 0.5], [0, 0, 1]])


# ------------------------------------------------------------------------------------------------------------- cache


def _cache_photos(
    photos: Photos, plans: Sequence[_Plan], channels: int, cache: Path, names: Sequence[str]
) -> Generator[Event, None, LazyPhotos]:
    """Resample the photos that are missing in `cache`, a few at a time, and return the cached photos."""
    load_photo = _photo_loader(photos)
    stage, start_time, paths = "masks" if channels == 1 else "undistort", time.monotonic(), []

    def prepare_photo(i: int) -> Path:
        identity, load = load_photo(i)
        plan = plans[i]
        shape = (plan.target[1], plan.target[0], channels)
        # The name prevents two threads from writing identical images to the same file.
        key = hashlib.blake2b(
            repr((CACHE_VERSION, names[i], identity, plan, channels)).encode(), digest_size=16
        ).hexdigest()
        path = cache / f"{key}.npy"
        if not _is_complete(path, shape):
            source, by = load(plan.reduction)
            shape_at_full_size = (source.shape[0] * by, source.shape[1] * by, source.shape[2])
            if shape_at_full_size != (plan.size[1], plan.size[0], channels):
                raise CaptureError(f"{names[i]} decodes to {shape_at_full_size}, not to the size of its camera")
            _save(path, resample(source, plan.at_reduction(by)))
        return path

    cv_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # images are already processed in parallel
    results = ordered_map(prepare_photo, range(len(plans)), _workers(plans, channels))
    try:
        for count, path in enumerate(results, start=1):
            paths.append(path)
            seconds_left = (time.monotonic() - start_time) / count * (len(plans) - count)
            yield Progress(stage=stage, done=count, total=len(plans), unit="photos", seconds_left=seconds_left)
    finally:
        results.close()
        cv2.setNumThreads(cv_threads)
    return LazyPhotos(paths, _load, CACHE_BYTES)


def _workers(plans: Sequence[_Plan], channels: int) -> int:
    """Number of photos to prepare at one time: one per thread, fewer if they are too large for memory."""
    pixels = max((math.prod(plan.size) for plan in plans), default=1)
    return max(1, min(thread_count(), MAX_IN_FLIGHT_BYTES // (pixels * PIXEL_BYTES[channels])))


Loader = Callable[[int], tuple[Tensor, int]]


def _photo_loader(photos: Photos) -> Callable[[int], tuple[str, Loader]]:
    """Return a thread-safe function: i -> (identity of photo i, loader of its pixels).

    The loader takes a reduction and returns the pixels with their actual reduction: that or 1.
    """
    if isinstance(photos, PhotoFiles | MaskFiles):
        files = photos

        def from_file(i: int) -> tuple[str, Loader]:
            path = files.paths[i].resolve()
            stat = path.stat()

            def load(reduction: int) -> tuple[Tensor, int]:
                if isinstance(files, PhotoFiles):
                    return files.load_reduced(files.paths[i], reduction)
                return files.load(files.paths[i]), 1

            return f"{path} {stat.st_mtime_ns} {stat.st_size}", load

        return from_file
    lock = threading.Lock()  # other sources may not be thread-safe

    def from_pixels(i: int) -> tuple[str, Loader]:
        with lock:
            pixels = photos[i].contiguous()
        identity = f"{hashlib.blake2b(pixels.numpy().tobytes()).hexdigest()} {tuple(pixels.shape)}"
        return identity, lambda reduction: (pixels, 1)

    return from_pixels


def _is_complete(path: Path, shape: tuple[int, int, int]) -> bool:
    """Return True if `path` has the length of an array of that shape; other files are rewritten."""
    return path.is_file() and path.stat().st_size == _NPY_HEADER_BYTES + math.prod(shape)


_NPY_HEADER_BYTES = 128  # bytes before the pixels in a .npy file of up to four dimensions (numpy pads to 64)


def _save(path: Path, pixels: Tensor) -> None:
    with atomic_write(path) as file:
        np.save(file, pixels.contiguous().numpy(), allow_pickle=False)


def _load(path: Path) -> Tensor:
    """Load a cached image. Not memory-mapped: a map keeps its file open, and a capture may have thousands."""
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise CaptureError(f"the prepared photo {path} is gone or damaged: prepare the capture again") from error
