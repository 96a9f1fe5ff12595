"""A small ray tracer for a scene that stands still, quick on a plain CPU because it does most of its work only once.

Diffuse light does not depend on the camera. So `bake` gathers light into each texel of the shapes' charts: from a
window with soft shadows, and from the room, as far as neighbours do not hide it. A photo then costs one visibility test
and one bilinear look-up a ray. What does depend on the camera, the mirror image of the room in polish and glaze, is one
look-up more. Lengths in metres, z up, colours in linear light.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lumigraph.captures.synthetic.shapes import FAR, Shape, texel_centres, turn_of
from lumigraph.captures.synthetic.vectors import RING, Floats, Ints, dot, look_up, unit

Bytes = npt.NDArray[np.uint8]

TILE = 64  # pixels or texels along the side of a bundle of rays: its arrays stay in the second-level cache
CHUNK = 1 << 14  # texels painted at once
OFFSET = np.float32(1e-4)  # metres: rays that leave a surface start this far above it
WINDOW_PARTS = 5  # along each side; as many shadows as its square make one soft shadow
DIRECTIONS = 64  # in which each texel looks for the light of the room
BETWEEN = np.array([0.16, 0.12, 0.09], np.float32)  # a dim, warm guess at the light that things throw on each other


class ShapeGroup:
    """Shapes together with the balls that hold them, which tell cheaply who cannot be hit.

    Those of the `backdrop` lie behind all others, and each behind the one before it, from every place inside: they are
    asked only about rays that nothing before them stopped.
    """

    def __init__(self, shapes: Sequence[Shape], backdrop: Sequence[Shape] = ()) -> None:
        self.shapes = (*shapes, *backdrop)
        self.foreground = len(shapes)
        self.origins = np.concatenate([shape.origin for shape in self.shapes], 1)
        self.reaches = np.array([shape.reach for shape in self.shapes], np.float32)

    def near(self, start: Floats, towards: Floats, radius: float, spread: float) -> Ints:
        """Who may be touched by a beam of rays that starts as a disc of `radius` and widens by `spread` a metre."""
        offsets = self.origins - start
        along = dot(offsets, towards)
        aside = np.sqrt(np.maximum(dot(offsets, offsets) - along * along, 0))
        width = radius + self.reaches * np.float32(math.hypot(1, spread)) + np.maximum(along, 0) * np.float32(spread)
        return np.flatnonzero((along > -self.reaches - radius) & (aside < width))

    def within(self, start: Floats) -> Floats:
        """(all shapes, R): how far inside the ball of each shape rays start: reach^2 - distance^2, negative outside."""
        squares = dot(self.origins, self.origins) - self.reaches**2
        inside: Floats = 2 * (self.origins.T @ start) - squares[:, None] - dot(start, start)
        return inside

    def first_hits(self, which: Ints, start: Floats, ray: Floats, within: Floats) -> tuple[Floats, Ints]:
        """Distances (R,) and indices of the shapes met first, among `which`; FAR and -1 where nothing is met.

        `within` (shapes, R) is what the method of that name says about these `which` and `start`.
        """
        nearest, owner = np.full(ray.shape[1], FAR), np.full(ray.shape[1], -1, np.intp)
        ahead = self.origins[:, which].T @ ray - dot(start, ray)  # along the ray to the point nearest to each origin
        touched = ahead * ahead + within > np.float32(-1e-4)
        for i, touches in zip(which, touched, strict=True):
            candidates = np.flatnonzero(touches if i < self.foreground else owner < 0)
            if not len(candidates):
                continue
            t = self.shapes[i].hit(start if start.shape[1] == 1 else start[:, candidates], ray[:, candidates])
            nearer = t < nearest[candidates]
            nearest[candidates[nearer]] = t[nearer]
            owner[candidates[nearer]] = i
        return nearest, owner


@dataclass(frozen=True)
class Window:
    """The lamp: a rectangle of daylight, four panes between bars. `across` and `up` (3, 1) are its half sides."""

    middle: Floats
    across: Floats
    up: Floats
    strength: Floats  # (3,) the light that a surface one metre in front of it receives
    shine: float  # its brightness in mirrors, as a part of `strength`

    @property
    def facing(self) -> Floats:
        """Unit normal into the room."""
        return unit(np.cross(self.up[:, 0], self.across[:, 0])[:, None].astype(np.float32))

    def samples(self) -> Floats:
        """(3, WINDOW_PARTS^2) points in the middles of equal parts."""
        steps = ((np.arange(WINDOW_PARTS) + 0.5) * (2 / WINDOW_PARTS) - 1).astype(np.float32)
        a, b = np.meshgrid(steps, steps)
        points: Floats = self.middle + self.across * a.reshape(1, -1) + self.up * b.reshape(1, -1)
        return points

    def seen_from(self, start: Floats, ray: Floats) -> Floats:
        """(R,) 1 where a ray leaves through a pane, 0 elsewhere, soft at the edges."""
        slant = np.minimum(dot(self.facing, ray), -1e-6)
        point = start + ray * (dot(self.facing, self.middle - start) / slant) - self.middle
        a = np.abs(dot(point, self.across)) / dot(self.across, self.across)
        b = np.abs(dot(point, self.up)) / dot(self.up, self.up)
        pane = np.minimum(np.minimum(1 - a, a - 0.06), np.minimum(1 - b, b - 0.06))
        return np.clip(pane * 25 + np.float32(0.5), 0, 1)


@dataclass(frozen=True)
class Scene:
    """`visible` is all there is to see, `shadow_casters` those of it that throw shadows (the walls of the room do not).

    `room` tells the light (R, 3) that comes from unit directions (3, R), apart from the window's; `middle` (3, 1) is
    where mirrors are thought to hang.
    """

    visible: ShapeGroup
    shadow_casters: ShapeGroup
    window: Window
    room: Callable[[Floats], Floats]
    middle: Floats


@dataclass(frozen=True)
class BakedScene:
    """What is left to look up: the charts of the shapes in order, and maps of the room (H, W, 3), vague to sharp."""

    visible: ShapeGroup
    charts: list[Floats]
    mirrors: list[Floats]


# --- light -----------------------------------------------------------------------------------------------------------


def bake(scene: Scene, shape: Shape, detail: float = 1.0) -> Floats:
    """The chart of one shape (H, W, 4): the light it sends out, and how much of the room is mirrored there.

    `detail` scales the resolution of the paint; light is never finer than at 1.
    """
    albedo = _painted(shape, *_scaled(shape.texels, detail))
    rows, columns = _scaled(shape.light_texels, min(detail, 1))
    x, y = texel_centres(rows, columns)
    light = np.empty((rows, columns, 4), np.float32)
    for top in range(0, rows, TILE):
        for left in range(0, columns, TILE):
            part = np.s_[top : top + TILE, left : left + TILE]
            gathered = _gather_light(scene, shape, shape.place(x[part].ravel(), y[part].ravel()))
            light[part] = gathered.reshape(light[part].shape)
    # The blur joins the few separate shadows of the window's parts.
    smooth = cv2.GaussianBlur(light, (0, 0), 0.8, borderType=cv2.BORDER_REPLICATE)
    chart = np.maximum(cv2.resize(smooth, albedo.shape[1::-1], interpolation=cv2.INTER_CUBIC), 0).astype(np.float32)
    chart[..., :3] *= albedo
    chart[..., 3] *= shape.material.gloss
    return chart


def _scaled(texels: tuple[int, int], by: float) -> tuple[int, int]:
    return max(8, round(texels[0] * by)), max(8, round(texels[1] * by))


def _painted(shape: Shape, rows: int, columns: int) -> Floats:
    x, y = (centres.ravel() for centres in texel_centres(rows, columns))
    albedo = np.empty((rows * columns, 3), np.float32)
    for i in range(0, len(albedo), CHUNK):
        part = np.s_[i : i + CHUNK]
        albedo[part] = shape.material.paint(shape.place(x[part], y[part]), x[part], y[part])
    return albedo.reshape(rows, columns, 3)


def _gather_light(scene: Scene, shape: Shape, point: Floats) -> Floats:
    """Local points of a shape -> (R, 4): light that arrives there, and the share of the room that is not hidden."""
    normal = shape.axes @ shape.normal(point)
    start = shape.axes @ point + shape.origin + OFFSET * normal
    within = scene.shadow_casters.within(start)
    centre = start.mean(1, keepdims=True)
    radius = float(np.sqrt(((start - centre) ** 2).sum(0).max()))

    def free(lit: Ints, ray: Floats, beam: Floats) -> npt.NDArray[np.bool_]:
        who = scene.shadow_casters.near(centre, beam, radius, 0.0)
        return scene.shadow_casters.first_hits(who, start[:, lit], ray, within[np.ix_(who, lit)])[1] < 0

    total = np.zeros((point.shape[1], 4), np.float32)
    lamp = scene.window.samples()
    for part in np.split(lamp, lamp.shape[1], axis=1):
        towards = part - start
        squared = dot(towards, towards)
        ray = towards / np.sqrt(squared)
        cosines = np.maximum(dot(normal, ray), 0) * np.maximum(-dot(scene.window.facing, ray), 0)
        if len(lit := np.flatnonzero(cosines)):
            share = cosines[lit] / squared[lit] * free(lit, ray[:, lit], unit(part - centre))
            total[lit, :3] += share[:, None] * (scene.window.strength / np.float32(lamp.shape[1]))
    directions = evenly_around(DIRECTIONS)
    for way, light in zip(np.split(directions, DIRECTIONS, axis=1), scene.room(directions), strict=True):
        cosine = np.maximum(dot(normal, way), 0) * np.float32(4 / DIRECTIONS)  # integrates to 1 over the half space
        if len(lit := np.flatnonzero(cosine)):
            open_sky = free(lit, np.repeat(way, len(lit), 1), way)
            total[lit, :3] += cosine[lit, None] * np.where(open_sky[:, None], light, BETWEEN)
            total[lit, 3] += cosine[lit] * open_sky
    return total


def evenly_around(count: int) -> Floats:
    """(3, count) directions on a Fibonacci spiral (Swinbank and Purser 2006): nearly equal areas, no two in a row."""
    k = np.arange(count) + 0.5
    z, angle = 1 - 2 * k / count, k * math.pi * (3 - math.sqrt(5))
    ring = np.sqrt(1 - z * z)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z]).astype(np.float32)


def reflection_maps(scene: Scene, detail: float = 1.0) -> list[Floats]:
    """World maps of the room as polish reflects it, seen from the middle of the scene: vague, satin and sharp."""
    rows = max(32, round(192 * min(detail, 1)))
    x, y = (centres.ravel() * math.pi for centres in texel_centres(rows, 2 * rows))
    ray = np.stack([-np.sin(y) * np.cos(2 * x), -np.sin(y) * np.sin(2 * x), np.cos(y)]).astype(np.float32)
    shine = scene.window.seen_from(scene.middle, ray)[:, None] * scene.window.strength * scene.window.shine
    sharp = (scene.room(ray) + shine).reshape(rows, 2 * rows, 3).astype(np.float32)
    thrice = np.concatenate([sharp] * 3, 1)  # a blur must see what lies beyond the seam
    blurred = [cv2.GaussianBlur(thrice, (0, 0), rows * sigma)[:, 2 * rows : 4 * rows] for sigma in (0.09, 0.03)]
    return [*(np.array(picture, np.float32) for picture in blurred), sharp]


# --- pictures --------------------------------------------------------------------------------------------------------


def render_photo(
    baked: BakedScene, world_from_cam: Floats, focal: float, size: tuple[int, int], rng: np.random.Generator
) -> Bytes:
    """One picture (H, W, 3) sRGB by a pinhole camera (3, 4) with OpenCV axes and its principal point in the middle.

    Each pixel is the mean of four rays, one at random through each of its quarters.
    """
    width, height = size
    turn, eye = world_from_cam[:, :3].astype(np.float32), world_from_cam[:, 3:].astype(np.float32)
    quarter = np.arange(4)[:, None, None]
    picture = np.empty((height, width, 3), np.float32)
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            part = picture[top : top + TILE, left : left + TILE]
            h, w = part.shape[:2]
            jitter = rng.random((2, 4, h, w)) / 2
            x = left + np.arange(w) + quarter % 2 / 2 + jitter[0]
            y = top + np.arange(h)[:, None] + quarter // 2 / 2 + jitter[1]
            camera = np.stack([(x.ravel() - width / 2) / focal, (y.ravel() - height / 2) / focal, np.ones(x.size)])
            light = trace(baked, eye, unit(turn @ camera.astype(np.float32)))
            part[:] = light.reshape(4, h, w, 3).mean(0)
    return develop(picture)


def trace(baked: BakedScene, start: Floats, ray: Floats) -> Floats:
    """Rays (3, R) from one point (3, 1), all within a right angle -> the light that comes along them (R, 3)."""
    beam = unit(ray.mean(1, keepdims=True))
    narrowest = max(float(dot(ray, beam).min()), 1e-3)
    spread = math.sqrt(max(1 - narrowest**2, 0)) / narrowest
    who = baked.visible.near(start, beam, 0.0, spread)
    distance, owner = baked.visible.first_hits(who, start, ray, baked.visible.within(start)[who])
    light = np.zeros((ray.shape[1], 3), np.float32)
    for i in who:
        here = np.flatnonzero(owner == i)
        if not len(here):
            continue
        shape = baked.visible.shapes[i]
        point = shape.local(start + distance[here] * ray[:, here])
        x, y = shape.chart(point)
        sent = look_up(baked.charts[i], x, y, shape.border)
        if shape.material.gloss:
            sent[:, :3] += sent[:, 3:] * _mirrored(baked, shape, point, ray[:, here])
        light[here] = sent[:, :3]
    return light


def _mirrored(baked: BakedScene, shape: Shape, point: Floats, ray: Floats) -> Floats:
    """(R, 3) light of the room that a smooth dielectric reflects (Schlick 1994, 4 % at normal incidence)."""
    normal = shape.axes @ shape.normal(point)
    cosine = np.maximum(-dot(normal, ray), 0)
    fresnel = np.float32(0.04) + np.float32(0.96) * (1 - cosine) ** 5
    away = ray + 2 * cosine * normal
    colatitude = np.arccos(np.clip(away[2], -1, 1)) * np.float32(1 / math.pi)
    mirror = baked.mirrors[round(shape.material.polish * (len(baked.mirrors) - 1))]
    return look_up(mirror, turn_of(away), colatitude, RING) * fresnel[:, None]


def _curve() -> Bytes:
    """The answer of `develop` to (k / 1024)^2: root spacing spends its steps where the eye, and sRGB, spend theirs."""
    exposed = 1 - np.exp(-((np.arange(4096) / 1024) ** 2))
    srgb = np.where(exposed < 0.0031308, 12.92 * exposed, 1.055 * exposed ** (1 / 2.4) - 0.055)
    return (srgb * 255 + 0.5).astype(np.uint8)


CURVE = _curve()


def develop(light: Floats) -> Bytes:
    """Linear light -> sRGB bytes, with the soft shoulder of film: highlights approach white and never clip."""
    place = np.minimum(np.sqrt(np.maximum(light, 0)) * 1024, len(CURVE) - 1)
    developed: Bytes = CURVE.take(place.astype(np.intp))
    return developed
