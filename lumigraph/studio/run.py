"""The folder of one run, and how it survives a full disk, Ctrl-C and kill -9 at any moment.

    config.json          what was asked and what was chosen; its presence makes a folder a run
    cameras.safetensors  the cameras as trained with, corrected where the training did so: a path can be rendered
                         without the photos
    checkpoint/          step-000123.safetensors (the newest two) and latest.json, which says which count
    field.safetensors    the field as last saved: all that render, evaluate and export read
    events.jsonl         what happened, one event a line
    evaluation.json report.html renders/
    shown/               pictures and a packed scene for a browser, where a server trained it
    cache/               prepared photos, which can be made again
    capture/ scan.json   the poses that `scan` found, and for which photos

Every file is written beside its place, synced and renamed; `latest.json` is renamed last, so a checkpoint counts when
it is whole and never before. events.jsonl alone is appended to: its last line may be torn, and is then dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import RunError
from lumigraph.studio.files import atomic_path, remove, remove_stale_files
from lumigraph.wire.events import Event, Metrics, Progress, from_line, to_line
from lumigraph.wire.requests import Scalar

CONFIG, CAMERAS, FIELD, LOG = "config.json", "cameras.safetensors", "field.safetensors", "events.jsonl"
CHECKPOINTS, LATEST = "checkpoint", "latest.json"
EVALUATION, REPORT, RENDERS, PREVIEWS_FOLDER = "evaluation.json", "report.html", "renders", "shown"
CACHE, CAPTURE, SCAN = "cache", "capture", "scan.json"
TURNTABLE, SCENE = "turntable.mp4", "scene.ply"
# What a new training makes stale, in the order of removal: first what counts the checkpoints, last what makes a run.
MADE = (FIELD, EVALUATION, REPORT, RENDERS, PREVIEWS_FOLDER, TURNTABLE, SCENE, LOG, CAMERAS)
STALE = (f"{CHECKPOINTS}/{LATEST}", CHECKPOINTS, *MADE, CONFIG)
KEPT = (CACHE, CAPTURE, SCAN)
CHECKPOINTS_KEPT = 2

Model = TypeVar("Model", bound=BaseModel)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class RunConfig(_Record):
    """config.json. `seconds` and `steps` are the whole budget, counted from the first step."""

    version: str
    method: str
    settings: dict[str, Scalar | list[Scalar]]
    capture: str
    downscale: float = Field(ge=1)
    holdout: int | None
    seconds: float | None
    steps: int | None
    device: str
    seed: int


class FieldCard(_Record):
    """What the file of a field says about itself."""

    version: str
    method: str
    step: int
    seconds: float
    finished: bool
    own_gains: bool = (
        False  # the exposure of each photo was learned; held-out views are judged by a gain of their own too
    )
    own_poses: bool = False  # training was to correct its cameras; held-out views are also judged after an alignment
    over_white: bool = False  # its photos are cut out; by convention they are judged and shown over white


class _Entry(_Record):
    file: str = Field(pattern=r"^step-\d{6,12}\.safetensors$")
    step: int = Field(ge=0)
    seconds: float = Field(ge=0)
    sha256: str


class _Latest(_Record):
    checkpoints: list[_Entry]  # newest first


@dataclass(frozen=True)
class Checkpoint:
    state: dict[str, Tensor]
    step: int  # steps done
    seconds: float  # spent training
    damaged: tuple[str, ...]  # newer checkpoints that could not be read


class Run:
    """An existing run folder."""

    def __init__(self, path: Path) -> None:
        """Raises RunError when `path` is not a run."""
        self.path = path
        if not path.exists():
            raise RunError(f"{path} does not exist; `lumigraph train CAPTURE -o {path}` makes a run")
        if not is_run(path):
            raise RunError(f"{path} is not a run (it has no {CONFIG}); `lumigraph train CAPTURE -o RUN` makes one")
        self.config = _read(RunConfig, path / CONFIG)

    @staticmethod
    def claim(path: Path) -> None:
        """Make the folder. Raises RunError when it holds anything that is not of a run: that is somebody's work."""
        if path.is_dir():
            remove_stale_files(path)
            ours = {name.split("/")[0] for name in STALE} | set(KEPT)
            foreign = sorted(entry.name for entry in path.iterdir() if not _ours(entry.name, ours))
            if foreign:
                raise RunError(f"{path} is not empty and not a run (it holds {foreign[0]!r}); choose another folder")
        path.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def create(path: Path, config: RunConfig) -> Run:
        """Make `path` a new run, forgetting an older one in it but keeping prepared photos and found poses.

        Raises RunError as `claim` does.
        """
        Run.claim(path)
        for name in STALE:
            remove(path / name)
        for folder in (CHECKPOINTS, RENDERS):
            (path / folder).mkdir(exist_ok=True)
        write_text(path / CONFIG, config.model_dump_json(indent=2) + "\n")
        return Run(path)

    def configure(self, config: RunConfig) -> None:
        write_text(self.path / CONFIG, config.model_dump_json(indent=2) + "\n")
        self.config = config

    # ---- checkpoints

    def save_checkpoint(self, state: Mapping[str, Tensor], step: int, seconds: float) -> Path:
        """Write a checkpoint and keep the one before it. When this raises, those on disk still count."""
        folder = self.path / CHECKPOINTS
        folder.mkdir(exist_ok=True)
        file = folder / f"step-{step:06d}.safetensors"
        digest = write_tensors(file, state, {})
        older = [entry for entry in self._entries() if entry.step < step]
        latest = _Latest(checkpoints=[_Entry(file=file.name, step=step, seconds=seconds, sha256=digest), *older])
        latest = _Latest(checkpoints=latest.checkpoints[:CHECKPOINTS_KEPT])
        write_text(folder / LATEST, latest.model_dump_json(indent=2) + "\n")
        kept = {entry.file for entry in latest.checkpoints}
        for other in folder.glob("step-*.safetensors"):
            if other.name not in kept:
                other.unlink(missing_ok=True)
        remove_stale_files(folder)
        return file

    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None where none was written. Raises RunError when all are damaged."""
        damaged: list[str] = []
        for entry in self._entries():
            file = self.path / CHECKPOINTS / entry.file
            if file.is_file() and _sha256(file) == entry.sha256:
                state, _ = read_tensors(file)
                return Checkpoint(state, entry.step, entry.seconds, tuple(damaged))
            damaged.append(entry.file)
        if damaged:
            raise RunError(
                f"every checkpoint in {self.path / CHECKPOINTS} is damaged ({', '.join(damaged)}); "
                "start again with --overwrite"
            )
        return None

    def _entries(self) -> list[_Entry]:
        file = self.path / CHECKPOINTS / LATEST
        return _read(_Latest, file).checkpoints if file.exists() else []

    # ---- the field and its cameras

    def save_field(self, state: Mapping[str, Tensor], card: FieldCard) -> Path:
        write_tensors(self.path / FIELD, state, {"lumigraph": card.model_dump_json()})
        return self.path / FIELD

    def field_card(self) -> FieldCard | None:
        """What the saved field says about itself, without loading it; None before the first save."""
        return _card(self.path / FIELD) if (self.path / FIELD).exists() else None

    def field_state(self) -> tuple[dict[str, Tensor], FieldCard]:
        """Raises RunError when nothing was saved yet, or the file is cut or holds numbers that are not finite."""
        file = self.path / FIELD
        if not file.exists():
            raise RunError(f"{self.path} has nothing trained yet; run `lumigraph train ... -o {self.path} --resume`")
        card = _card(file)
        state, _ = read_tensors(file)
        for name, tensor in state.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise RunError(f"{file}: {name!r} holds numbers that are not finite; train again with --overwrite")
        return state, card

    def save_cameras(self, cameras: Cameras, names: tuple[str, ...], held_out: Tensor) -> None:
        """The prepared (pinhole) cameras of the whole capture."""
        tensors = {
            "world_from_cam": cameras.world_from_cam,
            "focal": cameras.focal,
            "centre": cameras.centre,
            "sizes": cameras.sizes,
            "held_out": held_out,
        }
        write_tensors(self.path / CAMERAS, tensors, {"names": json.dumps(names)})

    def cameras(self) -> tuple[Cameras, Tensor]:
        """The cameras trained with, and which of them were held out (N,) bool."""
        file = self.path / CAMERAS
        if not file.exists():
            raise RunError(f"{file} is missing; run `lumigraph train ... -o {self.path} --resume` to write it again")
        tensors, _ = read_tensors(file)
        try:
            held_out = tensors["held_out"].bool()
            pose, focal, centre = tensors["world_from_cam"], tensors["focal"], tensors["centre"]
            cameras = Cameras(pose, focal, centre, tensors["sizes"])
        except (KeyError, ValueError) as error:
            raise RunError(f"{file} is damaged ({error}); train again with --overwrite") from error
        return cameras, held_out

    # ---- what happened

    def record(self, events: Iterator[Event]) -> Generator[Event, None, None]:
        """The same events, written down on their way; not those of progress, which are for who watches."""
        log = EventLog(self.path / LOG)
        try:
            for event in events:
                if not isinstance(event, Progress):
                    log.append(event)
                yield event
        finally:
            if isinstance(events, Generator):
                events.close()
            log.close()

    def history(self) -> list[Metrics]:
        """The training's metrics, oldest first. What a resumed run did twice counts the second time only."""
        kept: list[Metrics] = []
        for event in read_events(self.path / LOG):
            if isinstance(event, Metrics):
                while kept and kept[-1].step >= event.step:
                    kept.pop()
                kept.append(event)
        return kept


