"""GPU benchmark, a few minutes: compiles, checks and times the kernels, then prints a table.

    python -m benchmarks.gpu                            all parts; lego from ../shared/data, or --lego FOLDER
    python -m benchmarks.gpu --only first kernels       some parts
    python -m benchmarks.gpu --device cpu --quick       the same code on the CPU, to test the script

If gsplat is installed, both are timed in turns on equal gaussians, and their gradients are compared. Results go to
benchmarks/results/gpu.jsonl with the device's name.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.fields import shell
from benchmarks.run import ROOT, commit, record
from benchmarks.scenes import Scene, blob, pack, unpack
from lumigraph.kernels import cuda, hashgrid, splatting
from lumigraph.kernels.reference import hashgrid as reference
from lumigraph.scene.capture import Capture

COUNTS, SIZES = (100_000, 500_000, 2_000_000), ((800, 800), (1920, 1080))
REPEATS, WARM_UP = 20, 5
PARTS = ("first", "checks", "kernels", "fields", "training")
DEFAULT_TRAINING_S = 120

Row = dict[str, object]


def main() -> None:
    args = parse()
    device = torch.device(args.device)
    if device.type == "cuda" and (why := cuda.unavailable_reason()) is not None:
        raise SystemExit(f"{why}; --device cpu tries the script without one")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "processor"
    table = Table(title=f"{name}, torch {torch.__version__}, commit {commit()}")
    for column in ("part", "case", "figures"):
        table.add_column(column, overflow="fold")
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "first": lambda: first(args),
        "checks": lambda: checks(args),
        "kernels": lambda: kernels(args, device),
        "fields": lambda: fields(args, device),
        "training": lambda: training(args),
    }
    for part in args.only:
        for row in parts[part]():
            if not args.quick:
                record("gpu", {"device": name, "part": part, **row})
            print(part, row, flush=True)
            table.add_row(part, str(row["case"]), "  ".join(f"{k} {v}" for k, v in row.items() if k != "case"))
        table.add_section()
    Console(width=160).print(table)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmarks of Lumigraph on a GPU.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="small scenes and few repeats; nothing is recorded")
    parser.add_argument("--lego", type=Path, default=ROOT.parent / "shared" / "data" / "lego")
    parser.add_argument(
        "--seconds", type=float, default=DEFAULT_TRAINING_S, help="of the training; default: %(default)s"
    )
    return parser.parse_args()


# ---- start-up


def first(args: argparse.Namespace) -> Iterator[Row]:
    """Measure seconds from process start to the first training step, without and with cached kernels."""
    script = (
        "import time; start = time.perf_counter(); import torch; from benchmarks import gpu; "
        f"gpu.one_step(torch.device({args.device!r})); print(time.perf_counter() - start)"
    )
    with tempfile.TemporaryDirectory() as cache:
        for case in ("nothing compiled", "compiled before", "compiled before, again"):
            environment = {**os.environ, "LUMIGRAPH_CACHE": cache}
            run = subprocess.run(
                [sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
            )
            yield {"case": case, "seconds": round(float(run.stdout.split()[-1]), 2)}


def one_step(device: torch.device) -> None:
    scene = blob(1000, (64, 64))
    trainer, photo = trainer_of(scene, device), torch.zeros(3, 64, 64, dtype=torch.uint8, device=device)
    camera = splatting.Camera(scene.world_to_cam, scene.focal, scene.centre, scene.size)
    trainer.step(camera, 3, (0.0, 0.0, 0.0), photo, None, splatting.PhotometricLoss())
    finish(device)


def checks(args: argparse.Namespace) -> Iterator[Row]:
    """Run the tests of values and gradients against float64 on the device."""
    selection = "cuda" if args.device == "cuda" else "cpu and lowers_loss"
    command = [sys.executable, "-m", "pytest", "tests/kernels", "-k", selection, "-q"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    words = run.stdout.strip().splitlines() or [run.stderr.strip()]
    yield {"case": "values and gradients", "passed": run.returncode == 0, "said": words[-1] if words else ""}
    if run.returncode:
        print(run.stdout[-6000:])


# ---- kernels, compared with gsplat


def kernels(args: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    counts, sizes = ((2_000,), ((80, 60),)) if args.quick else (COUNTS, SIZES)
    for count in counts:
        for size in sizes:
            # as in training, more gaussians are smaller
            radius = 5.0 * (100_000 / count) ** 0.5 * (size[0] / 800) if not args.quick else 5.0
            scene = blob(count, size, degree=3, seed=1, radius=radius)
            scene = scene._replace(logit_opacities=scene.logit_opacities.clamp(max=3))  # below both caps of alpha
            yield from compare(scene, device, f"{count:,} at {size[0]}x{size[1]}", 2 if args.quick else REPEATS)


def compare(scene: Scene, device: torch.device, case: str, repeats: int) -> Iterator[Row]:
    """Measure medians in ms of Lumigraph and gsplat in turns."""
    lumigraph_side = Ours(scene, device)
    sides: dict[str, Any] = {"": lumigraph_side}
    if importlib.util.find_spec("gsplat") is not None and device.type == "cuda":
        sides["gsplat_"] = Gsplat(scene, device)
    row: Row = {"case": case}
    for metric, method in (("forward", "forward"), ("both", "forward_backward"), ("step", "step")):
        times: dict[str, list[float]] = {side: [] for side in sides}
        for i in range(WARM_UP + repeats):
            for side, renderer in sides.items():
                seconds = time_call(getattr(renderer, method), device)
                if i >= WARM_UP:
                    times[side].append(seconds)
        for side, values in times.items():
            row[f"{side}{metric}_ms"] = round(1e3 * statistics.median(values), 3)
        if len(sides) > 1:
            row[f"{metric}_ratio"] = round(statistics.median(times["gsplat_"]) / statistics.median(times[""]), 2)
    if device.type == "cuda":
        for side, renderer in sides.items():
            torch.cuda.reset_peak_memory_stats()
            renderer.step()
            finish(device)
            row[f"{side}peak_MiB"] = round(torch.cuda.max_memory_allocated() / 2**20)
    if len(sides) > 1:
        for name, truth in sides["gsplat_"].gradients().items():
            actual = lumigraph_side.gradients()[name]
            row[f"{name}_off"] = f"{float((actual - truth).norm() / truth.norm()):.1e}"
    yield row


class Ours:
    def __init__(self, scene: Scene, device: torch.device) -> None:
        self.scene, self.device = scene, device
        self.params, self.sh_rest = (rows.to(device) for rows in pack(scene))
        self.camera = splatting.Camera(scene.world_to_cam, scene.focal, scene.centre, scene.size)
        width, height = scene.size
        self.photo = torch.randint(0, 255, (3, height, width), dtype=torch.uint8).to(device)
        self.weight = dl(scene).to(device)
        self.trainer, self.photometric = trainer_of(scene, device), splatting.PhotometricLoss()

    def forward(self) -> None:
        with torch.no_grad():
            splatting.render(self.params, self.sh_rest, self.camera, 3, self.scene.background)

    def forward_backward(self) -> None:
        params, sh_rest = self.params.requires_grad_(), self.sh_rest.requires_grad_()
        params.grad = sh_rest.grad = None
        rgb, _, _ = splatting.render(params, sh_rest, self.camera, 3, self.scene.background)
        (rgb * self.weight).sum().backward()

    def step(self) -> None:
        background = self.scene.background.tolist()
        self.trainer.step(self.camera, 3, background, self.photo, None, self.photometric, synchronize=False)

    def gradients(self) -> dict[str, Tensor]:
        self.forward_backward()
        assert self.params.grad is not None and self.sh_rest.grad is not None
        return unpack(self.params.grad, self.sh_rest.grad, 3)


class Gsplat:
    """gsplat with its recommended settings for one GPU: unpacked, with fused SSIM and selective Adam if available."""

    NAMES = ("means", "log_scales", "quats", "logit_opacities", "sh")

    def __init__(self, scene: Scene, device: torch.device) -> None:
        import gsplat

        self.render, self.device, self.scene = gsplat.rasterization, device, scene
        width, height = scene.size
        self.leaves = {name: getattr(scene, name).to(device).requires_grad_() for name in self.NAMES}
        self.view = torch.eye(4, device=device)[None].clone()
        self.view[0, :3] = scene.world_to_cam.to(device)
        (fx, fy), (cx, cy) = scene.focal, scene.centre
        self.K = torch.tensor([[[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]], device=device)
        self.background = scene.background.to(device)[None]
        self.weight = dl(scene).to(device)
        self.photo = torch.rand(1, height, width, 3, device=device)
        selective = getattr(gsplat, "SelectiveAdam", None)
        groups = [{"params": [leaf], "lr": 1e-5, "name": name} for name, leaf in self.leaves.items()]
        self.selective = selective is not None
        self.optimizers = (
            [selective([group], eps=1e-15, betas=(0.9, 0.999)) for group in groups]
            if selective is not None
            else [torch.optim.Adam([group], eps=1e-15, fused=True) for group in groups]
        )
        has_fused_ssim = importlib.util.find_spec("fused_ssim") is not None
        self.ssim = importlib.import_module("fused_ssim").fused_ssim if has_fused_ssim else None

    def image(self) -> tuple[Tensor, Any]:
        x, (width, height) = self.leaves, self.scene.size
        rgb, _, meta = self.render(
            x["means"], x["quats"], x["log_scales"].exp(), x["logit_opacities"].sigmoid(), x["sh"], self.view, self.K,
            width, height, sh_degree=3, packed=False, backgrounds=self.background,
        )  # fmt: skip
        return rgb, meta

    def forward(self) -> None:
        with torch.no_grad():
            self.image()

    def forward_backward(self) -> None:
        for leaf in self.leaves.values():
            leaf.grad = None
        (self.image()[0][0] * self.weight).sum().backward()

    def step(self) -> None:
        rgb, meta = self.image()
        loss = 0.8 * (rgb - self.photo).abs().mean()
        if self.ssim is not None:
            loss = loss + 0.2 * (1 - self.ssim(rgb.permute(0, 3, 1, 2), self.photo.permute(0, 3, 1, 2)))
        loss.backward()
        is_visible = (meta["radii"] > 0).reshape(1, len(self.leaves["means"]), -1).all(-1)[0]
        for optimizer in self.optimizers:
            optimizer.step(is_visible) if self.selective else optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def gradients(self) -> dict[str, Tensor]:
        self.forward_backward()
        return {name: leaf.grad for name, leaf in self.leaves.items() if leaf.grad is not None}


def dl(scene: Scene) -> Tensor:
    """(H, W, 3) dL/drgb, the same for both."""
    width, height = scene.size
    return torch.randn(height, width, 3, generator=torch.Generator().manual_seed(7))


def trainer_of(scene: Scene, device: torch.device) -> splatting.Trainer:
    trainer = splatting.Trainer(len(scene.means), device)
    trainer.count = len(scene.means)
    params, sh_rest = pack(scene)
    trainer.params.copy_(params)
    trainer.sh_rest.copy_(sh_rest)
    trainer.optimizer.lr = [1e-5] * 14 + [0.0, 0.0]
    trainer.optimizer.lr_sh = 1e-5
    return trainer


def time_call(work: Callable[[], None], device: torch.device) -> float:
    finish(device)
    start = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - start


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


# ---- the field of instant-NGP


def fields(args: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """Millions of samples a second, forward and backward together, compared with plain PyTorch on the same device."""
    samples = 1 << (12 if args.quick else 18)
    xyz, direction = (rows.to(device) for rows in shell(samples))
    for log2_entries in (15, 19):
        grid = hashgrid.HashGrid(log2_entries)
        leaves = [grid.init_table().mul_(1e4).to(device), hashgrid.init_mlp_weights().to(device)]
        table, weights = (leaf.requires_grad_() for leaf in leaves)
        table.grad = torch.zeros_like(table)

        def forward_backward(table: Tensor = table, weights: Tensor = weights, grid: hashgrid.HashGrid = grid) -> None:
            hashgrid.query_field(grid, table, weights, xyz, direction, table.grad).sum().backward()

        def plain(table: Tensor = table, weights: Tensor = weights, grid: hashgrid.HashGrid = grid) -> None:
            reference.query_field(grid.levels, table, weights, xyz, direction).sum().backward()

        row: Row = {"case": f"{samples:,} samples, tables of 2^{log2_entries}"}
        for name, work in (("", forward_backward), ("plain_torch_", plain)):
            times = [time_call(work, device) for _ in range(WARM_UP + (2 if args.quick else REPEATS))][WARM_UP:]
            row[f"{name}msamples_per_second"] = round(samples / statistics.median(times) * 1e-6, 2)
        yield row


# ---- training


def training(args: argparse.Namespace) -> Iterator[Row]:
    """Measure PSNR of held-out views over time, final PSNR and SSIM, and the frame rate."""
    from lumigraph.captures.readers import blender
    from lumigraph.methods import ngp
    from lumigraph.methods import splat as gaussians

    if not (args.lego / "transforms_train.json").exists():
        yield {"case": "lego 800x800", "skipped": f"no {args.lego}"}
        return
    capture = blender.read(args.lego)
    if args.quick:
        capture = capture.select(range(0, len(capture), 40))
        capture = replace(capture, photos=Smaller(capture.photos), cameras=capture.cameras.resize(torch.tensor(SMALL)))
    training_capture, held_out = capture.split()
    for method, seconds in ((gaussians, 3.0 if args.quick else args.seconds), (ngp, 3.0 if args.quick else 30.0)):
        yield from train_and_evaluate(args, method, seconds, training_capture, held_out)


def train_and_evaluate(
    args: argparse.Namespace, method: Any, seconds: float, training_capture: Capture, held_out: Capture
) -> Iterator[Row]:
    from lumigraph.methods.train import Budget, evaluate, train
    from lumigraph.wire.events import Metrics

    budget, name = Budget(seconds=seconds), f"lego by {method.NAME}"
    learning = method.start(training_capture, method.Config(), budget, args.device)
    for event in train(learning, held_out, budget, look_every=5.0, save=lambda *_: None, save_every=1e9):
        if isinstance(event, Metrics) and "psnr" in event.values:
            metrics = {key: round(event.values[key], 2) for key in ("psnr", "gaussians") if key in event.values}
            yield {"case": f"{name} at {event.seconds:.0f} s, step {event.step}, a few views", **metrics}
    view_metrics = _last(evaluate(learning.field, held_out))
    means = {metric: round(statistics.mean(view[metric] for view in view_metrics), 3) for metric in ("psnr", "ssim")}
    yield {"case": f"{name} after {seconds:g} s, {len(view_metrics)} held-out views", **means}
    device, cameras = torch.device(args.device), held_out.cameras.to(args.device)
    views = range(min(40, len(cameras)))
    for camera in (cameras[i] for i in views):
        learning.field.render(camera)
    finish(device)
    start = time.perf_counter()
    for camera in (cameras[i] for i in views):
        learning.field.render(camera)
    finish(device)
    rate = len(views) / (time.perf_counter() - start)
    memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else 0
    yield {"case": f"{name}, rendering", "frames_per_second": round(rate, 1), "peak_MiB": round(memory)}


SMALL = (80, 80)


class Smaller:
    """Downsampled photos for a quick run."""

    def __init__(self, photos: Any) -> None:
        self.photos = photos

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, i: int) -> Tensor:
        step = self.photos[i].shape[0] // SMALL[1]
        return self.photos[i][::step, ::step].contiguous()


def _last(steps: Any) -> Any:
    """Return the return value of a generator."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


if __name__ == "__main__":
    main()
