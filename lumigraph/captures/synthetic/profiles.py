"""Outlines of turned things: what a lathe knows about a vase.

An outline lives in the half plane (r, z): distance from the axis, height along it. Rays are marched through a table of
signed distances to it, which costs one bilinear look-up a step however many points the outline has.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lumigraph.captures.synthetic.vectors import Floats, look_up

Doubles = npt.NDArray[np.float64]

PIECES = 192  # of the outline, at equal steps


@dataclass(frozen=True)
class Profile:
    """`outline` (n, 2) metres. The tables start on the axis at the height `low` and measure `extent` (r, z) metres.

    `distance` (H, W) is the signed distance to the outline, negative inside; `nature` (H, W, 3) its gradient (r, z) and
    how far along the outline the nearest point lies (0..1).
    """

    outline: Floats
    distance: Floats
    nature: Floats
    low: float
    extent: tuple[float, float]

    @cached_property
    def can(self) -> tuple[float, float, float]:
        """Radius, bottom and top of the cylinder around the body."""
        return float(self.outline[:, 0].max()), float(self.outline[:, 1].min()), float(self.outline[:, 1].max())

    @cached_property
    def reach(self) -> float:
        """The farthest point from the origin."""
        return float(np.hypot(*self.outline.T).max())

    def distance_at(self, r: Floats, z: Floats) -> Floats:
        """(R,) metres. Beyond the table it answers for the nearest place in it, which is never too far: stepping into a
        convex box brings one closer to everything that lies in the box."""
        return look_up(self.distance, *self._place(r, z))

    def nature_at(self, r: Floats, z: Floats) -> Floats:
        """(R, 3)"""
        return look_up(self.nature, *self._place(r, z))

    def _place(self, r: Floats, z: Floats) -> tuple[Floats, Floats]:
        return r * np.float32(1 / self.extent[0]), (z - np.float32(self.low)) * np.float32(1 / self.extent[1])


def profile(points: Sequence[tuple[float, float]], closed: bool = False, cells: int = 160) -> Profile:
    """A smooth outline through `points` in metres; a point given twice makes a corner.

    An open outline starts and ends on the axis, a closed one (a ring) stays off it. `cells` is the resolution of the
    tables along their longer side.
    """
    outline = _evenly(_smooth(np.array(points, np.float64), closed), PIECES)
    margin = 0.02 * float(np.ptp(outline, axis=0).max()) + 1e-3
    low, high = np.array([0.0, outline[:, 1].min() - margin]), outline.max(0) + margin
    cell = float((high - low).max()) / cells
    columns, rows = (int(n) for n in np.ceil((high - low) / cell))
    z, r = np.mgrid[:rows, :columns].reshape(2, -1)
    distance, nature = _tables(outline, (r + 0.5) * cell, low[1] + (z + 0.5) * cell)
    return Profile(
        outline=outline.astype(np.float32),
        distance=distance.reshape(rows, columns).astype(np.float32),
        nature=nature.reshape(rows, columns, 3).astype(np.float32),
        low=float(low[1]),
        extent=(columns * cell, rows * cell),
    )


def _smooth(points: Doubles, closed: bool) -> Doubles:
    """Catmull-Rom through the points, straight into and out of corners: an overshoot would make a lip nobody drew."""
    ends = (points[-1:], points[:2]) if closed else (points[:1], points[-1:])
    around = np.concatenate([ends[0], points, ends[1]])
    t = np.linspace(0, 1, 12, endpoint=False)[:, None]
    parts = []
    for a, b, c, d in zip(around, around[1:], around[2:], around[3:], strict=False):
        if np.array_equal(b, c):
            continue
        spline = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
        straight = np.array_equal(a, b) or np.array_equal(c, d)
        parts.append(b + (c - b) * t if straight else spline / 2)
    path: Doubles = np.concatenate([*parts, points[:1] if closed else points[-1:]])
    path[:, 0] = np.maximum(path[:, 0], 0)
    return path


def _evenly(path: Doubles, count: int) -> Doubles:
    """`count` + 1 points at equal steps along a polyline."""
    walked = np.concatenate([[0], np.hypot(*np.diff(path, axis=0).T).cumsum()])
    steps = np.linspace(0, walked[-1], count + 1)
    return np.stack([np.interp(steps, walked, path[:, i]) for i in range(2)], 1)


def _tables(outline: Doubles, r: Doubles, z: Doubles) -> tuple[Doubles, Doubles]:
    """(n + 1, 2), (P,), (P,) -> signed distance (P,), and its gradient and the foot along the outline (P, 3); exact."""
    best, along = np.full(len(r), np.inf), np.zeros(len(r))
    foot_r, foot_z = np.zeros(len(r)), np.zeros(len(r))  # the nearest point of the outline
    inside = np.zeros(len(r), bool)
    for i, (a, b) in enumerate(itertools.pairwise(outline)):
        side = b - a
        f = np.clip(((r - a[0]) * side[0] + (z - a[1]) * side[1]) / (side @ side), 0, 1)
        on_r, on_z = a[0] + f * side[0], a[1] + f * side[1]
        squared = (r - on_r) ** 2 + (z - on_z) ** 2
        nearer = squared < best
        for kept, new in ((best, squared), (along, i + f), (foot_r, on_r), (foot_z, on_z)):
            np.copyto(kept, new, where=nearer)
        # A line from the place outwards crosses the outline an odd number of times when the place is inside.
        spans = np.flatnonzero((a[1] > z) != (b[1] > z))
        if len(spans):
            inside[spans] ^= a[0] + (z[spans] - a[1]) / side[1] * side[0] > r[spans]
    distance = np.sqrt(best) * np.where(inside, -1.0, 1.0)
    apart = np.where(np.abs(distance) < 1e-9, 1e-9, distance)
    return distance, np.column_stack([(r - foot_r) / apart, (z - foot_z) / apart, along / (len(outline) - 1)])
