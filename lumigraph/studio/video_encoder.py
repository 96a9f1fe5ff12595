"""Rendered frames to a video that every player and browser opens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.video.reformatter import ColorRange, Colorspace
from torch import Tensor

from lumigraph.studio.files import atomic_path

QUALITY = "18"  # x264's constant rate factor: visually lossless
LIMITED = BT709 = 1  # the codes of ITU-T H.273


@contextmanager
def mp4_writer(path: Path, size: tuple[int, int], fps: int) -> Iterator[Callable[[Tensor], None]]:
    """Yields `write(frame)`, frame uint8 (H, W, 3) of `size` (width, height), both even: H.264 halves its colours.

    The video takes its place when the block ends; if the block raises, nothing is left. The index lies in front
    (faststart), so that a browser plays before it has everything. BT.709, and said so: players guess otherwise.
    """
    width, height = size
    if width % 2 or height % 2:
        raise ValueError(f"an H.264 video has an even width and height, not {width}x{height}")
    with atomic_path(path) as temporary, av.open(str(temporary), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": QUALITY, "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_count = os.cpu_count() or 1
        context = stream.codec_context
        context.color_range, context.colorspace = LIMITED, BT709
        context.color_primaries = context.color_trc = BT709

        def write(frame: Tensor) -> None:
            if tuple(frame.shape) != (height, width, 3):
                raise ValueError(f"a frame must have the shape {(height, width, 3)}, not {tuple(frame.shape)}")
            picture = av.VideoFrame.from_ndarray(frame.cpu().contiguous().numpy(), format="rgb24")
            picture = picture.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            container.mux(stream.encode(picture))

        yield write
        container.mux(stream.encode(None))
