"""Where, when, by whom: what a camera wrote into a photo."""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from geoloc_core.corpora import photo, xmp
from geoloc_core.corpora.photo import Flaw, Gps, Place, Reason, Said, place_flaw, real
from geoloc_core.errors import is_of_the_machine

if TYPE_CHECKING:
    from PIL.Image import Image

EXIF_IFD, GPS_IFD = 0x8769, 0x8825
ARTIST, COPYRIGHT = 0x013B, 0x8298
DATE_TIME_ORIGINAL, DATE_TIME_DIGITIZED, DATE_TIME = 0x9003, 0x9004, 0x0132
LATITUDE_REF, LATITUDE, LONGITUDE_REF, LONGITUDE = 1, 2, 3, 4
STATUS, DOP, DIRECTION_REF, DIRECTION, DATUM, ERROR = 9, 11, 16, 17, 18, 31
UNKNOWN = re.compile(r"[0 :/.-]*", re.ASCII)
"""What a camera without a clock writes as the time: blanks or zeros."""


def read(image: "Image", gps: Gps) -> Said:
    """What an opened photo says in its EXIF, and in its XMP where EXIF says nothing; damage is a flaw, never an error.

    Args:
        image: Not decoded yet.
        gps: Which positions are taken.
    """
    try:
        tags = image.getexif()
        positions, camera = tags.get_ifd(GPS_IFD), tags.get_ifd(EXIF_IFD)
        author, licence = text(tags.get(ARTIST)), text(tags.get(COPYRIGHT))
        dates = {
            "DateTimeOriginal": camera.get(DATE_TIME_ORIGINAL),
            "DateTimeDigitized": camera.get(DATE_TIME_DIGITIZED),
            "DateTime": tags.get(DATE_TIME),
        }
    except Exception as error:  # Pillow raises whatever a damaged block leads to
        if is_of_the_machine(error):
            raise
        flaw = (Reason.NO_COORDINATES, f"EXIF cannot be read: {' '.join(str(error).split())}")
        places, positions, dates, author, licence = [Place("exif", flaw=flaw)], {}, {}, None, None
    else:
        places = [place(positions, gps, "exif")]
    packet = image.info.get("xmp")
    if isinstance(packet, bytes) and packet and (places[0].flaw or not any(map(text, dates.values()))):
        try:
            found = xmp.read(packet)
        except ValueError as error:
            places.append(Place("xmp", flaw=(Reason.NO_COORDINATES, str(error))))
        else:
            places.append(place(found.gps, gps, "xmp"))
            positions = positions or found.gps
            dates["XMP's DateTimeOriginal"] = found.date
    unusable: dict[str, str] = {}
    return Said(tuple(places), heading(positions, unusable), first_moment(dates, unusable), author, licence, unusable)


def place(positions: Mapping[int, Any], gps: Gps, record: str) -> Place:
    """Latitude and longitude in degrees, or the reason why there are none.

    Args:
        positions: EXIF's tags of GPS.
        gps: Which positions are taken.
        record: What they were read from, ``exif`` or ``xmp``.
    """
    name = record.upper()
    if LATITUDE not in positions or LONGITUDE not in positions:
        return Place(record, flaw=(Reason.NO_COORDINATES, f"no GPS position in {name}"))
    try:
        latitude = degrees(positions[LATITUDE], positions.get(LATITUDE_REF), "NS")
        longitude = degrees(positions[LONGITUDE], positions.get(LONGITUDE_REF), "EW")
    except ValueError as error:
        return Place(record, flaw=(Reason.BAD_COORDINATES, f"{name} {error}"))
    wrong = place_flaw(latitude, longitude)
    flaw: Flaw | None = (Reason.BAD_COORDINATES, f"{name} {wrong}") if wrong else None
    doubt = doubtful(positions, gps)
    flaw = flaw or ((Reason.EXCLUDED, f"{name} {doubt}") if doubt else None)
    return Place(record, flaw=flaw) if flaw else Place(record, latitude, longitude)


