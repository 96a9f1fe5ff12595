"""The verb `export`: a run as a file of another program, read back and compared before anybody relies on it."""

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
from lumigraph.studio.inspecting import Scene, batched, bounds_of, ends_of, facts, kind_of, opened
from lumigraph.studio.orientation import Placement, World, direction, placement, turn
from lumigraph.studio.progress import report_progress
from lumigraph.studio.registry import Format
from lumigraph.studio.run import Run, write_text
from lumigraph.studio.training import load_field
from lumigraph.wire.events import ArtifactWritten, Event, ExportReport, Note
from lumigraph.wire.requests import AssetKind, ExportRequest, Scalar, ScaleRequest

SCALE = "scale.json"
FAINTEST_POINT = 0.1  # opacity; below it a gaussian is haze, and its centre no point of anything
TYPES: dict[AssetKind, type] = {"splats": Splats, "mesh": Mesh, "points": Points, "centres": Points, "voxels": Voxels}
CONFIGS: dict[AssetKind, type] = {
    "mesh": MeshConfig,
    "points": PointsConfig,
    "voxels": VoxelsConfig,
}  # of what is made of a field before it is written
UNITS = ((10**6, "M"), (10**3, "k"), (1, ""))  # of a number in the name of a file
NOUNS = {Splats: "gaussians", Mesh: "triangles", Points: "points", Voxels: "voxels"}
# Bounds of what was read back may differ by this share of the extent: the coarsest format has 12 bits a chunk.
TOLERANCE = 0.005
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
    """Raises FormatError, RunError and OSError. The suffix chooses the format."""
    file_format = registry.format_for(request.out)
    run = Run(request.run)
    field, card = load_field(run, "cpu")
    kind = request.kind or _kind(file_format, field)
    file_format = registry.format_for(request.out, TYPES[kind])
    of_format, of_asset = settings_of(file_format, kind, request.preset, request.settings)
    if getattr(of_asset, "levels", ()) and not suffix_of(file_format, request.out).startswith("."):
        raise RunError(f"{file_format.NAME} has its own levels of detail; leave out levels")
    cameras, held_out = run.cameras()
    world = World(up_direction(cameras), metres_per_unit(run))
    if kind == "voxels":  # a grid is laid upright before it is filled
        upright = None if request.frame == "capture" else turn(world.up.double(), direction(file_format.UP))
        asset: Asset = yield from extract_voxels(field, cameras[~held_out], of_asset, upright)
    else:
        asset = yield from _made(kind, field, cameras[~held_out], of_asset, card.method, request.out)
    placed = placement(asset, world, file_format, of_format, request)
    if placed.metres_per_unit is None and (file_format.METRES is not None or hasattr(of_format, "unit")):
        yield Note(text="nobody said how large this place is, so a unit counts as a metre; `lumigraph scale` says it")
    asset = asset.transform(placed.file_from_capture)
    for count in getattr(of_asset, "levels", ()):
        yield from _coarser(cast(Points, asset), count, request.out, file_format, of_format, placed)
    return (yield from written(asset, request.out, file_format, of_format, placed))


def settings_of(
    file_format: Format, kind: AssetKind, preset: str | None, given: Mapping[str, object]
) -> tuple[Any, Any]:
    """(Options of the format, settings of what is made for it or None). Raises RunError naming a setting that neither
    has; what a preset says of others is passed over."""
    config = CONFIGS.get(kind)
    of_format = {field.name for field in fields(file_format.Options)}
    of_asset = {field.name for field in fields(config)} if config else set()
    usual = PRESETS[preset].get(kind, {}) if preset else {}
    asked: dict[str, object] = {name: value for name, value in usual.items() if name in of_format | of_asset}
    asked |= {name.replace("-", "_"): value for name, value in given.items()}
    for name in asked.keys() - of_format - of_asset:
        known = ", ".join(sorted(of_format | of_asset)) or "none"
        raise RunError(f"{file_format.NAME} of {kind} has no setting {name!r}; settings: {known}")
    chosen = config_schema.resolve(
        file_format.Options, {name: value for name, value in asked.items() if name in of_format}
    )
    made = {name: value for name, value in asked.items() if name in of_asset}
    return chosen, config_schema.resolve(config, made) if config else None


