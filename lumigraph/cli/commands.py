"""Commands: build a request from the arguments, run the verb to its end, print the result."""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from lumigraph.scene.errors import LumigraphError

if TYPE_CHECKING:
    from lumigraph.cli.terminal import Terminal
    from lumigraph.wire.events import Event, ExportReport

Args = argparse.Namespace


def scan(args: Args) -> int:
    if args.remote:
        return scan_remotely(args)
    from lumigraph.studio import verbs
    from lumigraph.wire.requests import ScanRequest

    request = build_request(
        ScanRequest, args, "source", "out", "frames", "allow_partial", "overwrite", **training_options(args)
    )
    evaluation = follow(verbs.scan(request), args)
    print_evaluation(evaluation)
    return 0


def scan_remotely(args: Args) -> int:
    from pathlib import Path

    from lumigraph.cli import remote
    from lumigraph.studio import registry
    from lumigraph.wire.resources import PoseJob, TrainJob

    options = training_options(args)
    options["settings"] = {name: _json(value) for name, value in options["settings"].items()}
    train = build_request(TrainJob, args, **options)
    if args.overwrite:
        (Path(args.out) / remote.JOBS_FILE).unlink(missing_ok=True)
    has_poses = registry.reader_for(Path(args.source)) is not None
    pose = None if has_poses else build_request(PoseJob, args, "frames", "allow_partial")
    print_evaluation(follow(remote.scan(args.remote, Path(args.source), Path(args.out), pose, train), args))
    return 0


def _json(text: str) -> Any:
    """Parse a setting as JSON, or return the text if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def sample(args: Args) -> int:
    from lumigraph.studio import verbs
    from lumigraph.wire.requests import SampleRequest

    follow(verbs.sample(build_request(SampleRequest, args, "out", "views", "size", "seed")), args)
    return 0


def pose(args: Args) -> int:
    from lumigraph.studio import verbs
    from lumigraph.wire.requests import PoseRequest

    follow(verbs.pose(build_request(PoseRequest, args, "source", "out", "frames", "allow_partial", "matching")), args)
    return 0


def train(args: Args) -> int:
    from lumigraph.studio import verbs
    from lumigraph.wire.requests import TrainRequest

    request = build_request(TrainRequest, args, "capture", "out", "resume", "overwrite", **training_options(args))
    follow(verbs.train(request), args)
    return 0


def evaluate(args: Args) -> int:
    from lumigraph.studio import verbs
    from lumigraph.wire.requests import EvaluateRequest

    request = build_request(EvaluateRequest, args, "run", "device", "renderer")
    evaluation = follow(verbs.evaluate(request), args, print_artifacts=not args.json)
    if args.json:
        print(json.dumps(evaluation, indent=2))
    else:
        print_evaluation(evaluation)
    return 0


def render(args: Args) -> int:
    from lumigraph.studio import verbs
    from lumigraph.wire.requests import RenderRequest

    follow(
        verbs.render(
            build_request(RenderRequest, args, "run", "out", "path", "size", "frames", "fps", "device", "output")
        ),
        args,
    )
    return 0


def compare(args: Args) -> int:
    from lumigraph.studio import comparing
    from lumigraph.wire.requests import CompareRequest

    rows = follow(
        comparing.compare(build_request(CompareRequest, args, "runs", "out", "device")),
        args,
        print_artifacts=not args.json,
    )
    print(json.dumps(rows, indent=2) if args.json else comparing.table(rows))
    return 0


def export(args: Args) -> int:
    from lumigraph.studio import verbs
    from lumigraph.wire.requests import ExportRequest

    names = ("run", "out", "kind", "preset", "frame", "origin")
    report = follow(verbs.export(build_request(ExportRequest, args, *names, settings=settings(args))), args)
    print_report(report)
    return 0


def convert(args: Args) -> int:
    from lumigraph.studio import verbs
    from lumigraph.wire.requests import ConvertRequest

    request = build_request(ConvertRequest, args, "source", "out", "dataset", "keep_axes", settings=settings(args))
    report = follow(verbs.convert(request), args)
    if report is not None:
        print_report(report)
    return 0


def inspect(args: Args) -> int:
    from pathlib import Path

    from lumigraph.studio import inspecting

    description = inspecting.inspect(Path(args.file))
    if args.json:
        print(json.dumps(description, indent=2))
        return 0
    width = max(map(len, description))
    for name, value in description.items():
        if name == "bounds":
            value = " to ".join(" ".join(f"{x:.6g}" for x in corner) for corner in value)
        print(f"{name.replace('_', ' '):{width}}  {f'{value:,}' if type(value) is int else value}")
    return 0


def scale(args: Args) -> int:
    from lumigraph.studio import verbs
    from lumigraph.wire.requests import ScaleRequest

    follow(verbs.scale(build_request(ScaleRequest, args, "run", "points", "metres")), args)
    return 0


def up(args: Args) -> int:
    from pathlib import Path

    from lumigraph.jobs.data_folder import InUseError
    from lumigraph.jobs.migrate import TooNewError
    from lumigraph.server import run_server
    from lumigraph.server.app import Settings

    settings = Settings(
        data=Path(args.data) if args.data else run_server.default_data_folder(),
        host=args.host,
        port=args.port,
        database=args.database,
        urls=tuple(args.url),
        origins=tuple(args.allow_origin),
        hook_hosts=tuple(args.hook_host),
    )
    try:
        run_server.up(settings, args.quiet)
    except (run_server.ServerStartError, InUseError, TooNewError, ValueError) as error:
        raise LumigraphError(str(error)) from error
    return 0


def info(args: Args) -> int:
    from lumigraph.studio import system_info

    lines = system_info.describe(args.short)
    width = max(len(label) for label, _ in lines)
    for label, value in lines:
        print(f"{label:{width}}  {value}")
    return 0


# ---- helpers


class Interrupted(Exception):
    """Ctrl-C or SIGTERM, handled between two events after everything was closed in order."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def training_options(args: Args) -> dict[str, Any]:
    """Collect the fields of `TrainingOptions`."""
    names = ("method", "seconds", "steps", "downscale", "holdout", "seed", "device")
    return {"settings": settings(args), **{name: getattr(args, name) for name in names}}