class EventLog:
    """Appends events, a line each, after dropping a line that a crash left unfinished."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        whole = _whole_lines(path.read_bytes())
        if whole != self._file.tell():
            self._file.truncate(whole)

    def append(self, event: Event) -> None:
        self._file.write(to_line(event).encode() + b"\n")

    def close(self) -> None:
        self._file.close()


def read_events(path: Path) -> list[Event]:
    """The events of a log. Raises RunError on a line that is no event, unless it is the unfinished last one."""
    if not path.exists():
        return []
    data = path.read_bytes()
    events = []
    for number, line in enumerate(data[: _whole_lines(data)].splitlines(), start=1):
        try:
            events.append(from_line(line))
        except ValidationError as error:
            raise RunError(f"{path}, line {number}, is not an event; remove the line") from error
    return events


def is_run(path: Path) -> bool:
    return (path / CONFIG).is_file()


# ---- reading and writing


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> str:
    """Write a safetensors file; returns its SHA-256. Raises OSError, as any write does, when the disk is full."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the umask wants it; safetensors would keep the file to its owner alone
        try:
            save_file(plain, temporary, metadata)
        except SafetensorError as error:
            code = re.search(r"os error (\d+)", str(error))
            if code is None:
                raise
            raise OSError(int(code.group(1)), os.strerror(int(code.group(1))), str(path)) from error
        temporary.chmod(mode)
        digest = _sha256(temporary)
    return digest


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises RunError when it is cut or not one."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise RunError(f"{path} is damaged ({error}); train again with --overwrite") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _whole_lines(data: bytes) -> int:
    return data.rfind(b"\n") + 1


def _card(path: Path) -> FieldCard:
    try:
        with safe_open(path, framework="pt") as file:
            return FieldCard.model_validate_json((file.metadata() or {}).get("lumigraph", ""))
    except (SafetensorError, ValidationError) as error:
        raise RunError(f"{path} is damaged or not a field of a run; train again with --overwrite") from error


def _read(model: type[Model], path: Path) -> Model:
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RunError(f"{path} is damaged: {where}: {first['msg']}") from error


def _ours(name: str, ours: set[str]) -> bool:
    return name in ours or ".tmp-" in name or name == ".DS_Store"
