"""An independent renderer of 3DGS PLY files: what other programs show of an export.

Written from the published formulas (Zwicker et al. 2001, "EWA Splatting"; Kerbl et al. 2023, "3D Gaussian Splatting")
and the conventions that their reference implementation and gsplat share, in float64. It imports nothing of the
product, so that a mistake there cannot hide here, and it reads files by a library of other authors.

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
Slopes = Literal["principal point", "picture centre"]

NEAR = 0.01  # world units along the view axis
LOW_PASS = 0.3  # pixels^2, added to both variances on the screen
MARGIN = 0.3  # of half the picture: slopes of the Jacobian are clamped this far outside
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
    """The gaussians that may touch a picture, nearest first."""

    centres: Floats  # (M, 2) pixels
    conics: Floats  # (M, 3): inverse covariance on the screen, [a b; b c]
    reach: Floats  # (M, 2) pixels: half sides of the box outside of which alpha < 1/255
    opacities: Floats  # (M,)
    colours: Floats  # (M, 3), not below 0


def read_ply(path: Path) -> Gaussians:
    vertices = PlyData.read(str(path))["vertex"]

    def columns(*names: str) -> Floats:
        return np.stack([np.asarray(vertices[name], np.float64) for name in names], axis=1)

    rest = sum(field.name.startswith("f_rest_") for field in vertices.properties)
    base = columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    by_channel = columns(*(f"f_rest_{i}" for i in range(rest))).reshape(len(base), 3, -1) if rest else base[:, :0]
    higher = by_channel.transpose(0, 2, 1) if rest else by_channel
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
    """(H, W, 3) of the gaussians over `background`, not clamped above."""
    return paint(project(gaussians, view, slopes), view.size, background)


def project(gaussians: Gaussians, view: View, slopes: Slopes) -> Footprints:
    """EWA projection with the slopes of the Jacobian clamped.

    slopes: relative to what the margin is symmetric. gsplat measures it from the edges of the picture, the reference
        implementation from a picture whose principal point is its centre.
    """
    turn, shift = view.cam_from_world[:, :3], view.cam_from_world[:, 3]
    in_cam = gaussians.means @ turn.T + shift
    opacities = 1 / (1 + np.exp(-gaussians.logits))
    kept = np.flatnonzero((in_cam[:, 2] > NEAR) & (opacities >= MIN_ALPHA))
    kept = kept[np.argsort(in_cam[kept, 2], kind="stable")]
    in_cam, opacities = in_cam[kept], opacities[kept]
    focal, middle, size = np.array(view.focal), np.array(view.centre), np.array(view.size)

    depth = in_cam[:, 2:]
    flat = in_cam[:, :2] / depth
    half = size / 2
    low, high = (-middle, size - middle) if slopes == "principal point" else (-half, half)
    clamped = np.clip(flat, (low - MARGIN * half) / focal, (high + MARGIN * half) / focal)
    jacobian = np.zeros((len(kept), 2, 3))
    jacobian[:, 0, 0], jacobian[:, 1, 1] = (focal / depth).T
    jacobian[:, :, 2] = -focal * clamped / depth

    axes = jacobian @ turn @ rotations(gaussians.quaternions[kept]) * np.exp(gaussians.log_scales[kept])[:, None]
    covariance = axes @ axes.transpose(0, 2, 1)
    a, b, c = covariance[:, 0, 0] + LOW_PASS, covariance[:, 0, 1], covariance[:, 1, 1] + LOW_PASS
    determinant = a * c - b * b
    reach = np.sqrt(2 * np.log(opacities / MIN_ALPHA)[:, None] * np.stack([a, c], axis=1))
    centres = focal * flat + middle

    eye = -turn.T @ shift
    colours = np.maximum(harmonic_colours(gaussians.harmonics[kept], gaussians.means[kept] - eye), 0)
    touches = ((centres + reach > 0) & (centres - reach < size)).all(axis=1) & (determinant > 0)
    conics = np.stack([c, -b, a], axis=1) / determinant[:, None]
    return Footprints(centres[touches], conics[touches], reach[touches], opacities[touches], colours[touches])


def paint(footprints: Footprints, size: tuple[int, int], background: tuple[float, float, float]) -> Floats:
    """(H, W, 3): one gaussian after another, each over the pixels of its box."""
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
    picture: Floats,
    background: Floats,
) -> Floats:
    transmittance = np.ones(picture.shape[:2])
    closed = np.zeros(picture.shape[:2], np.bool_)
    for i in range(len(centres)):
        a, b, c = conics[i]
        for y in range(first[i, 1], last[i, 1]):
            for x in range(first[i, 0], last[i, 0]):
                if closed[y, x]:
                    continue
                dx, dy = x + 0.5 - centres[i, 0], y + 0.5 - centres[i, 1]
                power = -0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy
                alpha = min(opacities[i] * np.exp(power), MAX_ALPHA)
                if alpha < MIN_ALPHA:
                    continue
                after = transmittance[y, x] * (1 - alpha)
                if after < MIN_TRANSMITTANCE:
                    closed[y, x] = True
                    continue
                for channel in range(3):
                    picture[y, x, channel] += colours[i, channel] * alpha * transmittance[y, x]
                transmittance[y, x] = after
    return picture + transmittance.reshape((*transmittance.shape, 1)) * background


def rotations(quaternions: Floats) -> Floats:
    """(N, 4) w x y z -> (N, 3, 3), by v' = v + 2 w (q x v) + 2 q x (q x v)."""
    unit = quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)
    w, (x, y, z) = unit[:, 0], unit[:, 1:].T
    zero = np.zeros_like(w)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    return np.asarray(np.eye(3) + 2 * w[:, None, None] * cross + 2 * cross @ cross)


def harmonic_colours(harmonics: Floats, towards: Floats) -> Floats:
    """(N, K, 3) coefficients seen along `towards` (N, 3), from the eye to the gaussian -> (N, 3)."""
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
    """dB, of pictures with values 0..1; inf where they are equal."""
    error = float(np.mean((np.asarray(a, np.float64) - b) ** 2))
    return -10 * np.log10(error) if error else np.inf