def offered(out: Path, kind: str | None, of_run: bool) -> list[tuple[str, type]]:
    """(title, settings) that can be chosen for a file: of its format, and of what is made of a run for it. Raises
    FormatError."""
    file_format = registry.format_for(out)
    if kind is None:
        kind = next(name for name, made in TYPES.items() if made is file_format.HOLDS[0])
    file_format = registry.format_for(out, TYPES[cast(AssetKind, kind)])
    groups = [(f"settings of {file_format.NAME}", file_format.Options)]
    config = CONFIGS.get(cast(AssetKind, kind)) if of_run else None
    return [*groups, (f"settings of the {kind}", config)] if config else groups


def forms() -> list[dict[str, Any]]:
    """Every form that a run can be exported to, as plain data: its name, what it can hold and with which settings.

    [{"form": "ply", "name", "kinds": [{"kind": "splats", "settings": [...], "presets": {...}}, ...]}, ...]
    """
    found = []
    for suffix in registry.suffixes():
        writers = registry.writers(suffix)
        kinds: list[tuple[AssetKind, dict[str, Any]]] = []
        for kind, made in TYPES.items():
            writer = next((one for one in writers if made in one.HOLDS), None)
            if writer is None:
                continue
            config = CONFIGS.get(kind)
            given = config_schema.schema(writer.Options) + (config_schema.schema(config) if config else [])
            names = {setting["name"] for setting in given}
            presets = {
                preset: {name: value for name, value in usual.get(kind, {}).items() if name in names}
                for preset, usual in PRESETS.items()
            }
            said = {"kind": kind, "settings": given, "presets": {k: v for k, v in presets.items() if v}}
            kinds.append((kind, said))
        first = writers[0].HOLDS[0]
        kinds.sort(key=lambda one: TYPES[one[0]] is not first)  # what people most often want of it
        found.append({"form": suffix.removeprefix("."), "name": writers[0].NAME, "kinds": [said for _, said in kinds]})
    return found


