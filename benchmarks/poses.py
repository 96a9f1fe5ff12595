"""Pose estimation from photos: seconds of each stage, and errors against reference cameras.

CPU seconds are user and system time of all threads. On a busy machine, CPU seconds over the number of cores are more
reliable than wall time.
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
DESCRIPTOR_COUNTS = (500, 3072, 8192)  # per photo

Row = dict[str, object]


def rows(data: Path, cases: Sequence[str] = CASES) -> Iterator[Row]:
    """Yield one row for each case; a case without its data in `data` is skipped."""
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="lumigraph-bench-") as work:
            source, reference = locate(case, data, Path(work))
            if source.exists():
                yield {"case": case, **measure(source, reference, Path(work, "found"))}
            else:
                yield {"case": case, "skipped": f"no {source}"}


def matching_rows(repeats: int = 7) -> Iterator[Row]:
    """Time exhaustive descriptor matching of two photos on one thread; minimum over the repeats."""
    random = np.random.default_rng(0)
    min_scores = np.minimum(1.05 * np.arange(65536) + 100, 65536).astype(np.uint32)
    for count in DESCRIPTOR_COUNTS:
        first, second = (random.integers(0, 32, (count, 128), np.uint8) for _ in range(2))
        seconds = []
        for _ in range(repeats):
            start_time = time.perf_counter()
            descriptor_match.match(first, second, min_scores)
            seconds.append(time.perf_counter() - start_time)
        rate = count**2 * 128 / min(seconds) * 1e-9
        yield {
            "case": f"{count} x {count}",
            "isa": native.isa,
            "ms": round(1e3 * min(seconds), 2),
            "gmac_per_second": round(rate, 1),
        }


def locate(case: str, data: Path, work: Path) -> tuple[Path, Path | None]:
    """(photos or video of a case, capture with its reference cameras or None)."""
    if case == "sample":  # rendered into `work`: exact
        return sample(work / "sample")
    if case == "fox":  # reference: the cameras of its publishers
        return data / "fox" / "images", data / "fox"
    return data / "video" / f"{case}.mp4", None  # no reference: the number of registered frames is the result


def measure(source: Path, reference: Path | None, out: Path) -> Row:
    """Estimate poses from the images alone, then compare with the reference. A poor result is a row, not an error."""
    cpu_time = cpu_seconds()
    _, wall = lumigraph("pose", source, "-o", out, "--allow-partial", "--quiet")
    cpu_time = cpu_seconds() - cpu_time
    report = json.loads((out / "pose.json").read_text(encoding="utf-8"))
    row: Row = {
        "photos": report["photos"],
        "registered": report["registered"],
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu_time, 1),
        **{f"{stage.replace(' ', '_')}_seconds": seconds for stage, seconds in report["seconds"].items()},
        "reprojection_px": round(report["reprojection_px"], 3),
        "matches_consistent": round(report["matches_consistent"], 3),
        "pairs_consistent": round(report["pairs_consistent"], 3),
    }
    return row if reference is None else row | pose_errors(read(out), read(reference))


def cpu_seconds() -> float:
    """User and system time of all ended child processes and their descendants."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def read(path: Path) -> Capture:
    return registry.capture_reader(path).read(path)


def pose_errors(estimate: Capture, reference: Capture) -> Row:
    """Mean errors over common photos after similarity alignment; positions over the diagonal of the camera box."""
    index_of = {Path(name).stem: i for i, name in enumerate(reference.names)}
    index_pairs = [
        (i, index_of[Path(name).stem]) for i, name in enumerate(estimate.names) if Path(name).stem in index_of
    ]
    estimated_poses = estimate.cameras[[i for i, _ in index_pairs]].world_from_cam.double()
    reference_poses = reference.cameras[[i for _, i in index_pairs]].world_from_cam.double()
    aligned_poses = align_similarity(estimated_poses[:, :, 3], reference_poses[:, :, 3]).transform_poses(
        estimated_poses
    )
    angles = rotation_error_degrees(aligned_poses[..., :3], reference_poses[..., :3])
    distances = (aligned_poses[:, :, 3] - reference_poses[:, :, 3]).norm(dim=1)
    diagonal = torch.linalg.norm(reference_poses[:, :, 3].amax(0) - reference_poses[:, :, 3].amin(0))
    return {
        "rotation_degrees": round(angles.mean().item(), 3),
        "rotation_degrees_max": round(angles.max().item(), 3),
        "position_percent": round(100 * (distances.mean() / diagonal).item(), 4),
    }
