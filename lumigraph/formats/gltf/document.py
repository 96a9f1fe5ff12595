"""A glTF document being made: tables with their descriptions, and the file or files that it becomes.

The data of each table is a *buffer view*; an *accessor* says what numbers lie in one. A `.glb` holds the JSON and one
buffer behind it; a `.gltf` is the JSON alone, with the buffer and the pictures in files beside, named by what is in
them. Everything is little-endian, and every view starts at a multiple of four bytes.
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

COMPONENTS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
SHAPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
VERTICES, INDICES = 34962, 34963  # what a view is for
LIMIT = 2**32 - 1  # bytes of a .glb, and of any buffer that a browser can hold


class Document:
    """The JSON `tree` and the bytes it speaks of."""

    def __init__(self) -> None:
        self.tree: Json = {"asset": {"version": "2.0", "generator": "Lumigraph"}}
        self.blobs: list[memoryview] = []
        self.size = 0  # bytes of the buffer so far
        self.pictures: list[tuple[bytes, str]] = []

    def add(self, name: str, item: Json) -> int:
        """`item` in the list `name` of the tree; its index."""
        items: list[Json] = self.tree.setdefault(name, [])
        items.append(item)
        return len(items) - 1

    def use(self, extension: str, *, required: bool) -> None:
        for name in ("extensionsUsed", *(["extensionsRequired"] if required else [])):
            if extension not in self.tree.setdefault(name, []):
                self.tree[name].append(extension)

    def place(self, data: bytes | Array) -> Json:
        """Bytes put at the end of the buffer; where they lie."""
        blob = memoryview(data).cast("B") if isinstance(data, bytes) else data.data.cast("B")
        there = {"buffer": 0, "byteOffset": self.size, "byteLength": len(blob)}
        self.blobs += [blob, memoryview(bytes(-len(blob) % 4))]
        self.size += len(blob) + -len(blob) % 4
        return there

    def view(self, data: bytes | Array, target: int | None = None) -> int:
        return self.add("bufferViews", self.place(data) | ({"target": target} if target else {}))

    def table(self, values: Array, *, normalized: bool = False, bounds: bool = False, view: int | None = None) -> int:
        """The accessor of (N, 1..4) numbers of a type that glTF knows, whose rows take a multiple of four bytes; with
        the view where they lie already, or None to put them into one of their own."""
        values = np.ascontiguousarray(values)
        where = self.view(values, VERTICES) if view is None else view
        return self.add("accessors", {"bufferView": where} | described(values, normalized=normalized, bounds=bounds))

    def picture(self, data: bytes, kind: str) -> int:
        """The texture of an encoded picture, "png" or "jpeg"; its bytes go into the buffer, or beside a .gltf."""
        self.pictures.append((data, kind))
        image = self.add("images", {"mimeType": f"image/{kind}"})
        sampler = self.add("samplers", {"magFilter": 9729, "minFilter": 9987, "wrapS": 10497, "wrapT": 10497})
        return self.add("textures", {"sampler": sampler, "source": image})

    # --- files -------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """As .glb or .gltf, by the suffix of `path`. Raises FormatError."""
        if path.suffix.lower() == ".glb":
            self._save_glb(path)
        else:
            self._save_gltf(path)

    def _save_glb(self, path: Path) -> None:
        for image, (data, _) in enumerate(self.pictures):
            self.tree["images"][image]["bufferView"] = self.view(data)
        text = self._text({"byteLength": self.size})
        text += b" " * (-len(text) % 4)
        total = 12 + 8 + len(text) + 8 + self.size
        if total > LIMIT:
            raise FormatError(f"{path}: {total} bytes are more than a .glb can hold (4 GiB); make the asset smaller")
        with open_atomic(path) as file:
            file.write(struct.pack("<4sII", b"glTF", 2, total))
            file.write(struct.pack("<I4s", len(text), b"JSON") + text)
            file.write(struct.pack("<I4s", self.size, b"BIN\0"))
            file.writelines(self.blobs)

    def _save_gltf(self, path: Path) -> None:
        """The files beside are renamed into place first, then the .gltf that names them: one leaves an ExitStack in the
        reverse order of entering."""
        if self.size > LIMIT:
            raise FormatError(f"{path}: {self.size} bytes are more than viewers can hold; make the asset smaller")
        with ExitStack() as stack:
            main = stack.enter_context(open_atomic(path))
            for image, (data, kind) in enumerate(self.pictures):
                name = unique_name(path, [data], {"png": ".png", "jpeg": ".jpg"}[kind])
                self.tree["images"][image]["uri"] = name
                stack.enter_context(open_atomic(path.with_name(name))).write(data)
            name = unique_name(path, self.blobs, ".bin")
            stack.enter_context(open_atomic(path.with_name(name))).writelines(self.blobs)
            main.write(self._text({"byteLength": self.size, "uri": name}))

    def _text(self, buffer: Json) -> bytes:
        self.tree["buffers"] = [buffer, *self.tree.get("buffers", [])]
        return json.dumps(self.tree, separators=(",", ":"), allow_nan=False).encode()


def described(values: Array, *, normalized: bool = False, bounds: bool = False) -> Json:
    """The accessor of (N, 1..4) numbers, without saying where they lie."""
    said: Json = {
        "componentType": COMPONENTS[values.dtype.str[1:]],
        "count": len(values),
        "type": SHAPES[values.shape[1]],
    }
    if normalized:
        said["normalized"] = True
    if bounds:  # a float32 becomes the double of the same value, so that the bounds are those of the data to the bit
        said |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
    return said
