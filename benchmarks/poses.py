"""Cameras from real photos alone, stage by stage, and how far they are from cameras that are known.

    python -m benchmarks.poses [--data DIR] [fox can]

`fox` has cameras that its publishers computed; `can` is a video without any, where the number of joined frames counts.
CPU seconds are user and system time of all threads: on a busy machine they, over the number of cores, tell more than
the clock.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.table import Table

from lumigraph.captures import colmap, photos, pose, transforms, video
from lumigraph.captures.photos import PhotoSet
from lumigraph.scene.capture import Capture
from lumigraph.scene.poses import align_similarity, rotation_error_degrees
from lumigraph.wire.events import Event

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CASES = ("fox", "can")
FRAMES = 80

Row = dict[str, object]
Result = TypeVar("Result")


def rows(data: Path = DATA, cases: Sequence[str] = CASES) -> Iterator[Row]:
    """One row for each case; a case whose data is not there says so."""
    for case in cases:
        source = data / "fox" / "images" if case == "fox" else data / "video" / f"{case}.mp4"
        if not source.exists():
            yield {"case": case, "skipped": f"no {source}"}
            continue
        with tempfile.TemporaryDirectory(prefix="lumigraph-bench-") as work:
            out = Path(work, "capture")
            begun, used = time.monotonic(), cpu_seconds()
            report = result_of(pose.estimate(gather(source, Path(work, "photos")), out))
            row: Row = {
                "case": case,
                "wall_seconds": round(time.monotonic() - begun, 1),
                "cpu_seconds": round(cpu_seconds() - used, 1),
                "photos": report.photos,
                "registered": report.registered,
                "reprojection_px": round(report.reprojection_px, 3),
                "matches_consistent": round(report.matches_consistent, 3),
                "pairs_consistent": round(report.pairs_consistent, 3),
                **{f"{stage.replace(' ', '_')}_seconds": value for stage, value in report.seconds.items()},
            }
            if case == "fox":
                row |= errors(colmap.read(out), transforms.read(data / "fox"))
            yield row


def gather(source: Path, work: Path) -> PhotoSet:
    if source.suffix in video.SUFFIXES:
        return result_of(video.extract_frames(source, work, FRAMES))
    return result_of(photos.find_photos(source, work))


def errors(found: Capture, known: Capture) -> Row:
    """Means over the photos of both after the best similarity; positions relative to the diagonal of the camera box."""
    place = {Path(name).stem: i for i, name in enumerate(known.names)}
    shared = [(i, place[Path(name).stem]) for i, name in enumerate(found.names) if Path(name).stem in place]
    ours = found.cameras[[i for i, _ in shared]].world_from_cam.double()
    truth = known.cameras[[i for _, i in shared]].world_from_cam.double()
    moved = align_similarity(ours[:, :, 3], truth[:, :, 3]).poses(ours)
    angles = rotation_error_degrees(moved[..., :3], truth[..., :3])
    distances = (moved[:, :, 3] - truth[:, :, 3]).norm(dim=1)
    diagonal = torch.linalg.norm(truth[:, :, 3].amax(0) - truth[:, :, 3].amin(0))
    return {
        "rotation_degrees": round(angles.mean().item(), 3),
        "rotation_degrees_max": round(angles.max().item(), 3),
        "position_percent": round(100 * (distances.mean() / diagonal).item(), 4),
    }


def result_of(task: Generator[Event, None, Result]) -> Result:
    """Runs a task to its end and keeps what it returns."""
    while True:
        try:
            next(task)
        except StopIteration as end:
            result: Result = end.value
            return result


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def main() -> None:
    parser = argparse.ArgumentParser(description="Poses from photos alone.")
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with fox/ and video/ (default: %(default)s)")
    args = parser.parse_args()
    found = list(rows(args.data, args.cases))
    table = Table("figure", *(str(row["case"]) for row in found))
    for key in dict.fromkeys(key for row in found for key in row if key != "case"):
        table.add_row(key, *(str(row.get(key, "")) for row in found))
    Console().print(table)


if __name__ == "__main__":
    main()
