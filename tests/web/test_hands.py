"""What hands do in the studio besides clicking: the keyboard alone, a folder dropped, an upload that is interrupted."""

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
from tests.web.conftest import play


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("hands") / "data")
    yield studio
    studio.stop()


def link(studio: Studio) -> str:
    return f"{studio.url}/?token={studio.token}"


def noise(path: Path, side: int, seed: int = 0) -> Path:
    """A picture that nothing can pack."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)
    return path


def test_a_folder_is_dropped(studio: Studio, chromium: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my_little_table"
    (folder / "left").mkdir(parents=True)
    names = ["one.png", "two.png", "left/three.png"]
    for k, name in enumerate(names):
        noise(folder / name, 32, k)
    (folder / ".hidden.png").write_bytes(b"not a picture")
    (folder / "notes.odt").write_bytes(b"nothing that the studio takes")
    told = play("hands.mjs", "drop", link(studio), folder, chromium=chromium)
    assert told[-1] == {"step": "end", "wrong": []}
    dropped = told[0]
    assert dropped["name"] == "my little table"
    files = studio.data / "projects" / dropped["project"] / "files"
    found = {str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()}
    assert found == {name: (folder / name).read_bytes() for name in names}


def test_an_upload_goes_on_where_it_stopped(studio: Studio, chromium: Path, tmp_path: Path) -> None:
    photo = noise(tmp_path / "large.png", 2000)
    project = studio.http().post("/api/v1/projects", json={"name": "Interrupted"}).json()["id"]
    folder = studio.data / "projects" / project
    arrived = []

    def interrupt(told: dict[str, Any]) -> None:
        if told["step"] == "kill":
            studio.kill()
            arrived.append(partial(folder))
            studio.start()
        else:
            arrived.append(partial(folder))

    told = play("hands.mjs", "upload", link(studio), project, photo, chromium=chromium, at_wait=interrupt)
    assert told[-1] == {"step": "end", "wrong": []}
    after_kill, after_leaving = arrived
    size = photo.stat().st_size
    assert 0.1 * size < after_kill < after_leaving < 0.95 * size
    assert told[-2]["offsets"] == [0, after_kill, after_leaving]  # no byte was sent twice
    assert (folder / "files" / "large.png").read_bytes() == photo.read_bytes()


def partial(folder: Path) -> int:
    """How much of the one upload has come."""
    [part] = [path for path in (folder / "uploads").iterdir() if not path.suffix]
    return part.stat().st_size


def test_the_keyboard_is_enough(studio: Studio, chromium: Path, tmp_path: Path) -> None:
    told = play("hands.mjs", "keys", link(studio), make_capture(tmp_path / "a_table", 10), chromium=chromium)
    assert told[-1] == {"step": "end", "wrong": []}
    project = told[0]["project"]
    moved = next(one for one in told if one["step"] == "moved")
    jobs = studio.client().projects.get(project).jobs()
    assert {job.state.request.verb for job in jobs} == {"train", "render"}
    run = next(job.id for job in jobs if job.state.request.verb == "train")
    shown = json.loads((studio.data / "projects" / project / "runs" / run / "shown" / "index.json").read_text())
    check_moves(*(np.array(view) for view in moved["views"]), up=np.array(shown["up"]))
    check_pictures(moved["pictures"], moved["kept"])


def check_moves(first: np.ndarray, turned: np.ndarray, walked: np.ndarray, up: np.ndarray) -> None:
    """Views as in an address: position, look_at, fov, to five digits."""
    reach = float(np.linalg.norm(first[:3] - first[3:6]))
    assert np.linalg.norm(turned[:3] - first[:3]) > 0.05 * reach
    assert np.linalg.norm(turned[:3] - turned[3:6]) == pytest.approx(reach, rel=1e-3)  # about what is looked at
    way = walked[:3] - turned[:3]
    assert np.linalg.norm(way) > 0.005 * reach
    assert abs(way @ up) < 2e-4 * max(1.0, np.abs(turned[:3]).max())  # as high as before
    ahead = walked[3:6] - walked[:3]
    level = ahead - (ahead @ up) * up
    assert way @ level > 0.999 * np.linalg.norm(way) * np.linalg.norm(level)


def check_pictures(pictures: list[tuple[int, int, str, str]], kept: dict[str, str]) -> None:
    """Two small ones that show the scene, each its own part of it; kept with few bytes."""
    assert [(width, height, alt) for width, height, alt, _ in pictures] == [
        (96, 64, "Thumbnail of view 1"),
        (96, 64, "Thumbnail of view 2"),
    ]
    bodies = [base64.b64decode(address.removeprefix("data:image/jpeg;base64,")) for *_, address in pictures]
    pixels = [np.asarray(Image.open(io.BytesIO(body)).convert("RGB"), dtype=np.float64) for body in bodies]
    assert all(one.std() > 10 for one in pixels)
    assert np.abs(pixels[0] - pixels[1]).mean() > 3
    stored = json.loads(kept["lumigraph.path-pictures"])
    assert [one["picture"] for one in stored] == [address for *_, address in pictures]
    assert all(len(body) < 8000 for body in bodies)
