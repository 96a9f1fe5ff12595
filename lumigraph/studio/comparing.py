"""The verb `compare`: compare runs of one capture on the same held-out views."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import RunError
from lumigraph.scene.field import Field
from lumigraph.studio.report import figure_html, page_html
from lumigraph.studio.run import EVALUATION, FIELD, Run, write_text
from lumigraph.studio.training import load_field, prepare_capture, read_capture
from lumigraph.studio.verbs import evaluate, render_held_out
from lumigraph.wire.events import ArtifactWritten, Event, Progress
from lumigraph.wire.requests import CompareRequest, Device, EvaluateRequest

MAX_COMPARISON_VIEWS = 8  # on the page
TIMED_VIEW_COUNT = 3

COLUMNS = {  # of the table: key -> (heading, number format)
    "run": ("run", "{}"),
    "method": ("method", "{}"),
    "psnr": ("PSNR, dB", "{:.2f}"),
    "ssim": ("SSIM", "{:.4f}"),
    "train_seconds": ("training, s", "{:.0f}"),
    "steps": ("steps", "{:,}"),
    "megabytes": ("on disk, MB", "{:.1f}"),
    "frames_per_second": ("frames/s", "{:.2f}"),
}


def compare(request: CompareRequest) -> Generator[Event, None, list[dict[str, Any]]]:
    """Write an HTML page and return one row of metrics per run, with the keys of `COLUMNS`. Runs without a current
    evaluation are evaluated first. Raises RunError if the runs have no held-out view in common."""
    evaluations = []
    for path in request.runs:
        evaluations.append((yield from _current_evaluation(path, request.device)))
    names = _common_views(evaluations)
    rows: list[dict[str, Any]] = []
    strips: list[list[Tensor]] = [[] for _ in names[:MAX_COMPARISON_VIEWS]]
    photos: list[Tensor] = []
    for path, evaluation in zip(request.runs, evaluations, strict=True):
        run = Run(path)
        field, _ = load_field(run, request.device)
        capture = yield from prepare_capture(run, read_capture(Path(run.config.capture), run.config.holdout))
        _, held_out = capture.split()
        view_indices = {name: i for i, name in enumerate(held_out.names)}
        for k, name in enumerate(names[:MAX_COMPARISON_VIEWS]):
            render, photo = render_held_out(field, held_out, view_indices[name])
            strips[k].append(render)
            if len(photos) == k:
                photos.append(photo)
            finished_views = len(rows) * len(names[:MAX_COMPARISON_VIEWS]) + k + 1
            yield Progress(
                stage="compare",
                done=finished_views,
                total=len(names[:MAX_COMPARISON_VIEWS]) * len(request.runs),
                unit="views",
            )
        rows.append(_row(path, evaluation, _frames_per_second(field, held_out)))
    request.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(request.out, _page(rows, names[:MAX_COMPARISON_VIEWS], photos, strips, evaluations))
    yield ArtifactWritten(path=str(request.out), what=f"{len(rows)} runs on {len(names)} held-out views")
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Format the rows as text, one line per run: names left-aligned, numbers right-aligned."""
    lines = [[heading for heading, _ in COLUMNS.values()], *(_cells(row) for row in rows)]
    columns = []
    for k, column in enumerate(zip(*lines, strict=True)):
        width = max(map(len, column))
        columns.append([cell.ljust(width) if k < 2 else cell.rjust(width) for cell in column])
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def _current_evaluation(path: Path, device: Device) -> Generator[Event, None, dict[str, Any]]:
    """Return the evaluation of a run. Evaluates it if there is none or the field is newer."""
    run = Run(path)
    evaluation_file, field = run.path / EVALUATION, run.path / FIELD
    if evaluation_file.exists() and field.exists() and evaluation_file.stat().st_mtime_ns >= field.stat().st_mtime_ns:
        evaluation: dict[str, Any] = json.loads(evaluation_file.read_text())
        return evaluation
    return (yield from evaluate(EvaluateRequest(run=path, device=device)))


def _common_views(evaluations: list[dict[str, Any]]) -> list[str]:
    """Return the views that all runs were evaluated on, evenly spread views first."""
    view_names = [[view["name"] for view in evaluation["per_view"]] for evaluation in evaluations]
    names = [name for name in view_names[0] if all(name in run_names for run_names in view_names[1:])]
    if not names:
        raise RunError("these runs have no held-out view in common; compare runs of one capture")
    stride = max(1, len(names) // MAX_COMPARISON_VIEWS)
    return names[::stride] + [name for i, name in enumerate(names) if i % stride]


def _frames_per_second(field: Field, held_out: Capture) -> float:
    """Return the median frame rate of a few views at the size of the evaluation."""
    white = torch.ones(3, device=field.box.device) if held_out.has_alpha else None
    seconds = []
    for i in range(min(TIMED_VIEW_COUNT, len(held_out))):
        camera = held_out.cameras[i].to(field.box.device)
        start = time.perf_counter()
        with torch.no_grad():
            field.render(camera, white).rgb.cpu()
        seconds.append(time.perf_counter() - start)
    return 1 / sorted(seconds)[len(seconds) // 2]


def _row(path: Path, evaluation: dict[str, Any], frames_per_second: float) -> dict[str, Any]:
    metrics = {key: evaluation[key] for key in ("method", "psnr", "ssim", "train_seconds", "steps")}
    megabytes = (path / FIELD).stat().st_size / 1e6
    return {"run": path.name, **metrics, "megabytes": megabytes, "frames_per_second": frames_per_second}


def _cells(row: dict[str, Any]) -> list[str]:
    return ["equal" if row[key] is None else form.format(row[key]) for key, (_, form) in COLUMNS.items()]


def _page(
    rows: list[dict[str, Any]],
    names: list[str],
    photos: list[Tensor],
    strips: list[list[Tensor]],
    evaluations: list[dict[str, Any]],
) -> str:
    headings = "".join(f"<th>{escape(heading)}</th>" for heading, _ in COLUMNS.values())
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(row)) + "</tr>" for row in rows)
    parts = [
        "<h1>Runs compared</h1>",
        f"<table><thead><tr>{headings}</tr></thead><tbody>{lines}</tbody></table>",
        "<h2>Views</h2>",
    ]
    psnr_by_view = [{view["name"]: view["psnr"] for view in evaluation["per_view"]} for evaluation in evaluations]
    for name, photo, renders in zip(names, photos, strips, strict=True):
        cells = [figure_html(photo, "photo", f"photo of {name}")]
        for row, psnr, render in zip(rows, (psnrs[name] for psnrs in psnr_by_view), renders, strict=True):
            caption = f"{row['run']}: " + ("equal" if psnr is None else f"{psnr:.2f} dB")
            cells.append(figure_html(render, caption, f"{name} by {row['run']}"))
        columns = f"grid-template-columns: repeat({min(4, len(cells))}, 1fr)"
        strip = f'<div class="triple" style="{columns}">{"".join(cells)}</div>'
        parts.append(f'<section class="view"><h3>{escape(name)}</h3>{strip}</section>')
    return page_html("Runs compared", "\n".join(parts))
