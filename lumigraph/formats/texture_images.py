"""Texture images of a mesh: encoding, decoding, file names, atlases, and sRGB to linear light.

Textures and colours of assets are 8-bit sRGB display values; glTF stores vertex colours as linear light.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError

from lumigraph.formats.io import open_for_read, to_numpy, to_tensor
from lumigraph.scene.errors import FormatError

ImageKind = Literal["png", "jpeg"]
Array = npt.NDArray[Any]

MAX_TEXTURE_PIXELS = 1 << 26  # 8192 x 8192, 200 MB; Pillow warns above 89 million


def encode_image(texture: torch.Tensor, kind: ImageKind, quality: int = 90) -> bytes:
    """Encode (H, W, 3) uint8 as an image file. `quality` applies to JPEG, which keeps full colour resolution."""
    stream = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(to_numpy(texture)))
    if kind == "jpeg":
        image.save(stream, "JPEG", quality=quality, subsampling=0, optimize=True)
    else:
        image.save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def decode_image(data: bytes | memoryview, where: str, max_pixels: int = MAX_TEXTURE_PIXELS) -> torch.Tensor:
    """Decode a PNG or JPEG of at most `max_pixels` to (H, W, 3) uint8, without transparency.

    Checks the size before decoding. `where` names the image in errors. Raises FormatError.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > max_pixels:
                raise FormatError(
                    f"{where}: a texture of {image.width}x{image.height}, beyond the {MAX_TEXTURE_PIXELS} pixels that"
                    " can"
                    " be read in all; shrink it"
                )
            return to_tensor(np.asarray(image.convert("RGB")), np.uint8)
    except FormatError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, which is higher
        raise FormatError(
            f"{where}: a texture beyond the {MAX_TEXTURE_PIXELS} pixels that can be read; shrink it"
        ) from error
    except UnidentifiedImageError as error:
        raise FormatError(f"{where}: the texture is not a PNG or JPEG; save it as a PNG") from error
    except Exception as error:  # decoders raise a dozen exception types for damaged files
        raise FormatError(f"{where}: the texture is damaged ({error}); fetch the file again") from error


def load_image(path: Path, max_pixels: int = MAX_TEXTURE_PIXELS) -> torch.Tensor:
    """Load an image file as (H, W, 3) uint8. Raises FormatError."""
    with open_for_read(path) as stream:
        return decode_image(stream.read(), str(path), max_pixels)


def resolve_companion(path: Path, name: str) -> Path:
    """Path of the companion file that `path` names by a relative URL.

    Raises FormatError unless the file is in the same folder or below: a downloaded scene must not read other files.
    """
    relative_path = PurePosixPath(unquote(name).replace("\\", "/"))
    folder = path.parent.resolve()
    try:
        target = (folder / relative_path).resolve()
        is_inside = (
            target.is_relative_to(folder) and not relative_path.is_absolute() and ":" not in relative_path.parts[0]
        )
    except (OSError, ValueError, IndexError, RuntimeError):  # NUL, an empty name, a loop of links
        is_inside = False
    if not is_inside:
        raise FormatError(
            f"{path}: names the file {name[:100]!r}, which is not in its folder; move it there and correct the name"
        )
    return target


def unique_name(path: Path, data: Iterable[bytes | memoryview], suffix: str) -> str:
    """ASCII name for a companion file of the scene `path`, with a hash of its content.

    Two scenes, or two versions of one, share a name only if they share the bytes. A scene therefore stays complete
    until its main file is replaced.
    """
    digest = sha256()
    for piece in data:
        digest.update(piece)
    stem = re.sub("[^A-Za-z0-9._-]", "_", path.stem)[:80]
    return f"{stem}-{digest.hexdigest()[:8]}{suffix}"


def pack_atlas(
    images: list[torch.Tensor], coordinates: list[Array], image_indices: list[int], where: str
) -> tuple[torch.Tensor, list[Array]]:
    """Stack images vertically into a texture atlas. A single image stays as it is.

    Args:
        images: (H, W, 3) uint8 each
        coordinates: (V, 2) texture coordinates of each part
        image_indices: index of the image of each part
        where: name of the scene in errors

    Returns the atlas and the coordinates of each part on it. Raises FormatError if one of several textures repeats, or
    if the atlas is too large.
    """
    if len(images) == 1:
        return images[0], coordinates
    width = max(image.shape[1] for image in images)
    tops = np.cumsum([0, *(image.shape[0] for image in images)])
    if width * int(tops[-1]) > MAX_TEXTURE_PIXELS:
        raise FormatError(f"{where}: its {len(images)} textures are too large to be read as one; shrink them")
    atlas = torch.zeros(int(tops[-1]), width, 3, dtype=torch.uint8)
    for top, image in zip(tops, images, strict=False):
        atlas[top : top + image.shape[0], : image.shape[1]] = image
    atlas_uvs = []
    for uv, index in zip(coordinates, image_indices, strict=True):
        if len(uv) and (uv.min() < -0.001 or uv.max() > 1.001):
            raise FormatError(
                f"{where}: one of its {len(images)} textures repeats, which a single texture cannot show; bake them"
                " into one, for example with Blender"
            )
        # Stay half a pixel inside: at its edge a texture repeats its last pixel, the atlas would show the next image.
        size = np.array([images[index].shape[1], images[index].shape[0]])
        u, v = (uv * size).clip(0.5, size - 0.5).T + np.array([[0], [tops[index]]])
        atlas_uvs.append(np.stack([u / width, v / tops[-1]], axis=1).astype(np.float32))
    return atlas, atlas_uvs


# --- colours ---------------------------------------------------------------------------------------------------------


def linear_from_srgb(colours: Array) -> Array:
    """Display values 0..1 to linear light 0..1 (IEC 61966-2-1)."""
    is_dark = colours <= 0.04045
    return np.where(is_dark, colours / 12.92, ((np.maximum(colours, 0.04045) + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(light: Array) -> Array:
    """Linear light 0..1 to display values 0..1."""
    is_dark = light <= 0.0031308
    return np.where(is_dark, light * 12.92, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)
