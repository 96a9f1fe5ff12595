"""Measure meshes and files: seconds of each stage, accuracy of a mesh, and cost of formats.

A mesh is evaluated by its depth in held-out views, over the pixels where the field is solid:

agree         share within 1 % of the size of the field's visible surface
agree_depth   share within 1 % of the depth itself, which is stricter for near objects
agree_pixel   like agree, but a neighbouring pixel may match
itself        agreement of the field with itself, shifted by half a pixel: an upper bound for a mesh
phantom       share of empty pixels that the mesh covers

Meshes of analytic shapes are evaluated in voxels.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from benchmarks import scenes
from benchmarks.cli import lumigraph, sample
from lumigraph.extract import texture
from lumigraph.extract.mesh import MeshConfig, extract_mesh
from lumigraph.extract.view_selection import Views
from lumigraph.formats import ply, sog, spz
from lumigraph.formats.gltf import gltf_format as gltf
from lumigraph.kernels.rasterize import rasterize
from lumigraph.scene.assets import Mesh, Splats
from lumigraph.scene.cameras import Cameras, project
from lumigraph.scene.field import Field
from lumigraph.scene.surface import unproject_depth
from lumigraph.studio.run import Run
from lumigraph.studio.training import load_field
from lumigraph.wire.events import Progress
from tests.extract.shapes import Solid, box, orbit, sphere, torus

Row = dict[str, object]

RELATIVE_TOLERANCE = 0.01  # of the diagonal of the visible surface, and of a pixel's own depth
HELD_OUT_VIEWS = 20
TRAINING_SECONDS = 30
LEGO_DOWNSCALE = 4  # 800x800 -> 200x200


def rows(data: Path, splats: int = 1_000_000) -> Iterator[Row]:
    """Measure the sample scene, lego if it is in `data`, analytic shapes, and files of `splats` gaussians."""
    with tempfile.TemporaryDirectory(prefix="lumigraph-bench-") as name:
        work = Path(name)
        captures = [("sample", sample(work / "sample")[1], 1)]
        if (data / "lego").is_dir():
            captures.append(("lego", data / "lego", LEGO_DOWNSCALE))
        for case, capture, downscale in captures:
            run = work / f"{case}-run"
            budget = ("--seconds", str(TRAINING_SECONDS), "--downscale", str(downscale))
            lumigraph("train", capture, "-o", run, *budget, "--quiet")
            yield from run_rows(case, run, work)
        yield from shape_rows()
        yield from file_rows(splats, work)


def run_rows(case: str, run: Path, work: Path) -> Iterator[Row]:
    field, _ = load_field(Run(run), "cpu")
    cameras, held_out = Run(run).cameras()
    mesh, seconds = extract_timed(field, cameras[~held_out], MeshConfig())
    which = held_out.nonzero()[:, 0]
    which = which[torch.linspace(0, len(which) - 1, min(HELD_OUT_VIEWS, len(which))).round().long()]
    yield {"case": f"{case}, mesh", **seconds, **measure_agreement(mesh, field, cameras[which])}
    for kind in ("none", "draco", "meshopt"):
        out = work / f"{case}-{kind}.glb"
        start = time.perf_counter()
        gltf.write(replace(mesh, texture=None, uv=None), out, gltf.Options(compression=kind))
        write_seconds = time.perf_counter() - start
        per = round(out.stat().st_size / len(mesh), 2)
        yield {"case": f"{case}, glb {kind}", "bytes_per_triangle": per, "write_seconds": round(write_seconds, 2)}


def extract_timed(field: Field, cameras: Cameras, config: MeshConfig) -> tuple[Mesh, dict[str, Any]]:
    """Extract a mesh: the mesh, and the seconds of each stage from its first event to that of the next."""
    seconds: dict[str, float] = {}
    task, stage = extract_mesh(field, cameras, config), "look"
    previous = start = time.perf_counter()
    while True:
        try:
            event = next(task)
        except StopIteration as stop:
            now = time.perf_counter()
            seconds[stage] = seconds.get(stage, 0.0) + now - previous
            stage_seconds = {f"{name}_seconds": round(value, 2) for name, value in seconds.items()}
            return stop.value, {"triangles": len(stop.value), **stage_seconds, "all_seconds": round(now - start, 2)}
        now = time.perf_counter()
        seconds[stage] = seconds.get(stage, 0.0) + now - previous
        previous = now
        if isinstance(event, Progress):
            stage = event.stage


def measure_agreement(mesh: Mesh, field: Field, cameras: Cameras) -> Row:
    close = RELATIVE_TOLERANCE * measure_diagonal(field, cameras)
    total = agree = strictly = beside = itself = empty = phantom = 0
    error, texels = 0.0, 0
    for i in range(len(cameras)):
        camera = cameras[i]
        alpha, depth, rgb = render_depth(field, camera)
        shifted_camera = Cameras(camera.world_from_cam, camera.focal, camera.centre + 0.5, camera.sizes)
        shifted_depth = render_depth(field, shifted_camera)[1]
        mesh_depth = texture.render_mesh_depth(mesh.vertices, mesh.faces, Views(camera, camera.sizes), 0)
        solid = depth < torch.inf
        same = solid & ((mesh_depth - depth).abs() < close)
        total, agree = total + int(solid.sum()), agree + int(same.sum())
        strictly += int((solid & ((mesh_depth - depth).abs() < RELATIVE_TOLERANCE * depth)).sum())
        near_matches = matches_nearby(depth, mesh_depth, close) & matches_nearby(mesh_depth, depth, close)
        beside += int((solid & near_matches).sum())
        itself += int((solid & ((shifted_depth - depth).abs() < close)).sum())
        is_empty = alpha < 0.1
        empty, phantom = empty + int(is_empty.sum()), phantom + int((is_empty & (mesh_depth < torch.inf)).sum())
        error += float((render_mesh(mesh, camera) - rgb)[same & (alpha > 0.9)].square().sum())
        texels += 3 * int((same & (alpha > 0.9)).sum())
    shares = {"agree": agree, "agree_depth": strictly, "agree_pixel": beside, "itself": itself}
    return {
        **{name: round(count / max(1, total), 4) for name, count in shares.items()},
        "phantom": round(phantom / max(1, empty), 4),
        "texture_psnr": round(-10 * math.log10(error / max(1, texels)), 2),
    }


def measure_diagonal(field: Field, cameras: Cameras) -> float:
    """Diagonal of the field's visible surface. That of the mesh would favour meshes with far background parts."""
    points = []
    for i in range(len(cameras)):
        depth = render_depth(field, cameras[i])[1]
        solid = depth < torch.inf
        points.append(unproject_depth(torch.where(solid, depth, 1.0)[None, ..., None], cameras[i])[0][solid][::10])
    xyz = torch.cat(points)[::10]
    low, high = (torch.quantile(xyz, q, dim=0) for q in (0.02, 0.98))
    margin = 0.3 * (high - low).amax()  # as in `compute_bounds`
    first, last = torch.maximum(xyz.amin(0), low - margin), torch.minimum(xyz.amax(0), high + margin)
    return float((last - first).norm())


