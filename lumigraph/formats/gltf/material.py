"""Base colours of glTF materials and the textures that they multiply; other properties are ignored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lumigraph.formats.gltf.gltf_file import GltfFile, JsonItem
from lumigraph.formats.io import to_tensor
from lumigraph.formats.texture_images import (
    MAX_TEXTURE_PIXELS,
    decode_image,
    linear_from_srgb,
    pack_atlas,
    srgb_from_linear,
)
from lumigraph.scene.errors import FormatError

Array = npt.NDArray[Any]
Colour = tuple[float, float, float]

WHITE: Colour = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class BaseColour:
    """A base colour in linear light, and the texture that it multiplies."""

    colour: Colour = WHITE
    texture: int | None = None  # index of the image
    uv_set: int = 0
    offset: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)

    def transform_uv(self, uv: Array) -> Array:
        """Apply KHR_texture_transform to texture coordinates."""
        transformed: Array = (uv * np.array(self.scale) + np.array(self.offset)).astype(np.float32)
        return transformed


class MaterialReader:
    """Reads the materials of a file; decodes each image once."""

    def __init__(self, file: GltfFile) -> None:
        self.file = file
        self.pixels_left = MAX_TEXTURE_PIXELS  # of all images together, since they share one atlas
        self._images: dict[int, torch.Tensor] = {}

    def base_colour_of(self, primitive: JsonItem) -> BaseColour:
        index = primitive.optional("material")
        if index is None:
            return BaseColour()
        base_colour = self.file.root.at("materials", index).item("pbrMetallicRoughness")
        r, g, b, _ = (min(max(x, 0.0), 1.0) for x in base_colour.numbers("baseColorFactor", [1.0] * 4))
        if "baseColorTexture" not in base_colour.value:
            return BaseColour((r, g, b))
        texture = base_colour.item("baseColorTexture")
        image = self.file.root.at("textures", texture.integer("index")).integer("source")
        transform = texture.extension("KHR_texture_transform") or JsonItem(texture.path, texture.pointer, {})
        if transform.value.get("rotation", 0) != 0:
            raise transform.error("a rotated texture is not supported")
        offset, scale = transform.numbers("offset", [0.0, 0.0]), transform.numbers("scale", [1.0, 1.0])
        uv_set = transform.integer("texCoord", texture.integer("texCoord", 0, 0, 99), 0, 99)
        return BaseColour((r, g, b), image, uv_set, (offset[0], offset[1]), (scale[0], scale[1]))

    def render_texture(self, base_colour: BaseColour) -> torch.Tensor:
        """(H, W, 3) uint8: the texture times the colour, or a small image of the colour alone."""
        shade_table = np.rint(
            srgb_from_linear(linear_from_srgb(np.arange(256)[:, None] / 255) * base_colour.colour) * 255
        )
        if base_colour.texture is None:
            return to_tensor(np.broadcast_to(shade_table[255], (4, 4, 3)), np.uint8)
        if base_colour.texture not in self._images:
            self._images[base_colour.texture] = self._decode(base_colour.texture)
        image = self._images[base_colour.texture]
        if base_colour.colour == WHITE:
            return image
        self._charge_pixels(image)
        levels = to_tensor(shade_table, np.uint8)
        return torch.stack([levels[image[..., c].long(), c] for c in range(3)], dim=-1)

    def _decode(self, index: int) -> torch.Tensor:
        item = self.file.root.at("images", index)
        if "uri" in item.value:
            data = self.file.uri(item.text("uri"), item)
        else:
            data = self.file.view(item.integer("bufferView"))
        image = decode_image(data, f"{self.file.path}: {item.pointer}", self.pixels_left)
        self._charge_pixels(image)
        return image

    def _charge_pixels(self, image: torch.Tensor) -> None:
        self.pixels_left -= image.shape[0] * image.shape[1]
        if self.pixels_left < 0:
            raise FormatError(f"{self.file.path}: its textures are too large to be read as one; shrink them")


def merge_textures(
    parts: list[tuple[BaseColour, Array | None, int]], materials: MaterialReader
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Merge the textures of several parts into one atlas.

    parts: base colour, (V, 2) texture coordinates or None, and number of vertices of each part

    Returns the texture and the (V, 2) coordinates of all parts, or None for both if no part has a texture. Raises
    FormatError if one of several textures repeats.
    """
    appearances = [
        (base_colour.texture, base_colour.colour) if uv is not None else (None, base_colour.colour)
        for base_colour, uv, _ in parts
    ]
    if all(texture is None for texture, _ in appearances):
        return None, None
    distinct = list(dict.fromkeys(appearances))
    images = [materials.render_texture(BaseColour(colour, texture)) for texture, colour in distinct]
    # Any point of a plain image shows its colour; the middle is farthest from other images of the atlas.
    middle = np.full((1, 2), 0.5, np.float32)
    coordinates = [np.repeat(middle, count, axis=0) if uv is None else uv for _, uv, count in parts]
    image_indices = [distinct.index(appearance) for appearance in appearances]
    texture, atlas_uvs = pack_atlas(images, coordinates, image_indices, str(materials.file.path))
    return texture, to_tensor(np.concatenate(atlas_uvs))
