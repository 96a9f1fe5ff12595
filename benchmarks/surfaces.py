"""Meshes against reference surfaces, with and without surface steps in training, by the metrics of DTU.

Both clouds are thinned to one point per cell. `accuracy` is the mean distance from mesh points to the reference cloud,
`completeness` that from reference points to the mesh, without distances beyond MAX_DISTANCE. `chamfer` is the mean of
both [Jensen 2014]. Units are per mille of the diagonal of the reference cloud's box. Mesh parts outside of that box are
not evaluated, since reference clouds rarely contain the background. DTU's own observation masks are not used.

The sample's reference is the first hit of each ray in the scene that its photos were rendered from. For other captures
the reference is a PLY in the capture's coordinates.

  [Jensen 2014]  Large Scale Multi-view Stereopsis Evaluation.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree

from benchmarks.cli import lumigraph, sample
from lumigraph.captures.synthetic.still_life import still_life
from lumigraph.formats import mesh_ply, ply
from lumigraph.scene.assets import Mesh, Points
from lumigraph.scene.cameras import Cameras
from lumigraph.studio.run import Run

Row = dict[str, object]
Cloud = npt.NDArray[np.float64]  # (N, 3)

CELL_SIZE = 1e-3  # of the diagonal: the spacing of points
MAX_DISTANCE = 0.02  # of the diagonal: 20 mm at DTU's scale of 1 m
RAY_SPACING_PX = 3
OPTIONS = {"plain": "false", "surface": "true"}


def rows(captures: Sequence[Path], reference: Path | None, budgets: Sequence[float]) -> Iterator[Row]:
    """Yield two rows for each budget in seconds. captures: one, with its reference cloud, or none for the sample."""
    with tempfile.TemporaryDirectory(prefix="lumigraph-bench-") as name:
        work = Path(name)
        folder = captures[0] if captures else sample(work / "sample")[1]
        for seconds in budgets:
            for option, value in OPTIONS.items():
                run = work / f"{option}-{seconds:g}"
                budget = ("--seconds", f"{seconds}", "--overwrite", "--quiet")
                lumigraph("train", folder, "-o", run, *budget, "--set", f"surface={value}")
                cloud = read_cloud(reference) if reference is not None else reference_points(Run(run).cameras()[0])
                yield {"case": f"{folder.name}, {seconds:g} s, {option}", **evaluate_run(run, cloud)}


def evaluate_run(run: Path, reference: Cloud) -> Row:
    evaluation, _ = lumigraph("evaluate", run, "--json", "--quiet")
    file = run / "mesh.ply"
    options = ("--as", "mesh", "--frame", "capture", "--origin", "capture", "--set", "texture=0", "--set", "faces=0")
    _, seconds = lumigraph("export", run, "-o", file, *options, "--quiet")
    metrics = json.loads(evaluation)
    return {
        **chamfer(points_on(mesh_ply.read(file)), reference),
        "psnr": round(metrics["psnr"], 2),
        "steps": metrics["steps"],
        "mesh_seconds": round(seconds, 1),
    }


def chamfer(points: Cloud, reference: Cloud) -> Row:
    """Distances in per mille of the diagonal of the reference cloud's box."""
    low, high = reference.min(0), reference.max(0)
    diagonal = float(np.linalg.norm(high - low))
    edge = MAX_DISTANCE * diagonal
    points = points[((points > low - edge) & (points < high + edge)).all(1)]
    points, reference = thin_cloud(points, CELL_SIZE * diagonal), thin_cloud(reference, CELL_SIZE * diagonal)
    accuracy, _ = cKDTree(reference).query(points)
    completeness, _ = cKDTree(points).query(reference)
    parts = [1000 / diagonal * float(part[part < edge].mean()) for part in (accuracy, completeness)]
    return {
        "accuracy": round(parts[0], 2),
        "completeness": round(parts[1], 2),
        "chamfer": round(sum(parts) / 2, 2),
        "missed": round(float((completeness >= edge).mean()), 4),
        "astray": round(float((accuracy >= edge).mean()), 4),
    }


def thin_cloud(points: Cloud, cell: float) -> Cloud:
    """One point per cell of a grid."""
    cells = np.floor((points - points.min(0)) / cell).astype(np.int64)
    _, first = np.unique(cells, axis=0, return_index=True)
    return points[first]


def points_on(mesh: Mesh) -> Cloud:
    """Vertices and face centres: voxels are finer than CELL_SIZE requires."""
    vertices = mesh.vertices.double()
    return torch.cat([vertices, vertices[mesh.faces.long()].mean(1)]).numpy()


def read_cloud(path: Path) -> Cloud:
    """Raises FormatError if the file contains no points."""
    asset = ply.read(path)
    return (asset.xyz if isinstance(asset, Points) else asset.means).double().numpy()


def reference_points(cameras: Cameras) -> Cloud:
    """First hits of the rays of the sample's cameras, without the surrounding room."""
    visible = still_life(0).visible
    all_shapes, hits = np.arange(len(visible.shapes)), []
    for i in range(len(cameras)):
        (fx, fy), (cx, cy), (width, height) = cameras.focal[i].tolist(), cameras.centre[i].tolist(), cameras.size(i)
        y, x = np.mgrid[0:height:RAY_SPACING_PX, 0:width:RAY_SPACING_PX] + 0.5
        pose = cameras.world_from_cam[i].double().numpy()
        rays = pose[:, :3] @ np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)]).reshape(3, -1)
        rays = (rays / np.linalg.norm(rays, axis=0)).astype(np.float32)
        eye = pose[:, 3:].astype(np.float32)
        for part in np.array_split(rays, 8, axis=1):
            distance, owner = visible.first_hits(all_shapes, eye, part, visible.within(eye))
            is_object_hit = (owner >= 0) & (owner < visible.foreground)
            hits.append((eye + part * distance)[:, is_object_hit])
    return np.concatenate(hits, 1).T.astype(np.float64)
