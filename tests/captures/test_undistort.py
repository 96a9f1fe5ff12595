"""Undistortion: a world of known colours seen through a lens must come out as a pinhole camera sees that world."""

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

from .common import DATA, finish, values

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


def joined(*cameras: Cameras) -> Cameras:
    def cat(name: str) -> Tensor:
        return torch.cat([getattr(c, name) for c in cameras])

    distortion = None if cameras[0].distortion is None else cat("distortion")
    return Cameras(cat("world_from_cam"), cat("focal"), cat("centre"), cat("sizes"), cameras[0].lens, distortion)


def seen(camera: Cameras) -> Tensor:
    """(H, W, 3) float 0..255: smooth colours that depend on the direction of sight alone."""
    width, height = camera.size(0)
    pixels = pixel_grid((width, height)).reshape(-1, 2)
    d = generate_rays(camera, torch.zeros(len(pixels), dtype=torch.int64), pixels).directions
    waves = torch.stack(
        [torch.sin(9 * d[:, 0] + 2 * d[:, 1]), torch.cos(8 * d[:, 1]), torch.sin(7 * d[:, 0] - d[:, 1])]
    )
    return (127.5 + 110 * waves.T).reshape(height, width, 3)


def photo(camera: Cameras) -> Tensor:
    return seen(camera).nan_to_num(0).round().to(torch.uint8)


def capture(cameras: Cameras, photos: Photos, **more: Any) -> Capture:
    names = tuple(f"{i}.png" for i in range(len(cameras)))
    return Capture(cameras, photos, names, torch.zeros(len(cameras), dtype=torch.bool), **more)


@pytest.mark.parametrize("downscale", [1, 2, 2.5])
@pytest.mark.parametrize("distortion", [BARREL, PINCUSHION, RATIONAL, FISHEYE])
def test_what_comes_out_is_what_a_pinhole_camera_sees(
    tmp_path: Path, distortion: tuple[float, ...], downscale: float
) -> None:
    lens = camera(distortion)
    made, events = finish(prepare(capture(lens, ArrayPhotos([photo(lens)])), tmp_path, downscale))
    assert made.cameras.lens == "pinhole" and made.cameras.distortion is None
    assert made.cameras.size(0) == (math.floor(120 / downscale), math.floor(90 / downscale))
    error = (made.photo(0).float() - seen(made.cameras)).abs()
    # Rounding to 8 bits twice, cubic interpolation, and the curvature that an area average flattens.
    assert error.max() < 3.5 and error.mean() < 0.6
    assert isinstance(events[-1], Progress) and events[-1].done == events[-1].total == 1


def test_half_a_pixel_would_be_noticed(tmp_path: Path) -> None:
    """The test above is sharp enough: the same picture moved by half a pixel fails it by far."""
    lens = camera(BARREL)
    made, _ = finish(prepare(capture(lens, ArrayPhotos([photo(lens)])), tmp_path))
    moved = Cameras(**{**vars(made.cameras), "centre": made.cameras.centre + 0.5})
    assert (made.photo(0).float() - seen(moved)).abs().max() > 6


