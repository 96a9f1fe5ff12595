"""What the studio can do: one verb a function, `(request) -> generator of events`.

Not pulling is pause, `close()` is cancel. Every verb is safe to repeat: what it makes takes its place whole.
Errors are those of LumigraphError, or OSError where the system refuses.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.methods import train as loop
from lumigraph.scene.assets import Splats
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import CaptureError, FormatError, RunError
from lumigraph.scene.field import Field, HasSplats
from lumigraph.scene.images import composite_over, write_png
from lumigraph.studio import registry
from lumigraph.studio.converting import convert
from lumigraph.studio.exporting import export, scale
from lumigraph.studio.files import remove_stale_files
from lumigraph.studio.rendering import render
from lumigraph.studio.report import MAX_REPORT_VIEWS, Comparison, Page
from lumigraph.studio.run import CAPTURE, EVALUATION, FIELD, RENDERS, REPORT, SCAN, SCENE, TURNTABLE, Run, write_text
from lumigraph.studio.training import load_field, prepare_capture, read_capture, train
from lumigraph.wire.events import ArtifactWritten, Event, Note, Progress
from lumigraph.wire.requests import (
    EvaluateRequest,
    ExportRequest,
    PoseRequest,
    Renderer,
    RenderRequest,
    SampleRequest,
    ScanRequest,
    TrainRequest,
)

__all__ = ["convert", "evaluate", "export", "pose", "render", "sample", "scale", "scan", "train"]


def pose(request: PoseRequest) -> Generator[Event, None, None]:
    """Cameras from pictures alone: OUT becomes a capture in COLMAP's form."""
    source, out = request.source, request.out
    if not source.exists():
        raise CaptureError(f"{source} does not exist")
    from lumigraph.captures import photos, video
    from lumigraph.captures import pose as motion  # its libraries are large, and a posed capture needs none of them

    out.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_files(out.parent, prefix=f"{out.name}.")
    work = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    try:
        if source.suffix.lower() in video.VIDEO_SUFFIXES:
            found = yield from video.extract_frames(source, work, request.frames)
        else:
            found = yield from photos.find_photos(source, work)
        report = yield from motion.estimate(found, out, allow_partial=request.allow_partial, matching=request.matching)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    yield ArtifactWritten(path=str(out), what=f"capture of {report.registered} posed photos")


def sample(request: SampleRequest) -> Generator[Event, None, None]:
    """Photos of a made-up scene: something to try everything with."""
    from lumigraph.captures.sample import render_sample

    yield from render_sample(request.out, views=request.views, size=request.size, seed=request.seed)


SOMETIMES = ("psnr_own_gain", "psnr_own_pose", "psnr_black", "alpha_error")  # metrics of some captures


def evaluate(request: EvaluateRequest) -> Generator[Event, None, dict[str, Any]]:
    """How good a run is on views it never saw: evaluation.json, whose content is returned, and report.html."""
    run = Run(request.run)
    field, card = load_field(run, request.device)
    capture = yield from prepare_capture(run, read_capture(Path(run.config.capture), run.config.holdout))
    _, held_out = capture.split()
    if not len(held_out):
        raise RunError(f"{run.path} holds out no views to judge it by; train with --holdout 8")
    field, exported = yield from _as_exported(field, run, request.renderer)
    views: list[dict[str, Any]] = [*(yield from loop.evaluate(field, held_out, card.own_gains, card.own_poses))]
    size, unit = _size(field)
    evaluation = {
        "method": card.method,
        "psnr": _mean([view["psnr"] for view in views]),
        "ssim": _mean([view["ssim"] for view in views]),
        **{name: _mean([view[name] for view in views]) for name in SOMETIMES if name in views[0]},
        "views": len(views),
        "train_seconds": round(card.seconds, 3),
        "steps": card.step,
        "size": size,
        "size_unit": unit,
        "exported": exported,
        "renderer": request.renderer,
        "finished": card.finished,
        "capture": run.config.capture,
        "downscale": run.config.downscale,
        "version": card.version,
        "per_view": [{k: _finite(v) if isinstance(v, float) else v for k, v in view.items()} for view in views],
    }
    write_text(run.path / REPORT, (yield from _report(run, field, held_out, evaluation)))
    # Last: whoever finds an evaluation finds the whole of it.
    write_text(run.path / EVALUATION, json.dumps(evaluation, indent=2, allow_nan=False) + "\n")
    for file, what in ((EVALUATION, "evaluation"), (REPORT, "report")):
        yield ArtifactWritten(path=str(run.path / file), what=what)
    return evaluation


