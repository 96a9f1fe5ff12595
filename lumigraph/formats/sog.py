"""SOG, PlayCanvas' gaussians as lossless WebP pictures (version 2): a fifteenth of a PLY, for the web.

A zip (`.sog`), or a folder, of `meta.json` and the pictures that it names; a gaussian is the same pixel in each,
counted row by row from the top:

* means, two pictures: the low and the high bytes of 16 bits from `mins` to `maxs` of sign(x) * log(1 + |x|)
* scales, sh0: bytes that number the 256 values of a codebook, of natural logs and of DC; sh0's alpha is the opacity
* quats: alpha is 252 + which of w x y z is the largest; red green blue are the others, from -sqrt(1/2) to sqrt(1/2)
* shN, two pictures: a palette of harmonics above DC, 64 entries a row, a pixel a coefficient, bytes that number the
  values of a third codebook; and the 16-bit number of each gaussian's entry, in red and green

Version 1 (without a version in its `meta.json`) has bounds in place of the codebooks, and the logit in place of the
opacity; it is read where it has no harmonics above DC.
"""

from __future__ import annotations

import io
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from lumigraph.formats.codebook import codebook, nearest_code, palette
from lumigraph.formats.io import open_atomic, open_for_read
from lumigraph.formats.quantization import (
    LOG_SCALE_LIMIT,
    LOGITS,
    SQRT_HALF,
    Bytes,
    Floats,
    morton_order,
    opacity_bytes,
    parts_of,
    rounded_bytes,
    splats_of,
    unit,
    with_largest,
    without_largest,
)
from lumigraph.scene.assets import Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds

NAME = "SOG"
SUFFIXES = (".sog",)
READS = ("meta.json",)  # unpacked, in a folder of its own
HOLDS: tuple[type, ...] = (Splats,)
UP = "-y"
METRES = None

META = "meta.json"
META_LIMIT = 1 << 20  # bytes; three codebooks take 16 kB
MOST_SIDE = 16383  # pixels of a WebP
ROW_ENTRIES = 64  # of the palette
MOST_ENTRIES = 1 << 16
COEFFICIENTS = (0, 3, 8, 15)  # of a channel above DC, by degree
# Gaussians that a file may announce: no scene is packed smaller, and a few come free.
MOST_OF_A_BYTE, FREE = 2, 1 << 16
LOG_REACH = 80.0  # of a position: e^80 units is no place
EFFORT = 3  # of WebP, 0 to 6: higher ones take several times longer for a few per cent


