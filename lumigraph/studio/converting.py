"""From one file of a scene to another, without a run."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import torch

from lumigraph.formats.chunked import Stream
from lumigraph.scene.assets import Points, Splats, Voxels
from lumigraph.scene.errors import FormatError
from lumigraph.scene.poses import Similarity
from lumigraph.studio import config_schema, registry
from lumigraph.studio.exporting import NOUNS, centres, written
from lumigraph.studio.inspecting import Scene, kind_of, opened
from lumigraph.studio.orientation import UNITS, Placement, direction, turn
from lumigraph.studio.progress import report_progress
from lumigraph.studio.registry import Format
from lumigraph.wire.events import ArtifactWritten, Event, ExportReport, Note
from lumigraph.wire.requests import ConvertRequest


def convert(request: ConvertRequest) -> Generator[Event, None, ExportReport | None]:
    """A file as one of another format: what is up in the one is up in the other, and metres stay metres, where both
    say so. Or a capture as a folder that other trainers begin from. Raises LumigraphError."""
    if registry.reader_for(request.source) is not None:
        yield from _dataset(request)
        return None
    reader = registry.asset_reader(request.source)
    registry.format_for(request.out)  # says what is wrong before a large file is read
    scene = opened(reader, request.source)
    kind = kind_of(scene)
    yield Note(text=f"{request.source.name}: {len(scene):,} {NOUNS[kind]}")
    writer = _writer(kind, request)
    if isinstance(scene, Stream) and kind not in writer.HOLDS:
        scene = yield from _centres(scene)
        yield Note(text=f"{writer.NAME} holds no gaussians: their {len(scene):,} centres are written as points")
    if isinstance(scene, Voxels) and kind not in writer.HOLDS:
        scene = Stream.from_asset(scene)  # their middles, as points
    chosen = config_schema.resolve(writer.Options, {k.replace("-", "_"): v for k, v in request.settings.items()})
    placed = _turned(reader, writer, chosen, kind_of(scene) is Splats, request.keep_axes)
    return (yield from written(_moved(scene, placed), request.out, writer, chosen, placed))


def _dataset(request: ConvertRequest) -> Generator[Event, None, None]:
    from lumigraph.captures.writers import write_colmap, write_transforms

    capture = registry.capture_reader(request.source).read(request.source)
    if request.dataset == "colmap":
        yield from write_colmap.write(capture, request.out)
    else:
        yield from write_transforms.write(capture, request.out)
    yield ArtifactWritten(path=str(request.out), what=f"{len(capture)} photos with their poses")


def _centres(splats: Stream) -> Generator[Event, None, Stream]:
    """Those that can be seen, of gaussians; they are counted first, since most files begin with how many there are."""

    count = passed = 0

    def shown(batch: Any) -> Points:
        return centres(batch)

    def counted() -> Iterator[float]:
        nonlocal count, passed
        for batch in splats.batches():
            count, passed = count + len(shown(batch)), passed + len(batch)
            yield passed / len(splats)

    yield from report_progress(counted(), "count", len(splats), NOUNS[Splats])
    return splats.map_batches(shown, count)


def _moved(scene: Scene, placed: Placement) -> Scene:
    moved = placed.file_from_capture
    if moved.scale == 1 and moved.rotation.equal(torch.eye(3, dtype=torch.float64)):
        return scene  # bit for bit
    if isinstance(scene, Stream):
        return scene.map_batches(lambda batch: batch.transform(moved))
    return scene.transform(moved)


def _writer(kind: type, request: ConvertRequest) -> Format:
    """One that holds what was read; of gaussians and voxels, one that holds points will do."""
    try:
        return registry.format_for(request.out, kind)
    except FormatError:
        if kind not in (Splats, Voxels) or not any(Points in one.HOLDS for one in registry.writers(request.out.name)):
            raise
    return registry.format_for(request.out, Points)


def _turned(reader: Format, writer: Format, chosen: object, splats: bool, keep_axes: bool) -> Placement:
    """Points and meshes in a PLY say nothing of their axes: those stay."""
    up = getattr(chosen, "up", None)
    target = f"+{up}" if up is not None else writer.UP
    source = reader.UP
    silent = not splats and "-y" in (source, target)
    unit = UNITS.get(getattr(chosen, "unit", ""), writer.METRES or 0.0)
    scale = reader.METRES / unit if reader.METRES and unit and not keep_axes else 1.0
    still = torch.eye(3, dtype=torch.float64)
    rotation = still if keep_axes or silent else turn(direction(source), direction(target))
    return Placement(
        Similarity(scale, rotation, torch.zeros(3, dtype=torch.float64)),
        source if keep_axes or silent else target,
        unit or None if reader.METRES else None,
    )
