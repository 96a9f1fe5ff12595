"""View selection: a subset of the capture's own cameras, because a field is trained on their views alone."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import FormatError


@dataclasses.dataclass(frozen=True)
class Views:
    """N pinhole cameras that render images of one common size.

    A photo smaller than the common size fills the top left part of its image.
    """

    cameras: Cameras
    valid_sizes: Tensor  # (N, 2) int64 width, height of the part that the photo fills

    def __len__(self) -> int:
        return len(self.cameras)

    @property
    def size(self) -> tuple[int, int]:
        """Common width and height in pixels."""
        return self.cameras.size(0)

    def rows(self) -> Tensor:
        """Pack the cameras for the kernels: (N, 16) float32 of cam_from_world (3, 4), focal x y, centre x y."""
        c = self.cameras
        return torch.cat([c.cam_from_world.flatten(1), c.focal, c.centre], 1).float().contiguous()

    def valid_mask(self) -> Tensor:
        """Mask the pixels that the photo of each view covers: (N, H, W) bool."""
        width, height = self.size
        columns = torch.arange(width)[None, None] < self.valid_sizes[:, 0, None, None]
        return columns & (torch.arange(height)[None, :, None] < self.valid_sizes[:, 1, None, None])

    def pixel_footprint(self, depth: Tensor) -> Tensor:
        """Width of a pixel in world units, (N, H, W), at `depth` (N, H, W)."""
        return depth / self.cameras.focal.amin(1)[:, None, None].to(depth)


def make_subpixel_views(views: Views, k: int) -> list[Views]:
    """Return k * k copies of the views, each shifted by a fraction of a pixel.

    Together they sample k times as many pixels along each side, each pixel as wide as before. The order is row by row,
    like the pixels of `upsample`.
    """
    steps = [0.5 - (i + 0.5) / k for i in range(k)]
    shifts = [torch.tensor([x, y]) for y in steps for x in steps]
    centre = views.cameras.centre
    return [
        Views(dataclasses.replace(views.cameras, centre=centre + shift.to(centre)), views.valid_sizes)
        for shift in shifts
    ]


def upsample(views: Views, k: int) -> Views:
    """Return the views with k times as many pixels along each side."""
    c = views.cameras
    return Views(Cameras(c.world_from_cam, c.focal * k, c.centre * k, c.sizes * k), views.valid_sizes * k)


def select_views(cameras: Cameras, max_count: int, max_side: int) -> Views:
    """Select at most `max_count` cameras far apart, with images of at most `max_side` pixels along the longer side.

    Images are never larger than the photos, because a field renders too thin at a resolution above that of its
    training. Lens distortion is dropped. Raises FormatError if there is no camera.
    """
    if not len(cameras):
        raise FormatError("there is no camera to render the field from; provide at least one")
    cameras = cameras[farthest_cameras(cameras, max_count)].to("cpu", torch.float32)
    pinhole = Cameras(cameras.world_from_cam, cameras.focal, cameras.centre, cameras.sizes)
    shrink = (pinhole.sizes.amax(1, keepdim=True) / max_side).clamp(min=1)
    pinhole = pinhole.resize((pinhole.sizes / shrink).round().long().clamp(min=1))
    common = pinhole.sizes.amax(0).expand_as(pinhole.sizes).clone()
    return Views(dataclasses.replace(pinhole, sizes=common), pinhole.sizes)


def farthest_cameras(cameras: Cameras, max_count: int) -> Tensor:
    """Farthest point sampling over position and viewing direction: (M,) sorted indices of cameras."""
    positions = cameras.positions.double().cpu()
    size = (positions - positions.mean(0)).norm(dim=1).square().mean().sqrt().clamp(min=1e-12)
    features = torch.cat([positions / size, cameras.forwards.double().cpu()], 1)
    indices, distance = [0], (features - features[0]).norm(dim=1)
    while len(indices) < min(max_count, len(cameras)):
        indices.append(int(distance.argmax()))
        distance = torch.minimum(distance, (features - features[indices[-1]]).norm(dim=1))
    return torch.tensor(sorted(indices))


def nearest_views(views: Views, max_count: int) -> Tensor:
    """Nearest views of each view by position, within 90 degrees of its direction: (N, K) int64, -1 for none."""
    positions, forwards = views.cameras.positions, views.cameras.forwards
    distance = torch.cdist(positions, positions)
    distance = torch.where(forwards @ forwards.T > 0, distance, torch.inf).fill_diagonal_(torch.inf)
    distance, index = distance.sort(dim=1)
    return torch.where(distance < torch.inf, index, -1)[:, :max_count].contiguous()
