"""Views that a reader found become a Capture: poses made rigid, intrinsics fitted to the real photos, one lens for all.

Every reader ends here, so every rule about sizes, lenses, masks and held-out views is said once.
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
RIGID_TOLERANCE = 5e-3  # of R^T R against I; what text files lose by rounding stays far below
LARGEST = 1e7  # of any length, focal length or coordinate, in its unit: beyond, float32 loses the pixels
LONGEST_PATH = 200  # bytes; file systems take 255 for one name and raise an OSError beyond


@dataclass(frozen=True)
class Intrinsics:
    """One lens at one picture size (width, height), in pixels. `distortion` as in scene.cameras, () for a pinhole."""

    size: tuple[float, float]
    focal: tuple[float, float]
    centre: tuple[float, float]
    lens: Lens = "pinhole"
    distortion: tuple[float, ...] = ()


@dataclass(frozen=True)
class View:
    """One posed photo on disk."""

    name: str  # relative path with forward slashes, as the dataset says it
    photo: Path
    world_from_cam: NDArray[np.float64]  # (3, 4), OpenCV camera axes
    intrinsics: Intrinsics
    mask: Path | None = None
    held_out: bool | None = None  # None everywhere: every eighth is held out


def in_name_order(views: Sequence[View]) -> list[View]:
    return sorted(views, key=lambda view: view.name)


def inside(root: Path, relative: str) -> Path:
    """`root / relative`, which may not lead out of `root`: a dataset speaks of its own files only."""
    path = Path(os.path.normpath(root / relative.replace("\\", "/")))
    if not path.is_relative_to(os.path.normpath(root)):
        raise CaptureError(f"{relative[:200]!r} lies outside {root}: move the file there and correct its path")
    if len(relative.encode(errors="replace")) > LONGEST_PATH:
        raise CaptureError(f"{relative[:40]!r}... is too long for the name of a file")
    return path


def assemble(
    views: Sequence[View], where: Path, source: str, points: Points | None = None, notes: Sequence[str] = ()
) -> Capture:
    """A Capture of `views`, which must come in name order, so that `points.view_indices` may count them.

    Raises CaptureError naming the photo when a pose is not rigid, when a photo's shape does not fit its intrinsics,
    when a mask is missing or of another size, or when views mix lenses that no single model covers.
    """
    if len({view.name for view in views}) != len(views):
        raise CaptureError(f"{where} lists a photo twice: remove one of them")
    headers = [read_header(view.photo) for view in views]
    sizes = [(width, height) for width, height, _ in headers]
    has_alpha = any(transparent for _, _, transparent in headers)
    fitted = [_fitted(view, size) for view, size in zip(views, sizes, strict=True)]
    lens = _one_lens(fitted, where)
    names = _short_names([view.name for view in views])
    return Capture(
        cameras=Cameras(
            world_from_cam=_tensor([_rigid(view) for view in views]),
            focal=_tensor([i.focal for i in fitted]),
            centre=_tensor([i.centre for i in fitted]),
            sizes=torch.tensor(sizes, dtype=torch.int64),
            lens=lens,
            distortion=_distortion(fitted, lens),
        ),
        photos=PhotoFiles([view.photo for view in views], has_alpha),
        names=names,
        held_out=_held_out(views, names, where),
        masks=_masks(views, sizes),
        points=points,
        has_alpha=has_alpha,
        source=source,
        notes=tuple(notes),
    )


def _tensor(rows: Sequence[Sequence[float] | NDArray[np.float64]]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(rows, dtype=np.float32))


def _rigid(view: View) -> NDArray[np.float64]:
    """The pose with the nearest rotation (orthogonal Procrustes); CaptureError where it is not nearly one already."""
    pose = view.world_from_cam
    if not (np.isfinite(pose).all() and np.abs(pose[:, 3]).max() < LARGEST):
        raise CaptureError(f"the pose of {view.name} is not finite, or lies beyond {LARGEST:.0e} units")
    rotation = pose[:, :3]
    error = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if error > RIGID_TOLERANCE or np.linalg.det(rotation) < 0:
        raise CaptureError(
            f"the pose of {view.name} is not rigid: its 3x3 part must be a rotation without scale or mirror"
        )
    u, _, v = np.linalg.svd(rotation)
    return np.concatenate([u @ v, pose[:, 3:]], axis=1)


def _fitted(view: View, size: tuple[int, int]) -> Intrinsics:
    """The intrinsics at the photo's real size: a scaled copy scales them, another shape is an error."""
    said = view.intrinsics
    _check_intrinsics(said, view.name)
    if not _same_shape(said.size, size):
        swapped = " (it seems turned by 90 degrees)" if _same_shape(said.size, (size[1], size[0])) else ""
        raise CaptureError(
            f"{view.name} is {size[0]}x{size[1]} pixels but its camera was calibrated at "
            f"{said.size[0]:g}x{said.size[1]:g}{swapped}: restore the original photo or pose it again"
        )
    x, y = size[0] / said.size[0], size[1] / said.size[1]
    return dataclasses.replace(
        said,
        size=size,
        focal=(said.focal[0] * x, said.focal[1] * y),
        centre=(said.centre[0] * x, said.centre[1] * y),
    )