def settings(args: Args) -> dict[str, str]:
    """Collect settings given as --set name=value or as separate flags."""
    values = {}
    for pair in args.set:
        name, equals, value = pair.partition("=")
        if not equals:
            raise argparse_error(args, f"--set expects NAME=VALUE, not {pair!r}")
        values[name.replace("-", "_")] = value
    return values | {key.partition(":")[2]: value for key, value in vars(args).items() if key.startswith("setting:")}


def print_report(report: ExportReport) -> None:
    """Print the properties of an exported file on one line."""
    sizes = " x ".join(f"{b - a:.3g}" for a, b in zip(*report.bounds, strict=True))
    unit = "m" if report.metres_per_unit == 1 else "units"
    parts = [f"{report.count:,} {report.holds} in {report.bytes / 1e6:.2f} MB", f"{sizes} {unit}", f"{report.up} is up"]
    if report.watertight is not None:
        parts.append("watertight" if report.watertight else "not watertight")
    parts.append("read back and compared" if report.read_back else "not read back: this program only writes it")
    print(", ".join(parts))


def argparse_error(args: Args, message: str) -> LumigraphError:
    return LumigraphError(f"{message}; see lumigraph {args.command} --help")


def build_request(request: type[Any], args: Args, *names: str, **more: Any) -> Any:
    """Build the request of a verb. Raises LumigraphError that names an invalid flag."""
    from pydantic import ValidationError

    try:
        return request(**{name: getattr(args, name) for name in names}, **more)
    except ValidationError as error:
        first = error.errors()[0]
        raise argparse_error(args, f"--{first['loc'][0]}: {first['msg']}") from error


def follow(events: Generator[Event, None, Any], args: Args, print_artifacts: bool = True) -> Any:
    """Run a verb to its end, display its events and print its artifacts. Returns the result of the verb.

    Ctrl-C takes effect between two events, so that the verb closes in order. A second Ctrl-C interrupts at once.
    """
    from lumigraph.cli.terminal import Terminal

    terminal: Terminal = Terminal(args.quiet)
    with interruptions() as signals:
        try:
            with terminal.progress_bars():
                result = _pull(events, terminal, signals)
        except Exception:
            if signals:  # a child process that received the same Ctrl-C has not failed
                raise Interrupted(signals[0]) from None
            raise
        finally:
            events.close()
    if print_artifacts:
        for artifact in terminal.artifacts:
            print(f"{artifact.path}  ({artifact.what})")
    return result


def _pull(events: Generator[Event, None, Any], terminal: Terminal, signals: list[int]) -> Any:
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        terminal.show(event)
        if signals:
            raise Interrupted(signals[0])


@contextmanager
def interruptions() -> Iterator[list[int]]:
    """Yield a list that receives the first SIGINT or SIGTERM. A second signal raises KeyboardInterrupt at once."""
    signals: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)
        os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def print_evaluation(evaluation: dict[str, Any]) -> None:
    psnr = "equal images" if evaluation["psnr"] is None else f"PSNR {evaluation['psnr']:.2f} dB"
    size = f"{evaluation['size']:,} {evaluation['size_unit']}"
    print(
        f"{psnr}, SSIM {evaluation['ssim']:.4f} on {evaluation['views']} held-out views; "
        f"{size}, {evaluation['steps']:,} steps in {evaluation['train_seconds']:.0f} s"
    )
    if evaluation.get("psnr_own_gain") is not None:
        print(
            f"after a gain for each half of a view, fitted on the other half: PSNR {evaluation['psnr_own_gain']:.2f} dB"
        )
    if evaluation.get("psnr_own_pose") is not None:
        print(f"after each held-out camera was aligned to its photo: PSNR {evaluation['psnr_own_pose']:.2f} dB")
    if evaluation.get("psnr_black") is not None:
        alpha = f", mean error of alpha {evaluation['alpha_error']:.4f}" if "alpha_error" in evaluation else ""
        print(f"over black instead of white: PSNR {evaluation['psnr_black']:.2f} dB{alpha}")
