"""Camera facts from a photo's EXIF block: orientation, focal length in pixels, GPS position.

EXIF is optional: a damaged block or a value of the wrong type counts as missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image

FULL_FRAME_DIAGONAL_MM = math.hypot(36.0, 24.0)
# FocalPlaneResolutionUnit: inch, centimetre, millimetre, micrometre
MM_PER_RESOLUTION_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}

# EXIF orientation -> transpose that makes the stored image upright (EXIF 2.32, table 6).
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_transpose(image: Image.Image) -> Image.Transpose | None:
    """Transpose that makes the stored pixels upright; None if they already are."""
    return TRANSPOSES.get(_tags(image).get(ExifTags.Base.Orientation, 1))


def focal_px(image: Image.Image) -> float | None:
    """Focal length in pixels at the image's current size; None if EXIF has none or an implausible one.

    The 35 mm equivalent is preferred. CIPA DCG-001 defines it by the image diagonal, so it survives resizing.
    Otherwise the focal length in millimetres is divided by the sensor's pixel pitch and scaled from the EXIF width.
    """
    tags = _tags(image, ExifTags.IFD.Exif)
    focal: float | None = None
    equivalent = _number(tags.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if equivalent:
        focal = equivalent * math.hypot(*image.size) / FULL_FRAME_DIAGONAL_MM
    else:
        millimetres = _number(tags.get(ExifTags.Base.FocalLength))
        density = _number(tags.get(ExifTags.Base.FocalPlaneXResolution))
        unit = MM_PER_RESOLUTION_UNIT.get(tags.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))
        exif_size = _number(tags.get(ExifTags.Base.ExifImageWidth)), _number(tags.get(ExifTags.Base.ExifImageHeight))
        if millimetres and density and unit and exif_size[0] and exif_size[1]:
            # Compare the longer sides: software that rotates a photo often leaves these two tags unchanged.
            focal = millimetres * density / unit * max(image.size) / max(exif_size[0], exif_size[1])
    is_plausible = focal is not None and 0.3 < focal / max(image.size) < 30  # 150 degrees to 2 degrees
    return focal if is_plausible else None


def gps_position(image: Image.Image) -> tuple[float, float, float | None] | None:
    """(latitude, longitude) in degrees north and east, and altitude in metres or None; None without a position."""
    gps = _tags(image, ExifTags.IFD.GPSInfo)
    latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "S")
    longitude = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "W")
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    if latitude == 0 and longitude == 0:  # written by phones without a GPS fix
        return None
    altitude = _number(gps.get(ExifTags.GPS.GPSAltitude), minimum=0.0)
    if altitude is not None and gps.get(ExifTags.GPS.GPSAltitudeRef) in (1, b"\x01"):
        altitude = -altitude
    return latitude, longitude, altitude


def _tags(image: Image.Image, ifd: ExifTags.IFD | None = None) -> Mapping[int, Any]:
    try:
        exif = image.getexif()
        return exif if ifd is None else exif.get_ifd(ifd)
    except Exception:  # Pillow parses EXIF lazily and does not wrap the errors of its parser
        return {}


def _number(value: Any, minimum: float = 1e-9) -> float | None:
    """Return a finite number of at least `minimum`, or None: EXIF rationals may be 0/0 and have any type."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= minimum else None


def _degrees(value: Any, reference: Any, negative: str) -> float | None:
    """Convert (degrees, minutes, seconds) to signed degrees."""
    if not isinstance(value, tuple) or len(value) != 3:
        return None
    degrees, minutes, seconds = (_number(part, minimum=0.0) for part in value)
    if degrees is None or minutes is None or seconds is None:
        return None
    angle = degrees + minutes / 60 + seconds / 3600
    return -angle if str(reference).upper().startswith(negative) else angle
