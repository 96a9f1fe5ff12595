"""What a photo's EXIF block says about its camera: which way is up, focal length in pixels, the place on Earth.

EXIF is a courtesy: a damaged block, or a value of the wrong kind, counts as a block that says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image

FULL_FRAME_DIAGONAL = math.hypot(36.0, 24.0)  # millimetres
MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # FocalPlaneResolutionUnit: inch, centimetre, millimetre, micrometre

# EXIF orientation -> what turns the stored picture upright (EXIF 2.32, table 6).
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn(picture: Image.Image) -> Image.Transpose | None:
    """What turns the stored pixels upright; None when they are."""
    return TURNS.get(_tags(picture).get(ExifTags.Base.Orientation, 1))


def focal_pixels(picture: Image.Image) -> float | None:
    """Focal length in pixels of the picture at its present size, or None where EXIF does not say or lies.

    First the 35 mm equivalent, which CIPA DCG-001 defines through the diagonal of the picture; it survives resizing.
    Otherwise the focal length in millimetres over the sensor's pixel pitch, scaled by the width EXIF remembers.
    """
    tags = _tags(picture, ExifTags.IFD.Exif)
    focal: float | None = None
    equivalent = _number(tags.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if equivalent:
        focal = equivalent * math.hypot(*picture.size) / FULL_FRAME_DIAGONAL
    else:
        millimetres = _number(tags.get(ExifTags.Base.FocalLength))
        density = _number(tags.get(ExifTags.Base.FocalPlaneXResolution))
        unit = MILLIMETRES.get(tags.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))
        recorded = _number(tags.get(ExifTags.Base.ExifImageWidth)), _number(tags.get(ExifTags.Base.ExifImageHeight))
        if millimetres and density and unit and recorded[0] and recorded[1]:
            # The longer sides are compared: software that turns a photo often leaves these two tags alone.
            focal = millimetres * density / unit * max(picture.size) / max(recorded[0], recorded[1])
    plausible = focal is not None and 0.3 < focal / max(picture.size) < 30  # 150 degrees to 2 degrees
    return focal if plausible else None


def place(picture: Image.Image) -> tuple[float, float, float | None] | None:
    """(latitude, longitude) in degrees north and east and altitude in metres (None if unknown), or None."""
    gps = _tags(picture, ExifTags.IFD.GPSInfo)
    latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "S")
    longitude = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "W")
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    if latitude == 0 and longitude == 0:  # what a phone without a fix writes; nobody photographs there
        return None
    altitude = _number(gps.get(ExifTags.GPS.GPSAltitude), least=0.0)
    if altitude is not None and gps.get(ExifTags.GPS.GPSAltitudeRef) in (1, b"\x01"):
        altitude = -altitude
    return latitude, longitude, altitude


def _tags(picture: Image.Image, ifd: ExifTags.IFD | None = None) -> Mapping[int, Any]:
    try:
        exif = picture.getexif()
        return exif if ifd is None else exif.get_ifd(ifd)
    except Exception:  # Pillow parses EXIF lazily and lets escape whatever its parser meets
        return {}


def _number(value: Any, least: float = 1e-9) -> float | None:
    """A finite number of at least `least`, or None: EXIF rationals may be 0/0 and the types may be anything."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= least else None


def _degrees(value: Any, reference: Any, negative: str) -> float | None:
    """Degrees, minutes, seconds -> signed degrees."""
    if not isinstance(value, tuple) or len(value) != 3:
        return None
    degrees, minutes, seconds = (_number(part, least=0.0) for part in value)
    if degrees is None or minutes is None or seconds is None:
        return None
    angle = degrees + minutes / 60 + seconds / 3600
    return -angle if str(reference).upper().startswith(negative) else angle
