"""A run as the gallery's files: each kind is made once, then laid and written as `lumigraph export` does it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lumigraph.extract.mesh import extract_mesh
from lumigraph.extract.points import extract_points
from lumigraph.scene.assets import Asset, Mesh, Points, Splats
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.poses import up_direction
from lumigraph.studio import registry
from lumigraph.studio.exporting import metres_per_unit, settings_of, written
from lumigraph.studio.orientation import World, direction, placement
from lumigraph.studio.run import Run
from lumigraph.studio.training import load_field
from lumigraph.wire.events import ExportReport
from lumigraph.wire.requests import ExportRequest
from tests.formats.gallery.cases import Case

VIEW = 32  # the photo from whose place all pictures are taken: held out, from above, a globe to the left
SIZE = (320, 240)
TYPES: dict[str, type] = {"splats": Splats, "mesh": Mesh, "points": Points}


@dataclass(frozen=True)
class Stage:
    """What all files show, and from where it is looked at."""

    run: Run
    assets: dict[str, Asset]
    world: World
    camera: Cameras  # one, of SIZE
    picture: Any  # (H, W, 3) uint8: the field seen by it, drawn here


@dataclass(frozen=True)
class View:
    """Where the camera stands in a file, in its unit; `fov` is the vertical angle in degrees. `up` is the file's."""

    eye: list[float]
    target: list[float]
    up: list[float]
    fov: float
    reach: float  # a length about as large as the scene


def last(events: Generator[Any, None, Any]) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def stage(folder: Path, cache: Path) -> Stage:
    run = Run(folder)
    field, _ = load_field(run, "cpu")
    cameras, held_out = run.cameras()
    assert held_out[VIEW], "the gallery looks from a photo that was not learned from"
    seen_from = cameras[VIEW].resize(torch.tensor([SIZE]))
    if cache.exists():
        assets = torch.load(cache, weights_only=False)
    else:
        seen_by = cameras[~held_out]
        assets = {
            "splats": field.splats(),
            "mesh": last(extract_mesh(field, seen_by)),
            "points": last(extract_points(field, seen_by)),
        }
        torch.save(assets, cache)
    with torch.no_grad():
        rgb = field.render(seen_from, None).rgb[0].clamp(0, 1)
    picture = (rgb * 255).round().to(torch.uint8).numpy()
    return Stage(run, assets, World(up_direction(cameras), metres_per_unit(run)), seen_from, picture)


def write(stage: Stage, case: Case, folder: Path) -> tuple[ExportReport, View, Asset]:
    """The report, the camera as the file has it, and the asset in the file's coordinates."""
    out = case.path(folder)
    asset = stage.assets[case.kind]
    file_format = registry.format_for(out, type(asset))
    options, _ = settings_of(file_format, case.kind, None, case.settings)  # type: ignore[arg-type]
    request = ExportRequest(run=stage.run.path, out=out, kind=case.kind, frame="upright")  # type: ignore[arg-type]
    placed = placement(asset, stage.world, file_format, options, request)
    laid = asset.transform(placed.file_from_capture)
    report = last(written(laid, out, file_format, options, placed))
    return report, _view(stage, placed), laid


def _view(stage: Stage, placed: Any) -> View:
    pose = stage.camera.world_from_cam[0].double()
    ends = torch.stack([pose[:, 3], pose[:, 3] + pose[:, 2]])
    eye, target = placed.file_from_capture.points(ends)
    up = direction(placed.up)
    # The file's own up must be that of the room within the degree by which photos are held askew.
    above = placed.file_from_capture.rotation @ stage.world.up.double()
    assert float(up @ above) > 0.999, f"{placed.up} is not up in the file"
    # Held by hand: the picture's vertical is not the room's.
    vertical = placed.file_from_capture.rotation @ -pose[:, 1]
    height = SIZE[1] / 2
    fov = 2 * float(torch.rad2deg(torch.atan(height / stage.camera.focal[0, 1])))
    return View(eye.tolist(), target.tolist(), vertical.tolist(), fov, 4 * placed.file_from_capture.scale)


def likeness(a: Any, b: Any) -> float:
    """PSNR in dB of two pictures."""
    error = ((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def opened_picture(path: Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))
