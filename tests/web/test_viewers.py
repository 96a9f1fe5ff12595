"""The PLY of a run renders alike in common splat viewers and in our renderer.

The scene is the synthetic sample, with cameras around its table and from the table towards the walls. Training images
cover every compared view.
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
from lumigraph.wire.requests import ExportRequest, Scalar, TrainRequest
from tests.debian import find_program
from tests.studio.test_verbs import done
from tests.web.conftest import WEB, run_script

PACKAGES = Path(__file__).with_name("viewers")
VIEW_SIZE = (240, 180)  # pixels, of the compared views
PHOTO_SIZE = (160, 120)  # pixels
ORBIT_PHOTOS, OUTWARD_PHOTOS = 24, 16
STEPS, GAUSSIANS = 600, 8_000
MIN_PSNR_DB = 35.0
UP = torch.tensor([0.0, 0.0, 1.0])

# Settings that bring each viewer closest to the training renderer.
LOW_PASS_PX2 = 0.3  # variance
SPARK = {
    "preBlurAmount": LOW_PASS_PX2,
    "blurAmount": 0,  # a second low-pass filter that lowers opacities
    "maxStdDev": math.sqrt(2 * math.log(255)),
    "minAlpha": 1 / 255,
    "maxPixelRadius": 1e5,
    "clipXY": 2,  # half images, default 1.4: gaussians centred farther outside are culled
    "sortRadial": False,
    "accumExtSplats": True,
}
STUDIO = {"preBlurAmount": LOW_PASS_PX2, "blurAmount": 0}  # set by splatStyle.ts; projection.ts sets the rest
PLAYCANVAS = {"minPixelSize": 0, "colorUpdateAngle": 0, "dataFormat": "large", "radialSorting": False}
MKKELLOGG = {"sphericalHarmonicsDegree": 2}
# PlayCanvas subtracts from each gaussian its value at 2 sqrt(2) deviations; this hook adds it back.
FALLOFF = """
void modifySplatColor(vec2 gaussianUV, inout vec4 color) {
    float cutoff = exp(-4.0), falloff = exp(-4.0 * dot(gaussianUV, gaussianUV));
    color.a *= falloff * (1.0 - cutoff) / max(falloff - cutoff, 1e-6);
}
"""
# PlayCanvas adds 0.3 to covariances in half pixels, or 0.075 square pixels, so small gaussians come out thinner.
HALF_PIXELS = {"cov[0][0] + 0.3;": "cov[0][0] + 1.2;", "cov[1][1] + 0.3;": "cov[1][1] + 1.2;"}
RENDERS = {
    "studio": {"viewer": "studio", "settings": {"renderer": STUDIO}},
    "spark": {"viewer": "spark", "settings": {"renderer": SPARK}},
    "playcanvas": {"viewer": "playcanvas", "settings": {"scene": PLAYCANVAS, "modify": FALLOFF}},
    "playcanvas, low pass": {
        "viewer": "playcanvas",
        "settings": {"scene": PLAYCANVAS, "modify": FALLOFF, "corner": HALF_PIXELS},
    },
    "mkkellogg": {"viewer": "mkkellogg", "settings": {"viewer": MKKELLOGG}},
}
# mkkellogg's viewer culls gaussians whose centres are beyond this; no option changes it. With the same
# cull our renderer gives the same images.
MKKELLOGG_CULL_HALF_IMAGES = 1.2
# PlayCanvas does not clamp the projection slopes of large gaussians centred outside the image. Measured on the outward
# view: PlayCanvas 32.9, mkkellogg 28.4.
LOWER_MIN_PSNR_DB = {
    "playcanvas": {"outward": 31.0},
    "playcanvas, low pass": {"outward": 31.0},
    "mkkellogg": {"inward": 33.5, "near": 33.5, "outward": 27.0},
}


@dataclass(frozen=True)
class SplatRun:
    ply: Path
    preview: Path  # SPZ, the preview file of the studio
    views: dict[str, Cameras]  # one camera each, of VIEW_SIZE


@pytest.fixture(scope="module")
def browser() -> Path:
    """Debian's Chromium, with Node, Spark and the other viewers next to it."""
    if shutil.which("node") is None or not all((folder / "node_modules").exists() for folder in (WEB, PACKAGES)):
        pytest.skip("other viewers are not installed: make web tests/web/viewers/node_modules/installed")
    chromium = find_program("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed, and installing it failed")
    return chromium


@pytest.fixture(scope="module")
def splat_run(tmp_path_factory: pytest.TempPathFactory) -> SplatRun:
    folder = tmp_path_factory.mktemp("viewers")
    capture, run, file, preview = folder / "capture", folder / "run", folder / "scene.ply", folder / "scene.spz"
    cameras = render_capture(capture)
    settings: dict[str, Scalar | list[Scalar]] = {"cap": GAUSSIANS, "sh_degree": 2}
    done(verbs.train(TrainRequest(capture=capture, out=run, steps=STEPS, settings=settings)))
    done(verbs.export(ExportRequest(run=run, out=file, kind="splats")))
    field, _ = load_field(Run(run), "cpu")
    assert isinstance(field, HasSplats)
    spz.write(field.splats(), preview)
    _, held_out = Run(run).cameras()
    inward, outward = (int(part.nonzero()[0, 0]) for part in (held_out[:ORBIT_PHOTOS], held_out[ORBIT_PHOTOS:]))
    pose = cameras.world_from_cam[inward]
    views = {
        "inward": pose,
        "near": move_forward(pose, 0.4),
        "far": move_forward(pose, -0.3),
        "outward": cameras.world_from_cam[ORBIT_PHOTOS + outward],
    }
    focal = cameras.focal[0] * VIEW_SIZE[0] / PHOTO_SIZE[0]
    return SplatRun(file, preview, {name: camera_at(pose, focal) for name, pose in views.items()})


