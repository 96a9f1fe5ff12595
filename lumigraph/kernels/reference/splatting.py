"""Reference implementation of all splat kernels. The tests compare the compiled kernels with it.

All functions are slow, differentiable by autograd, and run in any floating dtype (the tests use float64). They follow
the papers line by line:

  [Zwicker 2001]  EWA Volume Splatting: a gaussian under an affine approximation of the perspective is a gaussian.
  [Kerbl 2023]    3D Gaussian Splatting for Real-Time Radiance Field Rendering: raw parameters, SH colour, 0.3 px blur.
  [Yu 2024]       Mip-Splatting: opacity compensation for that blur.
  [Wang 2004]     Image Quality Assessment: From Error Visibility to Structural Similarity.
  [Kingma 2015]   Adam: A Method for Stochastic Optimization.

Conventions. Camera axes x right, y down, z forward. The first pixel has its centre at (0.5, 0.5). Sizes are (width,
height), images (height, width, channels). A gaussian is stored as its raw parameters: log scales, quaternions w x y z
of any length, logit opacities, SH coefficients with the constant band first.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

NEAR_PLANE = 0.01  # world units; gaussians with a smaller z are not drawn
SLOPE_MARGIN = 0.3  # fraction of half the image size; slopes in the Jacobian are clamped this far outside the image
ALPHA_MIN = 1 / 255  # fainter pairs of gaussian and pixel are skipped
ALPHA_MAX = 0.99  # keeps 1 / (1 - alpha) finite in the backward pass
MIN_TRANSMITTANCE = 1e-3  # early stop of a pixel

SSIM_RADIUS, SSIM_SIGMA = 5, 1.5  # the 11x11 window of [Wang 2004]
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


class Projected(NamedTuple):
    """The M gaussians in front of the camera, projected to the image."""

    indices: Tensor  # (M,) int64 indices into the N gaussians
    means: Tensor  # (M, 2) pixels
    conics: Tensor  # (M, 3): a, b, c of the inverse covariance [[a, b], [b, c]], 1 / pixels^2
    depths: Tensor  # (M,) z in the camera, world units
    colours: Tensor  # (M, 3) not negative
    opacities: Tensor  # (M,) 0..1


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """Evaluate real spherical harmonics of unit `directions` (..., 3) up to `degree` 0..3 -> (..., (degree + 1)^2).

    Index l^2 + l + m, with the Condon-Shortley sign (-1)^m, as [Kerbl 2023] stores them.
    """
    if not 0 <= degree <= 3:
        raise ValueError(f"the SH degree is 0 to 3, not {degree}")
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    bands = [
        [0.28209479177387814 * torch.ones_like(x)],
        [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x],
        [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ],
        [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ],
    ]
    return torch.stack([basis for band in bands[: degree + 1] for basis in band], -1)


def matrix_from_quaternion(quats: Tensor) -> Tensor:
    """Return rotation matrices (..., 3, 3) of quaternions (..., 4) w x y z of any length."""
    w, x, y, z = (quats / quats.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def project(
    means: Tensor,
    log_scales: Tensor,
    quats: Tensor,
    logit_opacities: Tensor,
    sh: Tensor,
    world_to_cam: Tensor,
    focal: tuple[float, float],
    centre: tuple[float, float],
    size: tuple[int, int],
    blur: float = 0.3,
    antialiased: bool = False,
) -> Projected:
    """Project gaussians from the world to the image.

    Args:
        means, log_scales, quats, logit_opacities: (N, 3), (N, 3), (N, 4) and (N,).
        sh: (N, K, 3) coefficients, K = 1, 4, 9 or 16.
        world_to_cam: (3, 4) = [R | t]. The gradient treats its twelve entries as independent. The camera is at -R^T t.
        focal, centre: (x, y) in pixels.
        size: (width, height).
        blur: variance in pixels^2 that is added to the projected covariance.
        antialiased: compensate opacities for the blur.

      p = R mean + t                                    depth = p.z, dropped if below NEAR_PLANE
      Sigma = Q S S Q^T                                 Q from the quaternion, S from the scales
      J = d(fx x / z, fy y / z) / dp                    [Zwicker 2001, eq. 29], x / z and y / z in it clamped to the
                                                        image and SLOPE_MARGIN around it [Kerbl 2023]
      cov = J R Sigma R^T J^T + blur I                  conic = cov^-1
      colour = max(0.5 + sum_k sh_k Y_k(direction), 0)  direction from the camera to the mean
      opacity = sigmoid(logit)                          antialiased: times sqrt(det(cov - blur I) / det cov) [Yu 2024]
    """
    degree = {1: 0, 4: 1, 9: 2, 16: 3}[sh.shape[1]]
    (fx, fy), (width, height) = focal, size
    rotate, translate = world_to_cam[:, :3], world_to_cam[:, 3]

    depths = means.detach() @ rotate[2].detach() + translate[2].detach()
    indices = (depths >= NEAR_PLANE).nonzero()[:, 0]
    means, log_scales, quats = means[indices], log_scales[indices], quats[indices]
    x, y, z = (means @ rotate.T + translate).unbind(-1)

    zero = torch.zeros_like(z)
    u = (x / z).clamp(*_slope_limits(fx, centre[0], width))
    v = (y / z).clamp(*_slope_limits(fy, centre[1], height))
    jacobian = torch.stack([fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z], -1).view(-1, 2, 3)
    half = jacobian @ rotate @ (matrix_from_quaternion(quats) * log_scales.exp()[:, None, :])
    cov = half @ half.mT
    sharp_a, b, sharp_c = cov[:, 0, 0], cov[:, 0, 1], cov[:, 1, 1]
    a, c = sharp_a + blur, sharp_c + blur
    det = a * c - b * b

    opacities = logit_opacities[indices].sigmoid()
    if antialiased:
        ratio = (sharp_a * sharp_c - b * b) / det
        has_area = ratio > 0  # a gaussian seen edge-on has no area, and sqrt no slope at 0
        opacities = opacities * torch.where(has_area, torch.where(has_area, ratio, 1).sqrt(), 0)

    directions = means + rotate.T @ translate
    directions = directions / directions.norm(dim=-1, keepdim=True)
    colours = (sh_basis(directions, degree)[..., None] * sh[indices]).sum(1) + 0.5
    return Projected(
        indices=indices,
        means=torch.stack([fx * x / z + centre[0], fy * y / z + centre[1]], -1),
        conics=torch.stack([c / det, -b / det, a / det], -1),
        depths=z,
        colours=colours.clamp_min(0),
        opacities=opacities,
    )


def _slope_limits(focal: float, centre: float, size: int) -> tuple[float, float]:
    margin = SLOPE_MARGIN * size / 2
    return -(centre + margin) / focal, (size - centre + margin) / focal


def composite(splats: Projected, size: tuple[int, int], background: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Composite front to back -> rgb (H, W, 3), depth (H, W), transmittance (H, W).

    For the gaussians of a pixel in order of depth (equal depths in order of index), with d = pixel centre - mean:

      alpha = min(ALPHA_MAX, opacity exp(-(a dx^2 + c dy^2) / 2 - b dx dy))    [Kerbl 2023]; below ALPHA_MIN: skipped
      rgb += T alpha colour,  depth += T alpha z,  T *= 1 - alpha              until T <= MIN_TRANSMITTANCE,
                                                                               tested before each gaussian
      rgb += T background

    Depth is the weighted sum; it is not divided by 1 - T. background (3,) is differentiable.
    """
    width, height = size
    order = torch.argsort(splats.depths.detach(), stable=True)
    like = splats.means
    ys = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    xs = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    pixels = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1).view(-1, 2)
    colours = torch.cat([splats.colours, splats.depths[:, None]], 1)[order]
    sorted_splats = (splats.means[order], splats.conics[order], splats.opacities[order], colours)

    # To save memory, the backward pass recomputes the (pixels x gaussians) intermediates of each chunk.
    chunks = [checkpoint(_composite_pixels, p, *sorted_splats, use_reentrant=False) for p in torch.split(pixels, 1024)]
    sums = torch.cat([chunk[0] for chunk in chunks])
    transmittance = torch.cat([chunk[1] for chunk in chunks])
    rgb = sums[:, :3] + transmittance[:, None] * background
    return rgb.view(height, width, 3), sums[:, 3].view(height, width), transmittance.view(height, width)


