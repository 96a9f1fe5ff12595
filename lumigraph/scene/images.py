"""Rendered images, and conversions between photos, floats and files.

Colours are sRGB display values 0..1, never linear light: training and metrics use the stored values of a photo.
A rendered `Image` is premultiplied: its rgb is composited over black, so that a pixel over any background is
rgb + (1 - alpha) background (Porter and Duff 1984). Photos and PNG files hold straight alpha.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from torch import Tensor

from lumigraph.scene.atomic_files import atomic_write


@dataclass(frozen=True, eq=False)
class Image:
    """An image or a batch of images. Raises ValueError if shapes do not match."""

    rgb: Tensor  # (..., H, W, 3) float 0..1, premultiplied where there is an alpha
    alpha: Tensor | None = None  # (..., H, W, 1) float 0..1 coverage
    depth: Tensor | None = None  # (..., H, W, 1) world units along z

    def __post_init__(self) -> None:
        if self.rgb.ndim < 3 or self.rgb.shape[-1] != 3:
            raise ValueError(f"rgb must have the shape (..., H, W, 3), not {tuple(self.rgb.shape)}")
        for name, plane in (("alpha", self.alpha), ("depth", self.depth)):
            if plane is not None and tuple(plane.shape) != (*self.rgb.shape[:-1], 1):
                raise ValueError(f"{name} must have the shape of rgb with one channel, not {tuple(plane.shape)}")

    def __getitem__(self, index: int | slice) -> Image:
        """Select images of a batch."""
        if self.rgb.ndim < 4:
            raise IndexError("this image is not a batch")
        return Image(
            self.rgb[index],
            None if self.alpha is None else self.alpha[index],
            None if self.depth is None else self.depth[index],
        )

    def composite_over(self, background: Tensor) -> Tensor:
        """(..., H, W, 3) image composited over `background` (3,) or (..., H, W, 3)."""
        return self.rgb if self.alpha is None else self.rgb + (1 - self.alpha) * background

    def straight(self) -> Tensor:
        """(..., H, W, 4) colours with straight alpha, as files store them; (..., H, W, 3) without alpha."""
        if self.alpha is None:
            return self.rgb
        return torch.cat([(self.rgb / self.alpha.clamp(min=1e-6)).clamp(0, 1), self.alpha], dim=-1)


def to_uint8(values: Tensor) -> Tensor:
    """Convert floats 0..1 of any shape to uint8, rounded and clamped. NaN becomes 0."""
    return (values.nan_to_num(0.0).clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def from_uint8(pixels: Tensor) -> Tensor:
    """Convert uint8 of any shape to float32 0..1."""
    return pixels.to(torch.float32) / 255


def composite_over(photo: Tensor, background: Tensor) -> Tensor:
    """Composite a photo, uint8 (H, W, 3) or straight (H, W, 4), over `background` (3,) -> (H, W, 3) float32 0..1."""
    values = from_uint8(photo)
    if values.shape[-1] == 3:
        return values
    rgb, alpha = values[..., :3], values[..., 3:]
    return rgb * alpha + (1 - alpha) * background


def area_downscale(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Downscale uint8 or float32 (H, W, C) to `size` (width, height); each pixel averages its area.

    Four channels are straight RGBA and average premultiplied, so that transparent colours do not bleed in.
    Raises ValueError if `size` is empty or larger than the image.
    """
    height, width, channels = pixels.shape
    if not (1 <= size[0] <= width and 1 <= size[1] <= height):
        raise ValueError(f"cannot area-downscale {width}x{height} to {size[0]}x{size[1]}")
    if size == (width, height):
        return pixels
    if channels != 4:
        return _average(pixels, size)
    values = pixels.float()
    small = _average(torch.cat([values[..., :3] * values[..., 3:], values[..., 3:]], dim=-1), size)
    small[..., :3] /= small[..., 3:].clamp(min=1e-6)
    return small.round().to(torch.uint8) if pixels.dtype == torch.uint8 else small


def _average(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    small = cv2.resize(pixels.numpy(), size, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small.reshape(size[1], size[0], pixels.shape[-1]))


def write_png(path: Path, pixels: Tensor) -> None:
    """Write (H, W, 1 | 3 | 4) uint8, or float 0..1, as an 8-bit PNG; four channels are straight RGBA."""
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4):
        raise ValueError(f"an image has the shape (H, W, 1 | 3 | 4), not {tuple(pixels.shape)}")
    array = (pixels if pixels.dtype == torch.uint8 else to_uint8(pixels)).cpu().numpy()
    swap = {1: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[array.shape[-1]]
    ok, png = cv2.imencode(".png", array if swap is None else cv2.cvtColor(array, swap))
    if not ok:
        raise ValueError(f"an image of the shape {array.shape} does not encode as PNG")
    with atomic_write(path) as file:
        file.write(png.tobytes())
