"""The verb `convert`: convert one scene file to another, without a run."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import torch

from lumigraph.formats.chunked import Stream
from lumigraph.scene.assets import Points, Splats, Voxels
from lumigraph.scene.errors import FormatError
from lumigraph.scene.poses import Similarity
from lumigraph.studio import config_schema, registry
from lumigraph.studio.exporting import NOUNS, centres, write_verified
from lumigraph.studio.inspecting import Scene, kind_of, open_scene
from lumigraph.studio.orientation import METRES_PER_UNIT, Placement, direction, turn
from lumigraph.studio.progress import report_progress
from lumigraph.studio.registry import Format
from lumigraph.wire.events import ArtifactWritten, Event, ExportReport, Note
from lumigraph.wire.requests import ConvertRequest


def convert(request: ConvertRequest) -> Generator[Event, None, ExportReport | None]:
    """Convert a scene file to another format, or a capture to a dataset for other trainers. The up axis and metres are
    preserved if both formats define them. Raises LumigraphError."""
    if registry.reader_for(request.source) is not None:
        yield from _dataset(request)
        return None
    reader = registry.asset_reader(request.source)
    registry.format_for(request.out)  # fails before a large file is read
    scene = open_scene(reader, request.source)
    kind = kind_of(scene)
    yield Note(text=f"{request.source.name}: {len(scene):,} {NOUNS[kind]}")
    writer = _choose_writer(kind, request)
    if isinstance(scene, Stream) and kind not in writer.HOLDS:
        scene = yield from _stream_centres(scene)
        yield Note(text=f"{writer.NAME} holds no gaussians: their {len(scene):,} centres are written as points")
    if isinstance(scene, Voxels) and kind not in writer.HOLDS:
        scene = Stream.from_asset(scene)  # voxel centres as points
    options = config_schema.resolve(writer.Options, {k.replace("-", "_"): v for k, v in request.settings.items()})
    target = _find_placement(reader, writer, options, kind_of(scene) is Splats, request.keep_axes)
    return (yield from write_verified(_transform(scene, target), request.out, writer, options, target))


def _dataset(request: ConvertRequest) -> Generator[Event, None, None]:
    from lumigraph.captures.writers import write_colmap, write_transforms

    capture = registry.capture_reader(request.source).read(request.source)
    if request.dataset == "colmap":
        yield from write_colmap.write(capture, request.out)
    else:
        yield from write_transforms.write(capture, request.out)
    yield ArtifactWritten(path=str(request.out), what=f"{len(capture)} photos with their poses")


def _stream_centres(splats: Stream) -> Generator[Event, None, Stream]:
    """Return the centres of visible gaussians. They are counted first, since most files begin with their count."""

    count = read_count = 0

    def visible_centres(batch: Any) -> Points:
        return centres(batch)

    def count_centres() -> Iterator[float]:
        nonlocal count, read_count
        for batch in splats.batches():
            count, read_count = count + len(visible_centres(batch)), read_count + len(batch)
            yield read_count / len(splats)

    yield from report_progress(count_centres(), "count", len(splats), NOUNS[Splats])
    return splats.map_batches(visible_centres, count)


def _transform(scene: Scene, target: Placement) -> Scene:
    similarity = target.file_from_capture
    if similarity.scale == 1 and similarity.rotation.equal(torch.eye(3, dtype=torch.float64)):
        return scene  # bit for bit
    if isinstance(scene, Stream):
        return scene.map_batches(lambda batch: batch.transform(similarity))
    return scene.transform(similarity)


def _choose_writer(kind: type, request: ConvertRequest) -> Format:
    """Return a format that holds this kind; gaussians and voxels may also be written as points."""
    try:
        return registry.format_for(request.out, kind)
    except FormatError:
        if kind not in (Splats, Voxels) or not any(
            Points in writer.HOLDS for writer in registry.writers(request.out.name)
        ):
            raise
    return registry.format_for(request.out, Points)


def _find_placement(reader: Format, writer: Format, options: object, is_splats: bool, keep_axes: bool) -> Placement:
    """Return the rotation and scale between the formats. PLY points and meshes define no axes and keep them."""
    up = getattr(options, "up", None)
    target = f"+{up}" if up is not None else writer.UP
    source = reader.UP
    has_no_axes = not is_splats and "-y" in (source, target)
    unit = METRES_PER_UNIT.get(getattr(options, "unit", ""), writer.METRES or 0.0)
    scale = reader.METRES / unit if reader.METRES and unit and not keep_axes else 1.0
    identity = torch.eye(3, dtype=torch.float64)
    rotation = identity if keep_axes or has_no_axes else turn(direction(source), direction(target))
    return Placement(
        Similarity(scale, rotation, torch.zeros(3, dtype=torch.float64)),
        source if keep_axes or has_no_axes else target,
        unit or None if reader.METRES else None,
    )
