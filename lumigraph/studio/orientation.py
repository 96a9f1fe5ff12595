"""Where a scene comes to lie in a file: which way is up, how large a unit is, what lies at the origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumigraph.scene.assets import Asset, Mesh, Points, Splats
from lumigraph.scene.poses import Similarity
from lumigraph.studio.registry import Format
from lumigraph.wire.requests import OrientationOptions

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}  # metres
SPLATS_UP = "-y"  # what trainers leave in their files: roughly, since nobody has laid these scenes upright
POINTS_UP = "+z"
LOWEST = 0.02  # the share of a scene that may lie below its ground: strays
MIDDLE = 0.05  # the share at each end that does not count for its middle


@dataclass(frozen=True)
class World:
    """What is known of the capture's world."""

    up: Tensor  # (3,) unit
    metres_per_unit: float | None = None


@dataclass(frozen=True)
class Placement:
    """How the file lies to the capture."""

    file_from_capture: Similarity
    up: str
    metres_per_unit: float | None  # of the file; None where nobody knows


def placement(asset: Asset, world: World, file_format: Format, options: Any, asked: OrientationOptions) -> Placement:
    """What `asked` and the conventions of the format come to for this asset."""
    trained = isinstance(asset, Splats) and of_splats(file_format)
    up = _up(file_format, options, trained)
    target, nowhere = direction(up), torch.zeros(3, dtype=torch.float64)
    if asked.frame == "capture" or (asked.frame == "auto" and trained):
        as_trained = torch.eye(3, dtype=torch.float64)
        rotation = as_trained if asked.frame == "capture" else turn(direction(SPLATS_UP), target)
        origin = "capture" if asked.origin == "auto" else asked.origin
        similarity = _centred(Similarity(1.0, rotation, nowhere), asset, origin, target)
        return Placement(similarity, SPLATS_UP if asked.frame == "capture" else up, world.metres_per_unit)
    scale, metres = _scale(world, file_format, options)
    origin = "ground" if asked.origin == "auto" else asked.origin
    turned = Similarity(scale, turn(world.up.double(), target), nowhere)
    return Placement(_centred(turned, asset, origin, target), up, metres)


def of_splats(file_format: Format) -> bool:
    """Whether this is a splat file: readers of those expect a scene as trained, but for the format's own axes."""
    return Splats in file_format.HOLDS and Mesh not in file_format.HOLDS


def direction(up: str) -> Tensor:
    """(3,) unit, float64, of a direction such as +y."""
    axis = torch.zeros(3, dtype=torch.float64)
    axis["xyz".index(up[-1])] = -1.0 if up[0] == "-" else 1.0
    return axis


def turn(a: Tensor, b: Tensor) -> Tensor:
    """(3, 3): the smallest rotation that takes the unit vector `a` to `b`."""
    c = float(a @ b)
    if c < -1 + 1e-9:  # half a turn about any axis across; from -y to +y about x, as the field has it
        axis = torch.eye(3, dtype=a.dtype)[int(a.abs().argmin())]
        axis = axis - (axis @ a) * a
        axis = axis / axis.norm()
        return 2 * torch.outer(axis, axis) - torch.eye(3, dtype=a.dtype)
    x, y, z = torch.linalg.cross(a, b).tolist()
    across = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=a.dtype)
    return torch.eye(3, dtype=a.dtype) + across + across @ across / (1 + c)


def places(asset: Asset) -> Tensor:
    """(N, 3) the coordinates of what it consists of."""
    if isinstance(asset, Splats):
        return asset.means
    return asset.xyz if isinstance(asset, Points) else asset.vertices


def _up(file_format: Format, options: Any, trained: bool) -> str:
    chosen = getattr(options, "up", None)
    if chosen is not None:
        return f"+{chosen}"
    # points in a format of splats, such as PLY, are opened by programs that survey: z is up there
    return POINTS_UP if of_splats(file_format) and not trained else file_format.UP


def _scale(world: World, file_format: Format, options: Any) -> tuple[float, float | None]:
    """(units of the file in one of the capture, metres in one of the file). Where nobody knows how large the place is,
    a unit of the capture is taken to be a metre; where the format says nothing of its units, they are metres."""
    chosen = getattr(options, "unit", None)
    unit = UNITS[chosen] if chosen is not None else file_format.METRES or 1.0
    return (world.metres_per_unit or 1.0) / unit, None if world.metres_per_unit is None else unit


def _centred(similarity: Similarity, asset: Asset, origin: str, up: Tensor) -> Similarity:
    """Moved so that the middle of the asset, or what lies below it on its ground, is the origin."""
    xyz = similarity.transform_points(places(asset).detach().cpu().double())
    if origin == "capture" or not len(xyz):
        return similarity
    low, high = (_quantile(xyz, share) for share in (MIDDLE, 1 - MIDDLE))
    middle = (low + high) / 2
    if origin == "ground":
        heights = xyz @ up
        middle = middle + (float(_quantile(heights[:, None], LOWEST)) - middle @ up) * up
    return Similarity(similarity.scale, similarity.rotation, similarity.translation - middle)


def _quantile(values: Tensor, share: float) -> Tensor:
    """Of each column; by sorting, since torch.quantile takes no more than sixteen million."""
    return values.sort(dim=0).values[round(share * (len(values) - 1))]