def written(
    scene: Asset | Stream, out: Path, file_format: Format, chosen: Any, placed: Placement
) -> Generator[Event, None, ExportReport]:
    """Write and read back. Raises FormatError, and takes the file and what came with it away, where it is not what was
    to be written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    scene = scene if isinstance(scene, Stream) else batched(scene)
    if isinstance(scene, Stream) and hasattr(file_format, "write_stream"):
        shares = file_format.write_stream(scene, out, chosen)
        yield from report_progress(shares, "write", len(scene), NOUNS[kind_of(scene)])
    else:
        asset = scene.gather() if isinstance(scene, Stream) else scene
        with collect_new_files() as made:
            file_format.write(asset, out, chosen)
        scene = batched(asset)
    again = None
    if hasattr(file_format, "read"):
        try:
            again = opened(file_format, out)
            if isinstance(again, Stream):
                yield from report_progress(again.iterate_progress(), "check", len(again), NOUNS[kind_of(again)])
            _compare(scene, again, out)
        except FormatError as error:
            for path in (out, *made):
                path.unlink(missing_ok=True)
            raise FormatError(f"{error}; this is a fault of Lumigraph: please report it") from error
    found = scene if again is None else again
    said: dict[str, Any] = facts(found) if isinstance(found, Mesh) else {"bounds": bounds_of(found)}
    similarity = placed.file_from_capture
    matrix = torch.cat([similarity.scale * similarity.rotation, similarity.translation[:, None]], dim=1)
    report = ExportReport(
        path=str(out),
        format=file_format.NAME,
        holds=NOUNS[kind_of(scene)],
        count=len(scene),
        bytes=out.stat().st_size,
        read_back=again is not None,
        bounds=said["bounds"],
        watertight=said.get("watertight"),
        textured=said.get("textured"),
        up=placed.up,
        metres_per_unit=placed.metres_per_unit,
        file_from_capture=tuple(map(tuple, matrix.tolist())),
    )
    yield report
    yield ArtifactWritten(path=str(out), what=_told(scene))
    return report


def scale(request: ScaleRequest) -> Generator[Event, None, float]:
    """How large the place of a run is, for every file made of it from now on. Returns metres in a unit."""
    run, metres = Run(request.run), request.metres
    if request.points is not None:
        a, b = (torch.tensor(point, dtype=torch.float64) for point in request.points)
        length = float((a - b).norm())
        if not length > 0:
            raise RunError("the two points are one; give two places whose distance you know")
        metres /= length
    write_text(run.path / SCALE, json.dumps({"metres_per_unit": metres}) + "\n")
    yield Note(text=f"one unit of {run.path} is {metres:.6g} m")
    return metres


def metres_per_unit(run: Run) -> float | None:
    """As `scale` said it. Raises RunError where the file is damaged."""
    try:
        said = float(json.loads((run.path / SCALE).read_bytes())["metres_per_unit"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{run.path / SCALE} is damaged; say again how large the place is, by `lumigraph scale`"
        ) from error
    if not 0 < said < float("inf"):
        raise RunError(f"{run.path / SCALE} is damaged; say again how large the place is, by `lumigraph scale`")
    return said


# ---- parts of them


def _kind(file_format: Format, field: Field) -> AssetKind:
    """What people most often want of this format, and the method can give."""
    for held in file_format.HOLDS:
        if held is not Splats or hasattr(field, "splats"):
            return next(kind for kind, made in TYPES.items() if made is held)
    return "splats"


def _made(
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


def _coarser(
    points: Points, count: int, out: Path, file_format: Format, chosen: Any, placed: Placement
) -> Generator[Event, None, None]:
    """The first `count` points, as NAME-100k.EXT beside NAME.EXT."""
    suffix = suffix_of(file_format, out)
    short = next(f"{count // unit}{letter}" for unit, letter in UNITS if count % unit == 0)
    beside = out.with_name(f"{out.name[: -len(suffix)]}-{short}{out.name[-len(suffix) :]}")
    if count >= len(points):
        yield Note(text=f"{beside.name} is not written: there are no more than {len(points):,} points")
        return
    for event in written(points.select(torch.arange(count)), beside, file_format, chosen, placed):
        if not isinstance(event, ArtifactWritten | ExportReport):  # those are of the whole
            yield event
    yield Note(text=f"{beside.name}: {count:,} points")


def centres(splats: Splats) -> Points:
    """Centres and colours of the gaussians that can be seen."""
    shown = splats.select(torch.sigmoid(splats.logit_opacities) >= FAINTEST_POINT)
    return Points(shown.means, (shown.colours().clamp(0, 1) * 255).round().to(torch.uint8))


def _compare(scene: Scene, again: Scene, out: Path) -> None:
    """Raises FormatError naming the first difference."""
    if kind_of(again) is not kind_of(scene) or len(again) != len(scene):
        raise FormatError(f"{out}: {_told(scene)} were written and {_told(again)} came back")
    if not len(scene):
        return
    before, after = _ends(scene), _ends(again)
    off = float((before - after).abs().amax() / (before[1] - before[0]).amax().clamp(min=1e-30))
    if not off <= TOLERANCE:
        raise FormatError(f"{out}: what came back reaches {100 * off:.2g} % of its extent beyond what was written")


def _ends(scene: Scene) -> Tensor:
    """(2, 3), without the outermost: formats clip gaussians that are much farther away than all others."""
    return (scene.extent.inner if isinstance(scene, Stream) else ends_of(scene)).double()


def _told(scene: Scene) -> str:
    return f"{len(scene):,} {NOUNS[kind_of(scene)]}"


__all__ = ["PRESETS", "export", "metres_per_unit", "scale", "settings_of", "written"]
