"""Shapes: ray intersection, and the chart that maps a surface to an image.

Each shape computes in its own local frame; only `hit` and `local` convert from world coordinates. Chart coordinates x
and y are 0..1, y downwards, as in `vectors`.
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

FAR = np.float32(1e9)  # metres: distance of a ray without a hit

# Local points (3, R) and their chart coordinates (R,), (R,) -> albedo (R, 3). A pure function of the point, so that it
# can be evaluated in chunks and at any resolution.
Paint = Callable[[Floats, Floats, Floats], Floats]


@dataclass(frozen=True)
class Material:
    """Appearance of a surface. `gloss` scales the reflection of the room (1: glaze, 0: plaster); `polish` is its
    sharpness (1: mirror, 0: dull sheen)."""

    paint: Paint
    gloss: float = 0.0
    polish: float = 1.0


@dataclass(frozen=True, eq=False)
class Shape(ABC):
    """A surface. `origin` (3, 1) is its centre, the columns of `axes` (3, 3) are its local axes in the world.

    `texels` and `light_texels` (rows, columns) are the resolutions of the texture and of the lightmap.
    """

    material: Material
    origin: Floats
    axes: Floats = field(default_factory=lambda: np.eye(3, dtype=np.float32), kw_only=True)
    texels: tuple[int, int] = field(kw_only=True)
    light_texels: tuple[int, int] = field(kw_only=True)
    border: ClassVar[int] = REPLICATE

    @property
    @abstractmethod
    def bounding_radius(self) -> float:
        """Radius of a sphere around the origin that contains the shape."""

    @abstractmethod
    def intersect(self, start: Floats, ray: Floats) -> Floats:
        """Local `start` (3, R) or (3, 1), unit `ray` (3, R) -> distance to the first hit ahead (R,), else FAR."""

    @abstractmethod
    def chart(self, point: Floats) -> tuple[Floats, Floats]:
        """Local points on the surface (3, R) -> x, y in the chart (R,), (R,)."""

    @abstractmethod
    def surface_point(self, x: Floats, y: Floats) -> Floats:
        """Chart coordinates x, y (R,) -> local points (3, R): the inverse of `chart`."""

    @abstractmethod
    def normal(self, point: Floats) -> Floats:
        """Local points on the surface (3, R) -> unit normals (3, R)."""

    def hit(self, start: Floats, ray: Floats) -> Floats:
        """`intersect` for rays in world coordinates."""
        return self.intersect(self.local(start), self.axes.T @ ray)

    def local(self, point: Floats) -> Floats:
        return self.axes.T @ (point - self.origin)


def texel_centres(rows: int, columns: int) -> tuple[Floats, Floats]:
    """Chart coordinates x, y (rows, columns) of texel centres."""
    x = (np.arange(columns, dtype=np.float32) + np.float32(0.5)) / np.float32(columns)
    y = (np.arange(rows, dtype=np.float32) + np.float32(0.5)) / np.float32(rows)
    return np.broadcast_to(x, (rows, columns)), np.broadcast_to(y[:, None], (rows, columns))


def azimuth_fraction(point: Floats) -> Floats:
    """Azimuth around local z as a fraction (R,), 0..1; 0.5 at local +x."""
    fraction: Floats = np.arctan2(point[1], point[0]) * np.float32(0.5 / math.pi) + np.float32(0.5)
    return fraction


def circle_point(fraction: Floats) -> tuple[Floats, Floats]:
    """The inverse of `azimuth_fraction`: x and y on the unit circle."""
    angle = (fraction - np.float32(0.5)) * np.float32(2 * math.pi)
    return np.cos(angle), np.sin(angle)


@dataclass(frozen=True, eq=False)
class Sphere(Shape):
    """A sphere. Its chart is an equirectangular map, north up."""

    radius: float = field(kw_only=True)
    border: ClassVar[int] = RING

    @property
    def bounding_radius(self) -> float:
        return self.radius

    def intersect(self, start: Floats, ray: Floats) -> Floats:
        b = dot(start, ray)
        discriminant = b * b - dot(start, start) + np.float32(self.radius**2)
        t = -b - np.sqrt(np.maximum(discriminant, 0))
        return np.where((discriminant > 0) & (t > 0), t, FAR)

    def chart(self, point: Floats) -> tuple[Floats, Floats]:
        height = np.clip(point[2] / np.float32(self.radius), -1, 1)
        return azimuth_fraction(point), np.arccos(height) * np.float32(1 / math.pi)

    def surface_point(self, x: Floats, y: Floats) -> Floats:
        (a, b), colatitude = circle_point(x), y * np.float32(math.pi)
        ring = np.sin(colatitude)
        return np.stack([ring * a, ring * b, np.cos(colatitude)]) * np.float32(self.radius)

    def normal(self, point: Floats) -> Floats:
        return unit(point)


@dataclass(frozen=True)
class Face:
    """A side of a box: its normal axis and direction, and the signed axes that run right and down in its image.

    The image is seen from outside with z up.
    """

    axis: int
    end: int
    right: tuple[int, int]
    down: tuple[int, int]


# The bottom is never visible: it shares the image of the top.
FACES = (
    Face(2, 1, (0, 1), (1, -1)),
    Face(0, 1, (1, 1), (2, -1)),
    Face(0, -1, (1, -1), (2, -1)),
    Face(1, 1, (0, -1), (2, -1)),
    Face(1, -1, (0, 1), (2, -1)),
)


@dataclass(frozen=True, eq=False)
class Box(Shape):
    """A box of half sizes `half` (3, 1). Its chart stacks the FACES vertically, each at full width."""

    half: Floats = field(kw_only=True)

    @property
    def bounding_radius(self) -> float:
        return float(np.linalg.norm(self.half))

    def intersect(self, start: Floats, ray: Floats) -> Floats:
        """A ray is inside the box where it is between all three pairs of slabs (Kay and Kajiya 1986)."""
        inverse = 1 / away_from_zero(ray)
        middle, width = start * inverse, np.abs(inverse) * self.half
        enter, leave = (-middle - width).max(0), (-middle + width).min(0)
        return np.where((enter < leave) & (enter > 0), enter, FAR)

    def chart(self, point: Floats) -> tuple[Floats, Floats]:
        cube_point, members_per_face = self._faces(point)
        x, y = np.empty_like(point[0]), np.empty_like(point[0])
        for members_of_face, face, (top, height) in zip(members_per_face, FACES, self._bands, strict=True):
            (right, s), (down, t) = face.right, face.down
            x[members_of_face] = cube_point[right, members_of_face] * np.float32(s * 0.5) + np.float32(0.5)
            # A small margin keeps the next face in the stack from bleeding over the edge.
            along = np.clip(cube_point[down, members_of_face] * np.float32(t * 0.5) + np.float32(0.5), 0.004, 0.996)
            y[members_of_face] = along * np.float32(height) + np.float32(top)
        return x, y

    def surface_point(self, x: Floats, y: Floats) -> Floats:
        cube_point = np.zeros((3, len(x)), np.float32)
        for face, (top, height) in zip(FACES, self._bands, strict=True):
            members_of_face = np.flatnonzero((y >= top) & (y < top + height))
            (right, s), (down, t) = face.right, face.down
            cube_point[face.axis, members_of_face] = face.end
            cube_point[right, members_of_face] = s * (2 * x[members_of_face] - 1)
            cube_point[down, members_of_face] = t * (
                2 * (y[members_of_face] - np.float32(top)) / np.float32(height) - 1
            )
        return cube_point * self.half

    def normal(self, point: Floats) -> Floats:
        normal = np.zeros_like(point)
        for members_of_face, face in zip(self._faces(point)[1], FACES, strict=True):
            normal[face.axis, members_of_face] = face.end
        return normal

    @cached_property
    def _bands(self) -> list[tuple[float, float]]:
        """(start, height) of each of FACES in the chart, in proportion, but no side is thinner than a texel."""
        side = max(float(self.half[2, 0] / self.half[1, 0]), 0.02)
        edges = np.cumsum([0, 1, side, side, side, side]) / (1 + 4 * side)
        return [(float(a), float(b - a)) for a, b in itertools.pairwise(edges)]

    def _faces(self, point: Floats) -> tuple[Floats, list[Ints]]:
        """Local points scaled to the cube -1..1, and the indices of the points on each of FACES."""
        cube_point = point / self.half
        axis = np.abs(cube_point).argmax(0)
        positive = np.take_along_axis(cube_point, axis[None], 0)[0] > 0
        is_on_face = [(axis == face.axis) & ((positive == (face.end > 0)) | (face.axis == 2)) for face in FACES]
        return cube_point, [np.flatnonzero(members_of_face) for members_of_face in is_on_face]


@dataclass(frozen=True, eq=False)
class Disc(Shape):
    """A flat disc facing up (local +z). Its chart is the square around it, seen from above."""

    radius: float = field(kw_only=True)

    @property
    def bounding_radius(self) -> float:
        return self.radius

    def intersect(self, start: Floats, ray: Floats) -> Floats:
        t = -start[2] / away_from_zero(ray[2])
        x, y = start[0] + t * ray[0], start[1] + t * ray[1]
        return np.where((x * x + y * y < np.float32(self.radius**2)) & (t > 0), t, FAR)

    def chart(self, point: Floats) -> tuple[Floats, Floats]:
        scale = np.float32(0.5 / self.radius)
        return point[0] * scale + np.float32(0.5), np.float32(0.5) - point[1] * scale

    def surface_point(self, x: Floats, y: Floats) -> Floats:
        return np.stack([2 * x - 1, 1 - 2 * y, np.zeros_like(x)]) * np.float32(self.radius)

    def normal(self, point: Floats) -> Floats:
        normal = np.zeros_like(point)
        normal[2] = 1
        return normal


@dataclass(frozen=True, eq=False)
class Cylinder(Shape):
    """The inside of an upright cylinder: infinite for rays, textured from local z = 0 up to `height`."""

    radius: float = field(kw_only=True)
    height: float = field(kw_only=True)
    border: ClassVar[int] = RING

    @property
    def bounding_radius(self) -> float:
        return math.hypot(self.radius, self.height)

    def intersect(self, start: Floats, ray: Floats) -> Floats:
        a = np.maximum(ray[0] * ray[0] + ray[1] * ray[1], np.float32(1e-9))
        b = start[0] * ray[0] + start[1] * ray[1]
        c = start[0] * start[0] + start[1] * start[1] - np.float32(self.radius**2)
        distance: Floats = (np.sqrt(np.maximum(b * b - a * c, 0)) - b) / a
        return distance

    def chart(self, point: Floats) -> tuple[Floats, Floats]:
        return azimuth_fraction(point), 1 - point[2] / np.float32(self.height)

    def surface_point(self, x: Floats, y: Floats) -> Floats:
        a, b = circle_point(x)
        return np.stack([a * np.float32(self.radius), b * np.float32(self.radius), (1 - y) * np.float32(self.height)])

    def normal(self, point: Floats) -> Floats:
        normal = -point
        normal[2] = 0
        return unit(normal)


@dataclass(frozen=True, eq=False)
class Lathe(Shape):
    """A body of revolution around local z, intersected by sphere tracing (Hart 1996): the distance to the outline is a
    safe step along the ray. Its chart runs around the axis (x) and along the outline (y)."""

    profile: Profile = field(kw_only=True)
    border: ClassVar[int] = RING

    @property
    def bounding_radius(self) -> float:
        return self.profile.bounding_radius

    def intersect(self, start: Floats, ray: Floats) -> Floats:
        distance = np.full(ray.shape[1], FAR)
        enter, leave = self._span(start, ray)
        ray_indices = np.flatnonzero(enter < leave)
        starts, rays = np.broadcast_to(start, ray.shape)[:, ray_indices], ray[:, ray_indices]
        active = [ray_indices, enter[ray_indices], leave[ray_indices], *starts, *rays]
        for _ in range(10):  # rounds of four steps: most rays end after two rounds, rays that graze a rim need many
            ray_indices, t, leave, x0, y0, z0, dx, dy, dz = active
            if not len(ray_indices):
                break
            for _ in range(4):
                x, y = x0 + t * dx, y0 + t * dy
                step = self.profile.distance_at(np.sqrt(x * x + y * y), z0 + t * dz)
                t = t + step
            has_arrived = step < np.float32(3e-4)
            distance[ray_indices[has_arrived]] = t[has_arrived]
            remaining = np.flatnonzero(~has_arrived & (t < leave))
            active = [values[remaining] for values in (ray_indices, t, leave, x0, y0, z0, dx, dy, dz)]
        return distance

    def chart(self, point: Floats) -> tuple[Floats, Floats]:
        return azimuth_fraction(point), self._surface(point)[:, 2]

    def surface_point(self, x: Floats, y: Floats) -> Floats:
        outline = self.profile.outline
        steps = np.linspace(0, 1, len(outline))
        r, z = (np.interp(y, steps, outline[:, i]).astype(np.float32) for i in range(2))
        a, b = circle_point(x)
        return np.stack([r * a, r * b, z])

    def normal(self, point: Floats) -> Floats:
        surface = self._surface(point)
        r = np.maximum(np.sqrt(point[0] * point[0] + point[1] * point[1]), np.float32(1e-6))
        return unit(
            np.stack([surface[:, 0] * point[0] / r, surface[:, 0] * point[1] / r, away_from_zero(surface[:, 1])])
        )

    def _surface(self, point: Floats) -> Floats:
        return self.profile.surface_at(np.sqrt(point[0] * point[0] + point[1] * point[1]), point[2])

    def _span(self, start: Floats, ray: Floats) -> tuple[Floats, Floats]:
        """Distances at which rays enter and leave the bounding cylinder; a ray misses it if it does not enter before it
        leaves."""
        radius, bottom, top = self.profile.bounding_cylinder
        a = np.maximum(ray[0] * ray[0] + ray[1] * ray[1], np.float32(1e-12))
        b = start[0] * ray[0] + start[1] * ray[1]
        c = start[0] * start[0] + start[1] * start[1] - np.float32(radius**2)
        discriminant = b * b - a * c
        root = np.sqrt(np.maximum(discriminant, 0))
        inverse_z = 1 / away_from_zero(ray[2])
        at_bottom, at_top = (np.float32(bottom) - start[2]) * inverse_z, (np.float32(top) - start[2]) * inverse_z
        enter = np.maximum(np.maximum((-b - root) / a, np.minimum(at_bottom, at_top)), 0)
        leave = np.minimum((root - b) / a, np.maximum(at_bottom, at_top))
        return enter, np.where(discriminant > 0, leave, -1)
