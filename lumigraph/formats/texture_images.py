"""The pictures of a mesh: to bytes and back, where they may lie, and sRGB against linear light.

Textures and colours of assets are 8-bit sRGB display values; glTF wants the colours of vertices as linear light.
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

Kind = Literal["png", "jpeg"]
Array = npt.NDArray[Any]

MAX_PIXELS = 1 << 26  # 8192 x 8192, 200 MB; Pillow itself begins to doubt above 89 million


def encoded(texture: torch.Tensor, kind: Kind, quality: int = 90) -> bytes:
    """(H, W, 3) uint8 as the bytes of a picture file; `quality` is that of a JPEG, whose colours are not halved."""
    stream = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(to_numpy(texture)))
    if kind == "jpeg":
        picture.save(stream, "JPEG", quality=quality, subsampling=0, optimize=True)
    else:
        picture.save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def decoded(data: bytes | memoryview, where: str, most: int = MAX_PIXELS) -> torch.Tensor:
    """(H, W, 3) uint8 of a PNG or JPEG of at `most` so many pixels, transparency left out; the size is judged before
    anything is decoded. `where` names the picture. Raises FormatError."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > most:
                raise FormatError(
                    f"{where}: a texture of {picture.width}x{picture.height}, beyond the {MAX_PIXELS} pixels that can"
                    " be read in all; shrink it"
                )
            return to_tensor(np.asarray(picture.convert("RGB")), np.uint8)
    except FormatError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, which is higher
        raise FormatError(f"{where}: a texture beyond the {MAX_PIXELS} pixels that can be read; shrink it") from error
    except UnidentifiedImageError as error:
        raise FormatError(f"{where}: the texture is no PNG or JPEG; save it as a PNG") from error
    except Exception as error:  # decoders meet damaged files with a dozen exception types
        raise FormatError(f"{where}: the texture is damaged ({error}); fetch the file again") from error


def loaded(path: Path, most: int = MAX_PIXELS) -> torch.Tensor:
    """(H, W, 3) uint8 of a picture file. Raises FormatError."""
    with open_for_read(path) as stream:
        return decoded(stream.read(), str(path), most)


def beside(path: Path, name: str) -> Path:
    """The file that `path` calls `name`, a relative URL. Raises FormatError unless it lies in the same folder, or in
    one within: a downloaded scene must not be able to show what is elsewhere on this machine."""
    wanted = PurePosixPath(unquote(name).replace("\\", "/"))
    folder = path.parent.resolve()
    try:
        found = (folder / wanted).resolve()
        inside = found.is_relative_to(folder) and not wanted.is_absolute() and ":" not in wanted.parts[0]
    except (OSError, ValueError, IndexError, RuntimeError):  # NUL, an empty name, a loop of links
        inside = False
    if not inside:
        raise FormatError(
            f"{path}: names the file {name[:100]!r}, which does not lie in its own folder; put it there and name it so"
        )
    return found


def unique_name(path: Path, data: Iterable[bytes | memoryview], suffix: str) -> str:
    """What a part of the scene `path` is called: two scenes, or two versions of one, never share a name unless they
    share the bytes, so that a scene that is replaced stays whole until the end. Plain ASCII, which every reader takes.
    """
    digest = sha256()
    for piece in data:
        digest.update(piece)
    stem = re.sub("[^A-Za-z0-9._-]", "_", path.stem)[:80]
    return f"{stem}-{digest.hexdigest()[:8]}{suffix}"


def on_one_sheet(
    pictures: list[torch.Tensor], coordinates: list[Array], which: list[int], where: str
) -> tuple[torch.Tensor, list[Array]]:
    """Pictures one below the other, and the coordinates (V, 2) of some parts on them, of which `which` says the picture
    of each. A single picture stays as it is. Raises FormatError where one of several repeats, or there are too many.
    """
    if len(pictures) == 1:
        return pictures[0], coordinates
    width = max(picture.shape[1] for picture in pictures)
    tops = np.cumsum([0, *(picture.shape[0] for picture in pictures)])
    if width * int(tops[-1]) > MAX_PIXELS:
        raise FormatError(f"{where}: its {len(pictures)} textures are too large to be read as one; shrink them")
    sheet = torch.zeros(int(tops[-1]), width, 3, dtype=torch.uint8)
    for top, picture in zip(tops, pictures, strict=False):
        sheet[top : top + picture.shape[0], : picture.shape[1]] = picture
    moved = []
    for uv, index in zip(coordinates, which, strict=True):
        if len(uv) and (uv.min() < -0.001 or uv.max() > 1.001):
            raise FormatError(
                f"{where}: one of its {len(pictures)} textures repeats, which a single texture cannot show; bake them"
                " into one, for example with Blender"
            )
        # Half a pixel inside: on its rim a texture shows its own last pixel, and the sheet would show the next one's.
        size = np.array([pictures[index].shape[1], pictures[index].shape[0]])
        u, v = (uv * size).clip(0.5, size - 0.5).T + np.array([[0], [tops[index]]])
        moved.append(np.stack([u / width, v / tops[-1]], axis=1).astype(np.float32))
    return sheet, moved


# --- colours ---------------------------------------------------------------------------------------------------------


def linear_from_srgb(colours: Array) -> Array:
    """Display values 0..1 to linear light 0..1 (IEC 61966-2-1)."""
    dark = colours <= 0.04045
    return np.where(dark, colours / 12.92, ((np.maximum(colours, 0.04045) + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(light: Array) -> Array:
    """Linear light 0..1 to display values 0..1."""
    dark = light <= 0.0031308
    return np.where(dark, light * 12.92, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)