def render_capture(folder: Path) -> Cameras:
    """Write a posed capture: photos around the table, then from above it towards the walls."""
    scene = still_life(0)
    charts = [bake(scene, shape, PHOTO_SIZE[0] / 640) for shape in scene.visible.shapes]
    baked_scene = BakedScene(scene.visible, charts, reflection_maps(scene, PHOTO_SIZE[0] / 640))
    orbit = handheld_orbit(ORBIT_PHOTOS, PHOTO_SIZE, 0)
    angles = torch.arange(OUTWARD_PHOTOS) * (2 * math.pi / OUTWARD_PHOTOS)
    level = torch.stack([angles.cos(), angles.sin(), torch.zeros(OUTWARD_PHOTOS)], 1)
    eyes = level * 0.3 + torch.tensor([0.0, 0.0, 0.45])
    poses = torch.cat(
        [orbit.world_from_cam, look_at(eyes, eyes + level - 0.2 * UP, UP.expand(OUTWARD_PHOTOS, 3)).double()]
    )
    count = ORBIT_PHOTOS + OUTWARD_PHOTOS
    cameras = Cameras(
        poses,
        orbit.focal[:1].expand(count, 2).contiguous(),
        orbit.centre[:1].expand(count, 2).contiguous(),
        orbit.sizes[:1].expand(count, 2).contiguous(),
    )
    (folder / "images").mkdir(parents=True)
    document = transforms_json(cameras)
    for i, frame in enumerate(document["frames"]):
        rng = np.random.default_rng(i)
        pixels = render_photo(
            baked_scene, poses[i].numpy().astype(np.float32), float(cameras.focal[0, 0]), PHOTO_SIZE, rng
        )
        Image.fromarray(pixels).save(folder / frame["file_path"], quality=95)
    (folder / "transforms.json").write_text(json.dumps(document))
    return cameras


def move_forward(pose: Tensor, distance: float) -> Tensor:
    """Move a (3, 4) pose along its optical axis by `distance` metres."""
    return torch.cat([pose[:, :3], pose[:, 3:] + distance * pose[:, 2:3]], 1)


def camera_at(pose: Tensor, focal: Tensor) -> Cameras:
    sizes = torch.tensor([VIEW_SIZE])
    return Cameras(pose[None].float(), focal[None].float(), sizes.float() / 2, sizes)


def render_in_viewers(
    scene: SplatRun, renders: dict[str, dict[str, Any]], out: Path, chromium: Path
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each render's name and the PSNR of its views against our renderer."""
    splats = ply.read(scene.ply)
    assert isinstance(splats, Splats)
    field = from_splats(splats)
    job = {
        "width": VIEW_SIZE[0],
        "height": VIEW_SIZE[1],
        "focal": float(next(iter(scene.views.values())).focal[0, 0]),
        "views": {name: camera.world_from_cam.flatten().tolist() for name, camera in scene.views.items()},
        "drawings": [
            {"name": name, "file": str(scene.preview if name == "studio" else scene.ply), **options}
            for name, options in renders.items()
        ],
        "out": str(out),
    }
    (out / "job.json").write_text(json.dumps(job))
    answers = run_script("../../tests/web/viewers/draw.mjs", out / "job.json", chromium=chromium)
    assert [answer["name"] for answer in answers] == list(renders)
    for answer in answers:
        assert "error" not in answer, answer
        assert not [text for text in answer["log"] if text.startswith("request")], answer
        yield answer["name"], compare(field, scene.views, out, answer["name"])
        if answer["name"] == "mkkellogg":
            yield "mkkellogg, same cull", compare(field, scene.views, out, "mkkellogg", MKKELLOGG_CULL_HALF_IMAGES)


def compare(
    field: SplatField, views: dict[str, Cameras], out: Path, render: str, cull: float = math.inf
) -> dict[str, float]:
    """PSNR of each view against our renderer, which skips gaussians centred beyond `cull` half images."""
    psnr_by_view = {}
    for name, camera in views.items():
        splats = field.splats()
        x, y, z = (splats.means @ camera.cam_from_world[0, :, :3].T + camera.cam_from_world[0, :, 3]).T
        u, v = (2 * camera.focal[0] / camera.sizes[0]).tolist()
        near = torch.maximum((u * x).abs(), (v * y).abs()) <= cull * z
        with torch.no_grad():
            reference = from_splats(splats.select(near & (z > 0))).render(camera, torch.zeros(3)).rgb[0].clamp(0, 1)
        write(out / f"reference-{name}.png", reference)
        psnr_by_view[name] = psnr(read(out / f"{render}-{name}.png"), reference)
    print(render, cull, {name: round(value, 2) for name, value in psnr_by_view.items()})
    return psnr_by_view


def read(path: Path) -> Tensor:
    pixels: npt.NDArray[np.uint8] = np.asarray(Image.open(path).convert("RGB"))
    return torch.from_numpy(pixels.copy()).float() / 255


def write(path: Path, image: Tensor) -> None:
    Image.fromarray((image * 255 + 0.5).to(torch.uint8).numpy()).save(path)


def test_viewers_match_our_renderer(browser: Path, splat_run: SplatRun, tmp_path: Path) -> None:
    psnr_by_viewer = dict(render_in_viewers(splat_run, RENDERS, tmp_path, browser))
    low = {
        (viewer, view)
        for viewer, views in psnr_by_viewer.items()
        for view, value in views.items()
        if value < LOWER_MIN_PSNR_DB.get(viewer, {}).get(view, MIN_PSNR_DB)
    }
    assert not low, psnr_by_viewer
