"""Assets of the gallery: each kind is extracted once, then placed and written like `lumigraph export`."""

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
from lumigraph.studio.exporting import metres_per_unit, resolve_settings, write_verified
from lumigraph.studio.orientation import World, direction, placement
from lumigraph.studio.run import Run
from lumigraph.studio.training import load_field
from lumigraph.wire.events import ExportReport
from lumigraph.wire.requests import ExportRequest
from tests.formats.gallery.cases import Case

VIEW_INDEX = 32  # index of the held-out photo whose camera renders all images
IMAGE_SIZE = (320, 240)
TYPES: dict[str, type] = {"splats": Splats, "mesh": Mesh, "points": Points}


@dataclass(frozen=True)
class Stage:
    """Assets of all files, and the camera of the images."""

    run: Run
    assets: dict[str, Asset]
    world: World
    camera: Cameras  # a batch of one, with IMAGE_SIZE
    picture: Any  # (H, W, 3) uint8: our render of the field


@dataclass(frozen=True)
class View:
    """Camera in the coordinates and unit of a file; `fov` is the vertical angle in degrees."""

    eye: list[float]
    target: list[float]
    up: list[float]
    fov: float
    reach: float  # approximate size of the scene


def exhaust(events: Generator[Any, None, Any]) -> Any:
    """Run a generator to its end; returns its return value."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def stage(folder: Path, cache: Path) -> Stage:
    run = Run(folder)
    field, _ = load_field(run, "cpu")
    cameras, held_out = run.cameras()
    assert held_out[VIEW_INDEX], "the gallery needs a held-out photo"
    camera = cameras[VIEW_INDEX].resize(torch.tensor([IMAGE_SIZE]))
    if cache.exists():
        assets = torch.load(cache, weights_only=False)
    else:
        training_cameras = cameras[~held_out]
        assets = {
            "splats": field.splats(),
            "mesh": exhaust(extract_mesh(field, training_cameras)),
            "points": exhaust(extract_points(field, training_cameras)),
        }
        torch.save(assets, cache)
    with torch.no_grad():
        rgb = field.render(camera, None).rgb[0].clamp(0, 1)
    picture = (rgb * 255).round().to(torch.uint8).numpy()
    return Stage(run, assets, World(up_direction(cameras), metres_per_unit(run)), camera, picture)


def write(stage: Stage, case: Case, folder: Path) -> tuple[ExportReport, View, Asset]:
    """Write a file; returns the report, the camera and the asset in the coordinates of the file."""
    out = case.path(folder)
    asset = stage.assets[case.kind]
    file_format = registry.format_for(out, type(asset))
    options, _ = resolve_settings(file_format, case.kind, None, case.settings)  # type: ignore[arg-type]
    request = ExportRequest(run=stage.run.path, out=out, kind=case.kind, frame="upright")  # type: ignore[arg-type]
    placement_in_file = placement(asset, stage.world, file_format, options, request)
    file_asset = asset.transform(placement_in_file.file_from_capture)
    report = exhaust(write_verified(file_asset, out, file_format, options, placement_in_file))
    return report, _view(stage, placement_in_file), file_asset


def _view(stage: Stage, placement_in_file: Any) -> View:
    pose = stage.camera.world_from_cam[0].double()
    points = torch.stack([pose[:, 3], pose[:, 3] + pose[:, 2]])
    eye, target = placement_in_file.file_from_capture.points(points)
    up = direction(placement_in_file.up)
    # The up axis of the file must match the scene within the degree by which photos are tilted.
    up_in_file = placement_in_file.file_from_capture.rotation @ stage.world.up.double()
    assert float(up @ up_in_file) > 0.999, f"{placement_in_file.up} is not up in the file"
    # A handheld camera is tilted: the vertical of the image is not that of the scene.
    vertical = placement_in_file.file_from_capture.rotation @ -pose[:, 1]
    height = IMAGE_SIZE[1] / 2
    fov = 2 * float(torch.rad2deg(torch.atan(height / stage.camera.focal[0, 1])))
    return View(eye.tolist(), target.tolist(), vertical.tolist(), fov, 4 * placement_in_file.file_from_capture.scale)


def likeness(a: Any, b: Any) -> float:
    """PSNR in dB of two images."""
    error = ((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def load_image(path: Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))
