"""Normal consistency of gaussians: in training, they turn and move onto the surface that their own depth shows.

The normal of a gaussian is its shortest axis, as in PGSR [Chen 2024]. A view is rendered with normals in place of
colours, and the loss is that of 2DGS [Huang 2024, equation 14]: the mean over pixels of sum_i w_i (1 - n_i . N), where
N is the normal of the rendered depth. Edges of the photo count less, since depth jumps there. The gradient is divided
by Adam's second moments of the photometric loss, as if both were one loss, but has no momentum.

  [Chen 2024]   PGSR: Planar-based Gaussian Splatting for Efficient and High-Fidelity Surface Reconstruction.
  [Huang 2024]  2D Gaussian Splatting for Geometrically Accurate Radiance Fields.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lumigraph.kernels import splatting as kernel
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.harmonics import C0
from lumigraph.scene.poses import matrix_from_quaternion
from lumigraph.scene.surface import normals_from_depth

START = 0.5  # progress
INTERVAL = 2  # training steps from one surface step to the next
WEIGHT = 0.2  # of the loss, beside the photometric one
EDGE_SHARPNESS = 6.0  # weight of a pixel: exp(-EDGE_SHARPNESS * contrast)
SOLID = 0.5  # alpha from which a pixel shows a surface
GEOMETRY = 11  # columns of a row: mean, log scale, quaternion, logit opacity


def is_due(step: int, progress: float) -> bool:
    return progress >= START and step % INTERVAL == 0


def surface_step(rows: kernel.Trainer, camera: kernel.Camera, cameras: Cameras, photo: Tensor) -> float:
    """Move and turn the gaussians that one view sees. Returns the loss before.

    camera, cameras: the same view, of the photo's size; photo: (3, H, W) uint8 on the rows' device.
    """
    n = rows.count
    params = rows.params[:n].detach().clone().requires_grad_()
    loss = surface_loss(params, camera, cameras, photo)
    loss.backward()  # type: ignore[no-untyped-call]
    assert params.grad is not None
    with torch.no_grad():
        adam = rows.optimizer
        correction = 1 - adam.beta2 ** params[:, kernel.STEP_COUNT, None].clamp(min=1)
        deviation = (rows.v[:n, :GEOMETRY] / correction).sqrt() + 1e-12
        step = (WEIGHT * params.grad[:, :GEOMETRY] / deviation).clamp(-1, 1).nan_to_num(0, 0, 0)
        rows.params[:n, :GEOMETRY] -= step * step.new_tensor(adam.lr[:GEOMETRY])
    return float(loss.detach())


def surface_loss(params: Tensor, camera: kernel.Camera, cameras: Cameras, photo: Tensor) -> Tensor:
    """Differentiable in params (N, 16)."""
    normals, depth, alpha = render_normals(params, camera)
    depth = depth / alpha.clamp(min=1e-3)
    with torch.no_grad():
        weight = torch.exp(-EDGE_SHARPNESS * _contrast(photo.float().mean(0) / 255)) * (alpha > SOLID)
    of_depth = normals_from_depth(depth[None, ..., None], cameras)[0]
    return (weight * (alpha - (normals * of_depth).sum(-1))).mean()


def render_normals(params: Tensor, camera: kernel.Camera) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over each pixel's gaussians of weight x normal (H, W, 3) in the world and towards the camera, of weight x z
    (H, W), and of weight (H, W)."""
    turns = matrix_from_quaternion(params[:, kernel.QUAT])
    shortest = params[:, kernel.LOG_SCALE].argmin(1)
    normals = turns.gather(2, shortest[:, None, None].expand(-1, 3, 1))[..., 0]
    with torch.no_grad():
        pose = camera.world_to_cam.to(params)
        eye = -pose[:, :3].T @ pose[:, 3]
        towards = ((eye - params[:, kernel.MEAN]) * normals).sum(1, keepdim=True) >= 0
    normals = torch.where(towards, normals, -normals)
    normal_params = torch.cat(
        [params[:, :GEOMETRY], normals * (0.5 / C0), params[:, kernel.STEP_COUNT :]], 1
    )  # 0.5 + n / 2
    rgb, depth, alpha = kernel.render(normal_params, params.new_zeros(len(params), kernel.SH_COLUMNS), camera, 0)
    return 2 * rgb - alpha[..., None], depth, alpha


def _contrast(grey: Tensor) -> Tensor:
    """(H, W) -> central differences, summed over both axes; 0 at the border."""
    contrast = torch.zeros_like(grey)
    across = (grey[1:-1, 2:] - grey[1:-1, :-2]).abs()
    contrast[1:-1, 1:-1] = across + (grey[2:, 1:-1] - grey[:-2, 1:-1]).abs()
    return contrast
