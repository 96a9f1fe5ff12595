"""Undistortion: known colours seen through a lens must come out as a pinhole camera sees them."""

from __future__ import annotations

import dataclasses
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from lumigraph.captures import undistort
from lumigraph.captures.image_file import MaskFiles, PhotoFiles
from lumigraph.captures.readers import transforms
from lumigraph.captures.thread_map import ordered_map
from lumigraph.captures.undistort import largest_zooms, prepare
from lumigraph.scene.cameras import Cameras, Lens, generate_rays, pixel_grid, project
from lumigraph.scene.capture import ArrayPhotos, Capture, Photos
from lumigraph.scene.errors import CaptureError
from lumigraph.wire.events import Progress

from .common import DATA, distinct_values, finish

BARREL = (-0.2, 0.05, 1e-3, -2e-3, 0.0, 0.0, 0.0, 0.0)
PINCUSHION = (0.15, 0.02, -1e-3, 2e-3, 0.0, 0.0, 0.0, 0.0)
RATIONAL = (0.3, 0.1, 0.0, 0.0, 0.01, 0.5, 0.1, 0.01)
FISHEYE = (0.05, -0.01, 0.003, -0.001)


def camera(distortion: tuple[float, ...], size: tuple[int, int] = (120, 90), focal: float = 90.0) -> Cameras:
    lens: Lens = {0: "pinhole", 8: "opencv", 4: "fisheye"}[len(distortion)]  # type: ignore[assignment]
    return Cameras(
        torch.eye(3, 4)[None],
        torch.tensor([[focal, focal * 1.02]]),
        torch.tensor([[size[0] * 0.52, size[1] * 0.47]]),
        torch.tensor([size]),
        lens,
        torch.tensor([distortion]) if distortion else None,
    )


def concatenate(*cameras: Cameras) -> Cameras:
    def cat(name: str) -> Tensor:
        return torch.cat([getattr(c, name) for c in cameras])

    distortion = None if cameras[0].distortion is None else cat("distortion")
    return Cameras(cat("world_from_cam"), cat("focal"), cat("centre"), cat("sizes"), cameras[0].lens, distortion)


def colours_seen_by(camera: Cameras) -> Tensor:
    """(H, W, 3) float 0..255: smooth colours that depend on the viewing direction alone."""
    width, height = camera.size(0)
    pixels = pixel_grid((width, height)).reshape(-1, 2)
    d = generate_rays(camera, torch.zeros(len(pixels), dtype=torch.int64), pixels).directions
    waves = torch.stack(
        [torch.sin(9 * d[:, 0] + 2 * d[:, 1]), torch.cos(8 * d[:, 1]), torch.sin(7 * d[:, 0] - d[:, 1])]
    )
    return (127.5 + 110 * waves.T).reshape(height, width, 3)


def photo(camera: Cameras) -> Tensor:
    return colours_seen_by(camera).nan_to_num(0).round().to(torch.uint8)


def capture(cameras: Cameras, photos: Photos, **options: Any) -> Capture:
    names = tuple(f"{i}.png" for i in range(len(cameras)))
    return Capture(cameras, photos, names, torch.zeros(len(cameras), dtype=torch.bool), **options)


@pytest.mark.parametrize("downscale", [1, 2, 2.5])
@pytest.mark.parametrize("distortion", [BARREL, PINCUSHION, RATIONAL, FISHEYE])
def test_prepare_equals_pinhole_view(tmp_path: Path, distortion: tuple[float, ...], downscale: float) -> None:
    lens = camera(distortion)
    result, events = finish(prepare(capture(lens, ArrayPhotos([photo(lens)])), tmp_path, downscale))
    assert result.cameras.lens == "pinhole" and result.cameras.distortion is None
    assert result.cameras.size(0) == (math.floor(120 / downscale), math.floor(90 / downscale))
    error = (result.photo(0).float() - colours_seen_by(result.cameras)).abs()
    # Rounding to 8 bits twice, cubic interpolation, and the curvature that an area average flattens.
    assert error.max() < 3.5 and error.mean() < 0.6
    assert isinstance(events[-1], Progress) and events[-1].done == events[-1].total == 1


