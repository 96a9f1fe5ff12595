"""The evaluation report of a run: one HTML file without network access.

It holds the metrics, the training curves, a table of all held-out views, and images of the worst views: photo, render
and difference. Names may come from untrusted files: every text is escaped, and a content security policy forbids the
page to load anything.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import cv2
import torch
from torch import Tensor

from lumigraph.scene.images import area_downscale, to_uint8
from lumigraph.wire.events import Metrics

REPORT_IMAGE_SIDE_PX = 480  # longer side
MAX_REPORT_IMAGE_BYTES = 16 << 20  # all images of a page
MAX_REPORT_VIEWS = 40
ERROR_MAP_MAX = 0.25  # absolute difference, 0..1, at the brightest colour
MAX_CURVE_POINTS = 300
PLOT_LAYOUT_PX = (640, 220, 52, 12, 14, 30)  # width, height, and margins left, right, top, bottom


@dataclass(frozen=True)
class Comparison:
    """A held-out view: its photo and its render, (H, W, 3) float 0..1."""

    name: str
    photo: Tensor
    render: Tensor
    psnr: float
    ssim: float


class Page:
    """Collects comparisons as JPEG until it is full, then formats the HTML page."""

    def __init__(self) -> None:
        self._views: list[str] = []
        self._free_bytes = MAX_REPORT_IMAGE_BYTES

    @property
    def is_full(self) -> bool:
        return self._free_bytes <= 0 or len(self._views) >= MAX_REPORT_VIEWS

    def add(self, view: Comparison) -> None:
        """Append a view; views keep the order of the calls."""
        images = [
            ("photo", view.photo),
            ("render", view.render),
            ("difference", error_map(view.photo, view.render)),
        ]
        cells = [figure_html(pixels, label, f"{label} of {view.name}") for label, pixels in images]
        self._free_bytes -= sum(map(len, cells))
        metrics = f"{_number(view.psnr, 2)} dB, SSIM {_number(view.ssim, 3)}"
        self._views.append(
            f'<section class="view"><h3>{escape(view.name)} <small>{metrics}</small></h3>'
            f'<div class="triple">{"".join(cells)}</div></section>'
        )

    def html(self, title: str, evaluation: Mapping[str, Any], history: Sequence[Metrics]) -> str:
        """Return the page. `evaluation` is the content of evaluation.json; `history` is oldest first."""
        count, total = len(self._views), len(evaluation["per_view"])
        selection = f"the worst {count} of {total} held-out views" if count < total else f"all {total} held-out views"
        parts = [
            f"<h1>{escape(title)}</h1>",
            _metrics_list(evaluation),
            "<h2>Training</h2>",
            _curves(history),
            f"<h2>Views</h2><p>Shown: {selection}, the worst first. Differences are bright at {ERROR_MAP_MAX:g} of the"
            " whole range and beyond.</p>",
            *self._views,
            "<h2>Every held-out view</h2>",
            _table(evaluation["per_view"]),
            f"<footer>{escape(_provenance(evaluation))}</footer>",
        ]
        return page_html(title, "\n".join(parts))


def page_html(title: str, body: str) -> str:
    """Return a page around `body`, which is HTML with escaped texts."""
    return PAGE.format(title=escape(title), style=STYLE, script=SCRIPT, body=body)


def figure_html(pixels: Tensor, caption: str, alt: str) -> str:
    """Return an HTML figure of `pixels` (H, W, 3), uint8 or float 0..1."""
    uri = _jpeg(pixels if pixels.dtype == torch.uint8 else to_uint8(pixels))
    return (
        f'<figure><img src="{uri}" alt="{escape(alt, quote=True)}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def error_map(photo: Tensor, render: Tensor) -> Tensor:
    """Return the mean absolute difference over the channels as colours, (H, W, 3) uint8; black is no difference."""
    error = ((photo - render).abs().mean(dim=-1, keepdim=True) / ERROR_MAP_MAX).clamp(0, 1)
    colours = cv2.applyColorMap(to_uint8(error).cpu().numpy(), cv2.COLORMAP_INFERNO)
    return torch.from_numpy(cv2.cvtColor(colours, cv2.COLOR_BGR2RGB))


OTHER_PSNR = {
    "psnr_own_gain": "PSNR after a gain of each view",
    "psnr_own_pose": "PSNR after an alignment of each camera",
    "psnr_black": "PSNR over black",
}


def _metrics_list(evaluation: Mapping[str, Any]) -> str:
    seconds = float(evaluation["train_seconds"])
    metrics = [
        ("PSNR", f"{_number(evaluation['psnr'], 2)} dB"),
        *((name, f"{_number(evaluation[key], 2)} dB") for key, name in OTHER_PSNR.items() if key in evaluation),
        ("SSIM", _number(evaluation["ssim"], 4)),
        ("held-out views", f"{evaluation['views']}"),
        (str(evaluation["size_unit"]), f"{evaluation['size']:,}"),
        ("training", f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"),
        ("steps", f"{evaluation['steps']:,}"),
    ]
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in metrics)
    return f'<dl class="figures">{cells}</dl>'


def _provenance(evaluation: Mapping[str, Any]) -> str:
    producer = f"Lumigraph {evaluation['version']}, method {evaluation['method']}"
    source = f"{producer}, capture {evaluation['capture']} at 1/{evaluation['downscale']:g} of its size"
    if not evaluation.get("exported"):
        return source
    renderer = "the reference implementation" if evaluation["renderer"] == "reference" else "the compiled kernels"
    return f"{source}. Metrics are of the exported PLY as any reference renderer shows it, here rendered by {renderer}"


def _table(views: Iterable[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(view['name']))}</td><td>{_number(view['psnr'], 2)}</td>"
        f"<td>{_number(view['ssim'], 4)}</td></tr>"
        for view in views
    )
    heads = "".join(f'<th><button type="button">{name}</button></th>' for name in ("view", "PSNR, dB", "SSIM"))
    return f'<table class="sortable"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _number(value: float | None, digits: int) -> str:
    """Format a number. JSON has `null` for the infinite PSNR of equal images."""
    return "∞" if value is None or math.isinf(value) else f"{value:.{digits}f}"


def _jpeg(pixels: Tensor) -> str:
    """Return uint8 (H, W, 3) as a JPEG data URI, downscaled to REPORT_IMAGE_SIDE_PX."""
    height, width, _ = pixels.shape
    scale = min(1.0, REPORT_IMAGE_SIDE_PX / max(height, width))
    pixels = area_downscale(pixels.cpu(), (max(1, round(width * scale)), max(1, round(height * scale))))
    bgr = cv2.cvtColor(pixels.numpy(), cv2.COLOR_RGB2BGR)
    jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()


# ---- the training curve


def _curves(history: Sequence[Metrics]) -> str:
    """Plot PSNR and loss against training seconds."""
    plots = []
    for key, unit in (("psnr", "PSNR of a few held-out views, dB"), ("loss", "loss")):
        series = {}
        for name in sorted({name for event in history for name in event.values if key in name.lower()}):
            points = [(event.seconds, event.values[name]) for event in history if name in event.values]
            points = [point for point in points if math.isfinite(point[1])]
            if len(points) > 1:
                series[name] = _subsample(points)
        if series:
            plots.append(_plot(unit, series))
    return f'<div class="plots">{"".join(plots)}</div>' if plots else "<p>The training was too short for a curve.</p>"


def _subsample(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most MAX_CURVE_POINTS points, including the last."""
    stride = math.ceil(len(points) / MAX_CURVE_POINTS)
    return points[::-1][::stride][::-1]


