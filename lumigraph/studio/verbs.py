"""The verbs of the studio. Each is a function `(request) -> generator of events`.

A generator that is not advanced is paused, `close()` cancels it. Every verb is safe to repeat, since its outputs appear
atomically. Verbs raise LumigraphError, or OSError if the system reports an error.
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
    """Estimate cameras from images alone and write OUT as a capture in COLMAP format."""
    source, out = request.source, request.out
    if not source.exists():
        raise CaptureError(f"{source} does not exist")
    from lumigraph.captures import photos, video
    from lumigraph.captures import pose as motion  # imports large libraries that a posed capture does not need

    out.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_files(out.parent, prefix=f"{out.name}.")
    work = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    try:
        if source.suffix.lower() in video.VIDEO_SUFFIXES:
            images = yield from video.extract_frames(source, work, request.frames)
        else:
            images = yield from photos.find_photos(source, work)
        report = yield from motion.estimate(images, out, allow_partial=request.allow_partial, matching=request.matching)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    yield ArtifactWritten(path=str(out), what=f"capture of {report.registered} posed photos")


def sample(request: SampleRequest) -> Generator[Event, None, None]:
    """Render photos of a synthetic scene as test data."""
    from lumigraph.captures.sample import render_sample

    yield from render_sample(request.out, views=request.views, size=request.size, seed=request.seed)


OPTIONAL_METRICS = ("psnr_own_gain", "psnr_own_pose", "psnr_black", "alpha_error")  # of some captures


def evaluate(request: EvaluateRequest) -> Generator[Event, None, dict[str, Any]]:
    """Evaluate a run on its held-out views. Write report.html and evaluation.json, return the content of the latter."""
    run = Run(request.run)
    field, card = load_field(run, request.device)
    capture = yield from prepare_capture(run, read_capture(Path(run.config.capture), run.config.holdout))
    _, held_out = capture.split()
    if not len(held_out):
        raise RunError(f"{run.path} holds out no views to evaluate; train with --holdout 8")
    field, is_exported = yield from _as_exported(field, run, request.renderer)
    views: list[dict[str, Any]] = [*(yield from loop.evaluate(field, held_out, card.own_gains, card.own_poses))]
    size, unit = _size(field)
    evaluation = {
        "method": card.method,
        "psnr": _mean([view["psnr"] for view in views]),
        "ssim": _mean([view["ssim"] for view in views]),
        **{name: _mean([view[name] for view in views]) for name in OPTIONAL_METRICS if name in views[0]},
        "views": len(views),
        "train_seconds": round(card.seconds, 3),
        "steps": card.step,
        "size": size,
        "size_unit": unit,
        "exported": is_exported,
        "renderer": request.renderer,
        "finished": card.finished,
        "capture": run.config.capture,
        "downscale": run.config.downscale,
        "version": card.version,
        "per_view": [{k: _finite(v) if isinstance(v, float) else v for k, v in view.items()} for view in views],
    }
    write_text(run.path / REPORT, (yield from _report(run, field, held_out, evaluation)))
    # Written last: an existing evaluation.json is complete.
    write_text(run.path / EVALUATION, json.dumps(evaluation, indent=2, allow_nan=False) + "\n")
    for file, description in ((EVALUATION, "evaluation"), (REPORT, "report")):
        yield ArtifactWritten(path=str(run.path / file), what=description)
    return evaluation


def scan(request: ScanRequest) -> Generator[Event, None, dict[str, Any]]:
    """Estimate poses, train, evaluate, render a turntable, export a PLY. A repeated scan continues where it stopped."""
    out = request.out
    capture = yield from _pose_source(request)
    training_options = request.model_dump(exclude={"source", "out", "frames", "allow_partial"})
    yield from train(TrainRequest(capture=capture, out=out, resume=not request.overwrite, **training_options))
    field = out / FIELD
    if _is_older(out / EVALUATION, field):
        evaluation = yield from evaluate(EvaluateRequest(run=out, device=request.device))
    else:
        evaluation = json.loads((out / EVALUATION).read_text())
    if _is_older(out / TURNTABLE, field):
        yield from render(RenderRequest(run=out, out=out / TURNTABLE, device=request.device))
    if _is_older(out / SCENE, field):
        try:
            yield from export(ExportRequest(run=out, out=out / SCENE, kind="splats"))
        except FormatError as error:  # a method without gaussians
            yield Note(text=f"no {SCENE}: {error}")
    return evaluation


# ---- helpers


def _pose_source(request: ScanRequest) -> Generator[Event, None, Path]:
    """Return the capture to scan: the source if it is posed, else OUT/capture, which is estimated once."""
    source, out = request.source, request.out
    if not source.exists():
        raise CaptureError(f"{source} does not exist")
    if registry.reader_for(source) is not None:
        return source
    capture, scan_source = out / CAPTURE, {"source": str(source.resolve())}
    if (out / SCAN).exists() and json.loads((out / SCAN).read_text()) != scan_source and not request.overwrite:
        raise RunError(f"{out} was begun with other photos; choose another folder or add --overwrite")
    if request.overwrite and capture.exists():
        shutil.rmtree(capture)
    if not capture.exists():
        Run.claim(out)
        write_text(out / SCAN, json.dumps(scan_source))
        partial = request.allow_partial
        try:
            yield from pose(PoseRequest(source=source, out=capture, frames=request.frames, allow_partial=partial))
        finally:
            if not capture.exists():  # it failed: remove the folder
                (out / SCAN).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    out.rmdir()
    return capture


def _as_exported(field: Field, run: Run, renderer: Renderer) -> Generator[Event, None, tuple[Field, bool]]:
    """Write the gaussians of a field to a PLY and read them back. Returns (field, whether it was exported); fields
    without gaussians are unchanged. Raises RunError if such a field is requested with the reference renderer."""
    if not isinstance(field, HasSplats):
        if renderer == "reference":
            raise RunError(f"{run.path} has no gaussians, and the reference renderer requires them")
        return field, False
    remove_stale_files(run.path, prefix=SCENE)
    file_format = registry.format_for(Path(SCENE), Splats)
    folder = run.path / f"{SCENE}.tmp-{os.getpid()}"
    try:
        folder.mkdir(exist_ok=True)
        file_format.write(field.splats(), folder / SCENE)
        splats, is_exported = file_format.read(folder / SCENE), True
    except FormatError as error:
        splats, is_exported = field.splats(), False
        yield Note(
            text=f"these gaussians cannot be exported, so they are evaluated as trained: {error}", level="warning"
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return (field.reference() if renderer == "reference" else field.with_splats(splats)), is_exported


def _report(run: Run, field: Field, held_out: Capture, evaluation: dict[str, Any]) -> Generator[Event, None, str]:
    """Build the report page with images of the worst views. The renders are also written to renders/."""
    page, views = Page(), evaluation["per_view"]
    (run.path / RENDERS).mkdir(exist_ok=True)
    for old_render in (run.path / RENDERS).glob("held-out-*.png"):
        old_render.unlink()
    worst_first = sorted(range(len(views)), key=lambda i: math.inf if views[i]["psnr"] is None else views[i]["psnr"])
    for count, i in enumerate(worst_first):
        if page.is_full:
            break
        yield Progress(stage="report", done=count, total=min(len(views), MAX_REPORT_VIEWS), unit="views")
        render, photo = render_held_out(field, held_out, i)
        write_png(run.path / RENDERS / f"held-out-{i:04d}.png", render)
        page.add(Comparison(views[i]["name"], photo, render, views[i]["psnr"], views[i]["ssim"]))
    capture = Path(run.config.capture)
    title_path = (
        run.path if capture.parent == run.path.resolve() else capture
    )  # the capture of a scan is named "capture"
    return page.html(title_path.resolve().name, evaluation, run.history())


def render_held_out(field: Field, held_out: Capture, i: int) -> tuple[Tensor, Tensor]:
    """Return (render, photo) of view `i`, each (H, W, 3) float in 0..1; masked photos are composited over white."""
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
    """Replace infinity by None for JSON: the PSNR of equal images is null."""
    return value if math.isfinite(value) else None


def _is_older(output: Path, source: Path) -> bool:
    """Whether `output` is missing or older than `source`."""
    return not output.exists() or output.stat().st_mtime_ns < source.stat().st_mtime_ns
