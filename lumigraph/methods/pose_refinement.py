"""Corrections of training cameras by the photometric loss, after BARF [Lin 2021] and nerfstudio's camera optimizer.

A correction is a twist (w, v) in camera coordinates: camera from world becomes exp(w) [R | t] + v. Adam moves it along
the gradient that rendering has in the camera, a weak pull draws it back, so that the cameras as a whole stay where they
are, and the first steps, in which the gaussians say nothing about cameras yet, leave it alone.

  [Lin 2021]  BARF: Bundle-Adjusting Neural Radiance Fields.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lumigraph.kernels import splat as kernel

START, END = 0.1, 0.9  # progress
INTERVAL = 2  # training steps from one correction to the next
RATE, RATE_END = 2e-3, 2e-4  # radians a step, and scene extents
PULL = 1e-3  # share of a correction that is lost in each of its steps
BETA1, BETA2 = 0.9, 0.99


def is_due(step: int, progress: float) -> bool:
    return START <= progress < END and step % INTERVAL == 0


class PoseCorrections:
    """Twists of N cameras. extent: world units, the size of what the cameras surround."""

    def __init__(self, cam_from_world: Tensor, extent: float) -> None:
        n = len(cam_from_world)
        self._given = cam_from_world.double()  # (N, 3, 4)
        self.twists, self._m, self._v = (torch.zeros(n, 6, dtype=torch.float64) for _ in range(3))
        self._steps = torch.zeros(n, dtype=torch.float64)
        self._unit = torch.tensor([1.0] * 3 + [extent] * 3, dtype=torch.float64)

    def cam_from_world(self, i: int) -> Tensor:
        """(3, 4) float64 with its correction."""
        turn = torch.linalg.matrix_exp(skew(self.twists[i, :3]))
        pose = turn @ self._given[i]
        pose[:, 3] += self.twists[i, 3:] * self._unit[3]
        return pose

    def descend(self, i: int, gradient: Tensor, progress: float) -> None:
        """One step of camera i. gradient: (3, 4), of the loss in its camera from world."""
        if not bool(gradient.isfinite().all()):
            return
        pose, gradient = self.cam_from_world(i), gradient.double()
        moved = gradient @ pose.T  # sum over columns: how the loss changes as rows of the pose mix
        turned = torch.stack([moved[2, 1] - moved[1, 2], moved[0, 2] - moved[2, 0], moved[1, 0] - moved[0, 1]])
        along = torch.cat([turned, gradient[:, 3] * self._unit[3]])
        self._steps[i] += 1
        t = float(self._steps[i])
        self._m[i] = BETA1 * self._m[i] + (1 - BETA1) * along
        self._v[i] = BETA2 * self._v[i] + (1 - BETA2) * along.square()
        step = self._m[i] / (1 - BETA1**t) / ((self._v[i] / (1 - BETA2**t)).sqrt() + 1e-15)
        share = (progress - START) / (END - START)
        self.twists[i] = (1 - PULL) * self.twists[i] - RATE * (RATE_END / RATE) ** share * step

    def typical(self) -> tuple[float, float]:
        """The medians of the angles in degrees and of the shifts in world units."""
        turned, moved = self.twists.split(3, 1)
        return float(torch.rad2deg(turned.norm(dim=1)).median()), float((moved * self._unit[3]).norm(dim=1).median())

    def state(self) -> Tensor:
        """(N, 19): twists, moments and steps."""
        return torch.cat([self.twists, self._m, self._v, self._steps[:, None]], 1)

    def restore(self, state: Tensor) -> None:
        """Raises ValueError where the state is not of these cameras."""
        if state.shape != (len(self.twists), 19):
            raise ValueError(f"corrections of {len(self.twists)} cameras are not of the shape {tuple(state.shape)}")
        self.twists, self._m, self._v = (part.clone() for part in state[:, :18].double().split(6, 1))
        self._steps = state[:, 18].double().clone()


def pose_gradient(
    rows: kernel.Trainer,
    camera: kernel.Camera,
    degree: int,
    background: Tensor,
    photo: Tensor,
    mask: Tensor | None,
    weights: Any,
) -> Tensor:
    """(3, 4) float32: of the photometric loss of one view in its camera from world."""
    n = rows.count
    pose = camera.world_to_cam.detach().clone().requires_grad_()
    seen = kernel.Camera(pose, camera.focal, camera.centre, camera.size, camera.near, camera.antialiased)
    rgb, _, _ = kernel.render(rows.params[:n], rows.sh_rest[:n], seen, degree, background)
    planes = rgb.permute(2, 0, 1)
    _, gradient, _ = kernel.photometric_loss(planes.detach(), photo, weights, mask)
    planes.backward(gradient)  # type: ignore[no-untyped-call]
    assert pose.grad is not None
    return pose.grad


def skew(w: Tensor) -> Tensor:
    """(3,) -> (3, 3): the cross product with w."""
    x, y, z = w.tolist()
    return torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
