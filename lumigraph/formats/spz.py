"""SPZ, the packed gaussians of Niantic (github.com/nianticlabs/spz, MIT), version 2: a tenth of a PLY, for the web.

A gzip stream of a header of 16 bytes (magic "NGSP", version, count, degree of the harmonics, fractional bits, flags,
zero; little-endian) and then one attribute of all gaussians after the other:

* positions, 3 x 24-bit fixed point with `fractional bits` after the point
* alphas, a byte: the sigmoid of the logit * 255
* colours, 3 bytes: (0.15 * DC + 0.5) * 255
* scales, 3 bytes: (natural log + 10) * 16, so from 4.5e-5 to 379 units in steps of 6 %
* rotations, 3 bytes: x y z of the unit quaternion with w >= 0, v * 127.5 + 127.5
* harmonics above DC, a byte each: v * 128 + 128, coefficient by coefficient with red green blue inside

The axes are those of the scene, as in our PLY. Niantic's own programs take a file to be right-up-back, but readers for
the web (Spark, gsply) show positions as they stand, of SPZ as of PLY: converted, the two files of one scene would lie
apart in them.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.files import written_beside

SUFFIXES = (".spz",)

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

MAGIC, VERSION = 0x5053474E, 2
HEADER = struct.Struct("<IIIBBBB")
LEVEL = 1  # of gzip: higher ones take longer and gain little on such bytes
FEWEST_BITS, MOST_BITS = 4, 16  # after the point: steps of 1/16 to 1/65536 of a unit
LARGEST = 2**23 - 1  # of a 24-bit number
OUTLIERS = 0.001  # the share of gaussians, far away, that must not cost all others their precision
COLOUR_SCALE = 0.15
# Of a byte of the harmonics, as in the reference: what is finer is not seen, and does not compress.
FIRST_STEP, OTHER_STEP = 8, 16
MOST = 1 << 26  # gaussians that are read: their header alone must not take all memory


def write(asset: Splats | Points, path: Path) -> None:
    """Write atomically: `path` is complete or untouched.

    What does not fit is clipped: gaussians farther than 2^23 steps, for which the steps are widened unless they are a
    few outliers. Raises FormatError for points, for NaN and infinity, and when the disk refuses.
    """
    path = Path(path)
    if not isinstance(asset, Splats):
        raise FormatError(f"{path}: SPZ holds gaussians and no plain points; choose a .ply for them")
    parts = [_array(tensor) for tensor in (asset.means, asset.log_scales, asset.quats, asset.logit_opacities, asset.sh)]
    if any(not np.isfinite(part).all() for part in parts):
        raise FormatError(f"{path}: not written, because some gaussians hold NaN or infinity; remove them first")
    means, log_scales, quats, logits, sh = parts
    bits = fractional_bits(means)
    header = HEADER.pack(MAGIC, VERSION, len(asset), asset.sh_degree, bits, 0, 0)
    body = [
        _positions(means, bits),
        _bytes(255 / (1 + np.exp(-logits.clip(-80, 80)))),
        _bytes((sh[:, 0] * COLOUR_SCALE + 0.5) * 255),
        _bytes((log_scales + 10) * 16),
        _rotations(quats),
        _harmonics(sh[:, 1:]),
    ]
    try:
        with written_beside(path) as stream:
            stream.write(gzip.compress(header + b"".join(part.tobytes() for part in body), LEVEL, mtime=0))
    except OSError as error:
        reason = error.strerror or error
        raise FormatError(f"{path}: not written ({reason}); free some space or choose another folder") from error


def fractional_bits(means: Floats) -> int:
    """The most at which all of `means` (N, 3) fit, or all but a few outliers where these would leave fewer than 12."""
    far = np.abs(means).max(axis=1, initial=0.0)
    bits = _bits_for(float(far.max(initial=0.0)))
    if bits < 12:
        bits = min(12, _bits_for(float(np.quantile(far, 1 - OUTLIERS))))
    return bits


def _bits_for(reach: float) -> int:
    if reach <= 0:
        return MOST_BITS
    return min(max(math.floor(math.log2(LARGEST / reach)), FEWEST_BITS), MOST_BITS)


def _positions(means: Floats, bits: int) -> Bytes:
    """(N, 3) -> (N, 3, 3): the three low bytes of little-endian integers."""
    fixed = np.rint(means.astype(np.float64) * 2**bits).clip(-LARGEST, LARGEST).astype("<i4")
    return np.ascontiguousarray(fixed).view(np.uint8).reshape(-1, 3, 4)[:, :, :3]


def _rotations(quats: Floats) -> Bytes:
    """(N, 4) w x y z of any length -> (N, 3).

    A gaussian turned by half a turn about one of its own axes is the same gaussian, and that moves each component of
    its quaternion to w in turn. The largest goes there: w is not stored, and what is computed of the others is poor
    where it is small.
    """
    unit = quats / np.maximum(np.linalg.norm(quats, axis=1, keepdims=True), 1e-30)
    w, x, y, z = unit.T
    same = np.array([[w, x, y, z], [-x, w, z, -y], [-y, -z, w, x], [-z, y, -x, w]])  # q, qi, qj, qk
    chosen = same[np.abs(unit).argmax(axis=1), :, np.arange(len(unit))]
    chosen = np.where(chosen[:, :1] < 0, -chosen, chosen)
    return _bytes(chosen[:, 1:] * 127.5 + 127.5)


def _harmonics(rest: Floats) -> Bytes:
    """(N, K - 1, 3) -> the same shape."""
    step = np.where(np.arange(rest.shape[1]) < 3, FIRST_STEP, OTHER_STEP)[None, :, None]
    return _bytes(128 + np.rint(rest * (128 / step)) * step)


def _bytes(values: npt.NDArray[Any]) -> Bytes:
    rounded: Bytes = np.rint(values).clip(0, 255).astype(np.uint8)
    return rounded


def _array(tensor: torch.Tensor) -> Floats:
    return tensor.detach().to("cpu", torch.float32).numpy()


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> Splats:
    """The gaussians of a file of version 2, within its quantisation. Raises FormatError for anything else.

    No more is unpacked than the header announces.
    """
    path = Path(path)
    try:
        with gzip.open(path) as stream:
            head = stream.read(HEADER.size)
            if len(head) < HEADER.size:
                raise FormatError(f"{path}: no SPZ file: it ends inside its header")
            magic, version, count, degree, bits, _, _ = HEADER.unpack(head)
            if magic != MAGIC or version != VERSION or degree > 3 or bits > 24 or count > MOST:
                raise FormatError(f"{path}: no SPZ file of version 2, which alone is read; save it as a PLY")
            others = 3 * ((degree + 1) ** 2 - 1)
            sizes = [9, 1, 3, 3, 3, others]
            body = stream.read(count * sum(sizes))
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path}: cannot be read as SPZ ({error}); fetch it again") from error
    if len(body) < count * sum(sizes):
        raise FormatError(f"{path}: the file ends before its {count} gaussians do; it was cut short, fetch it again")
    starts = np.cumsum([0, *sizes]) * count
    parts = [
        np.frombuffer(body, np.uint8)[a:b].reshape(count, size)
        for a, b, size in zip(starts[:-1], starts[1:], sizes, strict=True)
    ]
    fixed = np.zeros((count, 3, 4), np.uint8)
    fixed[:, :, 1:] = parts[0].reshape(count, 3, 3)
    means = (fixed.view("<i4")[:, :, 0] >> 8) / 2**bits
    alphas = parts[1][:, 0].clip(0.5, 254.5) / 255
    xyz = parts[4] / 127.5 - 1
    w = np.sqrt((1 - (xyz**2).sum(axis=1, keepdims=True)).clip(min=0))
    dc = (parts[2] / 255 - 0.5) / COLOUR_SCALE
    rest = (parts[5].astype(np.float32) - 128) / 128
    return Splats(
        means=_tensor(means),
        log_scales=_tensor(parts[3] / 16 - 10),
        quats=_tensor(np.concatenate([w, xyz], axis=1)),
        logit_opacities=_tensor(np.log(alphas / (1 - alphas))),
        sh=_tensor(np.concatenate([dc, rest], axis=1).reshape(count, (degree + 1) ** 2, 3)),
    )


def _tensor(values: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
