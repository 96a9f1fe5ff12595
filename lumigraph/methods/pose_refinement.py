"""Corrections of training cameras by direct alignment: a camera moves until the render lies on its photo.

Where a render has contrast and depth, a small twist of its camera changes each pixel by the image gradient times the
flow of the point that it shows. The twist that explains the differences to the photo best, next to a gain and a bias of
the photo, is a least-squares problem in eight unknowns, solved with robust weights [Kerl 2013, equations 10 to 18]. The
pixels with the strongest gradients determine it. Rounds over all photos alternate with training. After each round, the
similarity that all cameras have in common is removed, so that held-out cameras stay consistent with the scene.

A pose is cam_from_world (3, 4) float64. A twist (6,) is a rotation vector in radians and a shift in world units, both
in the camera's coordinates.

  [Kerl 2013]  Robust Odometry Estimation for RGB-D Cameras.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.scene.cameras import Cameras
from lumigraph.scene.field import Field
from lumigraph.scene.images import Image
from lumigraph.scene.poses import rotation_error_degrees

ROUNDS = (0.26, 0.36, 0.5)  # progress of the training: the first after images reached their full size
ITERATIONS = (2, 1, 1)  # of each round
MIN_FLOW_PX = 0.15  # of the median photo in the first round; cameras that want to move less stay as given
MIN_ALPHA = 0.9  # of a pixel with a depth
HUBER_DIFFERENCE = 0.05  # of grey values 0..1; pixels with larger ones count less
SELECTED_SHARE = 0.1  # of the pixels
SELECTION_STRIDE_PX = 7  # pixels, between those that the threshold of selection is taken from
MIN_PIXELS = 100
MIN_CORRELATION = 0.3  # of render and photo
MAX_TURN, MAX_SHIFT = 0.05, 0.05  # radians and median depths of one step
DAMPING = 0.03  # of the diagonal


class Step(NamedTuple):
    """A Gauss-Newton step."""

    twist: Tensor  # (6,) float64
    correlation: float  # of render and photo before it
    flow: float  # median length of the flow in pixels


GreyPhoto = Callable[[int], tuple[Tensor, Tensor | None]]


class PoseRefinement:
    """The poses of N training cameras between rounds of alignment.

    poses: (N, 3, 4) float64; flow: median over the photos of the motion in the first round, in pixels.
    """

    def __init__(self, cameras: Cameras) -> None:
        self._initial_world_from_cam = cameras.world_from_cam.double()
        self.initial_poses = cameras.to(dtype=torch.float64).cam_from_world
        self.poses, self.rounds, self.flow = self.initial_poses, 0, 0.0

    def is_due(self, progress: float) -> bool:
        return self.rounds < len(ROUNDS) and progress >= ROUNDS[self.rounds]

    def refine(self, field: Field, cameras: Cameras, photo: GreyPhoto) -> None:
        """Run one round, the last one if the photos show no error of their poses.

        `photo(i)` is (grey, mask) of photo i, as for `align_camera`; poses of `cameras` do not count.
        """
        poses, flows = self.poses.clone(), []
        for i in range(len(poses)):
            poses[i], flow = align_camera(field, cameras[i], poses[i], *photo(i), ITERATIONS[self.rounds])
            flows.append(flow)
        if self.rounds == 0:
            self.flow = float(torch.tensor(flows).median())
            if self.flow < MIN_FLOW_PX:
                self.rounds = len(ROUNDS)
                return
        self.poses = without_common_motion(poses, self.initial_poses)
        self.rounds += 1

    @property
    def is_changed(self) -> bool:
        return not torch.equal(self.poses, self.initial_poses)

    @property
    def world_from_cam(self) -> Tensor:
        """(N, 3, 4) float64."""
        return inverse(self.poses) if self.is_changed else self._initial_world_from_cam

    def corrections(self) -> tuple[float, float]:
        """Median turn in degrees and median shift in world units, of all cameras since the beginning."""
        turns, positions = inverse(self.poses)[..., :3], inverse(self.poses)[..., 3]
        initial = inverse(self.initial_poses)
        degrees = rotation_error_degrees(turns, initial[..., :3]).median()
        return float(degrees), float((positions - initial[..., 3]).norm(dim=1).median())

    def state(self) -> dict[str, Tensor]:
        return {"poses": self.poses, "pose_rounds": torch.tensor([self.rounds, self.flow], dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore from a checkpoint; one without poses leaves them as given. Raises ValueError if they do not fit."""
        if "poses" not in state:
            return
        if state["poses"].shape != self.initial_poses.shape:
            raise ValueError(f"poses of {len(state['poses'])} cameras for {len(self.initial_poses)} photos")
        rounds, self.flow = state["pose_rounds"].tolist()
        self.poses, self.rounds = state["poses"].double(), int(rounds)


