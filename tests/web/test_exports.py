"""Exports through the Export tab: each downloaded file has the requested format and content."""

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
from tests.web.conftest import run_script

SIZE = (64, 48)  # width, height in pixels
FOCAL_PX = 60.0


def render_ball_capture(folder: Path, count: int = 12) -> Path:
    """Write a posed capture of a ball, coloured by position, with cameras around and above it."""
    (folder / "images").mkdir(parents=True)
    positions = (
        torch.nn.functional.normalize(torch.randn(3000, 3, generator=torch.Generator().manual_seed(1)), dim=1) * 0.6
    )
    colours = 0.5 * torch.sin(4 * positions)[:, None] / C0
    quaternions = torch.tensor([[1.0, 0, 0, 0]]).expand(3000, 4)
    ball = from_splats(Splats(positions, torch.full((3000, 3), -3.3), quaternions, torch.full((3000,), 3.0), colours))
    frames = []
    for i in range(count):
        angle = 2 * math.pi * i / count
        eye = torch.tensor([2 * math.cos(angle), 2 * math.sin(angle), 0.4 + i % 3 * 0.6])
        pose = look_at(eye, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
        centre = torch.tensor([SIZE], dtype=torch.float32) / 2
        camera = Cameras(pose[None], torch.full((1, 2), FOCAL_PX), centre, torch.tensor([SIZE]))
        with torch.no_grad():
            write_png(folder / "images" / f"{i:02d}.png", ball.render(camera, None).rgb[0].clamp(0, 1))
        opengl = pose * torch.tensor([1.0, -1.0, -1.0, 1.0])
        rows = [*opengl.tolist(), [0.0, 0.0, 0.0, 1.0]]
        frames.append({"file_path": f"images/{i:02d}.png", "transform_matrix": rows})
    lens = {"fl_x": FOCAL_PX, "fl_y": FOCAL_PX, "cx": SIZE[0] / 2, "cy": SIZE[1] / 2, "w": SIZE[0], "h": SIZE[1]}
    (folder / "transforms.json").write_text(json.dumps({**lens, "frames": frames}))
    return folder


def test_export_tab_files(chromium: Path, tmp_path: Path) -> None:
    studio = Studio(tmp_path / "data")
    try:
        project = studio.client().projects.create("a ball")
        project.upload(render_ball_capture(tmp_path / "ball"))
        project.train(steps=60, settings={"cap": 1500}).wait()
        link = f"{studio.url}/?token={studio.token}"
        messages = run_script("exports.mjs", link, project.id, tmp_path, chromium=chromium)
    finally:
        studio.stop()
    assert messages[-1] == {"step": "end", "errors": []}
    exports = {Path(message["path"]).name: message for message in messages[:-1]}
    assert list(exports) == ["mesh.glb", "mesh.usdz", "mesh.fbx", "splats.sog"]
    for name, export in exports.items():
        assert ("gaussians" if name == "splats.sog" else "triangles") in export["report"]
    check_glb((tmp_path / "mesh.glb").read_bytes())
    assert (tmp_path / "mesh.fbx").read_bytes().startswith(b"Kaydara FBX Binary  \0\x1a\0" + struct.pack("<I", 7400))
    with zipfile.ZipFile(tmp_path / "mesh.usdz") as archive:
        layer, texture = archive.namelist()
        assert archive.read(layer).startswith(b"PXR-USDC") and archive.read(texture).startswith(b"\x89PNG")
    with zipfile.ZipFile(tmp_path / "splats.sog") as archive:
        count = json.loads(archive.read("meta.json"))["count"]
        assert f"{count:,} gaussians" in exports["splats.sog"]["report"]
        assert archive.read("means_l.webp")[8:12] == b"WEBP"
    # The activity bar names the stage, instead of "Writing the file" for all stages.
    stages = {text for name, export in exports.items() if name.startswith("mesh") for text in export["stages"]}
    assert stages & {"Reading the scene", "Rendering depth from all around", "Baking the texture"}
    assert "Writing the file" not in stages


def check_glb(data: bytes) -> None:
    magic, version, length, size, kind = struct.unpack("<4sIIII", data[:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), 0x4E4F534A)
    tree = json.loads(data[20 : 20 + size])
    [mesh] = tree["meshes"]
    index_count = tree["accessors"][mesh["primitives"][0]["indices"]]["count"]
    assert index_count % 3 == 0 and 30 < index_count <= 3 * 400
    assert len(tree["images"]) == 1
