"""Frames of a video: sharp ones, evenly along the movement, upright; and files that are no video."""

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


def film(path: Path, at: Callable[[int], float], count: int, blurred: Callable[[int], bool] = lambda i: False) -> Path:
    """A pan over the wall: frame i starts at column `at(i)`."""
    wall = texture()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *SIZE, "yuv420p", 4_000_000
        for i in range(count):
            left = float(at(i))
            shift = np.array([[1, 0, -left], [0, 1, -60]], dtype=np.float32)
            picture: Any = cv2.warpAffine(wall, shift, SIZE, flags=cv2.INTER_LINEAR)
            if blurred(i):
                picture = cv2.GaussianBlur(picture, (0, 0), 3)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers(names: tuple[str, ...]) -> Any:
    return np.array([int(name.removeprefix("frame_").removesuffix(".jpg")) for name in names])


def test_frames_are_even_in_movement_and_not_in_time(tmp_path: Path) -> None:
    """One second at 2 pixels a frame, two seconds of rest, one second at 6 pixels a frame."""

    def at(i: int) -> float:
        return 2.0 * min(i, 30) + 6.0 * max(0, i - 90)

    path = film(tmp_path / "pan.mp4", at, 120)
    photos, events = finish(extract_frames(path, tmp_path / "out", 12))
    chosen = numbers(photos.names)
    assert len(photos) == 12 and photos.from_video
    assert photos.sizes == (SIZE,) * 12 and set(photos.focal_px) == {None} and set(photos.gps) == {None}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == list(photos.names)
    steps = np.diff([at(i) for i in chosen])
    assert steps.min() > 0.4 * 20 and steps.max() < 1.7 * 20  # 240 pixels in 12 stretches of 20
    assert np.sum((chosen > 32) & (chosen < 88)) <= 1  # the rest gives at most one frame
    assert not [e for e in events if isinstance(e, Note)]
    last = [e for e in events if isinstance(e, Progress)][-1]
    assert last.done == last.total == 12


def test_the_written_frame_is_the_chosen_one(tmp_path: Path) -> None:
    path = film(tmp_path / "pan.mp4", lambda i: 4.0 * i, 40)
    photos, _ = finish(extract_frames(path, tmp_path / "out", 5))
    wall = texture().astype(int)
    for name, number in zip(photos.names, numbers(photos.names), strict=True):
        with Image.open(tmp_path / "out" / name) as picture:
            shown = np.asarray(picture).astype(int)
        errors = [np.abs(shown - wall[60:156, 4 * i : 4 * i + 160]).mean() for i in range(40)]
        assert int(np.argmin(errors)) == number and min(errors) < 8


def test_blurred_frames_are_passed_over(tmp_path: Path) -> None:
    path = film(tmp_path / "pan.mp4", lambda i: 2.0 * i, 100, blurred=lambda i: i % 4 != 0)
    photos, _ = finish(extract_frames(path, tmp_path / "out", 8))
    assert len(photos) == 8 and (numbers(photos.names) % 4 == 0).all()


def test_a_camera_at_rest_is_said_and_cut_by_time(tmp_path: Path) -> None:
    path = film(tmp_path / "still.mp4", lambda i: 0.0, 40)
    photos, events = finish(extract_frames(path, tmp_path / "out", 4))
    assert len(photos) >= 2
    assert any("hardly moves" in e.text for e in events if isinstance(e, Note))


def test_the_choice_itself() -> None:
    moved, sharpness = np.linspace(0, 1, 101), np.zeros(101)
    sharpness[[5, 30, 55, 80]] = [9, 1, 9, 1]
    assert choose_frames(sharpness, moved, 2) == [30, 80]  # 5 and 55 are sharper, but at the border of their stretches
    assert choose_frames(np.zeros(50), np.zeros(50), 5) == choose_frames(np.zeros(50), np.linspace(0, 7, 50), 5)
    assert choose_frames(np.ones(3), np.array([0.0, 0.5, 1.0]), 80) == [0, 1, 2]
    jump = np.array([0.0, 0.01, 0.02, 0.98, 0.99, 1.0])
    assert len(choose_frames(np.ones(6), jump, 10)) == 2  # the stretches that the camera jumped over give nothing


