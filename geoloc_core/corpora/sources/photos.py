"""Any folder of photographs: coordinates from a table, from their EXIF or XMP, or from what Google's Takeout wrote."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from geoloc_core.corpora import takeout
from geoloc_core.corpora.listing import Folder, Row, listed
from geoloc_core.corpora.on_disk import Shelf, as_text, files_on
from geoloc_core.corpora.photo import (
    PLACE_FROM,
    Gps,
    Photo,
    Reason,
    Refusal,
    Source,
    SourceOptions,
    load,
    locate,
    printable,
    said_of,
    without,
)
from geoloc_core.corpora.simulated import Plan, Shot, Simulation, csv_table, save
from geoloc_core.corpora.tables import csv_chunks
from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

PLAN = Plan()


class Options(SourceOptions):
    """Which files, and what says where they were taken."""

    kind: Literal["photos"]
    table: str | None = None
    """CSV in the raw folder, one row per photo.

    Values that are missing from it, or all values without a table, come from the photo's EXIF, else its XMP, else the
    JSON file of Google's Takeout next to it, which is not counted as seen or refused. The attribute ``place_from``
    names the record of each place.
    """
    gps: Gps = Gps()
    """Which of the positions in EXIF and XMP are taken."""
    path_column: str = "path"
    """The photo's path, relative to the raw folder."""
    latitude_column: str = "latitude"
    longitude_column: str = "longitude"
    group_column: str | None = None
    """What must not straddle a split; else ``group_by``."""
    author_column: str | None = None
    licence_column: str | None = None
    url_column: str | None = None
    heading_column: str | None = None
    """Degrees clockwise from north."""
    date_column: str | None = None
    """A month, ``2019-07``, a day or a time; EXIF's where empty."""
    group_by: Literal["folder", "file", "prefix"] = "folder"
    """A group per folder (a sequence), per file, or per name up to its last ``_`` (cuts of a panorama)."""

    @model_validator(mode="after")
    def _columns_need_a_table(self) -> Self:
        named = sorted(name for name in self.model_fields_set if name.endswith("_column"))
        if self.table is None and named:
            raise ValueError(f"`{named[0]}` without `table`; give the CSV, or leave the column out")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table that have a meaning; the others are attributes."""
        optional = (
            self.group_column,
            self.author_column,
            self.licence_column,
            self.url_column,
            self.heading_column,
            self.date_column,
        )
        return (self.path_column, self.latitude_column, self.longitude_column, *filter(None, optional))


def read(options: Options, raw: Path) -> Source:
    """The photos of a folder, those that a table names first and in its order.

    Raises:
        UserError: The folder or the table is missing or wrong; of a later row while the photos are read.
    """
    import pyarrow as pa

    if not raw.is_dir():
        raise UserError(f"{raw}: no such folder; expected the photos; run the stage that fetches them")
    files = files_on(raw, {options.table})
    beside = takeout.beside(files)
    store = Folder(raw, suffixed=True, listed=files)
    place_from = pa.field(PLACE_FROM, pa.string(), metadata={"meaning": "table, exif, xmp or takeout"})
    if options.table is None:
        items = _with_beside(_from_exif(options, store, files), raw, beside)
        return Source(without(items, options.takedown), pa.schema([place_from]), len(files))
    chunks = csv_chunks(raw / options.table, options.columns)
    first = next(chunks)
    extra = [name for name in first.columns if name not in options.columns]
    if PLACE_FROM in extra:
        raise UserError(
            f"{raw / options.table}: has a column {PLACE_FROM}, a name that ingest uses itself; rename the column"
        )
    rows = _rows(options, chain([first], chunks), extra)
    items = _with_beside(_grouped(listed(rows, store, options.table), options.group_by), raw, beside)
    schema = pa.schema([*((name, pa.string()) for name in extra), place_from])
    return Source(without(items, options.takedown), schema)


def _from_exif(options: Options, store: Folder, files: Shelf) -> Iterator[Photo | Refusal]:
    for path in files:
        name = printable(path)
        data = store.load(path)
        if isinstance(data, bytes):
            group = group_of(name, options.group_by)
            yield Photo(name, data, name, group, licence=options.licence, gps=options.gps)
        else:
            yield Refusal(name, *data)


def _grouped(items: Iterable[Photo | Refusal], by: str) -> Iterator[Photo | Refusal]:
    """The photos that the table spells otherwise in the group of their file, if it says no other."""
    for item in items:
        if isinstance(item, Photo) and item.path != item.image_id and item.group_id == group_of(item.image_id, by):
            yield replace(item, group_id=group_of(item.path, by))
        else:
            yield item


def _rows(options: Options, chunks: Iterable["pd.DataFrame"], extra: list[str]) -> Iterator[Row | Refusal]:
    for chunk in chunks:
        places = locate(chunk, options.latitude_column, options.longitude_column, str(options.table))
        for number, row, place in zip(chunk.index, chunk.to_dict("records"), places.to_dict("records"), strict=True):
            where = f"{options.table} row {number}"
            if row[options.path_column].strip():
                yield Row(_photo(options, row, place, extra, where), (row[options.path_column],), where)
            else:
                yield Refusal(where, Reason.BAD_ROW, f"{where}: no {options.path_column}")


def _photo(options: Options, row: dict[Any, str], place: dict[Any, Any], extra: list[str], where: str) -> Photo:
    path = row[options.path_column]
    return Photo(
        image_id=path,
        data=b"",
        path=path,
        group_id=row.get(options.group_column) or group_of(path, options.group_by),
        latitude=place["latitude"],
        longitude=place["longitude"],
        flaw=place["flaw"],
        author=row.get(options.author_column) or None,
        licence=row.get(options.licence_column) or options.licence,
        source_url=row.get(options.url_column) or None,
        attributes={name: row[name] for name in extra},
        gps=options.gps,
        **said_of(where, row.get(options.heading_column, ""), row.get(options.date_column, "")),
    )


def _with_beside(items: Iterable[Photo | Refusal], raw: Path, beside: Shelf) -> Iterator[Photo | Refusal]:
    """Each photo with what Takeout's file beside it says, if there is one."""
    for item in items:
        found = beside.get(item.path) if isinstance(item, Photo) else None
        if isinstance(item, Photo) and found is not None:
            name = as_text(found)
            yield replace(item, beside=takeout.read(load(raw, name), printable(name)))
        else:
            yield item


