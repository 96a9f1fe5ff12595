"""A small ray tracer for a static scene, fast on a CPU because most of its work is baked once.

Diffuse light does not depend on the camera. `bake` therefore computes the irradiance at each texel of the shapes'
charts. The light comes from a window with soft shadows, and from the room where other shapes do not occlude it. A photo
then costs one visibility test and one bilinear lookup per ray. Glossy reflection of the room depends on the camera and
costs one more lookup. Lengths in metres, z up, colours in linear light.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lumigraph.captures.synthetic.shapes import FAR, Shape, azimuth_fraction, texel_centres
from lumigraph.captures.synthetic.vectors import RING, Floats, Ints, bilinear, dot, unit

Bytes = npt.NDArray[np.uint8]

TILE_SIDE_PX = 64  # pixels or texels along the side of a bundle of rays: its arrays fit in the second-level cache
PAINT_CHUNK_TEXELS = 1 << 14
SURFACE_OFFSET_M = np.float32(1e-4)  # rays that leave a surface start this far above it
WINDOW_SAMPLES_PER_SIDE = 5  # their square is the number of shadow rays per texel
ROOM_DIRECTIONS = 64  # rays per texel for the light of the room
INTERREFLECTION = np.array([0.16, 0.12, 0.09], np.float32)  # approximate light from other shapes: dim and warm


class ShapeGroup:
    """Shapes with their bounding spheres, which reject most rays cheaply.

    Shapes of the `backdrop` are behind all others, and each behind the one before it, as seen from anywhere inside.
    They are intersected only with rays that have no hit yet.
    """

    def __init__(self, shapes: Sequence[Shape], backdrop: Sequence[Shape] = ()) -> None:
        self.shapes = (*shapes, *backdrop)
        self.foreground = len(shapes)
        self.origins = np.concatenate([shape.origin for shape in self.shapes], 1)
        self.radii = np.array([shape.bounding_radius for shape in self.shapes], np.float32)

    def near(self, start: Floats, towards: Floats, radius: float, spread: float) -> Ints:
        """Indices of shapes that a beam may touch: a disc of `radius` at its start, widening by `spread` per metre."""
        offsets = self.origins - start
        along = dot(offsets, towards)
        lateral = np.sqrt(np.maximum(dot(offsets, offsets) - along * along, 0))
        width = radius + self.radii * np.float32(math.hypot(1, spread)) + np.maximum(along, 0) * np.float32(spread)
        return np.flatnonzero((along > -self.radii - radius) & (lateral < width))

    def within(self, start: Floats) -> Floats:
        """(shapes, R): radius^2 - distance^2 of ray starts in each bounding sphere, negative outside."""
        squares = dot(self.origins, self.origins) - self.radii**2
        depth_squared: Floats = 2 * (self.origins.T @ start) - squares[:, None] - dot(start, start)
        return depth_squared

    def first_hits(self, shape_indices: Ints, start: Floats, ray: Floats, within: Floats) -> tuple[Floats, Ints]:
        """First intersections of rays.

        Args:
            shape_indices: (S,) shapes to intersect.
            start: (3, R) or (3, 1).
            ray: (3, R) unit directions.
            within: (S, R) as from `within`, for these shapes and starts.

        Returns distances (R,) and indices of the shapes hit (R,); FAR and -1 without a hit.
        """
        nearest, owner = np.full(ray.shape[1], FAR), np.full(ray.shape[1], -1, np.intp)
        # Distance along the ray to the point nearest to each origin.
        ahead = self.origins[:, shape_indices].T @ ray - dot(start, ray)
        is_touched = ahead * ahead + within > np.float32(-1e-4)
        for i, is_candidate in zip(shape_indices, is_touched, strict=True):
            candidates = np.flatnonzero(is_candidate if i < self.foreground else owner < 0)
            if not len(candidates):
                continue
            t = self.shapes[i].hit(start if start.shape[1] == 1 else start[:, candidates], ray[:, candidates])
            is_nearer = t < nearest[candidates]
            nearest[candidates[is_nearer]] = t[is_nearer]
            owner[candidates[is_nearer]] = i
        return nearest, owner


@dataclass(frozen=True)
class Window:
    """The light source: a rectangle of daylight, four panes between bars. `across`, `up`: (3, 1) half sides."""

    middle: Floats
    across: Floats
    up: Floats
    strength: Floats  # (3,) irradiance of a surface one metre in front of it
    shine: float  # its radiance in reflections, relative to `strength`

    @property
    def facing(self) -> Floats:
        """Unit normal into the room (3, 1)."""
        return unit(np.cross(self.up[:, 0], self.across[:, 0])[:, None].astype(np.float32))

    def samples(self) -> Floats:
        """(3, WINDOW_SAMPLES_PER_SIDE^2) centres of equal parts."""
        steps = ((np.arange(WINDOW_SAMPLES_PER_SIDE) + 0.5) * (2 / WINDOW_SAMPLES_PER_SIDE) - 1).astype(np.float32)
        a, b = np.meshgrid(steps, steps)
        points: Floats = self.middle + self.across * a.reshape(1, -1) + self.up * b.reshape(1, -1)
        return points

    def seen_from(self, start: Floats, ray: Floats) -> Floats:
        """Visibility (R,): 1 where a ray leaves through a pane, 0 elsewhere, with soft edges."""
        slant = np.minimum(dot(self.facing, ray), -1e-6)
        point = start + ray * (dot(self.facing, self.middle - start) / slant) - self.middle
        a = np.abs(dot(point, self.across)) / dot(self.across, self.across)
        b = np.abs(dot(point, self.up)) / dot(self.up, self.up)
        pane = np.minimum(np.minimum(1 - a, a - 0.06), np.minimum(1 - b, b - 0.06))
        return np.clip(pane * 25 + np.float32(0.5), 0, 1)


@dataclass(frozen=True)
class Scene:
    """A scene. `visible`: all shapes; `shadow_casters`: those that cast shadows (the walls of the room do not).

    `room` returns the radiance (R, 3) from unit directions (3, R), without the window's. `middle` (3, 1) is the point
    at which reflections of the room are evaluated.
    """

    visible: ShapeGroup
    shadow_casters: ShapeGroup
    window: Window
    room: Callable[[Floats], Floats]
    middle: Floats


@dataclass(frozen=True)
class BakedScene:
    """A scene ready to render: lightmaps of the shapes, and reflection maps (H, W, 3) of the room, blurred to sharp."""

    visible: ShapeGroup
    charts: list[Floats]
    reflection_maps: list[Floats]


# --- light -----------------------------------------------------------------------------------------------------------


def bake(scene: Scene, shape: Shape, detail: float = 1.0) -> Floats:
    """Bake the chart of one shape (H, W, 4): outgoing diffuse light, and reflectance of the room.

    `detail` scales the texture resolution; the light resolution is scaled by at most 1.
    """
    albedo = _paint(shape, *_scale_texels(shape.texels, detail))
    rows, columns = _scale_texels(shape.light_texels, min(detail, 1))
    x, y = texel_centres(rows, columns)
    light = np.empty((rows, columns, 4), np.float32)
    for top in range(0, rows, TILE_SIDE_PX):
        for left in range(0, columns, TILE_SIDE_PX):
            part = np.s_[top : top + TILE_SIDE_PX, left : left + TILE_SIDE_PX]
            irradiance = _gather_light(scene, shape, shape.surface_point(x[part].ravel(), y[part].ravel()))
            light[part] = irradiance.reshape(light[part].shape)
    # The blur merges the separate shadows of the window samples.
    smooth = cv2.GaussianBlur(light, (0, 0), 0.8, borderType=cv2.BORDER_REPLICATE)
    chart = np.maximum(cv2.resize(smooth, albedo.shape[1::-1], interpolation=cv2.INTER_CUBIC), 0).astype(np.float32)
    chart[..., :3] *= albedo
    chart[..., 3] *= shape.material.gloss
    return chart


def _scale_texels(texels: tuple[int, int], by: float) -> tuple[int, int]:
    return max(8, round(texels[0] * by)), max(8, round(texels[1] * by))


def _paint(shape: Shape, rows: int, columns: int) -> Floats:
    x, y = (centres.ravel() for centres in texel_centres(rows, columns))
    albedo = np.empty((rows * columns, 3), np.float32)
    for i in range(0, len(albedo), PAINT_CHUNK_TEXELS):
        part = np.s_[i : i + PAINT_CHUNK_TEXELS]
        albedo[part] = shape.material.paint(shape.surface_point(x[part], y[part]), x[part], y[part])
    return albedo.reshape(rows, columns, 3)


def _gather_light(scene: Scene, shape: Shape, point: Floats) -> Floats:
    """Irradiance (R, 3) at local points (3, R) of a shape, and the visible share of the room: (R, 4)."""
    normal = shape.axes @ shape.normal(point)
    start = shape.axes @ point + shape.origin + SURFACE_OFFSET_M * normal
    within = scene.shadow_casters.within(start)
    centre = start.mean(1, keepdims=True)
    radius = float(np.sqrt(((start - centre) ** 2).sum(0).max()))

    def is_unoccluded(lit_texels: Ints, ray: Floats, beam: Floats) -> npt.NDArray[np.bool_]:
        candidates = scene.shadow_casters.near(centre, beam, radius, 0.0)
        starts, depths = start[:, lit_texels], within[np.ix_(candidates, lit_texels)]
        return scene.shadow_casters.first_hits(candidates, starts, ray, depths)[1] < 0

    total = np.zeros((point.shape[1], 4), np.float32)
    lamp = scene.window.samples()
    for part in np.split(lamp, lamp.shape[1], axis=1):
        towards = part - start
        distance_squared = dot(towards, towards)
        ray = towards / np.sqrt(distance_squared)
        cosines = np.maximum(dot(normal, ray), 0) * np.maximum(-dot(scene.window.facing, ray), 0)
        if len(lit_texels := np.flatnonzero(cosines)):
            is_visible = is_unoccluded(lit_texels, ray[:, lit_texels], unit(part - centre))
            share = cosines[lit_texels] / distance_squared[lit_texels] * is_visible
            total[lit_texels, :3] += share[:, None] * (scene.window.strength / np.float32(lamp.shape[1]))
    directions = fibonacci_directions(ROOM_DIRECTIONS)
    for direction, light in zip(np.split(directions, ROOM_DIRECTIONS, axis=1), scene.room(directions), strict=True):
        # The weights integrate to 1 over the hemisphere.
        cosine = np.maximum(dot(normal, direction), 0) * np.float32(4 / ROOM_DIRECTIONS)
        if len(lit_texels := np.flatnonzero(cosine)):
            is_open = is_unoccluded(lit_texels, np.repeat(direction, len(lit_texels), 1), direction)
            total[lit_texels, :3] += cosine[lit_texels, None] * np.where(is_open[:, None], light, INTERREFLECTION)
            total[lit_texels, 3] += cosine[lit_texels] * is_open
    return total


def fibonacci_directions(count: int) -> Floats:
    """(3, count) directions on a Fibonacci spiral (Swinbank and Purser 2006), with nearly equal areas."""
    k = np.arange(count) + 0.5
    z, angle = 1 - 2 * k / count, k * math.pi * (3 - math.sqrt(5))
    ring = np.sqrt(1 - z * z)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z]).astype(np.float32)


def reflection_maps(scene: Scene, detail: float = 1.0) -> list[Floats]:
    """Equirectangular maps of the room from the scene's middle, at three levels of blur: strong, medium, none."""
    rows = max(32, round(192 * min(detail, 1)))
    x, y = (centres.ravel() * math.pi for centres in texel_centres(rows, 2 * rows))
    ray = np.stack([-np.sin(y) * np.cos(2 * x), -np.sin(y) * np.sin(2 * x), np.cos(y)]).astype(np.float32)
    shine = scene.window.seen_from(scene.middle, ray)[:, None] * scene.window.strength * scene.window.shine
    sharp = (scene.room(ray) + shine).reshape(rows, 2 * rows, 3).astype(np.float32)
    three_copies = np.concatenate([sharp] * 3, 1)  # so that the blur wraps at the seam
    blurred_maps = [
        cv2.GaussianBlur(three_copies, (0, 0), rows * sigma)[:, 2 * rows : 4 * rows] for sigma in (0.09, 0.03)
    ]
    return [*(np.array(image, np.float32) for image in blurred_maps), sharp]


