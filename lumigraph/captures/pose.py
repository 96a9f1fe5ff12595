"""Camera poses from photos alone: structure from motion in a child process.

The stages run in `sfm.process`, for two reasons. pycolmap aborts the interpreter if it is loaded before zlib. A crash
or the out-of-memory killer must end one job, not the whole server.

Events come back through a pipe, one JSON object per line. An unread pipe fills up and pauses the child, and closing the
generator kills it. The child also exits when its standard input closes, so that it never outlives its parent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Literal

from lumigraph.captures.photos import PhotoSet
from lumigraph.captures.sfm import image_pairs as pairing
from lumigraph.captures.sfm.image_pairs import Matching
from lumigraph.captures.sfm.pose_report import PoseReport, find_failures, find_warnings
from lumigraph.captures.sfm.request import Mapper, Request
from lumigraph.scene.atomic_files import atomic_write
from lumigraph.scene.errors import CaptureError
from lumigraph.wire.events import Event, Note, from_line

__all__ = ["CameraMode", "PoseReport", "estimate"]

CameraMode = Literal["auto", "single", "per-photo"]
REPORT_FILE = "pose.json"
IMAGE_FOLDER, MODEL_FOLDER = "images", Path("sparse", "0")
MAX_IMAGE_SIDE_PX = 1000  # pixels of the longer side at feature extraction
MAX_FEATURES = 3072  # per photo; matching time grows with its square
FOCAL_TOLERANCE = 0.01  # relative difference of EXIF focal lengths that count as one zoom setting
MAX_NAMES_IN_ERROR = 5
MIN_PHOTOS = 3  # two photos alone cannot confirm their cameras
ADVICE = (
    "take sharp photos that overlap by two thirds or more, of something textured that stands still, and move between "
    "them instead of turning on the spot"
)


def estimate(
    photos: PhotoSet,
    out: Path,
    *,
    matching: Matching = "auto",
    mapper: Mapper = "incremental",
    camera: CameraMode = "auto",
    allow_partial: bool = False,
    max_image_size: int = MAX_IMAGE_SIDE_PX,
    max_features: int = MAX_FEATURES,
    seed: int = 0,
) -> Generator[Event, None, PoseReport]:
    """Estimate the cameras of photos and write `out` as a COLMAP capture: images/, sparse/0/*.bin and pose.json.

    camera: "auto" shares a camera among photos of one size and focal length, "single" among all photos; "per-photo"
    shares none. No features are extracted where a photo is masked or transparent. Lenses are OPENCV (k1 k2 p1 p2).
    Yields Progress over photos, pairs and registered images.

    Raises CaptureError if `out` is not empty and not an earlier result, if a gate rejects the model, or if the process
    dies. With allow_partial a rejected model is kept, with a Note. No partial output remains. An earlier result in
    `out` is replaced at the end.
    """
    _check_inputs(photos, out, matching)
    tmp_folder = out.with_name(f"{out.name}.posing.tmp-{os.getpid()}")
    try:
        shutil.rmtree(tmp_folder, ignore_errors=True)
        (tmp_folder / MODEL_FOLDER).mkdir(parents=True)
        _link_photos(photos, tmp_folder / IMAGE_FOLDER)
        request = Request(
            folder=str(tmp_folder / IMAGE_FOLDER),
            model=str(tmp_folder / MODEL_FOLDER),
            names=list(photos.names),
            sizes=list(photos.sizes),
            cameras=_assign_cameras(photos, camera),
            focals=list(photos.focal_px),
            pairs=pairing.choose_pairs(matching, photos.gps, photos.from_video),
            mapper=mapper,
            masks=[None if mask is None else str(mask) for mask in photos.masks] or [None] * len(photos),
            max_image_size=max_image_size,
            max_features=max_features,
            seed=seed,
        )
        with _start_process(request, tmp_folder) as (process, log):
            report = yield from _forward_events(process, log)
        if find_failures(report) and not allow_partial:
            raise CaptureError(_rejection_message(report))
        report = dataclasses.replace(report, warnings=find_warnings(report))
        for warning in report.warnings:
            yield Note(text=warning, level="warning")
        _write_report(report, tmp_folder / REPORT_FILE)
        _replace_folder(tmp_folder, out)
    finally:
        shutil.rmtree(tmp_folder, ignore_errors=True)
    return report


# -- before ------------------------------------------------------------------------------------------------------------


def _check_inputs(photos: PhotoSet, out: Path, matching: Matching) -> None:
    if len(photos) < MIN_PHOTOS:
        raise CaptureError(
            f"cameras cannot be estimated from {len(photos)} photo{'s' * (len(photos) != 1)}: at least three are "
            "needed, better 30 or more"
        )
    if matching == "spatial" and not any(photos.gps):
        raise CaptureError("spatial matching needs photos with GPS positions: choose another matching")
    if out.exists() and not (out.is_dir() and ((out / REPORT_FILE).is_file() or not any(out.iterdir()))):
        raise CaptureError(f"{out} exists and is no earlier result of pose estimation: choose another folder")


def _assign_cameras(photos: PhotoSet, mode: CameraMode) -> list[int]:
    """Assign a camera number to each photo."""
    if mode == "per-photo":
        return list(range(len(photos)))
    if mode == "single":
        if len(set(photos.sizes)) > 1:
            raise CaptureError("photos of different sizes cannot share one camera: use one camera per photo")
        return [0] * len(photos)
    camera_keys: list[tuple[tuple[int, int], float | None]] = []
    numbers = []
    for size, focal in zip(photos.sizes, photos.focal_px, strict=True):
        matching_numbers = (i for i, key in enumerate(camera_keys) if key[0] == size and _is_same_focal(key[1], focal))
        number = next(matching_numbers, len(camera_keys))
        if number == len(camera_keys):
            camera_keys.append((size, focal))
        numbers.append(number)
    return numbers


def _is_same_focal(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a - b) <= FOCAL_TOLERANCE * a


def _link_photos(photos: PhotoSet, folder: Path) -> None:
    """Hard-link the photos into `folder`; copy them where the file system cannot link."""
    folder.mkdir()
    for name in photos.names:
        source = (photos.folder / name).resolve()
        try:
            os.link(source, folder / name)
        except FileNotFoundError as error:
            raise CaptureError(f"{source} is gone: import the photos again") from error
        except OSError:
            shutil.copyfile(source, folder / name)


# -- the child ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _start_process(request: Request, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run the process on the request; yields it and the log file of its libraries. It is killed on exit."""
    request_file, log = folder / "request.json", folder / "log.txt"
    request_file.write_text(json.dumps(dataclasses.asdict(request)), encoding="utf-8")
    root = str(Path(__file__).resolve().parents[2])
    # One BLAS thread per worker: image pairs are already processed in parallel.
    single_thread = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    python_path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with log.open("wb") as log_stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "lumigraph.captures.sfm.process", str(request_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_stream,
            env={**os.environ, **single_thread, "PYTHONPATH": python_path},
            start_new_session=True,  # Ctrl-C in the terminal reaches only this process, which ends the child in order
        )
    try:
        yield process, log
    finally:
        _kill(process)
        request_file.unlink(missing_ok=True)
        log.unlink(missing_ok=True)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        # After the process was reaped its group id may belong to another one: kill only a living process.
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _forward_events(process: subprocess.Popen[bytes], log: Path) -> Generator[Event, None, PoseReport]:
    """Forward events up to the last line, which is the report or the reason of the failure."""
    assert process.stdout is not None
    for line in process.stdout:
        message = _parse_message(line)
        if message is None:  # truncated by the death of the process
            break
        if message.get("kind") == "report":
            return PoseReport(**message["report"])
        if message.get("kind") == "failed":
            raise CaptureError(message["text"])
        yield from_line(line)
    raise CaptureError(_describe_exit(process.wait(), log))


def _parse_message(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def _describe_exit(code: int, log: Path) -> str:
    """Describe how the process ended, with the last line of its log."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last_line = f" ({lines[-1].strip()[:300]})" if lines else ""
    if code == -getattr(signal, "SIGKILL", 9):
        return "pose estimation was killed, most likely because memory ran out: use fewer photos or free memory"
    if code < 0:
        return f"pose estimation crashed with signal {-code}{last_line}: run it again, with fewer photos if it repeats"
    return f"pose estimation stopped with exit status {code}{last_line}"


# -- after -------------------------------------------------------------------------------------------------------------


def _rejection_message(report: PoseReport) -> str:
    reason = "; ".join(find_failures(report)[:1])  # the first gate only: later ones follow from it
    missing = ""
    if 0 < len(report.not_registered) < report.photos:
        ellipsis = ", ..." if len(report.not_registered) > MAX_NAMES_IN_ERROR else ""
        missing = f" (not registered: {', '.join(report.not_registered[:MAX_NAMES_IN_ERROR])}{ellipsis})"
    return f"the cameras of these photos cannot be estimated reliably: {reason}{missing}; {ADVICE}"


def _write_report(report: PoseReport, path: Path) -> None:
    verdict = "failed" if find_failures(report) else "doubtful" if report.warnings else "good"
    content = {"verdict": verdict, **dataclasses.asdict(report)}
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def _replace_folder(tmp_folder: Path, out: Path) -> None:
    """Rename the finished folder to `out`; an earlier result is moved away first and removed last."""
    old_folder = out.with_name(f"{out.name}.old.tmp-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        out.replace(old_folder)
    try:
        tmp_folder.replace(out)
    except OSError:
        if old_folder.exists():
            old_folder.replace(out)
        raise
    shutil.rmtree(old_folder, ignore_errors=True)
