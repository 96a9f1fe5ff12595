"""Shapes: where a ray meets them, and the chart that peels their surface into a picture.

Each shape works in a frame of its own; only `hit`, `local` and what is named `world` know the outside. Charts are
pictures in the sense of `vectors`: x and y in 0..1, y downwards.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

from lumigraph.captures.synthetic.profiles import Profile
from lumigraph.captures.synthetic.vectors import REPLICATE, RING, Floats, Ints, away_from_zero, dot, unit

FAR = np.float32(1e9)  # metres: the distance of nothing

# Local points (3, R) and their chart coordinates (R,), (R,) -> albedo (R, 3). A function of the place alone, so that it
# may be asked in pieces and at any resolution.
Paint = Callable[[Floats, Floats, Floats], Floats]


@dataclass(frozen=True)
class Material:
    """What a surface looks like. `gloss` scales the mirror image of the room (1: glaze, 0: plaster); `polish` says how
    sharp that image is (1: a mirror, 0: a vague sheen)."""

    paint: Paint
    gloss: float = 0.0
    polish: float = 1.0


@dataclass(frozen=True, eq=False)
class Shape(ABC):
    """A surface. `origin` (3, 1) is its middle, the columns of `axes` (3, 3) are its own axes in the world.

    `texels` and `light_texels` are rows and columns: the resolution of the painted chart and of the light on it.
    """

    material: Material
    origin: Floats
    axes: Floats = field(default_factory=lambda: np.eye(3, dtype=np.float32), kw_only=True)
    texels: tuple[int, int] = field(kw_only=True)
    light_texels: tuple[int, int] = field(kw_only=True)
    border: ClassVar[int] = REPLICATE

    @property
    @abstractmethod
    def reach(self) -> float:
        """Radius of a ball around the origin that holds the shape."""

    @abstractmethod
    def meet(self, start: Floats, ray: Floats) -> Floats:
        """Local `start` (3, R) or (3, 1), unit `ray` (3, R) -> distance to the first meeting ahead (R,), else FAR."""

    @abstractmethod
    def chart(self, point: Floats) -> tuple[Floats, Floats]:
        """Local points on the surface -> x, y in the chart."""

    @abstractmethod
    def place(self, x: Floats, y: Floats) -> Floats:
        """x, y (R,) in the chart -> local points: the inverse of `chart`."""

    @abstractmethod
    def normal(self, point: Floats) -> Floats:
        """Local points on the surface -> unit normals."""

    def hit(self, start: Floats, ray: Floats) -> Floats:
        """`meet` for rays of the world."""
        return self.meet(self.local(start), self.axes.T @ ray)

    def local(self, point: Floats) -> Floats:
        return self.axes.T @ (point - self.origin)


def texel_centres(rows: int, columns: int) -> tuple[Floats, Floats]:
    """x, y (rows, columns) of a picture's texels."""
    x = (np.arange(columns, dtype=np.float32) + np.float32(0.5)) / np.float32(columns)
    y = (np.arange(rows, dtype=np.float32) + np.float32(0.5)) / np.float32(rows)
    return np.broadcast_to(x, (rows, columns)), np.broadcast_to(y[:, None], (rows, columns))


def turn_of(point: Floats) -> Floats:
    """(R,) 0..1: the way around local z, 0.5 at local +x."""
    turn: Floats = np.arctan2(point[1], point[0]) * np.float32(0.5 / math.pi) + np.float32(0.5)
    return turn


def around(turn: Floats) -> tuple[Floats, Floats]:
    """The inverse of `turn_of`: x and y on the unit circle."""
    angle = (turn - np.float32(0.5)) * np.float32(2 * math.pi)
    return np.cos(angle), np.sin(angle)


@dataclass(frozen=True, eq=False)
class Ball(Shape):
    """A sphere. Its chart is a world map, north up."""

    radius: float = field(kw_only=True)
    border: ClassVar[int] = RING

    @property
    def reach(self) -> float:
        return self.radius

    def meet(self, start: Floats, ray: Floats) -> Floats:
        b = dot(start, ray)
        inside = b * b - dot(start, start) + np.float32(self.radius**2)
        t = -b - np.sqrt(np.maximum(inside, 0))
        return np.where((inside > 0) & (t > 0), t, FAR)

    def chart(self, point: Floats) -> tuple[Floats, Floats]:
        height = np.clip(point[2] / np.float32(self.radius), -1, 1)
        return turn_of(point), np.arccos(height) * np.float32(1 / math.pi)

    def place(self, x: Floats, y: Floats) -> Floats:
        (a, b), colatitude = around(x), y * np.float32(math.pi)
        ring = np.sin(colatitude)
        return np.stack([ring * a, ring * b, np.cos(colatitude)]) * np.float32(self.radius)

    def normal(self, point: Floats) -> Floats:
        return unit(point)


