"""What Google's Takeout puts beside each photo: a JSON file that says where and when it was taken.

It is named after the photo, ``IMG_1.jpg.json`` or ``IMG_1.jpg.supplemental-metadata.json``, before ``.json`` at most
46 characters long and cut anywhere; the counter of a second ``IMG_1.jpg`` stands at the end of one name and before the
suffix of the other: ``IMG_1(1).jpg``, ``IMG_1.jpg(1).json``. An edited copy, ``IMG_1-edited.jpg``, has none of its own.
"""

import json
import re
from datetime import datetime, timedelta
from typing import Any

from geoloc_core.corpora.decode import not_a_photo
from geoloc_core.corpora.on_disk import Shelf, as_bytes, as_text
from geoloc_core.corpora.photo import Flaw, Place, Reason, Said, place_flaw, printable, real

ADDED = ".supplemental-metadata"
LONGEST = 46
EDITED = "-edited"
COUNTED = re.compile(r"(.*)(\([0-9]+\))", re.ASCII | re.DOTALL)
MAX_BYTES = 2**20
"""A longer file is none of Takeout's, which have a few hundred bytes."""


def beside(files: Shelf) -> Shelf:
    """Take the JSON files that are named after photos off a list of files.

    Args:
        files: Paths of all files; those of the JSON files found are taken off.

    Returns:
        The path of the JSON file by the printable one of its photo. One that several photos may mean, since names were
        cut, is none's.
    """
    known, named, owners, shared, found = Shelf(), Shelf(), Shelf(), Shelf(), Shelf()
    for path in files:
        if path.endswith(".json"):
            known.first(_key(path), as_bytes(path))
    for path in files if len(known) else ():
        if not_a_photo(path):
            continue
        *keys, original = _keys(path)
        value = next((value for key in keys if (value := known.get(key))), None)
        if value is not None:
            named.first(printable(path), value)
            owner = owners.first(as_text(value), as_bytes(original))
            if owner not in (None, as_bytes(original)):
                shared.first(as_text(value))
    for path in named:
        if as_text(named[path]) not in shared:
            found.first(path, named[path])
    for path in found:
        files.take(as_text(found[path]))
    return found


def _key(path: str) -> str:
    """The photo that a JSON file is named after: path, cut, and counter at the end."""
    name, counter = path.removesuffix(".json"), ""
    if counted := COUNTED.fullmatch(name):
        name, counter = counted.groups()
    added = next((ADDED[:end] for end in range(len(ADDED), 0, -1) if name.endswith(ADDED[:end])), "")
    return name.removesuffix(added) + counter


def _keys(path: str) -> tuple[str, ...]:
    """What :func:`_key` makes of the JSON files that a photo may have, the likeliest first.

    The last one is the same for a photo and its edited copies, and for no other.
    """
    folder, slash, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    counted = COUNTED.fullmatch(stem)
    bare, counter = counted.groups() if counted else (stem, "")
    copy, original = f"{bare}{dot}{suffix}", f"{bare.removesuffix(EDITED)}{dot}{suffix}"
    names = ((name, ""), (name[:LONGEST], ""), (copy[:LONGEST], counter), (original[:LONGEST], counter))
    return tuple(f"{folder}{slash}{named}{number}" for named, number in (*names, (original, counter)))


def read(data: bytes | Flaw, name: str) -> Said:
    """What a JSON file says; damage is a flaw, never an error.

    Args:
        data: Its bytes, or why they cannot be had.
        name: Its path, for messages.
    """
    if isinstance(data, tuple):
        return _nothing(f"{name}: {data[1]}")
    if len(data) > MAX_BYTES:
        return _nothing(f"{name}: {len(data):,} bytes; at most {MAX_BYTES:,} are read")
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        return _nothing(f"{name}: cannot be read as JSON: {error}")
    if not isinstance(said, dict):
        return _nothing(f"{name}: expected an object of Takeout's")
    # the camera's own word before what was guessed or set later
    places = tuple(_place(said.get(key), f"{name}: {key}") for key in ("geoDataExif", "geoData"))
    unusable: dict[str, str] = {}
    return Said(places, captured_at=_moment(said.get("photoTakenTime"), name, unusable), unusable=unusable)


def _nothing(why: str) -> Said:
    return Said((Place("takeout", flaw=(Reason.NO_COORDINATES, why)),))


def _place(block: Any, where: str) -> Place:
    block = block if isinstance(block, dict) else {}
    latitude, longitude = block.get("latitude"), block.get("longitude")
    if latitude in (None, 0) and longitude in (None, 0):
        return Place("takeout", flaw=(Reason.NO_COORDINATES, f"{where} has no place"))
    try:
        latitude, longitude = real(latitude), real(longitude)
    except ValueError:
        shown = f"latitude {str(latitude)[:20]}, longitude {str(longitude)[:20]}"
        return Place("takeout", flaw=(Reason.BAD_COORDINATES, f"{where}: {shown}; expected degrees"))
    wrong = place_flaw(latitude, longitude)
    return (
        Place("takeout", flaw=(Reason.BAD_COORDINATES, f"{where}: {wrong}"))
        if wrong
        else Place("takeout", latitude, longitude)
    )


def _moment(block: Any, name: str, unusable: dict[str, str]) -> datetime | None:
    """Takeout's time, which is UTC: the camera's own, where EXIF has it, counts before it."""
    stamp = block.get("timestamp") if isinstance(block, dict) else None
    if stamp is None:
        return None
    try:
        return datetime(1970, 1, 1) + timedelta(seconds=int(real(stamp)))
    except (ValueError, OverflowError):
        unusable["captured_at"] = f"{name}: photoTakenTime {str(stamp)[:20]}; expected seconds since 1970"
        return None
