"""Render 3DGS PLY files independently of the product, as other programs do.

Written from the published formulas (Zwicker et al. 2001, "EWA Splatting"; Kerbl et al. 2023, "3D Gaussian Splatting")
and the common conventions of their reference implementation and gsplat, in float64. It imports nothing of the product,
so a fault there cannot repeat here, and it reads files with a third-party library.

Conventions: OpenCV camera axes, pixel centres at +0.5, quaternions (w, x, y, z) of any length, opacities as logits,
scales as logarithms, spherical harmonics with the signs of 3DGS. Gaussians are sorted by depth once per view.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numba
import numpy as np
import numpy.typing as npt
from plyfile import PlyData

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Slopes = Literal["principal point", "image centre"]

NEAR = 0.01  # world units along the view axis
LOW_PASS = 0.3  # pixels^2, added to both variances on the screen
MARGIN = 0.3  # of half the image; slopes of the Jacobian are clamped this far outside
MIN_ALPHA, MAX_ALPHA = 1 / 255, 0.99
MIN_TRANSMITTANCE = 1e-4


@dataclass(frozen=True)
class Gaussians:
    """N gaussians as their file stores them."""

    means: Floats  # (N, 3) world units
    log_scales: Floats  # (N, 3)
    quaternions: Floats  # (N, 4) w x y z
    logits: Floats  # (N,) of the opacities
    harmonics: Floats  # (N, K, 3), K = (degree + 1)^2

    def __len__(self) -> int:
        return len(self.means)


@dataclass(frozen=True)
class View:
    """A pinhole camera."""

    cam_from_world: Floats  # (3, 4) rigid
    focal: tuple[float, float]  # pixels
    centre: tuple[float, float]  # pixels: the principal point
    size: tuple[int, int]  # width, height


@dataclass(frozen=True)
class Footprints:
    """Projected gaussians that may touch an image, nearest first."""

    centres: Floats  # (M, 2) pixels
    conics: Floats  # (M, 3): inverse covariance on the screen, [a b; b c]
    reach: Floats  # (M, 2) pixels: half sides of the box that contains alpha >= 1/255
    opacities: Floats  # (M,)
    colours: Floats  # (M, 3), not below 0


def read_ply(path: Path) -> Gaussians:
    """Read a 3DGS PLY with plyfile."""
    vertices = PlyData.read(str(path))["vertex"]

    def columns(*names: str) -> Floats:
        return np.stack([np.asarray(vertices[name], np.float64) for name in names], axis=1)

    rest_count = sum(field.name.startswith("f_rest_") for field in vertices.properties)
    base = columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    higher = base[:, :0]
    if rest_count:
        by_channel = columns(*(f"f_rest_{i}" for i in range(rest_count))).reshape(len(base), 3, -1)
        higher = by_channel.transpose(0, 2, 1)
    return Gaussians(
        means=columns("x", "y", "z"),
        log_scales=columns("scale_0", "scale_1", "scale_2"),
        quaternions=columns("rot_0", "rot_1", "rot_2", "rot_3"),
        logits=columns("opacity")[:, 0],
        harmonics=np.concatenate([base, higher], axis=1),
    )


def render(
    gaussians: Gaussians,
    view: View,
    background: tuple[float, float, float] = (0, 0, 0),
    slopes: Slopes = "principal point",
) -> Floats:
    """Render the gaussians over `background`: (H, W, 3), not clamped above."""
    return paint(project(gaussians, view, slopes), view.size, background)


def project(gaussians: Gaussians, view: View, slopes: Slopes) -> Footprints:
    """Project gaussians by EWA, with clamped slopes of the Jacobian.

    slopes: centre of symmetry of the margin. gsplat measures it from the edges of the image; the reference
        implementation assumes the principal point at the image centre.
    """
    rotation, shift = view.cam_from_world[:, :3], view.cam_from_world[:, 3]
    in_cam = gaussians.means @ rotation.T + shift
    opacities = 1 / (1 + np.exp(-gaussians.logits))
    visible = np.flatnonzero((in_cam[:, 2] > NEAR) & (opacities >= MIN_ALPHA))
    visible = visible[np.argsort(in_cam[visible, 2], kind="stable")]
    in_cam, opacities = in_cam[visible], opacities[visible]
    focal, middle, size = np.array(view.focal), np.array(view.centre), np.array(view.size)

    depth = in_cam[:, 2:]
    ray_slopes = in_cam[:, :2] / depth
    half = size / 2
    low, high = (-middle, size - middle) if slopes == "principal point" else (-half, half)
    clamped_slopes = np.clip(ray_slopes, (low - MARGIN * half) / focal, (high + MARGIN * half) / focal)
    jacobian = np.zeros((len(visible), 2, 3))
    jacobian[:, 0, 0], jacobian[:, 1, 1] = (focal / depth).T
    jacobian[:, :, 2] = -focal * clamped_slopes / depth

    scales = np.exp(gaussians.log_scales[visible])[:, None]
    axes = jacobian @ rotation @ rotations(gaussians.quaternions[visible]) * scales
    covariance = axes @ axes.transpose(0, 2, 1)
    a, b, c = covariance[:, 0, 0] + LOW_PASS, covariance[:, 0, 1], covariance[:, 1, 1] + LOW_PASS
    determinant = a * c - b * b
    reach = np.sqrt(2 * np.log(opacities / MIN_ALPHA)[:, None] * np.stack([a, c], axis=1))
    centres = focal * ray_slopes + middle

    eye = -rotation.T @ shift
    colours = np.maximum(harmonic_colours(gaussians.harmonics[visible], gaussians.means[visible] - eye), 0)
    touches = ((centres + reach > 0) & (centres - reach < size)).all(axis=1) & (determinant > 0)
    conics = np.stack([c, -b, a], axis=1) / determinant[:, None]
    return Footprints(centres[touches], conics[touches], reach[touches], opacities[touches], colours[touches])


def paint(footprints: Footprints, size: tuple[int, int], background: tuple[float, float, float]) -> Floats:
    """Composite the gaussians one after another, each over the pixels of its box: (H, W, 3)."""
    width, height = size
    first = np.maximum(np.floor(footprints.centres - footprints.reach), 0).astype(np.int64)
    last = np.minimum(np.ceil(footprints.centres + footprints.reach), size).astype(np.int64)
    return _paint(
        footprints.centres,
        footprints.conics,
        footprints.opacities,
        footprints.colours,
        first,
        last,
        np.zeros((height, width, 3)),
        np.array(background, np.float64),
    )


@numba.njit(cache=True)
def _paint(
    centres: Floats,
    conics: Floats,
    opacities: Floats,
    colours: Floats,
    first: Integers,
    last: Integers,
    image: Floats,
    background: Floats,
) -> Floats:
    transmittance = np.ones(image.shape[:2])
    opaque_mask = np.zeros(image.shape[:2], np.bool_)
    for i in range(len(centres)):
        a, b, c = conics[i]
        for y in range(first[i, 1], last[i, 1]):
            for x in range(first[i, 0], last[i, 0]):
                if opaque_mask[y, x]:
                    continue
                dx, dy = x + 0.5 - centres[i, 0], y + 0.5 - centres[i, 1]
                power = -0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy
                alpha = min(opacities[i] * np.exp(power), MAX_ALPHA)
                if alpha < MIN_ALPHA:
                    continue
                after = transmittance[y, x] * (1 - alpha)
                if after < MIN_TRANSMITTANCE:
                    opaque_mask[y, x] = True
                    continue
                for channel in range(3):
                    image[y, x, channel] += colours[i, channel] * alpha * transmittance[y, x]
                transmittance[y, x] = after
    return image + transmittance.reshape((*transmittance.shape, 1)) * background


def rotations(quaternions: Floats) -> Floats:
    """Rotation matrices (N, 3, 3) of quaternions (N, 4) w x y z, by v' = v + 2 w (q x v) + 2 q x (q x v)."""
    unit = quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)
    w, (x, y, z) = unit[:, 0], unit[:, 1:].T
    zero = np.zeros_like(w)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    return np.asarray(np.eye(3) + 2 * w[:, None, None] * cross + 2 * cross @ cross)