def align_camera(
    field: Field, camera: Cameras, pose: Tensor, photo: Tensor, mask: Tensor | None, iterations: int
) -> tuple[Tensor, float]:
    """Move one camera until the render of `field` lies on its photo.

    Args:
        camera: one pinhole camera; its pose is not used
        pose: (3, 4) float64 cam_from_world to begin with
        photo: (H, W) grey values 0..1, over black where it has alpha
        mask: (H, W) uint8, 0 where pixels do not count; None counts all

    Returns the pose and the median flow of the first step in pixels. A photo that does not determine a motion keeps
    its pose, and so does one whose steps do not bring the render nearer.
    """
    best, flow, before = pose, 0.0, -1.0
    for k in range(iterations):
        with torch.no_grad():
            image = field.render(posed(camera, pose))
        step = gauss_newton_step(image[0], camera, photo, mask)
        if step is None or step.correlation <= before:
            return best, flow
        if k == 0:
            flow = step.flow
        best, before = pose, step.correlation
        pose = moved(pose, step.twist)
    return pose, flow


def gauss_newton_step(image: Image, camera: Cameras, photo: Tensor, mask: Tensor | None) -> Step | None:
    """The twist that lays a render of `camera` on its photo, arguments as for `align_camera`.

    None if the render has no depth, if too few pixels determine the twist, if render and photo are not alike, or if the
    twist is not small.
    """
    if image.alpha is None or image.depth is None:
        return None
    red, green, blue = image.rgb.unbind(-1)
    grey, depth = (red + green + blue) / 3, image.depth[..., 0]
    valid = image.alpha[..., 0] > MIN_ALPHA
    if mask is not None:
        valid &= mask > 127
    correlation = _correlation(grey, photo, valid)
    if not correlation > MIN_CORRELATION:
        return None
    across, down = gradients(grey)
    v, u = _strongest(across.square() + down.square(), valid).unbind(1)
    if len(u) < MIN_PIXELS:
        return None
    render_grey, photo_grey, z = grey[v, u], photo[v, u], depth[v, u]
    flow = flow_jacobian(torch.stack([u, v], 1) + 0.5, z, camera)  # (M, 2, 6)
    of_twist = across[v, u, None] * flow[:, 0] + down[v, u, None] * flow[:, 1]
    jacobian = torch.cat([-of_twist, render_grey[:, None], torch.ones_like(render_grey)[:, None]], 1)
    error = photo_grey - render_grey
    weighted_jacobian = jacobian * (HUBER_DIFFERENCE / error.abs().clamp(min=HUBER_DIFFERENCE))[:, None]
    twist = _damped_solution(
        (weighted_jacobian.T @ jacobian).double().cpu(), (weighted_jacobian.T @ error).double().cpu()
    )[:6]
    turn, shift = float(twist[:3].norm()), float(twist[3:].norm())
    if not (turn < MAX_TURN and shift < MAX_SHIFT * float(z.median())):
        return None
    return Step(twist, correlation, float((flow @ twist.to(flow)).norm(dim=1).median()))


