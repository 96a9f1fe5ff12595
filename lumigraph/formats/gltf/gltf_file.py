"""A glTF file that nobody vouches for: its JSON, its buffers and its tables, each number checked before it is used.

What is made out of it comes from one `Budget`: views may be shared, instanced and packed, so that a few bytes could
ask for any amount of memory.
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

from lumigraph.formats.gltf.compression import MESHOPT, Packing, meshopt_decoded
from lumigraph.formats.gltf.document import COMPONENTS, SHAPES
from lumigraph.formats.io import open_for_read
from lumigraph.formats.texture_images import beside
from lumigraph.scene.errors import FormatError

Array = npt.NDArray[Any]

TYPES = {code: np.dtype("<" + name) for name, code in COMPONENTS.items()}
WIDTHS = {name: width for width, name in SHAPES.items()}
TEXT_LIMIT = 1 << 25  # bytes of JSON; parsed, it may take thirty times as much
GROWTH, FLOOR = 64, 1 << 26  # the most that is made of a file: so many times its bytes, or so many bytes of a small one


@dataclass
class Budget:
    """Bytes that may still be made, and seconds of the processor that decoders may still lose."""

    left: int
    where: str
    spare: float = 2.0

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise FormatError(
                f"{self.where}: would unfold into more than {GROWTH} times its size; it is damaged, or repeats a mesh"
                " so often that it must be split"
            )

    @contextmanager
    def hurry(self, seconds: float) -> Iterator[None]:
        """The block may take `seconds`; what it takes beyond is lost. Raises FormatError where too much is."""
        begun = time.thread_time()
        yield
        self.spare -= max(0.0, time.thread_time() - begun - seconds)
        if self.spare < 0:
            raise FormatError(f"{self.where}: takes far too long to unpack; it is damaged, export it again")


@dataclass(frozen=True)
class Item:
    """A JSON object of the file; `pointer` says which (RFC 6901)."""

    path: Path
    pointer: str
    value: dict[str, Any]

    def wrong(self, what: str) -> FormatError:
        return FormatError(f"{self.path}: {self.pointer or '/'}: {what}; the file is damaged, export it again")

    def whole(self, name: str, default: int | None = None, low: int = 0, high: int = 2**53) -> int:
        number = self.value.get(name, default)
        if type(number) is float and number.is_integer():  # 3.0 is a whole number to JSON
            number = int(number)
        if type(number) is not int or not low <= number <= high:
            raise self.wrong(f"{name!r} must be a whole number from {low} to {high}")
        return number

    def optional(self, name: str) -> int | None:
        """An index, where there is one."""
        return self.whole(name) if name in self.value else None

    def numbers(self, name: str, default: list[float]) -> list[float]:
        """As many finite numbers as the default has."""
        values = self.value.get(name, default)
        good = isinstance(values, list) and len(values) == len(default)
        if not good or not all(type(x) in (int, float) and abs(x) < 1e30 for x in values):
            raise self.wrong(f"{name!r} must be {len(default)} finite numbers")
        return [float(x) for x in values]

    def text(self, name: str, default: str | None = None) -> str:
        value = self.value.get(name, default)
        if not isinstance(value, str):
            raise self.wrong(f"{name!r} must be text")
        return value

    def flag(self, name: str) -> bool:
        value = self.value.get(name, False)
        if not isinstance(value, bool):
            raise self.wrong(f"{name!r} must be true or false")
        return value

    def item(self, name: str) -> Item:
        """The object of that name; an empty one where there is none."""
        return self._as_item(name, self.value.get(name, {}))

    def entries(self, name: str) -> list[Any]:
        value = self.value.get(name, [])
        if not isinstance(value, list):
            raise self.wrong(f"{name!r} must be a list")
        return value

    def items(self, name: str) -> Iterator[Item]:
        for i, value in enumerate(self.entries(name)):
            yield self._as_item(f"{name}/{i}", value)

    def indices(self, name: str) -> list[int]:
        values = self.entries(name)
        if not all(type(x) is int and x >= 0 for x in values):
            raise self.wrong(f"{name!r} must be a list of indices")
        return values

    def at(self, name: str, index: int) -> Item:
        """The object `index` of the list `name`."""
        values = self.entries(name)
        if index >= len(values):
            raise self.wrong(f"{name}/{index} is asked for, but there are only {len(values)}")
        return self._as_item(f"{name}/{index}", values[index])

    def extension(self, name: str) -> Item | None:
        extensions = self.item("extensions")
        return extensions.item(name) if name in extensions.value else None

    def _as_item(self, name: str, value: object) -> Item:
        if not isinstance(value, dict):
            raise self.wrong(f"{name!r} must be an object")
        return Item(self.path, f"{self.pointer}/{name}", value)


class File:
    """An opened glTF: `root` is its JSON."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_for_read(path) as stream:
            data = memoryview(stream.read())
        self.budget = Budget(max(FLOOR, GROWTH * len(data)), str(path))
        text, self._binary = _chunks(data, path) if bytes(data[:4]) == b"glTF" else (data, None)
        self.root = Item(path, "", _parsed(text, path))
        self._beside: dict[Path, memoryview] = {}
        self._buffers: dict[int, memoryview] = {}
        self._unpacked: dict[int, memoryview] = {}
        asset = self.root.item("asset")
        if not asset.text("version", "").startswith("2."):
            raise FormatError(f"{path}: no glTF of version 2; convert it, for example with Blender")

    def uri(self, text: str, item: Item) -> memoryview:
        """What a URI of the file holds: a data URI, or a file beside."""
        if text.startswith("data:"):
            head, _, body = text.partition(",")
            try:
                if not head.endswith(";base64"):
                    raise ValueError("not base64")
                return memoryview(base64.b64decode(body, validate=True))
            except (ValueError, binascii.Error) as error:
                raise item.wrong(f"a data URI that cannot be read ({error})") from error
        path = beside(self.path, text)
        if path not in self._beside:
            with open_for_read(path) as stream:
                self._beside[path] = memoryview(stream.read())
            self.budget.left += GROWTH * len(self._beside[path])
        return self._beside[path]

    def buffer(self, index: int) -> memoryview:
        if index not in self._buffers:
            item = self.root.at("buffers", index)
            if "uri" in item.value:
                data = self.uri(item.text("uri"), item)
            elif index == 0 and self._binary is not None:
                data = self._binary
            else:
                raise item.wrong("a buffer without bytes")
            self._buffers[index] = _part(data, 0, item.whole("byteLength"), item)
        return self._buffers[index]

    def view(self, index: int) -> memoryview:
        item = self.root.at("bufferViews", index)
        packing = item.extension(MESHOPT)
        if packing is None:
            return _part(self.buffer(item.whole("buffer")), item.whole("byteOffset", 0), item.whole("byteLength"), item)
        if index not in self._unpacked:
            self._unpacked[index] = self._unpack(packing)
        return _part(self._unpacked[index], 0, item.whole("byteLength"), item)

    def _unpack(self, item: Item) -> memoryview:
        packed = _part(self.buffer(item.whole("buffer")), item.whole("byteOffset", 0), item.whole("byteLength"), item)
        count, stride = item.whole("count"), item.whole("byteStride", low=1, high=256)
        packing = Packing(count, stride, item.text("mode"), item.text("filter", "NONE"))
        self.budget.take(3 * count * max(stride, 4))  # the result, the copy that a filter makes, and the narrowed one
        return meshopt_decoded(packed, packing, f"{self.path}: {item.pointer}").data

    def table(self, index: int) -> Array:
        """The (N, 1..4) numbers of an accessor as they are stored, finite."""
        item = self.root.at("accessors", index)
        if "sparse" in item.value:
            raise FormatError(f"{self.path}: {item.pointer}: sparse accessors are not read; export without them")
        count, kind, width = described(item)
        stored = kind.itemsize * width
        if "bufferView" not in item.value:  # zeros, says the format
            self.budget.take(count * stored)
            return np.zeros((count, width), kind)
        which = item.whole("bufferView")
        data = self.view(which)
        stride = self.root.at("bufferViews", which).whole("byteStride", stored, low=1, high=256)
        first = item.whole("byteOffset", 0)
        if stride < stored or (count and first + (count - 1) * stride + stored > len(data)):
            raise item.wrong(f"{count} rows of {stride} bytes from byte {first} do not lie in a view of {len(data)}")
        if not count:
            return np.zeros((0, width), kind)
        values: Array = np.ndarray((count, width), kind, data, first, (stride, kind.itemsize))
        if kind.kind == "f" and not np.isfinite(values).all():
            raise item.wrong("holds NaN or infinity")
        return values

    def floats(self, index: int, values: Array | None = None) -> Array:
        """An accessor as (N, 1..4) float32, normalized where it says so; with `values` where they came otherwise."""
        item = self.root.at("accessors", index)
        values = self.table(index) if values is None else values
        self.budget.take(values.size * 4)
        if values.dtype.kind == "f" or not item.flag("normalized"):
            return values.astype(np.float32)
        top = np.iinfo(values.dtype).max
        numbers: Array = np.maximum(values.astype(np.float32) / np.float32(top), np.float32(-1))
        return numbers


