"""Bounded extraction of photos from a zip: regular files only, under our own names, counted while they are written.

An archive is untrusted. Its file names become labels only, the bytes written are counted, and the size of its directory
is bounded before the zip module parses it.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from lumigraph.scene.errors import CaptureError

MAX_ENTRIES = 10_000
MAX_UNPACKED_BYTES = 32 * 2**30  # all files together
MAX_ENTRY_BYTES = 2 * 2**30
MAX_RATIO = 200  # unpacked : packed; photos are near 1, uncompressed scans reach a few tens
MAX_DIRECTORY_BYTES = 16 * 2**20
CHUNK_BYTES = 2**20


def unpack(archive: Path, folder: Path, suffixes: Collection[str]) -> Iterator[tuple[str, Path | None, str]]:
    """Unpack the files with one of `suffixes` into the existing `folder` as 00000.jpg, 00001.jpg, ...

    Yields (name in the archive, path of the file, reason); the path is None for a rejected file, with the reason.
    Raises CaptureError if the archive is damaged or exceeds a bound; files written before the error stay in `folder`.
    """
    if _directory_bytes(archive) > MAX_DIRECTORY_BYTES:
        raise CaptureError(f"{archive.name} lists too many files (at most {MAX_ENTRIES}): split it")
    try:
        with zipfile.ZipFile(archive) as zip_file:
            entries = zip_file.infolist()
            if len(entries) > MAX_ENTRIES:
                raise CaptureError(f"{archive.name} holds {len(entries)} files (at most {MAX_ENTRIES}): split it")
            bytes_left = min(MAX_UNPACKED_BYTES, MAX_RATIO * archive.stat().st_size)
            for number, entry in enumerate(sorted(entries, key=lambda e: e.filename)):
                label, suffix = entry.filename, PurePosixPath(entry.filename).suffix.lower()
                file_type = stat.S_IFMT(entry.external_attr >> 16)
                if entry.is_dir():
                    continue
                if file_type not in (0, stat.S_IFREG):
                    yield label, None, "is a link or device"
                elif entry.flag_bits & 1:
                    yield label, None, "is encrypted"
                elif suffix not in suffixes:
                    yield label, None, "is not an image"
                else:
                    path = folder / f"{number:05d}{suffix}"
                    bytes_left -= _copy(zip_file, entry, path, min(bytes_left, MAX_ENTRY_BYTES))
                    yield label, path, ""
    except CaptureError:
        raise
    except Exception as error:  # BadZipFile, zlib.error, OSError, struct.error and others, by the kind of damage
        raise CaptureError(f"{archive.name} cannot be unpacked ({error}): pack the photos again") from error


def _copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, limit: int) -> int:
    """Stream one entry to `path` and return its size. Raises CaptureError at the first byte beyond `limit`."""
    size = 0
    with archive.open(entry) as source, path.open("xb") as target:
        while chunk := source.read(min(CHUNK_BYTES, limit - size + 1)):
            size += len(chunk)
            if size > limit:
                raise CaptureError(f"{archive.filename} unpacks to more than the limit (at {entry.filename!r})")
            target.write(chunk)
    return size


def _directory_bytes(archive: Path) -> int:
    """Size of the central directory by the end record or the zip64 end record, whichever is larger."""
    with archive.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(max(0, length - 2**16 - 256))
        tail = file.read()
    sizes = [0]
    for signature, offset, width in ((b"PK\x05\x06", 12, 4), (b"PK\x06\x06", 40, 8)):
        position = tail.find(signature)
        while position >= 0:  # all candidates: zipfile may choose another one
            sizes.append(int.from_bytes(tail[position + offset : position + offset + width], "little"))
            position = tail.find(signature, position + 1)
    if b"PK\x06\x06" in tail:
        sizes = [size for size in sizes if size != 0xFFFFFFFF]  # "see the zip64 record"
    return max(size for size in sizes if size <= length)  # zipfile rejects a directory larger than the file
