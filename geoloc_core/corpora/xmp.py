"""Where and when a photo was taken according to its XMP, which editors write, some of them instead of EXIF."""

import math
import re
from dataclasses import dataclass
from typing import Any

from geoloc_core import tables

MAX_BYTES = 2**18
"""A longer packet is not read: places and dates stand in one of a few thousand bytes."""
EXIF = "http://ns.adobe.com/exif/1.0/ "
"""What the names of EXIF's properties start with, as the parser gives them."""
POSITION = re.compile(r"[0-9.,]+([NSEW])", re.ASCII | re.IGNORECASE)
TAGS = {
    "GPSStatus": 9,
    "GPSDOP": 11,
    "GPSImgDirectionRef": 16,
    "GPSImgDirection": 17,
    "GPSMapDatum": 18,
    "GPSHPositioningError": 31,
}
"""EXIF's tag by the name of its property."""


@dataclass(frozen=True)
class Xmp:
    """What a packet says in EXIF's terms.

    Attributes:
        gps: EXIF's tags of GPS.
        date: ``DateTimeOriginal`` as it is written there.
    """

    gps: dict[int, Any]
    date: str | None


def read(packet: bytes) -> Xmp:
    """Read a packet of XMP.

    Raises:
        ValueError: It is too long, is not XML, or has a document type, which XMP forbids and which could make it grow.
    """
    found = properties(packet)
    gps: dict[int, Any] = {tag: _number(found[name]) for name, tag in TAGS.items() if name in found}
    for name, tag in (("GPSLatitude", 2), ("GPSLongitude", 4)):
        said = found.get(name, "").strip()
        if said:
            # degrees,minutes,seconds or degrees,minutes.decimals, and the hemisphere's letter
            match = POSITION.fullmatch(said)
            gps[tag] = tuple(said[:-1].split(",")) if match else said
            gps[tag - 1] = match[1] if match else said[-1]
    return Xmp(gps, found.get("DateTimeOriginal"))


def _number(said: str) -> Any:
    """A rational such as ``99/10`` as a number; other text as it is."""
    above, slash, below = said.partition("/")
    over, under = tables.number(above), tables.number(below)
    return said if not slash or under == 0 or math.isnan(over / under) else over / under


def properties(packet: bytes) -> dict[str, str]:
    """EXIF's properties by name, whether they are written as attributes or as elements.

    Raises:
        ValueError: As :func:`read`.
    """
    # Entities, which could make a packet grow, need a document type, and that is refused as it begins.
    from xml.parsers import expat

    if len(packet) > MAX_BYTES:
        raise ValueError(f"XMP of {len(packet):,} bytes; at most {MAX_BYTES:,} are read")
    found: dict[str, str] = {}
    inside: list[str] = []

    def start(element: str, attributes: dict[str, str]) -> None:
        inside.append(element)
        found.update({name.removeprefix(EXIF): said for name, said in attributes.items() if name.startswith(EXIF)})

    def data(characters: str) -> None:
        if inside and inside[-1].startswith(EXIF):
            name = inside[-1].removeprefix(EXIF)
            found[name] = found.get(name, "") + characters

    def refuse(*_: object) -> None:
        raise ValueError("XMP with a document type, which is not allowed")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: inside.pop()
    parser.CharacterDataHandler = data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(packet.strip(b"\0 \n\r\t"), True)
    except (expat.ExpatError, LookupError) as error:  # the latter for an encoding nobody knows
        raise ValueError(f"XMP cannot be read: {error}") from None
    return found
