"""Files that the export room makes, picked on its page: what comes down is what was asked for."""

from __future__ import annotations

import json
import math
import struct
import zipfile
from pathlib import Path

import torch

from lumigraph.methods.splat import from_splats
from lumigraph.scene.assets import Splats
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.harmonics import C0
from lumigraph.scene.images import write_png
from lumigraph.scene.poses import look_at
from tests.server.studio_process import Studio
from tests.web.conftest import play

SIZE, FOCAL = (64, 48), 60.0


def photos_of_a_ball(folder: Path, count: int = 12) -> Path:
    """A posed capture of a ball in the colours of its places, seen from around and above."""
    (folder / "images").mkdir(parents=True)
    places = (
        torch.nn.functional.normalize(torch.randn(3000, 3, generator=torch.Generator().manual_seed(1)), dim=1) * 0.6
    )
    colours = 0.5 * torch.sin(4 * places)[:, None] / C0
    turns = torch.tensor([[1.0, 0, 0, 0]]).expand(3000, 4)
    ball = from_splats(Splats(places, torch.full((3000, 3), -3.3), turns, torch.full((3000,), 3.0), colours))
    frames = []
    for i in range(count):
        angle = 2 * math.pi * i / count
        eye = torch.tensor([2 * math.cos(angle), 2 * math.sin(angle), 0.4 + i % 3 * 0.6])
        pose = look_at(eye, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
        centre = torch.tensor([SIZE], dtype=torch.float32) / 2
        camera = Cameras(pose[None], torch.full((1, 2), FOCAL), centre, torch.tensor([SIZE]))
        with torch.no_grad():
            write_png(folder / "images" / f"{i:02d}.png", ball.render(camera, None).rgb[0].clamp(0, 1))
        opengl = pose * torch.tensor([1.0, -1.0, -1.0, 1.0])
        rows = [*opengl.tolist(), [0.0, 0.0, 0.0, 1.0]]
        frames.append({"file_path": f"images/{i:02d}.png", "transform_matrix": rows})
    lens = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": SIZE[0] / 2, "cy": SIZE[1] / 2, "w": SIZE[0], "h": SIZE[1]}
    (folder / "transforms.json").write_text(json.dumps({**lens, "frames": frames}))
    return folder


def test_files_made_on_the_page(chromium: Path, tmp_path: Path) -> None:
    studio = Studio(tmp_path / "data")
    try:
        project = studio.client().projects.create("a ball")
        project.upload(photos_of_a_ball(tmp_path / "ball"))
        project.train(steps=60, settings={"cap": 1500}).wait()
        link = f"{studio.url}/?token={studio.token}"
        told = play("exports.mjs", link, project.id, tmp_path, chromium=chromium)
    finally:
        studio.stop()
    assert told[-1] == {"step": "end", "wrong": []}
    made = {Path(one["path"]).name: one for one in told[:-1]}
    assert list(made) == ["mesh.glb", "mesh.usdz", "mesh.fbx", "splats.sog"]
    for name, one in made.items():
        assert ("gaussians" if name == "splats.sog" else "triangles") in one["said"]
    check_glb((tmp_path / "mesh.glb").read_bytes())
    assert (tmp_path / "mesh.fbx").read_bytes().startswith(b"Kaydara FBX Binary  \0\x1a\0" + struct.pack("<I", 7400))
    with zipfile.ZipFile(tmp_path / "mesh.usdz") as archive:
        layer, texture = archive.namelist()
        assert archive.read(layer).startswith(b"PXR-USDC") and archive.read(texture).startswith(b"\x89PNG")
    with zipfile.ZipFile(tmp_path / "splats.sog") as archive:
        count = json.loads(archive.read("meta.json"))["count"]
        assert f"{count:,} gaussians" in made["splats.sog"]["said"]
        assert archive.read("means_l.webp")[8:12] == b"WEBP"
    # The bar above the rooms tells what is being done, and does not call all of it writing.
    heard = {words for name, one in made.items() if name.startswith("mesh") for words in one["heard"]}
    assert heard & {"Reading the scene", "Rendering depth from all around", "Baking the texture"}
    assert "Writing the file" not in heard


def check_glb(data: bytes) -> None:
    magic, version, length, size, kind = struct.unpack("<4sIIII", data[:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), 0x4E4F534A)
    tree = json.loads(data[20 : 20 + size])
    [mesh] = tree["meshes"]
    corners = tree["accessors"][mesh["primitives"][0]["indices"]]["count"]
    assert corners % 3 == 0 and 30 < corners <= 3 * 400
    assert len(tree["images"]) == 1
