"""Spline profiles of bodies of revolution, with distance tables for sphere tracing.

A profile is a curve in the half plane (r, z): distance from the axis, height along it. Rays are marched through a table
of signed distances, which costs one bilinear lookup per step however many points the curve has.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lumigraph.captures.synthetic.vectors import Floats, bilinear

Doubles = npt.NDArray[np.float64]

SEGMENT_COUNT = 192  # of equal length, per profile


@dataclass(frozen=True)
class Profile:
    """A profile curve and its distance tables.

    Args:
        outline: (n, 2) points (r, z), metres.
        distance: (H, W) signed distance to the outline in metres, negative inside.
        surface_table: (H, W, 3) gradient (r, z) of the distance, and the position of the nearest point along the
            outline, 0..1.
        low: height at which the tables start on the axis, metres.
        extent: size of the tables (r, z), metres.
    """

    outline: Floats
    distance: Floats
    surface_table: Floats
    low: float
    extent: tuple[float, float]

    @cached_property
    def bounding_cylinder(self) -> tuple[float, float, float]:
        """Radius, bottom and top of the bounding cylinder, metres."""
        return float(self.outline[:, 0].max()), float(self.outline[:, 1].min()), float(self.outline[:, 1].max())

    @cached_property
    def bounding_radius(self) -> float:
        """Distance of the farthest point from the origin, metres."""
        return float(np.hypot(*self.outline.T).max())

    def distance_at(self, r: Floats, z: Floats) -> Floats:
        """Signed distance (R,) in metres.

        Outside of the table it is the value at the nearest table point. Such a step is never too long, because moving
        to the nearest point of a convex box approaches every point in the box.
        """
        return bilinear(self.distance, *self._table_coordinates(r, z))

    def surface_at(self, r: Floats, z: Floats) -> Floats:
        """Distance gradient (r, z) and position along the outline: (R, 3)."""
        return bilinear(self.surface_table, *self._table_coordinates(r, z))

    def _table_coordinates(self, r: Floats, z: Floats) -> tuple[Floats, Floats]:
        return r * np.float32(1 / self.extent[0]), (z - np.float32(self.low)) * np.float32(1 / self.extent[1])


def fit_profile(points: Sequence[tuple[float, float]], is_closed: bool = False, cells: int = 160) -> Profile:
    """Fit a smooth curve through `points` in metres; a repeated point makes a corner.

    An open curve starts and ends on the axis, a closed one (a ring) does not touch it. `cells` is the resolution of the
    tables along their longer side.
    """
    outline = _resample(_spline(np.array(points, np.float64), is_closed), SEGMENT_COUNT)
    margin = 0.02 * float(np.ptp(outline, axis=0).max()) + 1e-3
    low, high = np.array([0.0, outline[:, 1].min() - margin]), outline.max(0) + margin
    cell = float((high - low).max()) / cells
    columns, rows = (int(n) for n in np.ceil((high - low) / cell))
    z, r = np.mgrid[:rows, :columns].reshape(2, -1)
    distance, surface_table = _tables(outline, (r + 0.5) * cell, low[1] + (z + 0.5) * cell)
    return Profile(
        outline=outline.astype(np.float32),
        distance=distance.reshape(rows, columns).astype(np.float32),
        surface_table=surface_table.reshape(rows, columns, 3).astype(np.float32),
        low=float(low[1]),
        extent=(columns * cell, rows * cell),
    )


def _spline(points: Doubles, is_closed: bool) -> Doubles:
    """Catmull-Rom spline through the points, but straight next to corners, where it would overshoot into a lip."""
    padding = (points[-1:], points[:2]) if is_closed else (points[:1], points[-1:])
    padded_points = np.concatenate([padding[0], points, padding[1]])
    t = np.linspace(0, 1, 12, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(padded_points, padded_points[1:], padded_points[2:], padded_points[3:], strict=False):
        if np.array_equal(b, c):
            continue
        spline = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
        straight = np.array_equal(a, b) or np.array_equal(c, d)
        pieces.append(b + (c - b) * t if straight else spline / 2)
    path: Doubles = np.concatenate([*pieces, points[:1] if is_closed else points[-1:]])
    path[:, 0] = np.maximum(path[:, 0], 0)
    return path


def _resample(path: Doubles, count: int) -> Doubles:
    """Resample a polyline to `count` + 1 points at equal steps."""
    arc_length = np.concatenate([[0], np.hypot(*np.diff(path, axis=0).T).cumsum()])
    steps = np.linspace(0, arc_length[-1], count + 1)
    return np.stack([np.interp(steps, arc_length, path[:, i]) for i in range(2)], 1)


def _tables(outline: Doubles, r: Doubles, z: Doubles) -> tuple[Doubles, Doubles]:
    """Exact distance tables of an outline.

    Args:
        outline: (n + 1, 2).
        r, z: (P,) table points.

    Returns signed distance (P,), and its gradient and the nearest position along the outline (P, 3).
    """
    smallest, along = np.full(len(r), np.inf), np.zeros(len(r))
    foot_r, foot_z = np.zeros(len(r)), np.zeros(len(r))  # the nearest point of the outline
    is_inside = np.zeros(len(r), bool)
    for i, (a, b) in enumerate(itertools.pairwise(outline)):
        side = b - a
        f = np.clip(((r - a[0]) * side[0] + (z - a[1]) * side[1]) / (side @ side), 0, 1)
        on_r, on_z = a[0] + f * side[0], a[1] + f * side[1]
        distance_squared = (r - on_r) ** 2 + (z - on_z) ** 2
        is_nearer = distance_squared < smallest
        for current, new in ((smallest, distance_squared), (along, i + f), (foot_r, on_r), (foot_z, on_z)):
            np.copyto(current, new, where=is_nearer)
        # A ray from the table point outwards crosses the outline an odd number of times if the point is inside.
        crossings = np.flatnonzero((a[1] > z) != (b[1] > z))
        if len(crossings):
            is_inside[crossings] ^= a[0] + (z[crossings] - a[1]) / side[1] * side[0] > r[crossings]
    distance = np.sqrt(smallest) * np.where(is_inside, -1.0, 1.0)
    safe_distance = np.where(np.abs(distance) < 1e-9, 1e-9, distance)
    gradient = (r - foot_r) / safe_distance, (z - foot_z) / safe_distance
    return distance, np.column_stack([*gradient, along / (len(outline) - 1)])