def doubtful(positions: Mapping[int, Any], gps: Gps) -> str | None:
    """What a camera itself says against its position; None where nothing."""
    if not gps.void and (text(positions.get(STATUS)) or "").upper().startswith("V"):
        return "GPSStatus V: the receiver had no position then; `gps: {void: true}` takes it"
    datum = text(positions.get(DATUM))
    if datum and plain(datum) not in map(plain, gps.datums):
        return f"GPSMapDatum {datum!r}; expected WGS-84, or another of `gps: {{datums: …}}`"
    for name, tag, limit, unit in (
        ("GPSHPositioningError", ERROR, gps.max_error_m, " m"),
        ("GPSDOP", DOP, gps.max_dop, ""),
    ):
        value = number(positions.get(tag))
        if limit is not None and value is not None and value > limit:
            option = "max_error_m" if tag == ERROR else "max_dop"
            return f"{name} {value:g}{unit}; expected at most {limit:g}{unit}, the `gps: {{{option}: …}}` of the source"
    return None


def plain(datum: str) -> str:
    """The letters and digits of a name."""
    return "".join(letter for letter in datum.upper() if letter.isalnum())


def number(value: Any) -> float | None:
    """A tag as a number; None if it is not one, or is 0/0, which means unknown."""
    try:
        found = real(value)
    except ValueError:
        return None
    return None if math.isnan(found) else found


def degrees(value: Any, reference: Any, signs: str) -> float:
    """Degrees, minutes and seconds as signed degrees.

    Args:
        value: One to three numbers: degrees, minutes, seconds.
        reference: The hemisphere as text or bytes, such as ``"N"`` or ``b"w"``.
        signs: The letters of the positive and the negative hemisphere.

    Raises:
        ValueError: The numbers or the hemisphere are invalid.
    """
    letter = (text(reference) or "")[:1].upper()
    if not letter or letter not in signs:
        raise ValueError(f"hemisphere {reference!r}; expected {' or '.join(signs)}")
    try:
        parts = [real(part) for part in (value if isinstance(value, tuple | list) else (value,))]
    except ValueError:
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


def heading(positions: Mapping[int, Any], unusable: dict[str, str]) -> float | None:
    """Degrees clockwise from true north; None where unknown or relative to magnetic north.

    Args:
        positions: EXIF's tags of GPS.
        unusable: A value that is not a direction is added under ``heading``.
    """
    said = positions.get(DIRECTION)
    if said is None or (text(positions.get(DIRECTION_REF)) or "T").upper() != "T":
        return None
    try:
        value = real(said)
    except ValueError:
        value = math.inf
    if math.isnan(value):
        return None
    if 0 <= value <= 360:
        return value % 360
    unusable["heading"] = f"GPSImgDirection {str(said)[:40]!r}; expected 0 to 360 degrees"
    return None


def first_moment(dates: Mapping[str, Any], unusable: dict[str, str]) -> datetime | None:
    """The first of some tags that is a time.

    Args:
        dates: Tags by name, the one that counts most first.
        unusable: If none is a time, the first value is added under ``captured_at``.
    """
    wrong = ""
    for name, value in dates.items():
        try:
            found = moment(value)
        except ValueError as error:
            wrong = wrong or f"{name} {(text(value) or str(value))[:40]!r}; {error}"
        else:
            if found:
                return found
    if wrong:
        unusable["captured_at"] = wrong
    return None


def moment(value: Any) -> datetime | None:
    """A tag such as ``2008:10:22 16:28:39`` as local time in whole seconds; None where it is empty, or all zeros.

    Raises:
        ValueError: It is not a time (:func:`geoloc_core.corpora.photo.moment`).
    """
    said = "" if value is None else text(value) if isinstance(value, str | bytes) else str(value)
    return None if not said or UNKNOWN.fullmatch(said) else photo.moment(said).replace(microsecond=0)


def text(value: Any) -> str | None:
    """A tag as clean text; None where it is empty or no text."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    return value.replace("\0", " ").strip() or None
