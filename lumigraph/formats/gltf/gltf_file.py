"""An untrusted glTF file: its JSON, buffers and tables, each number checked before use.

Everything read from it is charged to one `Budget`: views may be shared, instanced and compressed, so a few bytes could
request any amount of memory.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lumigraph.formats.gltf.compression import MESHOPT, Packing, decode_meshopt
from lumigraph.formats.gltf.document import ACCESSOR_TYPES, COMPONENT_TYPES
from lumigraph.formats.io import open_for_read
from lumigraph.formats.texture_images import resolve_companion
from lumigraph.scene.errors import FormatError

Array = npt.NDArray[Any]

NUMPY_TYPES = {code: np.dtype("<" + name) for name, code in COMPONENT_TYPES.items()}
ACCESSOR_WIDTHS = {name: width for width, name in ACCESSOR_TYPES.items()}
MAX_JSON_BYTES = 1 << 25  # the parsed JSON may take thirty times as much
MAX_GROWTH = 64  # data read from a file may take this many times its size,
MIN_BUDGET_BYTES = 1 << 26  # or this much for a small file


@dataclass
class Budget:
    """Memory in bytes that may still be allocated, and processor time that decoders may still overrun."""

    bytes_left: int
    where: str
    spare_seconds: float = 2.0

    def take(self, size: int) -> None:
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise FormatError(
                f"{self.where}: would unfold into more than {MAX_GROWTH} times its size; it is damaged, or repeats a"
                " mesh"
                " so often that it must be split"
            )

    @contextmanager
    def limit_time(self, seconds: float) -> Iterator[None]:
        """Charge the time that the block takes beyond `seconds`. Raises FormatError if too much has been charged."""
        start = time.thread_time()
        yield
        self.spare_seconds -= max(0.0, time.thread_time() - start - seconds)
        if self.spare_seconds < 0:
            raise FormatError(f"{self.where}: takes far too long to unpack; it is damaged, export it again")


@dataclass(frozen=True)
class JsonItem:
    """A JSON object of the file; `pointer` locates it (RFC 6901)."""

    path: Path
    pointer: str
    value: dict[str, Any]

    def error(self, reason: str) -> FormatError:
        return FormatError(f"{self.path}: {self.pointer or '/'}: {reason}; the file is damaged, export it again")

    def integer(self, name: str, default: int | None = None, low: int = 0, high: int = 2**53) -> int:
        number = self.value.get(name, default)
        if type(number) is float and number.is_integer():  # 3.0 is a whole number to JSON
            number = int(number)
        if type(number) is not int or not low <= number <= high:
            raise self.error(f"{name!r} must be a whole number from {low} to {high}")
        return number

    def optional(self, name: str) -> int | None:
        """An index, or None if it is absent."""
        return self.integer(name) if name in self.value else None

    def numbers(self, name: str, default: list[float]) -> list[float]:
        """A list of finite numbers, as many as in `default`."""
        values = self.value.get(name, default)
        is_list = isinstance(values, list) and len(values) == len(default)
        if not is_list or not all(type(x) in (int, float) and abs(x) < 1e30 for x in values):
            raise self.error(f"{name!r} must be {len(default)} finite numbers")
        return [float(x) for x in values]

    def text(self, name: str, default: str | None = None) -> str:
        value = self.value.get(name, default)
        if not isinstance(value, str):
            raise self.error(f"{name!r} must be text")
        return value

    def flag(self, name: str) -> bool:
        value = self.value.get(name, False)
        if not isinstance(value, bool):
            raise self.error(f"{name!r} must be true or false")
        return value

    def item(self, name: str) -> JsonItem:
        """The object of that name; an empty one if it is absent."""
        return self._as_item(name, self.value.get(name, {}))

    def entries(self, name: str) -> list[Any]:
        value = self.value.get(name, [])
        if not isinstance(value, list):
            raise self.error(f"{name!r} must be a list")
        return value

    def items(self, name: str) -> Iterator[JsonItem]:
        for i, value in enumerate(self.entries(name)):
            yield self._as_item(f"{name}/{i}", value)

    def indices(self, name: str) -> list[int]:
        values = self.entries(name)
        if not all(type(x) is int and x >= 0 for x in values):
            raise self.error(f"{name!r} must be a list of indices")
        return values

    def at(self, name: str, index: int) -> JsonItem:
        """The object `index` of the list `name`."""
        values = self.entries(name)
        if index >= len(values):
            raise self.error(f"{name}/{index} is requested, but there are only {len(values)}")
        return self._as_item(f"{name}/{index}", values[index])

    def extension(self, name: str) -> JsonItem | None:
        extensions = self.item("extensions")
        return extensions.item(name) if name in extensions.value else None

    def _as_item(self, name: str, value: object) -> JsonItem:
        if not isinstance(value, dict):
            raise self.error(f"{name!r} must be an object")
        return JsonItem(self.path, f"{self.pointer}/{name}", value)


class GltfFile:
    """A glTF file; `root` is its JSON."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_for_read(path) as stream:
            data = memoryview(stream.read())
        self.budget = Budget(max(MIN_BUDGET_BYTES, MAX_GROWTH * len(data)), str(path))
        text, self._binary = _split_glb(data, path) if bytes(data[:4]) == b"glTF" else (data, None)
        self.root = JsonItem(path, "", _parse_json(text, path))
        self._companions: dict[Path, memoryview] = {}
        self._buffers: dict[int, memoryview] = {}
        self._decoded_views: dict[int, memoryview] = {}
        asset = self.root.item("asset")
        if not asset.text("version", "").startswith("2."):
            raise FormatError(f"{path}: not a glTF of version 2; convert it, for example with Blender")

    def uri(self, text: str, item: JsonItem) -> memoryview:
        """Bytes behind a URI: a data URI or a companion file."""
        if text.startswith("data:"):
            head, _, body = text.partition(",")
            try:
                if not head.endswith(";base64"):
                    raise ValueError("not base64")
                return memoryview(base64.b64decode(body, validate=True))
            except (ValueError, binascii.Error) as error:
                raise item.error(f"a data URI that cannot be read ({error})") from error
        path = resolve_companion(self.path, text)
        if path not in self._companions:
            with open_for_read(path) as stream:
                self._companions[path] = memoryview(stream.read())
            self.budget.bytes_left += MAX_GROWTH * len(self._companions[path])
        return self._companions[path]

    def buffer(self, index: int) -> memoryview:
        if index not in self._buffers:
            item = self.root.at("buffers", index)
            if "uri" in item.value:
                data = self.uri(item.text("uri"), item)
            elif index == 0 and self._binary is not None:
                data = self._binary
            else:
                raise item.error("a buffer without bytes")
            self._buffers[index] = _slice(data, 0, item.integer("byteLength"), item)
        return self._buffers[index]

    def view(self, index: int) -> memoryview:
        item = self.root.at("bufferViews", index)
        packing = item.extension(MESHOPT)
        if packing is None:
            return _slice(
                self.buffer(item.integer("buffer")), item.integer("byteOffset", 0), item.integer("byteLength"), item
            )
        if index not in self._decoded_views:
            self._decoded_views[index] = self._decode_view(packing)
        return _slice(self._decoded_views[index], 0, item.integer("byteLength"), item)

    def _decode_view(self, item: JsonItem) -> memoryview:
        compressed = _slice(
            self.buffer(item.integer("buffer")), item.integer("byteOffset", 0), item.integer("byteLength"), item
        )
        count, stride = item.integer("count"), item.integer("byteStride", low=1, high=256)
        packing = Packing(count, stride, item.text("mode"), item.text("filter", "NONE"))
        self.budget.take(3 * count * max(stride, 4))  # the result, the copy of a filter, and the 16-bit copy
        return decode_meshopt(compressed, packing, f"{self.path}: {item.pointer}").data

    def table(self, index: int) -> Array:
        """Numbers of an accessor (N, 1..4), in their stored type; all finite."""
        item = self.root.at("accessors", index)
        if "sparse" in item.value:
            raise FormatError(f"{self.path}: {item.pointer}: sparse accessors are not read; export without them")
        count, kind, width = accessor_layout(item)
        row_bytes = kind.itemsize * width
        if "bufferView" not in item.value:  # the format defines zeros
            self.budget.take(count * row_bytes)
            return np.zeros((count, width), kind)
        view_index = item.integer("bufferView")
        data = self.view(view_index)
        stride = self.root.at("bufferViews", view_index).integer("byteStride", row_bytes, low=1, high=256)
        first = item.integer("byteOffset", 0)
        if stride < row_bytes or (count and first + (count - 1) * stride + row_bytes > len(data)):
            raise item.error(f"{count} rows of {stride} bytes from byte {first} exceed a view of {len(data)}")
        if not count:
            return np.zeros((0, width), kind)
        values: Array = np.ndarray((count, width), kind, data, first, (stride, kind.itemsize))
        if kind.kind == "f" and not np.isfinite(values).all():
            raise item.error("holds NaN or infinity")
        return values

    def floats(self, index: int, values: Array | None = None) -> Array:
        """An accessor as (N, 1..4) float32, normalized if it is flagged so. `values`: its data if already decoded."""
        item = self.root.at("accessors", index)
        values = self.table(index) if values is None else values
        self.budget.take(values.size * 4)
        if values.dtype.kind == "f" or not item.flag("normalized"):
            return values.astype(np.float32)
        top = np.iinfo(values.dtype).max
        numbers: Array = np.maximum(values.astype(np.float32) / np.float32(top), np.float32(-1))
        return numbers


