"""Safe decoding of one image file.

Only allowed formats are opened, the size in the header is checked before decoding, and all errors are CaptureError.
Pixels are returned as stored, without EXIF orientation: the intrinsics of a posed dataset refer to stored pixels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from torch import Tensor

from lumigraph.scene.capture import LazyPhotos
from lumigraph.scene.errors import CaptureError

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")  # JPEG includes MPO, a phone's JPEG with a second image (depth, HDR)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".tif", ".tiff"})
HEIC_SUFFIXES = frozenset({".heic", ".heif"})
MAX_IMAGE_PIXELS = 178_000_000  # below Pillow's own limit of 2 x its MAX_IMAGE_PIXELS

Pixels = NDArray[np.uint8]

# Pillow imports decoders at the first open(), which is not safe in two threads at once. Importing them here avoids it.
_DECODERS = (JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)


@cache
def is_heic_available() -> bool:
    """Return True if the extra `lumigraph[heic]` is installed. The first call registers its decoder with Pillow."""
    if importlib.util.find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    pillow_heif.register_heif_opener()
    return True


def open_photo(path: Path) -> Image.Image:
    """Open an image and read its header without decoding pixels. Use it in a `with`.

    Raises CaptureError if the file is missing, is not an image of an allowed format, or exceeds MAX_IMAGE_PIXELS.
    """
    is_heic = path.suffix.lower() in HEIC_SUFFIXES
    if is_heic and not is_heic_available():
        raise CaptureError(f"{path.name} is a HEIC image: install `lumigraph[heic]` to read it")
    try:
        image = Image.open(path, formats=("HEIF",) if is_heic else IMAGE_FORMATS)
    except FileNotFoundError as error:
        raise CaptureError(f"{path} does not exist") from error
    except Image.DecompressionBombError as error:
        raise CaptureError(
            f"{path.name} has more than {MAX_IMAGE_PIXELS // 10**6} megapixels: shrink it first"
        ) from error
    except Exception as error:  # decoders raise a dozen exception types for damaged files
        raise CaptureError(f"{path.name} is not a readable image ({type(error).__name__})") from error
    if image.width * image.height > MAX_IMAGE_PIXELS:
        image.close()
        raise CaptureError(f"{path.name} has more than {MAX_IMAGE_PIXELS // 10**6} megapixels: shrink it first")
    return image


def read_header(path: Path) -> tuple[int, int, bool]:
    """(width, height, has transparency) of the stored pixels, without decoding."""
    with open_photo(path) as image:
        return image.width, image.height, _has_transparency(image)


def decode(path: Path) -> Pixels:
    """Decode all pixels as stored: uint8 (H, W, 3), or (H, W, 4) with straight alpha if the file has transparency."""
    return decode_reduced(path, 1)[0]


def decode_reduced(path: Path, reduction: int) -> tuple[Pixels, int]:
    """Decode a JPEG at 1/`reduction` of its sides (1, 2, 4 or 8); returns (pixels as from `decode`, their reduction).

    The decoder skips the upper frequencies of each block: a fraction of the time, and nearly an area average. Other
    files, and a JPEG whose sides are not multiples of `reduction`, decode in full, with reduction 1. So the image
    corners stay in place.
    """
    with open_photo(path) as image:
        width, height = image.size
        if width % reduction == height % reduction == 0:
            image.draft(None, (width // reduction, height // reduction))
        return decode_pixels(image, path.name), width // image.width


def decode_mask(path: Path) -> Pixels:
    """Decode a mask to uint8 (H, W, 1): 0 = ignored, 255 = used.

    Grey values are thresholded at 128. Transparent pixels are ignored.
    """
    pixels = decode(path)
    is_used = (pixels[..., :3].max(axis=-1) >= 128) & (pixels[..., -1] >= 128 if pixels.shape[-1] == 4 else True)
    return np.where(is_used[..., None], np.uint8(255), np.uint8(0))


class PhotoFiles(LazyPhotos):
    """Photos of a posed dataset: (H, W, 4) for all if `alpha`, else (H, W, 3) for all. `load` is thread-safe."""

    def __init__(self, paths: Sequence[Path], alpha: bool) -> None:
        super().__init__(paths, self.load)
        self.alpha = alpha

    def load(self, path: Path) -> Tensor:
        return self.load_reduced(path, 1)[0]

    def load_reduced(self, path: Path, reduction: int) -> tuple[Tensor, int]:
        """(pixels, their reduction), as from `decode_reduced`. Thread-safe."""
        pixels, reduction = decode_reduced(path, reduction)
        if self.alpha and pixels.shape[-1] == 3:
            pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=-1)
        return torch.from_numpy(pixels if self.alpha else np.ascontiguousarray(pixels[..., :3])), reduction


class MaskFiles(LazyPhotos):
    """Masks (H, W, 1) of a posed dataset. `load` is thread-safe."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(paths, self.load)

    def load(self, path: Path) -> Tensor:
        return torch.from_numpy(decode_mask(path))


def _has_transparency(image: Image.Image) -> bool:
    return "A" in image.mode or "a" in image.mode or "transparency" in image.info


def decode_pixels(image: Image.Image, name: str) -> Pixels:
    """Decode an opened image to uint8 (H, W, 3 | 4). Raises CaptureError if it is damaged or truncated."""
    try:
        if image.mode.startswith("I"):  # 16-bit grey; Pillow's conversion to RGB clips instead of scaling
            grey_pixels = (np.asarray(image).astype(np.float32) / 257).clip(0, 255).round().astype(np.uint8)
            return np.repeat(grey_pixels[..., None], 3, axis=-1)
        if image.mode == "F":
            raise CaptureError(f"{name} holds floating-point pixels: save it as an 8- or 16-bit image")
        mode = "RGBA" if _has_transparency(image) else "RGB"
        return np.array(image if image.mode == mode else image.convert(mode), dtype=np.uint8)
    except CaptureError:
        raise
    except Exception as error:  # any decoder failure, as in open_photo
        raise CaptureError(f"{name} is damaged or truncated ({error})") from error
