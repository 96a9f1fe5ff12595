"""Assembly of a Capture from the views of a reader: rigid poses, intrinsics fitted to the image sizes, one lens model.

Every reader ends here, so the rules for sizes, lenses, masks and held-out views are in one place.
"""

from __future__ import annotations

import dataclasses
import os.path
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.captures.image_file import MaskFiles, PhotoFiles, read_header
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import COEFFICIENTS, Cameras, Lens
from lumigraph.scene.capture import Capture, hold_out_every_eighth
from lumigraph.scene.errors import CaptureError

OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0])  # right-multiplies world_from_cam's rotation: y and z change sign
RIGID_TOLERANCE = 5e-3  # of R^T R against I; far above the rounding of text files
MAX_COORDINATE = 1e7  # of any length, focal length or coordinate, in its unit: beyond, float32 loses the pixels
MAX_PATH_BYTES = 200  # file systems allow 255 bytes in a name and raise OSError beyond
MAX_LISTED_NAMES = 5  # in a note about several photos


@dataclass(frozen=True)
class Intrinsics:
    """Intrinsics in pixels at one image size (width, height). `distortion` as in scene.cameras, () for a pinhole."""

    size: tuple[float, float]
    focal: tuple[float, float]
    centre: tuple[float, float]
    lens: Lens = "pinhole"
    distortion: tuple[float, ...] = ()


@dataclass(frozen=True)
class View:
    """One posed photo on disk."""

    name: str  # relative path with forward slashes, as in the dataset
    photo: Path
    world_from_cam: NDArray[np.float64]  # (3, 4), OpenCV camera axes
    intrinsics: Intrinsics
    mask: Path | None = None
    held_out: bool | None = None  # None for all views: every eighth is held out


def sort_by_name(views: Sequence[View]) -> list[View]:
    return sorted(views, key=lambda view: view.name)


def resolve_inside(root: Path, relative: str) -> Path:
    """Resolve `relative` below `root`. Raises CaptureError if it leads out of `root`."""
    path = Path(os.path.normpath(root / relative.replace("\\", "/")))
    if not path.is_relative_to(os.path.normpath(root)):
        raise CaptureError(f"{relative[:200]!r} is outside {root}: move the file there and correct its path")
    if len(relative.encode(errors="replace")) > MAX_PATH_BYTES:
        raise CaptureError(f"{relative[:40]!r}... is too long for the name of a file")
    return path


def assemble(
    views: Sequence[View], location: Path, source: str, points: Points | None = None, notes: Sequence[str] = ()
) -> Capture:
    """Build a Capture of `views`, which must be in name order, because `points.view_indices` contains their indices.

    Raises CaptureError if a pose is not rigid, if a photo's aspect ratio does not fit its intrinsics, if a mask is
    missing or has another size, or if lenses are incompatible. The error names the photo.
    """
    if len({view.name for view in views}) != len(views):
        raise CaptureError(f"{location} lists a photo twice: remove one of them")
    headers = [read_header(view.photo) for view in views]
    sizes = [(width, height) for width, height, _ in headers]
    has_alpha = any(transparent for _, _, transparent in headers)
    intrinsics = [_fit_intrinsics(view, size) for view, size in zip(views, sizes, strict=True)]
    lens = _common_lens(intrinsics, location)
    names = _short_names([view.name for view in views])
    return Capture(
        cameras=Cameras(
            world_from_cam=_tensor([_rigid_pose(view) for view in views]),
            focal=_tensor([i.focal for i in intrinsics]),
            centre=_tensor([i.centre for i in intrinsics]),
            sizes=torch.tensor(sizes, dtype=torch.int64),
            lens=lens,
            distortion=_distortion(intrinsics, lens),
        ),
        photos=PhotoFiles([view.photo for view in views], has_alpha),
        names=names,
        held_out=_held_out(views, names, location),
        masks=_masks(views, sizes),
        points=points,
        has_alpha=has_alpha,
        source=source,
        notes=tuple(notes),
    )


def _tensor(rows: Sequence[Sequence[float] | NDArray[np.float64]]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(rows, dtype=np.float32))


def _rigid_pose(view: View) -> NDArray[np.float64]:
    """The pose with the nearest rotation (orthogonal Procrustes). Raises CaptureError if it is not nearly rigid."""
    pose = view.world_from_cam
    if not (np.isfinite(pose).all() and np.abs(pose[:, 3]).max() < MAX_COORDINATE):
        raise CaptureError(f"the pose of {view.name} is not finite, or is beyond {MAX_COORDINATE:.0e} units")
    rotation = pose[:, :3]
    error = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if error > RIGID_TOLERANCE or np.linalg.det(rotation) < 0:
        raise CaptureError(
            f"the pose of {view.name} is not rigid: its 3x3 part must be a rotation without scale or mirror"
        )
    u, _, v = np.linalg.svd(rotation)
    return np.concatenate([u @ v, pose[:, 3:]], axis=1)


