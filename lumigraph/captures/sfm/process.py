"""The child process that estimates poses: runs every stage of the package. `captures.pose` starts it.

    python -m lumigraph.captures.sfm.process REQUEST.json

Standard output carries one JSON object per line: events, and at the end the report or the reason of a failure.
"""

import zlib  # isort: skip  # first: pycolmap bundles its own zlib and aborts if the system's zlib is loaded later

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

from lumigraph.captures.sfm.bundle_adjustment import are_principal_points_determined, refine_principal_points
from lumigraph.captures.sfm.consistency import build_report
from lumigraph.captures.sfm.correspondences import extract_all, match_pairs
from lumigraph.captures.sfm.event_pipe import EventPipe
from lumigraph.captures.sfm.focal_candidates import lens_candidates
from lumigraph.captures.sfm.mapping import complete_model, reconstruct
from lumigraph.captures.sfm.model_writer import write_model
from lumigraph.captures.sfm.pose_report import PoseReport, find_failures
from lumigraph.captures.sfm.request import Request
from lumigraph.captures.sfm.stopwatch import Stopwatch
from lumigraph.captures.sfm.verification import check_motion, drop_uncalibrated, verify_pairs
from lumigraph.scene.errors import CaptureError

assert zlib


@dataclass(frozen=True)
class Attempt:
    """One reconstruction and its report."""

    model: pycolmap.Reconstruction
    report: PoseReport

    @property
    def rank(self) -> tuple[bool, float]:
        return not find_failures(self.report), self.report.registered_share * self.report.matches_consistent


def run(request: Request, pipe: EventPipe) -> PoseReport:
    """Run all stages, write the best model and return its report. Raises CaptureError if no model results."""
    clock = Stopwatch()
    pycolmap.set_random_seed(request.seed)
    with clock.stage("features"):
        features = extract_all(request, pipe)
    with clock.stage("matching"):
        matches = match_pairs(features, request.pairs, pipe)
    best: Attempt | None = None
    attempts = 0
    for lenses in lens_candidates(request, features, matches, clock):
        attempts += 1
        with clock.stage("verification"):
            verified_pairs = drop_uncalibrated(verify_pairs(features, matches, lenses, request, pipe), lenses)
            check_motion(features, verified_pairs)
        with clock.stage("cameras"):
            model, models = reconstruct(request, features, verified_pairs, lenses, pipe)
        if model is None:
            continue
        with clock.stage("refinement"):
            should_refine = are_principal_points_determined(model)
            complete_model(model, request, features, verified_pairs, lenses)
            model, is_refined = refine_principal_points(model) if should_refine else (model, False)
        attempt = Attempt(model, build_report(model, models, is_refined, request, features, verified_pairs))
        best = attempt if best is None or attempt.rank > best.rank else best
        if not find_failures(best.report):
            break
    if best is None:
        raise CaptureError(
            f"no two of these {len(features)} photos could be matched: they do not overlap, show moving or plain "
            "objects, or were taken from one spot; take sharp photos that overlap by two thirds and step aside "
            "between them"
        )
    with clock.stage("writing"):
        write_model(best.model, request, features)
    seconds = {name: round(value, 2) for name, value in clock.seconds.items()}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = round(usage.ru_utime + usage.ru_stime, 2)
    return replace(best.report, attempts=attempts, seconds=seconds, cpu_seconds=cpu)


def end_with_parent() -> None:
    """Exit as soon as the parent does: standard input then reaches its end."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: 0 if the pipe carries a report or an explained failure, 1 after a crash."""
    pipe = EventPipe()
    end_with_parent()
    cv2.setNumThreads(1)  # images are already processed in parallel
    request_json = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    request_json["sizes"], request_json["pairs"] = (
        [tuple(numbers) for numbers in request_json[key]] for key in ("sizes", "pairs")
    )
    try:
        report = run(Request(**request_json), pipe)
    except CaptureError as error:
        pipe.send({"kind": "failed", "text": str(error)})
    except Exception as error:
        traceback.print_exc()
        summary = str(error).partition("\n")[0]
        print(f"{type(error).__name__}: {summary}", file=sys.stderr)  # the last line of the log, shown by the parent
        return 1
    else:
        pipe.send({"kind": "report", "report": asdict(report)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
