"""Rendering of a field to images for a live view, and their encoding as JPEG."""

from __future__ import annotations

import math

import cv2
import torch
from torch import Tensor

from lumigraph.scene import poses
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import RunError
from lumigraph.scene.field import Field
from lumigraph.scene.visualize import Output, OutputVisualizer
from lumigraph.wire.live import Camera

SHARP_JPEG_QUALITY, COARSE_JPEG_QUALITY = 90, 75  # of 100


class FrameRenderer:
    """Renders images of one field. The first depth image sets the depth scale, which then stays the same."""

    def __init__(self, field: Field, over_white: bool = False) -> None:
        self.showing = OutputVisualizer()
        self.over_white = over_white
        self.set_field(field)

    def set_field(self, field: Field) -> None:
        """Show another state of the same scene."""
        self.field = field
        self.box = field.box  # cached: some fields compute it from all their primitives
        self.background = torch.ones(3, device=self.box.device) if self.over_white else None

    def render(self, camera: Camera, size: tuple[int, int], output: Output) -> Tensor:
        """Render a uint8 (H, W, 3) image to the CPU. Raises RunError if the field does not render this output."""
        cameras = cameras_of(camera, size).to(self.box.device)
        with torch.no_grad():
            return self.showing(self.field.render(cameras, self.background), cameras, output)


def cameras_of(camera: Camera, size: tuple[int, int]) -> Cameras:
    """One pinhole camera with images of `size` (width, height); float32."""
    position, target, up = (torch.tensor(v, dtype=torch.float64) for v in (camera.position, camera.look_at, camera.up))
    sizes = torch.tensor([size])
    focal = size[1] / (2 * math.tan(math.radians(camera.fov) / 2))
    pose = poses.look_at(position, target, up)
    return Cameras(pose[None].float(), torch.full((1, 2), focal), sizes / 2, sizes)


def initial_camera(cameras: Cameras, i: int = 0) -> Camera:
    """The first camera of a session: camera `i` of a run.

    It looks at the point on its axis nearest to the focus point of all cameras. Its up direction is the capture's.
    """
    focus, up = poses.focus_point(cameras).double(), poses.up_direction(cameras).double()
    position, forward = cameras.positions[i].double(), cameras.forwards[i].double()
    distance = float((focus - position) @ forward)
    if not distance > 0:  # the focus point is behind the camera
        distance = float((focus - position).norm()) or 1.0
    x, y, z = position.tolist()
    to_x, to_y, to_z = (position + distance * forward).tolist()
    up_x, up_y, up_z = up.tolist()
    fov = math.degrees(2 * math.atan(cameras.size(i)[1] / (2 * float(cameras.focal[i, 1]))))
    return Camera(position=(x, y, z), look_at=(to_x, to_y, to_z), up=(up_x, up_y, up_z), fov=min(max(fov, 1.0), 170.0))


def encode_jpeg(image: Tensor, quality: int) -> bytes:
    """Encode a uint8 (H, W, 3) RGB image as JPEG. Raises RunError if the image is too large for JPEG."""
    bgr = cv2.cvtColor(image.numpy(), cv2.COLOR_RGB2BGR)
    ok, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RunError(f"an image of {image.shape[1]}x{image.shape[0]} pixels cannot be encoded as JPEG")
    return jpeg.tobytes()
