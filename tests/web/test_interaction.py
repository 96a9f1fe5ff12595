"""Studio interaction besides clicks: keyboard alone, a dropped folder, an interrupted upload."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.server.studio_process import Studio
from tests.studio.conftest import make_capture
from tests.web.conftest import run_script


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("interaction") / "data")
    yield studio
    studio.stop()


def link(studio: Studio) -> str:
    return f"{studio.url}/?token={studio.token}"


def write_noise(path: Path, side: int, seed: int = 0) -> Path:
    """Write a square image of noise, which no codec can compress."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)
    return path


def test_drop_zone_folder(studio: Studio, chromium: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my_little_table"
    (folder / "left").mkdir(parents=True)
    names = ["one.png", "two.png", "left/three.png"]
    for k, name in enumerate(names):
        write_noise(folder / name, 32, k)
    (folder / ".hidden.png").write_bytes(b"not an image")
    (folder / "notes.odt").write_bytes(b"a type that the studio rejects")
    messages = run_script("interaction.mjs", "drop", link(studio), folder, chromium=chromium)
    assert messages[-1] == {"step": "end", "errors": []}
    drop = messages[0]
    assert drop["name"] == "my little table"
    files = studio.data / "projects" / drop["project"] / "files"
    contents = {str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()}
    assert contents == {name: (folder / name).read_bytes() for name in names}


def test_upload_resumes_from_its_offset(studio: Studio, chromium: Path, tmp_path: Path) -> None:
    photo = write_noise(tmp_path / "large.png", 2000)
    project = studio.http().post("/api/v1/projects", json={"name": "Interrupted"}).json()["id"]
    folder = studio.data / "projects" / project
    partial_sizes = []

    def interrupt(message: dict[str, Any]) -> None:
        if message["step"] == "kill":
            studio.kill()
            partial_sizes.append(partial_size(folder))
            studio.start()
        else:
            partial_sizes.append(partial_size(folder))

    messages = run_script(
        "interaction.mjs", "upload", link(studio), project, photo, chromium=chromium, on_wait=interrupt
    )
    assert messages[-1] == {"step": "end", "errors": []}
    after_kill, after_leaving = partial_sizes
    size = photo.stat().st_size
    assert 0.1 * size < after_kill < after_leaving < 0.95 * size
    assert messages[-2]["offsets"] == [0, after_kill, after_leaving]  # no byte was sent twice
    assert (folder / "files" / "large.png").read_bytes() == photo.read_bytes()


def partial_size(folder: Path) -> int:
    """Bytes received of the only upload."""
    [part] = [path for path in (folder / "uploads").iterdir() if not path.suffix]
    return part.stat().st_size


def test_studio_by_keyboard_alone(studio: Studio, chromium: Path, tmp_path: Path) -> None:
    messages = run_script(
        "interaction.mjs", "keys", link(studio), make_capture(tmp_path / "a_table", 10), chromium=chromium
    )
    assert messages[-1] == {"step": "end", "errors": []}
    project = messages[0]["project"]
    navigation = next(message for message in messages if message["step"] == "navigated")
    jobs = studio.client().projects.get(project).jobs()
    assert {job.state.request.verb for job in jobs} == {"train", "render"}
    run = next(job.id for job in jobs if job.state.request.verb == "train")
    preview = json.loads((studio.data / "projects" / project / "runs" / run / "shown" / "index.json").read_text())
    start, orbit, walk = (np.array(view) for view in navigation["views"])
    check_moves(start, orbit, walk, up=np.array(preview["up"]))
    check_thumbnails(navigation["thumbnails"], navigation["storage"])


def check_moves(start: np.ndarray, orbit: np.ndarray, walk: np.ndarray, up: np.ndarray) -> None:
    """Check the views of the address: position, look_at and fov, to five digits."""
    distance = float(np.linalg.norm(start[:3] - start[3:6]))
    assert np.linalg.norm(orbit[:3] - start[:3]) > 0.05 * distance
    assert np.linalg.norm(orbit[:3] - orbit[3:6]) == pytest.approx(distance, rel=1e-3)  # orbits the target
    step = walk[:3] - orbit[:3]
    assert np.linalg.norm(step) > 0.005 * distance
    assert abs(step @ up) < 2e-4 * max(1.0, np.abs(orbit[:3]).max())  # at constant height
    ahead = walk[3:6] - walk[:3]
    level = ahead - (ahead @ up) * up
    assert step @ level > 0.999 * np.linalg.norm(step) * np.linalg.norm(level)


def check_thumbnails(thumbnails: list[tuple[int, int, str, str]], storage: dict[str, str]) -> None:
    """Check two small thumbnails with different parts of the scene, stored in few bytes."""
    assert [(width, height, alt) for width, height, alt, _ in thumbnails] == [
        (96, 64, "Thumbnail of view 1"),
        (96, 64, "Thumbnail of view 2"),
    ]
    bodies = [base64.b64decode(address.removeprefix("data:image/jpeg;base64,")) for *_, address in thumbnails]
    pixels = [np.asarray(Image.open(io.BytesIO(body)).convert("RGB"), dtype=np.float64) for body in bodies]
    assert all(image.std() > 10 for image in pixels)
    assert np.abs(pixels[0] - pixels[1]).mean() > 3
    entries = json.loads(storage["lumigraph.path-pictures"])
    assert [entry["picture"] for entry in entries] == [address for *_, address in thumbnails]
    assert all(len(body) < 8000 for body in bodies)
