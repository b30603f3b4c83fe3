"""What a source hands to ingest: photos with what is published of them, or the reason why not."""

import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from geoloc_core import tables
from geoloc_core.errors import is_of_the_machine, named
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MONTH = re.compile(r"([0-9]{4})[-/]([0-9]{2})", re.ASCII)
TIME = re.compile(
    r"([0-9]{4})([-/:.])([0-9]{2})\2([0-9]{2})"
    r"(?:[ Tt]+([0-9]{1,2}(?=:)|[0-9]{2})(?::([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]*))?)?)?)?"
    r"(?: *(?:Z|[+-][0-9]{2}(?::?[0-9]{2}){0,2}))?",
    re.ASCII,
)
"""Year, what stands between them, month and day; hour, minute, second and its fraction; a time zone."""
MAX_TURN = 1e6
"""Degrees beyond which a heading is some other number."""
MAX_FILE_BYTES = 2**30
"""A larger file is not a photo: reading it whole could exhaust the memory."""
PLACE_FROM = "place_from"
"""The attribute that says which record a place is from (:class:`Place`), of sources that have it."""


class Reason(StrEnum):
    """Why a photo is refused."""

    TAKEDOWN = "takedown"
    """Its id is on the corpus' ``takedown`` list."""
    LICENCE = "licence"
    """Its licence is not among the corpus' ``licences``."""
    DUPLICATE = "duplicate"
    """The id, or the very same bytes, occurred before; the first one is kept."""
    CONFLICTING_PLACES = "conflicting_places"
    """The very same bytes have another id and another place: none of the places is known to be true."""
    NOT_A_PHOTO = "not_a_photo"
    """The file's suffix is not that of a photo format, or the file is hidden."""
    NO_METADATA = "no_metadata"
    """The photo is there, but the corpus' table does not name it."""
    BAD_ROW = "bad_row"
    """A row of the corpus' table that names no photo."""
    MISSING = "missing"
    """The corpus' table names it, but the photo is not there."""
    GONE = "gone"
    """Its published address no longer had a photo when the corpus was fetched."""
    EMPTY = "empty"
    """Zero bytes."""
    UNREADABLE = "unreadable"
    """No decoder can read the bytes as an image."""
    NO_RANGE = "no_range"
    """An image of 32-bit integers or floats, where nothing says which values are black and white."""
    TOO_LARGE = "too_large"
    """More pixels than ``max_megapixels``, read from the header, or a file of more than 1 GiB."""
    TRUNCATED = "truncated"
    """The image breaks off before its end."""
    NO_COORDINATES = "no_coordinates"
    """Nothing says where it was taken."""
    EXCLUDED = "excluded"
    """A rule of the corpus or of its parameters leaves it out: accuracy, a list of ids, the file's size.

    So is a place that a camera itself calls uncertain (:class:`Gps`).
    """
    BAD_COORDINATES = "bad_coordinates"
    """Not numbers, out of range, or exactly 0, 0, which devices write when they have no GPS fix."""


Flaw = tuple[Reason, str]
"""A reason and, in one line, what exactly was wrong."""


def as_flaw(cells: Sequence[str] | None) -> Flaw | None:
    """A flaw that was kept as plain text."""
    return (Reason(cells[0]), cells[1]) if cells else None


class Gps(Strict):
    """Which of the positions that cameras write are taken; the others are refused as ``excluded``."""

    max_error_m: float | None = Field(1000.0, gt=0)
    """The largest error that a camera may state (GPSHPositioningError), metres; null for any.

    At street level, the finest that is scored, an answer is right within 1 km.
    """
    max_dop: float | None = Field(50.0, gt=0)
    """The largest dilution of precision (GPSDOP); null for any. It makes 500 m of an error of 10."""
    void: bool = False
    """Whether a position is taken that the camera calls void (GPSStatus V): as a rule the last one known."""
    datums: tuple[str, ...] = ("WGS84", "WGS1984", "ETRS89", "NAD83", "JGD2000", "JGD2011", "CGCS2000", "GDA94")
    """The datums taken as WGS 84 (GPSMapDatum), letters and digits of their names; these are within two metres of it.

    Others may be off by hundreds of metres: Tokyo by 400, NAD 27 by 200, ED 50 by 150.
    """