@pytest.mark.parametrize("distortion", [BARREL, RATIONAL])
def test_opencv_itself_agrees(tmp_path: Path, distortion: tuple[float, ...]) -> None:
    lens = camera(distortion)
    noise = torch.randint(0, 256, (90, 120, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made, _ = finish(prepare(capture(lens, ArrayPhotos([noise])), tmp_path))

    def matrix(c: Cameras) -> Any:
        (fx, fy), (cx, cy) = c.focal[0].double().tolist(), c.centre[0].double().tolist()
        return np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])

    maps = cv2.initUndistortRectifyMap(
        matrix(lens), np.array(distortion), np.eye(3), matrix(made.cameras), (120, 90), cv2.CV_32FC1
    )
    expected = cv2.remap(noise.numpy(), *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    difference = np.abs(made.photo(0).numpy().astype(int) - expected)
    assert difference.max() <= 1


coefficient = st.floats(-0.15, 0.15)


@settings(max_examples=20, deadline=None)
@given(k=st.tuples(coefficient, coefficient, st.floats(-0.01, 0.01), st.floats(-0.01, 0.01)), fisheye=st.booleans())
def test_the_crop_is_the_largest_without_a_gap(k: tuple[float, ...], fisheye: bool) -> None:
    """Every pixel of the new picture looks at a pixel of the old one, and with 1 % more zoom one would not."""
    lens = camera(k if fisheye else k + (0.0,) * 4)
    zoom = float(largest_zooms(lens))
    assert 0.1 < zoom <= undistort.MAX_ZOOM
    limit = torch.tensor([120.0, 90.0]) - 0.5

    def covered(zoom: float, border: bool) -> bool:
        edges = [pixel_grid((120, 90)).reshape(-1, 2)]
        if border:
            x = torch.linspace(0, 120, 2000)
            edges = [torch.stack([x, y], dim=1) for y in (0 * x, 0 * x + 90)]
            edges += [torch.stack([x, y], dim=1) for y in (x * 0.75,) for x in (0 * y, 0 * y + 120)]
        flat = (torch.cat(edges) - lens.centre[0]) / lens.focal[0] * zoom
        pixels, _ = project(lens, torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1))
        return bool(((pixels >= 0.5 - 1e-3) & (pixels <= limit + 1e-3)).all())

    assert covered(zoom, border=False)
    bounded = zoom >= undistort.MAX_ZOOM * 0.999
    corner = torch.tensor([[0.0, 0.0], [120.0, 90.0], [0.0, 90.0], [120.0, 0.0]])
    angle = ((corner - lens.centre[0]) / lens.focal[0] * zoom).norm(dim=1).max().atan()
    bounded |= fisheye and float(angle) > undistort.MAX_FISHEYE_ANGLE * 0.999
    assert bounded or not covered(zoom * 1.01, border=True)


def test_a_wide_fisheye_stops_at_its_angle(tmp_path: Path) -> None:
    """180 degrees across: no pinhole shows that. The corner of the new picture looks 60 degrees off the axis."""
    lens = camera((0.0, 0.0, 0.0, 0.0), (120, 120), focal=120 / math.pi)
    made, _ = finish(prepare(capture(lens, ArrayPhotos([photo(lens)])), tmp_path))
    corners = torch.tensor([[0.0, 0.0], [120.0, 0.0], [0.0, 120.0], [120.0, 120.0]])
    directions = generate_rays(made.cameras, torch.zeros(4, dtype=torch.int64), corners).directions
    assert float(directions[:, 2].acos().max()) == pytest.approx(math.radians(60), abs=1e-4)
    assert (made.photo(0).float() - seen(made.cameras)).abs().mean() < 1.5


def test_a_lens_that_folds_at_once_is_an_error(tmp_path: Path) -> None:
    lens = camera((-300.0, *(0.0,) * 7))
    with pytest.raises(CaptureError, match=r"0\.png leaves no usable image"):
        finish(prepare(capture(lens, ArrayPhotos([photo(camera(BARREL))])), tmp_path))


def test_a_pinhole_at_full_size_stays_as_it_is(tmp_path: Path) -> None:
    given = capture(camera(()), ArrayPhotos([photo(camera(()))]))
    made, events = finish(prepare(given, tmp_path / "cache"))
    assert made is given and events == [] and not (tmp_path / "cache").exists()
    with pytest.raises(ValueError, match="downscale"):
        finish(prepare(given, tmp_path / "cache", 0.5))


def test_sizes_and_lenses_may_differ_from_photo_to_photo(tmp_path: Path) -> None:
    cameras = joined(camera(BARREL), camera(PINCUSHION, (90, 120)), camera(BARREL))
    pictures = [photo(cameras[i]) for i in range(3)]
    made, _ = finish(prepare(capture(cameras, ArrayPhotos(pictures)), tmp_path, 2))
    for i in range(3):
        assert (made.photo(i).float() - seen(made.cameras[i])).abs().max() < 3.5


