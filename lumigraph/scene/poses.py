"""Poses and paths: rotations, look-at, similarity alignment, and camera paths through or around a capture.

Poses are world_from_cam (3, 4) with OpenCV axes, as in `cameras`. Quaternions are w x y z. Paths are `Cameras` of
one size, one camera a frame.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lumigraph.scene.cameras import Cameras

# -- rotations -------------------------------------------------------------------------------------------------------


def quaternion_from_matrix(rotation: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 4) unit w x y z with w >= 0 (Shepperd 1978: divide by the largest of the four)."""
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    rows = [  # row i is 4 q_i times the quaternion
        torch.stack([1 + xx + yy + zz, wx, wy, wz], dim=-1),
        torch.stack([wx, 1 + xx - yy - zz, xy, xz], dim=-1),
        torch.stack([wy, xy, 1 - xx + yy - zz, yz], dim=-1),
        torch.stack([wz, xz, yz, 1 - xx - yy + zz], dim=-1),
    ]
    all_rows = torch.stack(rows, dim=-2)
    best = all_rows.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    q = torch.take_along_dim(all_rows, best[..., None, None], dim=-2)[..., 0, :]
    return normalize(torch.where(q[..., :1] < 0, -q, q), dim=-1)


def matrix_from_quaternion(quaternion: Tensor) -> Tensor:
    """(..., 4) w x y z of any length but zero -> (..., 3, 3)."""
    w, x, y, z = normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def quaternion_product(a: Tensor, b: Tensor) -> Tensor:
    """(..., 4) w x y z: rotate by b, then by a (Hamilton)."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    product = [
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ]
    return torch.stack(product, dim=-1)


def rotation_error_degrees(a: Tensor, b: Tensor) -> Tensor:
    """(..., 3, 3), (..., 3, 3) -> (...) angle between two rotations.

    The Frobenius norm of a - b is 2 sqrt(2) sin(angle / 2), which unlike arccos of a trace is precise near zero.
    """
    chord = torch.linalg.matrix_norm(a - b) / (2 * math.sqrt(2))
    return 2 * torch.rad2deg(torch.asin(chord.clamp(max=1)))


def look_at(eye: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """World points `eye` and `target` and direction `up`, each (..., 3) -> (..., 3, 4) world_from_cam.

    A view parallel to `up` uses a coordinate axis instead. Raises ValueError if eye and target coincide.
    """
    forward = target - eye + torch.zeros_like(up)  # of the shape to which all three broadcast
    eye, up = eye.expand_as(forward), up.expand_as(forward)
    distance = forward.norm(dim=-1, keepdim=True)
    if not (distance > 0).all():
        raise ValueError("a camera cannot look at the point where it stands")
    forward = forward / distance
    up = normalize(up, dim=-1)
    right = torch.linalg.cross(forward, up)
    # The coordinate axis least along the view is never parallel to it.
    spare = torch.nn.functional.one_hot(forward.abs().argmin(dim=-1), 3).to(forward)
    right = torch.where(right.norm(dim=-1, keepdim=True) < 1e-6, torch.linalg.cross(forward, spare), right)
    right = normalize(right, dim=-1)
    down = torch.linalg.cross(forward, right)
    return torch.stack([right, down, forward, eye], dim=-1)


# -- similarity ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Similarity:
    """x -> scale rotation x + translation. `scale` > 0."""

    scale: float
    rotation: Tensor  # (3, 3) proper
    translation: Tensor  # (3,)

    def transform_points(self, points: Tensor) -> Tensor:
        """(..., 3) -> (..., 3), in the dtype of `points`."""
        return self.scale * points @ self.rotation.to(points).T + self.translation.to(points)

    def transform_poses(self, world_from_cam: Tensor) -> Tensor:
        """(..., 3, 4) -> (..., 3, 4), rigid: axes rotate, positions are transformed."""
        axes = self.rotation.to(world_from_cam) @ world_from_cam[..., :3]
        return torch.cat([axes, self.transform_points(world_from_cam[..., 3])[..., None]], dim=-1)

    def transform_cameras(self, cameras: Cameras) -> Cameras:
        """The cameras in the new world."""
        return dataclasses.replace(cameras, world_from_cam=self.transform_poses(cameras.world_from_cam))

    def inverse(self) -> Similarity:
        back = self.rotation.T / self.scale
        return Similarity(1 / self.scale, self.rotation.T, -back @ self.translation)


def align_similarity(source: Tensor, target: Tensor) -> Similarity:
    """Least-squares similarity from `source` (N, 3) to `target` (N, 3) (Umeyama 1991).

    float64. Raises ValueError for fewer than three points, or points on one line, which leave the rotation open.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3:
        raise ValueError(
            f"source and target must be points (N, 3), not {tuple(source.shape)} and {tuple(target.shape)}"
        )
    source, target = source.double(), target.double()
    from_mean, to_mean = source.mean(dim=0), target.mean(dim=0)
    x, y = source - from_mean, target - to_mean
    u, d, vt = torch.linalg.svd(y.T @ x / max(len(x), 1))
    if len(x) < 3 or not d[1] > 1e-12 * d[0]:
        raise ValueError("alignment needs at least three points that do not lie on one line")
    sign = torch.ones_like(d)
    sign[2] = torch.sign(torch.linalg.det(u) * torch.linalg.det(vt))  # a reflection is no rotation
    rotation = u @ torch.diag(sign) @ vt
    scale = float((d * sign).sum() / x.square().sum(dim=1).mean())
    return Similarity(scale, rotation, to_mean - scale * rotation @ from_mean)


