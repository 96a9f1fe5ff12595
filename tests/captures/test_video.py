"""Video frames: sharp, evenly spaced along the motion and upright; and files that are not videos."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from lumigraph.captures import video
from lumigraph.captures.video import choose_frames, extract_frames
from lumigraph.scene.errors import CaptureError
from lumigraph.wire.events import Note, Progress

from .common import DATA, finish

SIZE = (160, 96)


def texture() -> Any:
    """(300, 3000, 3) uint8: coloured blobs at every scale, the wall that the camera passes."""
    rng = np.random.default_rng(0)
    wall = np.zeros((300, 3000, 3), dtype=np.float32)
    for cells in (4, 12, 40):
        coarse = rng.uniform(0, 1, (cells, cells * 10, 3)).astype(np.float32)
        wall += cv2.resize(coarse, (3000, 300), interpolation=cv2.INTER_CUBIC)
    return (wall / 3 * 255).clip(0, 255).astype(np.uint8)


def write_video(
    path: Path, column_of: Callable[[int], float], count: int, is_blurred: Callable[[int], bool] = lambda i: False
) -> Path:
    """Encode a pan over the wall: frame i starts at column `column_of(i)`."""
    wall = texture()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *SIZE, "yuv420p", 4_000_000
        for i in range(count):
            left = float(column_of(i))
            shift = np.array([[1, 0, -left], [0, 1, -60]], dtype=np.float32)
            image: Any = cv2.warpAffine(wall, shift, SIZE, flags=cv2.INTER_LINEAR)
            if is_blurred(i):
                image = cv2.GaussianBlur(image, (0, 0), 3)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers_of(names: tuple[str, ...]) -> Any:
    return np.array([int(name.removeprefix("frame_").removesuffix(".jpg")) for name in names])


def test_extract_frames_evenly_along_motion(tmp_path: Path) -> None:
    """One second at 2 pixels per frame, two seconds of rest, one second at 6 pixels per frame."""

    def column_of(i: int) -> float:
        return 2.0 * min(i, 30) + 6.0 * max(0, i - 90)

    path = write_video(tmp_path / "pan.mp4", column_of, 120)
    photos, events = finish(extract_frames(path, tmp_path / "out", 12))
    frame_numbers = numbers_of(photos.names)
    assert len(photos) == 12 and photos.from_video
    assert photos.sizes == (SIZE,) * 12 and set(photos.focal_px) == {None} and set(photos.gps) == {None}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == list(photos.names)
    steps = np.diff([column_of(i) for i in frame_numbers])
    assert steps.min() > 0.4 * 20 and steps.max() < 1.7 * 20  # 240 pixels in 12 intervals of 20
    assert np.sum((frame_numbers > 32) & (frame_numbers < 88)) <= 1  # the rest gives at most one frame
    assert not [e for e in events if isinstance(e, Note)]
    last = [e for e in events if isinstance(e, Progress)][-1]
    assert last.done == last.total == 12


def test_extract_frames_writes_chosen_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "pan.mp4", lambda i: 4.0 * i, 40)
    photos, _ = finish(extract_frames(path, tmp_path / "out", 5))
    wall = texture().astype(int)
    for name, number in zip(photos.names, numbers_of(photos.names), strict=True):
        with Image.open(tmp_path / "out" / name) as image:
            pixels = np.asarray(image).astype(int)
        errors = [np.abs(pixels - wall[60:156, 4 * i : 4 * i + 160]).mean() for i in range(40)]
        assert int(np.argmin(errors)) == number and min(errors) < 8


def test_extract_frames_skips_blurred_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "pan.mp4", lambda i: 2.0 * i, 100, is_blurred=lambda i: i % 4 != 0)
    photos, _ = finish(extract_frames(path, tmp_path / "out", 8))
    assert len(photos) == 8 and (numbers_of(photos.names) % 4 == 0).all()


def test_extract_frames_of_static_camera_by_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "still.mp4", lambda i: 0.0, 40)
    photos, events = finish(extract_frames(path, tmp_path / "out", 4))
    assert len(photos) >= 2
    assert any("hardly moves" in e.text for e in events if isinstance(e, Note))


def test_choose_frames_prefers_sharp_middle() -> None:
    motion, sharpness = np.linspace(0, 1, 101), np.zeros(101)
    sharpness[[5, 30, 55, 80]] = [9, 1, 9, 1]
    assert choose_frames(sharpness, motion, 2) == [30, 80]  # 5 and 55 are sharper, but at the border of their intervals
    assert choose_frames(np.zeros(50), np.zeros(50), 5) == choose_frames(np.zeros(50), np.linspace(0, 7, 50), 5)
    assert choose_frames(np.ones(3), np.array([0.0, 0.5, 1.0]), 80) == [0, 1, 2]
    jump = np.array([0.0, 0.01, 0.02, 0.98, 0.99, 1.0])
    assert len(choose_frames(np.ones(6), jump, 10)) == 2  # intervals without frames give none


@pytest.mark.parametrize(("display_matrix", "k"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_extract_frames_applies_container_rotation(tmp_path: Path, display_matrix: tuple[int, ...], k: int) -> None:
    """The display matrix of the MP4 track header (ISO 14496-12), written here by hand. Phones held upright write
    (0 1 -1 0), a quarter turn clockwise."""
    path = write_video(tmp_path / "phone.mp4", lambda i: 4.0 * i, 20)
    plain, _ = finish(extract_frames(path, tmp_path / "plain", 3))
    data = bytearray(path.read_bytes())
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = (v << 16 for v in display_matrix)
    offset = data.index(identity, data.index(b"tkhd"))
    data[offset : offset + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
    rotated_photos, _ = finish(extract_frames(path, tmp_path / "turned", 3))
    assert rotated_photos.names == plain.names
    assert rotated_photos.sizes[0] == (SIZE if k == 2 else SIZE[::-1])
    for name in plain.names:
        with Image.open(tmp_path / "plain" / name) as before, Image.open(tmp_path / "turned" / name) as after:
            difference = np.rot90(np.asarray(before), k).astype(int) - np.asarray(after)
            assert np.abs(difference).mean() < 2  # JPEG blocks fall differently


def test_extract_frames_rejects_other_files(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty.mp4").write_bytes(b"")
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.jpg")
    for name in ("text.mp4", "empty.mp4", "picture.jpg", "missing.mp4", ""):
        with pytest.raises(CaptureError, match="not a readable video"):
            finish(extract_frames(tmp_path / name, tmp_path / "out"))
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(CaptureError, match="no video stream"):
        finish(extract_frames(tmp_path / "sound.mp4", tmp_path / "out"))
    with pytest.raises(CaptureError, match="holds 1 readable frames"):
        finish(extract_frames(write_video(tmp_path / "one.mp4", lambda i: 0.0, 1), tmp_path / "out"))
    with pytest.raises(ValueError, match="at least two"):
        finish(extract_frames(tmp_path / "one.mp4", tmp_path / "out", 1))
    assert not list(tmp_path.glob("out*"))


def test_extract_frames_rejects_unknown_codec(tmp_path: Path) -> None:
    path = write_video(tmp_path / "pan.mkv", lambda i: 4.0 * i, 10)
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/ASP", b"V_NOBODY_KNOWS!"))
    with pytest.raises(CaptureError, match="codec is unknown"):
        finish(extract_frames(path, tmp_path / "out"))


def test_extract_frames_rejects_playlists(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.ts", lambda i: 2.0 * i, 20)
    finish(extract_frames(tmp_path / "secret.ts", tmp_path / "out", 3))
    lists = {
        "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": "ffconcat version 1.0\nfile secret.ts\n",
    }
    for name, content in lists.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(CaptureError, match="not a readable video"):
            finish(extract_frames(tmp_path / name, tmp_path / "other", 3))


def test_extract_frames_treats_url_like_name_as_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "plain.mp4", lambda i: 4.0 * i, 20).rename(tmp_path / "concat:a|b.mp4")
    monkeypatch.chdir(tmp_path)
    photos, _ = finish(extract_frames(Path("concat:a|b.mp4"), tmp_path / "out", 3))
    assert len(photos) == 3


def test_extract_frames_damage_raises_only_capture_error(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "pan.ts", lambda i: 4.0 * i, 40).read_bytes()
    rng = np.random.default_rng(0)
    for kind in range(20):
        content = bytearray(whole[: len(whole) - int(rng.integers(0, len(whole)))] if kind % 2 else whole)
        for offset in rng.integers(0, max(1, len(content)), 30):
            content[int(offset) : int(offset) + 1] = bytes([int(rng.integers(0, 256))])
        (tmp_path / "broken.ts").write_bytes(bytes(content))
        try:
            photos, _ = finish(extract_frames(tmp_path / "broken.ts", tmp_path / "out", 4))
            assert 2 <= len(photos) <= 4
        except CaptureError:
            assert not list(tmp_path.glob("out.tmp*"))


@pytest.mark.parametrize("size", [(2, 2), (400, 16), (16, 400), (34, 18)])
def test_extract_frames_of_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    with av.open(str(tmp_path / "odd.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(12):
            noise = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    photos, _ = finish(extract_frames(tmp_path / "odd.mkv", tmp_path / "out", 4))
    assert photos.sizes == (size,) * len(photos)


def test_extract_frames_closed_early_leaves_no_files(tmp_path: Path) -> None:
    path = write_video(tmp_path / "pan.mp4", lambda i: 4.0 * i, 40)
    task = extract_frames(path, tmp_path / "out", 5)
    for event in task:
        if isinstance(event, Progress) and event.stage == "write frames":
            break
    task.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pan.mp4"]


@pytest.mark.skipif(not (DATA / "video" / "can.mp4").is_file(), reason="the shared video is absent")
def test_extract_frames_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "SHARPNESS_SIDE_PX", 192)  # for speed
    photos, events = finish(extract_frames(DATA / "video" / "can.mp4", tmp_path / "out", 40))
    assert 38 <= len(photos) <= 40 and photos.sizes == ((720, 1280),) * len(photos)
    assert numbers_of(photos.names)[-1] < 706 and (np.diff(numbers_of(photos.names)) > 0).all()
    assert not [e for e in events if isinstance(e, Note)]
