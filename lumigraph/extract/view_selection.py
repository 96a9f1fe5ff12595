"""From where a field is looked at: some of the capture's own cameras, since only what they saw was ever learned."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import FormatError


@dataclasses.dataclass(frozen=True)
class Views:
    """N pinholes that all render one size. Where photos had others, a picture's own part is its top left corner."""

    cameras: Cameras
    own: Tensor  # (N, 2) int64 width, height of that part

    def __len__(self) -> int:
        return len(self.cameras)

    @property
    def size(self) -> tuple[int, int]:
        return self.cameras.size(0)

    def rows(self) -> Tensor:
        """(N, 16) float32 as the kernels read cameras: cam_from_world (3, 4), focal x y, centre x y."""
        c = self.cameras
        return torch.cat([c.cam_from_world.flatten(1), c.focal, c.centre], 1).float().contiguous()

    def theirs(self) -> Tensor:
        """(N, H, W) bool: the pixels of each picture's own part."""
        width, height = self.size
        across = torch.arange(width)[None, None] < self.own[:, 0, None, None]
        return across & (torch.arange(height)[None, :, None] < self.own[:, 1, None, None])

    def pixel(self, depth: Tensor) -> Tensor:
        """(N, H, W) world units that a pixel spans at `depth` (N, H, W)."""
        return depth / self.cameras.focal.amin(1)[:, None, None].to(depth)


def between(views: Views, k: int) -> list[Views]:
    """k * k times the same views, moved by parts of a pixel: together they see k times as many pixels along each side,
    each as wide as before. Row by row, as `finer` numbers its pixels."""
    steps = [0.5 - (i + 0.5) / k for i in range(k)]
    moved = [torch.tensor([x, y]) for y in steps for x in steps]
    return [
        Views(dataclasses.replace(views.cameras, centre=views.cameras.centre + by.to(views.cameras.centre)), views.own)
        for by in moved
    ]


def finer(views: Views, k: int) -> Views:
    """The views with k times as many pixels along each side."""
    c = views.cameras
    return Views(Cameras(c.world_from_cam, c.focal * k, c.centre * k, c.sizes * k), views.own * k)


def choose(cameras: Cameras, most: int, side: int) -> Views:
    """`most` of the cameras, as different as can be, with pictures `side` pixels long, but no larger than they were:
    finer than a field was learned, it is thinner than it ever looked. A lens is left out: what is rendered is straight.
    Raises FormatError where there are none."""
    if not len(cameras):
        raise FormatError("there is no camera to look at the field from; give at least one")
    cameras = cameras[spread(cameras, most)].to("cpu", torch.float32)
    pinhole = Cameras(cameras.world_from_cam, cameras.focal, cameras.centre, cameras.sizes)
    shrink = (pinhole.sizes.amax(1, keepdim=True) / side).clamp(min=1)
    pinhole = pinhole.resize((pinhole.sizes / shrink).round().long().clamp(min=1))
    common = pinhole.sizes.amax(0).expand_as(pinhole.sizes).clone()
    return Views(dataclasses.replace(pinhole, sizes=common), pinhole.sizes)


def spread(cameras: Cameras, most: int) -> Tensor:
    """(M,) sorted indices of cameras chosen one by one, each farthest from all before it in place and direction."""
    places = cameras.positions.double().cpu()
    size = (places - places.mean(0)).norm(dim=1).square().mean().sqrt().clamp(min=1e-12)
    at = torch.cat([places / size, cameras.forwards.double().cpu()], 1)
    chosen, nearest = [0], (at - at[0]).norm(dim=1)
    while len(chosen) < min(most, len(cameras)):
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (at - at[chosen[-1]]).norm(dim=1))
    return torch.tensor(sorted(chosen))


def beside(views: Views, most: int) -> Tensor:
    """(N, K) int64: the views nearest to each in place, that look the same way within 90 degrees; -1 for none."""
    places, forwards = views.cameras.positions, views.cameras.forwards
    apart = torch.cdist(places, places)
    apart = torch.where(forwards @ forwards.T > 0, apart, torch.inf).fill_diagonal_(torch.inf)
    distance, index = apart.sort(dim=1)
    return torch.where(distance < torch.inf, index, -1)[:, :most].contiguous()