def flow_jacobian(pixels: Tensor, z: Tensor, camera: Cameras) -> Tensor:
    """(M, 2, 6): motion in pixels, for each part of a twist, of points seen at `pixels` (M, 2) and depth `z` (M,)."""
    focal, centre = camera.focal[0].to(z), camera.centre[0].to(z)
    x, y = ((pixels.to(z) - centre) / focal).unbind(1)
    inverse, zero = 1 / z.clamp(min=1e-9), torch.zeros_like(z)
    of_u = torch.stack([-x * y, 1 + x * x, -y, inverse, zero, -x * inverse], 1) * focal[0]
    of_v = torch.stack([-1 - y * y, x * y, x, zero, inverse, -y * inverse], 1) * focal[1]
    return torch.stack([of_u, of_v], 1)


def gradients(grey: Tensor) -> tuple[Tensor, Tensor]:
    """(H, W) -> central differences along x and along y, 0 at the border."""
    across, down = torch.zeros_like(grey), torch.zeros_like(grey)
    across[1:-1, 1:-1] = (grey[1:-1, 2:] - grey[1:-1, :-2]) / 2
    down[1:-1, 1:-1] = (grey[2:, 1:-1] - grey[:-2, 1:-1]) / 2
    return across, down


def moved(pose: Tensor, twist: Tensor) -> Tensor:
    """(3, 4) float64 cam_from_world, turned and shifted in the camera's coordinates."""
    x, y, z = twist[:3].tolist()
    turn = torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64))
    pose = turn @ pose.double()
    pose[:, 3] += twist[3:]
    return pose


def without_common_motion(poses: Tensor, target_poses: Tensor) -> Tensor:
    """(N, 3, 4) `poses` after the similarity of the world that lays them on `target_poses` best."""
    moved_cameras, target_cameras = inverse(poses), inverse(target_poses)
    u, _, vt = torch.linalg.svd((target_cameras[..., :3] @ moved_cameras[..., :3].transpose(1, 2)).sum(0))
    proper = torch.tensor([1.0, 1.0, float(torch.det(u @ vt))], dtype=torch.float64)
    common = u @ proper.diag() @ vt
    rotated_positions = moved_cameras[..., 3] @ common.T
    centred_positions, target = (
        rotated_positions - rotated_positions.mean(0),
        target_cameras[..., 3] - target_cameras[..., 3].mean(0),
    )
    scale = float((centred_positions * target).sum() / centred_positions.square().sum().clamp(min=1e-30)) or 1.0
    positions = scale * centred_positions + target_cameras[..., 3].mean(0)
    return inverse(torch.cat([common @ moved_cameras[..., :3], positions[..., None]], 2))


def inverse(poses: Tensor) -> Tensor:
    """(N, 3, 4) rigid cam_from_world -> world_from_cam, and back."""
    turns = poses[..., :3].transpose(1, 2)
    return torch.cat([turns, -turns @ poses[..., 3:]], 2)


def posed(camera: Cameras, pose: Tensor) -> Cameras:
    """One camera at another pose."""
    return dataclasses.replace(camera, world_from_cam=inverse(pose[None]).to(camera.world_from_cam))


def _strongest(strength: Tensor, valid: Tensor) -> Tensor:
    """(M, 2) rows and columns of the SELECTED_SHARE of pixels where `strength` (H, W) is largest and that count."""
    strength = strength * valid
    sample = strength.flatten()[::SELECTION_STRIDE_PX]
    threshold = sample.kthvalue(max(1, math.ceil((1 - SELECTED_SHARE) * len(sample)))).values
    return (strength > threshold).nonzero()


def _correlation(a: Tensor, b: Tensor, valid: Tensor) -> float:
    """Pearson's, of the pixels that count; 0 if one image is of one colour."""
    count = valid.sum().clamp(min=1)
    a, b = ((x - (x * valid).sum() / count) * valid for x in (a, b))
    return float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-9))


def _damped_solution(normal: Tensor, right: Tensor) -> Tensor:
    """Solve normal equations that are scaled to a diagonal of ones first; rows of zeros give zeros."""
    scale = normal.diagonal().clamp(min=1e-12).rsqrt()
    damped_normal = normal * scale * scale[:, None] + DAMPING * torch.eye(len(normal), dtype=normal.dtype)
    solution: Tensor = scale * torch.linalg.solve(damped_normal, scale * right)
    return solution
