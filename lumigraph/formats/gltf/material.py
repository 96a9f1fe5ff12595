"""What is kept of a material: its base colour and the texture that this multiplies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lumigraph.formats.gltf.gltf_file import File, Item
from lumigraph.formats.io import to_tensor
from lumigraph.formats.texture_images import MAX_PIXELS, decoded, linear_from_srgb, on_one_sheet, srgb_from_linear
from lumigraph.scene.errors import FormatError

Array = npt.NDArray[Any]
Colour = tuple[float, float, float]

WHITE: Colour = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Surface:
    """A base colour in linear light, and the texture that it multiplies."""

    colour: Colour = WHITE
    texture: int | None = None  # which image
    uv_set: int = 0
    offset: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)

    def moved(self, uv: Array) -> Array:
        """Texture coordinates where KHR_texture_transform puts them."""
        moved: Array = (uv * np.array(self.scale) + np.array(self.offset)).astype(np.float32)
        return moved


class Surfaces:
    """The materials of a file and their pictures, each decoded once."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.pixels_left = MAX_PIXELS  # of all pictures together: they end on one sheet
        self._images: dict[int, torch.Tensor] = {}

    def of(self, primitive: Item) -> Surface:
        index = primitive.optional("material")
        if index is None:
            return Surface()
        surface = self.file.root.at("materials", index).item("pbrMetallicRoughness")
        r, g, b, _ = (min(max(x, 0.0), 1.0) for x in surface.numbers("baseColorFactor", [1.0] * 4))
        if "baseColorTexture" not in surface.value:
            return Surface((r, g, b))
        texture = surface.item("baseColorTexture")
        image = self.file.root.at("textures", texture.whole("index")).whole("source")
        moved = texture.extension("KHR_texture_transform") or Item(texture.path, texture.pointer, {})
        if moved.value.get("rotation", 0) != 0:
            raise moved.wrong("a texture that is turned is not read")
        offset, scale = moved.numbers("offset", [0.0, 0.0]), moved.numbers("scale", [1.0, 1.0])
        uv_set = moved.whole("texCoord", texture.whole("texCoord", 0, 0, 99), 0, 99)
        return Surface((r, g, b), image, uv_set, (offset[0], offset[1]), (scale[0], scale[1]))

    def picture(self, surface: Surface) -> torch.Tensor:
        """(H, W, 3) uint8: the texture times the colour, or a little of the colour alone."""
        shades = np.rint(srgb_from_linear(linear_from_srgb(np.arange(256)[:, None] / 255) * surface.colour) * 255)
        if surface.texture is None:
            return to_tensor(np.broadcast_to(shades[255], (4, 4, 3)), np.uint8)
        if surface.texture not in self._images:
            self._images[surface.texture] = self._decoded(surface.texture)
        image = self._images[surface.texture]
        if surface.colour == WHITE:
            return image
        self._take(image)
        levels = to_tensor(shades, np.uint8)
        return torch.stack([levels[image[..., c].long(), c] for c in range(3)], dim=-1)

    def _decoded(self, index: int) -> torch.Tensor:
        item = self.file.root.at("images", index)
        if "uri" in item.value:
            data = self.file.uri(item.text("uri"), item)
        else:
            data = self.file.view(item.whole("bufferView"))
        image = decoded(data, f"{self.file.path}: {item.pointer}", self.pixels_left)
        self._take(image)
        return image

    def _take(self, image: torch.Tensor) -> None:
        self.pixels_left -= image.shape[0] * image.shape[1]
        if self.pixels_left < 0:
            raise FormatError(f"{self.file.path}: its textures are too large to be read as one; shrink them")


def painted(
    parts: list[tuple[Surface, Array | None, int]], surfaces: Surfaces
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """One texture and the (V, 2) coordinates on it for parts of a surface, coordinates and a number of vertices each.
    Where no part has a texture, neither is there. Raises FormatError where a texture repeats and is not the only one.
    """
    looks = [
        (surface.texture, surface.colour) if uv is not None else (None, surface.colour) for surface, uv, _ in parts
    ]
    if all(texture is None for texture, _ in looks):
        return None, None
    distinct = list(dict.fromkeys(looks))
    pictures = [surfaces.picture(Surface(colour, texture)) for texture, colour in distinct]
    # Any place on a little picture of one colour shows it; its middle is farthest from its neighbours on the sheet.
    middle = np.full((1, 2), 0.5, np.float32)
    coordinates = [np.repeat(middle, count, axis=0) if uv is None else uv for _, uv, count in parts]
    which = [distinct.index(look) for look in looks]
    texture, moved = on_one_sheet(pictures, coordinates, which, str(surfaces.file.path))
    return texture, to_tensor(np.concatenate(moved))