def _plot(unit: str, series: Mapping[str, list[tuple[float, float]]]) -> str:
    width, height, left, right, top, bottom = PLOT_LAYOUT_PX
    all_points = [point for points in series.values() for point in points]
    end = max(x for x, _ in all_points) or 1.0
    xs, ys = _ticks(0.0, end), _ticks(min(y for _, y in all_points), max(y for _, y in all_points))

    def to_pixels(x: float, y: float) -> tuple[float, float]:
        across, up = x / end, (y - ys[0]) / (ys[-1] - ys[0])
        return left + across * (width - left - right), height - bottom - up * (height - top - bottom)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{unit} against seconds of training">']
    for y in ys:
        row = to_pixels(xs[0], y)[1]
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{row:.1f}" y2="{row:.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{row + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in (x for x in xs if x <= end):
        column = to_pixels(x, ys[0])[0]
        parts.append(f'<text x="{column:.1f}" y="{height - bottom + 18}" text-anchor="middle">{x:g} s</text>')
    for number, (name, points) in enumerate(series.items()):
        path = " ".join("{:.1f},{:.1f}".format(*to_pixels(x, y)) for x, y in points)
        parts.append(f'<polyline class="curve c{number % 3}" points="{path}"><title>{escape(name)}</title></polyline>')
    names = ", ".join(f'<b class="c{i % 3}">{escape(name)}</b>' for i, name in enumerate(series))
    caption = unit if len(series) == 1 else f"{unit}: {names}"
    return f"<figure>{''.join(parts)}</svg><figcaption>{caption}</figcaption></figure>"


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round ticks that enclose low..high, spaced by 1, 2 or 5 times a power of ten."""
    span = max(high - low, 1e-9 * max(abs(high), 1.0))
    rough = span / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [round(i * step, 12) for i in range(first, last + 1)]


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1d20; --soft: #6b6f76; --line: #e3e4e8; --paper: #fff; --card: #f6f6f8;
  --c0: #2f6fde; --c1: #d9601a; --c2: #2c9a62; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e9ec; --soft: #9a9ea6; --line: #33363c; --paper: #16171a; --card: #1f2125;
    --c0: #78a6ff; --c1: #ff9d63; --c2: #66cf9a; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; letter-spacing: -.02em; margin: 0 0 1.25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
small, p, footer, figcaption { color: var(--soft); }
small { font-weight: 400; margin-left: .5em; }
footer { margin-top: 3rem; font-size: .85rem; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: .75rem; margin: 0; }
.figures div { background: var(--card); border-radius: 10px; padding: .8rem 1rem; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; font-size: 1.45rem; font-weight: 600; font-variant-numeric: tabular-nums; }
figure { margin: 0; }
figcaption { font-size: .85rem; margin-top: .25rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 1.5rem; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 12px; }
.grid { stroke: var(--line); }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.curve.c0 { stroke: var(--c0); } .curve.c1 { stroke: var(--c1); } .curve.c2 { stroke: var(--c2); }
b.c0 { color: var(--c0); } b.c1 { color: var(--c1); } b.c2 { color: var(--c2); }
.view { margin: 0 0 1.75rem; }
.triple { display: grid; grid-template-columns: repeat(3, 1fr); gap: .6rem; }
.triple img { width: 100%; display: block; border-radius: 6px; background: var(--card); }
@media (max-width: 640px) { .triple { grid-template-columns: 1fr; } }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th:first-child, td:first-child { text-align: left; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--c0); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const value = (row, column) => {
    const text = row.cells[column].textContent;
    return column === 0 ? text : text === "∞" ? Infinity : Number(text);
  };
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const sign = head.ariaSort === "ascending" ? -1 : 1;
    heads.forEach((other) => { other.ariaSort = null; });
    head.ariaSort = sign === 1 ? "ascending" : "descending";
    const order = (a, b) => {
      const x = value(a, column), y = value(b, column);
      return sign * (column === 0 ? x.localeCompare(y, undefined, { numeric: true }) : x < y ? -1 : x > y ? 1 : 0);
    };
    body.append(...[...body.rows].sort(order));
  }));
}
"""