def _fit_intrinsics(view: View, size: tuple[int, int]) -> Intrinsics:
    """Scale the intrinsics to the photo's real size. Raises CaptureError if the aspect ratios differ."""
    intrinsics = view.intrinsics
    _check_intrinsics(intrinsics, view.name)
    if not _is_same_shape(intrinsics.size, size):
        hint = " (it seems rotated by 90 degrees)" if _is_same_shape(intrinsics.size, (size[1], size[0])) else ""
        raise CaptureError(
            f"{view.name} is {size[0]}x{size[1]} pixels but its camera was calibrated at "
            f"{intrinsics.size[0]:g}x{intrinsics.size[1]:g}{hint}: restore the original photo or pose it again"
        )
    x, y = size[0] / intrinsics.size[0], size[1] / intrinsics.size[1]
    return dataclasses.replace(
        intrinsics,
        size=size,
        focal=(intrinsics.focal[0] * x, intrinsics.focal[1] * y),
        centre=(intrinsics.centre[0] * x, intrinsics.centre[1] * y),
    )


def _check_intrinsics(intrinsics: Intrinsics, name: str) -> None:
    numbers = np.array([*intrinsics.size, *intrinsics.focal, *intrinsics.centre, *intrinsics.distortion])
    if not (np.isfinite(numbers).all() and np.abs(numbers).max() < MAX_COORDINATE):
        raise CaptureError(f"the intrinsics of {name} are not finite or absurdly large")
    if min(intrinsics.focal) <= 0 or min(intrinsics.size) < 1:
        raise CaptureError(f"the focal length and the size of {name} must be positive")
    if len(intrinsics.distortion) != COEFFICIENTS[intrinsics.lens]:
        raise ValueError(
            f"{intrinsics.lens} takes {COEFFICIENTS[intrinsics.lens]} coefficients, not {len(intrinsics.distortion)}"
        )


def _is_same_shape(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Return True if one size is the other, scaled, up to one pixel of rounding in the smaller one."""
    (small, large) = (a, b) if a[0] * a[1] <= b[0] * b[1] else (b, a)
    minimum = max((small[0] - 1) / large[0], (small[1] - 1) / large[1])
    maximum = min((small[0] + 1) / large[0], (small[1] + 1) / large[1])
    return minimum <= maximum


def _common_lens(intrinsics: Sequence[Intrinsics], location: Path) -> Lens:
    """The common lens: opencv without distortion is a pinhole; a pinhole among opencv lenses is opencv with zeros."""
    lenses: set[Lens] = {"pinhole" if i.lens == "opencv" and not any(i.distortion) else i.lens for i in intrinsics}
    if "fisheye" in lenses and len(lenses) > 1:
        raise CaptureError(f"{location} mixes fisheye and ordinary lenses: use one kind of lens in a capture")
    return "fisheye" if "fisheye" in lenses else "opencv" if "opencv" in lenses else "pinhole"


def _distortion(intrinsics: Sequence[Intrinsics], lens: Lens) -> torch.Tensor | None:
    if lens == "pinhole":
        return None
    return _tensor([i.distortion or (0.0,) * COEFFICIENTS[lens] for i in intrinsics])


def _short_names(names: Sequence[str]) -> tuple[str, ...]:
    """File names without folders, if these are unique and keep the order."""
    short = [name.rpartition("/")[2] for name in names]
    return tuple(short if len(set(short)) == len(short) and short == sorted(short) else names)


def _held_out(views: Sequence[View], names: Sequence[str], location: Path) -> torch.Tensor:
    if any(view.held_out is not None for view in views):
        held_out = torch.tensor([bool(view.held_out) for view in views])
    else:
        held_out = hold_out_every_eighth(names)
    if bool(held_out.all()):
        raise CaptureError(f"{location} leaves no photo to train with ({len(views)} found, all of them held out)")
    return held_out


def _masks(views: Sequence[View], sizes: Sequence[tuple[int, int]]) -> MaskFiles | None:
    paths = [view.mask for view in views if view.mask is not None]
    if not paths:
        return None
    for view, size in zip(views, sizes, strict=True):
        if view.mask is None:
            raise CaptureError(f"{view.name} has no mask but other photos have: give every photo one, or none")
        width, height, _ = read_header(view.mask)
        if (width, height) != size:
            raise CaptureError(
                f"the mask of {view.name} is {width}x{height} pixels but the photo is {size[0]}x{size[1]}"
            )
    return MaskFiles(paths)
