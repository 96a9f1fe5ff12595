"""The process that finds cameras: every stage of the package in turn. `captures.pose` starts it.

    python -m lumigraph.captures.sfm.process REQUEST.json

Standard output carries one JSON object a line: events, and last the report or the reason of failure.
"""

import zlib  # isort: skip  # first: pycolmap brings its own and aborts the process when the system's is loaded later

import json
import os
import resource
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import pycolmap

from lumigraph.captures.sfm.bundle_adjustment import determines_principal_points, move_principal_points
from lumigraph.captures.sfm.consistency import judge
from lumigraph.captures.sfm.correspondences import extract, match
from lumigraph.captures.sfm.event_pipe import Speaker
from lumigraph.captures.sfm.focal_candidates import guesses
from lumigraph.captures.sfm.mapping import complete, reconstruct
from lumigraph.captures.sfm.model_writer import write
from lumigraph.captures.sfm.pose_report import PoseReport, stops
from lumigraph.captures.sfm.request import Request
from lumigraph.captures.sfm.stopwatch import Stopwatch
from lumigraph.captures.sfm.verification import refuse_stills, trustworthy, verify
from lumigraph.scene.errors import CaptureError

assert zlib


@dataclass(frozen=True)
class Attempt:
    """One reconstruction and its judgement."""

    model: pycolmap.Reconstruction
    report: PoseReport

    @property
    def rank(self) -> tuple[bool, float]:
        return not stops(self.report), self.report.share * self.report.matches_consistent


def run(request: Request, say: Speaker) -> PoseReport:
    """All of it; writes the model and returns the report. Raises CaptureError where no model comes out at all."""
    clock = Stopwatch()
    pycolmap.set_random_seed(request.seed)
    with clock.stage("features"):
        found = extract(request, say)
    with clock.stage("matching"):
        matches = match(found, request.pairs, say)
    best: Attempt | None = None
    attempts = 0
    for lenses in guesses(request, found, matches, clock):
        attempts += 1
        with clock.stage("verification"):
            verified = trustworthy(verify(found, matches, lenses, request, say), lenses)
            refuse_stills(found, verified)
        with clock.stage("cameras"):
            model, models = reconstruct(request, found, verified, lenses, say)
        if model is None:
            continue
        with clock.stage("refinement"):
            moves = determines_principal_points(model)
            complete(model, request, found, verified, lenses)
            model, refined = move_principal_points(model) if moves else (model, False)
        judged = Attempt(model, judge(model, models, refined, request, found, verified))
        best = judged if best is None or judged.rank > best.rank else best
        if not stops(best.report):
            break
    if best is None:
        raise CaptureError(
            f"no two of these {len(found)} photos could be joined: they do not overlap, show moving or plain things, "
            "or were taken from one spot; take sharp photos that overlap by two thirds and step aside between them"
        )
    with clock.stage("writing"):
        write(best.model, request, found)
    seconds = {name: round(value, 2) for name, value in clock.seconds.items()}
    use = resource.getrusage(resource.RUSAGE_SELF)
    cpu = round(use.ru_utime + use.ru_stime, 2)
    return replace(best.report, attempts=attempts, seconds=seconds, cpu_seconds=cpu)


def end_with_parent() -> None:
    """Standard input ends when the parent does, however it ended: then nobody wants the result."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(arguments: Sequence[str]) -> int:
    """The exit status. A failure that the photos explain is an answer, and 0; anything else is a crash, and 1."""
    say = Speaker()
    end_with_parent()
    cv2.setNumThreads(1)  # photos run in parallel already
    asked = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    asked["sizes"], asked["pairs"] = ([tuple(two) for two in asked[key]] for key in ("sizes", "pairs"))
    try:
        report = run(Request(**asked), say)
    except CaptureError as error:
        say.line({"kind": "failed", "text": str(error)})
    except Exception as error:
        traceback.print_exc()
        words = str(error).partition("\n")[0]
        print(f"{type(error).__name__}: {words}", file=sys.stderr)  # the log's last line, which the parent shows
        return 1
    else:
        say.line({"kind": "report", "report": asdict(report)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
