"""Cameras from photos alone: seconds of each stage, and how far they are from cameras that are known.

CPU seconds are user and system time of all threads: on a busy machine they, over the number of cores, tell more than
the clock.
"""

import json
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.cli import lumigraph, sample
from lumigraph.kernels import descriptor_match, native
from lumigraph.scene.capture import Capture
from lumigraph.scene.poses import align_similarity, rotation_error_degrees
from lumigraph.studio import registry

CASES = ("sample", "fox", "can")
MATCHED = (500, 3072, 8192)  # descriptors of a photo

Row = dict[str, object]


def rows(data: Path, cases: Sequence[str] = CASES) -> Iterator[Row]:
    """One row for each case; one whose pictures are not in `data` says so."""
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="lumigraph-bench-") as work:
            pictures, known = locate(case, data, Path(work))
            if pictures.exists():
                yield {"case": case, **measure(pictures, known, Path(work, "found"))}
            else:
                yield {"case": case, "skipped": f"no {pictures}"}


def matching_rows(repeats: int = 7) -> Iterator[Row]:
    """Descriptors of two photos, all against all, on one thread; shortest of the repeats."""
    random = np.random.default_rng(0)
    required = np.minimum(1.05 * np.arange(65536) + 100, 65536).astype(np.uint32)
    for count in MATCHED:
        first, second = (random.integers(0, 32, (count, 128), np.uint8) for _ in range(2))
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            descriptor_match.match(first, second, required)
            seconds.append(time.perf_counter() - started)
        rate = count**2 * 128 / min(seconds) * 1e-9
        yield {
            "case": f"{count} x {count}",
            "isa": native.isa,
            "ms": round(1e3 * min(seconds), 2),
            "gmac_per_second": round(rate, 1),
        }


def locate(case: str, data: Path, work: Path) -> tuple[Path, Path | None]:
    """The photos or the video of a case, and the capture that knows its cameras."""
    if case == "sample":  # rendered into `work`: exact
        return sample(work / "sample")
    if case == "fox":  # as its publishers computed them
        return data / "fox" / "images", data / "fox"
    return data / "video" / f"{case}.mp4", None  # nobody knows: how many frames are registered is what counts


def measure(pictures: Path, known: Path | None, out: Path) -> Row:
    """Pictures alone go in; the known cameras are looked at afterwards. A poor result is a figure, not a failure."""
    used = cpu_seconds()
    _, wall = lumigraph("pose", pictures, "-o", out, "--allow-partial", "--quiet")
    used = cpu_seconds() - used
    report = json.loads((out / "pose.json").read_text(encoding="utf-8"))
    row: Row = {
        "photos": report["photos"],
        "registered": report["registered"],
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(used, 1),
        **{f"{stage.replace(' ', '_')}_seconds": seconds for stage, seconds in report["seconds"].items()},
        "reprojection_px": round(report["reprojection_px"], 3),
        "matches_consistent": round(report["matches_consistent"], 3),
        "pairs_consistent": round(report["pairs_consistent"], 3),
    }
    return row if known is None else row | pose_errors(read(out), read(known))


def cpu_seconds() -> float:
    """User and system time of the processes that this one started and that have ended, with theirs."""
    use = resource.getrusage(resource.RUSAGE_CHILDREN)
    return use.ru_utime + use.ru_stime


def read(path: Path) -> Capture:
    return registry.capture_reader(path).read(path)


def pose_errors(found: Capture, known: Capture) -> Row:
    """Means over the photos of both after the best similarity; positions relative to the diagonal of the camera box."""
    place = {Path(name).stem: i for i, name in enumerate(known.names)}
    shared = [(i, place[Path(name).stem]) for i, name in enumerate(found.names) if Path(name).stem in place]
    ours = found.cameras[[i for i, _ in shared]].world_from_cam.double()
    truth = known.cameras[[i for _, i in shared]].world_from_cam.double()
    moved = align_similarity(ours[:, :, 3], truth[:, :, 3]).transform_poses(ours)
    angles = rotation_error_degrees(moved[..., :3], truth[..., :3])
    distances = (moved[:, :, 3] - truth[:, :, 3]).norm(dim=1)
    diagonal = torch.linalg.norm(truth[:, :, 3].amax(0) - truth[:, :, 3].amin(0))
    return {
        "rotation_degrees": round(angles.mean().item(), 3),
        "rotation_degrees_max": round(angles.max().item(), 3),
        "position_percent": round(100 * (distances.mean() / diagonal).item(), 4),
    }