# --- writing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """What the file is to be like.

    rounds: of learning the palette of harmonics; more take longer and come closer to the scene.
    """

    rounds: Annotated[int, Bounds(1, 50)] = 6


def write(asset: Splats, path: Path, options: Options = Options()) -> None:
    """Write a zip atomically: `path` is complete or untouched. The order of the gaussians changes.

    Raises FormatError for anything but splats, for none of them, for NaN and infinity, and when the disk refuses.
    """
    path = Path(path)
    means, log_scales, quats, logits, sh = parts_of(asset, path, NAME)
    count = len(means)
    width, height = picture_size(count)
    if not count or max(width, height) > MOST_SIDE:
        raise FormatError(f"{path}: not written, because SOG holds 1 to {MOST_SIDE**2} gaussians, not {count}")
    order = morton_order(means)

    def picture(*channels: Bytes) -> Image.Image:
        pixels = np.zeros((height * width, len(channels)), np.uint8)
        for i, channel in enumerate(channels):
            pixels[:count, i] = channel
        return Image.fromarray(pixels.reshape(height, width, len(channels)))

    logs = np.sign(means[order]) * np.log1p(np.abs(means[order], dtype=np.float64))
    low, high = logs.min(axis=0), logs.max(axis=0)
    place = np.rint((logs - low) / np.where(high > low, high - low, 1) * 65535).astype(np.uint16)
    largest, others = without_largest(unit(quats[order]))
    turn = rounded_bytes((others / (2 * SQRT_HALF) + 0.5) * 255)
    scale_codes, colour_codes = codebook(log_scales), codebook(sh[:, 0])
    scales, colours = nearest_code(scale_codes, log_scales[order]), nearest_code(colour_codes, sh[order, 0])
    pictures = {
        "means_l.webp": picture(*(place & 255).astype(np.uint8).T),
        "means_u.webp": picture(*(place >> 8).astype(np.uint8).T),
        "quats.webp": picture(*turn.T, (252 + largest).astype(np.uint8)),
        "scales.webp": picture(*scales.T),
        "sh0.webp": picture(*colours.T, opacity_bytes(logits[order])),
    }
    meta: dict[str, Any] = {
        "version": 2,
        "asset": {"generator": "Lumigraph"},
        "count": count,
        "means": {"mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"codebook": scale_codes.tolist(), "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": colour_codes.tolist(), "files": ["sh0.webp"]},
    }
    if sh.shape[1] > 1:
        files = ["shN_centroids.webp", "shN_labels.webp"]
        rest = torch.from_numpy(sh[order, 1:].reshape(count, -1))
        entries, labels = palette(rest, entry_count(count), options.rounds)
        rest_codes, pictures[files[0]] = _palette_picture(entries.numpy(), sh.shape[1] - 1)
        pictures[files[1]] = picture(*_two_bytes(labels.numpy()), np.zeros(count, np.uint8))
        meta["shN"] = {
            "count": len(entries),
            "bands": asset.sh_degree,
            "codebook": rest_codes.tolist(),
            "files": files,
        }
    with ThreadPoolExecutor() as pool:  # the encoder works outside of Python's lock
        encoded = dict(zip(pictures, pool.map(_webp, pictures.values()), strict=True))
    with open_atomic(path) as stream, zipfile.ZipFile(stream, "w") as bundle:
        for name, data in {META: json.dumps(meta).encode(), **encoded}.items():
            bundle.writestr(zipfile.ZipInfo(name), data)  # dated 1980: the same scene is the same file


def picture_size(count: int) -> tuple[int, int]:
    """Width and height, multiples of 4 and nearly square, as all writers of the format choose them."""
    width = math.ceil(math.sqrt(count) / 4) * 4
    return width, math.ceil(count / width / 4) * 4 if count else 0


def entry_count(count: int) -> int:
    """Entries of the palette for so many gaussians: the power of two below, as all writers of the format choose it."""
    return min(MOST_ENTRIES, 1 << (count.bit_length() - 1))


def _palette_picture(entries: Floats, coefficients: int) -> tuple[Floats, Image.Image]:
    """(P, 3 * coefficients) -> the codebook, and 64 entries a row."""
    codes = codebook(entries)
    rows = -(-len(entries) // ROW_ENTRIES)
    pixels = np.zeros((rows * ROW_ENTRIES, coefficients, 3), np.uint8)
    pixels[: len(entries)] = nearest_code(codes, entries).reshape(-1, coefficients, 3)
    return codes, Image.fromarray(pixels.reshape(rows, ROW_ENTRIES * coefficients, 3))


def _two_bytes(labels: npt.NDArray[np.int64]) -> tuple[Bytes, Bytes]:
    return (labels & 255).astype(np.uint8), (labels >> 8).astype(np.uint8)


def _webp(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    # exact: the colour of a pixel counts where its alpha is zero as well.
    picture.save(stream, "WEBP", lossless=True, exact=True, method=EFFORT, quality=50)
    return stream.getvalue()


# --- reading ---------------------------------------------------------------------------------------------------------

Load = Callable[[str, int], bytes]  # a name and the most bytes that it may hold -> what it holds


def read(path: Path) -> Splats:
    """The gaussians of a `.sog`, of a folder, or of the `meta.json` in a folder, within the quantisation. Raises
    FormatError for anything else. No picture is unpacked before its header has said a plausible size."""
    path = Path(path)
    if path.is_dir() or path.name.lower() == META:
        folder = path if path.is_dir() else path.parent
        size = sum(file.stat().st_size for file in folder.glob("*") if file.is_file())
        return _read(_in_folder(folder, META if path.is_dir() else path.name), size, folder / META)
    with open_for_read(path) as stream:
        try:
            with zipfile.ZipFile(stream) as bundle:
                return _read(_in_zip(bundle, path), os.fstat(stream.fileno()).st_size, path)
        except (zipfile.BadZipFile, OSError, EOFError, zlib.error, ValueError, struct.error) as error:
            raise FormatError(f"{path}: cannot be read as the zip that SOG is ({error}); fetch it again") from error
        except (NotImplementedError, RuntimeError, OverflowError) as error:  # unknown packing, a password
            raise FormatError(f"{path}: a zip of a kind that SOG is not ({error}); pack it plainly") from error


def _in_folder(folder: Path, meta: str) -> Load:
    def load(name: str, most: int) -> bytes:
        with open_for_read(folder / (meta if name == META else name)) as stream:
            return _all_of(stream, folder / name, most)

    return load


def _in_zip(bundle: zipfile.ZipFile, path: Path) -> Load:
    def load(name: str, most: int) -> bytes:
        try:
            entry = bundle.getinfo(name)
        except KeyError:
            raise FormatError(f"{path}: holds no {name}; it is no SOG or was packed wrongly") from None
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without bounds
            raise FormatError(f"{path}: {name} is packed in a way that SOG does not know; pack it plainly")
        with bundle.open(entry) as stream:
            return _all_of(stream, Path(f"{path}:{name}"), most)

    return load


def _all_of(stream: Any, path: Path, most: int) -> bytes:
    data: bytes = stream.read(most + 1)
    if len(data) > most:
        raise FormatError(f"{path}: more than the {most} bytes that it can need; it is no part of a SOG")
    return data


@dataclass(frozen=True)
class _Scene:
    """One SOG being read: `meta` is not to be trusted."""

    path: Path
    load: Load
    meta: dict[str, Any]
    count: int

    def part(self, name: str) -> dict[str, Any]:
        part = self.meta.get(name)
        if not isinstance(part, dict):
            raise self.wrong(f"no {name!r}")
        return part

    def wrong(self, what: str) -> FormatError:
        return FormatError(f"{self.path}: {META} has {what}, so it is no SOG that is known; save it again")

    def numbers(self, part: str, key: str, length: int) -> Floats:
        """(length,) finite numbers."""
        listed = self.part(part).get(key)
        listed = listed if isinstance(listed, list) else []
        if length == 256 and len(listed) == 256 and listed[0] is None:
            # A widespread writer once left the first code out; it was as far below the second as codes lie apart.
            listed = [0, *listed[1:]]
            if all(isinstance(value, int | float) for value in listed):
                listed[0] = listed[1] + (listed[1] - listed[255]) / 255
        if len(listed) != length or not all(type(value) in (int, float) for value in listed):
            raise self.wrong(f"in {part!r} no {length} numbers {key!r}")
        try:
            values = np.array(listed, np.float64)
        except OverflowError:
            values = np.full(length, np.inf)
        if not (np.abs(values) < 1e30).all():
            raise self.wrong(f"in {part!r} a {key!r} that is too large or no number")
        return values.astype(np.float32)

    def picture(self, part: str, wanted: str, index: int, width: int | None = None) -> Bytes:
        """(H, W, 4) of the file whose name holds `wanted`, else of that with the number `index`: writers differ in the
        order. Raises FormatError unless it has a pixel a gaussian, or is `width` wide."""
        files = self.part(part).get("files")
        if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
            raise self.wrong(f"in {part!r} no 'files'")
        named = [name for name in files if wanted in name]
        if len(named) != 1 and index >= len(files):
            raise self.wrong(f"in {part!r} too few 'files'")
        name = named[0] if len(named) == 1 else files[index]
        if not name or name in (".", "..") or any(mark in name for mark in "/\\:\0"):
            raise self.wrong(f"in {part!r} the file name {name[:60]!r}, which leads elsewhere")
        at = Path(f"{self.path}:{name}")
        # What cannot be packed costs a little more than its bytes.
        most = self.count * 5 + FREE if width is None else MOST_ENTRIES // ROW_ENTRIES * width * 5 + FREE
        data = self.load(name, most)
        size = _webp_size(data, at)
        if width is None and not self.count <= size[0] * size[1] <= 2 * self.count + FREE:
            raise FormatError(f"{at}: {size[0]} x {size[1]} pixels for {self.count} gaussians; the file is damaged")
        if width is not None and (size[0] != width or size[1] > MOST_ENTRIES // ROW_ENTRIES):
            raise FormatError(f"{at}: {size[0]} x {size[1]} pixels for a palette {width} wide; the file is damaged")
        return _pixels(data, size, at)

    def pixels(self, part: str, wanted: str = "", index: int = 0) -> Bytes:
        """(N, 4), a row a gaussian."""
        return self.picture(part, wanted, index).reshape(-1, 4)[: self.count]


def _read(load: Load, size: int, path: Path) -> Splats:
    """`size` is that of all there is to load, in bytes."""
    try:
        meta = json.loads(load(META, META_LIMIT))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: {META} is no JSON ({str(error)[:80]}); fetch it again") from error
    scene = _Scene(path, load, meta if isinstance(meta, dict) else {}, 0)
    version = scene.meta.get("version", 1)
    if version not in (1, 2):
        raise scene.wrong(f"the version {str(version)[:20]}, where 2 is known,")
    shape = scene.part("means").get("shape") if version == 1 else [scene.meta.get("count")]
    count = shape[0] if isinstance(shape, list) and shape else None
    if type(count) is not int or not 0 < count <= MOST_SIDE**2:
        raise scene.wrong("no count of gaussians")
    if count > MOST_OF_A_BYTE * size + FREE:
        raise scene.wrong(f"{count} gaussians, which no SOG of {size} bytes holds,")
    scene = _Scene(path, load, scene.meta, count)
    means_low, means_high = scene.pixels("means", "_l", 0), scene.pixels("means", "_u", 1)
    means = _means(scene, means_low, means_high)
    del means_low, means_high
    turns = scene.pixels("quats")
    # Alpha below 252 is no index; readers of the field show such a gaussian unturned.
    others = (turns[:, :3] * np.float32(2 / 255) - 1) * np.float32(SQRT_HALF)
    quats = with_largest(np.maximum(turns[:, 3], 252) - 252, others)
    quats[turns[:, 3] < 252] = (1, 0, 0, 0)
    decode = _by_codebook if version == 2 else _by_bounds
    log_scales = decode(scene, "scales", scene.pixels("scales")[:, :3])
    if log_scales.max() > LOG_SCALE_LIMIT:
        raise scene.wrong(f"scales above e^{LOG_SCALE_LIMIT:.0f}")
    colours = scene.pixels("sh0")
    if version == 2:
        dc, logits = decode(scene, "sh0", colours[:, :3]), LOGITS[colours[:, 3]]
    else:
        dc, logits = np.split(decode(scene, "sh0", colours), [3], axis=1)
        logits = np.ascontiguousarray(logits[:, 0])
    rest = _harmonics(scene, version) if scene.meta.get("shN") is not None else np.empty((count, 0, 3), np.float32)
    return splats_of(means, log_scales, quats, logits, np.concatenate([dc[:, None], rest], axis=1))


def _means(scene: _Scene, low: Bytes, high: Bytes) -> Floats:
    first, last = (scene.numbers("means", key, 3).astype(np.float64) for key in ("mins", "maxs"))
    if max(np.abs(first).max(), np.abs(last).max()) > LOG_REACH:
        raise scene.wrong(f"positions beyond e^{LOG_REACH:.0f}")
    share = (low[:, :3] + high[:, :3].astype(np.float32) * 256) / 65535
    logs = first + (last - first) * share
    made: Floats = (np.sign(logs) * np.expm1(np.abs(logs))).astype(np.float32)
    return made


def _by_codebook(scene: _Scene, part: str, pixels: Bytes) -> Floats:
    return scene.numbers(part, "codebook", 256)[pixels]


def _by_bounds(scene: _Scene, part: str, pixels: Bytes) -> Floats:
    low, high = (scene.numbers(part, key, pixels.shape[-1]) for key in ("mins", "maxs"))
    made: Floats = (low + (high - low) * (pixels / 255)).astype(np.float32)
    return made


def _harmonics(scene: _Scene, version: int) -> Floats:
    """(N, coefficients, 3)."""
    bands = scene.part("shN").get("bands")
    if version == 1:
        raise scene.wrong("harmonics in the form of version 1, which is not read")
    if type(bands) is not int or not 1 <= bands <= 3:
        raise scene.wrong("in 'shN' no 'bands' from 1 to 3")
    coefficients = COEFFICIENTS[bands]
    pixels = scene.picture("shN", "centroids", 0, ROW_ENTRIES * coefficients)[..., :3]
    entries = _by_codebook(scene, "shN", pixels.reshape(-1, coefficients, 3))
    bytes_of = scene.pixels("shN", "labels", 1)
    labels = bytes_of[:, 0] | bytes_of[:, 1].astype(np.int64) << 8
    if labels.max() >= len(entries):
        raise scene.wrong(f"a palette of {len(entries)} entries, where gaussians name entry {labels.max()}")
    made: Floats = entries[labels]
    return made


def _webp_size(data: bytes, path: Path) -> tuple[int, int]:
    """Width and height from the header (developers.google.com/speed/webp/docs/riff_container), unpacking nothing."""
    kind, body = data[12:16], data[20:30]
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(body) < 10:
        raise FormatError(f"{path}: no WebP picture; it was cut short or damaged, fetch it again")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and not body[0] & 2:  # the bit of an animation
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    raise FormatError(f"{path}: a lossy or moving WebP, whose pixels are no exact numbers; save it without loss")


def _pixels(data: bytes, size: tuple[int, int], path: Path) -> Bytes:
    """(H, W, 4)."""
    try:
        with Image.open(io.BytesIO(data), formats=("WEBP",)) as picture:
            if picture.size != size:
                raise FormatError(f"{path}: two sizes in one picture; it is damaged, fetch it again")
            return np.asarray(picture.convert("RGBA"))
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise FormatError(f"{path}: the picture cannot be unpacked ({error}); fetch it again") from error