def render_depth(field: Field, camera: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """Render alpha (H, W), depth (H, W), infinite without a surface, and straight rgb (H, W, 3)."""
    with torch.no_grad():
        image = getattr(field, "render_surface", field.render)(camera)
    assert image.depth is not None and image.alpha is not None
    alpha, depth = image.alpha[0, ..., 0].cpu(), image.depth[0, ..., 0].cpu()
    solid = (alpha > 0.5) & (depth > 0)
    return alpha, torch.where(solid, depth, torch.inf), image.rgb[0].cpu() / alpha.clamp(min=1e-3)[..., None]


def matches_nearby(depth: Tensor, other: Tensor, close: float) -> Tensor:
    """Whether `other` matches `depth` there or in a neighbouring pixel (H, W) bool; background matches background."""
    height, width = depth.shape
    padded = torch.nn.functional.pad(other[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    match_mask = torch.zeros_like(depth, dtype=torch.bool)
    for y in range(3):
        for x in range(3):
            shifted = padded[y : y + height, x : x + width]
            match_mask |= ((depth - shifted).abs() < close) | (depth.isinf() & shifted.isinf())
    return match_mask


def render_mesh(mesh: Mesh, camera: Cameras) -> Tensor:
    """Render the mesh with its texture: (H, W, 3) of 0..1."""
    assert mesh.uv is not None and mesh.texture is not None
    pixels, depths = project(camera, mesh.vertices)
    corners = torch.cat([pixels[0].nan_to_num(0.0), depths[0][:, None]], 1)
    mesh_raster = rasterize(corners, mesh.faces, camera.size(0))
    assert mesh_raster.weights is not None
    uv = (mesh.uv[mesh.faces[mesh_raster.face.clamp(min=0).long()].long()] * mesh_raster.weights[..., None]).sum(-2)
    image = mesh.texture.permute(2, 0, 1)[None].float() / 255
    return grid_sample(image, (2 * uv - 1)[None], align_corners=False)[0].permute(1, 2, 0)


def shape_rows() -> Iterator[Row]:
    for distance in (sphere, torus, box):
        config = MeshConfig(resolution=80, faces=4000, texture=512, watertight=True, views=28, size=200)
        mesh, seconds = extract_timed(Solid(distance), orbit(28, 200), config)
        low, high = mesh.bounds()
        error = distance(mesh.vertices.double()).abs() / (float((high - low).amax()) / 80)
        errors = []
        for camera in side_cameras():
            difference = render_mesh(mesh, camera) - render_shape(distance, camera)
            errors.append(float(difference[interior_mask(distance, camera)].square().mean()))
        yield {
            "case": distance.__name__,
            "error_voxels": round(float(error.mean()), 3),
            "worst_voxels": round(float(error.amax()), 2),
            "texture_psnr": round(-10 * math.log10(sum(errors) / len(errors)), 2),
            "all_seconds": seconds["all_seconds"],
        }


def side_cameras() -> list[Cameras]:
    cameras = orbit(4, 150, seed=1)
    return [cameras[i] for i in range(len(cameras))]


def render_shape(distance: Any, camera: Cameras) -> Tensor:
    return Solid(distance).render(camera).rgb[0]


def interior_mask(distance: Any, camera: Cameras) -> Tensor:
    """Mask the pixels of the shape away from its outline: (H, W) bool."""
    alpha = Solid(distance).render(camera).alpha
    assert alpha is not None
    return -torch.nn.functional.max_pool2d(-alpha[..., 0], 5, 1, 2)[0] > 0


def file_rows(count: int, work: Path) -> Iterator[Row]:
    blob = scenes.blob(count, (640, 480))
    splats = Splats(blob.means, blob.log_scales, blob.quats, blob.logit_opacities, blob.sh)
    for file_format, suffix in ((ply, ".ply"), (spz, ".spz"), (sog, ".sog")):
        out = work / f"splats{suffix}"
        start = time.perf_counter()
        file_format.write(splats, out)
        write_end = time.perf_counter()
        file_format.read(out)
        size = out.stat().st_size
        write_seconds, read_seconds = write_end - start, time.perf_counter() - write_end
        yield {
            "case": f"{suffix[1:]}, {count} gaussians",
            "bytes_per_gaussian": round(size / count, 2),
            "write_seconds": round(write_seconds, 2),
            "read_seconds": round(read_seconds, 2),
            "write_mb_per_second": round(size / write_seconds * 1e-6, 1),
            "read_mb_per_second": round(size / read_seconds * 1e-6, 1),
        }
