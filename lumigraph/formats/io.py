"""File access shared by all formats: checked opening, atomic writing, and conversion between tensors and arrays."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from lumigraph.scene.atomic_files import atomic_write
from lumigraph.scene.errors import FormatError

Array = npt.NDArray[Any]

SPOOL_MEMORY_BYTES = 1 << 23  # a spool larger than this moves to disk


def open_for_read(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises FormatError if it cannot be opened."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise FormatError(f"{path}: cannot be opened ({error.strerror or error}); check the name") from error
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise FormatError(f"{path}: not a regular file; give the path of a {path.suffix or 'scene'} file")
    return stream


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Write to a temporary file that becomes `path` if the block succeeds. Raises FormatError on disk errors."""
    is_new = not path.exists()
    try:
        with atomic_write(path) as stream:
            yield stream
        if is_new:
            _new_files.get([]).append(path)
    except OSError as error:
        reason = error.strerror or error
        raise FormatError(f"{path}: not written ({reason}); free some space or choose another folder") from error


@contextmanager
def collect_new_files() -> Iterator[list[Path]]:
    """Collect the paths that `open_atomic` creates within the block: a file and its companions, such as textures."""
    new_files: list[Path] = []
    token = _new_files.set(new_files)
    try:
        yield new_files
    finally:
        _new_files.reset(token)


_new_files: ContextVar[list[Path]] = ContextVar("_written")


@contextmanager
def open_spool(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary buffer for bytes that go into `path` later.

    A large one is an unnamed file in the same folder.
    """
    with tempfile.SpooledTemporaryFile(SPOOL_MEMORY_BYTES, "w+b", dir=str(path.parent)) as stream:
        yield stream


def to_numpy(tensor: torch.Tensor) -> Array:
    """View a tensor as an array on the CPU, with its type unchanged."""
    return tensor.detach().cpu().numpy()


def to_tensor(values: Array, dtype: type[np.generic] = np.float32) -> torch.Tensor:
    """Copy an array into a new contiguous tensor."""
    return torch.from_numpy(np.array(values, dtype=dtype, order="C"))


def check_finite(path: Path, **columns: Array) -> None:
    """Raises FormatError if a row holds NaN or infinity, which no reader accepts."""
    for name, values in columns.items():
        rows = ~np.isfinite(values).reshape(len(values), -1).all(axis=1) if len(values) else np.zeros(0, bool)
        if bad := int(rows.sum()):
            raise FormatError(
                f"{path}: not written, because {bad} of {len(values)} {name} hold NaN or infinity; remove them first"
            )
