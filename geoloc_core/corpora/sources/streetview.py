"""Views of panoramas with a table: what the Street View API gives, and any crawl like it.

``panoramas.csv`` has the columns :data:`COLUMNS`, a row per view; the files are where ``path`` says, as
``images/<pano_id>/<heading>.jpg``. The 3,000 images of 55 countries of the poster on feature identification and
PIGEON's sample of four headings per place were never published: a crawl of one's own takes their place.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from geoloc_core.corpora.listing import Files, Folder, Row, listed
from geoloc_core.corpora.on_disk import Shelf
from geoloc_core.corpora.photo import Photo, Reason, Refusal, Source, SourceOptions, locate, numbers, said_of, without
from geoloc_core.corpora.simulated import Plan, Simulation, csv_table, save
from geoloc_core.corpora.tables import csv_chunks

COLUMNS = ("path", "pano_id", "latitude", "longitude", "heading", "date")
OWN = ("month",)
"""Attributes that the table's own columns cannot be."""
PLAN = Plan("street", (0, 90, 180, 270))


class Options(SourceOptions):
    """Where the table is and which places count."""

    kind: Literal["streetview"]
    table: str = "panoramas.csv"
    """CSV with the columns; further ones are attributes."""
    views: int | None = Field(None, gt=0)
    """A panorama with fewer different headings is refused: four make a whole turn."""


def read(options: Options, raw: Path) -> Source:
    """The views in the order of the table, grouped by panorama.

    Raises:
        UserError: The table is missing or wrong; of a later row while the views are read.
    """
    import pyarrow as pa

    header = next(csv_chunks(raw / options.table, COLUMNS, taken=OWN)).columns
    extra = [name for name in header if name not in COLUMNS]
    store = Folder(raw, frozenset({options.table}))
    fields = [("pano_id", pa.string()), ("month", pa.int32()), *((name, pa.string()) for name in extra)]
    rows = _rows(options, raw / options.table, extra, store)
    return Source(without(listed(rows, store, options.table), options.takedown), pa.schema(fields))


def _rows(options: Options, path: Path, extra: list[str], store: Folder) -> Iterator[Row | Refusal]:
    views = _views(path, store) if options.views else None
    for table in csv_chunks(path, COLUMNS, taken=OWN):
        places = locate(table, "latitude", "longitude", options.table)
        for number, row, place in zip(table.index, table.to_dict("records"), places.to_dict("records"), strict=True):
            name, pano, where = row["path"], row["pano_id"], f"{options.table} row {number}"
            if not name.strip() or not pano.strip():
                yield Refusal(name.strip() or where, Reason.BAD_ROW, f"{where}: no path or no pano_id")
                continue
            flaw = place["flaw"]
            count = views.count(f"{pano}\0") if views is not None else None
            if options.views and count is not None and count < options.views:
                flaw = Reason.EXCLUDED, f"panorama {pano} has {count} headings; {options.views} are asked for"
            yield Row(_photo(options, row, {**place, "flaw": flaw}, where, extra), (name,), where)


def _views(path: Path, store: Folder) -> Shelf:
    """Each panorama with each of its headings of which there is a file, whole turns taken off."""
    files, views = Files(store.names()), Shelf()
    for table in csv_chunks(path, COLUMNS):
        headings = numbers(table["heading"]).mod(360)
        for name, pano, heading in zip(table["path"], table["pano_id"], headings, strict=True):
            if heading == heading and files.holds([name]):
                views.first(f"{pano}\0{heading}")
    return views


def _photo(options: Options, row: dict[Any, Any], place: dict[Any, Any], where: str, extra: list[str]) -> Photo:
    said = said_of(where, row["heading"], row["date"])
    return Photo(
        image_id=row["path"],
        data=b"",
        path=row["path"],
        group_id=row["pano_id"],
        latitude=place["latitude"],
        longitude=place["longitude"],
        flaw=place["flaw"],
        licence=options.licence,
        attributes={
            "pano_id": row["pano_id"],
            "month": said["captured_at"].month if said["captured_at"] else None,
            **{name: row[name] or None for name in extra},
        },
        **said,
    )


def write(world: Simulation, folder: Path, options: Options) -> None:
    """Rendered views, four per place."""
    with csv_table(folder / options.table, (*COLUMNS, "country", "copyright")) as table:
        for shot in world.shots:
            pano = pano_id(shot.author, shot.spot)
            path = f"images/{pano}/{shot.heading}.jpg"
            save(folder / path, shot.jpeg)
            place = (shot.latitude, shot.longitude, shot.heading, f"{shot.moment:%Y-%m}")
            table.writerow((path, pano, *place, shot.country, f"© {shot.author}"))


def pano_id(author: str, spot: int) -> str:
    """22 characters such as panoramas are named by, ``_`` and ``-`` among them."""
    from base64 import urlsafe_b64encode
    from hashlib import sha256

    return urlsafe_b64encode(sha256(f"{author} {spot}".encode()).digest())[:22].decode()
