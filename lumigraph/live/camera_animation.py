"""A camera on its way from one place to another."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import ValidationError

from lumigraph.wire.live import Camera, Easing

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Flight:
    """`begun` in seconds of whatever clock asks, `duration` in seconds."""

    start: Camera
    end: Camera
    begun: float
    duration: float
    easing: Easing

    @property
    def lands(self) -> float:
        return self.begun + self.duration

    def at(self, now: float) -> Camera:
        """Where the camera is; from `lands` on, exactly at its end."""
        if now >= self.lands:
            return self.end
        share = max(0.0, (now - self.begun) / self.duration)
        if self.easing == "ease_in_out":
            share = share * share * (3 - 2 * share)  # leaves and arrives with no speed
        try:
            return between(self.start, self.end, share)
        except ValidationError:  # an arc that leaves the world of allowed numbers, between two ends within it
            return self.end


def between(start: Camera, end: Camera, share: float) -> Camera:
    """The camera at a `share` 0..1 of the way.

    Of its position and what it looks at, the one with the shorter way goes straight, and the other is carried around
    it on an arc: a camera that goes to the other side of a thing goes around it, not through it, and one that looks
    around a room stays where it stands.
    """
    pivots = math.dist(start.position, end.position) < math.dist(start.look_at, end.look_at)
    if pivots:
        position = _line(start.position, end.position, share)
        look_at = _add(position, _arc(_from_to(start), _from_to(end), share, start.up))
    else:
        look_at = _line(start.look_at, end.look_at, share)
        away = _arc(_scaled(_from_to(start), -1), _scaled(_from_to(end), -1), share, start.up)
        position = _add(look_at, away)
    up = _arc(start.up, end.up, share, _from_to(start))
    fov = start.fov + (end.fov - start.fov) * share
    return Camera(position=position, look_at=look_at, up=up, fov=fov)


def _arc(a: Vector, b: Vector, share: float, axis: Vector) -> Vector:
    """From `a` to `b`, neither zero: the direction turns evenly, the length grows by an even factor.

    Where they are opposite any way round is as short; it is taken about `axis`.
    """
    long_a, long_b = math.hypot(*a), math.hypot(*b)
    ua, ub = _scaled(a, 1 / long_a), _scaled(b, 1 / long_b)
    angle = 2 * math.atan2(math.dist(ua, ub), math.hypot(*_add(ua, ub)))
    across = _add(ub, _scaled(ua, -_dot(ua, ub)))  # the part of b that is not along a
    if math.hypot(*across) < 1e-6:
        across = _across(ua, axis)
    turned = _add(_scaled(ua, math.cos(angle * share)), _scaled(_unit(across), math.sin(angle * share)))
    return _scaled(turned, long_a ** (1 - share) * long_b**share)


def _across(direction: Vector, axis: Vector) -> Vector:
    """Something at right angles to the unit `direction`, and to `axis` where that is not along it."""
    for other in (axis, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)):
        found = _cross(_unit(other), direction)
        if math.hypot(*found) > 1e-3:
            break
    return found


def _from_to(camera: Camera) -> Vector:
    return _add(camera.look_at, _scaled(camera.position, -1))


def _line(a: Vector, b: Vector, share: float) -> Vector:
    return _add(_scaled(a, 1 - share), _scaled(b, share))


def _add(a: Vector, b: Vector) -> Vector:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def _scaled(a: Vector, by: float) -> Vector:
    return (a[0] * by, a[1] * by, a[2] * by)


def _unit(a: Vector) -> Vector:
    return _scaled(a, 1 / math.hypot(*a))


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Vector, b: Vector) -> Vector:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