def scan(request: ScanRequest) -> Generator[Event, None, dict[str, Any]]:
    """All of it: poses, training, evaluation, turntable, PLY. Asked again, it goes on where it stopped."""
    out = request.out
    capture = yield from _posed(request)
    asked = request.model_dump(exclude={"source", "out", "frames", "allow_partial"})
    yield from train(TrainRequest(capture=capture, out=out, resume=not request.overwrite, **asked))
    field = out / FIELD
    if _older(out / EVALUATION, field):
        evaluation = yield from evaluate(EvaluateRequest(run=out, device=request.device))
    else:
        evaluation = json.loads((out / EVALUATION).read_text())
    if _older(out / TURNTABLE, field):
        yield from render(RenderRequest(run=out, out=out / TURNTABLE, device=request.device))
    if _older(out / SCENE, field):
        try:
            yield from export(ExportRequest(run=out, out=out / SCENE, kind="splats"))
        except FormatError as error:  # a method without gaussians
            yield Note(text=f"no {SCENE}: {error}")
    return evaluation


# ---- parts of them


def _posed(request: ScanRequest) -> Generator[Event, None, Path]:
    """The capture to scan: the source itself where it is posed, else OUT/capture, found once for each source."""
    source, out = request.source, request.out
    if not source.exists():
        raise CaptureError(f"{source} does not exist")
    if registry.reader_for(source) is not None:
        return source
    capture, memory = out / CAPTURE, {"source": str(source.resolve())}
    if (out / SCAN).exists() and json.loads((out / SCAN).read_text()) != memory and not request.overwrite:
        raise RunError(f"{out} was begun with other photos; choose another folder or add --overwrite")
    if request.overwrite and capture.exists():
        shutil.rmtree(capture)
    if not capture.exists():
        Run.claim(out)
        write_text(out / SCAN, json.dumps(memory))
        partial = request.allow_partial
        try:
            yield from pose(PoseRequest(source=source, out=capture, frames=request.frames, allow_partial=partial))
        finally:
            if not capture.exists():  # nothing was made, so nothing is left
                (out / SCAN).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    out.rmdir()
    return capture


def _as_exported(field: Field, run: Run, renderer: Renderer) -> Generator[Event, None, tuple[Field, bool]]:
    """(field, whether it is what a PLY holds): the gaussians of a field, written to a PLY and read back. A field
    without gaussians stays as it is. Raises RunError if the reference renderer is to render such a field."""
    if not isinstance(field, HasSplats):
        if renderer == "reference":
            raise RunError(f"{run.path} has no gaussians, and the reference renderer renders nothing else")
        return field, False
    remove_stale_files(run.path, prefix=SCENE)
    file_format = registry.format_for(Path(SCENE), Splats)
    folder = run.path / f"{SCENE}.tmp-{os.getpid()}"
    try:
        folder.mkdir(exist_ok=True)
        file_format.write(field.splats(), folder / SCENE)
        splats, exported = file_format.read(folder / SCENE), True
    except FormatError as error:
        splats, exported = field.splats(), False
        yield Note(
            text=f"these gaussians cannot be exported, so they are evaluated as trained: {error}", level="warning"
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return (field.reference() if renderer == "reference" else field.with_splats(splats)), exported


def _report(run: Run, field: Field, held_out: Capture, evaluation: dict[str, Any]) -> Generator[Event, None, str]:
    """The page, with pictures of the worst views; those renders are kept in renders/ as well."""
    page, views = Page(), evaluation["per_view"]
    (run.path / RENDERS).mkdir(exist_ok=True)
    for old in (run.path / RENDERS).glob("held-out-*.png"):
        old.unlink()
    worst_first = sorted(range(len(views)), key=lambda i: math.inf if views[i]["psnr"] is None else views[i]["psnr"])
    for done, i in enumerate(worst_first):
        if page.is_full:
            break
        yield Progress(stage="report", done=done, total=min(len(views), MAX_REPORT_VIEWS), unit="views")
        render, photo = seen(field, held_out, i)
        write_png(run.path / RENDERS / f"held-out-{i:04d}.png", render)
        page.add(Comparison(views[i]["name"], photo, render, views[i]["psnr"], views[i]["ssim"]))
    capture = Path(run.config.capture)
    named_after = run.path if capture.parent == run.path.resolve() else capture  # a scan's capture is just "capture"
    return page.html(named_after.resolve().name, evaluation, run.history())


def seen(field: Field, held_out: Capture, i: int) -> tuple[Tensor, Tensor]:
    """(render, photo) of view i, (H, W, 3) float 0..1, over white where the photos are cut out."""
    white = torch.ones(3)
    device = field.box.device
    with torch.no_grad():
        camera = held_out.cameras[i].to(device)
        render = field.render(camera, white.to(device) if held_out.has_alpha else None).rgb[0]
    return render.clamp(0, 1).cpu(), composite_over(held_out.photo(i), white)


def _size(field: Field) -> tuple[int, str]:
    if hasattr(field, "splats"):
        return len(field.splats()), "gaussians"
    return sum(tensor.numel() for tensor in field.state().values()), "parameters"


def _mean(values: list[float]) -> float | None:
    return _finite(sum(values) / len(values))


def _finite(value: float) -> float | None:
    """JSON has no infinity; the PSNR of equal pictures is null."""
    return value if math.isfinite(value) else None


def _older(made: Path, than: Path) -> bool:
    """Whether `made` is missing or was made before `than`."""
    return not made.exists() or made.stat().st_mtime_ns < than.stat().st_mtime_ns