@pytest.mark.parametrize(("turn", "k"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_the_containers_rotation_is_applied(tmp_path: Path, turn: tuple[int, ...], k: int) -> None:
    """The display matrix of the MP4 track header (ISO 14496-12), written here by hand; (0 1 -1 0) is what a phone held
    upright writes, and asks for a quarter turn clockwise."""
    path = film(tmp_path / "phone.mp4", lambda i: 4.0 * i, 20)
    plain, _ = finish(extract_frames(path, tmp_path / "plain", 3))
    data = bytearray(path.read_bytes())
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = (v << 16 for v in turn)
    at = data.index(identity, data.index(b"tkhd"))
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
    turned, _ = finish(extract_frames(path, tmp_path / "turned", 3))
    assert turned.names == plain.names
    assert turned.sizes[0] == (SIZE if k == 2 else SIZE[::-1])
    for name in plain.names:
        with Image.open(tmp_path / "plain" / name) as before, Image.open(tmp_path / "turned" / name) as after:
            difference = np.rot90(np.asarray(before), k).astype(int) - np.asarray(after)
            assert np.abs(difference).mean() < 2  # JPEG blocks fall differently


def test_files_that_are_no_video(tmp_path: Path) -> None:
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
        finish(extract_frames(film(tmp_path / "one.mp4", lambda i: 0.0, 1), tmp_path / "out"))
    with pytest.raises(ValueError, match="at least two"):
        finish(extract_frames(tmp_path / "one.mp4", tmp_path / "out", 1))
    assert not list(tmp_path.glob("out*"))


def test_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    path = film(tmp_path / "pan.mkv", lambda i: 4.0 * i, 10)
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/ASP", b"V_NOBODY_KNOWS!"))
    with pytest.raises(CaptureError, match="codec is unknown"):
        finish(extract_frames(path, tmp_path / "out"))


def test_a_playlist_may_not_name_other_files(tmp_path: Path) -> None:
    film(tmp_path / "secret.ts", lambda i: 2.0 * i, 20)
    finish(extract_frames(tmp_path / "secret.ts", tmp_path / "out", 3))
    lists = {
        "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": "ffconcat version 1.0\nfile secret.ts\n",
    }
    for name, content in lists.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(CaptureError, match="not a readable video"):
            finish(extract_frames(tmp_path / name, tmp_path / "other", 3))


def test_a_name_that_looks_like_an_address_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film(tmp_path / "plain.mp4", lambda i: 4.0 * i, 20).rename(tmp_path / "concat:a|b.mp4")
    monkeypatch.chdir(tmp_path)
    photos, _ = finish(extract_frames(Path("concat:a|b.mp4"), tmp_path / "out", 3))
    assert len(photos) == 3


def test_a_damaged_video_gives_what_it_can_or_a_capture_error(tmp_path: Path) -> None:
    whole = film(tmp_path / "pan.ts", lambda i: 4.0 * i, 40).read_bytes()
    rng = np.random.default_rng(0)
    for kind in range(20):
        broken = bytearray(whole[: len(whole) - int(rng.integers(0, len(whole)))] if kind % 2 else whole)
        for at in rng.integers(0, max(1, len(broken)), 30):
            broken[int(at) : int(at) + 1] = bytes([int(rng.integers(0, 256))])
        (tmp_path / "broken.ts").write_bytes(bytes(broken))
        try:
            photos, _ = finish(extract_frames(tmp_path / "broken.ts", tmp_path / "out", 4))
            assert 2 <= len(photos) <= 4
        except CaptureError:
            assert not list(tmp_path.glob("out.tmp*"))


@pytest.mark.parametrize("size", [(2, 2), (400, 16), (16, 400), (34, 18)])
def test_pictures_of_odd_shape_do_no_harm(tmp_path: Path, size: tuple[int, int]) -> None:
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


def test_closing_early_leaves_nothing_behind(tmp_path: Path) -> None:
    path = film(tmp_path / "pan.mp4", lambda i: 4.0 * i, 40)
    task = extract_frames(path, tmp_path / "out", 5)
    for event in task:
        if isinstance(event, Progress) and event.stage == "write frames":
            break
    task.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pan.mp4"]


@pytest.mark.skipif(not (DATA / "video" / "can.mp4").is_file(), reason="the shared video is absent")
def test_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "SHARPNESS_SIDE_PX", 192)  # a quick look is enough here
    photos, events = finish(extract_frames(DATA / "video" / "can.mp4", tmp_path / "out", 40))
    assert 38 <= len(photos) <= 40 and photos.sizes == ((720, 1280),) * len(photos)
    assert numbers(photos.names)[-1] < 706 and (np.diff(numbers(photos.names)) > 0).all()
    assert not [e for e in events if isinstance(e, Note)]
