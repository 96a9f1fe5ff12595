"""Run all benchmarks: one table on the terminal, and one line of JSON for each row in benchmarks/results.

    python -m benchmarks.run                          all; loading needs 2.5 GB of disk for its photos
    python -m benchmarks.run --only peak kernels      the kernels alone, two minutes
    python -m benchmarks.run --only training --scenes lego --seconds 30 60 120 --methods splat ngp
    python -m benchmarks.run --only poses --scenes fox can
    python -m benchmarks.run --only fidelity --captures FOLDER... --seconds 60
    python -m benchmarks.run --only surfaces --captures FOLDER --truth CLOUD.ply --seconds 60

Measure on an idle machine only. Each line stores the load average of the machine.
"""

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import (
    fidelity,
    fields,
    kernels,
    live,
    loading,
    meshes,
    pages,
    peak,
    poses,
    server,
    surfaces,
    training,
    uploads,
)
from lumigraph.studio.system_info import count_cores, cpu_model

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SCENES = tuple(dict.fromkeys([*training.CASES, *poses.CASES]))

Row = dict[str, object]


def main() -> None:
    args = parse()
    console = Console()
    table = Table(title=f"{cpu_model()}, {count_cores()} cores, commit {commit()}")
    for column in ("benchmark", "case", "results"):
        table.add_column(column, overflow="fold")
    for name, rows in select_suites(args).items():
        console.print(f"{name} ...", style="dim")
        for row in rows():
            record(name, row)
            results = "  ".join(f"{key} [bold]{value}[/]" for key, value in row.items() if key != "case")
            table.add_row(name, str(row["case"]), results)
        table.add_section()
    console.print(table)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmarks of Lumigraph.")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=(
            "peak",
            "kernels",
            "fields",
            "live",
            "training",
            "fidelity",
            "poses",
            "matching",
            "loading",
            "meshes",
            "surfaces",
            "server",
            "uploads",
            "pages",
        ),
        help="default: all",
    )
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=SCENES, help="of training, poses; default: all")
    parser.add_argument(
        "--seconds", nargs="+", type=float, default=[30.0, 60.0], help="budgets of training, fidelity, surfaces"
    )
    parser.add_argument(
        "--captures", nargs="+", type=Path, default=[], help="of fidelity and surfaces; default: the rendered sample"
    )
    parser.add_argument("--looks", type=Path, help="output folder for images of the held-out views of fidelity")
    parser.add_argument("--truth", type=Path, help="of surfaces: true point cloud of the capture, a PLY")
    parser.add_argument("--methods", nargs="+", default=["splat"], help="of training; default: splat")
    parser.add_argument("--splats", type=int, default=1_000_000, help="number of gaussians in the timed files")
    data = ROOT.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data, help="folder with lego/, fox/, video/; default: %(default)s")
    return parser.parse_args()


def select_suites(args: argparse.Namespace) -> dict[str, Callable[[], Iterator[Row]]]:
    training_scenes, pose_scenes = (
        [scene for scene in args.scenes if scene in suite.CASES] for suite in (training, poses)
    )
    suites: dict[str, Callable[[], Iterator[Row]]] = {
        "peak": peak.rows,
        "kernels": kernels.rows,
        "fields": fields.rows,
        "live": live.rows,
        "training": partial(training.rows, args.data, training_scenes, args.seconds, args.methods),
        "fidelity": partial(fidelity.rows, args.captures, args.seconds, args.looks),
        "poses": partial(poses.rows, args.data, pose_scenes),
        "matching": poses.matching_rows,
        "loading": loading.rows,
        "meshes": partial(meshes.rows, args.data, args.splats),
        "surfaces": partial(surfaces.rows, args.captures, args.truth, args.seconds),
        "server": server.rows,
        "pages": pages.rows,
        "uploads": uploads.rows,
    }
    return {name: rows for name, rows in suites.items() if args.only is None or name in args.only}


def record(benchmark: str, row: Row) -> None:
    """Append a line to results/BENCHMARK.jsonl: the row with its date, machine and commit."""
    line = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": count_cores(),
        "load": round(os.getloadavg()[0], 2),
        "commit": commit(),
        **row,
    }
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{benchmark}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def commit() -> str:
    """Name the checked-out commit, with a + if files differ from it."""

    def git(*arguments: str) -> str:
        process = subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        return process.stdout.strip()

    return git("rev-parse", "--short=10", "HEAD") + (
        "+" if git("status", "--porcelain", "-uno", "--", ".", ":!benchmarks/results") else ""
    )


if __name__ == "__main__":
    main()
