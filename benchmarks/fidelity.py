"""Compare the PSNR of our own renderer with that of an independent renderer of the exported PLY.

Training runs through the command line. Held-out photos of any captures are then evaluated twice: by `evaluate`, and by
`independent`, which reads the PLY. Rows include the seconds of each stage and the memory of training.
"""

import json
import resource
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from benchmarks import independent
from benchmarks.cli import lumigraph, sample
from lumigraph.captures import undistort
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.capture import Capture
from lumigraph.scene.images import composite_over, write_png
from lumigraph.scene.metrics import ssim
from lumigraph.studio.run import CACHE, Run
from lumigraph.studio.training import DEFAULT_LONGEST_SIDE_PX, load_field, read_capture
from lumigraph.wire.events import Event

Row = dict[str, object]
Result = TypeVar("Result")


def rows(captures: Sequence[Path], budgets: Sequence[float] = (60,), looks: Path | None = None) -> Iterator[Row]:
    """Yield one row for each capture and each budget in seconds; by default, of the rendered sample.

    looks: output folder for images of the held-out views: photo, own renderer and independent renderer in a row.
    """
    with tempfile.TemporaryDirectory(prefix="lumigraph-bench-") as work:
        folders = {folder.resolve().name: folder for folder in captures} or {"sample": sample(Path(work, "sample"))[1]}
        for name, folder in folders.items():
            for seconds in budgets:
                if folder.is_dir():
                    run = Path(work, f"{name}-{seconds:g}")
                    yield {"case": f"{name}, {seconds:g} s", **measure(folder, run, ("--seconds", f"{seconds}"), looks)}
                else:
                    yield {"case": f"{name}, {seconds:g} s", "skipped": f"no {folder}"}


def measure(folder: Path, run: Path, budget: Sequence[str], looks: Path | None = None) -> Row:
    """Train, evaluate and export, each in a separate process; then evaluate the file.

    Photos are undistorted first, into the cache of the run, so that this stage has its own seconds. Memory is the
    maximum of all processes so far.
    """
    file = run.with_suffix(".ply")
    start = time.perf_counter()
    capture, downscale = prepare(folder, run / CACHE)
    prepare_seconds = time.perf_counter() - start
    options = (*budget, "--downscale", f"{downscale!r}", "--overwrite", "--quiet")
    _, train_seconds = lumigraph("train", folder, "-o", run, "-m", "splat", *options)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    evaluation, evaluate_seconds = lumigraph("evaluate", run, "--json", "--quiet")
    _, export_seconds = lumigraph("export", run, "-o", file, "--quiet")

    own = json.loads(evaluation)
    gaussians = independent.read_ply(file)
    images = [
        independent.render(gaussians, view_of(capture.cameras, i), background_of(capture)).clip(0, 1)
        for i in range(len(capture))
    ]
    scores = [measure_view(image, capture, i) for i, image in enumerate(images)]
    gaps = [abs(view["psnr"] - psnr) for view, (psnr, _) in zip(own["per_view"], scores, strict=True)]
    if looks is not None:
        save_looks(looks / folder.resolve().name, run, capture, images)
    return {
        "psnr": round(own["psnr"], 2),
        "independent_psnr": round(float(np.mean([psnr for psnr, _ in scores])), 2),
        "largest_gap_db": round(max(gaps), 3),
        "ssim": round(own["ssim"], 4),
        "independent_ssim": round(float(np.mean([similarity for _, similarity in scores])), 4),
        "views": own["views"],
        "worst_view": round(min(psnr for psnr, _ in scores), 2),
        "steps": own["steps"],
        "gaussians": len(gaussians),
        "memory_mb": round(memory / 1e6),
        "prepare_seconds": round(prepare_seconds, 1),
        "train_seconds": round(own["train_seconds"], 1),
        "train_wall_seconds": round(train_seconds, 1),
        "evaluate_seconds": round(evaluate_seconds, 1),
        "export_seconds": round(export_seconds, 1),
        "downscale": round(downscale, 3),
    }


def prepare(folder: Path, cache: Path) -> tuple[Capture, float]:
    """Prepare a capture in the cache of a run: its held-out views, and the downscale that `train` chooses."""
    capture = read_capture(folder, None)
    downscale = max(1.0, int(capture.cameras.sizes.max()) / DEFAULT_LONGEST_SIDE_PX)
    return drain(undistort.prepare(capture, cache, downscale)).split()[1], downscale


def drain(task: Generator[Event, None, Result]) -> Result:
    while True:
        try:
            next(task)
        except StopIteration as stop:
            result: Result = stop.value
            return result


def view_of(cameras: Cameras, i: int) -> independent.View:
    """Convert pinhole camera i for the independent renderer."""
    (fx, fy), (cx, cy) = cameras.focal[i].tolist(), cameras.centre[i].tolist()
    return independent.View(cameras.cam_from_world[i].double().numpy(), (fx, fy), (cx, cy), cameras.size(i))


def background_of(capture: Capture) -> tuple[float, float, float]:
    """Background colour: white for cut-outs, by convention; else black."""
    return (1.0, 1.0, 1.0) if capture.has_alpha else (0.0, 0.0, 0.0)


def measure_view(image: independent.Floats, capture: Capture, i: int) -> tuple[float, float]:
    """PSNR in dB and SSIM of an image (H, W, 3) of view i against its photo."""
    photo = composite_over(capture.photo(i), torch.ones(3))
    return independent.psnr(image, photo.double().numpy()), ssim(torch.from_numpy(image), photo)


def save_looks(folder: Path, run: Path, capture: Capture, images: Sequence[independent.Floats]) -> None:
    """Write NAME.png for each view: its photo, our own rendering and the independent one in a row."""
    field, card = load_field(Run(run), "cpu")
    folder.mkdir(parents=True, exist_ok=True)
    for i, (name, image) in enumerate(zip(capture.names, images, strict=True)):
        white = torch.ones(3)
        photo = composite_over(capture.photo(i), white)
        own = field.render(capture.cameras[i], white if card.over_white else None).rgb[0].clamp(0, 1)
        side_by_side = torch.cat([photo, own, torch.from_numpy(image).float()], dim=1)
        write_png(folder / f"{Path(name).stem}.png", side_by_side)
