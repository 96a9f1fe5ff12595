"""Scenes larger than memory: gaussians or points in batches, one after the other, as often as they are asked for.

A format that can has two more functions. `stream(path) -> Stream` judges what a file announces, and reads the rows as
the batches are pulled; `read` is all of them in one. `write_stream(stream, path, options) -> Iterator[float]` writes
them while it is pulled, and yields the share that is done; `write` pulls it for a scene in memory.
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

BATCH_ROWS = 1 << 14  # of a batch: what is computed of them stays in the cache
CHANGED = "the file that they come from changed while it was read, try again"
OUTERMOST = 500  # one in so many gaussians at each end of an axis may lie anywhere


@dataclass(frozen=True)
class Extent:
    """Where a scene lies; zeros where there is nothing."""

    bounds: Tensor  # (2, 3) float32: smallest and largest coordinates
    inner: Tensor  # (2, 3) float32: the same without the outermost gaussians


@dataclass(eq=False)
class Stream:
    """A scene in batches. `template` has no rows: it tells the kind and the attributes of all of them."""

    template: Batch
    count: int
    batches: Callable[[], Iterator[Batch]]
    asset: Batch | None = None  # all of it, where it lies in memory anyway
    _extent: Extent | None = field(default=None, init=False)

    @staticmethod
    def from_asset(asset: Any) -> Stream:
        """A scene in memory. A mesh has no batches, and is for the writer to refuse, who knows what to name instead."""
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
        """The batches; whoever pulls all of them leaves the extent known."""
        if self._extent is not None:
            yield from self.batches()
            return
        extremes = _Extremes(self.count // OUTERMOST if isinstance(self.template, Splats) else 0)
        for batch in self.batches():
            extremes.add(positions_of(batch))
            yield batch
        self._extent = extremes.extent()

    def iterate_progress(self) -> Iterator[float]:
        """A whole pass, as the share of it that is done."""
        return _shares(self, self.count)

    @property
    def has_extent(self) -> bool:
        return self._extent is not None

    @property
    def extent(self) -> Extent:
        """Takes a pass over all batches unless there was one. Raises FormatError."""
        if self._extent is None:
            drain(self.iterate_progress())
        assert self._extent is not None
        return self._extent

    def map_batches(self, change: BatchTransform, count: int | None = None) -> Stream:
        """Each batch changed; `count` where rows are left out."""
        if self.asset is not None:
            return Stream.from_asset(change(self.asset))
        count = self.count if count is None else count
        return Stream(change(self.template), count, lambda: filter(len, map(change, self.batches())))

    def gather(self) -> Any:
        """All of it in memory: the result, and one batch more. Raises FormatError."""
        if self.asset is not None:
            return self.asset
        like = {name: value for name, value in vars(self.template).items() if value is not None}
        made = {name: torch.empty((self.count, *value.shape[1:]), dtype=value.dtype) for name, value in like.items()}
        first = 0
        for batch in self.batches():
            first += len(batch)
            if first <= self.count:
                for name, tensor in made.items():
                    tensor[first - len(batch) : first] = getattr(batch, name)
        if first != self.count:
            raise FormatError(f"{first} rows came where {self.count} were announced; {CHANGED}")
        return type(self.template)(**made)


# --- of a batch ------------------------------------------------------------------------------------------------------


def empty_splats(degree: int) -> Splats:
    zeros = [torch.zeros(0, *shape) for shape in ((3,), (3,), (4,), (), ((degree + 1) ** 2, 3))]
    return Splats(*zeros)


def empty_points(coloured: bool, normals: bool) -> Points:
    nowhere = torch.zeros(0, 3)
    return Points(nowhere, nowhere.to(torch.uint8) if coloured else None, nowhere if normals else None)


def select_rows(batch: Batch, which: Any) -> Any:
    """Those of `which`: a slice, which copies nothing, or indices."""
    return type(batch)(**{name: value[which] for name, value in vars(batch).items() if value is not None})


def positions_of(batch: Batch) -> Array:
    """(N, 3) float32 the coordinates."""
    return to_numpy(batch.means if isinstance(batch, Splats) else batch.xyz)


def drop_sh_rest(batch: Batch) -> Batch:
    """Gaussians with one colour from all sides."""
    assert isinstance(batch, Splats)
    return Splats(batch.means, batch.log_scales, batch.quats, batch.logit_opacities, batch.sh[:, :1])


def drop_normals(batch: Batch) -> Batch:
    assert isinstance(batch, Points)
    return Points(batch.xyz, batch.rgb)


# --- of all of them --------------------------------------------------------------------------------------------------


def drain(shares: Iterable[float]) -> None:
    """Do all of a work that is done while it is pulled."""
    for _ in shares:
        pass


def check_rows(judged: Iterable[tuple[Any, Array]], error: Callable[[int, int], FormatError]) -> Iterator[Any]:
    """The batches of (batch, (N,) which of its rows are broken). At the first broken one the rest is counted, and
    `error` gets how many there are and which is the first."""
    judged, first = iter(judged), 0
    for batch, broken in judged:
        if broken.any():
            raise error(int(broken.sum()) + sum(int(other.sum()) for _, other in judged), first + int(broken.argmax()))
        first += len(broken)
        yield batch


def find_nonfinite(*columns: Array) -> Array:
    """(N,) bool: which rows hold NaN or infinity."""
    broken = np.zeros(len(columns[0]), bool)
    for values in columns:
        if not (finite := np.isfinite(values)).all():
            broken |= ~finite.reshape(len(values), -1).all(axis=1)
    return broken


def check_splats(stream: Stream, path: Path, form: str) -> None:
    """Raises FormatError for a stream of anything else."""
    if not isinstance(stream.template, Splats):
        raise FormatError(f"{path}: {form} holds gaussians and no plain points or meshes; choose .ply or .glb")


def check_batches(stream: Stream, path: Path, less: BatchTransform | None = None) -> Iterator[Any]:
    """The batches to write, or what `less` leaves of them. Raises FormatError where rows hold NaN or infinity, since
    nobody could read them back, and where more or fewer come than were announced."""
    noun, count = ("gaussians" if isinstance(stream.template, Splats) else "points"), 0

    def broken(bad: int, first: int) -> FormatError:
        return FormatError(
            f"{path}: not written, because {bad} of {stream.count} {noun} hold NaN or infinity (the first is number"
            f" {first}); remove them first"
        )

    judged = ((batch, find_nonfinite(*_numbers(batch))) for batch in (map(less, stream) if less else stream))
    for batch in check_rows(judged, broken):
        count += len(batch)
        yield batch
    if count != stream.count:
        raise FormatError(
            f"{path}: not written, because {count} {noun} came where {stream.count} were announced; {CHANGED}"
        )


def measure_extent(stream: Stream, path: Path, less: BatchTransform | None = None) -> Iterator[float]:
    """A pass over what is to be written, for its extent, unless that is known. Raises as `check_batches` does."""
    return iter(()) if stream.has_extent else _shares(check_batches(stream, path, less), stream.count)


class TopK:
    """The `k` largest of values that come in pieces. What is kept is no more than twice as many, and a piece."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._kept = np.empty(0, np.float32)
        self._least = -np.inf  # k are known that are no smaller

    def add(self, values: Array) -> None:
        self._kept = np.concatenate([self._kept, values[values > self._least]])
        if len(self._kept) >= 2 * self._k:
            self._shrink()

    def ends(self) -> tuple[float, float]:
        """The largest, and the least of the k, or of all where there are fewer; zeros of none."""
        self._shrink()
        return (float(self._kept.max()), float(self._kept.min())) if len(self._kept) else (0.0, 0.0)

    def _shrink(self) -> None:
        if len(self._kept) > self._k:
            self._kept = np.partition(self._kept, len(self._kept) - self._k)[-self._k :]
            self._least = self._kept[0]


