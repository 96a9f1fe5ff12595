"""The folder of one run, which survives a full disk, Ctrl-C and kill -9 at any moment.

    config.json          request and resolved settings; a folder with this file is a run
    cameras.safetensors  the training cameras, with pose corrections if refined; camera paths render without the photos
    checkpoint/          step-000123.safetensors (the newest two) and latest.json, the list of valid checkpoints
    field.safetensors    the last saved field: the only input of render, evaluate and export
    events.jsonl         event log, one event per line
    evaluation.json report.html renders/
    shown/               previews for a browser, if a server trained the run
    cache/               prepared photos, which can be written again
    capture/ scan.json   camera poses estimated by `scan`, and the list of its photos

Every file is written to a temporary path, synced and renamed. `latest.json` is renamed last, so only complete
checkpoints are valid. events.jsonl is appended to; an incomplete last line is dropped.
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
# Stale files at a new training, in the order of removal: first the list of checkpoints, last config.json.
RESULT_FILES = (FIELD, EVALUATION, REPORT, RENDERS, PREVIEWS_FOLDER, TURNTABLE, SCENE, LOG, CAMERAS)
STALE_FILES = (f"{CHECKPOINTS}/{LATEST}", CHECKPOINTS, *RESULT_FILES, CONFIG)
REUSABLE_FILES = (CACHE, CAPTURE, SCAN)
MAX_CHECKPOINTS = 2

Model = TypeVar("Model", bound=BaseModel)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class RunConfig(_Record):
    """config.json. `seconds` and `steps` are the total budget, counted from the first step."""

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
    """Metadata in the file of a field."""

    version: str
    method: str
    step: int
    seconds: float
    finished: bool
    own_gains: bool = False  # training fitted an exposure per photo; evaluation also fits a gain per held-out view
    own_poses: bool = False  # training refined its cameras; evaluation also aligns each held-out camera
    over_white: bool = False  # the photos have alpha; by convention they are evaluated and rendered over white


class _CheckpointEntry(_Record):
    file: str = Field(pattern=r"^step-\d{6,12}\.safetensors$")
    step: int = Field(ge=0)
    seconds: float = Field(ge=0)
    sha256: str


class _CheckpointList(_Record):
    checkpoints: list[_CheckpointEntry]  # newest first


@dataclass(frozen=True)
class Checkpoint:
    state: dict[str, Tensor]
    step: int  # number of finished steps
    seconds: float  # training time
    damaged_files: tuple[str, ...]  # newer checkpoints that could not be read


class Run:
    """An existing run folder."""

    def __init__(self, path: Path) -> None:
        """Open the run at `path`. Raises RunError if `path` is not a run."""
        self.path = path
        if not path.exists():
            raise RunError(f"{path} does not exist; `lumigraph train CAPTURE -o {path}` makes a run")
        if not is_run(path):
            raise RunError(f"{path} is not a run (it has no {CONFIG}); `lumigraph train CAPTURE -o RUN` makes one")
        self.config = _read(RunConfig, path / CONFIG)

    @staticmethod
    def claim(path: Path) -> None:
        """Create the folder. Raises RunError if it holds files of anything else, to protect the user's work."""
        if path.is_dir():
            remove_stale_files(path)
            run_names = {name.split("/")[0] for name in STALE_FILES} | set(REUSABLE_FILES)
            foreign = sorted(entry.name for entry in path.iterdir() if not _is_run_file(entry.name, run_names))
            if foreign:
                raise RunError(f"{path} is not empty and not a run (it holds {foreign[0]!r}); choose another folder")
        path.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def create(path: Path, config: RunConfig) -> Run:
        """Create a new run at `path`. Remove an older run in it, except prepared photos and estimated poses.

        Raises RunError like `claim`.
        """
        Run.claim(path)
        for name in STALE_FILES:
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
        """Write a checkpoint and keep the previous one. If this raises, the checkpoints on disk stay valid."""
        folder = self.path / CHECKPOINTS
        folder.mkdir(exist_ok=True)
        file = folder / f"step-{step:06d}.safetensors"
        digest = write_tensors(file, state, {})
        older = [entry for entry in self._entries() if entry.step < step]
        latest = _CheckpointList(
            checkpoints=[_CheckpointEntry(file=file.name, step=step, seconds=seconds, sha256=digest), *older]
        )
        latest = _CheckpointList(checkpoints=latest.checkpoints[:MAX_CHECKPOINTS])
        write_text(folder / LATEST, latest.model_dump_json(indent=2) + "\n")
        valid_files = {entry.file for entry in latest.checkpoints}
        for path in folder.glob("step-*.safetensors"):
            if path.name not in valid_files:
                path.unlink(missing_ok=True)
        remove_stale_files(folder)
        return file

    def checkpoint(self) -> Checkpoint | None:
        """Return the newest intact checkpoint, or None if none was written. Raises RunError if all are damaged."""
        damaged_files: list[str] = []
        for entry in self._entries():
            file = self.path / CHECKPOINTS / entry.file
            if file.is_file() and _sha256(file) == entry.sha256:
                state, _ = read_tensors(file)
                return Checkpoint(state, entry.step, entry.seconds, tuple(damaged_files))
            damaged_files.append(entry.file)
        if damaged_files:
            raise RunError(
                f"every checkpoint in {self.path / CHECKPOINTS} is damaged ({', '.join(damaged_files)}); "
                "start again with --overwrite"
            )
        return None

    def _entries(self) -> list[_CheckpointEntry]:
        file = self.path / CHECKPOINTS / LATEST
        return _read(_CheckpointList, file).checkpoints if file.exists() else []

    # ---- the field and its cameras

    def save_field(self, state: Mapping[str, Tensor], card: FieldCard) -> Path:
        write_tensors(self.path / FIELD, state, {"lumigraph": card.model_dump_json()})
        return self.path / FIELD

    def field_card(self) -> FieldCard | None:
        """Return the metadata of the saved field without loading it; None before the first save."""
        return _card(self.path / FIELD) if (self.path / FIELD).exists() else None

    def field_state(self) -> tuple[dict[str, Tensor], FieldCard]:
        """Read the saved field. Raises RunError if it is missing or truncated or contains non-finite numbers."""
        file = self.path / FIELD
        if not file.exists():
            raise RunError(f"{self.path} has no trained field yet; run `lumigraph train ... -o {self.path} --resume`")
        card = _card(file)
        state, _ = read_tensors(file)
        for name, tensor in state.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise RunError(f"{file}: {name!r} holds numbers that are not finite; train again with --overwrite")
        return state, card

    def save_cameras(self, cameras: Cameras, names: tuple[str, ...], held_out: Tensor) -> None:
        """Write the prepared (pinhole) cameras of the whole capture."""
        tensors = {
            "world_from_cam": cameras.world_from_cam,
            "focal": cameras.focal,
            "centre": cameras.centre,
            "sizes": cameras.sizes,
            "held_out": held_out,
        }
        write_tensors(self.path / CAMERAS, tensors, {"names": json.dumps(names)})

    def cameras(self) -> tuple[Cameras, Tensor]:
        """Return all N cameras as used in training, and the held-out mask (N,) bool."""
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

    # ---- event log

    def record(self, events: Iterator[Event]) -> Generator[Event, None, None]:
        """Yield `events` and append them to the log. Progress events are not logged."""
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
        """Return the training metrics, oldest first. Of steps repeated after a resume, the later metrics count."""
        history: list[Metrics] = []
        for event in read_events(self.path / LOG):
            if isinstance(event, Metrics):
                while history and history[-1].step >= event.step:
                    history.pop()
                history.append(event)
        return history