def group_of(path: str, by: str) -> str:
    """What must not straddle a split: the folder, the file, or the file name up to its last ``_``.

    Args:
        path: Relative to the raw folder, with ``/``.
        by: ``folder``, ``file`` or ``prefix``.
    """
    folder, _, name = path.rpartition("/")
    if by == "folder":
        return folder or "."
    return path if by == "file" or "_" not in name else path.rpartition("_")[0]


def write(world: Simulation, folder: Path, options: Options) -> None:
    """Rendered photos in a folder per photographer, with EXIF or with the table that the options name."""
    if options.table is None:
        for shot in world.shots:
            save(folder / shot.author / f"{shot.number}.jpg", _with_exif(shot))
        return
    with csv_table(folder / options.table, options.columns) as table:
        for shot in world.shots:
            path = f"{shot.author}/{shot.number}.jpg"
            save(folder / path, shot.jpeg)
            known = {
                options.path_column: path,
                options.latitude_column: shot.latitude,
                options.longitude_column: shot.longitude,
                options.group_column: shot.author,
                options.author_column: shot.author,
                options.licence_column: options.licence,
                options.url_column: shot.url,
                options.heading_column: "" if shot.heading is None else shot.heading,
                options.date_column: f"{shot.moment:%Y-%m-%d}",
            }
            table.writerow([known[column] for column in options.columns])


def _with_exif(shot: Shot) -> bytes:
    from io import BytesIO

    from PIL import Image

    exif = Image.Exif()
    exif[0x013B] = shot.author
    exif.get_ifd(0x8769)[0x9003] = shot.moment.strftime("%Y:%m:%d %H:%M:%S")
    exif.get_ifd(0x8825).update(
        {
            1: "N" if shot.latitude >= 0 else "S",
            2: _dms(shot.latitude),
            3: "E" if shot.longitude >= 0 else "W",
            4: _dms(shot.longitude),
        }
    )
    stream = BytesIO()
    with Image.open(BytesIO(shot.jpeg)) as image:
        image.save(stream, "JPEG", quality=90, exif=exif)
    return stream.getvalue()


def _dms(degrees: float) -> tuple[float, float, float]:
    whole = round(abs(degrees) * 3_600_000)
    return whole // 3_600_000, whole // 60_000 % 60, whole % 60_000 / 1000
