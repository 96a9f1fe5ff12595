"""A camera and a field become a JPEG."""

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

SHARP, COARSE = 90, 75  # quality of JPEG, of 100


class FrameRenderer:
    """Pictures of one field. The scale of depth is that of the first picture of depth, and stays."""

    def __init__(self, field: Field, over_white: bool = False) -> None:
        self.showing = OutputVisualizer()
        self.over_white = over_white
        self.replace(field)

    def replace(self, field: Field) -> None:
        """Another state of the same scene."""
        self.field = field
        self.box = field.box  # some fields look through all that they hold to say it
        self.background = torch.ones(3, device=self.box.device) if self.over_white else None

    def paint(self, camera: Camera, size: tuple[int, int], output: Output) -> Tensor:
        """uint8 (H, W, 3) on the CPU. Raises RunError where the field does not render what is asked for."""
        cameras = cameras_of(camera, size).to(self.box.device)
        with torch.no_grad():
            return self.showing(self.field.render(cameras, self.background), cameras, output)


def cameras_of(camera: Camera, size: tuple[int, int]) -> Cameras:
    """One pinhole camera with pictures of `size` (width, height); float32."""
    position, target, up = (torch.tensor(v, dtype=torch.float64) for v in (camera.position, camera.look_at, camera.up))
    sizes = torch.tensor([size])
    focal = size[1] / (2 * math.tan(math.radians(camera.fov) / 2))
    pose = poses.look_at(position, target, up)
    return Cameras(pose[None].float(), torch.full((1, 2), focal), sizes / 2, sizes)


def initial_camera(cameras: Cameras, i: int = 0) -> Camera:
    """Camera `i` of those of a run as the one that a session begins with.

    It looks at the point of its axis that is nearest to what all look at, upright as the capture is.
    """
    focus, up = poses.focus_point(cameras).double(), poses.up_direction(cameras).double()
    position, forward = cameras.positions[i].double(), cameras.forwards[i].double()
    distance = float((focus - position) @ forward)
    if not distance > 0:  # it looks away from there
        distance = float((focus - position).norm()) or 1.0
    x, y, z = position.tolist()
    to_x, to_y, to_z = (position + distance * forward).tolist()
    up_x, up_y, up_z = up.tolist()
    fov = math.degrees(2 * math.atan(cameras.size(i)[1] / (2 * float(cameras.focal[i, 1]))))
    return Camera(position=(x, y, z), look_at=(to_x, to_y, to_z), up=(up_x, up_y, up_z), fov=min(max(fov, 1.0), 170.0))


def encode_jpeg(picture: Tensor, quality: int) -> bytes:
    """uint8 (H, W, 3) RGB -> the bytes of a JPEG. Raises RunError where there is no room for it."""
    bgr = cv2.cvtColor(picture.numpy(), cv2.COLOR_RGB2BGR)
    ok, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RunError(f"a picture of {picture.shape[1]}x{picture.shape[0]} pixels does not encode as JPEG")
    return encoded.tobytes()