def accessor_layout(item: JsonItem) -> tuple[int, np.dtype[Any], int]:
    """Count, number type and width of an accessor."""
    kind, width = NUMPY_TYPES.get(item.integer("componentType")), ACCESSOR_WIDTHS.get(item.text("type"))
    if kind is None or width is None:
        raise item.error("not a valid type of vertex data")
    return item.integer("count"), kind, width


def _split_glb(data: memoryview, path: Path) -> tuple[memoryview, memoryview | None]:
    """Split a .glb into its JSON and its buffer."""
    length = int.from_bytes(data[8:12], "little")
    if len(data) < 20 or int.from_bytes(data[4:8], "little") != 2 or bytes(data[16:20]) != b"JSON":
        raise FormatError(f"{path}: byte 4: not a binary glTF of version 2; convert it, for example with Blender")
    if length > len(data):
        raise FormatError(f"{path}: byte 8: announces {length} bytes, but has {len(data)}; fetch it again")
    chunks: list[memoryview] = []
    at = 12
    for kind in (b"JSON", b"BIN\0"):
        size = int.from_bytes(data[at : at + 4], "little")
        if at + 8 > length or bytes(data[at + 4 : at + 8]) != kind:
            break
        if at + 8 + size > length:
            raise FormatError(f"{path}: byte {at}: a chunk of {size} bytes ends beyond the file; fetch it again")
        chunks.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    return chunks[0], chunks[1] if len(chunks) > 1 else None


def _parse_json(text: memoryview, path: Path) -> dict[str, Any]:
    if len(text) > MAX_JSON_BYTES:
        raise FormatError(f"{path}: {len(text)} bytes of JSON; export it as .glb, whose data is not text")

    def reject_constant(constant: str) -> float:
        raise ValueError(f"{constant} is not a number")

    try:
        tree = json.loads(bytes(text).decode("utf-8-sig"), parse_constant=reject_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not a glTF, its JSON cannot be read ({error}); fetch or export it again") from error
    if not isinstance(tree, dict):
        raise FormatError(f"{path}: not a glTF, its JSON is not an object; fetch or export it again")
    return tree


def _slice(data: memoryview, first: int, size: int, item: JsonItem) -> memoryview:
    if first + size > len(data):
        raise item.error(f"bytes {first} to {first + size} are requested, but there are only {len(data)}")
    return data[first : first + size]