@dataclass(frozen=True)
class Face:
    """A side of a box: the axis it faces and to which end, then the signed axes that run right and down in its picture,
    seen from outside with z up."""

    axis: int
    end: int
    right: tuple[int, int]
    down: tuple[int, int]


# The bottom is never seen: it borrows the picture of the top.
FACES = (
    Face(2, 1, (0, 1), (1, -1)),
    Face(0, 1, (1, 1), (2, -1)),
    Face(0, -1, (1, -1), (2, -1)),
    Face(1, 1, (0, -1), (2, -1)),
    Face(1, -1, (0, 1), (2, -1)),
)


@dataclass(frozen=True, eq=False)
class Block(Shape):
    """A box of half sizes `half` (3, 1). Its chart stacks FACES, each across the full width."""

    half: Floats = field(kw_only=True)

    @property
    def reach(self) -> float:
        return float(np.linalg.norm(self.half))

    def meet(self, start: Floats, ray: Floats) -> Floats:
        """Inside the box is between all three pairs of slabs (Kay and Kajiya 1986)."""
        inverse = 1 / away_from_zero(ray)
        middle, width = start * inverse, np.abs(inverse) * self.half
        enter, leave = (-middle - width).max(0), (-middle + width).min(0)
        return np.where((enter < leave) & (enter > 0), enter, FAR)

    def chart(self, point: Floats) -> tuple[Floats, Floats]:
        scaled, members = self._faces(point)
        x, y = np.empty_like(point[0]), np.empty_like(point[0])
        for here, face, (top, high) in zip(members, FACES, self._bands, strict=True):
            (right, s), (down, t) = face.right, face.down
            x[here] = scaled[right, here] * np.float32(s * 0.5) + np.float32(0.5)
            # A little margin keeps the next face in the stack from bleeding over the edge.
            along = np.clip(scaled[down, here] * np.float32(t * 0.5) + np.float32(0.5), 0.004, 0.996)
            y[here] = along * np.float32(high) + np.float32(top)
        return x, y

    def place(self, x: Floats, y: Floats) -> Floats:
        scaled = np.zeros((3, len(x)), np.float32)
        for face, (top, high) in zip(FACES, self._bands, strict=True):
            here = np.flatnonzero((y >= top) & (y < top + high))
            (right, s), (down, t) = face.right, face.down
            scaled[face.axis, here] = face.end
            scaled[right, here] = s * (2 * x[here] - 1)
            scaled[down, here] = t * (2 * (y[here] - np.float32(top)) / np.float32(high) - 1)
        return scaled * self.half

    def normal(self, point: Floats) -> Floats:
        normal = np.zeros_like(point)
        for here, face in zip(self._faces(point)[1], FACES, strict=True):
            normal[face.axis, here] = face.end
        return normal

    @cached_property
    def _bands(self) -> list[tuple[float, float]]:
        """Where each of FACES begins in the chart and how high it is there: the top in proportion to the sides, but no
        side so thin that it would fall between texels."""
        side = max(float(self.half[2, 0] / self.half[1, 0]), 0.02)
        edges = np.cumsum([0, 1, side, side, side, side]) / (1 + 4 * side)
        return [(float(a), float(b - a)) for a, b in itertools.pairwise(edges)]

    def _faces(self, point: Floats) -> tuple[Floats, list[Ints]]:
        """Local points scaled to the cube -1..1, and the indices of those on each of FACES."""
        scaled = point / self.half
        axis = np.abs(scaled).argmax(0)
        positive = np.take_along_axis(scaled, axis[None], 0)[0] > 0
        on = [(axis == face.axis) & ((positive == (face.end > 0)) | (face.axis == 2)) for face in FACES]
        return scaled, [np.flatnonzero(here) for here in on]


@dataclass(frozen=True, eq=False)
class Disc(Shape):
    """A flat disc that looks up (local +z). Its chart is the square around it, seen from above."""

    radius: float = field(kw_only=True)

    @property
    def reach(self) -> float:
        return self.radius

    def meet(self, start: Floats, ray: Floats) -> Floats:
        t = -start[2] / away_from_zero(ray[2])
        x, y = start[0] + t * ray[0], start[1] + t * ray[1]
        return np.where((x * x + y * y < np.float32(self.radius**2)) & (t > 0), t, FAR)

    def chart(self, point: Floats) -> tuple[Floats, Floats]:
        scale = np.float32(0.5 / self.radius)
        return point[0] * scale + np.float32(0.5), np.float32(0.5) - point[1] * scale

    def place(self, x: Floats, y: Floats) -> Floats:
        return np.stack([2 * x - 1, 1 - 2 * y, np.zeros_like(x)]) * np.float32(self.radius)

    def normal(self, point: Floats) -> Floats:
        normal = np.zeros_like(point)
        normal[2] = 1
        return normal