def test_prepare_check_is_sensitive_to_half_a_pixel(tmp_path: Path) -> None:
    """The test above is sensitive enough: the same image shifted by half a pixel fails it by far."""
    lens = camera(BARREL)
    result, _ = finish(prepare(capture(lens, ArrayPhotos([photo(lens)])), tmp_path))
    shifted_camera = Cameras(**{**vars(result.cameras), "centre": result.cameras.centre + 0.5})
    assert (result.photo(0).float() - colours_seen_by(shifted_camera)).abs().max() > 6


@pytest.mark.parametrize("distortion", [BARREL, RATIONAL])
def test_prepare_agrees_with_opencv(tmp_path: Path, distortion: tuple[float, ...]) -> None:
    lens = camera(distortion)
    noise = torch.randint(0, 256, (90, 120, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    result, _ = finish(prepare(capture(lens, ArrayPhotos([noise])), tmp_path))

    def matrix(c: Cameras) -> Any:
        (fx, fy), (cx, cy) = c.focal[0].double().tolist(), c.centre[0].double().tolist()
        return np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])

    maps = cv2.initUndistortRectifyMap(
        matrix(lens), np.array(distortion), np.eye(3), matrix(result.cameras), (120, 90), cv2.CV_32FC1
    )
    expected = cv2.remap(noise.numpy(), *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    difference = np.abs(result.photo(0).numpy().astype(int) - expected)
    assert difference.max() <= 1


coefficient = st.floats(-0.15, 0.15)


@settings(max_examples=20, deadline=None)
@given(k=st.tuples(coefficient, coefficient, st.floats(-0.01, 0.01), st.floats(-0.01, 0.01)), fisheye=st.booleans())
def test_largest_zooms_leave_no_gap(k: tuple[float, ...], fisheye: bool) -> None:
    """Every pixel of the new image maps into the old one, and with 1 % more zoom one would not."""
    lens = camera(k if fisheye else k + (0.0,) * 4)
    zoom = float(largest_zooms(lens))
    assert 0.1 < zoom <= undistort.MAX_ZOOM
    limit = torch.tensor([120.0, 90.0]) - 0.5

    def is_covered(zoom: float, border: bool) -> bool:
        edges = [pixel_grid((120, 90)).reshape(-1, 2)]
        if border:
            x = torch.linspace(0, 120, 2000)
            edges = [torch.stack([x, y], dim=1) for y in (0 * x, 0 * x + 90)]
            edges += [torch.stack([x, y], dim=1) for y in (x * 0.75,) for x in (0 * y, 0 * y + 120)]
        flat = (torch.cat(edges) - lens.centre[0]) / lens.focal[0] * zoom
        pixels, _ = project(lens, torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1))
        return bool(((pixels >= 0.5 - 1e-3) & (pixels <= limit + 1e-3)).all())

    assert is_covered(zoom, border=False)
    is_at_bound = zoom >= undistort.MAX_ZOOM * 0.999
    corner = torch.tensor([[0.0, 0.0], [120.0, 90.0], [0.0, 90.0], [120.0, 0.0]])
    angle = ((corner - lens.centre[0]) / lens.focal[0] * zoom).norm(dim=1).max().atan()
    is_at_bound |= fisheye and float(angle) > undistort.MAX_FISHEYE_ANGLE * 0.999
    assert is_at_bound or not is_covered(zoom * 1.01, border=True)


def test_prepare_limits_fisheye_angle(tmp_path: Path) -> None:
    """180 degrees across, which no pinhole can show: the corner of the new image is 60 degrees off the axis."""
    lens = camera((0.0, 0.0, 0.0, 0.0), (120, 120), focal=120 / math.pi)
    result, _ = finish(prepare(capture(lens, ArrayPhotos([photo(lens)])), tmp_path))
    corners = torch.tensor([[0.0, 0.0], [120.0, 0.0], [0.0, 120.0], [120.0, 120.0]])
    directions = generate_rays(result.cameras, torch.zeros(4, dtype=torch.int64), corners).directions
    assert float(directions[:, 2].acos().max()) == pytest.approx(math.radians(60), abs=1e-4)
    assert (result.photo(0).float() - colours_seen_by(result.cameras)).abs().mean() < 1.5