# -- direction and focus of a capture --------------------------------------------------------------------------------


def up_direction(cameras: Cameras) -> Tensor:
    """(3,) up direction of a hand-held capture, unit length.

    People keep the horizon level, so the cameras' right axes are horizontal. Up is the direction of least variance
    of right axes, with the sign of the cameras' own up (-y). If all cameras look the same way, the right axes leave a
    plane open, and the mean of the cameras' ups decides within it.
    """
    pose = cameras.world_from_cam.double()
    right, up = pose[:, :, 0], normalize(-pose[:, :, 1].mean(dim=0), dim=0)
    scatter = right.T @ right / len(cameras) - 0.003 * torch.outer(up, up)
    _, vectors = torch.linalg.eigh(scatter)  # ascending
    up_axis = vectors[:, 0]
    return torch.where(up_axis @ up < 0, -up_axis, up_axis).to(cameras.world_from_cam)


def focus_point(cameras: Cameras, depth: float | None = None) -> Tensor:
    """(3,) point nearest to all optical axes, robust to outliers.

    Nearly parallel axes have no stable intersection: a weak prior holds the point at `depth` (world units) in front
    of the mean camera, by default ten times the spread of the positions: too far is a gentle path, too near a wild one.
    """
    positions, forwards = cameras.positions.double(), cameras.forwards.double()
    mean = positions.mean(dim=0)
    if depth is None:
        depth = 10 * max(float((positions - mean).norm(dim=1).square().mean().sqrt()), 1e-6)
    prior = mean + depth * forwards.mean(dim=0)  # all around: about the mean itself
    across = torch.eye(3, dtype=torch.float64) - forwards[:, :, None] * forwards[:, None, :]  # projects onto I - d d^T
    weights = torch.ones(len(cameras), dtype=torch.float64)
    point = prior
    for _ in range(10):  # reweighted least squares: the sum of distances instead of squares (Weiszfeld 1937)
        weighted_projectors = weights[:, None, None] * across
        pull = 3e-4 * weights.sum()  # outweighs the axes only where they meet at about a degree or less
        left = weighted_projectors.sum(dim=0) + pull * torch.eye(3, dtype=torch.float64)
        right = (weighted_projectors @ positions[:, :, None]).sum(dim=0)[:, 0] + pull * prior
        point = torch.linalg.solve(left, right)
        residual = (across @ (point - positions)[:, :, None])[:, :, 0].norm(dim=1)
        weights = 1 / residual.clamp(min=1e-3 * depth)
    return point.to(cameras.world_from_cam)


# -- paths -----------------------------------------------------------------------------------------------------------


def path_cameras(like: Cameras, poses: Tensor) -> Cameras:
    """Pinhole cameras at `poses` (F, 3, 4) with the intrinsics of `like`.

    Size: the most common of `like`; focal length: the median of cameras of that size; centre: the image centre.
    """
    sizes = [like.size(i) for i in range(len(like))]
    size = like.sizes[sizes.index(max(sizes, key=sizes.count))]
    focal = like.focal[(like.sizes == size).all(dim=1)].median(dim=0).values
    frames = len(poses)
    return Cameras(
        poses.to(like.focal),
        focal.expand(frames, 2).clone(),
        (size / 2).to(like.focal).expand(frames, 2).clone(),
        size.expand(frames, 2).clone(),
    )


def orbit(
    like: Cameras,
    frames: int,
    *,
    centre: Tensor,
    radius: float,
    height: float,
    up: Tensor,
    start: Tensor | None = None,
) -> Cameras:
    """Closed circle around `centre` (3,), counter-clockwise seen from above, with the intrinsics of `like`.

    `radius` is measured horizontally and `height` along `up`, in world units; frame 0 is in the direction
    `start` (3,) from the centre.
    """
    angles = torch.arange(frames, dtype=torch.float64) * (2 * math.pi / frames)
    return _circle(like, angles, centre, radius, height, up, start)


