"""PSNR on held-out views against seconds of training, through the command line."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks.cli import lumigraph, sample


@dataclass(frozen=True)
class Case:
    """A capture and how much its photos are shrunk. `folder` is relative to the data; None is the rendered sample.

    alone: without the cameras that the folder knows; ours are found from the photos, before the clock starts.
    """

    folder: str | None
    downscale: int
    alone: bool = False


CASES = {
    "sample": Case(None, 1),
    "lego": Case("lego", 2),  # 800x800 -> 400x400
    "lego-800": Case("lego", 1),
    "fox": Case("fox", 4),  # 1080x1920 -> 270x480
    "fox-alone": Case("fox", 4, alone=True),
}


def rows(
    data: Path,
    scenes: Sequence[str] = tuple(CASES),
    budgets: Sequence[float] = (30,),
    methods: Sequence[str] = ("splat",),
) -> Iterator[dict[str, object]]:
    """One row for each scene whose folder lies in `data`, each method and each budget in seconds.

    A budget shapes the whole schedule, so each is a run of its own. Nothing is kept of the runs.
    """
    for scene in scenes:
        case = CASES[scene]
        if case.folder is not None and not (data / case.folder).is_dir():
            yield {"case": scene, "skipped": f"no {data / case.folder}"}
            continue
        with tempfile.TemporaryDirectory(prefix="lumigraph-bench-") as work:
            capture = sample(Path(work, "sample"))[1] if case.folder is None else data / case.folder
            if case.alone:
                lumigraph("pose", capture / "images", "-o", Path(work, "posed"), "--quiet")
                capture = Path(work, "posed")
            for method, seconds in product(methods, budgets):
                figures = train(capture, Path(work, "run"), method, seconds, case.downscale)
                yield {"case": f"{scene}, {seconds:g} s", "method": method, **figures}


def train(capture: Path, run: Path, method: str, seconds: float, downscale: int) -> dict[str, object]:
    """Figures of the evaluation, and the wall seconds of training with everything around it (photos, checkpoints)."""
    budget = ("--seconds", str(seconds), "--downscale", str(downscale))
    _, wall = lumigraph("train", capture, "-o", run, "-m", method, *budget, "--overwrite", "--quiet")
    result = json.loads(lumigraph("evaluate", run, "--json", "--quiet")[0])
    return {
        "psnr": round(result["psnr"], 2),
        "ssim": round(result["ssim"], 4),
        "views": result["views"],
        "train_seconds": result["train_seconds"],
        "wall_seconds": round(wall, 1),
        "steps": result["steps"],
        "steps_per_second": round(result["steps"] / result["train_seconds"], 1),
        "size": result["size"],
        "downscale": downscale,
    }
