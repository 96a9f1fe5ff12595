"""Photos to exported file by clicks in a real browser, with a real server whose worker is killed during training."""

from __future__ import annotations

import json
import math
import subprocess
import sys
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
from tests.server.studio_process import Studio
from tests.web.conftest import run_script


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("story") / "data")
    yield studio
    studio.stop()


def test_studio_from_photos_to_a_file(studio: Studio, chromium: Path, tmp_path: Path) -> None:
    sample = tmp_path / "sample"
    command = [sys.executable, "-m", "lumigraph", "sample", str(sample), "--views", "40", "--size", "320x240"]
    subprocess.run([*command, "--quiet"], check=True)
    link = f"{studio.url}/?token={studio.token}"
    messages = run_script(
        "story.mjs", link, sample / "images", tmp_path, chromium=chromium, on_wait=lambda _: kill_worker(studio)
    )
    assert messages[-1] == {"step": "end", "errors": []}
    project = next(message["project"] for message in messages if message["step"] == "scan submitted")
    [train] = [job for job in studio.client().projects.get(project).jobs() if job.state.request.verb == "train"]
    assert train.state.attempt == 2  # the killed attempt and the resumed one
    assert len(PlyData.read(tmp_path / "scene.ply")["vertex"]) > 1000
    run = studio.data / "projects" / project / "runs" / train.id
    view = next(message["view"] for message in messages if message["step"] == "finished")
    numbers = [float(number) for number in view.partition("=")[2].split(",")]
    assert psnr_to_field(run, numbers, tmp_path / "canvas.png") > 25
    # A camera that is wrong by some pixels gives 12.
    assert psnr_to_photo(sample / "images" / "IMG_0012.jpg", tmp_path / "photo-camera.png") > 15


def psnr_to_photo(photo: Path, canvas: Path) -> float:
    """PSNR between a photo and the browser's canvas at the camera of the photo, in the middle of the image."""
    render = Image.open(canvas).convert("RGB")
    width, height = render.size
    reference = Image.open(photo).convert("RGB")
    reference = reference.resize((round(reference.width * height / reference.height), height))
    left = (reference.width - width) / 2
    images = [reference.crop((round(left), 0, round(left) + width, height)), render]
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    a, b = (np.asarray(image.crop(box), dtype=np.float64) / 255 for image in images)
    return float(-10 * np.log10(((a - b) ** 2).mean()))


def kill_worker(studio: Studio) -> None:
    deadline = time.monotonic() + 120
    while not (workers := studio.workers()):
        assert time.monotonic() < deadline, "no worker is training"
        time.sleep(0.05)
    workers[0][0].kill()


def psnr_to_field(run: Path, view: list[float], canvas: Path) -> float:
    """PSNR between the browser's canvas and a render of the field. `view`: position, look_at, fov in degrees."""
    pixels = torch.from_numpy(np.array(Image.open(canvas).convert("RGB"))).float() / 255
    up = torch.tensor(json.loads((run / "shown" / "index.json").read_text())["up"])
    height, width = pixels.shape[:2]
    focal = height / 2 / math.tan(math.radians(view[6]) / 2)
    pose = look_at(torch.tensor([view[:3]]), torch.tensor([view[3:6]]), up[None])
    camera = Cameras(
        pose, torch.tensor([[focal, focal]]), torch.tensor([[width / 2, height / 2]]), torch.tensor([[width, height]])
    )
    field, _ = load_field(Run(run), "cpu")
    with torch.no_grad():
        image = field.render(camera, None)
    middle = slice(height // 4, 3 * height // 4), slice(width // 4, 3 * width // 4)  # controls cover the rest
    error = ((image.rgb[0].clamp(0, 1) - pixels)[middle] ** 2).mean()
    return float(-10 * torch.log10(error))
