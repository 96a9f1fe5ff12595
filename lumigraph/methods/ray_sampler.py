"""Random rays through the photos of a capture, with target colours."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.scene.cameras import Cameras, Rays, generate_rays
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import RunError

USED = 128  # of 255, mask value from which a pixel counts
SWAP_EVERY = 50  # draws between photo replacements, if not all fit


class Batch(NamedTuple):
    """R rays with target colours. Masked pixels are left out, so R may be less than requested."""

    rays: Rays
    rgb: Tensor  # (R, 3) 0..1, straight
    alpha: Tensor  # (R, 1) 0..1
    photo: Tensor  # (R,) int64
    forward: Tensor  # (R,) cosine between the ray and its camera's axis: depth along z per distance

    def composite_over(self, background: Tensor) -> Tensor:
        """(R, 3) target colours over `background` (3,) or (R, 3)."""
        return self.rgb * self.alpha + (1 - self.alpha) * background


class Pixels:
    """8-bit photos in the slots of one tensor. Beyond `limit` bytes, photos are replaced over time."""

    def __init__(self, capture: Capture, generator: torch.Generator, device: str = "cpu", limit: int = 2 << 30) -> None:
        self._capture, self._generator, self._device = capture, generator, device
        self.cameras: Cameras = capture.cameras.to(dtype=torch.float32)
        area = int(self.cameras.sizes.prod(1).max())
        channels = 4 if capture.masks is None else 5
        cached_count = min(len(capture), max(1, limit // (area * channels)))
        self._waiting = torch.randperm(len(capture), generator=generator).tolist()
        self._held = torch.zeros(cached_count, dtype=torch.int64)
        self._pixels = torch.zeros(cached_count, area, channels, dtype=torch.uint8)
        for slot in range(cached_count):
            self._fill(slot, self._waiting.pop())
        self._drawn = 0

    def draw(self, count: int) -> Batch:
        """`count` pixels of random photos, fewer where masks hide some."""
        self._swap()
        slot = torch.randint(len(self._held), (count,), generator=self._generator)
        photo = self._held[slot]
        sizes = self.cameras.sizes[photo]
        at = (torch.rand(count, generator=self._generator, dtype=torch.float64) * sizes.prod(1)).long()
        colour = self._pixels.view(-1, self._pixels.shape[2])[slot * self._pixels.shape[1] + at]
        corner = torch.stack([at % sizes[:, 0], at // sizes[:, 0]], 1)
        if colour.shape[1] == 5:
            is_used = colour[:, 4] >= USED
            colour, corner, photo = colour[is_used], corner[is_used], photo[is_used]
        return self.through(photo, corner + 0.5, colour[:, :4].float() / 255)

    def through(self, photo: Tensor, pixels: Tensor, rgba: Tensor) -> Batch:
        """The rays through `pixels` (R, 2) of the photos (R,)."""
        beams = generate_rays(self.cameras, photo, pixels)
        forward = (beams.directions * self.cameras.forwards[photo]).sum(1)
        to = self._device
        return Batch(
            Rays(beams.origins.to(to), beams.directions.to(to)),
            rgba[:, :3].to(to),
            rgba[:, 3:].to(to),
            photo.to(to),
            forward.to(to),
        )

    def _swap(self) -> None:
        self._drawn += 1
        if len(self._held) == len(self._capture) or self._drawn % SWAP_EVERY:
            return
        if not self._waiting:
            cached_photos = set(self._held.tolist())
            order = torch.randperm(len(self._capture), generator=self._generator).tolist()
            self._waiting = [i for i in order if i not in cached_photos]
        self._fill(int(torch.randint(len(self._held), (1,), generator=self._generator)), self._waiting.pop())

    def _fill(self, slot: int, i: int) -> None:
        """Store RGBA and the mask, if any."""
        photo = self._capture.photo(i)
        parts = [photo] if photo.shape[2] == 4 else [photo, torch.full_like(photo[..., :1], 255)]
        if self._capture.masks is not None:
            parts.append(self._capture.masks[i])
        flat = torch.cat(parts, 2).flatten(0, 1)
        self._held[slot] = i
        self._pixels[slot, : len(flat)] = flat


class Anchors:
    """Rays of known length, from photos to the capture's points. Raises RunError if visibility is unknown."""

    def __init__(self, capture: Capture, generator: torch.Generator) -> None:
        points = capture.points
        if points is None or points.view_offsets is None or points.view_indices is None or not len(points.view_indices):
            raise RunError("this capture does not say which photos saw which points; leave depth at 0")
        self._generator = generator
        point = torch.repeat_interleave(points.view_offsets.diff())
        self.photo = points.view_indices.long()
        xyz = points.xyz[point]
        cameras = capture.cameras.to(dtype=torch.float32)
        pose = cameras.cam_from_world[self.photo]
        in_camera = (pose[:, :, :3] @ xyz[:, :, None])[:, :, 0] + pose[:, :, 3]
        self.pixel = in_camera[:, :2] / in_camera[:, 2:] * cameras.focal[self.photo] + cameras.centre[self.photo]
        self.distance = (xyz - cameras.positions[self.photo]).norm(dim=1)
        ahead = (in_camera[:, 2] > 0).nonzero()[:, 0]
        self.photo, self.pixel, self.distance = self.photo[ahead], self.pixel[ahead], self.distance[ahead]

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """photo (R,), pixel (R, 2) and the distance (R,) from the camera to a point there."""
        rows = torch.randint(len(self.photo), (count,), generator=self._generator)
        return self.photo[rows], self.pixel[rows], self.distance[rows]
