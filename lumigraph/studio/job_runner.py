"""A job, spoken in ids, becomes a verb, spoken in paths.

    PROJECT/files/           photos, a zip, a video or a posed capture, as uploaded
    PROJECT/captures/JOB/    the poses that a job found
    PROJECT/runs/JOB/        the run that a job trained
    PROJECT/made/JOB/ATT/    what else jobs made
    PROJECT/shown/           the newest capture for a browser; a run's is in RUN/shown/

What a browser shows is made on the way, before an event tells of it; where that fails, the job goes on with a warning.
Every verb is safe to repeat: an attempt that follows a lost one goes on with what that one saved.
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

SHOWN = "shown"
Verb = Generator[Event, None, Any]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a job works: its project's folder, its own, and one for what this attempt makes."""

    project: Path
    job: Path
    made: Path

    @property
    def id(self) -> str:
        return self.job.name


def verb_of(asked: resources.JobRequest, place: Place) -> Verb:
    """Raises LumigraphError where the project has not got what the job needs."""
    if isinstance(asked, resources.NoopJob):
        from lumigraph.studio.noop import check

        return check(place.job, asked.steps, asked.pause, asked.save_every)

    from lumigraph.studio import comparing, verbs  # torch comes with them

    match asked:
        case resources.SampleJob():
            out = place.project / "files"
            return verbs.sample(requests.SampleRequest(out=out, views=asked.views, size=asked.size, seed=asked.seed))
        case resources.PoseJob():
            given = asked.model_dump(exclude={"verb"})
            out = place.project / "captures" / place.id
            if out.exists():  # a lost attempt had finished it: captures take their place whole
                return _posed(_nothing(), place)
            out.parent.mkdir(exist_ok=True)
            return _posed(verbs.pose(requests.PoseRequest(source=source_of(place.project), out=out, **given)), place)
        case resources.TrainJob():
            training = _training(asked, place)
            return _trained(verbs.train(training), place, training)
        case resources.EvaluateJob():
            judging = requests.EvaluateRequest(run=run_of(place, asked.run), device=asked.device)
            return _evaluated(verbs.evaluate(judging), judging)
        case resources.RenderJob():
            return verbs.render(_rendering(asked, place))
        case resources.ExportJob():
            given = asked.model_dump(exclude={"verb", "run", "form"})
            out, run = place.made / f"scene.{asked.form}", run_of(place, asked.run)
            return _exported(verbs.export(requests.ExportRequest(run=run, out=out, **given)), out)
        case resources.ScaleJob():
            given = asked.model_dump(exclude={"verb", "run"})
            return verbs.scale(requests.ScaleRequest(run=run_of(place, asked.run), **given))
        case resources.CompareJob():
            runs = [run_of(place, run) for run in asked.runs]
            out = place.made / "compare.html"
            return comparing.compare(requests.CompareRequest(runs=runs, out=out, device=asked.device))


def source_of(project: Path) -> Path:
    """What was uploaded: the one archive or video, or else the folder of photos."""
    files = project / "files"
    found = sorted(path for path in files.rglob("*") if path.is_file()) if files.exists() else []
    if not found:
        raise CaptureError("this project has no photos yet; upload some first")
    from lumigraph.captures.video import VIDEO_SUFFIXES

    if len(found) == 1 and found[0].suffix.lower() in {".zip", *VIDEO_SUFFIXES}:
        return found[0]
    if registry.reader_for(files) is not None:
        raise CaptureError("these photos have their poses already; train with them as they are")
    return files


def capture_of(project: Path) -> Path:
    """The newest capture whose poses were found, else what was uploaded where that has poses."""
    found = [path for path in (project / "captures").glob("*") if path.is_dir() and ".tmp-" not in path.name]
    if found:
        return max(found, key=lambda path: path.stat().st_mtime_ns)
    if registry.reader_for(project / "files") is not None:
        return project / "files"
    raise CaptureError("nobody knows yet where the photos of this project were taken; run a job `pose` first")