def median_depth(splats: Projected, size: tuple[int, int]) -> Tensor:
    """Return the z of the gaussian at which transmittance falls to a half (H, W), or 0 if it stays above."""
    order = torch.argsort(splats.depths, stable=True)
    like = splats.means
    ys, xs = (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5 for n in (size[1], size[0]))
    pixels = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1).view(-1, 2)
    alpha = _compute_alpha(pixels, splats.means[order], splats.conics[order], splats.opacities[order])
    after = torch.cumprod(1 - alpha, 1)
    crossing = (_transmittance_before(after) > 0.5) & (after <= 0.5)
    return (crossing * splats.depths[order]).sum(1).view(size[1], size[0])


def _compute_alpha(pixels: Tensor, means: Tensor, conics: Tensor, opacities: Tensor) -> Tensor:
    """Return the alpha of pixels and sorted gaussians (P, M); 0 after the early stop."""
    dx, dy = (pixels[:, None] - means).unbind(-1)
    a, b, c = conics.unbind(-1)
    alpha = (opacities * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)).clamp_max(ALPHA_MAX)
    alpha = torch.where(alpha >= ALPHA_MIN, alpha, 0)
    # Transmittance never rises, so later gaussians do not change where it reaches MIN_TRANSMITTANCE.
    transmittance = _transmittance_before(torch.cumprod(1 - alpha, 1))
    return torch.where(transmittance > MIN_TRANSMITTANCE, alpha, 0)


