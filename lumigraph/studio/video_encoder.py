"""Encode rendered frames as H.264 video that all players and browsers support."""

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

X264_RATE_FACTOR = "18"  # visually lossless
H273_LIMITED_RANGE = H273_BT709 = 1  # codes of ITU-T H.273


@contextmanager
def mp4_writer(path: Path, size: tuple[int, int], fps: int) -> Iterator[Callable[[Tensor], None]]:
    """Yield `write(frame)`, frame uint8 (H, W, 3) of `size` (width, height); both must be even for 4:2:0 chroma.

    The video appears when the block ends; if the block raises, no file is left. The index is at the start (faststart),
    so that browsers play during the download. The colour space is tagged BT.709, since players otherwise guess it.
    """
    width, height = size
    if width % 2 or height % 2:
        raise ValueError(f"H.264 video requires an even width and height, not {width}x{height}")
    with atomic_path(path) as temporary, av.open(str(temporary), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(fps), options={"crf": X264_RATE_FACTOR, "preset": "medium"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_count = os.cpu_count() or 1
        context = stream.codec_context
        context.color_range, context.colorspace = H273_LIMITED_RANGE, H273_BT709
        context.color_primaries = context.color_trc = H273_BT709

        def write(frame: Tensor) -> None:
            if tuple(frame.shape) != (height, width, 3):
                raise ValueError(f"a frame must have the shape {(height, width, 3)}, not {tuple(frame.shape)}")
            image = av.VideoFrame.from_ndarray(frame.cpu().contiguous().numpy(), format="rgb24")
            image = image.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
            container.mux(stream.encode(image))

        yield write
        container.mux(stream.encode(None))