class EventLog:
    """Appends events, one per line. First it drops an incomplete last line left by a crash."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        length = _complete_length(path.read_bytes())
        if length != self._file.tell():
            self._file.truncate(length)

    def append(self, event: Event) -> None:
        self._file.write(to_line(event).encode() + b"\n")

    def close(self) -> None:
        self._file.close()


def read_events(path: Path) -> list[Event]:
    """Read an event log. Raises RunError if a line is not an event; an incomplete last line is ignored."""
    if not path.exists():
        return []
    data = path.read_bytes()
    events = []
    for number, line in enumerate(data[: _complete_length(data)].splitlines(), start=1):
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
    """Write a safetensors file and return its SHA-256. Raises OSError, for example if the disk is full."""
    cpu_tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # follows the umask; safetensors would restrict the file to its owner
        try:
            save_file(cpu_tensors, temporary, metadata)
        except SafetensorError as error:
            code = re.search(r"os error (\d+)", str(error))
            if code is None:
                raise
            raise OSError(int(code.group(1)), os.strerror(int(code.group(1))), str(path)) from error
        temporary.chmod(mode)
        digest = _sha256(temporary)
    return digest


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a safetensors file. Raises RunError if it is truncated or of another format."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise RunError(f"{path} is damaged ({error}); train again with --overwrite") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _complete_length(data: bytes) -> int:
    """Return the length of the complete lines of `data` in bytes."""
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


def _is_run_file(name: str, run_names: set[str]) -> bool:
    return name in run_names or ".tmp-" in name or name == ".DS_Store"
