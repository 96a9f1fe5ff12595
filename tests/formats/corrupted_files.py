"""Untrusted files: robustness checks for the readers of all formats.

A reader must raise FormatError or return a scene of finite numbers, within proportionate memory.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from lumigraph.scene.assets import Mesh, Points, Splats
from lumigraph.scene.errors import FormatError

Read = Callable[[Path], Splats | Points | Mesh]
Edits = list[tuple[int, int, bytes]]

READER_OVERHEAD_BYTES = 48e6  # bytes that any reader may allocate, independent of the file size

# Edits as (offset, removed bytes, inserted bytes).
edit_lists = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.integers(0, 40), st.binary(max_size=12)), min_size=1, max_size=6
)
robustness_settings = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def apply_edits(data: bytes, changes: Edits) -> bytes:
    for offset, removal, insertion in changes:
        offset %= len(data) + 1
        data = data[:offset] + insertion + data[offset + removal :]
    return data


def iterate_damage(data: bytes, cuts: int = 60, flips: int = 200) -> Iterator[bytes]:
    """Yield variants of a file: truncated (mostly near the beginning), with flipped bits, with runs of one value."""
    draw = np.random.default_rng(0)
    ends = {0, 1, 4, 15, 16, 17, len(data) - 1, *(len(data) * draw.random(cuts) ** 3).astype(int).tolist()}
    for end in sorted(ends):
        yield data[:end]
    for _ in range(flips):
        variant = bytearray(data)
        for offset in (len(data) * draw.random(draw.integers(1, 4)) ** 2).astype(int):
            variant[offset] ^= 1 << int(draw.integers(8))
        yield bytes(variant)
    for value in (0, 255):
        for offset in (len(data) * draw.random(10) ** 2).astype(int):
            yield data[:offset] + bytes([value]) * 8 + data[offset + 8 :]
    yield data + b"more"


def read_or_reject(read: Read, path: Path) -> Splats | Points | Mesh | None:
    """The asset read, or None if the reader raised a FormatError of one line with the file name."""
    try:
        asset = read(path)
    except FormatError as error:
        assert "\n" not in str(error) and path.name.split(".")[0] in str(error), error
        return None
    fields = [value for value in vars(asset).values() if value is not None and value.is_floating_point()]
    assert all(value.isfinite().all() for value in fields)
    return asset


def assert_survives(read: Read, path: Path, files: Iterable[bytes], growth: float = 40) -> None:
    """Check that each of `files` is read or rejected, in memory of at most `growth` times the largest file."""
    largest = 0
    tracemalloc.start()
    try:
        for data in files:
            path.write_bytes(data)
            largest = max(largest, len(data))
            read_or_reject(read, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < READER_OVERHEAD_BYTES + growth * largest, f"{peak / 1e6:.0f} MB for files of at most {largest} bytes"
