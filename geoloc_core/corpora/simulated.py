"""Between the demo world and the layouts: rendered photos, before they are written in a layout.

A layout says in its ``PLAN`` what to render, and its ``write`` writes the shots as the real corpus is published.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from geoloc_core.tables import CsvWriter

EVERYWHERE = (-90.0, -180.0, 90.0, 180.0)


@dataclass(frozen=True)
class Plan:
    """What a layout asks of the renderer.

    Attributes:
        style: Photos as people take them, or views from a road.
        headings: Degrees clockwise from north of the views of each place; without any, a photo per place.
        country: Two-letter code of the only country; any where None.
        within: South, west, north and east in degrees: only cities inside are used.
        masks: Whether the layout supports masks.
    """

    style: Literal["flickr", "street"] = "flickr"
    headings: tuple[int, ...] = ()
    country: str | None = None
    within: tuple[float, float, float, float] = EVERYWHERE
    masks: bool = False


@dataclass(frozen=True)
class Shot:
    """A rendered photo and all that a corpus could publish of it.

    Attributes:
        index: Its number.
        spot: Number of its place: shots with the same one are views of the same place.
        author: Written like an account of a photo site.
        latitude: Degrees.
        longitude: Degrees.
        country: Two-letter code.
        country_name: As GeoNames writes it.
        city: Name of the city it is near.
        heading: Degrees clockwise from north; None if unknown.
        taken: Local time.
        labels: Indices among the 3, 16 and 365 classes of Places365.
        probabilities: Of indoor, natural and urban.
        caption: A title in English.
        number: Ten digits, unique in the corpus.
        secret: Ten hexadecimal digits.
        server: A small number.
        jpeg: The photo.
        mask: Its mask as a PNG, if asked for.
        seen: What the photo shows, in English and without a word on where: phrases with ``; `` between them.
    """

    index: int
    spot: int
    author: str
    latitude: float
    longitude: float
    country: str
    country_name: str
    city: str
    heading: int | None
    taken: str
    labels: tuple[int, int, int]
    probabilities: tuple[float, float, float]
    caption: str
    number: int
    secret: str
    server: int
    jpeg: bytes
    mask: bytes | None
    seen: str = ""

    @property
    def url(self) -> str:
        """A made-up address."""
        return f"https://photos.example/{self.server}/{self.number}_{self.secret}.jpg"

    @property
    def moment(self) -> datetime:
        """When it was taken, local time."""
        return datetime.fromisoformat(self.taken)


@dataclass(frozen=True)
class Simulation:
    """A whole rendered corpus.

    Attributes:
        shots: Once, in order.
        clues: What a guidebook would say: ``clue_id``, ``country`` (two letters), ``topic`` and ``text``.
    """

    shots: Iterable[Shot]
    clues: Sequence[dict[str, str]] = ()


@contextmanager
def csv_table(path: Path, header: Sequence[str] | None) -> Iterator[CsvWriter]:
    """A CSV that rows are written to, with or without a header line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = CsvWriter(stream)
        if header:
            writer.writerow(header)
        yield writer


def save(path: Path, data: bytes) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def png(jpeg: bytes) -> bytes:
    """A photo as PNG, for layouts published so."""
    from io import BytesIO

    from PIL import Image

    stream = BytesIO()
    with Image.open(BytesIO(jpeg)) as image:
        image.save(stream, "PNG", compress_level=1)  # a twentieth larger, in a third of the time
    return stream.getvalue()