def spiral(like: Cameras, frames: int, *, depth: float | None = None, turns: float = 2, wobble: float = 0.5) -> Cameras:
    """Forward-facing spiral of LLFF (Mildenhall et al. 2019) around the mean camera, looking at the focus point.

    The radii are the 90th percentiles of the positions in the mean camera's axes, so the path stays near the photos. It
    has `turns` turns with `wobble` periods in depth each. An integer product closes the path.
    """
    focus = focus_point(like, depth).double()
    positions = like.positions.double()
    mean = positions.mean(dim=0)
    pose = look_at(mean, focus, up_direction(like).double())
    reach = ((positions - mean) @ pose[:, :3]).abs().quantile(0.9, dim=0)
    angle = torch.arange(frames, dtype=torch.float64) * (2 * math.pi * turns / frames)
    offsets = torch.stack([angle.cos(), angle.sin(), (angle * wobble).sin()], dim=1) * reach
    eyes = mean + offsets @ pose[:, :3].T
    return path_cameras(like, look_at(eyes, focus, -pose[:, 1]))


def spline_path(key_cameras: Cameras, frames: int, closed: bool = False) -> Cameras:
    """Smooth path through key cameras: Catmull-Rom for positions (1974), squad for rotations (Shoemake 1987).

    All segments take the same time. An open path starts at the first key and ends at the last. A closed path returns to
    the first and ends one frame before it. Intrinsics are interpolated too. Raises ValueError without keys or if
    their sizes differ.
    """
    k = len(key_cameras)
    if not k:
        raise ValueError("a path needs at least one key camera")
    if (key_cameras.sizes != key_cameras.sizes[0]).any():
        raise ValueError("the key cameras of a path must all have one size")
    segments, steps = (k, frames) if closed else (k - 1, frames - 1)
    t = torch.arange(frames, dtype=torch.float64) * (segments / max(steps, 1))
    i = t.long().clamp(max=max(segments - 1, 0))
    f = (t - i)[:, None]

    def at(step: int) -> Tensor:  # key indices around the segment, with the ends repeated on an open path
        return (i + step) % k if closed else (i + step).clamp(0, k - 1)

    def blend(values: Tensor) -> Tensor:
        return values[at(0)].double() * (1 - f) + values[at(1)].double() * f

    p0, p1, p2, p3 = (key_cameras.positions.double()[at(step)] for step in (-1, 0, 1, 2))
    # On an open path the missing key beyond an end mirrors its neighbour, so the path leaves at full speed.
    if not closed and k > 1:
        p0 = torch.where((i == 0)[:, None], 2 * p1 - p2, p0)
        p3 = torch.where((i == k - 2)[:, None], 2 * p2 - p1, p3)
    positions = p1 + 0.5 * f * (p2 - p0 + f * (2 * p0 - 5 * p1 + 4 * p2 - p3 + f * (3 * (p1 - p2) + p3 - p0)))
    rotations = _squad(key_cameras.world_from_cam[:, :, :3].double(), at(0), at(1), f, closed)
    poses = torch.cat([matrix_from_quaternion(rotations), positions[:, :, None]], dim=2)
    return Cameras(
        poses.to(key_cameras.focal),
        blend(key_cameras.focal.log()).exp().to(key_cameras.focal),
        blend(key_cameras.centre).to(key_cameras.focal),
        key_cameras.sizes[:1].expand(frames, 2).clone(),
        key_cameras.lens,
        None if key_cameras.distortion is None else blend(key_cameras.distortion).to(key_cameras.focal),
    )


def capture_orbit(cameras: Cameras, frames: int, depth: float | None = None) -> Cameras:
    """Closed turntable path for any capture, within the photographed side.

    Photos all around give a full circle. Photos from one side give a swing within their arc, since the far side is
    unknown. Cameras without a common focus (a walk, a room from inside) give a path along their own positions and back.
    `depth`: typical scene depth in world units, if known.
    """
    focus, up = focus_point(cameras, depth).double(), up_direction(cameras).double()
    positions = cameras.positions.double()
    offsets = positions - focus
    distances = offsets.norm(dim=1).clamp(min=1e-12)
    heights = offsets @ up
    flat = offsets - heights[:, None] * up
    aside = flat.norm(dim=1) > 0.2 * distances  # from straight above, the compass direction means nothing
    towards = -(offsets * cameras.forwards.double()).sum(dim=1) / distances
    if towards.median() < math.cos(math.radians(20)) or not aside.any():
        return _there_and_back(cameras, frames)

    distance, elevation = distances.median(), torch.asin((heights / distances).clamp(-1, 1)).median()
    radius, height = float(distance * elevation.cos()), float(distance * elevation.sin())
    east = normalize(flat[aside][0], dim=0)
    north = torch.linalg.cross(up, east)
    first, arc = _photographed_arc(torch.atan2(flat[aside] @ north, flat[aside] @ east))
    turn = torch.arange(frames, dtype=torch.float64) * (2 * math.pi / max(frames, 1))
    if arc < 2 * math.pi:
        position_spread = float((positions - positions.mean(dim=0)).square().sum(dim=1).mean().sqrt())
        if arc * radius < position_spread:  # the cameras moved forward or upward rather than around
            return _there_and_back(cameras, frames)
        turn = first + arc / 2 * (1 - turn.cos())
    return _circle(cameras, turn, focus, radius, height, up, east)


