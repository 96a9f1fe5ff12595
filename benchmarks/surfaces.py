"""Meshes against true surfaces, with and without surface steps in training: the figures of DTU's evaluation.

Both clouds are thinned to one point a cell. `accuracy` is the mean distance from points of the mesh to the true cloud,
`completeness` that from true points to the mesh, distances beyond FARTHEST left out, and `chamfer` the mean of both
[Jensen 2014], in per mille of the diagonal of the true cloud's box. What the mesh has outside of that box is not
judged, since true clouds rarely hold the background. DTU's own masks of what was scanned are not read.

The sample's truth is the first hit of each ray in the scene that its photos were rendered from. For any other capture a
true cloud in the capture's coordinates is named: a PLY.

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

CELL = 1e-3  # of the diagonal: the spacing of points
FARTHEST = 0.02  # of the diagonal: 20 mm of DTU's metre
RAYS_EVERY = 3  # pixels
OPTIONS = {"plain": "false", "surface": "true"}


def rows(captures: Sequence[Path], truth: Path | None, budgets: Sequence[float]) -> Iterator[Row]:
    """Two rows for each budget in seconds. captures: one, with its true cloud, or none for the sample."""
    with tempfile.TemporaryDirectory(prefix="lumigraph-bench-") as name:
        work = Path(name)
        folder = captures[0] if captures else sample(work / "sample")[1]
        for seconds in budgets:
            for option, value in OPTIONS.items():
                run = work / f"{option}-{seconds:g}"
                budget = ("--seconds", f"{seconds}", "--overwrite", "--quiet")
                lumigraph("train", folder, "-o", run, *budget, "--set", f"surface={value}")
                cloud = read_cloud(truth) if truth is not None else true_points(Run(run).cameras()[0])
                yield {"case": f"{folder.name}, {seconds:g} s, {option}", **judge(run, cloud)}


def judge(run: Path, truth: Cloud) -> Row:
    evaluation, _ = lumigraph("evaluate", run, "--json", "--quiet")
    file = run / "mesh.ply"
    options = ("--as", "mesh", "--frame", "capture", "--origin", "capture", "--set", "texture=0", "--set", "faces=0")
    _, seconds = lumigraph("export", run, "-o", file, *options, "--quiet")
    own = json.loads(evaluation)
    return {
        **chamfer(points_on(mesh_ply.read(file)), truth),
        "psnr": round(own["psnr"], 2),
        "steps": own["steps"],
        "mesh_seconds": round(seconds, 1),
    }


def chamfer(points: Cloud, truth: Cloud) -> Row:
    """Distances in per mille of the diagonal of the true cloud's box."""
    low, high = truth.min(0), truth.max(0)
    diagonal = float(np.linalg.norm(high - low))
    edge = FARTHEST * diagonal
    points = points[((points > low - edge) & (points < high + edge)).all(1)]
    points, truth = thin(points, CELL * diagonal), thin(truth, CELL * diagonal)
    accuracy, _ = cKDTree(truth).query(points)
    completeness, _ = cKDTree(points).query(truth)
    parts = [1000 / diagonal * float(part[part < edge].mean()) for part in (accuracy, completeness)]
    return {
        "accuracy": round(parts[0], 2),
        "completeness": round(parts[1], 2),
        "chamfer": round(sum(parts) / 2, 2),
        "missed": round(float((completeness >= edge).mean()), 4),
        "astray": round(float((accuracy >= edge).mean()), 4),
    }


def thin(points: Cloud, cell: float) -> Cloud:
    """One point of each cell of a grid."""
    cells = np.floor((points - points.min(0)) / cell).astype(np.int64)
    _, first = np.unique(cells, axis=0, return_index=True)
    return points[first]


def points_on(mesh: Mesh) -> Cloud:
    """Vertices, and middles of faces: voxels are finer than CELL demands."""
    vertices = mesh.vertices.double()
    return torch.cat([vertices, vertices[mesh.faces.long()].mean(1)]).numpy()


def read_cloud(path: Path) -> Cloud:
    """Raises FormatError where the file holds no points."""
    read = ply.read(path)
    return (read.xyz if isinstance(read, Points) else read.means).double().numpy()


def true_points(cameras: Cameras) -> Cloud:
    """What rays of the sample's cameras hit first, without the room around."""
    visible = still_life(0).visible
    every, hits = np.arange(len(visible.shapes)), []
    for i in range(len(cameras)):
        (fx, fy), (cx, cy), (width, height) = cameras.focal[i].tolist(), cameras.centre[i].tolist(), cameras.size(i)
        y, x = np.mgrid[0:height:RAYS_EVERY, 0:width:RAYS_EVERY] + 0.5
        pose = cameras.world_from_cam[i].double().numpy()
        rays = pose[:, :3] @ np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)]).reshape(3, -1)
        rays = (rays / np.linalg.norm(rays, axis=0)).astype(np.float32)
        eye = pose[:, 3:].astype(np.float32)
        for part in np.array_split(rays, 8, axis=1):
            distance, owner = visible.first_hits(every, eye, part, visible.within(eye))
            here = (owner >= 0) & (owner < visible.foreground)
            hits.append((eye + part * distance)[:, here])
    return np.concatenate(hits, 1).T.astype(np.float64)
