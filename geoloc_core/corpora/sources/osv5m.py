"""OpenStreetView-5M: a table of 5.1 million street views, photos in numbered zips or the folders they unpack to.

Columns that are read are :data:`COLUMNS`; the others are attributes. A folder of some of the zips is enough.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from math import isnan
from pathlib import Path
from typing import Any, Literal
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from pydantic import Field

from geoloc_core import tables
from geoloc_core.corpora.listing import Folder, Row, Store, Zips, base, listed
from geoloc_core.corpora.on_disk import Shelf, as_bytes, as_text
from geoloc_core.corpora.photo import Photo, Reason, Refusal, Source, SourceOptions, locate, moment, said_of, without
from geoloc_core.corpora.simulated import Plan, Shot, Simulation, csv_table
from geoloc_core.corpora.tables import csv_chunks
from geoloc_core.errors import UserError

COLUMNS = (
    "id",
    "latitude",
    "longitude",
    "thumb_original_url",
    "sequence",
    "captured_at",
    "creator_username",
    "creator_id",
)
HEADER = (
    *("id", "latitude", "longitude", "thumb_original_url", "country", "sequence", "captured_at", "lon_bin", "lat_bin"),
    *("cell", "region", "sub-region", "city", "land_cover", "road_index", "drive_side", "climate", "soil", "dist_sea"),
    *("quadtree_10_5000", "quadtree_10_25000", "quadtree_10_1000", "quadtree_10_50000", "quadtree_10_12500"),
    *("quadtree_10_500", "quadtree_10_2500", "unique_region", "unique_sub-region", "unique_city", "unique_country"),
    *("creator_username", "creator_id"),
)
UNKNOWN = ("", "NaN")
"""How the table writes what it does not know."""
PER_ZIP = 50_000
PLAN = Plan("street")
LICENCE = "CC BY-SA 4.0"


class Options(SourceOptions):
    """The paths within the raw folder."""

    kind: Literal["osv5m"]
    metadata: str = "train.csv"
    """The table."""
    images: str = "images/train"
    """Folder of the zips, or of what they unpack to."""
    limit: int | None = Field(None, gt=0)
    """Take the first so many photos that are there; the rest of the table is not read."""
    group_by: Literal["creator", "sequence"] = "creator"
    """What must not straddle a split: who took a photo, or the ride on which it was taken."""


def read(options: Options, raw: Path) -> Source:
    """The photos in the order of the table, which is read as a stream.

    Raises:
        UserError: A file is missing, or the table lacks a column.
    """
    import pyarrow as pa

    folder = raw / options.images
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected OSV-5M's zips 00.zip …, or their unpacked contents")
    header = next(csv_chunks(raw / options.metadata, COLUMNS)).columns
    extra = [str(name) for name in header if name not in COLUMNS]
    schema = pa.schema([(name, pa.string()) for name in extra])

    def items() -> Iterator[Photo | Refusal]:
        zips = sorted(folder.glob("*.zip"))
        store: Store = Zips.open(zips) if zips else Folder(folder)
        paths = Shelf()
        for name in store.names():
            paths.first(base(name), as_bytes(name))
        yield from listed(_rows(options, raw, paths, extra), store, options.metadata, options.limit, base)

    return Source(without(items(), options.takedown), schema, options.limit)


def _rows(options: Options, raw: Path, paths: Shelf, extra: list[str]) -> Iterator[Row | Refusal]:
    for table in csv_chunks(raw / options.metadata, COLUMNS):
        places = locate(table, "latitude", "longitude", options.metadata)
        for number, row, place in zip(table.index, table.to_dict("records"), places.to_dict("records"), strict=True):
            where = f"{options.metadata} row {number}"
            if not row["id"].strip():
                yield Refusal(where, Reason.BAD_ROW, f"{where}: no id")
                continue
            name = f"{row['id']}.jpg"
            yield Row(_photo(options, row, place, extra, where), (as_text(paths.get(name) or as_bytes(name)),), where)


def _photo(options: Options, row: dict[Any, str], place: dict[Any, Any], extra: list[str], where: str) -> Photo:
    creator = row["creator_id"] or row["creator_username"]
    group = creator if options.group_by == "creator" else row["sequence"]
    return Photo(
        image_id=row["id"],
        data=b"",
        path="",
        group_id=group or row["id"],
        latitude=place["latitude"],
        longitude=place["longitude"],
        flaw=place["flaw"],
        author=row["creator_username"] or None,
        licence=options.licence or LICENCE,
        source_url=row["thumb_original_url"] or None,
        attributes={name: row[name] if row[name] not in UNKNOWN else None for name in extra},
        **said_of(where, "", "" if row["captured_at"] in UNKNOWN else row["captured_at"], _moment),
    )


def _moment(text: str) -> datetime:
    """A time in milliseconds since 1970, or a date as text."""
    since = tables.number(text)
    try:
        return moment(text) if isnan(since) else datetime(1970, 1, 1) + timedelta(milliseconds=since)
    except (ValueError, OverflowError):
        raise ValueError("expected milliseconds since 1970, or a date such as 2019-07-31") from None


def write(world: Simulation, folder: Path, options: Options) -> None:
    """Rendered views from roads in numbered zips."""
    root = folder / options.images
    root.mkdir(parents=True)
    files: dict[int, ZipFile] = {}
    with csv_table(folder / options.metadata, HEADER) as table:
        for count, shot in enumerate(world.shots):
            number = count // PER_ZIP
            if number not in files:
                for file in files.values():
                    file.close()
                files = {number: ZipFile(root / f"{number:02}.zip", "w", ZIP_STORED)}
            # A fixed date, so that the same photos are the same bytes.
            files[number].writestr(ZipInfo(f"{number:02}/{shot.number}.jpg"), shot.jpeg)
            table.writerow([_fields(shot).get(name, "") for name in HEADER])
    for file in files.values():
        file.close()


def _fields(shot: Shot) -> dict[str, Any]:
    name, number = shot.author.split("@")
    return {
        "id": shot.number,
        "latitude": shot.latitude,
        "longitude": shot.longitude,
        "thumb_original_url": shot.url,
        "country": shot.country,
        "unique_country": shot.country,
        "city": shot.city,
        "sequence": f"{shot.secret}-{number}",
        "captured_at": int((shot.moment - datetime(1970, 1, 1)).total_seconds() * 1000),
        "creator_username": shot.author,
        "creator_id": name,
    }