def compute_medians(columns: Callable[[], Iterator[tuple[Array, ...]]], count: int) -> list[float]:
    """The lower medians of columns of `count` > 0 float32 values, exactly, in two passes over them: their order is that
    of their bits, once those of negative ones are turned over. The first pass finds the upper half of the bits, the
    second the lower."""
    found: list[_Rank] = []
    for values in columns():
        found = found or [_Rank((count - 1) // 2) for _ in values]
        for rank, column in zip(found, values, strict=True):
            rank.count(_sortable(column) >> 16)
    for rank in found:
        rank.narrow()
    for values in columns():
        for rank, column in zip(found, values, strict=True):
            bits = _sortable(column)
            rank.count(bits[bits >> 16 == rank.bits] & 0xFFFF)
    for rank in found:
        rank.narrow()
    return [rank.value() for rank in found]


def _sortable(values: Array) -> npt.NDArray[np.uint32]:
    """float32 -> whole numbers in the same order."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


class _Rank:
    """The number at a place in the order of all, 16 bits at a time."""

    def __init__(self, place: int) -> None:
        self._place = place
        self._counts = np.zeros(1 << 16, np.int64)
        self.bits = 0  # as far as they are known

    def count(self, halves: Array) -> None:
        self._counts += np.bincount(halves, minlength=1 << 16)

    def narrow(self) -> None:
        below = self._counts.cumsum()
        half = int(np.searchsorted(below, self._place, side="right"))
        self._place -= int(below[half] - self._counts[half])
        self._counts = np.zeros_like(self._counts)
        self.bits = self.bits << 16 | half

    def value(self) -> float:
        bits = self.bits & 0x7FFFFFFF if self.bits >> 31 else ~self.bits & 0xFFFFFFFF
        return float(np.uint32(bits).view(np.float32))


class _Extremes:
    """Of each axis the largest and the smallest, and those behind `cut` others."""

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


def _shares(batches: Iterable[Batch], count: int) -> Iterator[float]:
    done = 0
    for batch in batches:
        done += len(batch)
        yield done / max(count, 1)


def _numbers(batch: Batch) -> list[Array]:
    return [to_numpy(value) for value in vars(batch).values() if value is not None and value.is_floating_point()]
