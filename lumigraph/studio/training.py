"""The verb `train`: train a run on a capture, or resume a stopped run from its checkpoint."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

import lumigraph
from lumigraph.captures import undistort
from lumigraph.methods import devices
from lumigraph.methods import train as loop
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import CaptureError, RunError
from lumigraph.scene.field import Field, Training
from lumigraph.studio import config_schema, registry
from lumigraph.studio.files import remove_stale_files
from lumigraph.studio.run import CACHE, CHECKPOINTS, FIELD, FieldCard, Run, RunConfig, is_run
from lumigraph.wire.events import ArtifactWritten, Event, Note
from lumigraph.wire.requests import TrainingOptions, TrainRequest

DEFAULT_LONGEST_SIDE_PX = 1000  # of training photos: in the same time, more steps beat more pixels
MIN_TRAINING_PHOTOS = 3
CHECKPOINT_INTERVAL_S = 20.0
PREVIEW_EVALUATION_COUNT = 30  # points of the training curve, from a few held-out views
MIN_PREVIEW_EVALUATION_INTERVAL_S = 2.0  # of training; the interval of a budget without seconds


def train(request: TrainRequest) -> Generator[Event, None, Run]:
    """Train a run and return it. A run that stopped for any reason continues with `resume`.

    Raises CaptureError, RunError and OSError.
    """
    run = _existing(request)
    if run is not None:
        run.configure(_resumed_config(run, request))
        card = run.field_card()
        if card is not None and card.finished and _is_budget_spent(run.config, card):
            summary = f"{run.path} has finished {card.step} steps in {card.seconds:.0f} s"
            yield Note(text=f"{summary}; continue with a larger --seconds or --steps")
            return run
        capture = read_capture(Path(run.config.capture), run.config.holdout)
    else:
        capture = read_capture(request.capture, request.holdout)
        config, notes = _plan_run(request, capture)
        run = Run.create(request.out, config)
        yield from run.record(iter(notes))
    yield from run.record(_train(run, capture))
    return run


def read_capture(path: Path, holdout: int | None) -> Capture:
    """Read the posed photos at `path`. `holdout` overrides the split: every Nth photo in name order, 0 for none.

    Raises CaptureError if too few photos are left to train on.
    """
    capture = registry.capture_reader(path).read(path)
    if holdout is not None:
        held_out = torch.zeros(len(capture), dtype=torch.bool)
        if holdout:
            name_order = sorted(range(len(capture)), key=lambda i: capture.names[i])
            held_out[name_order[::holdout]] = True
        capture = dataclasses.replace(capture, held_out=held_out)
    training_count = len(capture) - int(capture.held_out.sum())
    if training_count < MIN_TRAINING_PHOTOS:
        raise CaptureError(
            f"{path} leaves {training_count} of {len(capture)} photos to train on, at least {MIN_TRAINING_PHOTOS} "
            "are needed; add photos, or hold out fewer with --holdout"
        )
    return capture


def prepare_capture(run: Run, capture: Capture) -> Generator[Event, None, Capture]:
    """Undistort and resize a capture for this run. The images are cached in the folder of the run."""
    return (yield from undistort.prepare(capture, run.path / CACHE, run.config.downscale))


def load_field(run: Run, device: str) -> tuple[Field, FieldCard]:
    """Load the last saved field; unfinished runs have one too. Raises RunError."""
    state, card = run.field_state()
    method = registry.method(card.method)
    device, _ = devices.choose(device, getattr(method, "DEVICES", ("cpu",)))
    with explain_version_errors(card.version, run.path):
        return method.load({name: tensor.to(device) for name, tensor in state.items()}), card


@contextmanager
def explain_version_errors(version: str, path: Path) -> Iterator[None]:
    """Add to a RunError that another version of this program wrote the state at `path`."""
    try:
        yield
    except RunError as error:
        if version == lumigraph.__version__:
            raise
        versions = f"{path} was written by Lumigraph {version}, and this is {lumigraph.__version__}"
        raise RunError(f"{error}; {versions}: use that version, or train again with --overwrite") from error


# ---- configuration


def _existing(request: TrainRequest) -> Run | None:
    """Return the run to resume, or None to start a new one. Raises RunError if that would overwrite a run."""
    if request.overwrite or not is_run(request.out):
        return None
    run = Run(request.out)
    if request.resume:
        return run
    card = run.field_card()
    existing = "a finished run" if card is not None and card.finished else "an unfinished run"
    raise RunError(f"{request.out} already holds {existing}; add --resume to continue it or --overwrite to restart")


def _plan_run(request: TrainRequest, capture: Capture) -> tuple[RunConfig, list[Event]]:
    """Return the config of a new run, and notes about the defaults that were chosen."""
    name = request.method or registry.DEFAULT_METHOD
    method = registry.method(name)
    settings = config_schema.resolve(method.Config, _with_seed(method, request))
    device, device_note = devices.choose(request.device, getattr(method, "DEVICES", ("cpu",)))
    longest_px, count = int(capture.cameras.sizes.max()), len(capture)
    warnings = (*capture.notes, *([device_note] if device_note else ()))
    notes: list[Event] = [Note(text=text, level="warning") for text in warnings]
    downscale = request.downscale
    if downscale is None:
        side_px = _longest_side(method, request, capture, device)
        downscale = max(1.0, longest_px / side_px)
        if downscale > 1:
            is_reduced = side_px < DEFAULT_LONGEST_SIDE_PX
            reason = f" so that {request.seconds:g} s suffice for {count} photos" if is_reduced else ""
            text = f"photos reduced to {side_px} pixels on the longer side{reason}; --downscale changes that"
            notes.append(Note(text=text))
    seconds = request.seconds
    if seconds is None and request.steps is None:
        megapixels = float(capture.cameras.sizes.double().prod(dim=1).mean()) / downscale**2 / 1e6
        seconds = default_seconds(count, megapixels)
        text = f"training for {seconds:.0f} s, chosen for {count} photos of {megapixels:.2g} megapixels"
        notes.append(Note(text=f"{text}; --seconds or --steps changes that"))
    config = RunConfig(
        version=lumigraph.__version__,
        method=name,
        settings=dataclasses.asdict(settings),
        capture=str(request.capture.resolve()),
        downscale=downscale,
        holdout=request.holdout,
        seconds=seconds,
        steps=request.steps,
        device=device,
        seed=request.seed or 0,
    )
    return config, notes


def _longest_side(method: registry.Method, request: TrainRequest, capture: Capture, device: str) -> int:
    """Return the longest side of training photos in pixels. Methods may choose fewer for a short budget."""
    plan = getattr(method, "longest_side", None)
    if plan is None or request.seconds is None:
        return DEFAULT_LONGEST_SIDE_PX
    training_photos = capture.select(~capture.held_out)
    return int(plan(training_photos, loop.Budget(request.seconds, request.steps), DEFAULT_LONGEST_SIDE_PX, device))


def default_seconds(photos: int, megapixels: float) -> float:
    """Return a rounded time budget between 2 and 30 minutes. It grows with the number of photos, since a larger scene
    needs more steps, and with the root of their size, since a step costs time per pixel."""
    return min(max(round(6 * photos * math.sqrt(megapixels), -1), 120.0), 1800.0)


def _resumed_config(run: Run, request: TrainRequest) -> RunConfig:
    """Return the stored config with the new budget. Raises RunError if the request contradicts the stored config."""
    old = run.config
    method = registry.method(old.method)
    stored_settings = config_schema.with_current_names(method.Config, old.settings)
    requested_settings = config_schema.with_current_names(method.Config, request.settings)
    settings = dataclasses.asdict(config_schema.resolve(method.Config, {**stored_settings, **requested_settings}))
    fixed_options = {
        "method": (request.method, old.method),
        "downscale": (request.downscale, old.downscale),
        "holdout": (request.holdout, old.holdout),
        "seed": (request.seed, old.seed),
        **{name: (settings[name], _jsonable(stored_settings[name])) for name in requested_settings if name in settings},
    }
    for name, (new_value, old_value) in fixed_options.items():
        if new_value is not None and _jsonable(new_value) != old_value:
            raise RunError(
                f"{run.path} was begun with {name} {old_value}, not {new_value}; leave that out, or use --overwrite"
            )
    capture = str(request.capture.resolve())
    if capture != old.capture and Path(old.capture).exists():  # a moved capture is accepted
        raise RunError(f"{run.path} was begun with the capture {old.capture}, not {capture}; choose another folder")
    has_new_budget = request.seconds is not None or request.steps is not None
    return old.model_copy(
        update={
            "capture": capture,
            "seconds": request.seconds if has_new_budget else old.seconds,
            "steps": request.steps if has_new_budget else old.steps,
            "device": devices.choose(request.device, getattr(method, "DEVICES", ("cpu",)))[0],
        }
    )


def _is_budget_spent(config: RunConfig, card: FieldCard) -> bool:
    has_time_left = config.seconds is None or card.seconds < config.seconds
    return not (has_time_left and (config.steps is None or card.step < config.steps))


def _with_seed(method: registry.Method, request: TrainingOptions) -> dict[str, object]:
    """Return the settings; a method with a setting `seed` gets the seed of the run."""
    settings: dict[str, object] = dict(request.settings)
    if any(setting.name == "seed" for setting in config_schema.settings(method.Config)):
        settings.setdefault("seed", request.seed or 0)
    return settings


def _jsonable(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


# ---- training


def _train(run: Run, capture: Capture) -> Generator[Event, None, None]:
    config = run.config
    for folder in (run.path, run.path / CHECKPOINTS):
        remove_stale_files(folder)
    method = registry.method(config.method)
    settings = config_schema.resolve(method.Config, config.settings)
    budget = loop.Budget(config.seconds, config.steps)
    prepared_capture = yield from prepare_capture(run, capture)
    training_capture, held_out = prepared_capture.split()

    torch.manual_seed(config.seed)
    checkpoint = run.checkpoint()
    if checkpoint is None:
        run.save_cameras(prepared_capture.cameras, prepared_capture.names, prepared_capture.held_out)
        training = method.start(training_capture, settings, budget, config.device)
    else:
        for name in checkpoint.damaged_files:
            yield Note(text=f"the checkpoint {name} is damaged; using the previous one", level="warning")
        yield Note(text=f"continuing from step {checkpoint.step}, after {checkpoint.seconds:.0f} s of training")
        with explain_version_errors(config.version, run.path):
            training = method.resume(training_capture, settings, checkpoint.state, budget, config.device)

    own_gains = bool(getattr(training, "learns_exposure", False))
    own_poses = _save_cameras(run, prepared_capture, training)
    saved_progress = (0, 0.0) if checkpoint is None else (checkpoint.step, checkpoint.seconds)

    def field_card(is_finished: bool) -> FieldCard:
        return FieldCard(
            version=config.version,
            method=config.method,
            step=saved_progress[0],
            seconds=saved_progress[1],
            finished=is_finished,
            over_white=capture.has_alpha,
            own_gains=own_gains,
            own_poses=own_poses,
        )

    def save(training: Training, step: int, seconds: float) -> str:
        nonlocal saved_progress
        path = run.save_checkpoint(training.state(), step, seconds)
        saved_progress = (step, seconds)
        if own_poses:
            _save_cameras(run, prepared_capture, training)
        run.save_field(training.field.state(), field_card(is_finished=False))
        return str(path)

    interval_s = max(MIN_PREVIEW_EVALUATION_INTERVAL_S, (config.seconds or 0.0) / PREVIEW_EVALUATION_COUNT)
    yield from loop.train(
        training,
        held_out,
        budget,
        look_every=interval_s,
        save=save,
        save_every=CHECKPOINT_INTERVAL_S,
        done=saved_progress,
    )
    run.save_field(training.field.state(), field_card(is_finished=True))
    yield ArtifactWritten(
        path=str(run.path / FIELD), what=f"field after {saved_progress[0]} steps in {saved_progress[1]:.0f} s"
    )


def _save_cameras(run: Run, capture: Capture, training: Training) -> bool:
    """Save the cameras of the run with the poses that training refined. Returns whether training refines poses."""
    refined_poses: Tensor | None = getattr(training, "refined_poses", None)
    cameras = capture.cameras
    if refined_poses is not None:
        poses = cameras.world_from_cam.clone()
        poses[~capture.held_out] = refined_poses.to(poses)
        cameras = dataclasses.replace(cameras, world_from_cam=poses)
    run.save_cameras(cameras, capture.names, capture.held_out)
    return refined_poses is not None