@pytest.mark.parametrize("distortion", [(), BARREL])
def test_the_colour_of_nothing_does_not_bleed_in(tmp_path: Path, distortion: tuple[float, ...]) -> None:
    """Red where it is opaque, green where it is transparent: no green may show, and the red keeps its full colour."""
    lens = camera(distortion)
    picture = torch.zeros(90, 120, 4, dtype=torch.uint8)
    picture[..., 1] = 255
    picture[30:60, 41:80] = torch.tensor([200, 0, 0, 255], dtype=torch.uint8)
    made, _ = finish(prepare(capture(lens, ArrayPhotos([picture]), has_alpha=True), tmp_path, 2))
    result = made.photo(0).int()
    visible = result[result[..., 3] > 8]
    assert len(visible) > 200 and (visible[:, 1] <= 1).all() and ((visible[:, 0] - 200).abs() <= 8).all()
    assert (result[0, 0] == 0).all() and (result[20, 30] - torch.tensor([200, 0, 0, 255])).abs().max() <= 1


@pytest.mark.parametrize("distortion", [(), BARREL])
def test_a_mask_keeps_only_pixels_that_count_wholly(tmp_path: Path, distortion: tuple[float, ...]) -> None:
    lens = camera(distortion)
    mask = torch.full((90, 120, 1), 255, dtype=torch.uint8)
    mask[:, 61:] = 0
    given = capture(lens, ArrayPhotos([photo(lens)]), masks=ArrayPhotos([mask]))
    made, _ = finish(prepare(given, tmp_path, 2))
    assert made.masks is not None
    result = made.masks[0]
    assert result.shape == (45, 60, 1) and values(result) == [0, 255]
    # The edge, at x = 61 of 120, lies so near the centre of the lens that it stays nearly where it was.
    assert result[:, 32:].max() == 0 and result[:, :28].min() == 255
    if not distortion:
        assert result[0, 29].item() == 255 and result[0, 30].item() == 0  # column 30 averages 60 (use) and 61 (ignore)


# ---------------------------------------------------------------------------------------------------------- decoding