@dataclass(frozen=True)
class Place:
    """Where one record says that a photo was taken, or why it says nothing of use.

    Attributes:
        record: What says so: ``table``, ``exif``, ``xmp`` or ``takeout``.
        latitude: Degrees, WGS 84.
        longitude: Degrees, WGS 84.
        flaw: Why there are no coordinates.
    """

    record: str
    latitude: float | None = None
    longitude: float | None = None
    flaw: Flaw | None = None


@dataclass(frozen=True)
class Said:
    """What a photo, or a file beside it, says of where, when and by whom it was taken; None where nothing of use.

    Attributes:
        places: By record, the more trustworthy first.
        heading: Degrees clockwise from true north; None where the camera gave magnetic north.
        captured_at: Local time of the camera.
        author: The photographer.
        licence: The licence.
        unusable: Values that cannot be used, by the column of the manifest.
    """

    places: tuple[Place, ...] = ()
    heading: float | None = None
    captured_at: datetime | None = None
    author: str | None = None
    licence: str | None = None
    unusable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Photo:
    """An encoded photo and what its corpus says of it.

    Attributes:
        image_id: Unique within the corpus.
        data: The encoded bytes as published.
        path: Its file name.
        group_id: What must not straddle a split.
        latitude: Degrees, WGS 84.
        longitude: Degrees, WGS 84.
        flaw: What is wrong with what the corpus says; counts once the photo itself proves sound.
        heading: Degrees clockwise from north.
        captured_at: Local time of the camera.
        author: The photographer as published.
        licence: The licence as published.
        source_url: Where it was published.
        attributes: Whatever else the corpus publishes, by column.
        gps: Set where the photo itself (EXIF, XMP) fills in what is None here: which of its positions are taken.
        beside: What a file beside it says, which fills in what is None even then.
        placeless: Whether the corpus publishes no coordinates, so that their absence is not a flaw.
        unusable: Published values that cannot be used, by the column of the manifest or the attribute.
    """

    image_id: str
    data: bytes
    path: str
    group_id: str
    latitude: float | None = None
    longitude: float | None = None
    flaw: Flaw | None = None
    heading: float | None = None
    captured_at: datetime | None = None
    author: str | None = None
    licence: str | None = None
    source_url: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    gps: Gps | None = None
    beside: Said | None = None
    placeless: bool = False
    unusable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """A photo that is not taken, and why."""

    image_id: str
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Source:
    """A corpus in its published layout.

    Attributes:
        items: Every photo once, kept or refused, always in the same order.
        attributes: The columns of :attr:`Photo.attributes`.
        total: How many items there will be, as far as that is known beforehand.
    """

    items: Iterable[Photo | Refusal]
    attributes: "pa.Schema"
    total: int | None = None


class SourceOptions(Strict):
    """What every source can be told.

    Takedowns are in the parameters and not in a file of their own, so that adding one makes the corpus out of date.
    """

    takedown: tuple[str, ...] = ()
    """Ids of photos to leave out, as their owners asked."""
    licence: str | None = None
    """The licence of photos that state none."""


def place_flaw(latitude: float, longitude: float) -> str | None:
    """What is wrong with coordinates in degrees, NaN included; None where nothing is."""
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        return f"latitude {latitude:g}, longitude {longitude:g}; expected −90…90 and −180…180 degrees"
    if latitude == 0 and longitude == 0:
        return "exactly 0, 0, which devices write when they have no GPS fix"
    return None


