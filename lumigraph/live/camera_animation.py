"""Camera animation: interpolation between two cameras over time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import ValidationError

from lumigraph.wire.live import Camera, Easing

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class CameraAnimation:
    """A camera that moves from `start` to `end`. `start_time` and `duration` are in seconds of the caller's clock."""

    start: Camera
    end: Camera
    start_time: float
    duration: float
    easing: Easing

    @property
    def end_time(self) -> float:
        return self.start_time + self.duration

    def at(self, now: float) -> Camera:
        """The camera at time `now`; from `end_time` on, exactly `end`."""
        if now >= self.end_time:
            return self.end
        fraction = max(0.0, (now - self.start_time) / self.duration)
        if self.easing == "ease_in_out":
            fraction = fraction * fraction * (3 - 2 * fraction)  # smoothstep: zero speed at both ends
        try:
            return interpolate(self.start, self.end, fraction)
        except ValidationError:  # the arc exceeds the allowed coordinates, although both ends are within them
            return self.end


def interpolate(start: Camera, end: Camera, fraction: float) -> Camera:
    """The camera at a `fraction` in 0..1 of the way.

    Of the position and the look-at point, the one with the shorter way moves on a straight line. The other one moves
    on an arc around it. So a camera that goes to the other side of an object moves around it, and a camera that only
    turns keeps its position.
    """
    turns_in_place = math.dist(start.position, end.position) < math.dist(start.look_at, end.look_at)
    if turns_in_place:
        position = _lerp(start.position, end.position, fraction)
        look_at = _add(position, _arc(_view_vector(start), _view_vector(end), fraction, start.up))
    else:
        look_at = _lerp(start.look_at, end.look_at, fraction)
        offset = _arc(_scale(_view_vector(start), -1), _scale(_view_vector(end), -1), fraction, start.up)
        position = _add(look_at, offset)
    up = _arc(start.up, end.up, fraction, _view_vector(start))
    fov = start.fov + (end.fov - start.fov) * fraction
    return Camera(position=position, look_at=look_at, up=up, fov=fov)


def _arc(a: Vector, b: Vector, fraction: float, axis: Vector) -> Vector:
    """Interpolate between two nonzero vectors: spherical for the direction, geometric for the length.

    If they are opposite, all ways round are equally short; the rotation about `axis` is used.
    """
    length_a, length_b = math.hypot(*a), math.hypot(*b)
    ua, ub = _scale(a, 1 / length_a), _scale(b, 1 / length_b)
    angle = 2 * math.atan2(math.dist(ua, ub), math.hypot(*_add(ua, ub)))
    normal_part = _add(ub, _scale(ua, -_dot(ua, ub)))  # the component of b perpendicular to a
    if math.hypot(*normal_part) < 1e-6:
        normal_part = _perpendicular(ua, axis)
    tangent = _normalize(normal_part)
    direction = _add(_scale(ua, math.cos(angle * fraction)), _scale(tangent, math.sin(angle * fraction)))
    return _scale(direction, length_a ** (1 - fraction) * length_b**fraction)


def _perpendicular(direction: Vector, axis: Vector) -> Vector:
    """A vector perpendicular to the unit `direction`, and also to `axis` unless the two are parallel."""
    for candidate in (axis, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)):
        normal = _cross(_normalize(candidate), direction)
        if math.hypot(*normal) > 1e-3:
            break
    return normal


def _view_vector(camera: Camera) -> Vector:
    return _add(camera.look_at, _scale(camera.position, -1))


def _lerp(a: Vector, b: Vector, fraction: float) -> Vector:
    return _add(_scale(a, 1 - fraction), _scale(b, fraction))


def _add(a: Vector, b: Vector) -> Vector:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def _scale(a: Vector, factor: float) -> Vector:
    return (a[0] * factor, a[1] * factor, a[2] * factor)


def _normalize(a: Vector) -> Vector:
    return _scale(a, 1 / math.hypot(*a))


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Vector, b: Vector) -> Vector:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
