"""A glTF document under construction: tables with their descriptions, saved as one or several files.

The data of each table is a *buffer view*; an *accessor* describes the numbers in it. A `.glb` holds the JSON followed
by one buffer. A `.gltf` is the JSON alone, with the buffer and the images in companion files named by a content hash.
Everything is little-endian, and every view starts at a multiple of four bytes.
"""

from __future__ import annotations

import json
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lumigraph.formats.io import open_atomic
from lumigraph.formats.texture_images import unique_name
from lumigraph.scene.errors import FormatError

Array = npt.NDArray[Any]
Json = dict[str, Any]

COMPONENT_TYPES = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
ACCESSOR_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
VERTEX_TARGET, INDEX_TARGET = 34962, 34963  # `target` of a buffer view
MAX_BUFFER_BYTES = 2**32 - 1  # bytes of a .glb, and of any buffer that a browser can hold


class Document:
    """The JSON `tree` and the bytes of its buffer."""

    def __init__(self) -> None:
        self.tree: Json = {"asset": {"version": "2.0", "generator": "Lumigraph"}}
        self.blobs: list[memoryview] = []
        self.size = 0  # bytes of the buffer so far
        self.images: list[tuple[bytes, str]] = []

    def add(self, name: str, item: Json) -> int:
        """Append `item` to the list `name` of the tree; returns its index."""
        items: list[Json] = self.tree.setdefault(name, [])
        items.append(item)
        return len(items) - 1

    def use_extension(self, extension: str, *, required: bool) -> None:
        for name in ("extensionsUsed", *(["extensionsRequired"] if required else [])):
            if extension not in self.tree.setdefault(name, []):
                self.tree[name].append(extension)

    def append_bytes(self, data: bytes | Array) -> Json:
        """Append bytes to the buffer; returns their location as JSON."""
        blob = memoryview(data).cast("B") if isinstance(data, bytes) else data.data.cast("B")
        location = {"buffer": 0, "byteOffset": self.size, "byteLength": len(blob)}
        self.blobs += [blob, memoryview(bytes(-len(blob) % 4))]
        self.size += len(blob) + -len(blob) % 4
        return location

    def add_view(self, data: bytes | Array, target: int | None = None) -> int:
        return self.add("bufferViews", self.append_bytes(data) | ({"target": target} if target else {}))

    def add_table(
        self, values: Array, *, normalized: bool = False, bounds: bool = False, view: int | None = None
    ) -> int:
        """Add an accessor of an (N, 1..4) table whose rows take a multiple of four bytes.

        Uses the buffer view `view` if the data is already in one.
        """
        values = np.ascontiguousarray(values)
        view = self.add_view(values, VERTEX_TARGET) if view is None else view
        return self.add("accessors", {"bufferView": view} | make_accessor(values, normalized=normalized, bounds=bounds))

    def add_texture(self, data: bytes, kind: str) -> int:
        """Add a texture from an encoded "png" or "jpeg"; returns its index.

        Its bytes go into the .glb or into a file.
        """
        self.images.append((data, kind))
        image_index = self.add("images", {"mimeType": f"image/{kind}"})
        sampler = self.add("samplers", {"magFilter": 9729, "minFilter": 9987, "wrapS": 10497, "wrapT": 10497})
        return self.add("textures", {"sampler": sampler, "source": image_index})

    # --- files -------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write a .glb or .gltf, by the suffix of `path`. Raises FormatError."""
        if path.suffix.lower() == ".glb":
            self._save_glb(path)
        else:
            self._save_gltf(path)

    def _save_glb(self, path: Path) -> None:
        for index, (data, _) in enumerate(self.images):
            self.tree["images"][index]["bufferView"] = self.add_view(data)
        text = self._encode_json({"byteLength": self.size})
        text += b" " * (-len(text) % 4)
        total = 12 + 8 + len(text) + 8 + self.size
        if total > MAX_BUFFER_BYTES:
            raise FormatError(f"{path}: {total} bytes are more than a .glb can hold (4 GiB); make the asset smaller")
        with open_atomic(path) as file:
            file.write(struct.pack("<4sII", b"glTF", 2, total))
            file.write(struct.pack("<I4s", len(text), b"JSON") + text)
            file.write(struct.pack("<I4s", self.size, b"BIN\0"))
            file.writelines(self.blobs)

    def _save_gltf(self, path: Path) -> None:
        """Write the companion files and the .gltf. An ExitStack unwinds in reverse, so the .gltf is renamed last."""
        if self.size > MAX_BUFFER_BYTES:
            raise FormatError(f"{path}: {self.size} bytes are more than viewers can hold; make the asset smaller")
        with ExitStack() as stack:
            main = stack.enter_context(open_atomic(path))
            for index, (data, kind) in enumerate(self.images):
                name = unique_name(path, [data], {"png": ".png", "jpeg": ".jpg"}[kind])
                self.tree["images"][index]["uri"] = name
                stack.enter_context(open_atomic(path.with_name(name))).write(data)
            name = unique_name(path, self.blobs, ".bin")
            stack.enter_context(open_atomic(path.with_name(name))).writelines(self.blobs)
            main.write(self._encode_json({"byteLength": self.size, "uri": name}))

    def _encode_json(self, buffer: Json) -> bytes:
        self.tree["buffers"] = [buffer, *self.tree.get("buffers", [])]
        return json.dumps(self.tree, separators=(",", ":"), allow_nan=False).encode()


def make_accessor(values: Array, *, normalized: bool = False, bounds: bool = False) -> Json:
    """The accessor of an (N, 1..4) table, without its buffer view."""
    accessor: Json = {
        "componentType": COMPONENT_TYPES[values.dtype.str[1:]],
        "count": len(values),
        "type": ACCESSOR_TYPES[values.shape[1]],
    }
    if normalized:
        accessor["normalized"] = True
    if bounds:  # a float32 converts to a double exactly, so the bounds match the data bit for bit
        accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
    return accessor
