"""YFCC100M's own tables, and what is published as a cut of them, such as YFCC4k.

A line has the 23 fields :data:`FIELDS`, tab-separated and without a header (the dump), or the same ones with the line's
number and the photo's hash beside its id: 25 fields (YFCC4k's ``info.txt``, or a CSV with a header line). Texts are
written as in addresses: ``Santa+Maria%2C+Venice``.
"""

import csv
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from hashlib import md5
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote_plus, unquote_plus

from pydantic import Field

from geoloc_core.corpora.listing import Folder, Row, listed
from geoloc_core.corpora.on_disk import Rows, Shelf, in_chunks
from geoloc_core.corpora.photo import Photo, Reason, Refusal, Source, SourceOptions, locate, numbers, said_of, without
from geoloc_core.corpora.simulated import Plan, Shot, Simulation, csv_table, save
from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

FIELDS = (
    "photo_id",
    "user_nsid",
    "user_nickname",
    "date_taken",
    "date_uploaded",
    "capture_device",
    "title",
    "description",
    "user_tags",
    "machine_tags",
    "longitude",
    "latitude",
    "accuracy",
    "page_url",
    "download_url",
    "license_name",
    "license_url",
    "server_id",
    "farm_id",
    "secret",
    "secret_original",
    "extension",
    "media_type",
)
NUMBERED = ("line", FIELDS[0], "hash", *FIELDS[1:])
TEXTS = ("user_nickname", "capture_device", "description", "user_tags", "machine_tags")
"""Attributes, as text; beside them ``caption``, the title, and ``accuracy``, 1 (the world) to 16 (a street)."""
HEADER = (
    *("RecordNumber", "name", "Secret", "OwnerNSID", "Username", "DateTaken", "DateUploaded", "Camera", "Title"),
    *("Description", "Tags", "EmptyField", "lon", "lat", "Accuracy", "PhotoPageURL", "PhotoURL", "LicenseName"),
    *("LicenseURL", "FarmID", "ServerID", "Secret2", "Hash", "Format", "Placeholder"),
)
"""As YFCC4k's CSV names the 25 fields, some of them wrongly: its ``Secret`` is the hash."""
STATED = "_accuracy"
"""The accuracy as it is written in the table."""
CHUNK = 1024
PLAN = Plan()


class Options(SourceOptions):
    """The paths within the raw folder."""

    kind: Literal["yfcc100m"]
    metadata: str
    """The table; a name that ends in ``.csv`` has commas and a header line, any other tabs and none."""
    images: str = "images"
    """Folder of the image files; ``.`` for the raw folder itself."""
    named_by: Literal["id", "hash"] = "id"
    """Files are ``<photo_id>.jpg``, or ``abc/def/abcdef….jpg`` by hash."""
    hashes: str | None = None
    """Table of photo_id and hash, tab-separated, for a dump that has no hashes of its own."""
    min_accuracy: int = Field(0, ge=0, le=16)
    """A photo placed less accurately is refused; PLONK trains from 12 on."""
    only: str | None = None
    """File with one photo_id per line: others are refused."""
    leave_out: str | None = None
    """File with one photo_id per line that are refused, such as those of a benchmark."""


def read(options: Options, raw: Path) -> Source:
    """A corpus of this layout, its table read as a stream.

    Raises:
        UserError: A file is missing or is not such a table.
    """
    import pyarrow as pa

    table, folder = raw / options.metadata, raw / options.images
    if not table.is_file():
        raise UserError(f"{table}: no such file; expected YFCC100M's table with 23 or 25 fields per line")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected the image files of the corpus")
    width = _width(table)
    rows = _rows(options, raw, table, width)
    schema = pa.schema([("caption", pa.string()), ("accuracy", pa.float64()), *((name, pa.string()) for name in TEXTS)])
    tables = {options.metadata, options.hashes, options.only, options.leave_out} if folder == raw else set()
    store = Folder(folder, frozenset(tables))
    return Source(without(listed(rows, store, options.metadata), options.takedown), schema)


def _lines(table: Path) -> Iterator[list[str]]:
    comma = table.suffix == ".csv"
    with table.open(encoding="utf-8-sig", errors="backslashreplace", newline="") as stream:
        if not comma:
            yield from (line.rstrip("\r\n").split("\t") for line in stream)
            return
        try:
            yield from csv.reader(stream)
        except csv.Error as error:
            raise UserError(f"{table}: not a readable CSV: {error}") from None


