"""Run a job: translate its request, which names ids, into a verb, which works on paths.

    PROJECT/files/           the upload: photos, a zip, a video or a posed capture
    PROJECT/captures/JOB/    camera poses estimated by a job
    PROJECT/runs/JOB/        the run trained by a job
    PROJECT/made/JOB/ATT/    other output files of an attempt
    PROJECT/shown/           previews of the newest capture; previews of a run are in RUN/shown/

Previews are written before the event that announces them. If a preview fails, the job continues with a warning.
Every verb can be repeated: an attempt after a lost one continues from the files saved by the lost one.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumigraph.scene.errors import CaptureError, LumigraphError, RunError
from lumigraph.studio import registry
from lumigraph.wire import requests, resources
from lumigraph.wire.events import ArtifactWritten, CheckpointWritten, Event, Note

PREVIEWS_FOLDER = "shown"
Verb = Generator[Event, None, Any]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workspace:
    """Folders of one job attempt: its project, the job itself, and the output files of this attempt."""

    project: Path
    job: Path
    outputs: Path

    @property
    def id(self) -> str:
        return self.job.name


def build_verb(request: resources.JobRequest, workspace: Workspace) -> Verb:
    """Return the event generator that does the job. Raises LumigraphError if the project lacks an input of the job."""
    if isinstance(request, resources.NoopJob):
        from lumigraph.studio.noop import count_steps

        return count_steps(workspace.job, request.steps, request.pause, request.save_every)

    from lumigraph.studio import comparing, verbs  # late: both import torch

    match request:
        case resources.SampleJob():
            out = workspace.project / "files"
            sample = requests.SampleRequest(out=out, views=request.views, size=request.size, seed=request.seed)
            return verbs.sample(sample)
        case resources.PoseJob():
            options = request.model_dump(exclude={"verb"})
            out = workspace.project / "captures" / workspace.id
            if out.exists():  # captures are renamed into place: a lost attempt had finished this one
                return _run_pose(_empty_verb(), workspace)
            out.parent.mkdir(exist_ok=True)
            pose = requests.PoseRequest(source=source_of(workspace.project), out=out, **options)
            return _run_pose(verbs.pose(pose), workspace)
        case resources.TrainJob():
            train = _train_request(request, workspace)
            return _run_training(verbs.train(train), workspace, train)
        case resources.EvaluateJob():
            evaluate = requests.EvaluateRequest(run=run_of(workspace, request.run), device=request.device)
            return _run_evaluation(verbs.evaluate(evaluate), evaluate)
        case resources.RenderJob():
            return verbs.render(_render_request(request, workspace))
        case resources.ExportJob():
            options = request.model_dump(exclude={"verb", "run", "form"})
            out, run = workspace.outputs / f"scene.{request.form}", run_of(workspace, request.run)
            return _run_export(verbs.export(requests.ExportRequest(run=run, out=out, **options)), out)
        case resources.ScaleJob():
            options = request.model_dump(exclude={"verb", "run"})
            return verbs.scale(requests.ScaleRequest(run=run_of(workspace, request.run), **options))
        case resources.CompareJob():
            runs = [run_of(workspace, run) for run in request.runs]
            out = workspace.outputs / "compare.html"
            return comparing.compare(requests.CompareRequest(runs=runs, out=out, device=request.device))


def source_of(project: Path) -> Path:
    """Return the upload without poses: the only file if it is an archive or video, else the folder of photos.

    Raises CaptureError if there is no upload or it has poses.
    """
    folder = project / "files"
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []
    if not files:
        raise CaptureError("this project has no photos yet; upload some first")
    from lumigraph.captures.video import VIDEO_SUFFIXES

    if len(files) == 1 and files[0].suffix.lower() in {".zip", *VIDEO_SUFFIXES}:
        return files[0]
    if registry.reader_for(folder) is not None:
        raise CaptureError("these photos already have camera poses; train with them directly")
    return folder


def capture_of(project: Path) -> Path:
    """Return the newest capture of a pose job, else an upload with poses. Raises CaptureError if neither exists."""
    captures = [path for path in (project / "captures").glob("*") if path.is_dir() and ".tmp-" not in path.name]
    if captures:
        return max(captures, key=lambda path: path.stat().st_mtime_ns)
    if registry.reader_for(project / "files") is not None:
        return project / "files"
    raise CaptureError("the photos of this project have no camera poses yet; run a job `pose` first")


def run_of(workspace: Workspace, run: str | None) -> Path:
    """Return the folder of a run, by default the newest. Raises RunError if the project has no such run."""
    folder = workspace.project / "runs"
    if run is not None:
        if not (folder / run).is_dir():
            raise RunError(f"this project has no run {run}")
        return folder / run
    runs = list(folder.glob("*")) if folder.exists() else []
    if not runs:
        raise RunError("this project has no run yet; train first")
    return max(runs, key=lambda path: path.stat().st_mtime_ns)


def _train_request(request: resources.TrainJob, workspace: Workspace) -> requests.TrainRequest:
    from lumigraph.studio.run import Run, is_run

    out = workspace.project / "runs" / (request.run or workspace.id)
    if request.run is not None and not is_run(out):
        raise RunError(f"this project has no run {request.run} to continue")
    capture = Path(Run(out).config.capture) if is_run(out) else capture_of(workspace.project)
    options = request.model_dump(exclude={"verb", "run"})
    out.parent.mkdir(exist_ok=True)
    return requests.TrainRequest(capture=capture, out=out, resume=True, **options)


def _render_request(request: resources.RenderJob, workspace: Workspace) -> requests.RenderRequest:
    path: str | None = None
    if isinstance(request.path, list):
        file = workspace.job / "path.json"
        frames = [frame.model_dump(exclude_none=True) for frame in request.path]
        file.write_text(json.dumps({"keyframes": frames}))
        path = str(file)
    elif request.form == "mp4":
        path = request.path
    options = request.model_dump(include={"size", "frames", "fps", "output", "device"})
    out = workspace.outputs / f"{request.output}.{request.form}"
    return requests.RenderRequest(run=run_of(workspace, request.run), out=out, path=path, **options)


def _run_pose(verb: Verb, workspace: Workspace) -> Verb:
    result = yield from verb
    yield from _update_capture_preview(workspace)
    return result


def _run_training(verb: Verb, workspace: Workspace, request: requests.TrainRequest) -> Verb:
    """Train and update the previews of the run at its checkpoints."""
    yield from _update_capture_preview(workspace)
    previews = _TrainingPreviews(request)
    try:
        while True:
            try:
                event = next(verb)
            except StopIteration as end:
                run = end.value
                break
            if isinstance(event, CheckpointWritten):
                yield from previews.update()
            yield event
    except GeneratorExit:  # the user stopped the job; the previews should match its last state
        verb.close()
        for note in previews.update(last=True):
            log.warning(note.text)
        raise
    finally:
        verb.close()
    yield from previews.update(last=True)
    card = run.field_card()
    return {"run": run.path.name} | ({"steps": card.step, "seconds": round(card.seconds, 3)} if card else {})


def _run_export(verb: Verb, out: Path) -> Verb:
    """Export, and zip formats of several files, such as a mesh with its material and texture files."""
    while True:
        try:
            event = next(verb)
        except StopIteration as end:
            report = end.value
            break
        if not isinstance(event, ArtifactWritten):
            yield event
            continue
        files = sorted(path for path in out.parent.rglob("*") if path.is_file())
        if len(files) > 1:
            archive = out.with_name(f"{out.name}.zip")
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
                for path in files:
                    writer.write(path, path.relative_to(out.parent))
            event = event.model_copy(update={"path": str(archive)})
        yield event
    return report.model_dump(mode="json", exclude={"kind", "path"})


def _run_evaluation(verb: Verb, request: requests.EvaluateRequest) -> Verb:
    from lumigraph.studio import previews

    evaluation = yield from verb
    yield from _warn_on_error(previews.write_evaluation_preview(request.run, request.device))
    return evaluation


class _TrainingPreviews:
    """Previews of a run in training, updated when that is cheap enough, and always by the `last` update."""

    def __init__(self, request: requests.TrainRequest) -> None:
        self._request = request
        self._previewer: Any = None

    def update(self, last: bool = False) -> list[Note]:
        """Return a warning if the update failed."""
        from lumigraph.studio.previews import RunPreviewer

        try:
            if self._previewer is None:
                self._previewer = RunPreviewer(self._request.out, self._request.device)
            if last or self._previewer.is_due():
                self._previewer.update()
        except Exception as error:
            return [_preview_warning(error)]
        return []


def _update_capture_preview(workspace: Workspace) -> Verb:
    """Write the preview of the newest capture of the project, unless it is current."""
    yield from _warn_on_error(_capture_preview(workspace))


def _capture_preview(workspace: Workspace) -> Generator[Event, None, None]:
    from lumigraph.studio import previews

    source = capture_of(workspace.project)
    job = None if source == workspace.project / "files" else source.name
    if not previews.is_capture_preview_current(source, workspace.project / PREVIEWS_FOLDER, job):
        yield from previews.write_capture_preview(source, workspace.project / PREVIEWS_FOLDER, job)


def _warn_on_error(events: Generator[Event, None, None]) -> Verb:
    """Yield `events`; turn an error into a warning, since a failed preview must not lose the result of the job."""
    try:
        yield from events
    except Exception as error:
        yield _preview_warning(error)


def _preview_warning(error: Exception) -> Note:
    log.warning("preview failed", exc_info=error)
    return Note(text=f"the previews for the browser could not be written: {error}", level="warning")


def _empty_verb() -> Verb:
    yield from ()
    return None


__all__ = ["LumigraphError", "Workspace", "build_verb"]
