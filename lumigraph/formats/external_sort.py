"""Rows in an order that concerns all of them, of scenes larger than memory: runs that fit are sorted and laid down
beside the file that is written, and then merged (Knuth 1973, "The Art of Computer Programming" 3, 5.4). Equal keys stay
in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from lumigraph.formats.chunked import BATCH_ROWS, Batch, BatchTransform, Stream, check_batches, select_rows
from lumigraph.formats.io import Array, to_numpy, to_tensor

RUN_BYTES = 1 << 24  # of a run while it is sorted
HEAD_BYTES = 1 << 23  # of all runs together while they are merged

Key = Callable[[Batch], Array]  # (N,) of any number type


class ExternalSort:
    """The rows of a stream, or what `less` leaves of them, by their keys: first `collect`, then iterate. Runs are laid
    down in `beside`; `path` is what errors name."""

    def __init__(
        self, stream: Stream, key: Key, path: Path, beside: IO[bytes], less: BatchTransform | None = None
    ) -> None:
        self._stream, self._key, self._path, self._beside, self._less = stream, key, path, beside, less
        self._runs: list[int] = []  # rows of each that were laid down
        self._run: Array = np.empty(0)

    def collect(self) -> Iterator[float]:
        """Take all rows; yields the share that is done. Raises FormatError as `check_batches` does."""
        filled, done = 0, 0
        for batch in check_batches(self._stream, self._path, self._less):
            done += len(batch)
            yield done / self._stream.count
            if self._stream.asset is not None:
                continue  # it lies in memory, and is sorted there
            keys = self._key(batch)
            if not len(self._run):
                self._run = self._room(batch, keys)
            first = 0
            while first < len(keys):
                if filled == len(self._run):
                    self._lay_down()
                    filled = 0
                part = slice(first, first + len(self._run) - filled)
                here = self._run[filled : filled + len(keys[part])]
                here["key"] = keys[part]
                for name in _columns(self._run):
                    here[name] = to_numpy(getattr(batch, name)[part])
                filled, first = filled + len(here), first + len(here)
        self._run = self._run[:filled]
        if self._runs:
            self._lay_down()

    def __iter__(self) -> Iterator[Any]:
        """Batches of BATCH_ROWS, the last one shorter."""
        asset = self._stream.asset
        if asset is not None:
            order = np.argsort(self._key(asset), kind="stable")
            for first in range(0, len(order), BATCH_ROWS):
                yield select_rows(asset, to_tensor(order[first : first + BATCH_ROWS], np.int64))
            return
        for table in _cut(self._merged() if self._runs else iter([_by_key(self._run)]), BATCH_ROWS):
            kind = type(self._stream.template)
            yield kind(**{name: to_tensor(table[name], table[name].dtype.type) for name in _columns(table)})

    def _room(self, batch: Batch, keys: Array) -> Array:
        columns = [(name, to_numpy(value)) for name, value in vars(batch).items() if value is not None]
        row = np.dtype([("key", keys.dtype), *((name, value.dtype, value.shape[1:]) for name, value in columns)])
        return np.empty(min(self._stream.count, max(BATCH_ROWS, RUN_BYTES // row.itemsize)), row)

    def _lay_down(self) -> None:
        self._beside.write(_by_key(self._run).data)
        self._runs.append(len(self._run))

    def _merged(self) -> Iterator[Array]:
        """Tables in the order of all runs. Of each run some rows are in memory, its head; what is not beyond the last
        row of any of them can go, since nothing on the disk comes before it."""
        row = self._run.dtype
        self._run = np.empty(0, row)
        head = max(2, HEAD_BYTES // row.itemsize // len(self._runs))
        places = np.cumsum([0, *self._runs]).tolist()
        ends, heads = places[1:], [np.empty(0, row) for _ in self._runs]
        while True:
            for i, kept in enumerate(heads):
                if 2 * len(kept) < head and places[i] < ends[i]:
                    more = self._read(places[i], min(head - len(kept), ends[i] - places[i]), row)
                    heads[i], places[i] = np.concatenate([kept, more]), places[i] + len(more)
            unread = [(heads[i]["key"][-1], i) for i in range(len(heads)) if places[i] < ends[i]]
            if not unread:
                yield _by_key(np.concatenate(heads))
                return
            limit, first = min(unread)  # of equal rows those of earlier runs come first
            taken = [
                int(np.searchsorted(kept["key"], limit, side="right" if i <= first else "left"))
                for i, kept in enumerate(heads)
            ]
            yield _by_key(np.concatenate([kept[:n] for kept, n in zip(heads, taken, strict=True)]))
            heads = [kept[n:] for kept, n in zip(heads, taken, strict=True)]

    def _read(self, first: int, count: int, row: np.dtype[Any]) -> Array:
        self._beside.seek(first * row.itemsize)
        return np.frombuffer(self._beside.read(count * row.itemsize), row)


def _columns(table: Array) -> list[str]:
    return [name for name in table.dtype.names or () if name != "key"]


def _by_key(table: Array) -> Array:
    return table[np.argsort(table["key"], kind="stable")] if len(table) else table


def _cut(tables: Iterator[Array], size: int) -> Iterator[Array]:
    """The same rows in tables of `size`, the last one shorter."""
    kept: list[Array] = []
    for table in tables:
        kept.append(table)
        if sum(map(len, kept)) >= size:
            table = np.concatenate(kept)
            whole = len(table) // size * size
            for first in range(0, whole, size):
                yield table[first : first + size]
            kept = [table[whole:]]
    if any(map(len, kept)):
        yield np.concatenate(kept)