def test_prepare_rejects_folding_lens(tmp_path: Path) -> None:
    lens = camera((-300.0, *(0.0,) * 7))
    with pytest.raises(CaptureError, match=r"0\.png leaves no usable image"):
        finish(prepare(capture(lens, ArrayPhotos([photo(camera(BARREL))])), tmp_path))


def test_prepare_keeps_pinhole_at_full_size(tmp_path: Path) -> None:
    source = capture(camera(()), ArrayPhotos([photo(camera(()))]))
    result, events = finish(prepare(source, tmp_path / "cache"))
    assert result is source and events == [] and not (tmp_path / "cache").exists()
    with pytest.raises(ValueError, match="downscale"):
        finish(prepare(source, tmp_path / "cache", 0.5))


def test_prepare_mixed_sizes_and_lenses(tmp_path: Path) -> None:
    cameras = concatenate(camera(BARREL), camera(PINCUSHION, (90, 120)), camera(BARREL))
    images = [photo(cameras[i]) for i in range(3)]
    result, _ = finish(prepare(capture(cameras, ArrayPhotos(images)), tmp_path, 2))
    for i in range(3):
        assert (result.photo(i).float() - colours_seen_by(result.cameras[i])).abs().max() < 3.5


@pytest.mark.parametrize("distortion", [(), BARREL])
def test_prepare_transparent_colour_does_not_bleed(tmp_path: Path, distortion: tuple[float, ...]) -> None:
    """Red where opaque, green where transparent: no green may show, and the red keeps its full colour."""
    lens = camera(distortion)
    image = torch.zeros(90, 120, 4, dtype=torch.uint8)
    image[..., 1] = 255
    image[30:60, 41:80] = torch.tensor([200, 0, 0, 255], dtype=torch.uint8)
    output, _ = finish(prepare(capture(lens, ArrayPhotos([image]), has_alpha=True), tmp_path, 2))
    result = output.photo(0).int()
    visible = result[result[..., 3] > 8]
    assert len(visible) > 200 and (visible[:, 1] <= 1).all() and ((visible[:, 0] - 200).abs() <= 8).all()
    assert (result[0, 0] == 0).all() and (result[20, 30] - torch.tensor([200, 0, 0, 255])).abs().max() <= 1


@pytest.mark.parametrize("distortion", [(), BARREL])
def test_prepare_mask_keeps_only_fully_used_pixels(tmp_path: Path, distortion: tuple[float, ...]) -> None:
    lens = camera(distortion)
    mask = torch.full((90, 120, 1), 255, dtype=torch.uint8)
    mask[:, 61:] = 0
    source = capture(lens, ArrayPhotos([photo(lens)]), masks=ArrayPhotos([mask]))
    output, _ = finish(prepare(source, tmp_path, 2))
    assert output.masks is not None
    result = output.masks[0]
    assert result.shape == (45, 60, 1) and distinct_values(result) == [0, 255]
    # The edge, at x = 61 of 120, is so near the centre of the lens that it hardly moves.
    assert result[:, 32:].max() == 0 and result[:, :28].min() == 255
    if not distortion:
        assert result[0, 29].item() == 255 and result[0, 30].item() == 0  # column 30 averages 60 (use) and 61 (ignore)


# ---------------------------------------------------------------------------------------------------------- decoding