@dataclass(frozen=True, eq=False)
class Drum(Shape):
    """The inside of an upright cylinder, endless for rays, painted from local z = 0 up to `height`."""

    radius: float = field(kw_only=True)
    height: float = field(kw_only=True)
    border: ClassVar[int] = RING

    @property
    def reach(self) -> float:
        return math.hypot(self.radius, self.height)

    def meet(self, start: Floats, ray: Floats) -> Floats:
        a = np.maximum(ray[0] * ray[0] + ray[1] * ray[1], np.float32(1e-9))
        b = start[0] * ray[0] + start[1] * ray[1]
        c = start[0] * start[0] + start[1] * start[1] - np.float32(self.radius**2)
        away: Floats = (np.sqrt(np.maximum(b * b - a * c, 0)) - b) / a
        return away

    def chart(self, point: Floats) -> tuple[Floats, Floats]:
        return turn_of(point), 1 - point[2] / np.float32(self.height)

    def place(self, x: Floats, y: Floats) -> Floats:
        a, b = around(x)
        return np.stack([a * np.float32(self.radius), b * np.float32(self.radius), (1 - y) * np.float32(self.height)])

    def normal(self, point: Floats) -> Floats:
        inwards = -point
        inwards[2] = 0
        return unit(inwards)


@dataclass(frozen=True, eq=False)
class Lathe(Shape):
    """A body of revolution around local z, met by sphere tracing (Hart 1996): the distance to the outline says how far
    a ray may safely go. Its chart runs around the axis (x) and along the outline (y)."""

    profile: Profile = field(kw_only=True)
    border: ClassVar[int] = RING

    @property
    def reach(self) -> float:
        return self.profile.reach

    def meet(self, start: Floats, ray: Floats) -> Floats:
        found = np.full(ray.shape[1], FAR)
        enter, leave = self._span(start, ray)
        which = np.flatnonzero(enter < leave)
        starts, rays = np.broadcast_to(start, ray.shape)[:, which], ray[:, which]
        going = [which, enter[which], leave[which], *starts, *rays]
        for _ in range(10):  # rounds of four steps: rays that graze a rim need many, most are through after two rounds
            which, t, leave, x0, y0, z0, dx, dy, dz = going
            if not len(which):
                break
            for _ in range(4):
                x, y = x0 + t * dx, y0 + t * dy
                step = self.profile.distance_at(np.sqrt(x * x + y * y), z0 + t * dz)
                t = t + step
            arrived = step < np.float32(3e-4)
            found[which[arrived]] = t[arrived]
            left = np.flatnonzero(~arrived & (t < leave))
            going = [values[left] for values in (which, t, leave, x0, y0, z0, dx, dy, dz)]
        return found

    def chart(self, point: Floats) -> tuple[Floats, Floats]:
        return turn_of(point), self._nature(point)[:, 2]

    def place(self, x: Floats, y: Floats) -> Floats:
        outline = self.profile.outline
        steps = np.linspace(0, 1, len(outline))
        r, z = (np.interp(y, steps, outline[:, i]).astype(np.float32) for i in range(2))
        a, b = around(x)
        return np.stack([r * a, r * b, z])

    def normal(self, point: Floats) -> Floats:
        slope = self._nature(point)
        r = np.maximum(np.sqrt(point[0] * point[0] + point[1] * point[1]), np.float32(1e-6))
        return unit(np.stack([slope[:, 0] * point[0] / r, slope[:, 0] * point[1] / r, away_from_zero(slope[:, 1])]))

    def _nature(self, point: Floats) -> Floats:
        return self.profile.nature_at(np.sqrt(point[0] * point[0] + point[1] * point[1]), point[2])

    def _span(self, start: Floats, ray: Floats) -> tuple[Floats, Floats]:
        """Distances at which rays enter and leave the can around the body; they miss it where they never enter before
        they leave."""
        radius, bottom, top = self.profile.can
        a = np.maximum(ray[0] * ray[0] + ray[1] * ray[1], np.float32(1e-12))
        b = start[0] * ray[0] + start[1] * ray[1]
        c = start[0] * start[0] + start[1] * start[1] - np.float32(radius**2)
        square = b * b - a * c
        root = np.sqrt(np.maximum(square, 0))
        climb = 1 / away_from_zero(ray[2])
        low, high = (np.float32(bottom) - start[2]) * climb, (np.float32(top) - start[2]) * climb
        enter = np.maximum(np.maximum((-b - root) / a, np.minimum(low, high)), 0)
        leave = np.minimum((root - b) / a, np.maximum(low, high))
        return enter, np.where(square > 0, leave, -1)