def _width(table: Path) -> int:
    first = next(_lines(table), [])
    if len(first) not in (len(FIELDS), len(NUMBERED)):
        kind = "commas" if table.suffix == ".csv" else "tabs"
        raise UserError(f"{table}: row 1 has {len(first)} fields between {kind}; expected 23 or 25")
    return len(first)


def _rows(options: Options, raw: Path, table: Path, width: int) -> Iterator[Row | Refusal]:
    header = table.suffix == ".csv"
    lines = enumerate(_lines(table), 1)
    if header:
        next(lines, None)
    hashes = _hashes(raw / options.hashes) if options.hashes else None
    only = _ids(raw / options.only) if options.only else None
    leave_out = _ids(raw / options.leave_out) if options.leave_out else Shelf()
    for chunk in in_chunks(lines, CHUNK):
        yield from _chunk(options, chunk, width, hashes, only, leave_out)


def _chunk(
    options: Options,
    chunk: list[tuple[int, list[str]]],
    width: int,
    hashes: Rows | None,
    only: Shelf | None,
    leave_out: Shelf,
) -> Iterator[Row | Refusal]:
    import pandas as pd

    for number, fields in chunk:
        if len(fields) != width:
            where = f"{options.metadata} row {number}"
            yield Refusal(where, Reason.BAD_ROW, f"{where}: {len(fields)} fields; expected {width}")
    good = [(number, fields) for number, fields in chunk if len(fields) == width]
    columns = FIELDS if width == len(FIELDS) else NUMBERED
    table = pd.DataFrame([fields for _, fields in good], index=[number for number, _ in good], columns=list(columns))
    table = table.astype(str)
    table["photo_id"] = table["photo_id"].str.removesuffix(".jpg")
    places = locate(table, "latitude", "longitude", options.metadata)
    table[STATED] = table["accuracy"]
    table["accuracy"] = numbers(table["accuracy"])
    if hashes is not None:
        known = hashes.find(table["photo_id"])
        table["hash"] = [known[name][1]["hash"] if name in known else "" for name in table["photo_id"]]
    for number, row, place in zip(table.index, table.to_dict("records"), places.to_dict("records"), strict=True):
        where = f"{options.metadata} row {number}"
        if not row["photo_id"].strip():
            yield Refusal(where, Reason.BAD_ROW, f"{where}: no photo_id")
            continue
        wrong = _excluded(options, row, only, leave_out)
        if options.named_by == "hash" and not row.get("hash"):
            yield Refusal(
                row["photo_id"], *(wrong or (Reason.BAD_ROW, f"{where}: no hash, so its file cannot be found"))
            )
        else:
            yield Row(_photo(options, row, place, where), _names(options, row), where, wrong)


def _excluded(options: Options, row: dict[Any, Any], only: Shelf | None, leave_out: Shelf) -> tuple[Reason, str] | None:
    if row["media_type"].strip() not in ("0", ""):
        return Reason.NOT_A_PHOTO, f"media_type {row['media_type']}; photos have 0"
    if row["accuracy"] < options.min_accuracy or (options.min_accuracy and row["accuracy"] != row["accuracy"]):
        return Reason.EXCLUDED, f"accuracy {row['accuracy']:g}; expected at least {options.min_accuracy}"
    if only is not None and row["photo_id"] not in only:
        return Reason.EXCLUDED, f"not in {options.only}"
    if row["photo_id"] in leave_out:
        return Reason.EXCLUDED, f"in {options.leave_out}"
    return None


def _photo(options: Options, row: dict[Any, Any], place: dict[Any, Any], where: str) -> Photo:
    said = said_of(where, "", row["date_taken"])
    unknown = row["accuracy"] != row["accuracy"]
    if unknown and row[STATED].strip():
        said["unusable"]["accuracy"] = f"{where}: {row[STATED]!r}; expected a number from 1 to 16"
    return Photo(
        image_id=row["photo_id"],
        data=b"",
        path="",
        group_id=row["user_nsid"] or row["photo_id"],
        latitude=place["latitude"],
        longitude=place["longitude"],
        flaw=place["flaw"],
        author=row["user_nsid"] or None,
        licence=row["license_name"] or options.licence,
        source_url=row["page_url"] or None,
        attributes={
            "caption": _text(row["title"]),
            "accuracy": None if unknown else row["accuracy"],
            **{name: _text(row[name]) for name in TEXTS},
        },
        **said,
    )