def _check_intrinsics(said: Intrinsics, name: str) -> None:
    numbers = np.array([*said.size, *said.focal, *said.centre, *said.distortion])
    if not (np.isfinite(numbers).all() and np.abs(numbers).max() < LARGEST):
        raise CaptureError(f"the intrinsics of {name} are not finite or absurdly large")
    if min(said.focal) <= 0 or min(said.size) < 1:
        raise CaptureError(f"the focal length and the size of {name} must be positive")
    if len(said.distortion) != COEFFICIENTS[said.lens]:
        raise ValueError(f"{said.lens} takes {COEFFICIENTS[said.lens]} coefficients, not {len(said.distortion)}")


def _same_shape(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """True when one size is the other, scaled, up to one pixel of rounding in the smaller one."""
    (small, large) = (a, b) if a[0] * a[1] <= b[0] * b[1] else (b, a)
    least = max((small[0] - 1) / large[0], (small[1] - 1) / large[1])
    most = min((small[0] + 1) / large[0], (small[1] + 1) / large[1])
    return least <= most


def _one_lens(fitted: Sequence[Intrinsics], where: Path) -> Lens:
    """opencv with all coefficients zero is a pinhole, and a pinhole among opencv lenses is opencv with zeros."""
    lenses: set[Lens] = {"pinhole" if i.lens == "opencv" and not any(i.distortion) else i.lens for i in fitted}
    if "fisheye" in lenses and len(lenses) > 1:
        raise CaptureError(f"{where} mixes fisheye and ordinary lenses: use one kind of lens in a capture")
    return "fisheye" if "fisheye" in lenses else "opencv" if "opencv" in lenses else "pinhole"


def _distortion(fitted: Sequence[Intrinsics], lens: Lens) -> torch.Tensor | None:
    if lens == "pinhole":
        return None
    return _tensor([i.distortion or (0.0,) * COEFFICIENTS[lens] for i in fitted])


def _short_names(names: Sequence[str]) -> tuple[str, ...]:
    """File names without folders where these already tell all photos apart and keep their order."""
    short = [name.rpartition("/")[2] for name in names]
    return tuple(short if len(set(short)) == len(short) and short == sorted(short) else names)


def _held_out(views: Sequence[View], names: Sequence[str], where: Path) -> torch.Tensor:
    if any(view.held_out is not None for view in views):
        held_out = torch.tensor([bool(view.held_out) for view in views])
    else:
        held_out = hold_out_every_eighth(names)
    if bool(held_out.all()):
        raise CaptureError(f"{where} leaves no photo to learn from ({len(views)} found, all of them held out)")
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
