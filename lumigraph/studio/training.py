"""The verb `train`: a capture becomes a run, or a run that was stopped goes on where it was."""

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

LONGEST_SIDE = 1000  # pixels, to which photos are reduced by default: in the same time, more steps beat more pixels
FEWEST_PHOTOS = 3  # to train with
SAVE_EVERY = 20.0  # seconds
LOOKS = 30  # at a few held-out views, over the whole training: the points of its curve
LOOK_EVERY = 2.0  # seconds of training between two looks at least, and where only steps are counted


def train(request: TrainRequest) -> Generator[Event, None, Run]:
    """Raises CaptureError, RunError and OSError. Whenever it stops, by whatever, the run goes on with `resume`."""
    run = _existing(request)
    if run is not None:
        run.configure(_continued(run, request))
        card = run.field_card()
        if card is not None and card.finished and _spent(run.config, card):
            spent = f"{run.path} has had its {card.step} steps in {card.seconds:.0f} s"
            yield Note(text=f"{spent}; a larger --seconds or --steps goes on")
            return run
        capture = read_capture(Path(run.config.capture), run.config.holdout)
    else:
        capture = read_capture(request.capture, request.holdout)
        config, notes = _planned(request, capture)
        run = Run.create(request.out, config)
        yield from run.record(iter(notes))
    yield from run.record(_learn(run, capture))
    return run


def read_capture(path: Path, holdout: int | None) -> Capture:
    """The posed photos at `path`. `holdout` replaces which are held out: every N-th in name order, 0 for none."""
    capture = registry.capture_reader(path).read(path)
    if holdout is not None:
        held_out = torch.zeros(len(capture), dtype=torch.bool)
        if holdout:
            in_order = sorted(range(len(capture)), key=lambda i: capture.names[i])
            held_out[in_order[::holdout]] = True
        capture = dataclasses.replace(capture, held_out=held_out)
    left = len(capture) - int(capture.held_out.sum())
    if left < FEWEST_PHOTOS:
        raise CaptureError(
            f"{path} leaves {left} of {len(capture)} photos to train with and {FEWEST_PHOTOS} are the fewest; "
            "add photos, or hold out fewer with --holdout"
        )
    return capture


def prepared(run: Run, capture: Capture) -> Generator[Event, None, Capture]:
    """The capture as this run trains with it: pinhole and at the run's size, made once and then kept in its cache."""
    return (yield from undistort.prepare(capture, run.path / CACHE, run.config.downscale))


def load_field(run: Run, device: str) -> tuple[Field, FieldCard]:
    """The field as last saved, which an unfinished run has too."""
    state, card = run.field_state()
    method = registry.method(card.method)
    device, _ = devices.choose(device, getattr(method, "DEVICES", ("cpu",)))
    with written_by(card.version, run.path):
        return method.load({name: tensor.to(device) for name, tensor in state.items()}), card


@contextmanager
def written_by(version: str, path: Path) -> Iterator[None]:
    """Says, where a state is refused, that another version of this program wrote it."""
    try:
        yield
    except RunError as error:
        if version == lumigraph.__version__:
            raise
        told = f"{path} was written by Lumigraph {version}, and this is {lumigraph.__version__}"
        raise RunError(f"{error}; {told}: use that version, or train again with --overwrite") from error


# ---- what to do


def _existing(request: TrainRequest) -> Run | None:
    """The run to go on with, or None to start anew. Raises RunError where that would lose somebody's work."""
    if request.overwrite or not is_run(request.out):
        return None
    run = Run(request.out)
    if request.resume:
        return run
    card = run.field_card()
    what = "a finished run" if card is not None and card.finished else "an unfinished run"
    raise RunError(f"{request.out} already holds {what}; add --resume to go on with it or --overwrite to start again")


def _planned(request: TrainRequest, capture: Capture) -> tuple[RunConfig, list[Event]]:
    """What to do, and what to say about everything that was not asked for but chosen."""
    name = request.method or registry.DEFAULT_METHOD
    method = registry.method(name)
    settings = config_schema.resolve(method.Config, _with_seed(method, request))
    device, told = devices.choose(request.device, getattr(method, "DEVICES", ("cpu",)))
    longest, count = int(capture.cameras.sizes.max()), len(capture)
    notes: list[Event] = [Note(text=text, level="warning") for text in (*capture.notes, *([told] if told else ()))]
    downscale = request.downscale
    if downscale is None:
        side = _longest_side(method, request, capture, device)
        downscale = max(1.0, longest / side)
        if downscale > 1:
            why = f" so that {request.seconds:g} s suffice for {count} photos" if side < LONGEST_SIDE else ""
            told = f"photos reduced to {side} pixels on the longer side{why}; --downscale changes that"
            notes.append(Note(text=told))
    seconds = request.seconds
    if seconds is None and request.steps is None:
        megapixels = float(capture.cameras.sizes.double().prod(dim=1).mean()) / downscale**2 / 1e6
        seconds = default_seconds(count, megapixels)
        chosen = f"training for {seconds:.0f} s, chosen for {count} photos of {megapixels:.2g} megapixels"
        notes.append(Note(text=f"{chosen}; --seconds or --steps changes that"))
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
    """Pixels to which photos are reduced: fewer where the method finds that the budget is short for them."""
    plan = getattr(method, "longest_side", None)
    if plan is None or request.seconds is None:
        return LONGEST_SIDE
    training_photos = capture.select(~capture.held_out)
    return int(plan(training_photos, loop.Budget(request.seconds, request.steps), LONGEST_SIDE, device))


