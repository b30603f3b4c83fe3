"""Where, when, by whom: what a camera wrote into a photo."""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from geoloc_core.corpora.photo import Flaw, Reason, place_flaw

if TYPE_CHECKING:
    from PIL.Image import Image

EXIF_IFD, GPS_IFD = 0x8769, 0x8825
ORIENTATION, ARTIST, COPYRIGHT, DATE_TIME_ORIGINAL = 0x0112, 0x013B, 0x8298, 0x9003
LATITUDE_REF, LATITUDE, LONGITUDE_REF, LONGITUDE, DIRECTION_REF, DIRECTION = 1, 2, 3, 4, 16, 17


@dataclass(frozen=True)
class Exif:
    """What EXIF says; None where it says nothing of use.

    Attributes:
        latitude: Degrees, WGS 84.
        longitude: Degrees, WGS 84.
        flaw: Why there are no coordinates.
        heading: Degrees clockwise from true north; None where the camera gave magnetic north.
        captured_at: Local time of the camera.
        author: The tag ``Artist``.
        licence: The tag ``Copyright``.
    """

    latitude: float | None = None
    longitude: float | None = None
    flaw: Flaw | None = None
    heading: float | None = None
    captured_at: datetime | None = None
    author: str | None = None
    licence: str | None = None


def read(image: "Image") -> Exif:
    """The EXIF of an opened image; a damaged one is a flaw, never an error."""
    try:
        tags = image.getexif()
        gps, camera = tags.get_ifd(GPS_IFD), tags.get_ifd(EXIF_IFD)
        author, licence = text(tags.get(ARTIST)), text(tags.get(COPYRIGHT))
    except Exception as error:  # Pillow raises whatever a damaged block leads to
        return Exif(flaw=(Reason.NO_COORDINATES, f"EXIF cannot be read: {error}"))
    latitude, longitude, flaw = place(gps)
    return Exif(latitude, longitude, flaw, heading(gps), moment(camera.get(DATE_TIME_ORIGINAL)), author, licence)


def orientation(image: "Image") -> int:
    """How the pixels are to be turned to be seen upright, 1 … 8; 1 (not at all) where EXIF does not say."""
    try:
        value = image.getexif().get(ORIENTATION)
    except Exception:  # as in `read`
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def place(gps: dict[int, Any]) -> tuple[float | None, float | None, Flaw | None]:
    """Latitude and longitude in degrees, or the reason why there are none."""
    if LATITUDE not in gps or LONGITUDE not in gps:
        return None, None, (Reason.NO_COORDINATES, "no GPS position in EXIF")
    try:
        latitude = degrees(gps[LATITUDE], gps.get(LATITUDE_REF), "NS")
        longitude = degrees(gps[LONGITUDE], gps.get(LONGITUDE_REF), "EW")
    except ValueError as error:
        return None, None, (Reason.BAD_COORDINATES, f"EXIF {error}")
    wrong = place_flaw(latitude, longitude)
    return (None, None, (Reason.BAD_COORDINATES, f"EXIF {wrong}")) if wrong else (latitude, longitude, None)


def degrees(value: Any, reference: Any, signs: str) -> float:
    """Degrees, minutes and seconds as signed degrees.

    Args:
        value: One to three numbers: degrees, minutes, seconds.
        reference: The hemisphere as text or bytes, such as ``"N"`` or ``b"w"``.
        signs: The letters of the positive and the negative hemisphere.

    Raises:
        ValueError: The numbers or the hemisphere are no such thing.
    """
    letter = (text(reference) or "")[:1].upper()
    if not letter or letter not in signs:
        raise ValueError(f"hemisphere {reference!r}; expected {' or '.join(signs)}")
    try:
        parts = [float(part) for part in (value if isinstance(value, tuple | list) else (value,))]
    except (TypeError, ValueError, ZeroDivisionError):
        raise ValueError(f"position {value!r}; expected degrees, minutes, seconds") from None
    if not 1 <= len(parts) <= 3 or not all(math.isfinite(part) and part >= 0 for part in parts):
        raise ValueError(f"position {shown(parts)}; expected degrees, minutes, seconds, none negative")
    if any(part > 60 for part in parts[1:]):
        raise ValueError(f"position {shown(parts)}; expected at most 60 minutes and 60 seconds")
    total = sum(part / 60**power for power, part in enumerate(parts))
    return total if letter == signs[0] else -total


def shown(parts: list[float]) -> str:
    """Numbers for a message."""
    return " ".join(f"{part:g}" for part in parts[:4])


def heading(gps: dict[int, Any]) -> float | None:
    """Degrees clockwise from true north; None where unknown or relative to magnetic north."""
    if (text(gps.get(DIRECTION_REF)) or "T").upper() != "T":
        return None
    try:
        value = float(gps[DIRECTION])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return value % 360 if 0 <= value <= 360 else None


def moment(value: Any) -> datetime | None:
    """``2008:10:22 16:28:39`` as a time; None where it is none."""
    try:
        return datetime.strptime((text(value) or "")[:19], "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None


def text(value: Any) -> str | None:
    """A tag as clean text; None where it is empty or no text."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    return value.replace("\0", " ").strip() or None
