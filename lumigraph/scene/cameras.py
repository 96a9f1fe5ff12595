"""Cameras, rays and projection: the reference of coordinate conventions.

Axes      OpenCV: x right, y down, z forward. World axes are those of the capture; lengths are world units.
Poses     `world_from_cam` = [R | t]: x_world = R x_cam + t, so t is the camera's position and R's columns are its
          right, down and forward axes in the world.
Pixels    continuous coordinates; the corner of the first pixel is (0, 0) and its centre (0.5, 0.5). OpenCV's own
          functions put the first pixel's centre at (0, 0): subtract 0.5 from `centre` before calling them.
Lenses    a point (x, y, z) in front of the camera lands at  pixel = focal * distorted + centre  with
          pinhole   distorted = (x/z, y/z)
          opencv    the rational model with k1 k2 p1 p2 k3 k4 k5 k6 on (x/z, y/z) (OpenCV, "Camera Calibration and 3D
                    Reconstruction"; Brown 1966, Claus and Fitzgibbon 2005)
          fisheye   equidistant with k1..k4: theta (1 + k1 theta^2 + .. + k4 theta^8) along (x, y) (Kannala and Brandt
                    2006 as in cv2.fisheye); theta may pass 90 degrees
No answer A distortion polynomial folds over beyond some angle and maps farther points back into the image.
          Points beyond the fold, and points behind a pinhole or opencv camera, project to NaN; pixels that no ray
          reaches get NaN directions. NaN fails every "is it inside the image" comparison.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Lens = Literal["pinhole", "opencv", "fisheye"]

COEFFICIENTS: dict[str, int] = {"pinhole": 0, "opencv": 8, "fisheye": 4}

# Limits for polynomials that never fold over: tan(84.3 degrees) for opencv, straight behind for fisheye.
_MAX_LENS_LIMIT = {"opencv": 10.0, "fisheye": math.pi}


@dataclass(frozen=True, eq=False)
class Cameras:
    """A batch of N cameras with one lens model. Raises ValueError if shapes or dtypes do not match."""

    world_from_cam: Tensor  # (N, 3, 4) float32 or float64, rigid
    focal: Tensor  # (N, 2) pixels
    centre: Tensor  # (N, 2) pixels, the principal point
    sizes: Tensor  # (N, 2) int64 width, height: captures mix portrait and landscape
    lens: Lens = "pinhole"
    distortion: Tensor | None = None  # (N, 8) opencv, (N, 4) fisheye, None for a pinhole

    def __post_init__(self) -> None:
        n = self.world_from_cam.shape[0] if self.world_from_cam.ndim else 0
        if self.lens not in COEFFICIENTS:
            raise ValueError(f"lens must be one of {', '.join(COEFFICIENTS)}, not {self.lens!r}")
        expected = {"world_from_cam": (n, 3, 4), "focal": (n, 2), "centre": (n, 2), "sizes": (n, 2)}
        if COEFFICIENTS[self.lens]:
            if self.distortion is None:
                raise ValueError(f"a lens {self.lens!r} needs distortion (N, {COEFFICIENTS[self.lens]})")
            expected["distortion"] = (n, COEFFICIENTS[self.lens])
        elif self.distortion is not None:
            raise ValueError("a pinhole has no distortion: name the lens or drop the coefficients")
        for name, shape in expected.items():
            tensor: Tensor = getattr(self, name)
            if tuple(tensor.shape) != shape:
                raise ValueError(f"{name} must have the shape {shape}, not {tuple(tensor.shape)}")
            if name == "sizes" and tensor.dtype != torch.int64:
                raise ValueError(f"sizes must be int64, not {tensor.dtype}")
            if name != "sizes" and not (tensor.is_floating_point() and tensor.dtype == self.world_from_cam.dtype):
                raise ValueError(f"{name} must be {self.world_from_cam.dtype} like world_from_cam, not {tensor.dtype}")

    def __len__(self) -> int:
        return self.world_from_cam.shape[0]

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Cameras:
        """Select cameras. An int keeps the batch dimension, N = 1; a bool tensor (N,) is a mask."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"camera {index} of {len(self)}")
            index = slice(index, index + 1 or None)
        elif not isinstance(index, slice | Tensor):
            index = torch.tensor(list(index), dtype=torch.int64)
        return self._map_tensors(lambda tensor: tensor[index])

    def __iter__(self) -> Iterator[Cameras]:
        return (self[i] for i in range(len(self)))

    @property
    def cam_from_world(self) -> Tensor:
        """(N, 3, 4): the inverse of the rigid world_from_cam."""
        inverse_rotation = self.world_from_cam[:, :, :3].transpose(1, 2)
        return torch.cat([inverse_rotation, -inverse_rotation @ self.world_from_cam[:, :, 3:]], dim=2)

    @property
    def positions(self) -> Tensor:
        """(N, 3) camera positions in world units."""
        return self.world_from_cam[:, :, 3]

    @property
    def forwards(self) -> Tensor:
        """(N, 3) optical axes in the world, unit length."""
        return self.world_from_cam[:, :, 2]

    def size(self, i: int) -> tuple[int, int]:
        """(width, height) of camera i in pixels."""
        width, height = self.sizes[i].tolist()
        return width, height

    def resize(self, sizes: Tensor) -> Cameras:
        """Resize to `sizes` (N, 2) or (2,) pixels: intrinsics scale per axis, as in area resampling."""
        sizes = sizes.to(self.sizes).expand_as(self.sizes)
        scale = (sizes.double() / self.sizes.double()).to(self.focal)
        return dataclasses.replace(self, focal=self.focal * scale, centre=self.centre * scale, sizes=sizes)

    def downscale(self, k: float) -> Cameras:
        """Resize to floor(size / k), at least one pixel. Raises ValueError unless `k` >= 1."""
        if not (math.isfinite(k) and k >= 1):
            raise ValueError(f"downscale must be a number of at least 1, not {k}")
        # The small addend keeps 1080 / (1080 / 333) at 333.
        return self.resize((self.sizes.double() / k + 1e-9).floor().long().clamp(min=1))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Cameras:
        """Move to another device or float type; `sizes` stay int64."""
        return self._map_tensors(
            lambda tensor: tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
        )

    def _map_tensors(self, change: Callable[[Tensor], Tensor]) -> Cameras:
        distortion = None if self.distortion is None else change(self.distortion)
        return Cameras(
            change(self.world_from_cam),
            change(self.focal),
            change(self.centre),
            change(self.sizes),
            self.lens,
            distortion,
        )


