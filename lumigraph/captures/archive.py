"""A zip of photos, unpacked within bounds: regular files only, under our own names, counted while they are written.

An archive is never trusted: not its names (they become labels), not its sizes (bytes are counted as they come out),
not its directory (bounded before the zip module turns it into objects).
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from lumigraph.scene.errors import CaptureError

MAX_ENTRIES = 10_000
MAX_BYTES = 32 * 2**30  # of all files together, unpacked
MAX_ENTRY_BYTES = 2 * 2**30
MAX_RATIO = 200  # unpacked : packed; photos are near 1, uncompressed scans reach some tens
MAX_DIRECTORY_BYTES = 16 * 2**20
CHUNK = 2**20


def unpack(archive: Path, folder: Path, suffixes: Collection[str]) -> Iterator[tuple[str, Path | None, str]]:
    """Unpacks the files with one of `suffixes` into the existing `folder` as 00000.jpg, 00001.jpg, ...

    Yields (label, path, reason): the name inside the archive and the file on disk, or None and why it was left out.
    Raises CaptureError when the archive is damaged or exceeds a bound; what was written so far then stays in `folder`.
    """
    if _directory_bytes(archive) > MAX_DIRECTORY_BYTES:
        raise CaptureError(f"{archive.name} lists too many files (at most {MAX_ENTRIES}): split it")
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            if len(entries) > MAX_ENTRIES:
                raise CaptureError(f"{archive.name} holds {len(entries)} files (at most {MAX_ENTRIES}): split it")
            left = min(MAX_BYTES, MAX_RATIO * archive.stat().st_size)
            for number, entry in enumerate(sorted(entries, key=lambda e: e.filename)):
                label, suffix = entry.filename, PurePosixPath(entry.filename).suffix.lower()
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if entry.is_dir():
                    continue
                if kind not in (0, stat.S_IFREG):
                    yield label, None, "is a link or device"
                elif entry.flag_bits & 1:
                    yield label, None, "is encrypted"
                elif suffix not in suffixes:
                    yield label, None, "is not a picture"
                else:
                    path = folder / f"{number:05d}{suffix}"
                    left -= _copy(opened, entry, path, min(left, MAX_ENTRY_BYTES))
                    yield label, path, ""
    except CaptureError:
        raise
    except Exception as error:  # zipfile meets damage with BadZipFile, zlib.error, OSError, struct.error and more
        raise CaptureError(f"{archive.name} cannot be unpacked ({error}): pack the photos again") from error


def _copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, limit: int) -> int:
    """Streams one entry to `path`; stops with CaptureError at the first byte beyond `limit`. Returns its size."""
    written = 0
    with archive.open(entry) as source, path.open("xb") as target:
        while chunk := source.read(min(CHUNK, limit - written + 1)):
            written += len(chunk)
            if written > limit:
                raise CaptureError(f"{archive.filename} unpacks to far more than it should (at {entry.filename!r})")
            target.write(chunk)
    return written


def _directory_bytes(archive: Path) -> int:
    """Bytes of the central directory by the end record, or by the zip64 end record, whichever claims more."""
    with archive.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(max(0, length - 2**16 - 256))
        tail = file.read()
    sizes = [0]
    for signature, at, width in ((b"PK\x05\x06", 12, 4), (b"PK\x06\x06", 40, 8)):
        found = tail.find(signature)
        while found >= 0:  # every candidate: a reader may settle on another one than we would
            sizes.append(int.from_bytes(tail[found + at : found + at + width], "little"))
            found = tail.find(signature, found + 1)
    if b"PK\x06\x06" in tail:
        sizes = [size for size in sizes if size != 0xFFFFFFFF]  # "see the zip64 record"
    return max(size for size in sizes if size <= length)  # a directory larger than the file is refused by zipfile