def textured(size: tuple[int, int], seed: int = 0) -> Any:
    """uint8 (H, W, 3): noise whose amplitude falls with its frequency, as in photos."""
    random, picture = np.random.default_rng(seed), np.full((size[1], size[0], 3), 128.0)
    for cell in (1, 2, 4, 8, 16, 32):
        grid = random.normal(0, 1.5 * cell, (size[1] // cell + 2, size[0] // cell + 2, 3))
        picture += cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
    return picture.clip(0, 255).astype(np.uint8)


def psnr(first: Tensor, second: Tensor) -> float:
    return -10 * math.log10(float(((first.double() - second.double()) / 255).square().mean()))


def prepared_both_ways(given: Capture, folder: Path, downscale: float, patch: pytest.MonkeyPatch) -> list[Tensor]:
    """The first photo from a JPEG decoded at a part of its size, and from all its pixels."""
    results = []
    for reductions in (undistort.JPEG_REDUCTIONS, ()):
        patch.setattr(undistort, "JPEG_REDUCTIONS", reductions)
        made, _ = finish(prepare(given, folder / f"cache{len(reductions)}", downscale))
        results.append(made.photo(0))
    return results


@pytest.mark.parametrize("downscale", [4, 4.5, 8, 16])
@pytest.mark.parametrize("distortion", [(), BARREL, FISHEYE])
def test_a_photo_decoded_small_is_the_area_average_of_the_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distortion: tuple[float, ...], downscale: float
) -> None:
    size = (640, 480)
    Image.fromarray(textured(size)).save(tmp_path / "0.jpg", quality=95)
    given = capture(camera(distortion, size, focal=480.0), PhotoFiles([tmp_path / "0.jpg"], alpha=False))
    small, whole = prepared_both_ways(given, tmp_path, downscale, monkeypatch)
    assert not torch.equal(small, whole)  # it was decoded small
    assert psnr(small, whole) > 45
    assert psnr(small[:, 1:], whole[:, :-1]) < 25  # the test would notice a shift


def test_only_a_jpeg_that_divides_evenly_is_decoded_small(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees: pixels come as they are stored
    for size, name, reduction, expected in (
        ((640, 480), "a.jpg", 8, 8),
        ((640, 480), "b.png", 8, 1),
        ((644, 480), "c.jpg", 4, 4),
        ((644, 480), "d.jpg", 8, 1),
        ((641, 480), "e.jpg", 2, 1),
    ):
        picture = textured(size)
        Image.fromarray(picture).save(tmp_path / name, exif=exif)
        stored, by = PhotoFiles([tmp_path / name], alpha=True).load_reduced(tmp_path / name, reduction)
        assert by == expected
        assert stored.shape == (size[1] // by, size[0] // by, 4) and values(stored[..., 3]) == [255]
        small = cv2.resize(picture, (size[0] // by, size[1] // by), interpolation=cv2.INTER_AREA)
        assert np.abs(stored[..., :3].numpy().astype(int) - small).mean() < 5


def jpegs(folder: Path, count: int) -> Capture:
    """`count` photos of 640x480 behind one lens, each of one grey value: 20 times its number."""
    paths = [folder / f"{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        Image.new("RGB", (640, 480), (20 * i, 20 * i, 20 * i)).save(path)
    return capture(joined(*[camera(BARREL, (640, 480), 480.0)] * count), PhotoFiles(paths, alpha=False))


def test_photos_keep_their_order_and_share_their_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[tuple[int, int]] = []
    compute = cv2.initUndistortRectifyMap

    def counted(*args: Any) -> Any:
        computed.append(args[4])
        return compute(*args)

    undistort._compute_maps.cache_clear()
    monkeypatch.setattr(undistort, "thread_count", lambda: 4)
    monkeypatch.setattr(cv2, "initUndistortRectifyMap", counted)
    made, _ = finish(prepare(jpegs(tmp_path, 12), tmp_path / "cache", 4))
    assert [values(made.photo(i)) for i in range(12)] == [[20 * i] for i in range(12)]
    assert computed == [(320, 240)]


def test_a_jpeg_that_does_not_decode_is_named(tmp_path: Path) -> None:
    given = jpegs(tmp_path, 4)
    assert isinstance(given.photos, PhotoFiles)
    path = given.photos.paths[2]
    Image.fromarray(textured((640, 480))).save(path)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(CaptureError, match=r"2\.jpg is damaged"):
        finish(prepare(given, tmp_path / "cache", 4))
    Image.new("RGB", (480, 640)).save(path)
    with pytest.raises(CaptureError, match=r"2\.png decodes to \(640, 480, 3\)"):
        finish(prepare(given, tmp_path / "cache", 4))


@pytest.mark.parametrize("most", [1, 3])
def test_the_photos_in_memory_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Large photos are prepared by fewer threads, so that all that are decoded at one time fit into the limit."""
    lock, now, peaks, load = threading.Lock(), 0, [], PhotoFiles.load_reduced

    def slowly(self: PhotoFiles, path: Path, reduction: int) -> tuple[Tensor, int]:
        nonlocal now
        with lock:
            now += 1
            peaks.append(now)
        time.sleep(0.02)  # long enough for every other thread to begin
        loaded = load(self, path, reduction)
        with lock:
            now -= 1
        return loaded

    monkeypatch.setattr(PhotoFiles, "load_reduced", slowly)
    monkeypatch.setattr(undistort, "thread_count", lambda: 8)
    monkeypatch.setattr(undistort, "MAX_IN_FLIGHT_BYTES", int((most + 0.5) * 640 * 480 * undistort.PIXEL_BYTES[3]))
    finish(prepare(jpegs(tmp_path, 12), tmp_path / "cache", 4))
    assert len(peaks) == 12 and max(peaks) == most


def test_work_ahead_of_the_consumer_is_limited() -> None:
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        return item

    results = ordered_map(work, range(100), workers=3)
    for expected in range(5):
        assert next(results) == expected
    results.close()
    assert len(started) <= 2 * 3 + 5


# ------------------------------------------------------------------------------------------------------------- cache


@pytest.fixture
def files(tmp_path: Path) -> Capture:
    """Six photos with masks on disk, behind a lens."""
    lens = camera(BARREL)
    paths, masks = [], []
    for i in range(6):
        paths.append(tmp_path / f"{i}.png")
        masks.append(tmp_path / f"m{i}.png")
        Image.fromarray((photo(lens) // (i + 1)).numpy()).save(paths[-1])
        Image.new("L", (120, 90), 255).save(masks[-1])
    return capture(joined(*[lens] * 6), PhotoFiles(paths, alpha=False), masks=MaskFiles(masks))


def contents(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}


def test_a_second_call_decodes_nothing(files: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_changed_photo_or_parameter_is_prepared_again(files: Capture, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    finish(prepare(files, cache, 2))
    assert isinstance(files.photos, PhotoFiles)
    Image.new("RGB", (120, 90), (9, 9, 9)).save(files.photos.paths[3])
    os.utime(files.photos.paths[3], (1, 1))
    made, _ = finish(prepare(files, cache, 2))
    assert values(made.photo(3)) == [9]
    assert len(contents(cache)) == 13
    made, _ = finish(prepare(files, cache, 3))
    assert made.photo(0).shape == (30, 40, 3)
    assert len(contents(cache)) == 25


def test_an_interrupted_run_leaves_whole_pictures_only(files: Capture, tmp_path: Path) -> None:
    cache, threads = tmp_path / "cache", cv2.getNumThreads()
    task = prepare(files, cache, 2)
    next(task)
    task.close()
    assert cv2.getNumThreads() == threads
    left = contents(cache)
    assert left and all(name.endswith(".npy") for name in left)
    made, _ = finish(prepare(files, cache, 2))
    assert contents(cache).items() >= left.items()
    assert all(made.photo(i).shape == (45, 60, 3) for i in range(6))


def test_a_damaged_cache_entry_is_made_again(files: Capture, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    whole, _ = finish(prepare(files, cache))
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    again, _ = finish(prepare(files, cache))
    assert torch.equal(whole.photo(2), again.photo(2))
    for path in cache.iterdir():
        path.write_bytes(b"\x93NUMPY")
    fresh = capture(again.cameras, undistort.LazyPhotos(again.photos.paths, undistort._load))  # type: ignore[attr-defined]
    with pytest.raises(CaptureError, match="prepare the capture again"):
        fresh.photo(0)


def test_a_photo_that_does_not_decode_is_named(files: Capture, tmp_path: Path) -> None:
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
def test_fox_decoded_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos of a phone come out alike and as sharp, through their lens and where only their size changes."""
    fox = transforms.read(DATA / "fox").select([25])
    fox = dataclasses.replace(fox, photos=PhotoFiles([DATA / "fox" / "images" / fox.names[0]], alpha=False))
    plain = dataclasses.replace(fox.cameras, lens="pinhole", distortion=None)
    for name, cameras in (("lens", fox.cameras), ("plain", plain)):
        given = dataclasses.replace(fox, cameras=cameras)
        small, whole = prepared_both_ways(given, tmp_path / name, 4, monkeypatch)
        assert psnr(small, whole) > 50
        detail = [cv2.Laplacian(photo.numpy().astype(np.float32), cv2.CV_32F).std() for photo in (small, whole)]
        assert detail[0] / detail[1] == pytest.approx(1, abs=0.03)
        monkeypatch.undo()


@pytest.mark.skipif(not (DATA / "fox").is_dir(), reason="the shared fox capture is absent")
def test_fox(tmp_path: Path) -> None:
    """A straight line in the world is straight in the picture: the prepared photo agrees with OpenCV's undistort."""
    fox = transforms.read(DATA / "fox").select([0, 25])
    made, _ = finish(prepare(fox, tmp_path, 4))
    assert made.cameras.size(0) == (270, 480)
    assert 0.95 < float(made.cameras.focal[0, 0]) * 4 / 1375.52 < 1.05
    (fx, fy), (cx, cy) = fox.cameras.focal[1].tolist(), fox.cameras.centre[1].tolist()
    (gx, gy), (dx, dy) = (4 * made.cameras.focal[1]).tolist(), (4 * made.cameras.centre[1]).tolist()
    old = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    new = np.array([[gx, 0, dx - 0.5], [0, gy, dy - 0.5], [0, 0, 1]])
    assert fox.cameras.distortion is not None
    straight = cv2.undistort(fox.photo(1).numpy(), old, fox.cameras.distortion[1].double().numpy(), None, new)
    expected = cv2.resize(straight, (270, 480), interpolation=cv2.INTER_AREA)
    assert np.abs(made.photo(1).numpy().astype(int) - expected).mean() < 0.7
