"""Frames of a live view: the render of a field, encoded as JPEG."""

import math

import cv2
import numpy as np
import pytest
import torch

from lumigraph.live.encoders import (
    COARSE_JPEG_QUALITY,
    SHARP_JPEG_QUALITY,
    FrameRenderer,
    cameras_of,
    encode_jpeg,
    initial_camera,
)
from lumigraph.scene import poses
from lumigraph.scene.cameras import Cameras, project
from lumigraph.scene.errors import RunError
from lumigraph.scene.images import to_uint8
from tests.live.camera import CAMERA
from tests.live.scenes import PlainField, splat_field


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * math.log10(max(float(np.mean((a / 255.0 - b / 255.0) ** 2)), 1e-12))


def decode_jpeg(data: bytes) -> np.ndarray:
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def test_encode_jpeg_matches_render() -> None:
    field = splat_field()
    expected = to_uint8(field.render(cameras_of(CAMERA, (160, 120)), torch.ones(3)).rgb[0]).numpy()
    image = FrameRenderer(field, over_white=True).render(CAMERA, (160, 120), "rgb")
    assert torch.equal(image, torch.from_numpy(expected))
    assert expected.std() > 20
    sharp, coarse = encode_jpeg(image, SHARP_JPEG_QUALITY), encode_jpeg(image, COARSE_JPEG_QUALITY)
    assert psnr(decode_jpeg(sharp), expected) > 30
    assert len(coarse) < len(sharp)


def test_cameras_of_centres_look_at() -> None:
    cameras = cameras_of(CAMERA, (160, 90))
    target = torch.tensor([[0.0, 0.0, 0.0]])
    pixels, _ = project(cameras, target)
    assert pixels[0, 0].tolist() == pytest.approx([80, 45], abs=1e-3)
    half_fov = math.degrees(math.atan(45 / float(cameras.focal[0, 1])))
    assert 2 * half_fov == pytest.approx(CAMERA.fov)
    assert float(cameras.world_from_cam[0, :, 1] @ torch.tensor(CAMERA.up)) < 0  # the camera's y axis points down


def test_frame_renderer_depth_scale_is_constant() -> None:
    renderer = FrameRenderer(splat_field())
    renderer.render(CAMERA, (80, 60), "depth")
    scale = renderer.showing.nearness
    near_camera = CAMERA.model_copy(update={"position": (1.5, -0.6, -1.6)})
    assert renderer.render(near_camera, (80, 60), "depth").float().std() > 10
    assert renderer.showing.nearness == scale
    renderer.set_field(splat_field(seed=1))
    renderer.render(CAMERA, (80, 60), "depth")
    assert renderer.showing.nearness == scale


def test_frame_renderer_normals_face_camera() -> None:
    image = FrameRenderer(splat_field()).render(CAMERA, (80, 60), "normal")
    assert image.shape == (60, 80, 3)
    towards = torch.tensor(CAMERA.position) / torch.tensor(CAMERA.position).norm()
    normals = image[25:35, 35:45].float().reshape(-1, 3) / 127.5 - 1
    assert float((normals @ towards).mean()) > 0.3


def test_frame_renderer_rejects_missing_output() -> None:
    with pytest.raises(RunError, match="does not render depth"):
        FrameRenderer(PlainField()).render(CAMERA, (32, 32), "depth")


def test_initial_camera_matches_run() -> None:
    like = Cameras(
        torch.eye(4)[None, :3], torch.full((1, 2), 70.0), torch.tensor([[50.0, 40.0]]), torch.tensor([[100, 80]])
    )
    cameras = poses.orbit(
        like, 12, centre=torch.tensor([1.0, 2, 3]), radius=4.0, height=1.0, up=torch.tensor([0.0, 0, 1])
    )
    camera = initial_camera(cameras, 5)
    assert camera.position == pytest.approx(cameras.positions[5].tolist())
    assert camera.look_at == pytest.approx((1, 2, 3), abs=1e-2)
    assert camera.up == pytest.approx((0, 0, 1), abs=1e-3)
    cameras_again = cameras_of(camera, (100, 80))
    assert torch.allclose(cameras_again.world_from_cam[0], cameras.world_from_cam[5].float(), atol=1e-3)
    assert torch.allclose(cameras_again.focal[0], cameras.focal[5].float(), atol=1e-3)
