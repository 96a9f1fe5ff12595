"""Types and sizes of files by their headers, without decoding."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lumigraph.server.files.content_type import FILE_TYPES, HEAD_BYTES, check, detect_type
from lumigraph.server.files.filenames import SUFFIXES
from lumigraph.server.files.image_size import PARSERS, size_of
from lumigraph.server.problems import Problem
from tests.server import sample_images


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda at, count: data[at : at + count]


def check_status(tmp_path: Path, suffix: str, data: bytes, pixels: int = 200_000_000) -> int:
    """Return the status of the rejection, or 0 if the file is accepted."""
    path = tmp_path / "file"
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        check(descriptor, suffix, pixels)
    except Problem as problem:
        return problem.status_code
    finally:
        os.close(descriptor)
    return 0


@pytest.mark.parametrize(
    ("suffix", "form", "options"),
    [
        ("png", "PNG", {}),
        ("jpg", "JPEG", {}),
        ("jpg", "JPEG", {"progressive": True}),
        ("jpeg", "JPEG", {"exif": b"Exif\0\0" + b"\xff\xc0" * 20_000, "icc_profile": b"x" * 200_000}),
        ("webp", "WEBP", {}),
        ("webp", "WEBP", {"lossless": True}),
        ("webp", "WEBP", {"exif": b"Exif\0\0"}),
        ("tif", "TIFF", {}),
        ("tiff", "TIFF", {"big_tiff": True}),
    ],
)
def test_size_of_pillow_images(suffix: str, form: str, options: dict[str, object]) -> None:
    file = io.BytesIO()
    Image.new("RGB", (321, 123), (9, 99, 199)).save(file, form, **options)
    assert size_of(suffix, reader(file.getvalue())) == (321, 123)
    assert detect_type(file.getvalue()) == FILE_TYPES[suffix]


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        ("png", sample_images.png(40_000, 30_000)),
        ("jpg", sample_images.jpeg(40_000, 30_000)),
        ("jpg", sample_images.jpeg(40_000, 30_000, sof=0xC2)),
        ("jpg", sample_images.jpeg(8, 8, sample_images.segment(0xC0, b"\x08\x75\x30\x9c\x40\x03"))),  # two frames
        (
            "jpg",
            sample_images.jpeg(40_000, 30_000, b"\xff" * 9 + sample_images.segment(0xE1, b"\0" * 65_000) * 40),
        ),  # the size is far behind the start
        ("webp", sample_images.webp(40_000, 30_000)),
        ("webp", sample_images.webp(16_384, 16_384, b"VP8L")),
        ("webp", sample_images.webp(16_383, 16_383, b"VP8 ")),
        ("tif", sample_images.tiff(40_000, 30_000)),
        ("tif", sample_images.tiff(40_000, 30_000, ">")),
        ("heic", sample_images.heif(40_000, 30_000)),
    ],
)
def test_check_rejects_pixel_bombs(tmp_path: Path, suffix: str, data: bytes) -> None:
    assert check_status(tmp_path, suffix, data) == 413
    assert check_status(tmp_path, suffix, data, pixels=1_200_000_000) == 0


VALID_FILES = {
    "jpg": sample_images.jpeg(8, 8),
    "jpeg": sample_images.jpeg(8, 8),
    "png": sample_images.png(8, 8),
    "webp": sample_images.webp(8, 8),
    "tif": sample_images.tiff(8, 8),
    "tiff": sample_images.tiff(8, 8, ">"),
    "heic": sample_images.heif(8, 8),
    "heif": sample_images.heif(8, 8),
    "zip": b"PK\x05\x06" + b"\0" * 18,
    "mp4": sample_images.box(b"ftyp", b"isom\0\0\2\0"),
    "mov": sample_images.box(b"wide", b"") + sample_images.box(b"mdat", b"\0" * 8),
    "m4v": sample_images.box(b"ftyp", b"M4V \0\0\2\0"),
    "mkv": b"\x1aE\xdf\xa3" + b"\0" * 8,
    "webm": b"\x1aE\xdf\xa3" + b"\0" * 8,
    "avi": b"RIFF\0\0\0\0AVI LIST",
    "json": b' {"frames": []}',
    "txt": "Grüße aus dem Garten".encode(),
    "bin": b"\x01\0\0\0\0\0\0\0",
    "ply": b"ply\nformat ascii 1.0\n",
    "npy": b"\x93NUMPY\x01\0",
}


def test_check_accepts_only_matching_suffix(tmp_path: Path) -> None:
    assert set(VALID_FILES) == set(SUFFIXES)
    for suffix, content in VALID_FILES.items():
        assert check_status(tmp_path, suffix, content) == 0, suffix
        for data_suffix, data in VALID_FILES.items():
            is_same_type = suffix == data_suffix or (
                FILE_TYPES.get(suffix) == FILE_TYPES.get(data_suffix) and suffix in FILE_TYPES
            )
            if not is_same_type and suffix not in ("bin", "txt"):
                assert check_status(tmp_path, suffix, data) == 415, (suffix, data_suffix)


@pytest.mark.parametrize("data", [b"<html>", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x7fELF", b"MZ", b"%PDF-"])
def test_check_rejects_pages_and_programs(tmp_path: Path, data: bytes) -> None:
    for suffix in FILE_TYPES:
        assert check_status(tmp_path, suffix, data) == 415
    assert check_status(tmp_path, "json", data) == 415


def test_check_text(tmp_path: Path) -> None:
    assert check_status(tmp_path, "txt", b"") == 0
    assert check_status(tmp_path, "txt", b"x" * (HEAD_BYTES - 1) + "ü".encode() * 5) == 0  # cut inside a character
    assert check_status(tmp_path, "txt", b"a\0b") == 415
    assert check_status(tmp_path, "txt", b"\xff\xfe") == 415
    assert check_status(tmp_path, "json", b"\xef\xbb\xbf\n[1]") == 0
    assert check_status(tmp_path, "json", b"") == 415


@given(st.sampled_from(sorted(PARSERS)), st.binary(max_size=300), st.booleans(), st.integers(0, 200))
def test_size_of_broken_header_raises_value_error(suffix: str, noise: bytes, has_valid_start: bool, cut: int) -> None:
    reads = 0

    def read(at: int, count: int) -> bytes:
        nonlocal reads
        reads += 1
        assert reads < 20_000
        return data[at : at + count]

    data = VALID_FILES[suffix][:cut] + noise if has_valid_start else noise
    try:
        size = size_of(suffix, read)
    except (ValueError, OverflowError):
        return
    assert size is not None and min(size) >= 1


def test_size_of_nested_boxes_is_linear(tmp_path: Path) -> None:
    """The parser visits each level once, so its time does not grow with the product of their lengths."""
    inner = sample_images.box(b"ipco", b"\0\0\0\x08ispe" * 3000)
    data = sample_images.box(b"ftyp", b"heic\0\0\0\0") + sample_images.box(
        b"meta", b"\0" * 4 + sample_images.box(b"iprp", inner * 3) * 300
    )
    assert check_status(tmp_path, "heic", data) in (0, 415, 413)
