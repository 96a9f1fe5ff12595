"""The PLY of a run looks the same in the viewers that people use as in our own renderer.

The scene is the synthetic sample, photographed from around its table and from the table towards the walls, so that
every view here shows what training saw.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from lumigraph.captures.sample import handheld_orbit, transforms_json
from lumigraph.captures.synthetic.raytracer import BakedScene, bake, reflection_maps, render_photo
from lumigraph.captures.synthetic.still_life import still_life
from lumigraph.formats import ply, spz
from lumigraph.methods.splat import SplatField, from_splats
from lumigraph.scene.assets import Splats
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.field import HasSplats
from lumigraph.scene.metrics import psnr
from lumigraph.scene.poses import look_at
from lumigraph.studio import verbs
from lumigraph.studio.run import Run
from lumigraph.studio.training import load_field
from lumigraph.wire.requests import ExportRequest, TrainRequest
from tests.debian import find_program
from tests.studio.test_verbs import done
from tests.web.conftest import WEB, play

PACKAGES = Path(__file__).with_name("viewers")
SIZE = (240, 180)  # of the views that are compared
PHOTO = (160, 120)
AROUND, OUTWARD = 24, 16  # photos
STEPS, GAUSSIANS = 600, 8_000
ENOUGH = 35.0  # dB
UP = torch.tensor([0.0, 0.0, 1.0])

# Settings with which each viewer draws gaussians most like training does.
LOW_PASS = 0.3  # square pixels
SPARK = {
    "preBlurAmount": LOW_PASS,
    "blurAmount": 0,  # a second low pass, after which opacities are lowered
    "maxStdDev": math.sqrt(2 * math.log(255)),
    "minAlpha": 1 / 255,
    "maxPixelRadius": 1e5,
    "clipXY": 2,  # half images, of 1.4 as it comes: centres farther outside are dropped
    "sortRadial": False,
    "accumExtSplats": True,
}
STUDIO = {"preBlurAmount": LOW_PASS, "blurAmount": 0}  # what splatStyle.ts sets; projection.ts sets the rest
PLAYCANVAS = {"minPixelSize": 0, "colorUpdateAngle": 0, "dataFormat": "large", "radialSorting": False}
MKKELLOGG = {"sphericalHarmonicsDegree": 2}
# PlayCanvas subtracts from each gaussian what is left of it at two root two deviations; its hook puts it back.
FALLOFF = """
void modifySplatColor(vec2 gaussianUV, inout vec4 color) {
    float rest = exp(-4.0), whole = exp(-4.0 * dot(gaussianUV, gaussianUV));
    color.a *= whole * (1.0 - rest) / max(whole - rest, 1e-6);
}
"""
# PlayCanvas adds 0.3 to covariances in half pixels, which is 0.075 square pixels, so it draws small gaussians thinner.
HALF_PIXELS = {"cov[0][0] + 0.3;": "cov[0][0] + 1.2;", "cov[1][1] + 0.3;": "cov[1][1] + 1.2;"}
DRAWINGS = {
    "studio": {"viewer": "studio", "settings": {"renderer": STUDIO}},
    "spark": {"viewer": "spark", "settings": {"renderer": SPARK}},
    "playcanvas": {"viewer": "playcanvas", "settings": {"scene": PLAYCANVAS, "modify": FALLOFF}},
    "playcanvas, low pass": {
        "viewer": "playcanvas",
        "settings": {"scene": PLAYCANVAS, "modify": FALLOFF, "corner": HALF_PIXELS},
    },
    "mkkellogg": {"viewer": "mkkellogg", "settings": {"viewer": MKKELLOGG}},
}
# Half images beyond which mkkellogg's viewer drops gaussians by their centres; no option changes that. Without these
# gaussians our renderer draws the same.
MKKELLOGG_CULL = 1.2
# Large gaussians centred beside the image: PlayCanvas does not hold the slopes of their projection. Measured looking
# outward: PlayCanvas 32.9, mkkellogg 28.4.
LOWER = {
    "playcanvas": {"outward": 31.0},
    "playcanvas, low pass": {"outward": 31.0},
    "mkkellogg": {"inward": 33.5, "near": 33.5, "outward": 27.0},
}


@dataclass(frozen=True)
class Trained:
    ply: Path
    shown: Path  # the SPZ that the studio shows
    views: dict[str, Cameras]  # one camera each, of SIZE


@pytest.fixture(scope="module")
def browser() -> Path:
    """Debian's Chromium, with Node, Spark and the other viewers next to it."""
    if shutil.which("node") is None or not all((folder / "node_modules").exists() for folder in (WEB, PACKAGES)):
        pytest.skip("other viewers are not installed: make web tests/web/viewers/node_modules/installed")
    chromium = find_program("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed, and could not be")
    return chromium


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("viewers")
    capture, run, file, shown = folder / "capture", folder / "run", folder / "scene.ply", folder / "scene.spz"
    cameras = photos(capture)
    settings = {"cap": GAUSSIANS, "sh_degree": 2}
    done(verbs.train(TrainRequest(capture=capture, out=run, steps=STEPS, settings=settings)))
    done(verbs.export(ExportRequest(run=run, out=file, kind="splats")))
    field, _ = load_field(Run(run), "cpu")
    assert isinstance(field, HasSplats)
    spz.write(field.splats(), shown)
    _, held_out = Run(run).cameras()
    inward, outward = (int(part.nonzero()[0, 0]) for part in (held_out[:AROUND], held_out[AROUND:]))
    pose = cameras.world_from_cam[inward]
    views = {
        "inward": pose,
        "near": forward(pose, 0.4),
        "far": forward(pose, -0.3),
        "outward": cameras.world_from_cam[AROUND + outward],
    }
    focal = cameras.focal[0] * SIZE[0] / PHOTO[0]
    return Trained(file, shown, {name: seen_by(pose, focal) for name, pose in views.items()})


