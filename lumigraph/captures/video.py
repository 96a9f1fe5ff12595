"""Extraction of sharp video frames, evenly spaced along the camera's motion.

Two passes, so that memory does not grow with the video. The first decodes every frame to a small grey image and stores
two numbers. Sharpness is the variance of the Laplacian (Pech-Pacheco et al. 2000). Motion up to the frame is measured
by dense optical flow (Kroeger et al. 2016). The second pass decodes again and writes the chosen frames.
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

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".3gp", ".mpg", ".mpeg"}
)
# Containers with their own frames. Playlists (HLS, concat, image sequences) could refer to other files.
CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,3gp"
MAX_FRAME_PIXELS = 8192 * 8192
MAX_FRAMES = 500_000  # 4.6 hours at 30 per second
SHARPNESS_SIDE_PX, FLOW_SIDE_PX = 640, 192  # longer sides of the two grey copies
MIN_FLOW_SIDE_PX = 64  # shorter side
# In units of the longer side:
MAX_FLOW_MOTION = 0.02  # flow is measured against one reference frame until the image has moved this far
MIN_VIDEO_MOTION = 0.10  # over the whole video; less motion gives no parallax


@dataclass(frozen=True)
class _FrameStats:
    """Measurements of the first pass over n frames."""

    sharpness: NDArray[np.float64]  # (n,)
    motion: NDArray[np.float64]  # (n,) since the first frame, in units of the longer side; never decreases


def extract_frames(video: Path, out: Path, count: int = 80) -> Generator[Event, None, PhotoSet]:
    """Write up to `count` frames of a video as upright JPEGs into the folder `out`; returns their PhotoSet.

    The motion is cut into `count` equal intervals, and the sharpest frame in the middle of each is written; an interval
    without frames gives none. Files are named by the frame's number in the video. Raises CaptureError if the file is
    not a readable video or has fewer than two frames, ValueError if count < 2. No partial output remains.
    """
    if count < 2:
        raise ValueError(f"at least two frames are needed, not {count}")
    stats = yield from _measure_frames(video)
    is_still = stats.motion[-1] < MIN_VIDEO_MOTION
    if is_still:
        yield Note(
            text=f"the camera hardly moves in {video.name}: walk around the subject to show depth", level="warning"
        )
    frame_numbers = choose_frames(stats.sharpness, stats.motion, count)
    tmp_folder = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    try:
        shutil.rmtree(tmp_folder, ignore_errors=True)
        tmp_folder.mkdir(parents=True)
        names, sizes = yield from _write_frames(video, frame_numbers, tmp_folder)
        shutil.rmtree(out, ignore_errors=True)
        tmp_folder.replace(out)
    finally:
        shutil.rmtree(tmp_folder, ignore_errors=True)
    no_values = (None,) * len(names)
    return PhotoSet(out, tuple(names), tuple(sizes), focal_px=no_values, gps=no_values, from_video=True)


def choose_frames(sharpness: NDArray[np.float64], motion: NDArray[np.float64], count: int) -> list[int]:
    """Choose at most `count` frames: the sharpest in the middle half of each interval of the motion.

    Frames of neighbouring intervals are then at least half an interval apart, unless an interval has no frame in its
    middle. A video without motion is divided by time instead.

    Args:
        sharpness: (n,).
        motion: (n,) motion since the first frame, never decreasing.

    Returns increasing frame numbers.
    """
    if motion[-1] <= 0:
        motion = np.arange(len(motion), dtype=np.float64)
    position = motion / motion[-1] * count  # in intervals
    interval = np.minimum(position.astype(np.int64), count - 1)
    is_in_middle = np.abs(position - interval - 0.5) <= 0.25
    frame_numbers = []
    for number in np.unique(interval):
        frames = np.flatnonzero(interval == number)
        middle = frames[is_in_middle[frames]]
        candidates = middle if len(middle) else frames
        frame_numbers.append(int(candidates[np.argmax(sharpness[candidates])]))
    return frame_numbers


def _measure_frames(video: Path) -> Generator[Event, None, _FrameStats]:
    """Run the first pass: sharpness and motion of every frame."""
    sharpness: list[float] = []
    motion: list[float] = []
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    reference: NDArray[np.uint8] | None = None  # the reference frame of the flow, and the motion up to it
    reference_motion = 0.0
    with closing(_Video(video)) as source:
        expected = source.expected_frames
        for frame in source.frames():
            grey = source.grey(frame, SHARPNESS_SIDE_PX)
            sharpness.append(float(cv2.Laplacian(grey, cv2.CV_32F).var()))
            small = _resize_for_flow(grey)
            if reference is None or reference.shape != small.shape:  # a stream may change its frame size
                reference = small
            vectors = flow.calc(reference, small, np.zeros((*small.shape, 2), dtype=np.float32))
            distance = float(np.linalg.norm(vectors, axis=2).mean()) / max(small.shape)
            motion.append(max(reference_motion + distance, motion[-1] if motion else 0.0))
            # Not frame by frame: noise would accumulate while the camera rests. Not always the first frame: flow is
            # short-range.
            if distance > MAX_FLOW_MOTION:
                reference, reference_motion = small, motion[-1]
            if len(sharpness) % 10 == 0:
                total = max(expected, len(sharpness)) if expected else None
                yield Progress(stage="scan frames", done=len(sharpness), total=total, unit="frames")
    if len(sharpness) < 2:
        raise CaptureError(f"{video} holds {len(sharpness) or 'no'} readable frames: give a video of some seconds")
    return _FrameStats(np.array(sharpness), np.array(motion))


def _write_frames(
    video: Path, frame_numbers: list[int], folder: Path
) -> Generator[Event, None, tuple[list[str], list[tuple[int, int]]]]:
    """Run the second pass: write the chosen frames as upright JPEGs."""
    names: list[str] = []
    sizes: list[tuple[int, int]] = []
    wanted_numbers = set(frame_numbers)
    with closing(_Video(video)) as source:
        for number, frame in enumerate(source.frames()):
            if number not in wanted_numbers:
                continue
            image = Image.fromarray(source.upright(frame))
            names.append(f"frame_{number:06d}.jpg")
            sizes.append(image.size)
            image.save(folder / names[-1], quality=JPEG_QUALITY)
            yield Progress(stage="write frames", done=len(names), total=len(frame_numbers), unit="frames")
            if len(names) == len(frame_numbers):
                break
    if len(names) < 2:
        raise CaptureError(f"{video} changed while it was read")
    return names, sizes


def _resize_for_flow(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Downscale for the flow. The shorter side keeps MIN_FLOW_SIDE_PX pixels, by stretching if necessary.

    Below about 32 pixels the flow of OpenCV 5.0 reads out of bounds and crashes.
    """
    scale = min(1.0, FLOW_SIDE_PX / max(grey.shape))
    height, width = (max(MIN_FLOW_SIDE_PX, round(side * scale)) for side in grey.shape)
    return np.ascontiguousarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


