"""A video becomes photos: sharp frames, evenly spaced along the camera's movement.

Two passes, so that memory does not grow with the video. The first decodes every frame small and grey and keeps two
numbers of it: sharpness, the variance of the Laplacian (Pech-Pacheco et al. 2000), and how far the picture has moved so
far, by dense optical flow (Kroeger et al. 2016). The second decodes again and writes the chosen frames.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumigraph.captures.photos import JPEG_QUALITY, PhotoSet
from lumigraph.scene.errors import CaptureError
from lumigraph.wire.events import Event, Note, Progress

SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".3gp", ".mpg", ".mpeg"})
# Containers that hold their own pictures. Playlists (HLS, concat, image sequences) could name other files.
CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,3gp"
MAX_PIXELS = 8192 * 8192  # of a frame
MAX_FRAMES = 500_000  # 4.6 hours at 30 per second
SHARPNESS_SIDE, FLOW_SIDE = 640, 192  # pixels of the longer side of the two grey copies
FLOW_LEAST = 64  # of its shorter side
STEP = 0.02  # of the longer side: flow is measured against a frame of the past until the picture moved this far
STILL = 0.10  # of the longer side, over the whole video: less movement than this shows no depth


@dataclass(frozen=True)
class _Survey:
    """What the first pass remembers of n frames."""

    sharpness: NDArray[np.float64]  # (n,)
    moved: NDArray[np.float64]  # (n,) since the first frame, in units of the longer side; never falls


def extract_frames(video: Path, out: Path, count: int = 80) -> Generator[Event, None, PhotoSet]:
    """Writes up to `count` frames of a video as upright JPEGs into the folder `out`, and describes them as a PhotoSet.

    The movement is cut into `count` equal stretches and the sharpest frame of the middle of each is taken; a stretch
    that the camera jumps over gives none. Files are named by the frame's number in the video. Raises CaptureError
    when the file is no readable video or holds fewer than two frames, ValueError when count < 2. Nothing half-written
    stays behind.
    """
    if count < 2:
        raise ValueError(f"at least two frames are needed, not {count}")
    survey = yield from _survey(video)
    still = survey.moved[-1] < STILL
    if still:
        yield Note(
            text=f"the camera hardly moves in {video.name}: walk around the subject to show depth", level="warning"
        )
    chosen = choose(survey.sharpness, survey.moved, count)
    growing = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    try:
        shutil.rmtree(growing, ignore_errors=True)
        growing.mkdir(parents=True)
        names, sizes = yield from _write(video, chosen, growing)
        shutil.rmtree(out, ignore_errors=True)
        growing.replace(out)
    finally:
        shutil.rmtree(growing, ignore_errors=True)
    unknown = (None,) * len(names)
    return PhotoSet(out, tuple(names), tuple(sizes), focal_px=unknown, gps=unknown, from_video=True)


def choose(sharpness: NDArray[np.float64], moved: NDArray[np.float64], count: int) -> list[int]:
    """Indices, growing, of at most `count` frames: the sharpest in the middle half of each stretch of movement.

    Frames of neighbouring stretches then stay half a stretch apart, unless a stretch has no frame in its middle. A
    video without movement is cut by time instead.
    """
    if moved[-1] <= 0:
        moved = np.arange(len(moved), dtype=np.float64)
    place = moved / moved[-1] * count  # in stretches
    stretch = np.minimum(place.astype(np.int64), count - 1)
    in_middle = np.abs(place - stretch - 0.5) <= 0.25
    chosen = []
    for number in np.unique(stretch):
        frames = np.flatnonzero(stretch == number)
        middle = frames[in_middle[frames]]
        candidates = middle if len(middle) else frames
        chosen.append(int(candidates[np.argmax(sharpness[candidates])]))
    return chosen


def _survey(video: Path) -> Generator[Event, None, _Survey]:
    """The first pass."""
    sharpness: list[float] = []
    moved: list[float] = []
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    past: NDArray[np.uint8] | None = None  # the frame of the past, and how far the picture had moved by then
    base = 0.0
    with closing(_Video(video)) as source:
        expected = source.expected_frames
        for frame in source.frames():
            grey = source.grey(frame, SHARPNESS_SIDE)
            sharpness.append(float(cv2.Laplacian(grey, cv2.CV_32F).var()))
            small = _shrunk(grey)
            if past is None or past.shape != small.shape:  # a stream may change its size
                past = small
            vectors = flow.calc(past, small, np.zeros((*small.shape, 2), dtype=np.float32))
            distance = float(np.linalg.norm(vectors, axis=2).mean()) / max(small.shape)
            moved.append(max(base + distance, moved[-1] if moved else 0.0))
            # Not frame by frame: noise would add up while the camera rests. Not always the first: flow reaches not far.
            if distance > STEP:
                past, base = small, moved[-1]
            if len(sharpness) % 10 == 0:
                total = max(expected, len(sharpness)) if expected else None
                yield Progress(stage="look through the video", done=len(sharpness), total=total, unit="frames")
    if len(sharpness) < 2:
        raise CaptureError(f"{video} holds {len(sharpness) or 'no'} readable frames: give a video of some seconds")
    return _Survey(np.array(sharpness), np.array(moved))


def _write(
    video: Path, chosen: list[int], folder: Path
) -> Generator[Event, None, tuple[list[str], list[tuple[int, int]]]]:
    """The second pass: the chosen frames as JPEGs, upright."""
    names: list[str] = []
    sizes: list[tuple[int, int]] = []
    wanted = set(chosen)
    with closing(_Video(video)) as source:
        for number, frame in enumerate(source.frames()):
            if number not in wanted:
                continue
            picture = Image.fromarray(source.upright(frame))
            names.append(f"frame_{number:06d}.jpg")
            sizes.append(picture.size)
            picture.save(folder / names[-1], quality=JPEG_QUALITY)
            yield Progress(stage="write frames", done=len(names), total=len(chosen), unit="frames")
            if len(names) == len(chosen):
                break
    if len(names) < 2:
        raise CaptureError(f"{video} changed while it was read")
    return names, sizes


def _shrunk(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy for the flow. Its shorter side keeps FLOW_LEAST pixels, if need be by stretching: on less than some 32 the
    flow of OpenCV 5.0 reads beyond its picture and crashes."""
    scale = min(1.0, FLOW_SIDE / max(grey.shape))
    height, width = (max(FLOW_LEAST, round(side * scale)) for side in grey.shape)
    return np.ascontiguousarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


