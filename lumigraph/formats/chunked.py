"""Scenes larger than memory: a stream of batches of gaussians or points, which can be read repeatedly.

A format that supports streams has two more functions. `stream(path) -> Stream` checks the header and reads rows as the
batches are pulled; `read` gathers all of them. `write_stream(stream, path, options) -> Iterator[float]` writes while it
is pulled and yields the fraction completed; `write` drains it for a scene in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lumigraph.formats.io import Array, to_numpy
from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.errors import FormatError

Batch = Splats | Points
BatchTransform = Callable[[Batch], Batch]

BATCH_ROWS = 1 << 14  # small enough that intermediate results stay in the cache
CHANGED_FILE_HINT = "the file that they come from changed while it was read, try again"
OUTLIER_DIVISOR = 500  # `Extent.inner` leaves out 1 / 500 of the gaussians at each end of an axis


@dataclass(frozen=True)
class Extent:
    """Bounds of a scene; zeros for an empty scene."""

    bounds: Tensor  # (2, 3) float32: smallest and largest coordinates
    inner: Tensor  # (2, 3) float32: the same without outlying gaussians


@dataclass(eq=False)
class Stream:
    """A scene in batches. `template` is an empty batch with the type and the attributes of all batches."""

    template: Batch
    count: int
    batches: Callable[[], Iterator[Batch]]
    asset: Batch | None = None  # the whole scene, if it is in memory
    _extent: Extent | None = field(default=None, init=False)

    @staticmethod
    def from_asset(asset: Any) -> Stream:
        """Wrap a scene in memory. A mesh gets no batches: the writer rejects it and names a suitable format."""
        if not isinstance(asset, Splats | Points):
            return Stream(asset, len(asset), lambda: iter(()))
        plain = asset if isinstance(asset, Splats) else Points(asset.xyz, asset.rgb, asset.normals)
        starts = range(0, len(asset), BATCH_ROWS)
        return Stream(
            select_rows(plain, slice(0)),
            len(plain),
            lambda: (select_rows(plain, slice(i, i + BATCH_ROWS)) for i in starts),
            plain,
        )

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches. A complete pass also computes the extent."""
        if self._extent is not None:
            yield from self.batches()
            return
        extremes = _Extremes(self.count // OUTLIER_DIVISOR if isinstance(self.template, Splats) else 0)
        for batch in self.batches():
            extremes.add(positions_of(batch))
            yield batch
        self._extent = extremes.extent()

    def iterate_progress(self) -> Iterator[float]:
        """Read all batches; yields the fraction completed."""
        return _iterate_fractions(self, self.count)

    @property
    def has_extent(self) -> bool:
        return self._extent is not None

    @property
    def extent(self) -> Extent:
        """Bounds of the scene; reads all batches if they are not known yet. Raises FormatError."""
        if self._extent is None:
            drain(self.iterate_progress())
        assert self._extent is not None
        return self._extent

    def map_batches(self, transform: BatchTransform, count: int | None = None) -> Stream:
        """Apply `transform` to each batch. `count` is the new number of rows if it drops any."""
        if self.asset is not None:
            return Stream.from_asset(transform(self.asset))
        count = self.count if count is None else count
        return Stream(transform(self.template), count, lambda: filter(len, map(transform, self.batches())))

    def gather(self) -> Any:
        """Load the whole scene. Peak memory: the result and one batch. Raises FormatError."""
        if self.asset is not None:
            return self.asset
        template = {name: value for name, value in vars(self.template).items() if value is not None}
        columns = {name: torch.empty((self.count, *v.shape[1:]), dtype=v.dtype) for name, v in template.items()}
        row_count = 0
        for batch in self.batches():
            row_count += len(batch)
            if row_count <= self.count:
                for name, tensor in columns.items():
                    tensor[row_count - len(batch) : row_count] = getattr(batch, name)
        if row_count != self.count:
            raise FormatError(f"{row_count} rows came where {self.count} were announced; {CHANGED_FILE_HINT}")
        return type(self.template)(**columns)


# --- one batch -------------------------------------------------------------------------------------------------------


def empty_splats(degree: int) -> Splats:
    zeros = [torch.zeros(0, *shape) for shape in ((3,), (3,), (4,), (), ((degree + 1) ** 2, 3))]
    return Splats(*zeros)


def empty_points(has_colours: bool, normals: bool) -> Points:
    no_rows = torch.zeros(0, 3)
    return Points(no_rows, no_rows.to(torch.uint8) if has_colours else None, no_rows if normals else None)


def select_rows(batch: Batch, indices: Any) -> Any:
    """Select rows of a batch by a slice (no copy) or by indices."""
    return type(batch)(**{name: value[indices] for name, value in vars(batch).items() if value is not None})


def positions_of(batch: Batch) -> Array:
    """(N, 3) float32 coordinates of a batch."""
    return to_numpy(batch.means if isinstance(batch, Splats) else batch.xyz)


def drop_sh_rest(batch: Batch) -> Batch:
    """Keep only the DC coefficients: one colour from all directions."""
    assert isinstance(batch, Splats)
    return Splats(batch.means, batch.log_scales, batch.quats, batch.logit_opacities, batch.sh[:, :1])


def drop_normals(batch: Batch) -> Batch:
    assert isinstance(batch, Points)
    return Points(batch.xyz, batch.rgb)


# --- all batches -----------------------------------------------------------------------------------------------------


def drain(fractions: Iterable[float]) -> None:
    """Run a generator of fractions to its end."""
    for _ in fractions:
        pass


def check_rows(
    checked_batches: Iterable[tuple[Any, Array]], make_error: Callable[[int, int], FormatError]
) -> Iterator[Any]:
    """Yield the batches of pairs (batch, (N,) bool mask of bad rows).

    At the first bad row, counts the bad rows of all remaining batches and raises make_error(count, first row).
    """
    checked_batches, row_count = iter(checked_batches), 0
    for batch, is_bad in checked_batches:
        if is_bad.any():
            bad_count = int(is_bad.sum()) + sum(int(mask.sum()) for _, mask in checked_batches)
            raise make_error(bad_count, row_count + int(is_bad.argmax()))
        row_count += len(is_bad)
        yield batch


def find_nonfinite(*columns: Array) -> Array:
    """(N,) bool mask of the rows that hold NaN or infinity."""
    is_bad = np.zeros(len(columns[0]), bool)
    for values in columns:
        if not (finite := np.isfinite(values)).all():
            is_bad |= ~finite.reshape(len(values), -1).all(axis=1)
    return is_bad


def check_splats(stream: Stream, path: Path, format_name: str) -> None:
    """Raises FormatError unless the stream holds gaussians."""
    if not isinstance(stream.template, Splats):
        raise FormatError(f"{path}: {format_name} holds gaussians and no plain points or meshes; choose .ply or .glb")


def check_batches(stream: Stream, path: Path, transform: BatchTransform | None = None) -> Iterator[Any]:
    """Yield the batches to write, each changed by `transform` if given.

    Raises FormatError if rows hold NaN or infinity, which no reader accepts, or if the number of rows is not
    `stream.count`.
    """
    noun, count = ("gaussians" if isinstance(stream.template, Splats) else "points"), 0

    def make_error(bad: int, first: int) -> FormatError:
        return FormatError(
            f"{path}: not written, because {bad} of {stream.count} {noun} hold NaN or infinity (the first is number"
            f" {first}); remove them first"
        )

    checked_batches = (
        (batch, find_nonfinite(*_numbers(batch))) for batch in (map(transform, stream) if transform else stream)
    )
    for batch in check_rows(checked_batches, make_error):
        count += len(batch)
        yield batch
    if count != stream.count:
        raise FormatError(
            f"{path}: not written, because {count} {noun} came where {stream.count} were announced; {CHANGED_FILE_HINT}"
        )


def measure_extent(stream: Stream, path: Path, transform: BatchTransform | None = None) -> Iterator[float]:
    """Compute the extent before writing; yields the fraction completed. Raises FormatError as `check_batches` does."""
    return iter(()) if stream.has_extent else _iterate_fractions(check_batches(stream, path, transform), stream.count)


class TopK:
    """The `k` largest of values that come in parts. Keeps at most 2 k values and one part in memory."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._values = np.empty(0, np.float32)
        self._threshold = -np.inf  # at least k of the values so far are not smaller

    def add(self, values: Array) -> None:
        self._values = np.concatenate([self._values, values[values > self._threshold]])
        if len(self._values) >= 2 * self._k:
            self._shrink()

    def ends(self) -> tuple[float, float]:
        """(largest, smallest) of the k largest values, or of all if there are fewer; zeros if there are none."""
        self._shrink()
        return (float(self._values.max()), float(self._values.min())) if len(self._values) else (0.0, 0.0)

    def _shrink(self) -> None:
        if len(self._values) > self._k:
            self._values = np.partition(self._values, len(self._values) - self._k)[-self._k :]
            self._threshold = self._values[0]


def compute_medians(columns: Callable[[], Iterator[tuple[Array, ...]]], count: int) -> list[float]:
    """Exact lower medians of float32 columns with `count` > 0 rows, in two passes.

    The order of floats is the order of their bits after the bits of negative floats are inverted. The first pass finds
    the upper 16 bits of each median, the second the lower 16.
    """
    ranks: list[_Rank] = []
    for values in columns():
        ranks = ranks or [_Rank((count - 1) // 2) for _ in values]
        for rank, column in zip(ranks, values, strict=True):
            rank.count(_to_ordered_bits(column) >> 16)
    for rank in ranks:
        rank.narrow()
    for values in columns():
        for rank, column in zip(ranks, values, strict=True):
            bits = _to_ordered_bits(column)
            rank.count(bits[bits >> 16 == rank.bits] & 0xFFFF)
    for rank in ranks:
        rank.narrow()
    return [rank.value() for rank in ranks]


def _to_ordered_bits(values: Array) -> npt.NDArray[np.uint32]:
    """float32 -> uint32 in the same order."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


class _Rank:
    """Selects the number at a position in sorted order, 16 bits at a time."""

    def __init__(self, position: int) -> None:
        self._position = position
        self._counts = np.zeros(1 << 16, np.int64)
        self.bits = 0  # the bits determined so far

    def count(self, halves: Array) -> None:
        self._counts += np.bincount(halves, minlength=1 << 16)

    def narrow(self) -> None:
        cumulative = self._counts.cumsum()
        half = int(np.searchsorted(cumulative, self._position, side="right"))
        self._position -= int(cumulative[half] - self._counts[half])
        self._counts = np.zeros_like(self._counts)
        self.bits = self.bits << 16 | half

    def value(self) -> float:
        bits = self.bits & 0x7FFFFFFF if self.bits >> 31 else ~self.bits & 0xFFFFFFFF
        return float(np.uint32(bits).view(np.float32))


class _Extremes:
    """Largest and smallest coordinates of each axis, with and without the `cut` outermost ones."""

    def __init__(self, cut: int) -> None:
        self._ends = [[TopK(cut + 1) for _ in range(3)] for _ in range(2)]

    def add(self, xyz: Array) -> None:
        for sign, axes in zip((-1, 1), self._ends, strict=True):
            for i, axis in enumerate(axes):
                axis.add(sign * xyz[:, i])

    def extent(self) -> Extent:
        low, high = (torch.tensor([axis.ends() for axis in axes]).T for axes in self._ends)
        outer, inner = torch.stack([0 - low, high], dim=1)
        return Extent(outer, inner)


def _iterate_fractions(batches: Iterable[Batch], count: int) -> Iterator[float]:
    row_count = 0
    for batch in batches:
        row_count += len(batch)
        yield row_count / max(count, 1)


def _numbers(batch: Batch) -> list[Array]:
    return [to_numpy(value) for value in vars(batch).values() if value is not None and value.is_floating_point()]
