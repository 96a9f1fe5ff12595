"""Cameras from photos alone: structure from motion, in a process of its own.

The work is done by `structure.process`, for two reasons. Its library aborts the interpreter when it is loaded before
zlib, and a crash or the out-of-memory killer must end one job and not the studio. Events come back through a pipe, one
line of JSON each; an unread pipe fills up and pauses the child, closing the generator kills it, and the child ends by
itself when its standard input closes, so that it never outlives its parent.
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
from lumigraph.captures.sfm.pose_report import PoseReport, doubts, stops
from lumigraph.captures.sfm.request import Mapper, Request
from lumigraph.scene.atomic_files import atomic_write
from lumigraph.scene.errors import CaptureError
from lumigraph.wire.events import Event, Note, from_line

__all__ = ["CameraMode", "PoseReport", "estimate"]

CameraMode = Literal["auto", "single", "per-photo"]
REPORT = "pose.json"
PHOTOS, MODEL = "images", Path("sparse", "0")
MAX_IMAGE_SIZE = 1000  # pixels of the longer side in which features are sought
MAX_FEATURES = 3072  # per photo; matching takes time with the square
SAME_FOCAL = 0.01  # relative difference below which two EXIF focal lengths are one zoom setting
SPOKEN_NAMES = 5
LEAST_PHOTOS = 3  # of two, nothing tells whether their cameras are right
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
    max_image_size: int = MAX_IMAGE_SIZE,
    max_features: int = MAX_FEATURES,
    seed: int = 0,
) -> Generator[Event, None, PoseReport]:
    """Finds the cameras of photos and makes `out` a capture in COLMAP's form: images/, sparse/0/*.bin and pose.json.

    camera: "auto" gives photos of one size and focal length one camera; "single" insists on one camera for all,
    "per-photo" on one each. Where a photo is masked or transparent, no features are taken. Lenses are OPENCV (k1 k2 p1
    p2). Progress comes per photo, pair and registered view.
    Raises CaptureError when `out` holds something else, when the photos cannot be joined well enough to be trusted
    (unless allow_partial, then what there is is kept and a Note warns), or when the process dies. Nothing half-written
    stays behind; an earlier result in `out` is replaced in the end.
    """
    _check(photos, out, matching)
    growing = out.with_name(f"{out.name}.posing.tmp-{os.getpid()}")
    try:
        shutil.rmtree(growing, ignore_errors=True)
        (growing / MODEL).mkdir(parents=True)
        _link_photos(photos, growing / PHOTOS)
        request = Request(
            folder=str(growing / PHOTOS),
            model=str(growing / MODEL),
            names=list(photos.names),
            sizes=list(photos.sizes),
            cameras=_cameras(photos, camera),
            focals=list(photos.focal_px),
            pairs=pairing.choose(matching, photos.gps, photos.from_video),
            mapper=mapper,
            masks=[None if mask is None else str(mask) for mask in photos.masks] or [None] * len(photos),
            max_image_size=max_image_size,
            max_features=max_features,
            seed=seed,
        )
        with _child(request, growing) as (process, log):
            report = yield from _listen(process, log)
        if stops(report) and not allow_partial:
            raise CaptureError(_refusal(report))
        report = dataclasses.replace(report, warnings=doubts(report))
        for doubt in report.warnings:
            yield Note(text=doubt, level="warning")
        _write_report(report, growing / REPORT)
        _put_in_place(growing, out)
    finally:
        shutil.rmtree(growing, ignore_errors=True)
    return report


# -- before ------------------------------------------------------------------------------------------------------------


def _check(photos: PhotoSet, out: Path, matching: Matching) -> None:
    if len(photos) < LEAST_PHOTOS:
        raise CaptureError(
            f"cameras cannot be found from {len(photos)} photo{'s' * (len(photos) != 1)}: at least three are needed, "
            "better 30 or more"
        )
    if matching == "spatial" and not any(photos.gps):
        raise CaptureError("spatial matching needs photos with GPS positions: choose another matching")
    if out.exists() and not (out.is_dir() and ((out / REPORT).is_file() or not any(out.iterdir()))):
        raise CaptureError(f"{out} exists and is no earlier result of pose estimation: choose another folder")


def _cameras(photos: PhotoSet, mode: CameraMode) -> list[int]:
    """The number of the camera of each photo."""
    if mode == "per-photo":
        return list(range(len(photos)))
    if mode == "single":
        if len(set(photos.sizes)) > 1:
            raise CaptureError("photos of different sizes cannot share one camera: use one camera per photo")
        return [0] * len(photos)
    known: list[tuple[tuple[int, int], float | None]] = []
    numbers = []
    for size, focal in zip(photos.sizes, photos.focal_px, strict=True):
        same = (i for i, other in enumerate(known) if other[0] == size and _same_focal(other[1], focal))
        number = next(same, len(known))
        if number == len(known):
            known.append((size, focal))
        numbers.append(number)
    return numbers


def _same_focal(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a - b) <= SAME_FOCAL * a


def _link_photos(photos: PhotoSet, folder: Path) -> None:
    """The photos under a second name; copies where the file system cannot link."""
    folder.mkdir()
    for name in photos.names:
        source = (photos.folder / name).resolve()
        try:
            os.link(source, folder / name)
        except FileNotFoundError as error:
            raise CaptureError(f"{source} is gone: gather the photos again") from error
        except OSError:
            shutil.copyfile(source, folder / name)


# -- the child ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _child(request: Request, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The process at work on the request, and the file that its libraries chatter into. Dead when the block ends."""
    asked, log = folder / "request.json", folder / "log.txt"
    asked.write_text(json.dumps(dataclasses.asdict(request)), encoding="utf-8")
    root = str(Path(__file__).resolve().parents[2])
    # One matrix product a thread: the pairs of photos are what runs in parallel.
    single = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with log.open("wb") as chatter:
        process = subprocess.Popen(
            [sys.executable, "-m", "lumigraph.captures.sfm.process", str(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=chatter,
            env={**os.environ, **single, "PYTHONPATH": search},
            start_new_session=True,  # a Ctrl-C in the terminal reaches us alone, and we end it in order
        )
    try:
        yield process, log
    finally:
        _kill(process)
        asked.unlink(missing_ok=True)
        log.unlink(missing_ok=True)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        # The leader may be gone and waited for, then its number means nothing: only a living one is killed.
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


def _listen(process: subprocess.Popen[bytes], log: Path) -> Generator[Event, None, PoseReport]:
    """Passes events on until the last line, which is the report or the reason why there is none."""
    assert process.stdout is not None
    for line in process.stdout:
        said = _parse(line)
        if said is None:  # cut short by the death of the writer
            break
        if said.get("kind") == "report":
            return PoseReport(**said["report"])
        if said.get("kind") == "failed":
            raise CaptureError(said["text"])
        yield from_line(line)
    raise CaptureError(_obituary(process.wait(), log))


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _obituary(code: int, log: Path) -> str:
    """How the process ended, with the last words of its log."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    words = f" ({lines[-1].strip()[:300]})" if lines else ""
    if code == -getattr(signal, "SIGKILL", 9):
        return "pose estimation was killed, most likely because memory ran out: use fewer photos or free memory"
    if code < 0:
        return f"pose estimation crashed with signal {-code}{words}: run it again, with fewer photos if it repeats"
    return f"pose estimation stopped with exit status {code}{words}"


# -- after -------------------------------------------------------------------------------------------------------------


def _refusal(report: PoseReport) -> str:
    why = "; ".join(stops(report)[:1])  # in the order of the gates: what comes later follows from what comes first
    left = ""
    if 0 < len(report.not_registered) < report.photos:
        more = ", ..." if len(report.not_registered) > SPOKEN_NAMES else ""
        left = f" (not joined: {', '.join(report.not_registered[:SPOKEN_NAMES])}{more})"
    return f"the cameras of these photos cannot be found reliably: {why}{left}; {ADVICE}"


def _write_report(report: PoseReport, path: Path) -> None:
    verdict = "failed" if stops(report) else "doubtful" if report.warnings else "good"
    content = {"verdict": verdict, **dataclasses.asdict(report)}
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def _put_in_place(growing: Path, out: Path) -> None:
    """The finished folder becomes `out`; an earlier result moves away first and is removed last."""
    old = out.with_name(f"{out.name}.old.tmp-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        out.replace(old)
    try:
        growing.replace(out)
    except OSError:
        if old.exists():
            old.replace(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
