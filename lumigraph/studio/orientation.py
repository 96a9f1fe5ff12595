"""Orientation of a scene in a file: up axis, unit and origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumigraph.scene.assets import Asset, Mesh, Points, Splats
from lumigraph.scene.poses import Similarity
from lumigraph.studio.registry import Format
from lumigraph.wire.requests import OrientationOptions

METRES_PER_UNIT = {"m": 1.0, "cm": 0.01, "mm": 0.001}
SPLATS_UP = "-y"  # usual in files of other trainers; approximate, since these scenes are not rotated upright
POINTS_UP = "+z"
GROUND_QUANTILE = 0.02  # of heights; outliers may lie below the ground
CENTRE_QUANTILE = 0.05  # of coordinates; ignored at each end when the centre is computed


@dataclass(frozen=True)
class World:
    """Up direction and scale of a capture."""

    up: Tensor  # (3,) unit
    metres_per_unit: float | None = None


@dataclass(frozen=True)
class Placement:
    """Transform from a capture to a file, with the axes and scale of the file."""

    file_from_capture: Similarity
    up: str
    metres_per_unit: float | None  # of the file; None if unknown


def placement(asset: Asset, world: World, file_format: Format, options: Any, request: OrientationOptions) -> Placement:
    """Combine the requested orientation with the conventions of the format."""
    is_splat_file = isinstance(asset, Splats) and is_splat_format(file_format)
    up = _up(file_format, options, is_splat_file)
    target, no_translation = direction(up), torch.zeros(3, dtype=torch.float64)
    if request.frame == "capture" or (request.frame == "auto" and is_splat_file):
        identity = torch.eye(3, dtype=torch.float64)
        rotation = identity if request.frame == "capture" else turn(direction(SPLATS_UP), target)
        origin = "capture" if request.origin == "auto" else request.origin
        similarity = _centre(Similarity(1.0, rotation, no_translation), asset, origin, target)
        return Placement(similarity, SPLATS_UP if request.frame == "capture" else up, world.metres_per_unit)
    scale, metres = _scale(world, file_format, options)
    origin = "ground" if request.origin == "auto" else request.origin
    similarity = Similarity(scale, turn(world.up.double(), target), no_translation)
    return Placement(_centre(similarity, asset, origin, target), up, metres)


def is_splat_format(file_format: Format) -> bool:
    """Whether this is a splat format: its readers expect a scene as trained, except for the axes of the format."""
    return Splats in file_format.HOLDS and Mesh not in file_format.HOLDS


def direction(up: str) -> Tensor:
    """Return the unit vector (3,), float64, of an axis such as +y."""
    axis = torch.zeros(3, dtype=torch.float64)
    axis["xyz".index(up[-1])] = -1.0 if up[0] == "-" else 1.0
    return axis


def turn(a: Tensor, b: Tensor) -> Tensor:
    """Return the smallest rotation (3, 3) that maps the unit vector `a` (3,) to `b` (3,)."""
    c = float(a @ b)
    if c < -1 + 1e-9:  # half a turn about any perpendicular axis; from -y to +y about x, as is usual
        axis = torch.eye(3, dtype=a.dtype)[int(a.abs().argmin())]
        axis = axis - (axis @ a) * a
        axis = axis / axis.norm()
        return 2 * torch.outer(axis, axis) - torch.eye(3, dtype=a.dtype)
    x, y, z = torch.linalg.cross(a, b).tolist()
    skew = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=a.dtype)
    return torch.eye(3, dtype=a.dtype) + skew + skew @ skew / (1 + c)


def coordinates(asset: Asset) -> Tensor:
    """Return the coordinates of centres, points or vertices, (N, 3)."""
    if isinstance(asset, Splats):
        return asset.means
    return asset.xyz if isinstance(asset, Points) else asset.vertices


def _up(file_format: Format, options: Any, is_splat_file: bool) -> str:
    up = getattr(options, "up", None)
    if up is not None:
        return f"+{up}"
    # Points in a splat format, such as PLY, are mostly opened by surveying programs: their z is up.
    return POINTS_UP if is_splat_format(file_format) and not is_splat_file else file_format.UP


def _scale(world: World, file_format: Format, options: Any) -> tuple[float, float | None]:
    """Return (file units per capture unit, metres per file unit or None). If the scale of the capture is unknown, one
    capture unit counts as a metre; if the format defines no unit, it is the metre."""
    unit_name = getattr(options, "unit", None)
    unit = METRES_PER_UNIT[unit_name] if unit_name is not None else file_format.METRES or 1.0
    return (world.metres_per_unit or 1.0) / unit, None if world.metres_per_unit is None else unit


def _centre(similarity: Similarity, asset: Asset, origin: str, up: Tensor) -> Similarity:
    """Translate so that the centre of the asset, or the ground point below it, is the origin."""
    xyz = similarity.transform_points(coordinates(asset).detach().cpu().double())
    if origin == "capture" or not len(xyz):
        return similarity
    low, high = (_quantile(xyz, q) for q in (CENTRE_QUANTILE, 1 - CENTRE_QUANTILE))
    centre = (low + high) / 2
    if origin == "ground":
        heights = xyz @ up
        centre = centre + (float(_quantile(heights[:, None], GROUND_QUANTILE)) - centre @ up) * up
    return Similarity(similarity.scale, similarity.rotation, similarity.translation - centre)


def _quantile(values: Tensor, q: float) -> Tensor:
    """Return the quantile of each column of (N, C). Sorts, since torch.quantile accepts at most 16 million values."""
    return values.sort(dim=0).values[round(q * (len(values) - 1))]