def settled(photo: Photo, said: Iterable[Said]) -> Place:
    """Where a photo was taken: the corpus' word if it has one, else that of the first record that has a place.

    A wrong place of the corpus is a flaw, whatever the photo says; so is one that is left out by a rule, as another
    record may repeat it. A record that says nothing of use leaves it to the next one.

    Args:
        photo: As its corpus publishes it.
        said: What the photo and the file next to it say, the more trustworthy first.

    Returns:
        The place; one with a flaw where there is none and the corpus has to have it.
    """
    own = Place("table", photo.latitude, photo.longitude, photo.flaw)
    if photo.flaw is None and photo.latitude is not None:
        return own
    if photo.flaw and photo.flaw[0] is not Reason.NO_COORDINATES:
        return own
    doubts = [photo.flaw] if photo.flaw else []
    for place in (place for record in said for place in record.places):
        if place.flaw is None or place.flaw[0] is Reason.EXCLUDED:
            return place
        doubts.append(place.flaw)
    if photo.placeless and photo.flaw is None:
        return Place("table")
    return Place("table", flaw=_summed(doubts) or (Reason.NO_COORDINATES, "nothing says where it was taken"))


def _summed(flaws: list[Flaw]) -> Flaw | None:
    """All that was wrong with the records of one photo; the reason is that of the first that has a place at all."""
    if not flaws:
        return None
    reason = next((reason for reason, _ in flaws if reason is not Reason.NO_COORDINATES), Reason.NO_COORDINATES)
    return reason, "; ".join(detail for _, detail in flaws)


def numbers(column: "pd.Series") -> "pd.Series":
    """Text as float64, exactly; NaN where it is not a plain decimal number."""
    import pandas as pd
    import pyarrow as pa

    return pd.Series(tables.numbers(pa.array(column, pa.string())), index=column.index)


def locate(table: "pd.DataFrame", latitude: str, longitude: str, where: str) -> "pd.DataFrame":
    """The coordinates of a table of text.

    Args:
        table: All columns are text; the index is the row's number in the file.
        latitude: Name of the column of latitudes.
        longitude: Name of the column of longitudes.
        where: The file, for messages.

    Returns:
        Columns ``latitude`` and ``longitude`` (degrees) and ``flaw`` (a :data:`Flaw` or None).
    """
    import pandas as pd

    lat, lon = numbers(table[latitude]), numbers(table[longitude])
    flawed = table.index[~(lat.between(-90, 90) & lon.between(-180, 180) & ~(lat.eq(0) & lon.eq(0)))]
    flaws: dict[int, Flaw] = {}
    for row, y, x in zip(flawed, table.loc[flawed, latitude], table.loc[flawed, longitude], strict=True):
        reason = Reason.BAD_COORDINATES if y.strip() or x.strip() else Reason.NO_COORDINATES
        hint = tables.advice(y) or tables.advice(x)
        shown = f"{latitude} {y!r}, {longitude} {x!r}; expected degrees within ±90 and ±180, not 0, 0{hint}"
        flaws[row] = (reason, f"{where} row {row}: {shown}")
    flaw = pd.Series([flaws.get(row) for row in table.index], index=table.index, dtype=object)
    return pd.DataFrame({"latitude": lat, "longitude": lon, "flaw": flaw})


def said_of(where: str, heading: str, date: str, dated: Callable[[str], datetime] | None = None) -> dict[str, Any]:
    """What a table says of heading and date, as arguments of a :class:`Photo`.

    Args:
        where: The file and row, for messages.
        heading: The text in the table; empty if unknown.
        date: The text in the table; empty if unknown.
        dated: Reads a date, or raises ``ValueError``; :func:`moment` where it is None.

    Returns:
        ``heading`` and ``captured_at``, None if unknown, and ``unusable``: texts that are neither.
    """
    found: dict[str, Any] = {}
    unusable: dict[str, str] = {}
    readers: dict[str, tuple[str, Callable[[str], Any]]] = {
        "heading": (heading.strip(), direction),
        "captured_at": (date.strip(), dated or moment),
    }
    for column, (text, read) in readers.items():
        try:
            found[column] = read(text) if text else None
        except ValueError as error:
            found[column], unusable[column] = None, f"{where}: {text!r}; {error}"
    return {**found, "unusable": unusable}


