"""The verb `export`: write a run in a file format, then read the file back and compare it."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from lumigraph.extract.mesh import MeshConfig, extract_mesh
from lumigraph.extract.points import PointsConfig, extract_points
from lumigraph.extract.voxels import VoxelsConfig, extract_voxels
from lumigraph.formats.chunked import Stream
from lumigraph.formats.io import collect_new_files
from lumigraph.scene.assets import Asset, Mesh, Points, Splats, Voxels
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import FormatError, RunError
from lumigraph.scene.field import Field
from lumigraph.scene.poses import up_direction
from lumigraph.studio import config_schema, registry
from lumigraph.studio.inspecting import Scene, as_stream, bounds_of, corners_of, describe_scene, kind_of, open_scene
from lumigraph.studio.orientation import Placement, World, direction, placement, turn
from lumigraph.studio.progress import report_progress
from lumigraph.studio.registry import Format
from lumigraph.studio.run import Run, write_text
from lumigraph.studio.training import load_field
from lumigraph.wire.events import ArtifactWritten, Event, ExportReport, Note
from lumigraph.wire.requests import AssetKind, ExportRequest, Scalar, ScaleRequest

SCALE_FILE = "scale.json"
MIN_CENTRE_OPACITY = 0.1  # fainter gaussians are haze: their centres lie on no surface
TYPES: dict[AssetKind, type] = {"splats": Splats, "mesh": Mesh, "points": Points, "centres": Points, "voxels": Voxels}
EXTRACTION_CONFIGS: dict[AssetKind, type] = {
    "mesh": MeshConfig,
    "points": PointsConfig,
    "voxels": VoxelsConfig,
}
COUNT_SUFFIXES = ((10**6, "M"), (10**3, "k"), (1, ""))  # in file names
NOUNS = {Splats: "gaussians", Mesh: "triangles", Points: "points", Voxels: "voxels"}
MAX_BOUNDS_ERROR = 0.005  # of the extent, when read back: the coarsest format has 12 bits a chunk
PRESETS: dict[str, dict[AssetKind, dict[str, Scalar]]] = {
    "web": {
        "mesh": {"faces": 30_000, "texture": 1024, "texture_format": "jpeg", "compression": "draco"},
        "points": {"count": 500_000, "compression": "meshopt"},
    },
    "game": {"mesh": {"faces": 15_000, "texture": 2048, "part": 0.1}},
    "print": {"mesh": {"faces": 500_000, "texture": 0, "unseen": "inside", "watertight": True, "part": 0.5}},
    "archive": {
        "mesh": {"resolution": 512, "faces": 200_000, "texture": 4096, "texture_format": "png", "compression": "none"},
        "points": {"count": 10_000_000},
    },
}


def export(request: ExportRequest) -> Generator[Event, None, ExportReport]:
    """Export a run to a file; its suffix chooses the format. Raises FormatError, RunError and OSError."""
    file_format = registry.format_for(request.out)
    run = Run(request.run)
    field, card = load_field(run, "cpu")
    kind = request.kind or _default_kind(file_format, field)
    file_format = registry.format_for(request.out, TYPES[kind])
    format_options, extraction_config = resolve_settings(file_format, kind, request.preset, request.settings)
    if getattr(extraction_config, "levels", ()) and not suffix_of(file_format, request.out).startswith("."):
        raise RunError(f"{file_format.NAME} has its own levels of detail; leave out levels")
    cameras, held_out = run.cameras()
    world = World(up_direction(cameras), metres_per_unit(run))
    if kind == "voxels":  # a grid is rotated upright before it is filled
        upright = None if request.frame == "capture" else turn(world.up.double(), direction(file_format.UP))
        asset: Asset = yield from extract_voxels(field, cameras[~held_out], extraction_config, upright)
    else:
        asset = yield from _extract(kind, field, cameras[~held_out], extraction_config, card.method, request.out)
    target = placement(asset, world, file_format, format_options, request)
    if target.metres_per_unit is None and (file_format.METRES is not None or hasattr(format_options, "unit")):
        yield Note(
            text="the scale of this run is unknown, so one unit counts as a metre; set it with `lumigraph scale`"
        )
    asset = asset.transform(target.file_from_capture)
    for count in getattr(extraction_config, "levels", ()):
        yield from _write_level(cast(Points, asset), count, request.out, file_format, format_options, target)
    return (yield from write_verified(asset, request.out, file_format, format_options, target))


def resolve_settings(
    file_format: Format, kind: AssetKind, preset: str | None, settings: Mapping[str, object]
) -> tuple[Any, Any]:
    """Return (options of the format, config of the extraction or None). Settings of a preset that do not apply are
    skipped. Raises RunError if neither has one of the `settings`."""
    config = EXTRACTION_CONFIGS.get(kind)
    format_names = {field.name for field in fields(file_format.Options)}
    extraction_names = {field.name for field in fields(config)} if config else set()
    names = format_names | extraction_names
    preset_values = PRESETS[preset].get(kind, {}) if preset else {}
    values: dict[str, object] = {name: value for name, value in preset_values.items() if name in names}
    values |= {name.replace("-", "_"): value for name, value in settings.items()}
    for name in values.keys() - names:
        raise RunError(
            f"{file_format.NAME} of {kind} has no setting {name!r}; settings: {', '.join(sorted(names)) or 'none'}"
        )
    format_values = {name: value for name, value in values.items() if name in format_names}
    extraction_values = {name: value for name, value in values.items() if name in extraction_names}
    options = config_schema.resolve(file_format.Options, format_values)
    return options, config_schema.resolve(config, extraction_values) if config else None


def setting_groups(out: Path, kind: str | None, of_run: bool) -> list[tuple[str, type]]:
    """Return (title, settings) groups for an output file: those of its format and, for a run, of the extraction.

    Raises FormatError.
    """
    file_format = registry.format_for(out)
    if kind is None:
        kind = next(name for name, asset_type in TYPES.items() if asset_type is file_format.HOLDS[0])
    file_format = registry.format_for(out, TYPES[cast(AssetKind, kind)])
    groups = [(f"settings of {file_format.NAME}", file_format.Options)]
    config = EXTRACTION_CONFIGS.get(cast(AssetKind, kind)) if of_run else None
    return [*groups, (f"settings of the {kind}", config)] if config else groups


def forms() -> list[dict[str, Any]]:
    """Describe every export format as plain data: its name, the kinds that it holds and their settings.

    [{"form": "ply", "name", "kinds": [{"kind": "splats", "settings": [...], "presets": {...}}, ...]}, ...]
    """
    descriptions = []
    for suffix in registry.suffixes():
        writers = registry.writers(suffix)
        kinds: list[tuple[AssetKind, dict[str, Any]]] = []
        for kind, asset_type in TYPES.items():
            writer = next((writer for writer in writers if asset_type in writer.HOLDS), None)
            if writer is None:
                continue
            config = EXTRACTION_CONFIGS.get(kind)
            settings = config_schema.schema(writer.Options) + (config_schema.schema(config) if config else [])
            names = {setting["name"] for setting in settings}
            presets = {
                preset: {name: value for name, value in values.get(kind, {}).items() if name in names}
                for preset, values in PRESETS.items()
            }
            description = {"kind": kind, "settings": settings, "presets": {k: v for k, v in presets.items() if v}}
            kinds.append((kind, description))
        default_type = writers[0].HOLDS[0]
        kinds.sort(key=lambda item: TYPES[item[0]] is not default_type)  # the most common choice first
        kind_descriptions = [description for _, description in kinds]
        form = suffix.removeprefix(".")
        descriptions.append({"form": form, "name": writers[0].NAME, "kinds": kind_descriptions})
    return descriptions


def write_verified(
    scene: Asset | Stream, out: Path, file_format: Format, options: Any, target: Placement
) -> Generator[Event, None, ExportReport]:
    """Write a scene, read it back and compare. If it differs, all new files are deleted and FormatError is raised."""
    out.parent.mkdir(parents=True, exist_ok=True)
    new_files: list[Path] = []
    scene = scene if isinstance(scene, Stream) else as_stream(scene)
    if isinstance(scene, Stream) and hasattr(file_format, "write_stream"):
        shares = file_format.write_stream(scene, out, options)
        yield from report_progress(shares, "write", len(scene), NOUNS[kind_of(scene)])
    else:
        asset = scene.gather() if isinstance(scene, Stream) else scene
        with collect_new_files() as new_files:
            file_format.write(asset, out, options)
        scene = as_stream(asset)
    reread = None
    if hasattr(file_format, "read"):
        try:
            reread = open_scene(file_format, out)
            if isinstance(reread, Stream):
                yield from report_progress(reread.iterate_progress(), "check", len(reread), NOUNS[kind_of(reread)])
            _compare(scene, reread, out)
        except FormatError as error:
            for path in (out, *new_files):
                path.unlink(missing_ok=True)
            raise FormatError(f"{error}; this is a bug of Lumigraph: please report it") from error
    file_scene = scene if reread is None else reread
    is_mesh = isinstance(file_scene, Mesh)
    properties: dict[str, Any] = describe_scene(file_scene) if is_mesh else {"bounds": bounds_of(file_scene)}
    similarity = target.file_from_capture
    matrix = torch.cat([similarity.scale * similarity.rotation, similarity.translation[:, None]], dim=1)
    report = ExportReport(
        path=str(out),
        format=file_format.NAME,
        holds=NOUNS[kind_of(scene)],
        count=len(scene),
        bytes=out.stat().st_size,
        read_back=reread is not None,
        bounds=properties["bounds"],
        watertight=properties.get("watertight"),
        textured=properties.get("textured"),
        up=target.up,
        metres_per_unit=target.metres_per_unit,
        file_from_capture=tuple(map(tuple, matrix.tolist())),
    )
    yield report
    yield ArtifactWritten(path=str(out), what=_format_count(scene))
    return report


def scale(request: ScaleRequest) -> Generator[Event, None, float]:
    """Set the scale of a run for all later exports. Returns metres per unit."""
    run, metres = Run(request.run), request.metres
    if request.points is not None:
        a, b = (torch.tensor(point, dtype=torch.float64) for point in request.points)
        distance = float((a - b).norm())
        if not distance > 0:
            raise RunError("the two points are equal; pass two points at a known distance")
        metres /= distance
    write_text(run.path / SCALE_FILE, json.dumps({"metres_per_unit": metres}) + "\n")
    yield Note(text=f"one unit of {run.path} is {metres:.6g} m")
    return metres


def metres_per_unit(run: Run) -> float | None:
    """Return the scale that `scale` set, or None. Raises RunError if its file is damaged."""
    try:
        metres = float(json.loads((run.path / SCALE_FILE).read_bytes())["metres_per_unit"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{run.path / SCALE_FILE} is damaged; set the scale again with `lumigraph scale`") from error
    if not 0 < metres < float("inf"):
        raise RunError(f"{run.path / SCALE_FILE} is damaged; set the scale again with `lumigraph scale`")
    return metres


# ---- helpers


def _default_kind(file_format: Format, field: Field) -> AssetKind:
    """Return the first kind of the format that the field provides."""
    for asset_type in file_format.HOLDS:
        if asset_type is not Splats or hasattr(field, "splats"):
            return next(kind for kind, kind_type in TYPES.items() if kind_type is asset_type)
    return "splats"


def _extract(
    kind: AssetKind, field: Field, cameras: Cameras, config: Any, method: str, out: Path
) -> Generator[Event, None, Asset]:
    if kind == "mesh":
        return (yield from extract_mesh(field, cameras, config))
    if kind == "points":
        return (yield from extract_points(field, cameras, config))
    if not hasattr(field, "splats"):
        raise FormatError(f"{out}: the method {method} has no gaussians; add --as mesh or --as points")
    splats: Splats = field.splats()
    return splats if kind == "splats" else centres(splats)


def suffix_of(file_format: Format, out: Path) -> str:
    return next(suffix for suffix in file_format.SUFFIXES if out.name.lower().endswith(suffix))


def _write_level(
    points: Points, count: int, out: Path, file_format: Format, options: Any, target: Placement
) -> Generator[Event, None, None]:
    """Write the first `count` points to NAME-100k.EXT next to NAME.EXT."""
    suffix = suffix_of(file_format, out)
    label = next(f"{count // unit}{letter}" for unit, letter in COUNT_SUFFIXES if count % unit == 0)
    level_file = out.with_name(f"{out.name[: -len(suffix)]}-{label}{out.name[-len(suffix) :]}")
    if count >= len(points):
        yield Note(text=f"{level_file.name} is not written: there are only {len(points):,} points")
        return
    for event in write_verified(points.select(torch.arange(count)), level_file, file_format, options, target):
        if not isinstance(event, ArtifactWritten | ExportReport):  # the export has one of each
            yield event
    yield Note(text=f"{level_file.name}: {count:,} points")


def centres(splats: Splats) -> Points:
    """Return centres and colours of the gaussians above a minimum opacity."""
    visible = splats.select(torch.sigmoid(splats.logit_opacities) >= MIN_CENTRE_OPACITY)
    return Points(visible.means, (visible.colours().clamp(0, 1) * 255).round().to(torch.uint8))


def _compare(scene: Scene, reread: Scene, out: Path) -> None:
    """Compare a scene with the file read back. Raises FormatError naming the first difference."""
    if kind_of(reread) is not kind_of(scene) or len(reread) != len(scene):
        raise FormatError(f"{out}: {_format_count(scene)} were written and {_format_count(reread)} read back")
    if not len(scene):
        return
    before, after = _inner_bounds(scene), _inner_bounds(reread)
    relative_error = float((before - after).abs().amax() / (before[1] - before[0]).amax().clamp(min=1e-30))
    if not relative_error <= MAX_BOUNDS_ERROR:
        raise FormatError(
            f"{out}: the bounds read back differ from those written by {100 * relative_error:.2g} % of the extent"
        )


def _inner_bounds(scene: Scene) -> Tensor:
    """Return (2, 3) bounds without outliers: formats clip gaussians that are much farther away than all others."""
    return (scene.extent.inner if isinstance(scene, Stream) else corners_of(scene)).double()


def _format_count(scene: Scene) -> str:
    return f"{len(scene):,} {NOUNS[kind_of(scene)]}"


__all__ = ["PRESETS", "export", "metres_per_unit", "resolve_settings", "scale", "write_verified"]
