"""What others see of an export against what was measured: PSNR of our own renderer and of an independent one.

Held-out photos of any captures are judged twice after training through the command line: by `evaluate`, and by
`independent`, which reads the exported PLY. With the seconds of each stage and the memory of training.
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
from lumigraph.studio.training import LONGEST_SIDE, load_field, read_capture
from lumigraph.wire.events import Event

Row = dict[str, object]
Result = TypeVar("Result")


def rows(captures: Sequence[Path], budgets: Sequence[float] = (60,), looks: Path | None = None) -> Iterator[Row]:
    """One row for each capture and each budget in seconds; the rendered sample where no capture is named.

    looks: a folder for pictures of the held-out views: photo, own renderer and independent renderer side by side.
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
    """Train, evaluate and export, each in a process of its own; then judge the file.

    Photos are undistorted first, into the cache where training finds them, so that this stage has seconds of its own.
    Memory is the largest of any process so far.
    """
    file = run.with_suffix(".ply")
    started = time.perf_counter()
    capture, downscale = prepare(folder, run / CACHE)
    prepared = time.perf_counter() - started
    options = (*budget, "--downscale", f"{downscale!r}", "--overwrite", "--quiet")
    _, trained = lumigraph("train", folder, "-o", run, "-m", "splat", *options)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    evaluation, evaluated = lumigraph("evaluate", run, "--json", "--quiet")
    _, exported = lumigraph("export", run, "-o", file, "--quiet")

    own = json.loads(evaluation)
    gaussians = independent.read_ply(file)
    pictures = [
        independent.render(gaussians, view_of(capture.cameras, i), background_of(capture)).clip(0, 1)
        for i in range(len(capture))
    ]
    judged = [judge(picture, capture, i) for i, picture in enumerate(pictures)]
    gaps = [abs(view["psnr"] - psnr) for view, (psnr, _) in zip(own["per_view"], judged, strict=True)]
    if looks is not None:
        save_looks(looks / folder.resolve().name, run, capture, pictures)
    return {
        "psnr": round(own["psnr"], 2),
        "independent_psnr": round(float(np.mean([psnr for psnr, _ in judged])), 2),
        "largest_gap_db": round(max(gaps), 3),
        "ssim": round(own["ssim"], 4),
        "independent_ssim": round(float(np.mean([similarity for _, similarity in judged])), 4),
        "views": own["views"],
        "worst_view": round(min(psnr for psnr, _ in judged), 2),
        "steps": own["steps"],
        "gaussians": len(gaussians),
        "memory_mb": round(memory / 1e6),
        "prepare_seconds": round(prepared, 1),
        "train_seconds": round(own["train_seconds"], 1),
        "train_wall_seconds": round(trained, 1),
        "evaluate_seconds": round(evaluated, 1),
        "export_seconds": round(exported, 1),
        "downscale": round(downscale, 3),
    }


def prepare(folder: Path, cache: Path) -> tuple[Capture, float]:
    """(The held-out views of a capture as a run with this cache trains with it, the downscale that train chooses)."""
    capture = read_capture(folder, None)
    downscale = max(1.0, int(capture.cameras.sizes.max()) / LONGEST_SIDE)
    return drain(undistort.prepare(capture, cache, downscale)).split()[1], downscale


def drain(task: Generator[Event, None, Result]) -> Result:
    while True:
        try:
            next(task)
        except StopIteration as stop:
            result: Result = stop.value
            return result


def view_of(cameras: Cameras, i: int) -> independent.View:
    """Camera i of pinhole cameras, for the independent renderer."""
    (fx, fy), (cx, cy) = cameras.focal[i].tolist(), cameras.centre[i].tolist()
    return independent.View(cameras.cam_from_world[i].double().numpy(), (fx, fy), (cx, cy), cameras.size(i))


def background_of(capture: Capture) -> tuple[float, float, float]:
    """White behind cut-outs, as they are evaluated by convention; else black."""
    return (1.0, 1.0, 1.0) if capture.has_alpha else (0.0, 0.0, 0.0)


def judge(picture: independent.Floats, capture: Capture, i: int) -> tuple[float, float]:
    """PSNR in dB and SSIM of a picture (H, W, 3) of view i against its photo."""
    photo = composite_over(capture.photo(i), torch.ones(3))
    return independent.psnr(picture, photo.double().numpy()), ssim(torch.from_numpy(picture), photo)


def save_looks(folder: Path, run: Path, capture: Capture, pictures: Sequence[independent.Floats]) -> None:
    """NAME.png for each view: its photo, our own rendering and the independent one side by side."""
    field, card = load_field(Run(run), "cpu")
    folder.mkdir(parents=True, exist_ok=True)
    for i, (name, picture) in enumerate(zip(capture.names, pictures, strict=True)):
        white = torch.ones(3)
        photo = composite_over(capture.photo(i), white)
        own = field.render(capture.cameras[i], white if card.over_white else None).rgb[0].clamp(0, 1)
        side_by_side = torch.cat([photo, own, torch.from_numpy(picture).float()], dim=1)
        write_png(folder / f"{Path(name).stem}.png", side_by_side)