def direction(text: str) -> float:
    """A published heading as degrees clockwise from north, 0 to 360, whole turns taken off.

    Raises:
        ValueError: It is not a number of degrees.
    """
    import numpy as np

    degrees = tables.number(text)
    if not abs(degrees) <= MAX_TURN:
        raise ValueError("expected degrees clockwise from north")
    # What a float32 rounds to a whole turn is north.
    return float(np.float32(degrees % 360)) % 360


def moment(text: str) -> datetime:
    """A published date or time, a month being its first day; a time zone is dropped, the camera's clock counts.

    The year comes first, so that no day can be taken for a month; ``2019/07/31`` and EXIF's ``2019:07:31`` are dates
    too, as is what else ISO 8601 writes. Midnight that ends a day is the start of the next.

    Raises:
        ValueError: It is not a date of the calendar.
    """
    month, time = MONTH.fullmatch(text), TIME.fullmatch(text)
    try:
        if month:
            return datetime(int(month[1]), int(month[2]), 1)
        if time is None:
            return datetime.fromisoformat(text).replace(tzinfo=None)
        day = datetime(int(time[1]), int(time[3]), int(time[4]))
        hour, minute, second = (int(time[part] or 0) for part in (5, 6, 7))
        clock = hour, minute, second, int((time[8] or "").ljust(6, "0")[:6])
        return day + timedelta(1) if clock == (24, 0, 0, 0) else datetime(day.year, day.month, day.day, *clock)
    except (ValueError, OverflowError):
        raise ValueError("expected a date such as 2019:07:31 12:30:05, 2019-07-31 or 2019-07") from None


def real(value: Any) -> float:
    """What a record holds as a number; text as a table's (:func:`geoloc_core.tables.number`).

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    try:
        found = tables.number(value) if isinstance(value, str) else float(value)
    except (TypeError, OverflowError, ZeroDivisionError):
        raise ValueError("expected a number") from None
    if isinstance(value, bool) or (isinstance(value, str) and math.isnan(found)):
        raise ValueError("expected a number")
    return found


def printable(path: str) -> str:
    """A file's name as valid Unicode, whatever bytes the file system holds."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def load(folder: Path, path: str) -> bytes | Flaw:
    """The bytes of a file, or why they cannot be had; a link is followed within the folder alone.

    Raises:
        OSError: Of the machine, not of the file.
    """
    file = os.path.join(folder, path)
    try:
        found = os.lstat(file)
        if stat.S_ISLNK(found.st_mode):
            if leads_out(folder, file):
                return Reason.NOT_A_PHOTO, "a link that leads out of the folder, which is not followed"
            found = os.stat(file)
        if stat.S_ISDIR(found.st_mode):
            return Reason.NOT_A_PHOTO, "a link to a folder, which is not followed"
        if not stat.S_ISREG(found.st_mode):
            return Reason.MISSING, "no such file"
        if found.st_size > MAX_FILE_BYTES:
            return Reason.TOO_LARGE, f"{found.st_size:,} bytes; at most {MAX_FILE_BYTES:,} are read"
        with open(file, "rb") as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a name no file can have
        return Reason.MISSING, "a link to nothing" if os.path.lexists(file) else "no such file"
    except OSError as error:
        if is_of_the_machine(error):
            raise named(error, file) from None
        return Reason.UNREADABLE, error.strerror or str(error)


def leads_out(folder: Path | str, link: Path | str) -> bool:
    """Whether a link leads to something outside of a folder, wherever the folder is; a dead link does not."""
    target, home = os.path.realpath(link), os.path.realpath(folder)
    return os.path.exists(target) and os.path.commonpath((home, target)) != home


def without(items: Iterable[Photo | Refusal], takedown: Iterable[str]) -> Iterator[Photo | Refusal]:
    """The items, those on the takedown list refused."""
    listed = frozenset(takedown)
    for item in items:
        if item.image_id in listed:
            yield Refusal(item.image_id, Reason.TAKEDOWN, "on the takedown list of params.yaml")
        else:
            yield item