# --- rendering -------------------------------------------------------------------------------------------------------


def render_photo(
    baked_scene: BakedScene, world_from_cam: Floats, focal: float, size: tuple[int, int], rng: np.random.Generator
) -> Bytes:
    """Render an image (H, W, 3) sRGB with a pinhole camera (3, 4), OpenCV axes, principal point at the centre.

    Each pixel is the mean of four rays, one at random in each quarter.
    """
    width, height = size
    rotation, eye = world_from_cam[:, :3].astype(np.float32), world_from_cam[:, 3:].astype(np.float32)
    quarter = np.arange(4)[:, None, None]
    image = np.empty((height, width, 3), np.float32)
    for top in range(0, height, TILE_SIDE_PX):
        for left in range(0, width, TILE_SIDE_PX):
            part = image[top : top + TILE_SIDE_PX, left : left + TILE_SIDE_PX]
            h, w = part.shape[:2]
            jitter = rng.random((2, 4, h, w)) / 2
            x = left + np.arange(w) + quarter % 2 / 2 + jitter[0]
            y = top + np.arange(h)[:, None] + quarter // 2 / 2 + jitter[1]
            camera = np.stack([(x.ravel() - width / 2) / focal, (y.ravel() - height / 2) / focal, np.ones(x.size)])
            light = trace(baked_scene, eye, unit(rotation @ camera.astype(np.float32)))
            part[:] = light.reshape(4, h, w, 3).mean(0)
    return tone_map(image)


