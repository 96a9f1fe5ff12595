"""Meshes and files: seconds of each stage, how near a mesh is to its field, and what formats cost.

A mesh is judged as depth from held-out views: `agree` is the share of the field's solid pixels in which both are within
1 % of the size of what the field shows, `agree_depth` within 1 % of the depth itself, which near things need,
`agree_pixel` as `agree` where a pixel beside may be the one that agrees, `itself` that of the field with itself half a
pixel beside, which no mesh can be expected to pass by much. `phantom` is the share of empty
pixels in which the mesh stands. Shapes that are known exactly are judged in voxels.
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

CLOSE = 0.01  # of the diagonal of what the field shows, and of a pixel's own depth
LOOKS = 20  # held-out views
SECONDS = 30  # of training
LEGO = 4  # times smaller: 800x800 -> 200x200


def rows(data: Path, splats: int = 1_000_000) -> Iterator[Row]:
    """The sample scene, lego where it lies in `data`, exact shapes, and files of `splats` gaussians."""
    with tempfile.TemporaryDirectory(prefix="lumigraph-bench-") as name:
        work = Path(name)
        captures = [("sample", sample(work / "sample")[1], 1)]
        if (data / "lego").is_dir():
            captures.append(("lego", data / "lego", LEGO))
        for case, capture, downscale in captures:
            run = work / f"{case}-run"
            budget = ("--seconds", str(SECONDS), "--downscale", str(downscale))
            lumigraph("train", capture, "-o", run, *budget, "--quiet")
            yield from of_run(case, run, work)
        yield from of_shapes()
        yield from of_files(splats, work)


def of_run(case: str, run: Path, work: Path) -> Iterator[Row]:
    field, _ = load_field(Run(run), "cpu")
    cameras, held_out = Run(run).cameras()
    made, seconds = timed(field, cameras[~held_out], MeshConfig())
    which = held_out.nonzero()[:, 0]
    which = which[torch.linspace(0, len(which) - 1, min(LOOKS, len(which))).round().long()]
    yield {"case": f"{case}, mesh", **seconds, **likeness(made, field, cameras[which])}
    for kind in ("none", "draco", "meshopt"):
        out = work / f"{case}-{kind}.glb"
        began = time.perf_counter()
        gltf.write(replace(made, texture=None, uv=None), out, gltf.Options(compression=kind))
        took = time.perf_counter() - began
        per = round(out.stat().st_size / len(made), 2)
        yield {"case": f"{case}, glb {kind}", "bytes_per_triangle": per, "write_seconds": round(took, 2)}


def timed(field: Field, cameras: Cameras, config: MeshConfig) -> tuple[Mesh, dict[str, Any]]:
    """The mesh, and the seconds of each stage, from the first that is said of it until the next."""
    task, seconds, stage = extract_mesh(field, cameras, config), {}, "look"
    last = began = time.perf_counter()
    while True:
        try:
            event = next(task)
        except StopIteration as stop:
            now = time.perf_counter()
            seconds[stage] = seconds.get(stage, 0.0) + now - last
            told = {f"{name}_seconds": round(value, 2) for name, value in seconds.items()}
            return stop.value, {"triangles": len(stop.value), **told, "all_seconds": round(now - began, 2)}
        now = time.perf_counter()
        seconds[stage] = seconds.get(stage, 0.0) + now - last
        last = now
        if isinstance(event, Progress):
            stage = event.stage


def likeness(made: Mesh, field: Field, cameras: Cameras) -> Row:
    close = CLOSE * extent(field, cameras)
    total = agree = strictly = beside = itself = empty = phantom = 0
    error, texels = 0.0, 0
    for i in range(len(cameras)):
        camera = cameras[i]
        alpha, depth, rgb = seen(field, camera)
        moved = seen(field, Cameras(camera.world_from_cam, camera.focal, camera.centre + 0.5, camera.sizes))[1]
        own = texture.render_mesh_depth(made.vertices, made.faces, Views(camera, camera.sizes), 0)
        solid = depth < torch.inf
        same = solid & ((own - depth).abs() < close)
        total, agree = total + int(solid.sum()), agree + int(same.sum())
        strictly += int((solid & ((own - depth).abs() < CLOSE * depth)).sum())
        beside += int((solid & near(depth, own, close) & near(own, depth, close)).sum())
        itself += int((solid & ((moved - depth).abs() < close)).sum())
        empty, phantom = empty + int((alpha < 0.1).sum()), phantom + int(((alpha < 0.1) & (own < torch.inf)).sum())
        error += float((pictured(made, camera) - rgb)[same & (alpha > 0.9)].square().sum())
        texels += 3 * int((same & (alpha > 0.9)).sum())
    shares = {"agree": agree, "agree_depth": strictly, "agree_pixel": beside, "itself": itself}
    return {
        **{name: round(count / max(1, total), 4) for name, count in shares.items()},
        "phantom": round(phantom / max(1, empty), 4),
        "texture_psnr": round(-10 * math.log10(error / max(1, texels)), 2),
    }


def extent(field: Field, cameras: Cameras) -> float:
    """The diagonal of what the field shows: of the mesh, a mesh that keeps what lies far off would be judged mildly."""
    points = []
    for i in range(len(cameras)):
        depth = seen(field, cameras[i])[1]
        solid = depth < torch.inf
        points.append(unproject_depth(torch.where(solid, depth, 1.0)[None, ..., None], cameras[i])[0][solid][::10])
    seen_points = torch.cat(points)[::10]
    low, high = (torch.quantile(seen_points, q, dim=0) for q in (0.02, 0.98))
    spare = 0.3 * (high - low).amax()  # as `compute_bounds` chooses it
    first, last = torch.maximum(seen_points.amin(0), low - spare), torch.minimum(seen_points.amax(0), high + spare)
    return float((last - first).norm())


def seen(field: Field, camera: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """alpha (H, W), depth (H, W), infinite where there is no surface, rgb (H, W, 3) straight."""
    with torch.no_grad():
        image = getattr(field, "render_surface", field.render)(camera)
    assert image.depth is not None and image.alpha is not None
    alpha, depth = image.alpha[0, ..., 0].cpu(), image.depth[0, ..., 0].cpu()
    solid = (alpha > 0.5) & (depth > 0)
    return alpha, torch.where(solid, depth, torch.inf), image.rgb[0].cpu() / alpha.clamp(min=1e-3)[..., None]


def near(one: Tensor, other: Tensor, close: float) -> Tensor:
    """(H, W) bool: whether `other` has, there or in a pixel beside, what `one` has; nothing is like nothing."""
    height, width = one.shape
    padded = torch.nn.functional.pad(other[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    found = torch.zeros_like(one, dtype=torch.bool)
    for y in range(3):
        for x in range(3):
            there = padded[y : y + height, x : x + width]
            found |= ((one - there).abs() < close) | (one.isinf() & there.isinf())
    return found


def pictured(made: Mesh, camera: Cameras) -> Tensor:
    """(H, W, 3) of 0..1: the mesh with its texture."""
    assert made.uv is not None and made.texture is not None
    pixels, depths = project(camera, made.vertices)
    corners = torch.cat([pixels[0].nan_to_num(0.0), depths[0][:, None]], 1)
    drawn = rasterize(corners, made.faces, camera.size(0))
    assert drawn.weights is not None
    uv = (made.uv[made.faces[drawn.face.clamp(min=0).long()].long()] * drawn.weights[..., None]).sum(-2)
    picture = made.texture.permute(2, 0, 1)[None].float() / 255
    return grid_sample(picture, (2 * uv - 1)[None], align_corners=False)[0].permute(1, 2, 0)


def of_shapes() -> Iterator[Row]:
    for distance in (sphere, torus, box):
        config = MeshConfig(resolution=80, faces=4000, texture=512, watertight=True, views=28, size=200)
        made, seconds = timed(Solid(distance), orbit(28, 200), config)
        low, high = made.bounds()
        error = distance(made.vertices.double()).abs() / (float((high - low).amax()) / 80)
        wrong = [float((pictured(made, c) - look(distance, c))[hit(distance, c)].square().mean()) for c in aside()]
        yield {
            "case": distance.__name__,
            "error_voxels": round(float(error.mean()), 3),
            "worst_voxels": round(float(error.amax()), 2),
            "texture_psnr": round(-10 * math.log10(sum(wrong) / len(wrong)), 2),
            "all_seconds": seconds["all_seconds"],
        }


def aside() -> list[Cameras]:
    cameras = orbit(4, 150, seed=1)
    return [cameras[i] for i in range(len(cameras))]


def look(distance: Any, camera: Cameras) -> Tensor:
    return Solid(distance).render(camera).rgb[0]


def hit(distance: Any, camera: Cameras) -> Tensor:
    """(H, W) bool: pixels of the shape that are not at its outline."""
    alpha = Solid(distance).render(camera).alpha
    assert alpha is not None
    return -torch.nn.functional.max_pool2d(-alpha[..., 0], 5, 1, 2)[0] > 0


def of_files(count: int, work: Path) -> Iterator[Row]:
    one = scenes.blob(count, (640, 480))
    splats = Splats(one.means, one.log_scales, one.quats, one.logit_opacities, one.sh)
    for file_format, suffix in ((ply, ".ply"), (spz, ".spz"), (sog, ".sog")):
        out = work / f"splats{suffix}"
        began = time.perf_counter()
        file_format.write(splats, out)
        between = time.perf_counter()
        file_format.read(out)
        size = out.stat().st_size
        written, read = between - began, time.perf_counter() - between
        yield {
            "case": f"{suffix[1:]}, {count} gaussians",
            "bytes_per_gaussian": round(size / count, 2),
            "write_seconds": round(written, 2),
            "read_seconds": round(read, 2),
            "write_mb_per_second": round(size / written * 1e-6, 1),
            "read_mb_per_second": round(size / read * 1e-6, 1),
        }