def photos(folder: Path) -> Cameras:
    """A posed capture: photos from around the table, then from above it towards the walls."""
    scene = still_life(0)
    charts = [bake(scene, shape, PHOTO[0] / 640) for shape in scene.visible.shapes]
    baked = BakedScene(scene.visible, charts, reflection_maps(scene, PHOTO[0] / 640))
    around = handheld_orbit(AROUND, PHOTO, 0)
    turns = torch.arange(OUTWARD) * (2 * math.pi / OUTWARD)
    level = torch.stack([turns.cos(), turns.sin(), torch.zeros(OUTWARD)], 1)
    eyes = level * 0.3 + torch.tensor([0.0, 0.0, 0.45])
    poses = torch.cat([around.world_from_cam, look_at(eyes, eyes + level - 0.2 * UP, UP.expand(OUTWARD, 3)).double()])
    count = AROUND + OUTWARD
    cameras = Cameras(
        poses,
        around.focal[:1].expand(count, 2).contiguous(),
        around.centre[:1].expand(count, 2).contiguous(),
        around.sizes[:1].expand(count, 2).contiguous(),
    )
    (folder / "images").mkdir(parents=True)
    document = transforms_json(cameras)
    for i, frame in enumerate(document["frames"]):
        random = np.random.default_rng(i)
        pixels = render_photo(baked, poses[i].numpy().astype(np.float32), float(cameras.focal[0, 0]), PHOTO, random)
        Image.fromarray(pixels).save(folder / frame["file_path"], quality=95)
    (folder / "transforms.json").write_text(json.dumps(document))
    return cameras


def forward(pose: Tensor, by: float) -> Tensor:
    """(3, 4) moved along its axis by `by` metres."""
    return torch.cat([pose[:, :3], pose[:, 3:] + by * pose[:, 2:3]], 1)


def seen_by(pose: Tensor, focal: Tensor) -> Cameras:
    sizes = torch.tensor([SIZE])
    return Cameras(pose[None].float(), focal[None].float(), sizes.float() / 2, sizes)


def draw(
    scene: Trained, drawings: dict[str, dict[str, Any]], out: Path, chromium: Path
) -> Iterator[tuple[str, dict[str, float]]]:
    """For each drawing, the PSNR of its views against our own renderer's."""
    splats = ply.read(scene.ply)
    assert isinstance(splats, Splats)
    field = from_splats(splats)
    job = {
        "width": SIZE[0],
        "height": SIZE[1],
        "focal": float(next(iter(scene.views.values())).focal[0, 0]),
        "views": {name: camera.world_from_cam.flatten().tolist() for name, camera in scene.views.items()},
        "drawings": [
            {"name": name, "file": str(scene.shown if name == "studio" else scene.ply), **drawing}
            for name, drawing in drawings.items()
        ],
        "out": str(out),
    }
    (out / "job.json").write_text(json.dumps(job))
    answers = play("../../tests/web/viewers/draw.mjs", out / "job.json", chromium=chromium)
    assert [answer["name"] for answer in answers] == list(drawings)
    for answer in answers:
        assert "error" not in answer, answer
        assert not [text for text in answer["said"] if text.startswith("asked")], answer
        yield answer["name"], compare(field, scene.views, out, answer["name"])
        if answer["name"] == "mkkellogg":
            yield "mkkellogg, same cull", compare(field, scene.views, out, "mkkellogg", MKKELLOGG_CULL)


def compare(
    field: SplatField, views: dict[str, Cameras], out: Path, drawing: str, cull: float = math.inf
) -> dict[str, float]:
    """The PSNR of each view of a drawing against our renderer's, without gaussians centred `cull` half images out."""
    likeness = {}
    for name, camera in views.items():
        splats = field.splats()
        x, y, z = (splats.means @ camera.cam_from_world[0, :, :3].T + camera.cam_from_world[0, :, 3]).T
        u, v = (2 * camera.focal[0] / camera.sizes[0]).tolist()
        near = torch.maximum((u * x).abs(), (v * y).abs()) <= cull * z
        with torch.no_grad():
            ours = from_splats(splats.select(near & (z > 0))).render(camera, torch.zeros(3)).rgb[0].clamp(0, 1)
        write(out / f"ours-{name}.png", ours)
        likeness[name] = psnr(read(out / f"{drawing}-{name}.png"), ours)
    print(drawing, cull, {name: round(value, 2) for name, value in likeness.items()})
    return likeness


def read(path: Path) -> Tensor:
    pixels: npt.NDArray[np.uint8] = np.asarray(Image.open(path).convert("RGB"))
    return torch.from_numpy(pixels.copy()).float() / 255


def write(path: Path, image: Tensor) -> None:
    Image.fromarray((image * 255 + 0.5).to(torch.uint8).numpy()).save(path)


def test_viewers_show_the_ply_as_our_renderer(browser: Path, trained: Trained, tmp_path: Path) -> None:
    measured = dict(draw(trained, DRAWINGS, tmp_path, browser))
    low = {
        (viewer, view)
        for viewer, views in measured.items()
        for view, value in views.items()
        if value < LOWER.get(viewer, {}).get(view, ENOUGH)
    }
    assert not low, measured
