"""Training loop of all methods, and evaluation on held-out views."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.methods import pose_refinement
from lumigraph.methods.memory import taken
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import RunError
from lumigraph.scene.field import Field, Training
from lumigraph.scene.images import composite_over, from_uint8
from lumigraph.scene.metrics import psnr, ssim
from lumigraph.wire.events import CheckpointWritten, Event, Metrics, Note, Progress

OWN_POSE_ITERATIONS = 5
LOOK_VIEWS = 4  # held-out views rendered for a preview metric
LOOK_SHARE = 0.1  # share of time for preview metrics: some methods render slowly
PROGRESS_INTERVAL_S = 0.2  # seconds between Progress events
FIRST_SAVE_DELAY_S = 2.0  # seconds: an early preview for the waiting user; each later pause is twice as long
SAVE_SHARE = 0.05  # share of time for early saves


@dataclass(frozen=True)
class Budget:
    """How long to train: seconds of training, or steps, or whichever ends first."""

    seconds: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.seconds is None and self.steps is None:
            raise RunError("a training needs a budget: give --seconds or --steps")
        if (self.seconds is not None and not self.seconds > 0) or (self.steps is not None and self.steps < 1):
            raise RunError("a budget must be more than nothing: give --seconds above 0 or --steps of at least 1")

    def spent(self, step: int, seconds: float) -> float:
        """Share of the budget spent, 0..1."""
        shares = [step / self.steps if self.steps else 0.0, seconds / self.seconds if self.seconds else 0.0]
        return min(max(shares), 1.0)


def train(
    training: Training,
    held_out: Capture,
    budget: Budget,
    *,
    look_every: float,
    save: Callable[[Training, int, float], str | None],
    save_every: float = 20.0,
    done: tuple[int, float] = (0, 0.0),
) -> Iterator[Event]:
    """Step until the budget is spent. `done` = (steps, seconds) of training before, when resuming.

    A step with a non-finite loss must change nothing. Raises RunError if it occurs; the last good state is saved.

    The first save comes early and the pauses between them double up to `save_every`, where saving is quick.
    Only seconds inside `step` count, not preview metrics, saves or a paused consumer. Closing the generator,
    an interrupt or an error saves first, if anything was learned since the last save.
    """
    step, seconds = done
    saved_at, evaluated_at, last_progress = seconds, seconds, 0.0
    has_unsaved_steps, pause = False, look_every
    save_pause = min(FIRST_SAVE_DELAY_S, save_every)
    preview_views = held_out.select(range(0, len(held_out), max(1, len(held_out) // LOOK_VIEWS))[:LOOK_VIEWS])
    stats: dict[str, float] = {}
    try:
        yield from (Note(text=text, level="warning") for text in getattr(training, "notes", ()))
        while (progress := budget.spent(step, seconds)) < 1:
            start = time.perf_counter()
            stats = training.step(step, progress)
            if not math.isfinite(stats.get("loss", 0.0)):
                raise RunError(
                    f"the loss is not a number after {step:,} steps; what was learned until then is saved. "
                    "Begin again with a smaller learning rate, one of the method's settings"
                )
            seconds += time.perf_counter() - start
            step += 1
            has_unsaved_steps = True
            if start - last_progress > PROGRESS_INTERVAL_S:
                last_progress = start
                yield _progress(budget, step, seconds)
            if seconds - evaluated_at > pause:
                evaluated_at, began = seconds, time.perf_counter()
                metrics = _preview_metrics(training.field, preview_views)
                pause = max(look_every, (time.perf_counter() - began) / LOOK_SHARE)
                yield Metrics(
                    step=step, seconds=seconds, values={**stats, **metrics, "memory": taken(training.field.box.device)}
                )
            if seconds - saved_at > save_pause:
                saved_at, has_unsaved_steps, began = seconds, False, time.perf_counter()
                path = save(training, step, seconds)
                save_pause = min(save_every, max(2 * save_pause, (time.perf_counter() - began) / SAVE_SHARE))
                if path is not None:
                    yield CheckpointWritten(step=step, path=path)
        yield _progress(budget, step, seconds)
        yield from (Note(text=text, level="warning") for text in getattr(training, "closing_notes", list)())
        metrics = _preview_metrics(training.field, preview_views)
        yield Metrics(
            step=step, seconds=seconds, values={**stats, **metrics, "memory": taken(training.field.box.device)}
        )
    finally:
        if has_unsaved_steps:
            path = save(training, step, seconds)
    if has_unsaved_steps and path is not None:
        yield CheckpointWritten(step=step, path=path)


def evaluate(
    field: Field, capture: Capture, own_gains: bool = False, own_poses: bool = False
) -> Generator[Event, None, list[dict[str, object]]]:
    """PSNR and SSIM of each view of `capture`: [{"name", "psnr", "ssim"}, ...].

    Photos with alpha are evaluated over white by convention, over black as "psnr_black", and by the mean absolute
    error of alpha, "alpha_error".

    own_gains: also "psnr_own_gain", for fields whose training learned the exposure of every photo. Each half of a
    render gets the channel gains that fit the other half (Martin-Brualla et al. 2021 fit on one half and evaluate the
    other). own_poses: also "psnr_own_pose", for fields whose training corrected the cameras. Each camera is first
    aligned to its photo, as in BARF (Lin et al. 2021).
    """
    views: list[dict[str, object]] = []
    start = time.perf_counter()
    for i, name in enumerate(capture.names):
        views.append({"name": name, **_evaluate_view(field, capture, i, own_gains, own_poses)})
        left = (time.perf_counter() - start) / (i + 1) * (len(capture) - i - 1)
        yield Progress(stage="evaluate", done=i + 1, total=len(capture), unit="views", seconds_left=left)
    return views


def _evaluate_view(
    field: Field, capture: Capture, i: int, own_gains: bool = False, own_poses: bool = False, *, complete: bool = True
) -> dict[str, float]:
    """PSNR of one view; complete: with all other metrics."""
    device, photo = field.box.device, capture.photo(i)
    as_posed = capture.cameras[i]

    def over(grey: float, camera: Cameras = as_posed) -> tuple[Tensor, Tensor, Tensor | None]:
        """(render, photo, rendered alpha) over a grey background, which photos without alpha do not have."""
        background = torch.full((3,), grey)
        with torch.no_grad():
            image = field.render(camera.to(device), background.to(device) if capture.has_alpha else None)
        rgb = image.rgb[0].clamp(0, 1).cpu()
        if rgb.isnan().any():
            raise RunError(
                f"{capture.names[i]} is rendered to what are no numbers; the field is damaged, train it again"
            )
        return rgb, composite_over(photo, background), image.alpha

    rgb, target, alpha = over(1.0)
    metrics = {"psnr": psnr(rgb, target)}
    if complete:
        metrics["ssim"] = ssim(rgb, target)
    if complete and own_gains:
        metrics["psnr_own_gain"] = psnr(with_own_gains(rgb, target), target)
    if complete and own_poses:
        metrics["psnr_own_pose"] = psnr(*over(1.0, _with_own_pose(field, capture, i))[:2])
    if complete and capture.has_alpha:
        metrics["psnr_black"] = psnr(*over(0.0)[:2])
        if alpha is not None:
            metrics["alpha_error"] = float((alpha[0].cpu() - from_uint8(photo[..., 3:])).abs().mean())
    return metrics


def _with_own_pose(field: Field, capture: Capture, i: int) -> Cameras:
    """Camera i (one), moved until the render lies on its photo."""
    device = field.box.device
    camera = capture.cameras[i].to(device, torch.float32)
    grey = composite_over(capture.photo(i), torch.zeros(3)).mean(-1).to(device)
    mask = None if capture.masks is None else capture.masks[i][..., 0].to(device)
    pose = capture.cameras[i].to(dtype=torch.float64).cam_from_world[0]
    aligned_pose, _ = pose_refinement.align_camera(field, camera, pose, grey, mask, OWN_POSE_ITERATIONS)
    return pose_refinement.posed(camera, aligned_pose)


def with_own_gains(rgb: Tensor, photo: Tensor) -> Tensor:
    """The render (H, W, 3) times the gain of each channel that fits the photo best: the left half by the gain of the
    right half, the right half by that of the left."""
    middle = rgb.shape[1] // 2
    left, right = slice(0, middle), slice(middle, None)

    def gain(part: slice) -> Tensor:
        image_part, photo_part = rgb[:, part], photo[:, part]
        return (image_part * photo_part).sum((0, 1)) / image_part.square().sum((0, 1)).clamp(min=1e-6)

    return torch.cat([rgb[:, left] * gain(right), rgb[:, right] * gain(left)], 1).clamp(0, 1)


def _preview_metrics(field: Field, preview_views: Capture) -> dict[str, float]:
    if not len(preview_views):
        return {}
    values = [_evaluate_view(field, preview_views, i, complete=False)["psnr"] for i in range(len(preview_views))]
    return {"psnr": sum(values) / len(values)}


def _metrics(training: Training, step: int, seconds: float, values: dict[str, float]) -> Metrics:
    """`memory` is in bytes, of the device that trains."""
    return Metrics(
        step=step, seconds=seconds, values={**values, "memory": taken(torch.device(training.field.box.device))}
    )


def _progress(budget: Budget, step: int, seconds: float) -> Progress:
    if budget.seconds is None or (budget.steps is not None and step / budget.steps > seconds / budget.seconds):
        assert budget.steps is not None
        left = seconds / max(step, 1) * (budget.steps - step)
        return Progress(stage="train", done=step, total=budget.steps, unit="steps", seconds_left=left)
    total = budget.seconds
    return Progress(
        stage="train", done=min(seconds, total), total=total, unit="s", seconds_left=max(total - seconds, 0.0)
    )
