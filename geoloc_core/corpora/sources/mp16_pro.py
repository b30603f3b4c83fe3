"""MP16-Pro: MP-16 with the names of its places, all photos in one tar.

The table names photos ``aa/bb/<photo>.jpg``; in the tar the third part of a member's path is the file's name, with
``_`` for ``/``.
"""

import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoloc_core.corpora.archive import members
from geoloc_core.corpora.listing import Members
from geoloc_core.corpora.on_disk import Rows, in_chunks
from geoloc_core.corpora.photo import (
    Flaw,
    Photo,
    Reason,
    Refusal,
    Source,
    SourceOptions,
    as_flaw,
    locate,
    without,
)
from geoloc_core.corpora.simulated import Plan, Simulation, csv_table
from geoloc_core.corpora.sources.places365 import hashed
from geoloc_core.corpora.tables import csv_chunks
from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("IMG_ID", "LAT", "LON")
PLACE = ("neighbourhood", "city", "county", "state", "region", "country", "continent")
FLAW, KEY = "_flaw", "_key"
MAX_STUB_BYTES = 5120
"""Flickr answers for a photo that is gone with a small picture that says so; smaller members are taken for it."""
CHUNK = 256
PLAN = Plan()


class Options(SourceOptions):
    """The paths within the raw folder."""

    kind: Literal["mp16_pro"]
    metadata: str = "MP16_Pro_places365.csv"
    """CSV with the published columns; those beyond IMG_ID, LAT and LON are kept as attributes."""
    tar: str = "mp-16-images.tar"
    """The tar of all photos."""
    authors: str | None = None
    """CSV with IMG_ID and AUTHOR, such as MP-16's own table: this one names no photographers."""


def read(options: Options, raw: Path) -> Source:
    """The corpus, its tar read once from start to end and never unpacked.

    Raises:
        UserError: A file is missing or its table is wrong.
    """
    import pyarrow as pa

    table = Rows(_metadata(raw / options.metadata), KEY)
    if not (raw / options.tar).is_file():
        raise UserError(f"{raw / options.tar}: no such file; expected the tar of photos")
    authors = None
    if options.authors:
        authors = Rows(csv_chunks(raw / options.authors, ("IMG_ID", "AUTHOR")), "IMG_ID")
    names = [name for name in table.columns if name not in (*COLUMNS, FLAW, KEY)]

    def every() -> Iterator[Photo | Refusal]:
        for number, row in table.again:
            yield _without(options, number, row, Reason.DUPLICATE, "IMG_ID occurred before")
        yield from _stream(options, raw / options.tar, table, authors, names)

    schema = pa.schema([(name, pa.string()) for name in names])
    return Source(without(every(), options.takedown), schema, table.total)


def _metadata(path: Path) -> Iterator["pd.DataFrame"]:
    for table in csv_chunks(path, COLUMNS, taken=(FLAW, KEY)):
        table[["LAT", "LON", FLAW]] = locate(table, "LAT", "LON", path.name)
        table[KEY] = table["IMG_ID"].str.replace("/", "_")
        yield table


def _stream(
    options: Options, tar: Path, table: Rows, authors: Rows | None, names: list[str]
) -> Iterator[Photo | Refusal]:
    met, named = bytearray(table.last + 1), Members(table)
    for chunk in in_chunks(_members(tar), CHUNK):
        rows = named.find(name for name, _ in chunk)
        known = authors.find({row["IMG_ID"] for _, row in rows.values()}) if authors is not None else {}
        for name, data in chunk:
            if name not in rows:
                wrong = (Reason.NO_METADATA, f"in {options.tar}, not in {options.metadata}{named.hint(name)}")
                yield Refusal(name, *(wrong if isinstance(data, bytes) else data))
                continue
            at, row = rows[name]
            if met[at]:
                yield Refusal(row["IMG_ID"], Reason.DUPLICATE, f"in {options.tar}: {name} occurred before")
                continue
            met[at] = True
            if isinstance(data, bytes):
                author = known[row["IMG_ID"]][1]["AUTHOR"] if row["IMG_ID"] in known else None
                yield _photo(options, row, author or None, name, data, names)
            else:
                yield Refusal(row["IMG_ID"], *data)
    for number, row in table:
        if not met[number]:
            yield _without(options, number, row, Reason.MISSING, f"not in {options.tar}")


def _without(options: Options, number: int, row: dict[str, Any], reason: Reason, detail: str) -> Refusal:
    """A row that has no photo of its own."""
    where = f"{options.metadata} row {number}"
    if not row["IMG_ID"].strip():
        return Refusal(where, Reason.BAD_ROW, f"{where}: no IMG_ID")
    return Refusal(row["IMG_ID"], reason, f"{where}: {detail}")


def _photo(
    options: Options, row: dict[str, Any], author: str | None, name: str, data: bytes, names: list[str]
) -> Photo:
    return Photo(
        image_id=row["IMG_ID"],
        data=data,
        path=name,
        group_id=author or row["IMG_ID"],
        latitude=row["LAT"],
        longitude=row["LON"],
        flaw=as_flaw(row[FLAW]),
        author=author,
        licence=options.licence,
        attributes={column: row[column] or None for column in names},
    )


def _members(tar: Path) -> Iterator[tuple[str, bytes | Flaw]]:
    """The files of the tar by their names, those taken for a photo's remains refused."""
    for path, data in members(tar):
        if isinstance(data, bytes) and len(data) <= MAX_STUB_BYTES:
            stub = f"{len(data):,} bytes; at most {MAX_STUB_BYTES:,}: the picture for a photo that is gone"
            yield _name(path), (Reason.EXCLUDED, stub)
        else:
            yield _name(path), data


def _name(path: str) -> str:
    """The third part of a path, as this tar is published; the last one where there are fewer."""
    parts = path.split("/")
    return parts[2] if len(parts) > 2 else parts[-1]


def write(world: Simulation, folder: Path, options: Options) -> None:
    """Rendered photos in one tar, with the names of their places as far as the world knows them."""
    tables = folder / options.metadata
    with tarfile.open(folder / options.tar, "w") as tar, csv_table(tables, (*COLUMNS, *PLACE)) as table:
        for shot in world.shots:
            name = hashed(shot.number)
            table.writerow((name, shot.latitude, shot.longitude, "", shot.city, "", "", "", shot.country_name, ""))
            member = tarfile.TarInfo(f"mp-16/images/{name.replace('/', '_')}")
            # A simulated photo may be small enough to be taken for a stub; a JPEG may end in what no decoder reads.
            data = shot.jpeg.ljust(MAX_STUB_BYTES + 1, b"\0")
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