def harmonic_colours(harmonics: Floats, towards: Floats) -> Floats:
    """Colours (N, 3) of coefficients (N, K, 3) in direction `towards` (N, 3), from the eye to the gaussian."""
    x, y, z = (towards / np.linalg.norm(towards, axis=1, keepdims=True)).T
    pi = np.pi
    basis = [
        np.full_like(x, np.sqrt(1 / (4 * pi))),
        -np.sqrt(3 / (4 * pi)) * y,
        np.sqrt(3 / (4 * pi)) * z,
        -np.sqrt(3 / (4 * pi)) * x,
        np.sqrt(15 / (4 * pi)) * x * y,
        -np.sqrt(15 / (4 * pi)) * y * z,
        np.sqrt(5 / (16 * pi)) * (3 * z * z - 1),
        -np.sqrt(15 / (4 * pi)) * x * z,
        np.sqrt(15 / (16 * pi)) * (x * x - y * y),
        -np.sqrt(35 / (32 * pi)) * y * (3 * x * x - y * y),
        np.sqrt(105 / (4 * pi)) * x * y * z,
        -np.sqrt(21 / (32 * pi)) * y * (5 * z * z - 1),
        np.sqrt(7 / (16 * pi)) * z * (5 * z * z - 3),
        -np.sqrt(21 / (32 * pi)) * x * (5 * z * z - 1),
        np.sqrt(105 / (16 * pi)) * z * (x * x - y * y),
        -np.sqrt(35 / (32 * pi)) * x * (x * x - 3 * y * y),
    ]
    return np.asarray(0.5 + np.einsum("kn,nkc->nc", np.stack(basis[: harmonics.shape[1]]), harmonics))


def psnr(a: Floats, b: Floats) -> float:
    """PSNR in dB of images with values 0..1; inf if they are equal."""
    error = float(np.mean((np.asarray(a, np.float64) - b) ** 2))
    return -10 * np.log10(error) if error else np.inf