class _Video:
    """First video stream of a local file, decoded in display order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # The prefix "file:" makes a name such as "http:x" a local path; the lists restrict every demuxer to this file.
        options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
        try:
            self._container = av.open(f"file:{path.absolute()}", options=options)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise CaptureError(f"{path} is not a readable video ({_reason(error)})") from error
        if not self._container.streams.video:
            self._container.close()
            raise CaptureError(f"{path} holds no video stream")
        self._stream = self._container.streams.video[0]
        if getattr(self._stream, "codec_context", None) is None:  # such a stream has no frame size
            self._container.close()
            raise CaptureError(f"{path} is not a readable video (its codec is unknown): save it as H.264")
        self._stream.thread_type = "AUTO"
        if self._stream.width * self._stream.height > MAX_FRAME_PIXELS:
            self._container.close()
            raise CaptureError(
                f"{path} has frames of {self._stream.width}x{self._stream.height} pixels: shrink it first"
            )

    def close(self) -> None:
        self._container.close()

    @property
    def expected_frames(self) -> int:
        """Number of frames by the container, or by its duration; 0 if unknown."""
        stream = self._stream
        if stream.frames:
            return int(stream.frames)
        if stream.duration and stream.time_base and stream.average_rate:
            return int(stream.duration * stream.time_base * stream.average_rate)
        return 0

    def frames(self) -> Iterator[Any]:
        """Yield every frame that decodes. Damaged packets are skipped, the same ones in each pass."""
        count = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                return
            except (av.error.FFmpegError, IndexError):
                # A damaged packet loses its frame; after a damaged container `packets` is exhausted.
                # IndexError: the packet belongs to a stream that the container's header does not list.
                continue
            for frame in frames:
                count += 1
                if count > MAX_FRAMES or frame.width * frame.height > MAX_FRAME_PIXELS:
                    raise CaptureError(f"{self.path} has too many or too large frames: cut or shrink it first")
                yield frame

    def grey(self, frame: Any, side: int) -> NDArray[np.uint8]:
        """Grey copy with its longer side downscaled to `side` pixels; not rotated."""
        scale = min(1.0, side / max(frame.width, frame.height))
        width, height = max(16, round(frame.width * scale)), max(16, round(frame.height * scale))
        return np.ascontiguousarray(frame.to_ndarray(width=width, height=height, format="gray"), dtype=np.uint8)

    def upright(self, frame: Any) -> NDArray[np.uint8]:
        """(H, W, 3) RGB with square pixels, rotated as the container specifies."""
        aspect = frame.sample_aspect_ratio if hasattr(frame, "sample_aspect_ratio") else None
        aspect = aspect or self._stream.sample_aspect_ratio
        width = round(frame.width * float(aspect)) if aspect and 0.2 < aspect < 5 else frame.width
        rgb = frame.to_ndarray(width=width, height=frame.height, format="rgb24")
        return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
