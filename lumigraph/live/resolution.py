"""Adaptive resolution: chooses the size of the next frame from the render times of the last ones."""

from __future__ import annotations

from dataclasses import dataclass, field

SCALES = (1.0, 2 / 3, 1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 8, 1 / 12, 1 / 16)  # of width and height
MIN_SIDE_PX = 16

Size = tuple[int, int]


def scale_size(size: Size, level: int) -> Size:
    """(width, height) at SCALES[level]."""
    return max(MIN_SIDE_PX, round(size[0] * SCALES[level])), max(MIN_SIDE_PX, round(size[1] * SCALES[level]))


@dataclass
class AdaptiveResolution:
    """Chooses levels of SCALES. All times are seconds to render and encode one frame.

    An unknown part of the time does not depend on the number of pixels. An estimate from a coarser level is therefore
    too high for a finer one, and too low the other way round. So `moving_level` improves by one level at a time.
    """

    coarse_seconds: float = 1 / 20  # while the camera moves: 15 frames a second, with time left for the transfer
    sharp_seconds: float = 2.0  # at rest: the longest time for which the camera does not react
    moving_level: int = SCALES.index(1 / 8)  # the level while the camera moves; coarse until times are measured
    pixel_seconds: list[float] = field(default_factory=list)  # seconds per pixel of the last two frames

    @property
    def has_measurements(self) -> bool:
        return bool(self.pixel_seconds)

    def record(self, size: Size, full_size: Size, seconds: float) -> None:
        """Record the render time of a frame of `size` (width, height); `full_size` is the size at rest."""
        self.pixel_seconds = [*self.pixel_seconds[-1:], seconds / (size[0] * size[1])]
        finest = self._finest_level(full_size, 0.8 * self.coarse_seconds)  # the margin avoids swings between two levels
        if finest < self.moving_level:
            self.moving_level -= 1
        elif self.estimate(scale_size(full_size, self.moving_level)) > self.coarse_seconds:
            self.moving_level = finest

    def estimate(self, size: Size) -> float:
        """Estimated seconds for a frame of `size` (width, height); 0 without measurements."""
        # The faster of the last two: one slow frame, delayed by another process, must not lower the resolution.
        return min(self.pixel_seconds, default=0.0) * size[0] * size[1]

    def resting_level(self, full_size: Size) -> int:
        """The finest level that is affordable at rest."""
        return self._finest_level(full_size, self.sharp_seconds)

    def _finest_level(self, full_size: Size, seconds: float) -> int:
        levels = range(len(SCALES))
        return next((i for i in levels if self.estimate(scale_size(full_size, i)) <= seconds), len(SCALES) - 1)
