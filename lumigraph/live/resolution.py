"""How coarse a picture must be to be in time, from how long the last ones took."""

from __future__ import annotations

from dataclasses import dataclass, field

SCALES = (1.0, 2 / 3, 1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 8, 1 / 12, 1 / 16)  # of width and height
SMALLEST = 16  # pixels of a side

Size = tuple[int, int]


def scaled(size: Size, level: int) -> Size:
    """(width, height) at SCALES[level]."""
    return max(SMALLEST, round(size[0] * SCALES[level])), max(SMALLEST, round(size[1] * SCALES[level]))


@dataclass
class Pace:
    """Chooses levels of SCALES. Seconds are those of rendering and encoding one picture.

    Part of the time does not depend on pixels, and it is not known how much: what is expected of a finer level from a
    coarser one is therefore too much, and of a coarser one too little. So `moving` climbs one level at a time.
    """

    coarse_seconds: float = 1 / 20  # while the camera moves: 15 frames a second with room for the way to the screen
    sharp_seconds: float = 2.0  # at rest: for so long at most nobody can move the camera
    moving: int = SCALES.index(1 / 8)  # the level while the camera moves; at first nothing is known
    measured: list[float] = field(default_factory=list)  # seconds a pixel of the last two pictures

    @property
    def known(self) -> bool:
        return bool(self.measured)

    def took(self, picture: Size, full: Size, seconds: float) -> None:
        """A `picture` of (width, height) took so long; `full` is the size at rest."""
        self.measured = [*self.measured[-1:], seconds / (picture[0] * picture[1])]
        finest = self._finest(full, 0.8 * self.coarse_seconds)  # a margin, so that it does not swing between two
        if finest < self.moving:
            self.moving -= 1
        elif self.expected(scaled(full, self.moving)) > self.coarse_seconds:
            self.moving = finest

    def expected(self, picture: Size) -> float:
        """Seconds for a `picture` of (width, height); 0 while nothing is known."""
        # The quicker of the last two: one that was held up by something else is no reason to become coarse.
        return min(self.measured, default=0.0) * picture[0] * picture[1]

    def resting(self, full: Size) -> int:
        """The finest level that is affordable at rest."""
        return self._finest(full, self.sharp_seconds)

    def _finest(self, full: Size, seconds: float) -> int:
        levels = range(len(SCALES))
        return next((i for i in levels if self.expected(scaled(full, i)) <= seconds), len(SCALES) - 1)
