"""What all formats do alike: open a file that nobody vouches for, write one that is whole or absent."""

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

SPOOL = 1 << 23  # bytes that are held in memory before they go to the disk


def open_for_read(path: Path) -> BinaryIO:
    """A regular file to read. Raises FormatError."""
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
    """A file that becomes `path` when the block ends well. Raises FormatError where the disk refuses."""
    new = not path.exists()
    try:
        with atomic_write(path) as stream:
            yield stream
        if new:
            _written.get([]).append(path)
    except OSError as error:
        reason = error.strerror or error
        raise FormatError(f"{path}: not written ({reason}); free some space or choose another folder") from error


@contextmanager
def collect_new_files() -> Iterator[list[Path]]:
    """Of what is written in the block, all that was not there before: a file with its companions, such as textures."""
    found: list[Path] = []
    token = _written.set(found)
    try:
        yield found
    finally:
        _written.reset(token)


_written: ContextVar[list[Path]] = ContextVar("_written")


@contextmanager
def open_spool(path: Path) -> Iterator[IO[bytes]]:
    """Bytes on their way into `path`: a few in memory, more in a file beside it that has no name and ends with us."""
    with tempfile.SpooledTemporaryFile(SPOOL, "w+b", dir=str(path.parent)) as stream:
        yield stream


def to_numpy(tensor: torch.Tensor) -> Array:
    """On the CPU, as it is."""
    return tensor.detach().cpu().numpy()


def to_tensor(values: Array, dtype: type[np.generic] = np.float32) -> torch.Tensor:
    """A copy that nobody else writes to."""
    return torch.from_numpy(np.array(values, dtype=dtype, order="C"))


def check_finite(path: Path, **columns: Array) -> None:
    """Raises FormatError where a row holds NaN or infinity: nobody could read it back."""
    for name, values in columns.items():
        rows = ~np.isfinite(values).reshape(len(values), -1).all(axis=1) if len(values) else np.zeros(0, bool)
        if bad := int(rows.sum()):
            raise FormatError(
                f"{path}: not written, because {bad} of {len(values)} {name} hold NaN or infinity; remove them first"
            )