def run_of(place: Place, run: str | None) -> Path:
    runs = place.project / "runs"
    if run is not None:
        if not (runs / run).is_dir():
            raise RunError(f"this project has no run {run}")
        return runs / run
    found = list(runs.glob("*")) if runs.exists() else []
    if not found:
        raise RunError("this project has no run yet; train first")
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def _training(asked: resources.TrainJob, place: Place) -> requests.TrainRequest:
    from lumigraph.studio.run import Run, is_run

    out = place.project / "runs" / (asked.run or place.id)
    if asked.run is not None and not is_run(out):
        raise RunError(f"this project has no run {asked.run} to go on with")
    capture = Path(Run(out).config.capture) if is_run(out) else capture_of(place.project)
    given = asked.model_dump(exclude={"verb", "run"})
    out.parent.mkdir(exist_ok=True)
    return requests.TrainRequest(capture=capture, out=out, resume=True, **given)


def _rendering(asked: resources.RenderJob, place: Place) -> requests.RenderRequest:
    path: str | None = None
    if isinstance(asked.path, list):
        file = place.job / "path.json"
        frames = [frame.model_dump(exclude_none=True) for frame in asked.path]
        file.write_text(json.dumps({"keyframes": frames}))
        path = str(file)
    elif asked.form == "mp4":
        path = asked.path
    given = asked.model_dump(include={"size", "frames", "fps", "output", "device"})
    name = f"{asked.output}.{asked.form}"
    return requests.RenderRequest(run=run_of(place, asked.run), out=place.made / name, path=path, **given)


def _posed(verb: Verb, place: Place) -> Verb:
    result = yield from verb
    yield from _capture_shown(place)
    return result


def _trained(verb: Verb, place: Place, asked: requests.TrainRequest) -> Verb:
    """The training, its scene shown as it grows."""
    yield from _capture_shown(place)
    previews = _Showing(asked)
    try:
        while True:
            try:
                event = next(verb)
            except StopIteration as end:
                run = end.value
                break
            if isinstance(event, CheckpointWritten):
                yield from previews.show()
            yield event
    except GeneratorExit:  # stopped by a person, who wants to see how far it came
        verb.close()
        for note in previews.show(last=True):
            log.warning(note.text)
        raise
    finally:
        verb.close()
    yield from previews.show(last=True)
    card = run.field_card()
    return {"run": run.path.name} | ({"steps": card.step, "seconds": round(card.seconds, 3)} if card else {})


def _exported(verb: Verb, out: Path) -> Verb:
    """A form of several files, such as a mesh with its material and texture beside, is sent as one archive."""
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
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
                for path in files:
                    packed.write(path, path.relative_to(out.parent))
            event = event.model_copy(update={"path": str(archive)})
        yield event
    return report.model_dump(mode="json", exclude={"kind", "path"})


def _evaluated(verb: Verb, asked: requests.EvaluateRequest) -> Verb:
    from lumigraph.studio import previews

    evaluation = yield from verb
    yield from _or_a_note(previews.show_evaluation(asked.run, asked.device))
    return evaluation


class _Showing:
    """Shows a run that is being trained, whenever that is cheap enough; the `last` time in any case."""

    def __init__(self, asked: requests.TrainRequest) -> None:
        self._asked = asked
        self._show: Any = None

    def show(self, last: bool = False) -> list[Note]:
        """What went wrong, if anything did."""
        from lumigraph.studio.previews import RunShow

        try:
            if self._show is None:
                self._show = RunShow(self._asked.out, self._asked.device)
            if last or self._show.due():
                self._show.show()
        except Exception as error:
            return [_cannot_show(error)]
        return []


def _capture_shown(place: Place) -> Verb:
    """The newest capture of the project, unless it is shown already."""
    yield from _or_a_note(_showing_capture(place))


def _showing_capture(place: Place) -> Generator[Event, None, None]:
    from lumigraph.studio import previews

    source = capture_of(place.project)
    job = None if source == place.project / "files" else source.name
    if not previews.is_shown(source, place.project / SHOWN, job):
        yield from previews.show_capture(source, place.project / SHOWN, job)


def _or_a_note(events: Generator[Event, None, None]) -> Verb:
    """The same events; an error becomes a warning: what is only shown must not cost what was computed."""
    try:
        yield from events
    except Exception as error:
        yield _cannot_show(error)


def _cannot_show(error: Exception) -> Note:
    log.warning("nothing to show", exc_info=error)
    return Note(text=f"the pictures for the browser could not be made: {error}", level="warning")


def _nothing() -> Verb:
    yield from ()
    return None


__all__ = ["LumigraphError", "Place", "verb_of"]
