"""A made-up scene for the kernels: a ball of gaussians around the origin and one camera that looks at it.

The tests and the benchmarks draw the same blob. Sizes are log-normal and opacities logistic-normal, so that a few
gaussians are large, many are faint and some are opaque.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Scene(NamedTuple):
    """Raw parameters of N gaussians, float32, and a pinhole camera, in the order that `reference.render` takes them."""

    means: Tensor  # (N, 3)
    log_scales: Tensor  # (N, 3)
    quats: Tensor  # (N, 4) w x y z, not unit
    logit_opacities: Tensor  # (N,)
    sh: Tensor  # (N, (degree + 1)^2, 3)
    world_to_cam: Tensor  # (3, 4)
    focal: tuple[float, float]  # pixels
    centre: tuple[float, float]  # pixels
    size: tuple[int, int]  # width, height
    background: Tensor  # (3,)


def blob(count: int, size: tuple[int, int], degree: int = 3, seed: int = 0, radius: float = 5.0) -> Scene:
    """`count` gaussians within about 2 units; three sigma of a typical one span `radius` pixels."""
    random = np.random.default_rng(seed)
    width, height = size
    focal = 1.1 * max(width, height)

    outward = random.normal(size=(count, 3))
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    means = outward * (random.random((count, 1)) ** (1 / 3)) * 2.0 + random.normal(size=(count, 3)) * 0.05

    eye = np.array([3.0, -1.2, -3.2])
    forward = -eye / np.linalg.norm(eye)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    rotate = np.stack([right, np.cross(forward, right), forward])

    sigma = radius / 3 * np.linalg.norm(eye) / focal
    overall = np.log(sigma) + random.normal(size=(count, 1)) * 0.6
    log_scales = overall + random.normal(size=(count, 3)) * 0.5 - 0.35
    quats = random.normal(size=(count, 4))
    logit_opacities = random.normal(size=count) * 2.0
    sh = random.normal(size=(count, (degree + 1) ** 2, 3)) * 0.15
    sh[:, 0] = random.normal(size=(count, 3)) * 0.8

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    return Scene(
        means=tensor(means),
        log_scales=tensor(log_scales),
        quats=tensor(quats),
        logit_opacities=tensor(logit_opacities),
        sh=tensor(sh),
        world_to_cam=tensor(np.concatenate([rotate, -(rotate @ eye)[:, None]], 1)),
        focal=(focal, focal),
        centre=(width / 2, height / 2),
        size=size,
        background=torch.tensor([0.1, 0.2, 0.3]),
    )


def pack(scene: Scene) -> tuple[Tensor, Tensor]:
    """Raw parameters -> params (N, 16) and sh_rest (N, 48), the rows that `lumigraph.kernels.splatting` takes."""
    count = len(scene.means)
    params, rest = torch.zeros(count, 16), torch.zeros(count, 48)
    params[:, 0:3], params[:, 3:6], params[:, 6:10] = scene.means, scene.log_scales, scene.quats
    params[:, 10], params[:, 11:14] = scene.logit_opacities, scene.sh[:, 0]
    higher = scene.sh[:, 1:].flatten(1)
    rest[:, : higher.shape[1]] = higher
    return params, rest


def unpack(params: Tensor, rest: Tensor, degree: int) -> dict[str, Tensor]:
    """The inverse of `pack`, for the rows as well as for their gradients."""
    extra = (degree + 1) ** 2 - 1
    return {
        "means": params[:, 0:3],
        "log_scales": params[:, 3:6],
        "quats": params[:, 6:10],
        "logit_opacities": params[:, 10],
        "sh": torch.cat([params[:, 11:14], rest[:, : 3 * extra]], 1).view(len(params), 1 + extra, 3),
    }
