from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lumigraph.studio import report
from lumigraph.studio.report import Comparison, Page, error_map
from lumigraph.wire.events import Metrics

EVIL = '"><script>alert(1)</script>&<img src=http://evil.example/x>.png'


class Elements(HTMLParser):
    """Every element with its attributes, and the nesting checked on the way."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def evaluation(names: list[str]) -> dict[str, Any]:
    return {
        "method": "tiny",
        "psnr": 25.125,
        "ssim": 0.9,
        "views": len(names),
        "train_seconds": 61.0,
        "steps": 1234,
        "size": 31204,
        "size_unit": "gaussians",
        "capture": f"/data/{EVIL}",
        "downscale": 1.92,
        "version": "0.1",
        "per_view": [{"name": name, "psnr": None if i == 0 else 20.0 + i, "ssim": 0.5} for i, name in enumerate(names)],
    }


def view(name: str, size: tuple[int, int] = (40, 60)) -> Comparison:
    generator = torch.Generator().manual_seed(0)
    photo, render = torch.rand(*size, 3, generator=generator), torch.rand(*size, 3, generator=generator)
    return Comparison(name, photo, render, 12.0, 0.5)


HISTORY = [Metrics(step=i, seconds=i / 10, values={"loss": 1 / (i + 1), "psnr": 20 + i / 9}) for i in range(50)]


def test_the_page_asks_nothing_of_the_network_and_runs_no_strangers_code() -> None:
    page = Page()
    page.add(view(EVIL))
    html = page.html(EVIL, evaluation([EVIL, "b.png"]), HISTORY)
    elements = Elements(html)
    assert len(elements.named("script")) == 1
    sources = [image["src"] for image in elements.named("img")]
    assert len(sources) == 3
    assert all(source is not None and source.startswith("data:image/jpeg;base64,") for source in sources)
    policies = [meta["content"] for meta in elements.named("meta") if "http-equiv" in meta]
    assert policies[0] is not None
    assert "default-src 'none'" in policies[0]
    # Whatever else has an address or a handler would be foreign.
    for tag, attributes in elements.found:
        assert not {"href", "srcset", "onerror", "onload", "onclick"} & set(attributes), tag


def test_the_page_says_the_figures() -> None:
    html = Page().html("fox", evaluation(["a.png", "b.png"]), HISTORY)
    for said in ("25.12 dB", "0.9000", "31,204", "61 s", "1,234", "∞", "1/1.92", "prefers-color-scheme: dark"):
        assert said in html, said


def test_the_curves_stay_inside_their_plots() -> None:
    html = Page().html("fox", evaluation(["a.png"]), HISTORY)
    curves = re.findall(r'<polyline class="curve c\d" points="([^"]+)"', html)
    assert len(curves) == 2
    width, height, left, right, top, bottom = report.PLOT_LAYOUT_PX
    for curve in curves:
        points = np.array([[float(number) for number in point.split(",")] for point in curve.split()])
        assert len(points) == 50
        assert (np.diff(points[:, 0]) > 0).all()
        assert points[:, 0].min() >= left - 0.1
        assert points[:, 0].max() <= width - right + 0.1
        assert points[:, 1].min() >= top - 0.1
        assert points[:, 1].max() <= height - bottom + 0.1


@pytest.mark.parametrize("values", [[], [1.0], [float("nan")] * 9, [0.0] * 9, [1e-12, 2e-12], [1e9, -1e9]])
def test_any_history_makes_a_page(values: list[float]) -> None:
    history = [Metrics(step=i, seconds=i, values={"loss": value}) for i, value in enumerate(values)]
    Elements(Page().html("x", evaluation(["a"]), history))


def test_long_histories_are_thinned_and_keep_their_end() -> None:
    history = [Metrics(step=i, seconds=i, values={"loss": 1.0 + i}) for i in range(10_000)]
    html = Page().html("x", evaluation(["a"]), history)
    (curve,) = re.findall(r'points="([^"]+)"', html)
    points = curve.split()
    assert len(points) <= report.MAX_CURVE_POINTS
    assert float(points[-1].split(",")[0]) == pytest.approx(report.PLOT_LAYOUT_PX[0] - report.PLOT_LAYOUT_PX[3], abs=1)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 10, [0, 5, 10]), (0.12, 0.58, [0.0, 0.2, 0.4, 0.6]), (20, 27, [20, 22, 24, 26, 28]), (3, 3, None)],
)
def test_ticks_are_round_and_enclose(low: float, high: float, ticks: list[float] | None) -> None:
    found = report._ticks(low, high)
    assert found[0] <= low <= high <= found[-1]
    if ticks is not None:
        assert found == pytest.approx(ticks)


def test_pictures_are_bounded_in_size_and_in_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_REPORT_IMAGE_BYTES", 100_000)
    page = Page()
    page.add(view("large.png", (600, 900)))
    assert page.is_full
    html = page.html("x", evaluation(["large.png", "left-out.png"]), [])
    uri = re.search(r'<img src="data:image/jpeg;base64,([^"]+)"', html)
    assert uri is not None
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(uri.group(1)), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape == (320, 480, 3)
    assert "the worst 1 of 2 held-out views" in html


def test_the_error_map_is_dark_where_equal_and_bright_where_wrong() -> None:
    photo = torch.zeros(4, 4, 3)
    render = photo.clone()
    render[0, 0] = 1.0
    shown = error_map(photo, render).float().mean(dim=-1)
    assert shown[0, 0] > 150
    assert shown[1:, 1:].max() < 5
