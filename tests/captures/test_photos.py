"""Import of photos: accepted and rejected files, EXIF facts, and bounds of archives."""

from __future__ import annotations

import io
import math
import os
import stat
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from lumigraph.captures import archive, image_file
from lumigraph.captures.photos import find_photos
from lumigraph.scene.errors import CaptureError
from lumigraph.wire.events import Event, Note, Progress

from .common import finish


def notes(events: list[Event]) -> list[str]:
    return [e.text for e in events if isinstance(e, Note)]


def gradient(width: int = 48, height: int = 32, seed: int = 0) -> Image.Image:
    """An image with red growing to the right and green downwards: all eight orientations differ, even after JPEG."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 40 * seed % 256)], axis=-1).astype(np.uint8))


def exif_with(
    orientation: int = 1, base: dict[int, Any] | None = None, gps: dict[int, Any] | None = None
) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif).update(base or {})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps or {})
    return exif


def ratio(value: float) -> TiffImagePlugin.IFDRational:
    fraction = Fraction(value).limit_denominator(10**6)
    return TiffImagePlugin.IFDRational(fraction.numerator, fraction.denominator)


def test_find_photos_names_every_format_uniquely(tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "more").mkdir(parents=True)
    gradient().save(source / "b.png")
    gradient().save(source / "B.JPG")
    gradient().save(source / "c d.webp")
    gradient().save(source / "e.tiff")
    gradient().save(source / "more" / "b.jpg")
    (source / ".DS_Store").write_bytes(b"noise")
    photos, events = finish(find_photos(source, tmp_path / "work"))
    assert photos.names == tuple(sorted(photos.names))
    assert set(photos.names) == {"B.jpg", "b-2.png", "c_d.jpg", "e.png", "more__b.jpg"}
    assert photos.sizes == ((48, 32),) * 5
    assert photos.folder == tmp_path / "work" / "photos"
    assert sorted(p.name for p in photos.folder.iterdir()) == sorted(photos.names)
    assert [e for e in events if isinstance(e, Progress)][-1].done == 5
    assert not notes(events)
    assert not photos.from_video


def test_find_photos_keeps_bytes_of_upright_photo(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.jpg", "b.jpg"):
        gradient().save(source / name)
    photos, _ = finish(find_photos(source, tmp_path / "work"))
    for name in photos.names:
        assert (photos.folder / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_find_photos_applies_orientation(tmp_path: Path, orientation: int) -> None:
    """For each EXIF code the stored pixels are the inverse transform of the upright ones; the import must undo it."""
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    upright = np.asarray(gradient())
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.png", "b.jpg"):
        pixels = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
        pixels.save(source / name, exif=exif_with(orientation), quality=95)
    photos, _ = finish(find_photos(source, tmp_path / "work"))
    assert photos.sizes == ((48, 32),) * 2
    for name, tolerance in (("a.png", 0), ("b.jpg", 12)):
        with Image.open(photos.folder / name) as picture:
            assert picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
            assert np.abs(np.asarray(picture).astype(int) - upright).max() <= tolerance


def test_exif_focal_length_and_gps_survive_rotation(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    south_west: dict[int, Any] = {
        ExifTags.GPS.GPSLatitudeRef: "S",
        ExifTags.GPS.GPSLatitude: (ratio(33), ratio(51), ratio(24.5)),
        ExifTags.GPS.GPSLongitudeRef: "W",
        ExifTags.GPS.GPSLongitude: (ratio(151), ratio(12), ratio(40.0)),
        ExifTags.GPS.GPSAltitudeRef: b"\x01",
        ExifTags.GPS.GPSAltitude: ratio(12.5),
    }
    exif = exif_with(6, {ExifTags.Base.FocalLengthIn35mmFilm: 26}, south_west)
    gradient().save(source / "a.jpg", exif=exif)
    sensor: dict[int, Any] = {
        ExifTags.Base.FocalLength: ratio(4.0),
        ExifTags.Base.FocalPlaneXResolution: ratio(100.0),
        ExifTags.Base.FocalPlaneResolutionUnit: 4,
        ExifTags.Base.ExifImageWidth: 480,
        ExifTags.Base.ExifImageHeight: 320,
    }
    gradient().save(source / "b.jpg", exif=exif_with(1, sensor))
    gradient().save(source / "c.jpg", exif=exif_with(1, {ExifTags.Base.FocalLengthIn35mmFilm: 60000}))
    gradient().save(source / "d.jpg")
    photos, _ = finish(find_photos(source, tmp_path / "work"))
    assert photos.sizes[0] == (32, 48)
    a, b, c, d = photos.focal_px
    # 26 mm on full frame is 2 atan(43.27 / 52) = 79.5 degrees across the diagonal (57.7 pixels here).
    assert a is not None and 2 * math.degrees(math.atan(math.hypot(48, 32) / 2 / a)) == pytest.approx(79.5, abs=0.05)
    assert b == pytest.approx(4.0 * 100.0 * 48 / 480)  # 400 px at width 480; the file is ten times smaller
    assert c is None and d is None
    place = photos.gps[0]
    assert place == pytest.approx((-(33 + 51 / 60 + 24.5 / 3600), -(151 + 12 / 60 + 40 / 3600), -12.5))
    assert photos.gps[1:] == (None, None, None)


def test_find_photos_notes_rejected_files(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.jpg", "b.jpg"):
        gradient(200, 200).save(source / name)
    whole = io.BytesIO()
    gradient(200, 200).save(whole, "JPEG")
    (source / "cut.jpg").write_bytes(whole.getvalue()[:-400])
    whole = io.BytesIO()
    Image.effect_noise((200, 200), 80).save(whole, "PNG")
    (source / "cut.png").write_bytes(whole.getvalue()[:-4000])
    (source / "empty.png").write_bytes(b"")
    (source / "notes.txt").write_text("hello")
    (source / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    photos, events = finish(find_photos(source, tmp_path / "work"))
    assert photos.names == ("a.jpg", "b.jpg")
    texts = notes(events)
    assert len(texts) == 5
    for name in ("cut.jpg", "cut.png", "empty.png", "notes.txt", "script.png"):
        assert sum(name in text for text in texts) == 1


def test_find_photos_limits_notes(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.jpg", "b.jpg"):
        gradient().save(source / name)
    for i in range(40):
        (source / f"{i}.txt").write_text("hello")
    _, events = finish(find_photos(source, tmp_path / "work"))
    assert len(notes(events)) == 6
    assert "35 more" in notes(events)[-1]


@pytest.mark.parametrize("count", [0, 1])
def test_find_photos_rejects_too_few_photos(tmp_path: Path, count: int) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for i in range(count):
        gradient().save(source / f"{i}.jpg")
    with pytest.raises(CaptureError, match="overlapping photos"):
        finish(find_photos(source, tmp_path / "work"))
    assert list((tmp_path / "work").iterdir()) == []


def test_find_photos_rejects_missing_path_and_single_file(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="does not exist"):
        finish(find_photos(tmp_path / "nowhere", tmp_path / "work"))
    gradient().save(tmp_path / "one.jpg")
    with pytest.raises(CaptureError, match="neither a folder nor a zip"):
        finish(find_photos(tmp_path / "one.jpg", tmp_path / "work"))


def test_find_photos_ignores_masks_reduced_copies_and_work_folder(tmp_path: Path) -> None:
    for folder in ("images", "images_4", "masks"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            gradient().save(tmp_path / folder / f"{i}.jpg")
    for _ in range(2):  # the second time, the result of the first is inside the folder
        photos, _ = finish(find_photos(tmp_path, tmp_path / "work"))
        assert photos.names == ("images__0.jpg", "images__1.jpg", "images__2.jpg")


def test_decode_scales_16_bit_grey(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for name in ("a.png", "b.tif"):
        Image.fromarray(grey).save(tmp_path / name)
        assert np.array_equal(image_file.decode(tmp_path / name)[..., 0], np.round(grey / 257).astype(np.uint8))


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1"])
def test_decode_converts_every_mode_to_rgb_or_rgba(tmp_path: Path, mode: str) -> None:
    suffix = ".tif" if mode == "CMYK" else ".png"
    gradient().convert(mode).save(tmp_path / f"a{suffix}")
    assert image_file.decode(tmp_path / f"a{suffix}").shape == (32, 48, 4 if "A" in mode else 3)


def test_decode_rejects_size_in_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradient().save(tmp_path / "a.png")
    monkeypatch.setattr(image_file, "MAX_IMAGE_PIXELS", 48 * 32 - 1)
    with pytest.raises(CaptureError, match="megapixels"):
        image_file.decode(tmp_path / "a.png")


def test_max_image_pixels_is_below_pillows_limit() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert image_file.MAX_IMAGE_PIXELS <= 2 * Image.MAX_IMAGE_PIXELS


def test_find_photos_keeps_bytes_of_mpo(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.jpg", "b.jpg"):
        gradient().save(source / name, format="MPO", save_all=True, append_images=[gradient(seed=3)])
    photos, _ = finish(find_photos(source, tmp_path / "work"))
    assert (photos.folder / "a.jpg").read_bytes() == (source / "a.jpg").read_bytes()
    assert image_file.decode(photos.folder / "a.jpg").shape == (32, 48, 3)


@pytest.mark.skipif(not image_file.is_heic_available(), reason="pillow_heif is not installed")
def test_find_photos_reads_heic(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.heic", "b.heic"):
        gradient(64, 64).save(source / name, format="HEIF", quality=95)
    photos, _ = finish(find_photos(source, tmp_path / "work"))
    assert photos.names == ("a.jpg", "b.jpg")
    assert np.abs(image_file.decode(photos.folder / "a.jpg").astype(int) - np.asarray(gradient(64, 64))).mean() < 6


def test_find_photos_names_extra_for_heic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.jpg", "b.jpg"):
        gradient().save(source / name)
    (source / "c.heic").write_bytes(b"whatever")
    monkeypatch.setattr(image_file, "is_heic_available", lambda: False)
    photos, events = finish(find_photos(source, tmp_path / "work"))
    assert len(photos) == 2
    assert "lumigraph[heic]" in notes(events)[0]


# ---------------------------------------------------------------------------------------------------------- zip


def jpeg(seed: int = 0) -> bytes:
    data = io.BytesIO()
    gradient(seed=seed).save(data, "JPEG")
    return data.getvalue()


def test_archive_unpacks_under_safe_names(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as z:
        z.writestr("../../escape.jpg", jpeg(1))
        z.writestr("/abs/olute.jpg", jpeg(2))
        z.writestr("trip/3.jpg", jpeg(3))
        z.writestr("trip\\4.jpg", jpeg(4))
        z.writestr("trip/readme.txt", "hello")
        z.writestr("__MACOSX/trip/._3.jpg", "fork")
        z.writestr(link, "/etc/passwd")
    photos, events = finish(find_photos(tmp_path / "in.zip", tmp_path / "work"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.zip", "work"]
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["photos"]
    assert photos.names == ("abs__olute.jpg", "escape.jpg", "trip__3.jpg", "trip__4.jpg")
    assert not any(p.is_symlink() for p in photos.folder.iterdir())
    assert any("link.jpg" in text for text in notes(events))


def test_archive_bounds_are_checked_while_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("a.jpg", bytes(64 * 2**20))
    with pytest.raises(CaptureError, match="more than the limit"):
        finish(find_photos(tmp_path / "bomb.zip", tmp_path / "work"))
    assert list((tmp_path / "work").iterdir()) == []
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as z:
        for i in range(20):
            z.writestr(f"{i}.jpg", jpeg())
    monkeypatch.setattr(archive, "MAX_ENTRIES", 19)
    with pytest.raises(CaptureError, match="20 files"):
        finish(find_photos(tmp_path / "many.zip", tmp_path / "work"))
    monkeypatch.setattr(archive, "MAX_ENTRIES", 20)
    monkeypatch.setattr(archive, "MAX_DIRECTORY_BYTES", 20 * 46)
    with pytest.raises(CaptureError, match="too many files"):
        finish(find_photos(tmp_path / "many.zip", tmp_path / "work"))


def test_archive_damage_raises_capture_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as z:
        for i in range(3):
            z.writestr(f"{i}.jpg", jpeg(i))
    whole = (tmp_path / "in.zip").read_bytes()
    for cut in range(0, len(whole), 37):
        (tmp_path / "cut.zip").write_bytes(whole[:cut])
        with pytest.raises(CaptureError):
            finish(find_photos(tmp_path / "cut.zip", tmp_path / "work"))
    assert list((tmp_path / "work").iterdir()) == []


def test_find_photos_closed_early_leaves_no_files(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for i in range(6):
        gradient().save(source / f"{i}.jpg")
    task = find_photos(source, tmp_path / "work")
    next(task)
    task.close()
    assert list((tmp_path / "work").iterdir()) == []


def test_find_photos_copies_across_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.jpg", "b.jpg"):
        gradient().save(source / name)

    def refuse(*_: object) -> None:
        raise OSError(18, "cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    photos, _ = finish(find_photos(source, tmp_path / "work"))
    assert (photos.folder / "a.jpg").read_bytes() == (source / "a.jpg").read_bytes()