class _Video:
    """The first video stream of a local file, decoded frame by frame in order of display."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # The prefix "file:" keeps a name such as "http:x" a name; the lists keep every demuxer to this file.
        options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
        try:
            self._container = av.open(f"file:{path.absolute()}", options=options)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise CaptureError(f"{path} is not a readable video ({_reason(error)})") from error
        if not self._container.streams.video:
            self._container.close()
            raise CaptureError(f"{path} holds no video stream")
        self._stream = self._container.streams.video[0]
        if getattr(self._stream, "codec_context", None) is None:  # without one, a stream has not even a size
            self._container.close()
            raise CaptureError(f"{path} is not a readable video (its codec is unknown): save it as H.264")
        self._stream.thread_type = "AUTO"
        if self._stream.width * self._stream.height > MAX_PIXELS:
            self._container.close()
            raise CaptureError(
                f"{path} has frames of {self._stream.width}x{self._stream.height} pixels: shrink it first"
            )

    def close(self) -> None:
        self._container.close()

    @property
    def expected_frames(self) -> int:
        """As the container says, or by its length; 0 where nobody knows."""
        stream = self._stream
        if stream.frames:
            return int(stream.frames)
        if stream.duration and stream.time_base and stream.average_rate:
            return int(stream.duration * stream.time_base * stream.average_rate)
        return 0

    def frames(self) -> Iterator[Any]:
        """Every frame that decodes; what is damaged is passed over, the same way each time."""
        count = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
                decoded = packet.decode()
            except StopIteration:
                return
            except (av.error.FFmpegError, IndexError):
                # A damaged packet costs its frame; a damaged container ends here, since `packets` is then exhausted.
                # IndexError: it announces a stream that was not there at the start.
                continue
            for frame in decoded:
                count += 1
                if count > MAX_FRAMES or frame.width * frame.height > MAX_PIXELS:
                    raise CaptureError(f"{self.path} has too many or too large frames: cut or shrink it first")
                yield frame

    def grey(self, frame: Any, side: int) -> NDArray[np.uint8]:
        """A grey copy with its longer side reduced to `side` pixels; not turned."""
        scale = min(1.0, side / max(frame.width, frame.height))
        width, height = max(16, round(frame.width * scale)), max(16, round(frame.height * scale))
        return np.ascontiguousarray(frame.to_ndarray(width=width, height=height, format="gray"), dtype=np.uint8)

    def upright(self, frame: Any) -> NDArray[np.uint8]:
        """(H, W, 3) RGB with square pixels, turned as the container says it is to be shown."""
        aspect = frame.sample_aspect_ratio if hasattr(frame, "sample_aspect_ratio") else None
        aspect = aspect or self._stream.sample_aspect_ratio
        width = round(frame.width * float(aspect)) if aspect and 0.2 < aspect < 5 else frame.width
        rgb = frame.to_ndarray(width=width, height=frame.height, format="rgb24")
        return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