def _text(value: str) -> str | None:
    return unquote_plus(value).strip() or None


def _names(options: Options, row: dict[Any, Any]) -> tuple[str, ...]:
    if options.named_by == "hash":
        return (by_hash(row["hash"]),)
    return f"{row['photo_id']}.jpg", f"{row['photo_id']}.{row['extension'].strip() or 'jpg'}"


def by_hash(digest: str) -> str:
    """Where the dump keeps a photo."""
    return f"{digest[:3]}/{digest[3:6]}/{digest}.jpg"


def _ids(path: Path) -> Shelf:
    found = Shelf()
    try:
        with path.open(encoding="utf-8", errors="backslashreplace") as lines:
            for line in filter(None, map(str.strip, lines)):
                found.first(line.removesuffix(".jpg"))
    except OSError:
        raise UserError(f"{path}: no such file; expected one photo_id per line") from None
    return found


def _hashes(path: Path) -> Rows:
    """A hundred million ids and hashes, on disk."""
    return Rows(_hash_chunks(path), "photo_id")


def _hash_chunks(path: Path) -> Iterator["pd.DataFrame"]:
    import pandas as pd
    import pyarrow as pa
    from pyarrow import csv as tables

    names = ["photo_id", "hash"]
    start = 1
    try:
        with tables.open_csv(
            path,
            tables.ReadOptions(column_names=names),
            tables.ParseOptions(delimiter="\t", quote_char=False),
            tables.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        ) as batches:
            for batch in batches:
                chunk = batch.to_pandas().set_axis(pd.RangeIndex(start, start + batch.num_rows))
                wrong = ~chunk["photo_id"].str.fullmatch("[0-9]+")
                if wrong.any():
                    found = chunk["photo_id"][wrong].iloc[0]
                    raise UserError(f"{path} row {wrong.idxmax()}: expected photo_id and hash, got {found!r}")
                yield chunk
                start += batch.num_rows
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: expected photo_id and hash between tabs; {str(error).splitlines()[0]}") from None


def write(world: Simulation, folder: Path, options: Options) -> None:
    """Rendered photos as a cut of YFCC100M."""
    with ExitStack() as stack:
        comma = options.metadata.endswith(".csv")
        table: Any = stack.enter_context(csv_table(folder / options.metadata, HEADER if comma else None))
        if not comma:
            table = csv.writer(
                stack.enter_context((folder / options.metadata).open("w", encoding="utf-8", newline="")),
                delimiter="\t",
                quoting=csv.QUOTE_NONE,
                quotechar=None,
                lineterminator="\n",
            )
        hashes = None
        if options.hashes:
            hashes = stack.enter_context((folder / options.hashes).open("w", encoding="utf-8"))
        (folder / options.images).mkdir(parents=True, exist_ok=True)
        for shot in world.shots:
            digest = md5(shot.url.encode(), usedforsecurity=False).hexdigest()
            fields = _fields(shot)
            table.writerow(fields if hashes else (shot.index + 1, f"{shot.number}.jpg", digest, *fields[1:]))
            if hashes:
                hashes.write(f"{shot.number}\t{digest}\n")
            name = by_hash(digest) if options.named_by == "hash" else f"{shot.number}.jpg"
            save(folder / options.images / name, shot.jpeg)


def _fields(shot: Shot) -> tuple[Any, ...]:
    """As the real ones: a quarter is placed less accurately than a street."""
    accuracy = (16, 16, 15, 16, 14, 16, 13, 11)[shot.index % 8]
    page = f"https://photos.example/{shot.author}/{shot.number}/"
    licence = ("Attribution License", "https://creativecommons.org/licenses/by/2.0/")
    taken = shot.moment.strftime("%Y-%m-%d %H:%M:%S.0")
    uploaded = (shot.moment - datetime(1970, 1, 1)).days * 86400
    return (
        *(shot.number, shot.author, quote_plus(shot.author), taken, uploaded, "", quote_plus(shot.caption), "", ""),
        *("", shot.longitude, shot.latitude, accuracy, page, shot.url, *licence, shot.server, 1, shot.secret),
        *(shot.secret[::-1], "jpg", 0),
    )