@dataclass(frozen=True, eq=False)
class Rays:
    """R rays in the world."""

    origins: Tensor  # (R, 3) world units
    directions: Tensor  # (R, 3) unit


def pinhole_matrix(cameras: Cameras) -> Tensor:
    """(N, 3, 3) K with pixel = (K x_cam)[:2] / z. Excludes lens distortion."""
    k = cameras.focal.new_zeros(len(cameras), 3, 3)
    k[:, 0, 0], k[:, 1, 1], k[:, 2, 2] = cameras.focal[:, 0], cameras.focal[:, 1], 1.0
    k[:, :2, 2] = cameras.centre
    return k


def pixel_grid(size: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    """(H, W, 2) pixel centres (x, y) of an image of `size` (width, height)."""
    x = torch.arange(size[0], dtype=dtype) + 0.5
    y = torch.arange(size[1], dtype=dtype) + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def generate_rays(cameras: Cameras, camera_indices: Tensor, pixels: Tensor) -> Rays:
    """Rays through `pixels` (R, 2) of the cameras with indices `camera_indices` (R,): the inverse of `project`.

    Differentiable in pose, intrinsics, distortion and pixels. Directions are NaN where no ray reaches the pixel.
    """
    image_plane = (pixels - cameras.centre[camera_indices]) / cameras.focal[camera_indices]
    if cameras.distortion is None:
        in_cam = torch.cat([image_plane, torch.ones_like(image_plane[:, :1])], dim=1)
    else:
        limits = lens_limit(cameras.lens, cameras.distortion)[camera_indices]
        undistort = _undistort_opencv if cameras.lens == "opencv" else _undistort_fisheye
        in_cam = undistort(cameras.distortion[camera_indices].double(), limits, image_plane.double()).to(
            image_plane.dtype
        )
    pose = cameras.world_from_cam[camera_indices]
    directions = torch.nn.functional.normalize((pose[:, :, :3] @ in_cam[:, :, None])[:, :, 0], dim=1)
    return Rays(pose[:, :, 3], directions)


def project(cameras: Cameras, points: Tensor) -> tuple[Tensor, Tensor]:
    """`points` (P, 3) world -> (N, P, 2) pixels, (N, P) depth along z in world units, for every camera.

    Differentiable. Pixels are NaN where the lens has no answer (see the module docstring); depth is always valid.
    """
    pose = cameras.cam_from_world
    in_cam = points @ pose[:, :, :3].transpose(1, 2) + pose[:, None, :, 3]
    depth = in_cam[..., 2]
    if cameras.lens == "fisheye":
        distorted_xy, visible = _project_fisheye(cameras, in_cam)
    else:
        visible = depth > 0
        # Points behind are divided by 1, which keeps their gradient finite: 0 * NaN would be NaN.
        flat = in_cam[..., :2] / torch.where(visible, depth, 1.0)[..., None]
        distorted_xy = flat
        if cameras.distortion is not None:
            visible = visible & (flat.norm(dim=-1) < lens_limit("opencv", cameras.distortion)[:, None])
            flat = torch.where(visible[..., None], flat, 0.0)
            distorted_xy = distort_opencv(cameras.distortion[:, None], flat)
    pixels = distorted_xy * cameras.focal[:, None] + cameras.centre[:, None]
    return torch.where(visible[..., None], pixels, math.nan), depth


# -- lenses ----------------------------------------------------------------------------------------------------------


def distort_opencv(k: Tensor, flat: Tensor) -> Tensor:
    """(..., 2) ideal image-plane coordinates (x/z, y/z) -> (..., 2) distorted; `k` (..., 8) broadcasts."""
    k1, k2, p1, p2, k3, k4, k5, k6 = k.unbind(-1)
    x, y = flat.unbind(-1)
    q = x * x + y * y
    radial = (1 + q * (k1 + q * (k2 + q * k3))) / (1 + q * (k4 + q * (k5 + q * k6)))
    cross = 2 * x * y
    return torch.stack(
        [x * radial + p1 * cross + p2 * (q + 2 * x * x), y * radial + p1 * (q + 2 * y * y) + p2 * cross], dim=-1
    )


def distort_fisheye(k: Tensor, theta: Tensor) -> Tensor:
    """(...) angle from the optical axis in radians -> (...) distance from the centre in focal lengths; `k` (..., 4)."""
    k1, k2, k3, k4 = k.unbind(-1)
    q = theta * theta
    return theta * (1 + q * (k1 + q * (k2 + q * (k3 + q * k4))))


def lens_limit(lens: Lens, distortion: Tensor) -> Tensor:
    """(N,) float64 upper limit of monotonic distortion (N, K): r = tan(theta) for opencv, theta for fisheye.

    Beyond the limit the polynomial folds over. Not differentiable.
    """
    k = distortion.detach().double()
    ones = torch.ones_like(k[:, 0])
    zero = torch.zeros_like(ones)
    if lens == "fisheye":  # d/dtheta, a polynomial in q = theta^2
        folds = _first_positive_root([ones, 3 * k[:, 0], 5 * k[:, 1], 7 * k[:, 2], 9 * k[:, 3]])
    else:  # d/dr (r A/B) = (A B + 2q (A' B - A B')) / B^2 with A, B cubics in q = r^2; and B itself may reach zero
        k1, k2, _, _, k3, k4, k5, k6 = k.unbind(1)
        a, b = [ones, k1, k2, k3], [ones, k4, k5, k6]
        slope = [zero.clone() for _ in range(7)]
        for i, ai in enumerate(a):
            for j, bj in enumerate(b):
                slope[i + j] = slope[i + j] + ai * bj * (1 + 2 * (i - j))
        folds = torch.minimum(_first_positive_root(slope), _first_positive_root(b))
    return folds.sqrt().clamp(max=_MAX_LENS_LIMIT[lens])


def _first_positive_root(coefficients: list[Tensor]) -> Tensor:
    """(N,) smallest q > 0 with 1 + c1 q + c2 q^2 + .. = 0, inf if there is none. The c are (N,), c0 is 1.

    In s = 1/q the polynomial is monic for every degree, so the companion matrix exists. The smallest q belongs to the
    largest real s. Eigenvalues near zero are roots at infinity, or q > 100 beyond _MAX_LENS_LIMIT.
    """
    c = torch.stack(coefficients[1:], dim=1).cpu()
    n, degree = c.shape
    companion = torch.diag_embed(torch.ones(n, degree - 1, dtype=c.dtype), offset=-1)
    companion[:, 0] = -c
    s = torch.linalg.eigvals(companion)
    real = (s.imag.abs() <= 1e-7 * s.abs()) & (s.real > 1e-2)
    largest = torch.where(real, s.real, 0.0).amax(dim=1)
    return torch.where(largest > 0, 1 / largest, math.inf).to(coefficients[0].device)


def _project_fisheye(cameras: Cameras, in_cam: Tensor) -> tuple[Tensor, Tensor]:
    """(N, P, 3) camera coordinates -> (N, P, 2) distorted, (N, P) bool visibility."""
    assert cameras.distortion is not None
    tiny = 1e-30  # on the axis the direction of (x, y) is undefined, and theta / r tends to 1 / z
    r = in_cam[..., :2].square().sum(dim=-1).clamp(min=tiny).sqrt()
    theta = torch.atan2(r, in_cam[..., 2])
    visible = theta < lens_limit("fisheye", cameras.distortion)[:, None]
    reach = distort_fisheye(cameras.distortion[:, None], torch.where(visible, theta, 0.0))
    return in_cam[..., :2] * (reach / r)[..., None], visible


def _undistort_opencv(k: Tensor, limits: Tensor, distorted_xy: Tensor) -> Tensor:
    """(R, 2) distorted -> (R, 3) direction (x, y, 1); all float64, `k` (R, 8), `limits` (R,)."""
    with torch.no_grad():

        def radial(r: Tensor) -> tuple[Tensor, Tensor]:
            ratio, slope = _radial(k, r * r)
            return r * ratio, ratio + 2 * r * r * slope

        # The radial part alone has a unique inverse. The tangential part is small, so Newton continues from there.
        reach = distorted_xy.norm(dim=1)
        flat = distorted_xy * (_invert(radial, reach, limits) / reach.clamp(min=1e-30))[:, None]
        for _ in range(20):
            step = _newton_step(k, flat, distorted_xy)
            flat = flat - step
            if not (step.abs() > 1e-14).any():
                break
        residual = (distort_opencv(k, flat) - distorted_xy).norm(dim=1)
        is_solved = (residual <= 1e-10 * (1 + reach)) & (flat.norm(dim=1) < limits)
        flat = torch.where(is_solved[:, None], flat, math.nan)
    # One more step under autograd refines and carries the gradient of the implicit function.
    flat = flat - _newton_step(k, flat, distorted_xy)
    return torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1)


