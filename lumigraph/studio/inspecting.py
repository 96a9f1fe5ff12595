"""Short summaries of scene files."""

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

Scene = Mesh | Voxels | Stream  # gaussians and points are streamed
Corners = tuple[tuple[float, float, float], tuple[float, float, float]]


def inspect(path: Path) -> dict[str, Any]:
    """Describe a file as plain data: {"format", "holds", "count", "bytes", "bounds", ...}. Raises FormatError."""
    file_format = registry.asset_reader(path)
    return {"format": file_format.NAME, "bytes": path.stat().st_size, **describe_scene(open_scene(file_format, path))}


def open_scene(file_format: Format, path: Path) -> Scene:
    """Open a file; gaussians and points are streamed, from the file if the format supports it. Raises FormatError."""
    if hasattr(file_format, "stream"):
        stream: Stream = file_format.stream(path)
        return stream
    return as_stream(file_format.read(path))


def as_stream(asset: Asset) -> Scene:
    """Wrap gaussians and points in memory as a stream; return other assets unchanged."""
    return asset if isinstance(asset, Mesh | Voxels) else Stream.from_asset(asset)


def kind_of(scene: Scene) -> type:
    """Return the asset type: Splats, Points, Voxels or Mesh."""
    return type(scene.template if isinstance(scene, Stream) else scene)


def bounds_of(scene: Scene) -> Corners:
    """Return the smallest and largest coordinates, zeros for an empty scene."""
    corners = scene.extent.bounds if isinstance(scene, Stream) else corners_of(scene)
    low, high = (tuple(corner) for corner in corners.tolist())
    return low, high


def corners_of(scene: Mesh | Voxels) -> Tensor:
    """Return the smallest and largest coordinates, (2, 3)."""
    xyz = (scene.vertices if isinstance(scene, Mesh) else scene.xyz).detach().cpu()
    return torch.stack([xyz.amin(0), xyz.amax(0)]) if len(xyz) else torch.zeros(2, 3)


def describe_scene(scene: Scene) -> dict[str, Any]:
    """Describe the contents of a scene as plain data."""
    if isinstance(scene, Mesh):
        return {"holds": "triangles", "count": len(scene), "bounds": bounds_of(scene), **_describe_mesh(scene)}
    if isinstance(scene, Voxels):
        shape, has_colours = list(scene.grid.shape), scene.rgb is not None
        return {
            "holds": "voxels",
            "count": len(scene),
            "bounds": bounds_of(scene),
            "grid": shape,
            "coloured": has_colours,
        }
    if isinstance(scene.template, Splats):
        # Before the bounds, since these passes measure them as well.
        opacity, size = _median_opacity_and_size(scene)
        properties = {"sh_degree": scene.template.sh_degree, "opacity_median": opacity, "size_median": size}
        return {"holds": "gaussians", "count": len(scene), "bounds": bounds_of(scene), **properties}
    properties = {"coloured": scene.template.rgb is not None, "normals": scene.template.normals is not None}
    return {"holds": "points", "count": len(scene), "bounds": bounds_of(scene), **properties}


def _median_opacity_and_size(splats: Stream) -> tuple[float | None, float | None]:
    """Return the medians of opacity and size, from their logits and logarithms, which have the same order."""

    def columns() -> Iterator[tuple[Array, Array]]:
        for batch in splats:
            assert isinstance(batch, Splats)
            yield to_numpy(batch.logit_opacities), to_numpy(batch.log_scales).max(axis=1)

    if not len(splats):
        return None, None
    logit, log_scale = compute_medians(columns, len(splats))
    return round(float(torch.sigmoid(torch.tensor(logit))), 4), float(torch.tensor(log_scale).exp())


def _describe_mesh(mesh: Mesh) -> dict[str, Any]:
    return {
        "vertices": len(mesh.vertices),
        "watertight": is_watertight(mesh),
        "textured": mesh.texture is not None,
        "texture": None if mesh.texture is None else [mesh.texture.shape[1], mesh.texture.shape[0]],
        "coloured": mesh.rgb is not None,
    }


def is_watertight(mesh: Mesh) -> bool:
    """Whether the surface has no border after merging the vertices that a texture seam duplicates."""
    if not len(mesh):
        return False
    _, vertex_ids = torch.unique(mesh.vertices, dim=0, return_inverse=True)
    return mesh_operations.is_watertight(vertex_ids[mesh.faces.long()].to(torch.int32))