def described(item: Item) -> tuple[int, np.dtype[Any], int]:
    """The count, type and width that an accessor announces."""
    kind, width = TYPES.get(item.whole("componentType")), WIDTHS.get(item.text("type"))
    if kind is None or width is None:
        raise item.wrong("a type of numbers that no vertex has")
    return item.whole("count"), kind, width


def _chunks(data: memoryview, path: Path) -> tuple[memoryview, memoryview | None]:
    """The JSON and the buffer of a .glb."""
    length = int.from_bytes(data[8:12], "little")
    if len(data) < 20 or int.from_bytes(data[4:8], "little") != 2 or bytes(data[16:20]) != b"JSON":
        raise FormatError(f"{path}: byte 4: no binary glTF of version 2; convert it, for example with Blender")
    if length > len(data):
        raise FormatError(f"{path}: byte 8: announces {length} bytes, but has {len(data)}; fetch it again")
    found: list[memoryview] = []
    at = 12
    for kind in (b"JSON", b"BIN\0"):
        size = int.from_bytes(data[at : at + 4], "little")
        if at + 8 > length or bytes(data[at + 4 : at + 8]) != kind:
            break
        if at + 8 + size > length:
            raise FormatError(f"{path}: byte {at}: a chunk of {size} bytes ends behind the file; fetch it again")
        found.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    return found[0], found[1] if len(found) > 1 else None


def _parsed(text: memoryview, path: Path) -> dict[str, Any]:
    if len(text) > TEXT_LIMIT:
        raise FormatError(f"{path}: {len(text)} bytes of JSON; export it as .glb, whose data is not text")

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no number")

    try:
        tree = json.loads(bytes(text).decode("utf-8-sig"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: no glTF, its JSON cannot be read ({error}); fetch or export it again") from error
    if not isinstance(tree, dict):
        raise FormatError(f"{path}: no glTF, its JSON is no object; fetch or export it again")
    return tree


def _part(data: memoryview, first: int, size: int, item: Item) -> memoryview:
    if first + size > len(data):
        raise item.wrong(f"bytes {first} to {first + size} are asked for, but there are only {len(data)}")
    return data[first : first + size]
