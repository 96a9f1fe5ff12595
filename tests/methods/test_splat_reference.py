"""The tiled reference is judged by the reference rendered in one piece."""

from __future__ import annotations

import pytest
import torch

from benchmarks.scenes import blob
from lumigraph.kernels.reference import splatting as reference
from lumigraph.methods import splat_reference
from lumigraph.methods.splat import from_splats
from lumigraph.scene.assets import Splats
from lumigraph.scene.cameras import Cameras

SIZE = (48, 40)


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("spread", [1.0, 2.5])  # 2.5: the camera is inside of the blob
def test_splat_reference_tiles_equal_whole_image(
    antialiased: bool, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splat_reference, "PAIRS", 3000)
    monkeypatch.setattr(splat_reference, "BATCH", 100)
    scene = blob(400, SIZE, degree=2, seed=4)
    scene = scene._replace(means=scene.means * spread)
    splats = Splats(scene.means, scene.log_scales, scene.quats, scene.logit_opacities, scene.sh)
    behind = torch.tensor([0.2, 0.6, 0.9])

    cameras = camera(scene.world_to_cam, scene.focal)
    image = from_splats(splats, antialiased).reference().render(cameras, behind)

    doubles = (x.double() for x in (*raw(splats), cameras.cam_from_world[0]))
    centre = (SIZE[0] / 2, SIZE[1] / 2)
    rgb, depth, alpha = reference.render(*doubles, scene.focal, centre, SIZE, behind.double(), antialiased=antialiased)
    assert alpha.max() > 0.5
    torch.testing.assert_close(image.rgb[0].double(), rgb, atol=1e-6, rtol=1e-6)
    assert image.alpha is not None and image.depth is not None
    torch.testing.assert_close(image.alpha[0, ..., 0].double(), alpha, atol=1e-6, rtol=1e-6)
    expected = depth / alpha.clamp(min=1e-6)
    torch.testing.assert_close(image.depth[0, ..., 0].double(), expected, atol=1e-5, rtol=1e-5)


def test_splat_reference_empty_field_is_background() -> None:
    splats = Splats(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 4, 3))
    behind = torch.tensor([0.2, 0.6, 0.9])
    image = from_splats(splats).reference().render(camera(torch.eye(3, 4), (40.0, 40.0)), behind)
    assert torch.equal(image.rgb[0], behind.expand(SIZE[1], SIZE[0], 3))


def raw(splats: Splats) -> tuple[torch.Tensor, ...]:
    return splats.means, splats.log_scales, splats.quats, splats.logit_opacities, splats.sh


def camera(world_to_cam: torch.Tensor, focal: tuple[float, float]) -> Cameras:
    rotate, translate = world_to_cam[:, :3], world_to_cam[:, 3:]
    pose = torch.cat([rotate.T, -rotate.T @ translate], 1)
    sizes = torch.tensor([SIZE])
    return Cameras(pose[None].float(), torch.tensor([focal]), sizes.float() / 2, sizes)