def noise_image(size: tuple[int, int], seed: int = 0) -> Any:
    """uint8 (H, W, 3): noise whose amplitude falls with its frequency, as in photos."""
    random, image = np.random.default_rng(seed), np.full((size[1], size[0], 3), 128.0)
    for cell in (1, 2, 4, 8, 16, 32):
        grid = random.normal(0, 1.5 * cell, (size[1] // cell + 2, size[0] // cell + 2, 3))
        image += cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
    return image.clip(0, 255).astype(np.uint8)


def psnr(first: Tensor, second: Tensor) -> float:
    return -10 * math.log10(float(((first.double() - second.double()) / 255).square().mean()))


def prepare_both_ways(source: Capture, folder: Path, downscale: float, patch: pytest.MonkeyPatch) -> list[Tensor]:
    """The first photo, from a JPEG decoded at reduced size, and decoded in full."""
    results = []
    for reductions in (undistort.JPEG_REDUCTIONS, ()):
        patch.setattr(undistort, "JPEG_REDUCTIONS", reductions)
        result, _ = finish(prepare(source, folder / f"cache{len(reductions)}", downscale))
        results.append(result.photo(0))
    return results


@pytest.mark.parametrize("downscale", [4, 4.5, 8, 16])
@pytest.mark.parametrize("distortion", [(), BARREL, FISHEYE])
def test_prepare_reduced_decode_equals_area_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distortion: tuple[float, ...], downscale: float
) -> None:
    size = (640, 480)
    Image.fromarray(noise_image(size)).save(tmp_path / "0.jpg", quality=95)
    source = capture(camera(distortion, size, focal=480.0), PhotoFiles([tmp_path / "0.jpg"], alpha=False))
    reduced_image, full = prepare_both_ways(source, tmp_path, downscale, monkeypatch)
    assert not torch.equal(reduced_image, full)  # it was decoded at reduced size
    assert psnr(reduced_image, full) > 45
    assert psnr(reduced_image[:, 1:], full[:, :-1]) < 25  # the test is sensitive to a shift


def test_load_reduced_only_for_evenly_divisible_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees: pixels must come as stored
    for size, name, reduction, expected in (
        ((640, 480), "a.jpg", 8, 8),
        ((640, 480), "b.png", 8, 1),
        ((644, 480), "c.jpg", 4, 4),
        ((644, 480), "d.jpg", 8, 1),
        ((641, 480), "e.jpg", 2, 1),
    ):
        image = noise_image(size)
        Image.fromarray(image).save(tmp_path / name, exif=exif)
        pixels, by = PhotoFiles([tmp_path / name], alpha=True).load_reduced(tmp_path / name, reduction)
        assert by == expected
        assert pixels.shape == (size[1] // by, size[0] // by, 4) and distinct_values(pixels[..., 3]) == [255]
        reduced_image = cv2.resize(image, (size[0] // by, size[1] // by), interpolation=cv2.INTER_AREA)
        assert np.abs(pixels[..., :3].numpy().astype(int) - reduced_image).mean() < 5


def jpegs(folder: Path, count: int) -> Capture:
    """`count` photos of 640x480 with one lens, each of one grey value: 20 times its number."""
    paths = [folder / f"{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        Image.new("RGB", (640, 480), (20 * i, 20 * i, 20 * i)).save(path)
    return capture(concatenate(*[camera(BARREL, (640, 480), 480.0)] * count), PhotoFiles(paths, alpha=False))


def test_prepare_keeps_order_and_shares_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table_sizes: list[tuple[int, int]] = []
    compute = cv2.initUndistortRectifyMap

    def count_calls(*args: Any) -> Any:
        table_sizes.append(args[4])
        return compute(*args)

    undistort._compute_maps.cache_clear()
    monkeypatch.setattr(undistort, "thread_count", lambda: 4)
    monkeypatch.setattr(cv2, "initUndistortRectifyMap", count_calls)
    result, _ = finish(prepare(jpegs(tmp_path, 12), tmp_path / "cache", 4))
    assert [distinct_values(result.photo(i)) for i in range(12)] == [[20 * i] for i in range(12)]
    assert table_sizes == [(320, 240)]


def test_prepare_names_damaged_jpeg(tmp_path: Path) -> None:
    source = jpegs(tmp_path, 4)
    assert isinstance(source.photos, PhotoFiles)
    path = source.photos.paths[2]
    Image.fromarray(noise_image((640, 480))).save(path)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(CaptureError, match=r"2\.jpg is damaged"):
        finish(prepare(source, tmp_path / "cache", 4))
    Image.new("RGB", (480, 640)).save(path)
    with pytest.raises(CaptureError, match=r"2\.png decodes to \(640, 480, 3\)"):
        finish(prepare(source, tmp_path / "cache", 4))


@pytest.mark.parametrize("limit", [1, 3])
def test_prepare_limits_photos_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Large photos are prepared by fewer threads, so that all photos decoded at one time fit into the limit."""
    lock, active, peaks, load = threading.Lock(), 0, [], PhotoFiles.load_reduced

    def load_slowly(self: PhotoFiles, path: Path, reduction: int) -> tuple[Tensor, int]:
        nonlocal active
        with lock:
            active += 1
            peaks.append(active)
        time.sleep(0.02)  # long enough for every other thread to start
        pixels = load(self, path, reduction)
        with lock:
            active -= 1
        return pixels

    monkeypatch.setattr(PhotoFiles, "load_reduced", load_slowly)
    monkeypatch.setattr(undistort, "thread_count", lambda: 8)
    monkeypatch.setattr(undistort, "MAX_IN_FLIGHT_BYTES", int((limit + 0.5) * 640 * 480 * undistort.PIXEL_BYTES[3]))
    finish(prepare(jpegs(tmp_path, 12), tmp_path / "cache", 4))
    assert len(peaks) == 12 and max(peaks) == limit


def test_ordered_map_limits_work_ahead() -> None:
    items_started: list[int] = []

    def work(item: int) -> int:
        items_started.append(item)
        return item

    results = ordered_map(work, range(100), workers=3)
    for expected in range(5):
        assert next(results) == expected
    results.close()
    assert len(items_started) <= 2 * 3 + 5


# ------------------------------------------------------------------------------------------------------------- cache


@pytest.fixture
def files(tmp_path: Path) -> Capture:
    """Six photos with masks on disk, with one lens."""
    lens = camera(BARREL)
    paths, masks = [], []
    for i in range(6):
        paths.append(tmp_path / f"{i}.png")
        masks.append(tmp_path / f"m{i}.png")
        Image.fromarray((photo(lens) // (i + 1)).numpy()).save(paths[-1])
        Image.new("L", (120, 90), 255).save(masks[-1])
    return capture(concatenate(*[lens] * 6), PhotoFiles(paths, alpha=False), masks=MaskFiles(masks))


def contents(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}


def test_prepare_second_call_uses_cache(files: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    first, _ = finish(prepare(files, cache, 2))
    before = contents(cache)
    assert len(before) == 12
    monkeypatch.setattr(PhotoFiles, "load", None)
    monkeypatch.setattr(MaskFiles, "load", None)
    second, _ = finish(prepare(files, cache, 2))
    assert contents(cache) == before
    assert all(torch.equal(first.photo(i), second.photo(i)) for i in range(6))
    assert second.masks is not None and second.masks[5].min() == 255


def test_prepare_change_invalidates_cache(files: Capture, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    finish(prepare(files, cache, 2))
    assert isinstance(files.photos, PhotoFiles)
    Image.new("RGB", (120, 90), (9, 9, 9)).save(files.photos.paths[3])
    os.utime(files.photos.paths[3], (1, 1))
    result, _ = finish(prepare(files, cache, 2))
    assert distinct_values(result.photo(3)) == [9]
    assert len(contents(cache)) == 13
    result, _ = finish(prepare(files, cache, 3))
    assert result.photo(0).shape == (30, 40, 3)
    assert len(contents(cache)) == 25


def test_prepare_interrupted_run_leaves_complete_files(files: Capture, tmp_path: Path) -> None:
    cache, threads = tmp_path / "cache", cv2.getNumThreads()
    task = prepare(files, cache, 2)
    next(task)
    task.close()
    assert cv2.getNumThreads() == threads
    files_left = contents(cache)
    assert files_left and all(name.endswith(".npy") for name in files_left)
    result, _ = finish(prepare(files, cache, 2))
    assert contents(cache).items() >= files_left.items()
    assert all(result.photo(i).shape == (45, 60, 3) for i in range(6))


def test_prepare_replaces_damaged_cache_file(files: Capture, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    full, _ = finish(prepare(files, cache))
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    second_result, _ = finish(prepare(files, cache))
    assert torch.equal(full.photo(2), second_result.photo(2))
    for path in cache.iterdir():
        path.write_bytes(b"\x93NUMPY")
    fresh = capture(second_result.cameras, undistort.LazyPhotos(second_result.photos.paths, undistort._load))  # type: ignore[attr-defined]
    with pytest.raises(CaptureError, match="prepare the capture again"):
        fresh.photo(0)


def test_prepare_names_damaged_photo(files: Capture, tmp_path: Path) -> None:
    threads = cv2.getNumThreads()
    assert isinstance(files.photos, PhotoFiles)
    files.photos.paths[2].write_bytes(files.photos.paths[2].read_bytes()[:2000])
    with pytest.raises(CaptureError, match=r"2\.png is damaged"):
        finish(prepare(files, tmp_path / "cache"))
    assert cv2.getNumThreads() == threads
    Image.new("RGB", (90, 120)).save(files.photos.paths[2])
    with pytest.raises(CaptureError, match=r"2\.png decodes to"):
        finish(prepare(files, tmp_path / "cache"))


@pytest.mark.skipif(not (DATA / "fox").is_dir(), reason="the shared fox capture is absent")
def test_prepare_fox_reduced_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Phone photos come out equal and as sharp, through their lens and with a change of size only."""
    fox = transforms.read(DATA / "fox").select([25])
    fox = dataclasses.replace(fox, photos=PhotoFiles([DATA / "fox" / "images" / fox.names[0]], alpha=False))
    plain = dataclasses.replace(fox.cameras, lens="pinhole", distortion=None)
    for name, cameras in (("lens", fox.cameras), ("plain", plain)):
        source = dataclasses.replace(fox, cameras=cameras)
        reduced_image, full = prepare_both_ways(source, tmp_path / name, 4, monkeypatch)
        assert psnr(reduced_image, full) > 50
        detail = [cv2.Laplacian(photo.numpy().astype(np.float32), cv2.CV_32F).std() for photo in (reduced_image, full)]
        assert detail[0] / detail[1] == pytest.approx(1, abs=0.03)
        monkeypatch.undo()


@pytest.mark.skipif(not (DATA / "fox").is_dir(), reason="the shared fox capture is absent")
def test_prepare_fox_agrees_with_opencv(tmp_path: Path) -> None:
    """Straight lines of the world are straight in the image: the result agrees with OpenCV's undistort."""
    fox = transforms.read(DATA / "fox").select([0, 25])
    result, _ = finish(prepare(fox, tmp_path, 4))
    assert result.cameras.size(0) == (270, 480)
    assert 0.95 < float(result.cameras.focal[0, 0]) * 4 / 1375.52 < 1.05
    (fx, fy), (cx, cy) = fox.cameras.focal[1].tolist(), fox.cameras.centre[1].tolist()
    (gx, gy), (dx, dy) = (4 * result.cameras.focal[1]).tolist(), (4 * result.cameras.centre[1]).tolist()
    source_matrix = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    target_matrix = np.array([[gx, 0, dx - 0.5], [0, gy, dy - 0.5], [0, 0, 1]])
    assert fox.cameras.distortion is not None
    straight = cv2.undistort(
        fox.photo(1).numpy(), source_matrix, fox.cameras.distortion[1].double().numpy(), None, target_matrix
    )
    expected = cv2.resize(straight, (270, 480), interpolation=cv2.INTER_AREA)
    assert np.abs(result.photo(1).numpy().astype(int) - expected).mean() < 0.7