def _newton_step(k: Tensor, flat: Tensor, distorted_xy: Tensor) -> Tensor:
    """(R, 2): J^-1 (distort(flat) - distorted), where the Jacobian J is a constant for autograd."""
    with torch.no_grad():
        x, y = flat.unbind(1)
        ratio, slope = _radial(k, x * x + y * y)
        p1, p2 = k[:, 2], k[:, 3]
        xx = ratio + 2 * slope * x * x + 2 * p1 * y + 6 * p2 * x
        yy = ratio + 2 * slope * y * y + 6 * p1 * y + 2 * p2 * x
        xy = 2 * slope * x * y + 2 * p1 * x + 2 * p2 * y  # J is symmetric
        determinant = xx * yy - xy * xy
    miss_x, miss_y = (distort_opencv(k, flat) - distorted_xy).unbind(1)
    return torch.stack([yy * miss_x - xy * miss_y, xx * miss_y - xy * miss_x], dim=1) / determinant[:, None]


def _radial(k: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """The rational model's ratio A(q) / B(q) and its derivative by q = r^2; `k` (..., 8), q (...)."""
    k1, k2, _, _, k3, k4, k5, k6 = k.unbind(-1)
    a, b = 1 + q * (k1 + q * (k2 + q * k3)), 1 + q * (k4 + q * (k5 + q * k6))
    da, db = k1 + q * (2 * k2 + q * 3 * k3), k4 + q * (2 * k5 + q * 3 * k6)
    return a / b, (da * b - a * db) / (b * b)


def _undistort_fisheye(k: Tensor, limits: Tensor, distorted_xy: Tensor) -> Tensor:
    """(R, 2) distorted -> (R, 3) direction; all float64, `k` (R, 4), `limits` (R,)."""
    reach = distorted_xy.square().sum(dim=1).clamp(min=1e-60).sqrt()
    k1, k2, k3, k4 = k.detach().unbind(1)

    def curve(theta: Tensor) -> tuple[Tensor, Tensor]:
        q = theta * theta
        return distort_fisheye(k, theta), 1 + q * (3 * k1 + q * (5 * k2 + q * (7 * k3 + q * 9 * k4)))

    with torch.no_grad():
        theta = _invert(curve, reach, limits)
    value, slope = curve(theta)
    theta = theta - (value - reach) / slope.detach()  # refines and carries the gradient, as for the opencv lens
    return torch.cat([distorted_xy * (torch.sin(theta) / reach)[:, None], torch.cos(theta)[:, None]], dim=1)


def _invert(curve: Callable[[Tensor], tuple[Tensor, Tensor]], target: Tensor, limits: Tensor) -> Tensor:
    """(R,) x in [0, limits) where the increasing `curve` (value and slope at x) reaches `target`, else NaN.

    Newton with bisection where a step would leave the bracket (Numerical Recipes, rtsafe): it cannot diverge.
    """
    low, high = torch.zeros_like(limits), limits
    reachable = target < curve(limits)[0]
    x = torch.minimum(target, limits / 2)
    for _ in range(60):
        value, slope = curve(x)
        below = value < target
        low, high = torch.where(below, x, low), torch.where(below, high, x)
        step = x - (value - target) / slope
        safe = (step >= low) & (step <= high)  # False for NaN
        before, x = x, torch.where(safe, step, (low + high) / 2)
        if not (reachable & ((x - before).abs() > 1e-14 * (1 + x))).any():
            break
    return torch.where(reachable, x, math.nan)