def _photographed_arc(azimuths: Tensor) -> tuple[float, float]:
    """(M,) radians -> start and length of the arc without the widest gap; 2 pi if all gaps are small."""
    azimuths = azimuths.sort().values
    gaps = torch.cat([azimuths[1:], azimuths[:1] + 2 * math.pi]) - azimuths
    widest = int(gaps.argmax())
    if gaps[widest] < math.radians(75):
        return 0.0, 2 * math.pi
    return float(azimuths[(widest + 1) % len(azimuths)]), 2 * math.pi - float(gaps[widest])


def _circle(
    like: Cameras, angles: Tensor, centre: Tensor, radius: float, height: float, up: Tensor, start: Tensor | None
) -> Cameras:
    """Poses at `angles` (F,) radians from `start`, counter-clockwise about `up`, looking at `centre`."""
    centre, up = centre.double(), normalize(up.double(), dim=0)
    spare = torch.eye(3, dtype=torch.float64)[up.abs().argmin()]
    start = spare if start is None else start.double()
    east = normalize(start - (start @ up) * up, dim=0)
    north = torch.linalg.cross(up, east)
    ring = angles.cos()[:, None] * east + angles.sin()[:, None] * north
    return path_cameras(like, look_at(centre + radius * ring + height * up, centre, up))


def _there_and_back(cameras: Cameras, frames: int) -> Cameras:
    """Path along the cameras in order and back, smoothed by using a few of them as keys."""
    keys = torch.linspace(0, len(cameras) - 1, min(len(cameras), 8)).round().long()
    poses = cameras.world_from_cam[torch.cat([keys, keys[1:-1].flip(0)])]
    return spline_path(path_cameras(cameras, poses), frames, closed=True)


def _squad(rotations: Tensor, start_index: Tensor, end_index: Tensor, f: Tensor, closed: bool) -> Tensor:
    """Interpolate (K, 3, 3) key rotations to (F, 4) quaternions at fractions f (F, 1) between two keys (F,)."""
    q = quaternion_from_matrix(rotations)
    before, after = q.roll(1, 0), q.roll(-1, 0)  # q and -q are one rotation: neighbours take the nearer sign
    before = torch.where((before * q).sum(-1, keepdim=True) < 0, -before, before)
    after = torch.where((after * q).sum(-1, keepdim=True) < 0, -after, after)
    back = q * q.new_tensor([1, -1, -1, -1])
    bend = _log(quaternion_product(back, after)) + _log(quaternion_product(back, before))
    if not closed:
        bend[0] = bend[-1] = 0  # as if the rotation continued beyond the ends: two keys give a plain slerp
    control = quaternion_product(q, _exp(-bend / 4))
    a, b, ca, cb = q[start_index], q[end_index], control[start_index], control[end_index]
    flip = (a * b).sum(-1, keepdim=True) < 0
    b, cb = torch.where(flip, -b, b), torch.where(flip, -cb, cb)
    return _slerp(_slerp(a, b, f), _slerp(ca, cb, f), 2 * f * (1 - f))


def _slerp(a: Tensor, b: Tensor, f: Tensor) -> Tensor:
    """(F, 4), (F, 4), (F, 1) -> (F, 4); does not choose the shorter arc, since squad has already chosen the signs."""
    angle = torch.atan2((a - b).norm(dim=-1, keepdim=True), (a + b).norm(dim=-1, keepdim=True)) * 2
    near = angle < 1e-6
    sine = torch.where(near, 1.0, angle.sin())
    wa = torch.where(near, 1 - f, ((1 - f) * angle).sin() / sine)
    wb = torch.where(near, f, (f * angle).sin() / sine)
    return normalize(wa * a + wb * b, dim=-1)


def _log(q: Tensor) -> Tensor:
    """Unit quaternions (..., 4) -> (..., 3): axis times half the angle."""
    length = q[..., 1:].norm(dim=-1, keepdim=True)
    return q[..., 1:] * torch.where(length > 1e-12, torch.atan2(length, q[..., :1]) / length.clamp(min=1e-12), 1.0)


def _exp(v: Tensor) -> Tensor:
    """(..., 3) -> unit quaternions (..., 4): inverse of `_log`."""
    angle = v.norm(dim=-1, keepdim=True)
    return torch.cat([angle.cos(), v * torch.sinc(angle / math.pi)], dim=-1)
