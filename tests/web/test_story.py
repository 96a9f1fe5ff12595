"""The whole way through the studio, by clicks in a real browser against a real server, whose worker is killed in it."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData

from lumigraph.scene.cameras import Cameras
from lumigraph.scene.poses import look_at
from lumigraph.studio.run import Run
from lumigraph.studio.training import load_field
from tests.server.studio_process import ROOT, Studio
from tests.web.conftest import play


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("story") / "data")
    yield studio
    studio.stop()


def test_from_photos_to_a_file(studio: Studio, chromium: Path, tmp_path: Path) -> None:
    sample = tmp_path / "sample"
    command = [str(ROOT / ".venv" / "bin" / "lumigraph"), "sample", str(sample), "--views", "40", "--size", "320x240"]
    subprocess.run([*command, "--quiet"], check=True)
    link = f"{studio.url}/?token={studio.token}"
    told = play(
        "story.mjs", link, sample / "images", tmp_path, chromium=chromium, at_wait=lambda _: kill_worker(studio)
    )
    assert told[-1] == {"step": "end", "wrong": []}
    project = next(one["project"] for one in told if one["step"] == "scan submitted")
    [train] = [job for job in studio.client().projects.get(project).jobs() if job.state.request.verb == "train"]
    assert train.state.attempt == 2  # the one that was killed, and the one that went on
    assert len(PlyData.read(tmp_path / "scene.ply")["vertex"]) > 1000
    run = studio.data / "projects" / project / "runs" / train.id
    view = next(one["view"] for one in told if one["step"] == "finished")
    assert likeness(run, [float(number) for number in view.partition("=")[2].split(",")], tmp_path / "canvas.png") > 25
    assert likeness_to_photo(sample / "images" / "IMG_0012.jpg", tmp_path / "stood.png") > 15  # 12 some pixels aside


def likeness_to_photo(photo: Path, canvas: Path) -> float:
    """PSNR between what the browser drew from where a photo was taken and that photo, in the middle of both."""
    drawn = Image.open(canvas).convert("RGB")
    width, height = drawn.size
    taken = Image.open(photo).convert("RGB")
    taken = taken.resize((round(taken.width * height / taken.height), height))
    left = (taken.width - width) / 2
    pictures = [taken.crop((round(left), 0, round(left) + width, height)), drawn]
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    a, b = (np.asarray(picture.crop(box), dtype=np.float64) / 255 for picture in pictures)
    return float(-10 * np.log10(((a - b) ** 2).mean()))


def kill_worker(studio: Studio) -> None:
    end = time.monotonic() + 120
    while not (workers := studio.workers()):
        assert time.monotonic() < end, "nobody trains any more"
        time.sleep(0.05)
    workers[0][0].kill()


def likeness(run: Path, view: list[float], canvas: Path) -> float:
    """PSNR between what the browser drew and what the field renders from there. `view`: position, look_at, fov."""
    drawn = torch.from_numpy(np.array(Image.open(canvas).convert("RGB"))).float() / 255
    up = torch.tensor(json.loads((run / "shown" / "index.json").read_text())["up"])
    height, width = drawn.shape[:2]
    focal = height / 2 / math.tan(math.radians(view[6]) / 2)
    pose = look_at(torch.tensor([view[:3]]), torch.tensor([view[3:6]]), up[None])
    camera = Cameras(
        pose, torch.tensor([[focal, focal]]), torch.tensor([[width / 2, height / 2]]), torch.tensor([[width, height]])
    )
    field, _ = load_field(Run(run), "cpu")
    with torch.no_grad():
        image = field.render(camera, None)
    middle = slice(height // 4, 3 * height // 4), slice(width // 4, 3 * width // 4)  # no control lies over it
    error = ((image.rgb[0].clamp(0, 1) - drawn)[middle] ** 2).mean()
    return float(-10 * torch.log10(error))
