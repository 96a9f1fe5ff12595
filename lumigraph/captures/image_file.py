"""One picture file, opened safely.

Allow-listed formats only, the size in the header checked before a pixel is decoded, one error type. Pixels come
as they are stored: EXIF orientation is not applied, because the intrinsics of a posed dataset speak of stored pixels.
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

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")  # JPEG includes MPO, a phone's JPEG with a second picture (depth, HDR) behind
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".tif", ".tiff"})
HEIC_SUFFIXES = frozenset({".heic", ".heif"})
MAX_PIXELS = 178_000_000  # stays below the size at which Pillow refuses by itself (2 x its MAX_IMAGE_PIXELS)

Pixels = NDArray[np.uint8]

# Pillow imports its decoders at the first open(), which two threads may reach together; naming them here settles it.
_DECODERS = (JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)


@cache
def heic_available() -> bool:
    """True when the extra `lumigraph[heic]` is installed; registers its decoder with Pillow on the first call."""
    if importlib.util.find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    pillow_heif.register_heif_opener()
    return True


def open_photo(path: Path) -> Image.Image:
    """Opens the header of a picture; no pixel is decoded yet. Use it in a `with`.

    Raises CaptureError when the file is missing, is no picture of an allowed format, or is larger than MAX_PIXELS.
    """
    heic = path.suffix.lower() in HEIC_SUFFIXES
    if heic and not heic_available():
        raise CaptureError(f"{path.name} is a HEIC picture: install `lumigraph[heic]` to read it")
    try:
        picture = Image.open(path, formats=("HEIF",) if heic else FORMATS)
    except FileNotFoundError as error:
        raise CaptureError(f"{path} does not exist") from error
    except Image.DecompressionBombError as error:
        raise CaptureError(f"{path.name} has more than {MAX_PIXELS // 10**6} megapixels: shrink it first") from error
    except Exception as error:  # decoders meet damaged files with a dozen exception types; the caller needs one
        raise CaptureError(f"{path.name} is not a readable picture ({type(error).__name__})") from error
    if picture.width * picture.height > MAX_PIXELS:
        picture.close()
        raise CaptureError(f"{path.name} has more than {MAX_PIXELS // 10**6} megapixels: shrink it first")
    return picture


def read_header(path: Path) -> tuple[int, int, bool]:
    """(width, height, whether there is transparency) of the stored pixels; nothing is decoded."""
    with open_photo(path) as picture:
        return picture.width, picture.height, _transparent(picture)


def decode(path: Path) -> Pixels:
    """All pixels as stored: uint8 (H, W, 3), or (H, W, 4) with straight alpha when the file has transparency."""
    return decode_reduced(path, 1)[0]


def decode_reduced(path: Path, reduction: int) -> tuple[Pixels, int]:
    """(pixels as `decode` returns them, their reduction): a JPEG at 1/`reduction` of its sides, which is 1, 2, 4 or 8.

    The decoder leaves out the upper frequencies of each block, which costs a fraction of the time and is nearly an area
    average. Any other file, and a JPEG whose sides `reduction` does not divide, comes whole, with the reduction 1:
    so the corners of the picture stay where they are.
    """
    with open_photo(path) as picture:
        width, height = picture.size
        if width % reduction == height % reduction == 0:
            picture.draft(None, (width // reduction, height // reduction))
        return decode_pixels(picture, path.name), width // picture.width


def decode_mask(path: Path) -> Pixels:
    """A mask as uint8 (H, W, 1): 0 where the photo is to be ignored, 255 where it counts.

    The grey value decides (threshold 128). A file with transparency counts as ignored where it is transparent.
    """
    stored = decode(path)
    use = (stored[..., :3].max(axis=-1) >= 128) & (stored[..., -1] >= 128 if stored.shape[-1] == 4 else True)
    return np.where(use[..., None], np.uint8(255), np.uint8(0))


class PhotoFiles(LazyPhotos):
    """Photos of a posed dataset: (H, W, 4) for all where `alpha`, else (H, W, 3) for all. `load` is thread-safe."""

    def __init__(self, paths: Sequence[Path], alpha: bool) -> None:
        super().__init__(paths, self.load)
        self.alpha = alpha

    def load(self, path: Path) -> Tensor:
        return self.load_reduced(path, 1)[0]

    def load_reduced(self, path: Path, reduction: int) -> tuple[Tensor, int]:
        """(pixels, their reduction), see `decode_reduced`. Thread-safe."""
        stored, reduction = decode_reduced(path, reduction)
        if self.alpha and stored.shape[-1] == 3:
            stored = np.concatenate([stored, np.full_like(stored[..., :1], 255)], axis=-1)
        return torch.from_numpy(stored if self.alpha else np.ascontiguousarray(stored[..., :3])), reduction


class MaskFiles(LazyPhotos):
    """Masks (H, W, 1) of a posed dataset. `load` is thread-safe."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(paths, self.load)

    def load(self, path: Path) -> Tensor:
        return torch.from_numpy(decode_mask(path))


def _transparent(picture: Image.Image) -> bool:
    return "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info


def decode_pixels(picture: Image.Image, name: str) -> Pixels:
    """Decodes an opened picture to uint8 (H, W, 3 | 4); CaptureError when it is damaged or truncated."""
    try:
        if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion to RGB would clip instead of scale
            grey = (np.asarray(picture).astype(np.float32) / 257).clip(0, 255).round().astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=-1)
        if picture.mode == "F":
            raise CaptureError(f"{name} holds floating-point pixels: save it as an 8- or 16-bit picture")
        wanted = "RGBA" if _transparent(picture) else "RGB"
        return np.array(picture if picture.mode == wanted else picture.convert(wanted), dtype=np.uint8)
    except CaptureError:
        raise
    except Exception as error:  # as above: any decoder failure means one thing here
        raise CaptureError(f"{name} is damaged or truncated ({error})") from error
