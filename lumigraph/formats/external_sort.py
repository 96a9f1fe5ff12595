"""External merge sort of a stream larger than memory (Knuth 1973, "The Art of Computer Programming" 3, 5.4).

Runs that fit in memory are sorted, spilled to a temporary file, and then merged. The sort is stable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from lumigraph.formats.chunked import BATCH_ROWS, Batch, BatchTransform, Stream, check_batches, select_rows
from lumigraph.formats.io import Array, to_numpy, to_tensor

SORT_RUN_BYTES = 1 << 24  # size of a run that is sorted in memory
MERGE_BUFFER_BYTES = 1 << 23  # buffers of all runs together during the merge

Key = Callable[[Batch], Array]  # (N,) sort keys of any number type


class ExternalSort:
    """Sorts the rows of a stream by their keys: call `collect`, then iterate.

    stream: the rows; `transform` changes each batch before it is sorted
    spool: temporary file for the runs
    path: the file that errors name
    """

    def __init__(
        self, stream: Stream, key: Key, path: Path, spool: IO[bytes], transform: BatchTransform | None = None
    ) -> None:
        self._stream, self._key, self._path, self._spool, self._transform = stream, key, path, spool, transform
        self._runs: list[int] = []  # number of rows of each spilled run
        self._run: Array = np.empty(0)

    def collect(self) -> Iterator[float]:
        """Read and sort all rows; yields the fraction completed. Raises FormatError as `check_batches` does."""
        run_length, row_count = 0, 0
        for batch in check_batches(self._stream, self._path, self._transform):
            row_count += len(batch)
            yield row_count / self._stream.count
            if self._stream.asset is not None:
                continue  # in memory: `__iter__` sorts it directly
            keys = self._key(batch)
            if not len(self._run):
                self._run = self._allocate_run(batch, keys)
            first = 0
            while first < len(keys):
                if run_length == len(self._run):
                    self._flush_run()
                    run_length = 0
                part = slice(first, first + len(self._run) - run_length)
                target = self._run[run_length : run_length + len(keys[part])]
                target["key"] = keys[part]
                for name in _columns(self._run):
                    target[name] = to_numpy(getattr(batch, name)[part])
                run_length, first = run_length + len(target), first + len(target)
        self._run = self._run[:run_length]
        if self._runs:
            self._flush_run()

    def __iter__(self) -> Iterator[Any]:
        """Yield batches of BATCH_ROWS rows, the last one shorter."""
        asset = self._stream.asset
        if asset is not None:
            order = np.argsort(self._key(asset), kind="stable")
            for first in range(0, len(order), BATCH_ROWS):
                yield select_rows(asset, to_tensor(order[first : first + BATCH_ROWS], np.int64))
            return
        for table in _rebatch(self._merge_runs() if self._runs else iter([_sort_by_key(self._run)]), BATCH_ROWS):
            kind = type(self._stream.template)
            yield kind(**{name: to_tensor(table[name], table[name].dtype.type) for name in _columns(table)})

    def _allocate_run(self, batch: Batch, keys: Array) -> Array:
        columns = [(name, to_numpy(value)) for name, value in vars(batch).items() if value is not None]
        row = np.dtype([("key", keys.dtype), *((name, value.dtype, value.shape[1:]) for name, value in columns)])
        return np.empty(min(self._stream.count, max(BATCH_ROWS, SORT_RUN_BYTES // row.itemsize)), row)

    def _flush_run(self) -> None:
        self._spool.write(_sort_by_key(self._run).data)
        self._runs.append(len(self._run))

    def _merge_runs(self) -> Iterator[Array]:
        """Yield sorted tables of all runs.

        The first rows of each run are in a buffer. All buffered rows up to the smallest last key of a buffer can be
        yielded, since no row on disk precedes them.
        """
        row = self._run.dtype
        self._run = np.empty(0, row)
        buffer_rows = max(2, MERGE_BUFFER_BYTES // row.itemsize // len(self._runs))
        next_rows = np.cumsum([0, *self._runs]).tolist()
        ends, buffers = next_rows[1:], [np.empty(0, row) for _ in self._runs]
        while True:
            for i, buffer in enumerate(buffers):
                if 2 * len(buffer) < buffer_rows and next_rows[i] < ends[i]:
                    rows = self._read(next_rows[i], min(buffer_rows - len(buffer), ends[i] - next_rows[i]), row)
                    buffers[i], next_rows[i] = np.concatenate([buffer, rows]), next_rows[i] + len(rows)
            unread = [(buffers[i]["key"][-1], i) for i in range(len(buffers)) if next_rows[i] < ends[i]]
            if not unread:
                yield _sort_by_key(np.concatenate(buffers))
                return
            limit, first = min(unread)  # equal keys: rows of earlier runs come first
            ready_counts = [
                int(np.searchsorted(buffer["key"], limit, side="right" if i <= first else "left"))
                for i, buffer in enumerate(buffers)
            ]
            yield _sort_by_key(np.concatenate([buffer[:n] for buffer, n in zip(buffers, ready_counts, strict=True)]))
            buffers = [buffer[n:] for buffer, n in zip(buffers, ready_counts, strict=True)]

    def _read(self, first: int, count: int, row: np.dtype[Any]) -> Array:
        self._spool.seek(first * row.itemsize)
        return np.frombuffer(self._spool.read(count * row.itemsize), row)


def _columns(table: Array) -> list[str]:
    return [name for name in table.dtype.names or () if name != "key"]


def _sort_by_key(table: Array) -> Array:
    return table[np.argsort(table["key"], kind="stable")] if len(table) else table


def _rebatch(tables: Iterator[Array], size: int) -> Iterator[Array]:
    """Regroup the rows into tables of `size` rows, the last one shorter."""
    pending: list[Array] = []
    for table in tables:
        pending.append(table)
        if sum(map(len, pending)) >= size:
            table = np.concatenate(pending)
            end = len(table) // size * size
            for first in range(0, end, size):
                yield table[first : first + size]
            pending = [table[end:]]
    if any(map(len, pending)):
        yield np.concatenate(pending)
