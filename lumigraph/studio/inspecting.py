"""What is in a file of a scene, in a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lumigraph.extract import shape
from lumigraph.scene.assets import Asset, Mesh, Splats
from lumigraph.studio import catalogue
from lumigraph.studio.placing import places


def inspect(path: Path) -> dict[str, Any]:
    """{"format", "holds", "count", "bytes", "bounds", ...}, plain data. Raises FormatError."""
    file_format = catalogue.asset_reader(path)
    asset = file_format.read(path)
    return {"format": file_format.NAME, "bytes": path.stat().st_size, **facts(asset)}


def facts(asset: Asset) -> dict[str, Any]:
    """What can be said of an asset without knowing where it came from."""
    xyz = places(asset).detach().cpu()
    ends = torch.stack([xyz.amin(dim=0), xyz.amax(dim=0)]) if len(xyz) else torch.zeros(2, 3)
    said: dict[str, Any] = {"count": len(asset), "bounds": tuple(tuple(corner) for corner in ends.tolist())}
    if isinstance(asset, Splats):
        opacity = torch.sigmoid(asset.logit_opacities)
        size = asset.log_scales.exp().amax(dim=1)
        return {
            "holds": "gaussians",
            **said,
            "sh_degree": asset.sh_degree,
            "opacity_median": round(float(opacity.median()), 4) if len(asset) else None,
            "size_median": float(size.median()) if len(asset) else None,
        }
    if isinstance(asset, Mesh):
        return {
            "holds": "triangles",
            **said,
            "vertices": len(asset.vertices),
            "watertight": closed(asset),
            "textured": asset.texture is not None,
            "texture": None if asset.texture is None else [asset.texture.shape[1], asset.texture.shape[0]],
            "coloured": asset.rgb is not None,
        }
    return {"holds": "points", **said, "coloured": asset.rgb is not None, "normals": asset.normals is not None}


def closed(mesh: Mesh) -> bool:
    """Whether the surface has no border, once the vertices that a seam of the texture doubled are one again."""
    if not len(mesh):
        return False
    _, same = torch.unique(mesh.vertices, dim=0, return_inverse=True)
    return shape.watertight(same[mesh.faces.long()].to(torch.int32))
