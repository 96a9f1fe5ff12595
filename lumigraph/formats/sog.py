"""SOG of PlayCanvas: gaussians as lossless WebP images (version 2), a fifteenth of a PLY, for the web.

A zip (`.sog`), or a folder, with `meta.json` and the images that it names. A gaussian is the same pixel in each image,
counted row by row from the top:

* means, two images: low and high bytes of 16 bits from `mins` to `maxs` of sign(x) * log(1 + |x|)
* scales, sh0: indices into codebooks of 256 values, of natural logs and of DC; alpha of sh0 is the opacity
* quats: alpha is 252 + the index of the largest of w x y z; red green blue are the others, -sqrt(1/2) to sqrt(1/2)
* shN, two images: a palette of SH coefficients above DC, 64 entries a row, a pixel a coefficient, as indices into a
  third codebook; and the 16-bit palette index of each gaussian, in red and green

Version 1 (no version in `meta.json`) has bounds instead of codebooks, and logits instead of opacities; it is read if it
has no SH coefficients above DC.
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

from lumigraph.formats.codebook import find_nearest_code, learn_codebook, learn_palette
from lumigraph.formats.io import open_atomic, open_for_read
from lumigraph.formats.quantization import (
    MAX_LOG_SCALE,
    OPACITY_LOGITS,
    SQRT_HALF,
    Bytes,
    Floats,
    drop_largest,
    morton_order,
    normalize_quats,
    quantize_opacities,
    restore_largest,
    round_to_bytes,
    splat_arrays,
    splats_from_arrays,
)
from lumigraph.scene.assets import Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds

NAME = "SOG"
SUFFIXES = (".sog",)
READS = ("meta.json",)  # of an unpacked SOG, in its folder
HOLDS: tuple[type, ...] = (Splats,)
UP = "-y"
METRES = None

META_NAME = "meta.json"
META_MAX_BYTES = 1 << 20  # three codebooks take 16 kB
WEBP_MAX_SIDE_PX = 16383  # pixels, of the WebP format
PALETTE_ROW_ENTRIES = 64
PALETTE_MAX_ENTRIES = 1 << 16
SH_REST_COEFFICIENTS = (0, 3, 8, 15)  # number per channel, by degree
# Limits of the announced count: real scenes have fewer gaussians per byte, and small files get a free allowance.
GAUSSIANS_PER_BYTE, FREE_GAUSSIANS = 2, 1 << 16
MAX_LOG_POSITION = 80.0  # e^80 units is not a plausible position
WEBP_EFFORT = 3  # 0 to 6; higher levels take several times longer and save a few per cent


# --- writing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """Quality of the SH palette.

    rounds: iterations that learn the palette of SH coefficients; more are slower and more accurate
    """

    rounds: Annotated[int, Bounds(1, 50)] = 6


def write(asset: Splats, path: Path, options: Options = Options()) -> None:
    """Write a zip atomically: `path` is complete or untouched. Reorders the gaussians.

    Raises FormatError for an asset that is not splats, for an empty one, for NaN or infinity, and on disk errors.
    """
    path = Path(path)
    means, log_scales, quats, logits, sh = splat_arrays(asset, path, NAME)
    count = len(means)
    width, height = image_size(count)
    if not count or max(width, height) > WEBP_MAX_SIDE_PX:
        raise FormatError(f"{path}: not written, because SOG holds 1 to {WEBP_MAX_SIDE_PX**2} gaussians, not {count}")
    order = morton_order(means)

    def make_image(*channels: Bytes) -> Image.Image:
        pixels = np.zeros((height * width, len(channels)), np.uint8)
        for i, channel in enumerate(channels):
            pixels[:count, i] = channel
        return Image.fromarray(pixels.reshape(height, width, len(channels)))

    logs = np.sign(means[order]) * np.log1p(np.abs(means[order], dtype=np.float64))
    low, high = logs.min(axis=0), logs.max(axis=0)
    levels = np.rint((logs - low) / np.where(high > low, high - low, 1) * 65535).astype(np.uint16)
    largest, components = drop_largest(normalize_quats(quats[order]))
    rotation = round_to_bytes((components / (2 * SQRT_HALF) + 0.5) * 255)
    scale_codes, colour_codes = learn_codebook(log_scales), learn_codebook(sh[:, 0])
    scales, colours = find_nearest_code(scale_codes, log_scales[order]), find_nearest_code(colour_codes, sh[order, 0])
    images = {
        "means_l.webp": make_image(*(levels & 255).astype(np.uint8).T),
        "means_u.webp": make_image(*(levels >> 8).astype(np.uint8).T),
        "quats.webp": make_image(*rotation.T, (252 + largest).astype(np.uint8)),
        "scales.webp": make_image(*scales.T),
        "sh0.webp": make_image(*colours.T, quantize_opacities(logits[order])),
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
        sh_rest = torch.from_numpy(sh[order, 1:].reshape(count, -1))
        entries, labels = learn_palette(sh_rest, palette_entry_count(count), options.rounds)
        sh_codes, images[files[0]] = _palette_image(entries.numpy(), sh.shape[1] - 1)
        images[files[1]] = make_image(*_split_bytes(labels.numpy()), np.zeros(count, np.uint8))
        meta["shN"] = {
            "count": len(entries),
            "bands": asset.sh_degree,
            "codebook": sh_codes.tolist(),
            "files": files,
        }
    with ThreadPoolExecutor() as pool:  # the encoder releases Python's lock
        webp_files = dict(zip(images, pool.map(_encode_webp, images.values()), strict=True))
    with open_atomic(path) as stream, zipfile.ZipFile(stream, "w") as bundle:
        for name, data in {META_NAME: json.dumps(meta).encode(), **webp_files}.items():
            bundle.writestr(zipfile.ZipInfo(name), data)  # a fixed date (1980) makes the file reproducible


def image_size(count: int) -> tuple[int, int]:
    """Width and height: multiples of 4, nearly square, as in other writers of the format."""
    width = math.ceil(math.sqrt(count) / 4) * 4
    return width, math.ceil(count / width / 4) * 4 if count else 0


def palette_entry_count(count: int) -> int:
    """Palette size for a number of gaussians: the next lower power of two, as in other writers of the format."""
    return min(PALETTE_MAX_ENTRIES, 1 << (count.bit_length() - 1))


def _palette_image(entries: Floats, coefficients: int) -> tuple[Floats, Image.Image]:
    """(P, 3 * coefficients) entries -> their codebook, and an image with 64 entries a row."""
    codes = learn_codebook(entries)
    rows = -(-len(entries) // PALETTE_ROW_ENTRIES)
    pixels = np.zeros((rows * PALETTE_ROW_ENTRIES, coefficients, 3), np.uint8)
    pixels[: len(entries)] = find_nearest_code(codes, entries).reshape(-1, coefficients, 3)
    return codes, Image.fromarray(pixels.reshape(rows, PALETTE_ROW_ENTRIES * coefficients, 3))


def _split_bytes(labels: npt.NDArray[np.int64]) -> tuple[Bytes, Bytes]:
    return (labels & 255).astype(np.uint8), (labels >> 8).astype(np.uint8)


def _encode_webp(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    # exact: the colour of a pixel counts where its alpha is zero as well.
    image.save(stream, "WEBP", lossless=True, exact=True, method=WEBP_EFFORT, quality=50)
    return stream.getvalue()


# --- reading ---------------------------------------------------------------------------------------------------------

Load = Callable[[str, int], bytes]  # (file name, maximum bytes) -> content


def read(path: Path) -> Splats:
    """Read a `.sog`, a folder, or the `meta.json` in a folder, accurate to the quantization step.

    Checks the size in the header of each image before it is decoded. Raises FormatError for any other file.
    """
    path = Path(path)
    if path.is_dir() or path.name.lower() == META_NAME:
        folder = path if path.is_dir() else path.parent
        size = sum(file.stat().st_size for file in folder.glob("*") if file.is_file())
        return _read(_folder_loader(folder, META_NAME if path.is_dir() else path.name), size, folder / META_NAME)
    with open_for_read(path) as stream:
        try:
            with zipfile.ZipFile(stream) as bundle:
                return _read(_zip_loader(bundle, path), os.fstat(stream.fileno()).st_size, path)
        except (zipfile.BadZipFile, OSError, EOFError, zlib.error, ValueError, struct.error) as error:
            raise FormatError(f"{path}: cannot be read as the zip that SOG is ({error}); fetch it again") from error
        except (NotImplementedError, RuntimeError, OverflowError) as error:  # unknown compression, a password
            raise FormatError(f"{path}: an unsupported zip ({error}); zip it without special options") from error


def _folder_loader(folder: Path, meta: str) -> Load:
    def load(name: str, max_bytes: int) -> bytes:
        with open_for_read(folder / (meta if name == META_NAME else name)) as stream:
            return _read_limited(stream, folder / name, max_bytes)

    return load


def _zip_loader(bundle: zipfile.ZipFile, path: Path) -> Load:
    def load(name: str, max_bytes: int) -> bytes:
        try:
            entry = bundle.getinfo(name)
        except KeyError:
            raise FormatError(f"{path}: holds no {name}; it is not a SOG or was zipped wrongly") from None
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others decompress without bounds
            raise FormatError(f"{path}: {name} is compressed by a method that SOG does not allow; zip it again")
        with bundle.open(entry) as stream:
            return _read_limited(stream, Path(f"{path}:{name}"), max_bytes)

    return load


def _read_limited(stream: Any, path: Path, max_bytes: int) -> bytes:
    data: bytes = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise FormatError(f"{path}: more than {max_bytes} bytes, the limit for this SOG; the file is damaged")
    return data


@dataclass(frozen=True)
class _SogReader:
    """A SOG being read; `meta` is untrusted."""

    path: Path
    load: Load
    meta: dict[str, Any]
    count: int

    def part(self, name: str) -> dict[str, Any]:
        part = self.meta.get(name)
        if not isinstance(part, dict):
            raise self.error(f"no {name!r}")
        return part

    def error(self, reason: str) -> FormatError:
        return FormatError(f"{self.path}: {META_NAME} has {reason}, so it is not a supported SOG; save it again")

    def numbers(self, part: str, key: str, length: int) -> Floats:
        """(length,) finite numbers."""
        values_list = self.part(part).get(key)
        values_list = values_list if isinstance(values_list, list) else []
        if length == 256 and len(values_list) == 256 and values_list[0] is None:
            # A widespread writer left out the first code; extrapolate it by the spacing of the codes.
            values_list = [0, *values_list[1:]]
            if all(isinstance(value, int | float) for value in values_list):
                values_list[0] = values_list[1] + (values_list[1] - values_list[255]) / 255
        if len(values_list) != length or not all(type(value) in (int, float) for value in values_list):
            raise self.error(f"in {part!r} no {length} numbers {key!r}")
        try:
            numbers = np.array(values_list, np.float64)
        except OverflowError:
            numbers = np.full(length, np.inf)
        if not (np.abs(numbers) < 1e30).all():
            raise self.error(f"in {part!r} a {key!r} that is too large or not a number")
        return numbers.astype(np.float32)

    def image(self, part: str, name_part: str, index: int, width: int | None = None) -> Bytes:
        """(H, W, 4) pixels of the file whose name contains `name_part`, else of file `index`: writers differ in the
        order.

        Raises FormatError unless it has a pixel for each gaussian, or is `width` pixels wide.
        """
        files = self.part(part).get("files")
        if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
            raise self.error(f"in {part!r} no 'files'")
        matches = [name for name in files if name_part in name]
        if len(matches) != 1 and index >= len(files):
            raise self.error(f"in {part!r} too few 'files'")
        name = matches[0] if len(matches) == 1 else files[index]
        if not name or name in (".", "..") or any(mark in name for mark in "/\\:\0"):
            raise self.error(f"in {part!r} the file name {name[:60]!r}, which is not in the SOG")
        image_path = Path(f"{self.path}:{name}")
        # Incompressible data takes a little more than its size.
        max_bytes = (
            self.count * 5 + FREE_GAUSSIANS
            if width is None
            else PALETTE_MAX_ENTRIES // PALETTE_ROW_ENTRIES * width * 5 + FREE_GAUSSIANS
        )
        data = self.load(name, max_bytes)
        size = _webp_size(data, image_path)
        if width is None and not self.count <= size[0] * size[1] <= 2 * self.count + FREE_GAUSSIANS:
            raise FormatError(
                f"{image_path}: {size[0]} x {size[1]} pixels for {self.count} gaussians; the file is damaged"
            )
        if width is not None and (size[0] != width or size[1] > PALETTE_MAX_ENTRIES // PALETTE_ROW_ENTRIES):
            raise FormatError(
                f"{image_path}: {size[0]} x {size[1]} pixels for a palette {width} wide; the file is damaged"
            )
        return _decode_pixels(data, size, image_path)

    def pixels(self, part: str, name_part: str = "", index: int = 0) -> Bytes:
        """(N, 4), a row for each gaussian."""
        return self.image(part, name_part, index).reshape(-1, 4)[: self.count]


def _read(load: Load, size: int, path: Path) -> Splats:
    """Decode a SOG. `size` is the size of all its data in bytes."""
    try:
        meta = json.loads(load(META_NAME, META_MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: {META_NAME} is not JSON ({str(error)[:80]}); fetch it again") from error
    sog = _SogReader(path, load, meta if isinstance(meta, dict) else {}, 0)
    version = sog.meta.get("version", 1)
    if version not in (1, 2):
        raise sog.error(f"the version {str(version)[:20]}, but 2 is supported,")
    shape = sog.part("means").get("shape") if version == 1 else [sog.meta.get("count")]
    count = shape[0] if isinstance(shape, list) and shape else None
    if type(count) is not int or not 0 < count <= WEBP_MAX_SIDE_PX**2:
        raise sog.error("no count of gaussians")
    if count > GAUSSIANS_PER_BYTE * size + FREE_GAUSSIANS:
        raise sog.error(f"{count} gaussians, which no SOG of {size} bytes holds,")
    sog = _SogReader(path, load, sog.meta, count)
    means_low, means_high = sog.pixels("means", "_l", 0), sog.pixels("means", "_u", 1)
    means = _means(sog, means_low, means_high)
    del means_low, means_high
    rotation_pixels = sog.pixels("quats")
    # Alpha below 252 is not an index; other readers use the identity rotation.
    components = (rotation_pixels[:, :3] * np.float32(2 / 255) - 1) * np.float32(SQRT_HALF)
    quats = restore_largest(np.maximum(rotation_pixels[:, 3], 252) - 252, components)
    quats[rotation_pixels[:, 3] < 252] = (1, 0, 0, 0)
    decode = _decode_by_codebook if version == 2 else _decode_by_bounds
    log_scales = decode(sog, "scales", sog.pixels("scales")[:, :3])
    if log_scales.max() > MAX_LOG_SCALE:
        raise sog.error(f"scales above e^{MAX_LOG_SCALE:.0f}")
    colours = sog.pixels("sh0")
    if version == 2:
        dc, logits = decode(sog, "sh0", colours[:, :3]), OPACITY_LOGITS[colours[:, 3]]
    else:
        dc, logits = np.split(decode(sog, "sh0", colours), [3], axis=1)
        logits = np.ascontiguousarray(logits[:, 0])
    sh_rest = _read_sh_rest(sog, version) if sog.meta.get("shN") is not None else np.empty((count, 0, 3), np.float32)
    return splats_from_arrays(means, log_scales, quats, logits, np.concatenate([dc[:, None], sh_rest], axis=1))


def _means(sog: _SogReader, low: Bytes, high: Bytes) -> Floats:
    first, last = (sog.numbers("means", key, 3).astype(np.float64) for key in ("mins", "maxs"))
    if max(np.abs(first).max(), np.abs(last).max()) > MAX_LOG_POSITION:
        raise sog.error(f"positions beyond e^{MAX_LOG_POSITION:.0f}")
    fraction = (low[:, :3] + high[:, :3].astype(np.float32) * 256) / 65535
    logs = first + (last - first) * fraction
    values: Floats = (np.sign(logs) * np.expm1(np.abs(logs))).astype(np.float32)
    return values


def _decode_by_codebook(sog: _SogReader, part: str, pixels: Bytes) -> Floats:
    return sog.numbers(part, "codebook", 256)[pixels]


def _decode_by_bounds(sog: _SogReader, part: str, pixels: Bytes) -> Floats:
    low, high = (sog.numbers(part, key, pixels.shape[-1]) for key in ("mins", "maxs"))
    values: Floats = (low + (high - low) * (pixels / 255)).astype(np.float32)
    return values


def _read_sh_rest(sog: _SogReader, version: int) -> Floats:
    """(N, coefficients, 3) SH coefficients above DC."""
    bands = sog.part("shN").get("bands")
    if version == 1:
        raise sog.error("SH coefficients of version 1, which are not supported")
    if type(bands) is not int or not 1 <= bands <= 3:
        raise sog.error("in 'shN' no 'bands' from 1 to 3")
    coefficients = SH_REST_COEFFICIENTS[bands]
    pixels = sog.image("shN", "centroids", 0, PALETTE_ROW_ENTRIES * coefficients)[..., :3]
    entries = _decode_by_codebook(sog, "shN", pixels.reshape(-1, coefficients, 3))
    label_pixels = sog.pixels("shN", "labels", 1)
    labels = label_pixels[:, 0] | label_pixels[:, 1].astype(np.int64) << 8
    if labels.max() >= len(entries):
        raise sog.error(f"a palette of {len(entries)} entries, where gaussians name entry {labels.max()}")
    values: Floats = entries[labels]
    return values


def _webp_size(data: bytes, path: Path) -> tuple[int, int]:
    """Width and height from the header, without decoding (developers.google.com/speed/webp/docs/riff_container)."""
    chunk_type, body = data[12:16], data[20:30]
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(body) < 10:
        raise FormatError(f"{path}: not a WebP image; it was cut short or damaged, fetch it again")
    if chunk_type == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk_type == b"VP8X" and not body[0] & 2:  # the animation flag
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    raise FormatError(f"{path}: a lossy or animated WebP, whose pixels are not exact; save it lossless")


def _decode_pixels(data: bytes, size: tuple[int, int], path: Path) -> Bytes:
    """(H, W, 4) decoded pixels."""
    try:
        with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
            if image.size != size:
                raise FormatError(f"{path}: its two sizes differ; it is damaged, fetch it again")
            return np.asarray(image.convert("RGBA"))
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise FormatError(f"{path}: the image cannot be decoded ({error}); fetch it again") from error