def _composite_pixels(
    pixels: Tensor, means: Tensor, conics: Tensor, opacities: Tensor, values: Tensor
) -> tuple[Tensor, Tensor]:
    """Blend values (M, C) of sorted gaussians at pixels (P, 2) -> weighted sums (P, C), transmittance (P,)."""
    alpha = _compute_alpha(pixels, means, conics, opacities)
    after = torch.cumprod(1 - alpha, 1)
    transmittance = after[:, -1] if after.shape[1] else after.new_ones(len(pixels))
    return (alpha * _transmittance_before(after)) @ values, transmittance


def _transmittance_before(after: Tensor) -> Tensor:
    """Convert transmittance after each gaussian (P, M) to transmittance before it (P, M)."""
    return torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)


def render(
    means: Tensor,
    log_scales: Tensor,
    quats: Tensor,
    logit_opacities: Tensor,
    sh: Tensor,
    world_to_cam: Tensor,
    focal: tuple[float, float],
    centre: tuple[float, float],
    size: tuple[int, int],
    background: Tensor,
    blur: float = 0.3,
    antialiased: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Project and composite -> rgb (H, W, 3), depth (H, W), alpha (H, W) = 1 - transmittance."""
    splats = project(
        means,
        log_scales,
        quats,
        logit_opacities,
        sh,
        world_to_cam,
        focal,
        centre,
        size,
        blur=blur,
        antialiased=antialiased,
    )
    rgb, depth, transmittance = composite(splats, size, background)
    return rgb, depth, 1 - transmittance


def ssim_map(image: Tensor, target: Tensor) -> Tensor:
    """Compute the structural similarity of two images (H, W, C) with values 0..1 -> (H, W, C).

    [Wang 2004, eq. 13] with an 11x11 gaussian window of sigma 1.5. Images are padded with zeros and the window is not
    renormalised there, so the map has the size of the image.
    """
    x = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=image.dtype, device=image.device)
    window = torch.exp(-(x**2) / (2 * SSIM_SIGMA**2))
    window = window / window.sum()

    def blur(values: Tensor) -> Tensor:
        planes = values.permute(2, 0, 1)[:, None]
        planes = F.conv2d(planes, window.view(1, 1, -1, 1), padding=(SSIM_RADIUS, 0))
        planes = F.conv2d(planes, window.view(1, 1, 1, -1), padding=(0, SSIM_RADIUS))
        return planes[:, 0].permute(1, 2, 0)

    mean_x, mean_y = blur(image), blur(target)
    var_x = blur(image * image) - mean_x * mean_x
    var_y = blur(target * target) - mean_y * mean_y
    cov = blur(image * target) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x * mean_x + mean_y * mean_y + SSIM_C1)
    return luminance * (2 * cov + SSIM_C2) / (var_x + var_y + SSIM_C2)


def ssim_l1_loss(
    image: Tensor, target: Tensor, lambda_ssim: float, mask: Tensor | None = None, lambda_l2: float = 0
) -> Tensor:
    """Compute the training loss of [Kerbl 2023] with an added L2 term, as a mean over pixels and channels -> scalar.

      (1 - lambda_ssim - lambda_l2) |image - target| + lambda_l2 (image - target)^2 + lambda_ssim (1 - SSIM)

    image and target are (H, W, C). A mask (H, W) of weights multiplies the loss of each pixel. The mean still counts
    all pixels, so masking half of a photo halves its loss.
    """
    difference = image - target
    loss = (1 - lambda_ssim - lambda_l2) * difference.abs() + lambda_l2 * difference.square()
    loss = loss + lambda_ssim * (1 - ssim_map(image, target))
    return (loss if mask is None else loss * mask[..., None]).mean()


def adam(
    params: Tensor,
    grads: Tensor,
    m: Tensor,
    v: Tensor,
    steps: Tensor,
    rates: Tensor,
    is_visible: Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-15,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Apply one step of [Kingma 2015, algorithm 1] to the visible rows -> new params, m, v, steps.

    Args:
        params, grads, m, v: (N, D) parameters, gradients, first and second moments.
        steps: (N,) updates of each row so far, for its own bias correction.
        rates: (D,) or scalar learning rates.
        is_visible: (N,) bool. Other rows keep all of their state.
    """
    beta1, beta2 = betas
    new_steps = steps + 1
    new_m = beta1 * m + (1 - beta1) * grads
    new_v = beta2 * v + (1 - beta2) * grads * grads
    count = new_steps[:, None]
    update = rates * (new_m / (1 - beta1**count)) / ((new_v / (1 - beta2**count)).sqrt() + eps)
    is_visible_row = is_visible[:, None]
    return (
        torch.where(is_visible_row, params - update, params),
        torch.where(is_visible_row, new_m, m),
        torch.where(is_visible_row, new_v, v),
        torch.where(is_visible, new_steps, steps),
    )