def trace(baked_scene: BakedScene, start: Floats, ray: Floats) -> Floats:
    """Radiance (R, 3) along rays (3, R) from one point (3, 1), all within 90 degrees of their mean."""
    beam = unit(ray.mean(1, keepdims=True))
    smallest_cosine = max(float(dot(ray, beam).min()), 1e-3)
    spread = math.sqrt(max(1 - smallest_cosine**2, 0)) / smallest_cosine
    candidates = baked_scene.visible.near(start, beam, 0.0, spread)
    distance, owner = baked_scene.visible.first_hits(
        candidates, start, ray, baked_scene.visible.within(start)[candidates]
    )
    light = np.zeros((ray.shape[1], 3), np.float32)
    for i in candidates:
        hit_rays = np.flatnonzero(owner == i)
        if not len(hit_rays):
            continue
        shape = baked_scene.visible.shapes[i]
        point = shape.local(start + distance[hit_rays] * ray[:, hit_rays])
        x, y = shape.chart(point)
        radiance = bilinear(baked_scene.charts[i], x, y, shape.border)
        if shape.material.gloss:
            radiance[:, :3] += radiance[:, 3:] * _reflected_light(baked_scene, shape, point, ray[:, hit_rays])
        light[hit_rays] = radiance[:, :3]
    return light


