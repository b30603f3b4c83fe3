"""MP16-Pro: MP-16 with the names of its places, all photos in one tar.

The table names photos ``aa/bb/<photo>.jpg``; in the tar the third part of a member's path is the file's name, with
``_`` for ``/``.
"""

import tarfile
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from geoloc_core.corpora.photo import (
    MAX_FILE_BYTES,
    Flaw,
    Photo,
    Reason,
    Refusal,
    Source,
    SourceOptions,
    locate,
    printable,
    without,
)
from geoloc_core.corpora.simulated import Plan, Simulation, csv_table
from geoloc_core.corpora.sources.places365 import hashed
from geoloc_core.corpora.tables import read_csv
from geoloc_core.errors import UserError
from geoloc_core.progress import say

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

COLUMNS = ("IMG_ID", "LAT", "LON")
PLACE = ("neighbourhood", "city", "county", "state", "region", "country", "continent")
FLAW, AUTHOR = "_flaw", "_author"
MAX_STUB_BYTES = 5120
"""Flickr answers for a photo that is gone with a small picture that says so; smaller members are taken for it."""
CHUNK = 256
PLAN = Plan()


class Options(SourceOptions):
    """Where what lies in the raw folder."""

    kind: Literal["mp16_pro"]
    metadata: str = "MP16_Pro_places365.csv"
    """CSV with the published columns; those beyond IMG_ID, LAT and LON are kept as attributes."""
    tar: str = "mp-16-images.tar"
    authors: str | None = None
    """CSV with IMG_ID and AUTHOR, such as MP-16's own table: this one names no photographers."""


def read(options: Options, raw: Path) -> Source:
    """The corpus, its tar read once from start to end and never unpacked.

    Raises:
        UserError: A file is missing or its table is wrong.
    """
    import pyarrow as pa

    table = read_csv(raw / options.metadata, COLUMNS)
    if not (raw / options.tar).is_file():
        raise UserError(f"{raw / options.tar}: no such file; expected the tar of photos")
    table[["LAT", "LON", FLAW]] = locate(table, "LAT", "LON", options.metadata)
    key = table["IMG_ID"].str.replace("/", "_")
    twice = key.duplicated()
    again = [
        Refusal(name, Reason.DUPLICATE, f"{options.metadata} row {row}: IMG_ID occurred before")
        for row, name in table.loc[twice, "IMG_ID"].items()
    ]
    table = table[~twice].set_index(key[~twice])
    table[AUTHOR] = _authors(raw / options.authors).reindex(table["IMG_ID"]).to_numpy() if options.authors else None
    names = [name for name in table.columns if name not in (*COLUMNS, FLAW, AUTHOR)]

    def every() -> Iterator[Photo | Refusal]:
        yield from again
        yield from _stream(options, raw / options.tar, table, names)

    schema = pa.schema([(name, pa.string()) for name in names])
    return Source(without(every(), options.takedown), schema, len(table) + len(again))


def _authors(path: Path) -> "pd.Series":
    table = read_csv(path, ("IMG_ID", "AUTHOR")).drop_duplicates("IMG_ID")
    return table.set_index("IMG_ID")["AUTHOR"]


def _stream(options: Options, tar: Path, table: "pd.DataFrame", names: list[str]) -> Iterator[Photo | Refusal]:
    import numpy as np
    import pandas as pd

    met = np.zeros(len(table), bool)
    members = _members(tar)
    while chunk := list(islice(members, CHUNK)):
        rows = table.index.get_indexer(pd.Index([name for name, _ in chunk]))
        for (name, data), at in zip(chunk, rows.tolist(), strict=True):
            yield _judge(options, table, names, met, at, name, data)
    for name in table["IMG_ID"][~met]:
        yield Refusal(name, Reason.MISSING, f"in {options.metadata}, not in {options.tar}")


def _judge(
    options: Options,
    table: "pd.DataFrame",
    names: list[str],
    met: "np.ndarray",
    at: int,
    name: str,
    data: bytes | Flaw,
) -> Photo | Refusal:
    if at < 0:
        wrong = (Reason.NO_METADATA, f"in {options.tar}, not in {options.metadata}")
        return Refusal(name, *(wrong if isinstance(data, bytes) else data))
    row = table.iloc[at]
    if met[at]:
        return Refusal(row["IMG_ID"], Reason.DUPLICATE, f"in {options.tar}: {name} occurred before")
    met[at] = True
    if not isinstance(data, bytes):
        return Refusal(row["IMG_ID"], *data)
    author = row[AUTHOR] if isinstance(row[AUTHOR], str) and row[AUTHOR] else None
    return Photo(
        image_id=row["IMG_ID"],
        data=data,
        path=name,
        group_id=author or row["IMG_ID"],
        latitude=float(row["LAT"]),
        longitude=float(row["LON"]),
        flaw=row[FLAW],
        author=author,
        licence=options.licence,
        attributes={column: row[column] or None for column in names},
    )


def _members(tar: Path) -> Iterator[tuple[str, bytes | Flaw]]:
    """The files of a tar in order; what follows a broken one is lost, and one line says so."""
    count = 0
    try:
        with tarfile.open(tar, "r|*") as stream:
            for member in stream:
                if member.isdir():
                    continue
                yield printable(_name(member.name)), _data(stream, member)
                count += 1
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        lost = "what it should hold beyond them is refused as missing"
        say(f"{tar.name}: broken after {count:,} files ({type(error).__name__}: {error}); {lost}")


def _name(path: str) -> str:
    """The third part of a path, as this tar is published; the last one where there are fewer."""
    parts = path.split("/")
    return parts[2] if len(parts) > 2 else parts[-1]


def _data(stream: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | Flaw:
    if not member.isfile():
        return Reason.NOT_A_PHOTO, "a link or a device in the tar, which is not followed"
    if member.size > MAX_FILE_BYTES:
        return Reason.TOO_LARGE, f"{member.size:,} bytes; at most {MAX_FILE_BYTES:,} are read"
    if member.size <= MAX_STUB_BYTES:
        return (
            Reason.EXCLUDED,
            f"{member.size:,} bytes; at most {MAX_STUB_BYTES:,}: the picture for a photo that is gone",
        )
    file = stream.extractfile(member)
    data = file.read() if file else b""
    return data if len(data) == member.size else (Reason.TRUNCATED, f"the tar ends after {len(data):,} bytes of it")


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
