"""What is in a file of a scene, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.extract import mesh_operations
from lumigraph.formats.chunked import Stream, compute_medians
from lumigraph.formats.io import Array, to_numpy
from lumigraph.scene.assets import Asset, Mesh, Splats, Voxels
from lumigraph.studio import registry
from lumigraph.studio.registry import Format

Scene = Mesh | Voxels | Stream  # gaussians and points come in batches
Corners = tuple[tuple[float, float, float], tuple[float, float, float]]


def inspect(path: Path) -> dict[str, Any]:
    """{"format", "holds", "count", "bytes", "bounds", ...}, plain data. Raises FormatError."""
    file_format = registry.asset_reader(path)
    return {"format": file_format.NAME, "bytes": path.stat().st_size, **facts(opened(file_format, path))}


def opened(file_format: Format, path: Path) -> Scene:
    """What a file holds, gaussians and points in batches: from the file where the format can. Raises FormatError."""
    if hasattr(file_format, "stream"):
        stream: Stream = file_format.stream(path)
        return stream
    return batched(file_format.read(path))


def batched(asset: Asset) -> Scene:
    """The same of a scene in memory."""
    return asset if isinstance(asset, Mesh | Voxels) else Stream.from_asset(asset)


def kind_of(scene: Scene) -> type:
    """Splats, Points, Voxels or Mesh."""
    return type(scene.template if isinstance(scene, Stream) else scene)


def bounds_of(scene: Scene) -> Corners:
    """Smallest and largest coordinates; zeros where there is nothing."""
    ends = scene.extent.bounds if isinstance(scene, Stream) else ends_of(scene)
    low, high = (tuple(corner) for corner in ends.tolist())
    return low, high


def ends_of(scene: Mesh | Voxels) -> Tensor:
    """(2, 3)"""
    xyz = (scene.vertices if isinstance(scene, Mesh) else scene.xyz).detach().cpu()
    return torch.stack([xyz.amin(0), xyz.amax(0)]) if len(xyz) else torch.zeros(2, 3)


def facts(scene: Scene) -> dict[str, Any]:
    """What can be said of a scene without knowing where it came from."""
    if isinstance(scene, Mesh):
        return {"holds": "triangles", "count": len(scene), "bounds": bounds_of(scene), **_of_mesh(scene)}
    if isinstance(scene, Voxels):
        sides, coloured = list(scene.grid.shape), scene.rgb is not None
        return {"holds": "voxels", "count": len(scene), "bounds": bounds_of(scene), "grid": sides, "coloured": coloured}
    if isinstance(scene.template, Splats):
        # First of all, since their passes measure the bounds as well.
        opacity, size = _typical(scene)
        said = {"sh_degree": scene.template.sh_degree, "opacity_median": opacity, "size_median": size}
        return {"holds": "gaussians", "count": len(scene), "bounds": bounds_of(scene), **said}
    said = {"coloured": scene.template.rgb is not None, "normals": scene.template.normals is not None}
    return {"holds": "points", "count": len(scene), "bounds": bounds_of(scene), **said}


def _typical(splats: Stream) -> tuple[float | None, float | None]:
    """Medians of opacity and size, by way of the numbers that they are computed from, which have the same order."""

    def columns() -> Iterator[tuple[Array, Array]]:
        for batch in splats:
            assert isinstance(batch, Splats)
            yield to_numpy(batch.logit_opacities), to_numpy(batch.log_scales).max(axis=1)

    if not len(splats):
        return None, None
    logit, log_scale = compute_medians(columns, len(splats))
    return round(float(torch.sigmoid(torch.tensor(logit))), 4), float(torch.tensor(log_scale).exp())


def _of_mesh(mesh: Mesh) -> dict[str, Any]:
    return {
        "vertices": len(mesh.vertices),
        "watertight": closed(mesh),
        "textured": mesh.texture is not None,
        "texture": None if mesh.texture is None else [mesh.texture.shape[1], mesh.texture.shape[0]],
        "coloured": mesh.rgb is not None,
    }


def closed(mesh: Mesh) -> bool:
    """Whether the surface has no border, once the vertices that a seam of the texture doubled are one again."""
    if not len(mesh):
        return False
    _, same = torch.unique(mesh.vertices, dim=0, return_inverse=True)
    return mesh_operations.is_watertight(same[mesh.faces.long()].to(torch.int32))