def _reflected_light(baked_scene: BakedScene, shape: Shape, point: Floats, ray: Floats) -> Floats:
    """Radiance (R, 3) of the room reflected by a smooth dielectric (Schlick 1994, 4 % at normal incidence)."""
    normal = shape.axes @ shape.normal(point)
    cosine = np.maximum(-dot(normal, ray), 0)
    fresnel = np.float32(0.04) + np.float32(0.96) * (1 - cosine) ** 5
    reflected_ray = ray + 2 * cosine * normal
    colatitude = np.arccos(np.clip(reflected_ray[2], -1, 1)) * np.float32(1 / math.pi)
    reflection_map = baked_scene.reflection_maps[round(shape.material.polish * (len(baked_scene.reflection_maps) - 1))]
    return bilinear(reflection_map, azimuth_fraction(reflected_ray), colatitude, RING) * fresnel[:, None]


def _tone_table() -> Bytes:
    """Table of `tone_map` at light (k / 1024)^2: square-root spacing is finest where the eye and sRGB need it."""
    exposure = 1 - np.exp(-((np.arange(4096) / 1024) ** 2))
    srgb = np.where(exposure < 0.0031308, 12.92 * exposure, 1.055 * exposure ** (1 / 2.4) - 0.055)
    return (srgb * 255 + 0.5).astype(np.uint8)


TONE_TABLE = _tone_table()


def tone_map(light: Floats) -> Bytes:
    """Tone-map linear light to sRGB bytes with a soft shoulder: highlights approach white and never clip."""
    position = np.minimum(np.sqrt(np.maximum(light, 0)) * 1024, len(TONE_TABLE) - 1)
    srgb_bytes: Bytes = TONE_TABLE.take(position.astype(np.intp))
    return srgb_bytes