def default_seconds(photos: int, megapixels: float) -> float:
    """A budget for a capture: a step costs time by its pixels and a larger place needs more steps, so it grows with
    the photos and with the root of their size; between two minutes and half an hour, in round numbers."""
    return min(max(round(6 * photos * math.sqrt(megapixels), -1), 120.0), 1800.0)


def _continued(run: Run, request: TrainRequest) -> RunConfig:
    """The stored config with the new budget. Raises RunError where the request asks for another run than this one."""
    old = run.config
    method = registry.method(old.method)
    stored = config_schema.with_current_names(method.Config, old.settings)
    requested = config_schema.with_current_names(method.Config, request.settings)
    settings = dataclasses.asdict(config_schema.resolve(method.Config, {**stored, **requested}))
    fixed = {
        "method": (request.method, old.method),
        "downscale": (request.downscale, old.downscale),
        "holdout": (request.holdout, old.holdout),
        "seed": (request.seed, old.seed),
        **{name: (settings[name], _jsonable(stored[name])) for name in requested if name in settings},
    }
    for name, (new, was) in fixed.items():
        if new is not None and _jsonable(new) != was:
            raise RunError(f"{run.path} was begun with {name} {was}, not {new}; leave that out, or use --overwrite")
    capture = str(request.capture.resolve())
    if capture != old.capture and Path(old.capture).exists():  # a capture that was moved is welcome at its new place
        raise RunError(f"{run.path} was begun with the capture {old.capture}, not {capture}; choose another folder")
    asked = request.seconds is not None or request.steps is not None
    return old.model_copy(
        update={
            "capture": capture,
            "seconds": request.seconds if asked else old.seconds,
            "steps": request.steps if asked else old.steps,
            "device": devices.choose(request.device, getattr(method, "DEVICES", ("cpu",)))[0],
        }
    )


def _spent(config: RunConfig, card: FieldCard) -> bool:
    in_time = config.seconds is None or card.seconds < config.seconds
    return not (in_time and (config.steps is None or card.step < config.steps))


def _with_seed(method: registry.Method, request: TrainingOptions) -> dict[str, object]:
    """A method that draws its own random numbers has a setting `seed`; it takes the run's."""
    given: dict[str, object] = dict(request.settings)
    if any(setting.name == "seed" for setting in config_schema.settings(method.Config)):
        given.setdefault("seed", request.seed or 0)
    return given


def _jsonable(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


# ---- doing it


def _learn(run: Run, capture: Capture) -> Generator[Event, None, None]:
    config = run.config
    for folder in (run.path, run.path / CHECKPOINTS):
        remove_stale_files(folder)
    method = registry.method(config.method)
    settings = config_schema.resolve(method.Config, config.settings)
    budget = loop.Budget(config.seconds, config.steps)
    ready = yield from prepared(run, capture)
    learned_from, held_out = ready.split()

    torch.manual_seed(config.seed)
    checkpoint = run.checkpoint()
    if checkpoint is None:
        run.save_cameras(ready.cameras, ready.names, ready.held_out)
        training = method.start(learned_from, settings, budget, config.device)
    else:
        for name in checkpoint.damaged_files:
            yield Note(text=f"the checkpoint {name} is damaged; going on from the one before", level="warning")
        yield Note(text=f"going on from step {checkpoint.step}, after {checkpoint.seconds:.0f} s of training")
        with written_by(config.version, run.path):
            training = method.resume(learned_from, settings, checkpoint.state, budget, config.device)

    own_gains = bool(getattr(training, "learns_exposure", False))
    own_poses = _save_cameras(run, ready, training)
    done = (0, 0.0) if checkpoint is None else (checkpoint.step, checkpoint.seconds)

    def card(finished: bool) -> FieldCard:
        return FieldCard(
            version=config.version,
            method=config.method,
            step=done[0],
            seconds=done[1],
            finished=finished,
            over_white=capture.has_alpha,
            own_gains=own_gains,
            own_poses=own_poses,
        )

    def save(training: Training, step: int, seconds: float) -> str:
        nonlocal done
        path = run.save_checkpoint(training.state(), step, seconds)
        done = (step, seconds)
        if own_poses:
            _save_cameras(run, ready, training)
        run.save_field(training.field.state(), card(finished=False))
        return str(path)

    look_every = max(LOOK_EVERY, (config.seconds or 0.0) / LOOKS)
    yield from loop.train(
        training, held_out, budget, look_every=look_every, save=save, save_every=SAVE_EVERY, done=done
    )
    run.save_field(training.field.state(), card(finished=True))
    yield ArtifactWritten(path=str(run.path / FIELD), what=f"field after {done[0]} steps in {done[1]:.0f} s")


def _save_cameras(run: Run, ready: Capture, training: Training) -> bool:
    """Write the run's cameras, those of training as it corrected them. Returns whether it corrects cameras."""
    refined: Tensor | None = getattr(training, "refined_poses", None)
    cameras = ready.cameras
    if refined is not None:
        poses = cameras.world_from_cam.clone()
        poses[~ready.held_out] = refined.to(poses)
        cameras = dataclasses.replace(cameras, world_from_cam=poses)
    run.save_cameras(cameras, ready.names, ready.held_out)
    return refined is not None
