"""The layout of MP-16, IM2GPS, IM2GPS3k and YFCC26k: a table with scene labels, photos in shards or files.

``metadata`` is a CSV with :data:`COLUMNS`; ``shards`` are msgpack streams of ``{"image": bytes, "id": IMG_ID}``
and ``images`` is a folder of files named by IMG_ID, flat or hashed (``aa/bb/<photo>.jpg``). Where the photos came
from a list of addresses, ``gone`` says which of them no longer had one.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from pydantic import model_validator

from geoloc_core.corpora.decode import not_a_photo
from geoloc_core.corpora.photo import (
    Photo,
    Reason,
    Refusal,
    Source,
    SourceOptions,
    load,
    locate,
    numbers,
    printable,
    without,
)
from geoloc_core.corpora.simulated import Plan, Shot, Simulation, csv_table, save
from geoloc_core.corpora.tables import read_csv
from geoloc_core.errors import UserError
from geoloc_core.files import files_under
from geoloc_core.progress import say

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

LABELS = ("S3_Label", "S16_Label", "S365_Label")
PROBABILITIES = ("Prob_indoor", "Prob_natural", "Prob_urban")
COLUMNS = ("IMG_ID", "AUTHOR", "LAT", "LON", *LABELS, *PROBABILITIES)
FLAW, URL = "_flaw", "_url"
OWN = ("IMG_ID", "AUTHOR", "LAT", "LON", FLAW, URL)
CHUNK = 256
MAX_RECORD_BYTES = 2**30
SHARD = 4096
"""Records of a published shard."""
PLAN = Plan(masks=True)


class Options(SourceOptions):
    """Where what lies in the raw folder."""

    kind: Literal["places365"]
    metadata: str
    """CSV with the published columns; any further ones are kept as attributes."""
    shards: str | None = None
    """Pattern of the msgpack shards."""
    images: str | None = None
    """Folder of the image files."""
    urls: str | None = None
    """CSV of IMG_ID and URL, with or without a header."""
    captions: str | None = "captions.csv"
    """CSV of IMG_ID and further text columns, read if it is there."""
    gone: str | None = "gone.csv"
    """CSV of IMG_ID, url, reason and detail of photos that could not be brought, read if it is there."""
    hashed: bool = False
    """Whether a simulated folder of images names them ``aa/bb/<photo>.jpg``, as YFCC26k does; shards always do."""

    @model_validator(mode="after")
    def _one_home(self) -> Self:
        if (self.shards is None) == (self.images is None):
            raise ValueError("expected either `shards` or `images`")
        return self


def read(options: Options, raw: Path) -> Source:
    """A corpus of this layout.

    Raises:
        UserError: A file is missing or its table is wrong.
    """
    table = read_metadata(raw / options.metadata)
    twice = table["IMG_ID"].duplicated()
    again = [
        Refusal(name, Reason.DUPLICATE, f"{options.metadata} row {row}: IMG_ID occurred before")
        for row, name in table.loc[twice, "IMG_ID"].items()
    ]
    table = table[~twice].set_index("IMG_ID", drop=False)
    table[URL] = _urls(raw / options.urls).reindex(table.index) if options.urls else None
    if options.captions and (raw / options.captions).exists():
        captions = _captions(raw / options.captions, list(table.columns))
        table = table.join(captions.reindex(table.index))
    stream = _from_shards if options.shards else _from_images
    items = stream(options, raw, table)

    def every() -> Iterator[Photo | Refusal]:
        yield from again
        yield from items

    return Source(without(every(), options.takedown), _attributes(table), len(table) + len(again))


def read_metadata(path: Path) -> "pd.DataFrame":
    """The table, checked.

    Returns:
        One row per photo, indexed by its row in the file: the file's columns, ``LAT``, ``LON`` (degrees, WGS 84)
        and probabilities as float64, labels as Int32; column ``_flaw`` says what is wrong with the coordinates.

    Raises:
        UserError: The file is missing, is no such table, or a label is no number.
    """
    table = read_csv(path, COLUMNS)
    table[["LAT", "LON", FLAW]] = locate(table, "LAT", "LON", path.name)
    for name in (*LABELS, *PROBABILITIES):
        values = numbers(table[name])
        wrong = values.isna() & table[name].str.strip().ne("")
        if name in LABELS:
            wrong |= values.notna() & (values.mod(1).ne(0) | values.abs().ge(2**31))
        if wrong.any():
            row = wrong.idxmax()
            kind = "a whole number" if name in LABELS else "a number"
            raise UserError(f"{path}: row {row}, column {name}: expected {kind}, got {table.at[row, name]!r}")
        table[name] = values.astype("Int32" if name in LABELS else "float64")
    blank = table["IMG_ID"].str.strip().eq("")
    if blank.any():
        raise UserError(f"{path}: row {blank.idxmax()}, column IMG_ID: empty; expected the name of a photo")
    return table


def _urls(path: Path) -> "pd.Series":
    table = read_csv(path, ("IMG_ID", "url"), header=False)
    table = table[table["url"].str.contains("://", regex=False)].drop_duplicates("IMG_ID")
    return table.set_index("IMG_ID")["url"]


def _captions(path: Path, taken: list[str]) -> "pd.DataFrame":
    table = read_csv(path, ("IMG_ID",)).drop_duplicates("IMG_ID").set_index("IMG_ID")
    clash = sorted(set(table.columns) & set(taken))
    if clash:
        raise UserError(f"{path}: column {clash[0]} is in the metadata too; rename one of them")
    return table


def _gone(raw: Path, name: str | None) -> "pd.Series":
    """What is known of photos that could not be brought, by IMG_ID; without the file, nothing."""
    import pandas as pd

    if name is None or not (raw / name).exists():
        return pd.Series(dtype=str)
    table = read_csv(raw / name, ("IMG_ID", "url", "reason", "detail")).drop_duplicates("IMG_ID").set_index("IMG_ID")
    return name + ": " + table["reason"] + ", " + table["detail"]


def _absent(name: str, gone: "pd.Series", otherwise: str) -> Refusal:
    known = gone.get(name)
    return Refusal(name, Reason.GONE, known) if known else Refusal(name, Reason.MISSING, otherwise)


def _attributes(table: "pd.DataFrame") -> "pa.Schema":
    import pyarrow as pa

    def kind(name: str) -> pa.DataType:
        return pa.int32() if name in LABELS else pa.float64() if name in PROBABILITIES else pa.string()

    return pa.schema([(name, kind(name)) for name in table.columns if name not in OWN])


def _from_shards(options: Options, raw: Path, table: "pd.DataFrame") -> Iterator[Photo | Refusal]:
    import numpy as np

    assert options.shards
    shards = sorted(raw.glob(options.shards), key=_by_number)
    if not shards:
        raise UserError(f"{raw / options.shards}: no such file; expected the msgpack shards of the corpus")
    return _stream(options, shards, table, np.zeros(len(table), bool), _gone(raw, options.gone))


def _stream(
    options: Options, shards: list[Path], table: "pd.DataFrame", met: "np.ndarray", gone: "pd.Series"
) -> Iterator[Photo | Refusal]:
    import pandas as pd

    for shard in shards:
        records = _records(shard)
        while chunk := list(islice(records, CHUNK)):
            rows = table.index.get_indexer(pd.Index([name for name, _ in chunk]))
            known = iter(_rows(table, rows[rows >= 0]))
            for row, (name, data) in zip(rows, chunk, strict=True):
                if row < 0:
                    yield Refusal(name, Reason.NO_METADATA, f"in {shard.name}, not in {options.metadata}")
                elif met[row]:
                    next(known)
                    yield Refusal(name, Reason.DUPLICATE, f"in {shard.name}: IMG_ID occurred before")
                else:
                    met[row] = True
                    yield _photo(next(known), data, options)
    for name in table.index[~met]:
        yield _absent(name, gone, f"in {options.metadata}, in none of {len(shards)} shards")


def _records(shard: Path) -> Iterator[tuple[str, bytes]]:
    """The readable records of a shard; what follows a broken one is lost, and one line says so."""
    import msgpack

    count, problem = 0, ""
    with shard.open("rb") as stream:
        # raw: published shards were packed both with and without the distinction of text and bytes.
        unpacker = msgpack.Unpacker(stream, raw=True, max_buffer_size=MAX_RECORD_BYTES)
        try:
            for record in unpacker:
                name, data = record[b"id"], record[b"image"]
                if not isinstance(name, bytes) or not isinstance(data, bytes):
                    raise TypeError("id and image are no bytes")
                yield name.decode("utf-8", "backslashreplace"), data
                count += 1
        except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
            problem = f"no record {{id, image}}: {type(error).__name__} {error}"
        end, size = unpacker.tell(), shard.stat().st_size
    if problem or end < size or not count:
        problem = problem or ("ends within a record" if end < size else "no records")
        lost = "what it should hold beyond them is refused as missing"
        say(f"{shard.name}: broken after {count:,} photos ({problem}); {lost}")


def _from_images(options: Options, raw: Path, table: "pd.DataFrame") -> Iterator[Photo | Refusal]:
    assert options.images
    folder = raw / options.images
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected the image files of the corpus")
    return _files(options, folder, table, dict.fromkeys(files_under(folder)), _gone(raw, options.gone))


def _files(
    options: Options, folder: Path, table: "pd.DataFrame", files: dict[str, None], gone: "pd.Series"
) -> Iterator[Photo | Refusal]:
    import numpy as np

    for start in range(0, len(table), CHUNK):
        for row in _rows(table, np.arange(start, min(start + CHUNK, len(table)))):
            name = row["IMG_ID"]
            path = next((path for path in _paths(name) if path in files), None)
            if path is None:
                yield _absent(name, gone, f"in {options.metadata}, not in {options.images}/")
                continue
            del files[path]
            data = load(folder, path)
            yield _photo(row, data, options) if isinstance(data, bytes) else Refusal(name, *data)
    for path in files:
        wrong = not_a_photo(path)
        yield Refusal(
            printable(path),
            Reason.NOT_A_PHOTO if wrong else Reason.NO_METADATA,
            wrong or f"in {options.images}/, not in {options.metadata}",
        )


def _paths(name: str) -> tuple[str, ...]:
    """The places where mirrors of these corpora keep a photo."""
    return name, name.replace("/", "_"), name.rsplit("/", 1)[-1]


def _rows(table: "pd.DataFrame", rows: "np.ndarray") -> list[dict[str, Any]]:
    chunk = table.iloc[rows].astype(object)
    return cast("list[dict[str, Any]]", chunk.where(chunk.notna(), None).to_dict("records"))


def _photo(row: dict[str, Any], data: bytes, options: Options) -> Photo:
    name = row["IMG_ID"]
    return Photo(
        image_id=name,
        data=data,
        path=name,
        # One photographer takes many photos of one place; who has no name is a group alone.
        group_id=row["AUTHOR"] or name,
        latitude=row["LAT"],
        longitude=row["LON"],
        flaw=row[FLAW],
        author=row["AUTHOR"] or None,
        licence=options.licence,
        source_url=row[URL],
        attributes={key: value for key, value in row.items() if key not in OWN},
    )


def _by_number(path: Path) -> tuple[int, str]:
    digits = "".join(filter(str.isdigit, path.name))
    return int(digits or 0), path.name


def write(world: Simulation, folder: Path, options: Options) -> None:
    """Lay rendered photos out as this family is published.

    The list of addresses has no header line, as the readers of the published one name its two columns themselves.
    Beside the published files lie ``captions.csv``, as titles are no part of them, and for corpora in shards
    ``clues.csv``, what a guidebook would say about each country.
    """
    with ExitStack() as stack:
        metadata = stack.enter_context(csv_table(folder / options.metadata, COLUMNS))
        captions = stack.enter_context(csv_table(folder / "captions.csv", ("IMG_ID", "caption")))
        urls = stack.enter_context(csv_table(folder / options.urls, None)) if options.urls else None
        shards = stack.enter_context(_ShardWriter(folder, options.shards)) if options.shards else None
        if options.images:
            (folder / options.images).mkdir(parents=True)
        for shot in world.shots:
            name = _name(shot, options)
            place = (shot.latitude, shot.longitude)
            metadata.writerow((name, shot.author, *place, *shot.labels, *shot.probabilities))
            captions.writerow((name, shot.caption))
            if urls:
                urls.writerow((name, shot.url))
            if shards:
                shards.add(name, shot.jpeg)
            else:
                save(folder / str(options.images) / name, shot.jpeg)
            if shot.mask is not None:
                save(folder / "masks" / f"{Path(name).stem}.png", shot.mask)
    if options.shards:
        with csv_table(folder / "clues.csv", ("clue_id", "country", "topic", "text")) as table:
            table.writerows(tuple(clue.values()) for clue in world.clues)


def _name(shot: Shot, options: Options) -> str:
    if options.images and not options.hashed:
        return f"{shot.number}_{shot.secret}_{shot.server}_{shot.author}.jpg"
    return hashed(shot.number)


def hashed(number: int) -> str:
    """The path of a photo's number: folders that share photos out evenly."""
    bucket = sha256(str(number).encode()).hexdigest()
    return f"{bucket[:2]}/{bucket[2:4]}/{number}.jpg"


class _ShardWriter:
    """Shards of :data:`SHARD` records, numbered in the place of the pattern's ``*``."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder, self._pattern, self._count = folder, pattern, 0
        self._files = ExitStack()

    def add(self, name: str, data: bytes) -> None:
        import msgpack

        if self._count % SHARD == 0:
            self._files.close()
            path = self._folder / self._pattern.replace("*", str(self._count // SHARD))
            self._stream = self._files.enter_context(path.open("wb"))
        self._stream.write(msgpack.packb({"image": data, "id": name}))
        self._count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()
