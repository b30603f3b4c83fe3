"""The layout of MP-16, IM2GPS, IM2GPS3k and YFCC26k: a table with scene labels, photos in shards or files.

``metadata`` is a CSV with :data:`COLUMNS`; ``shards`` are msgpack streams of ``{"image": bytes, "id": IMG_ID}``
and ``images`` is a folder of files named by IMG_ID, flat or hashed (``aa/bb/<photo>.jpg``). Where the photos came
from a list of addresses, ``gone`` says which of them no longer had one.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from geoloc_core.corpora.listing import Folder, Members, Row, base, listed
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
    numbers,
    without,
)
from geoloc_core.corpora.simulated import Plan, Shot, Simulation, csv_table, save
from geoloc_core.corpora.tables import csv_chunks
from geoloc_core.errors import UserError, is_of_the_machine, named
from geoloc_core.progress import say

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

LABELS = ("S3_Label", "S16_Label", "S365_Label")
PROBABILITIES = ("Prob_indoor", "Prob_natural", "Prob_urban")
COLUMNS = ("IMG_ID", "AUTHOR", "LAT", "LON", *LABELS, *PROBABILITIES)
FLAW, URL = "_flaw", "_url"
OWN = ("IMG_ID", "AUTHOR", "LAT", "LON", FLAW, URL)
NUMBERED = re.compile(r"^.+?_[0-9]{5}_")
CHUNK = 256
MAX_RECORD_BYTES, MAX_ENTRIES = 2**30, 64
SHARD = 4096
"""Records of a published shard."""
PLAN = Plan(masks=True)


class Options(SourceOptions):
    """The paths within the raw folder."""

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
    masks: str | None = "masks"
    """Folder of a mask of each photo, ``<photo>.png``, which become attributes if it is there."""
    hashed: bool = False
    """Whether a simulated folder of images names them ``aa/bb/<photo>.jpg``, as YFCC26k does; shards always do."""

    @model_validator(mode="after")
    def _one_home(self) -> Self:
        if (self.shards is None) == (self.images is None):
            raise ValueError("expected either `shards` or `images`")
        return self


@dataclass(frozen=True)
class _Tables:
    """What the tables say of a photo, by IMG_ID."""

    metadata: Rows
    members: Members
    urls: Rows | None
    captions: Rows | None
    gone: Rows | None

    def find(self, names: Collection[str]) -> dict[str, tuple[int, dict[str, Any]]]:
        """Number and cells of the metadata's rows of those names, what the other tables say among the cells."""
        found = self.members.find(names)
        ids = {cells["IMG_ID"] for _, cells in found.values()}
        urls = self.urls.find(ids) if self.urls is not None else {}
        captions = self.captions.find(ids) if self.captions is not None else {}
        unknown = dict.fromkeys(_texts(self.captions))
        for _, cells in found.values():
            name = cells["IMG_ID"]
            cells[URL] = urls[name][1]["url"] if name in urls else None
            cells.update({key: captions[name][1][key] for key in unknown} if name in captions else unknown)
        return found

    def why_gone(self, names: Collection[str], options: Options) -> dict[str, Flaw]:
        """Why the photos could not be brought of which a table says so."""
        gone = self.gone.find(names) if self.gone is not None else {}
        return {
            name: (Reason.GONE, f"{options.gone}: {why['reason']}, {why['detail']}") for name, (_, why) in gone.items()
        }


def read(options: Options, raw: Path) -> Source:
    """A corpus of this layout.

    Raises:
        UserError: A file is missing or its table is wrong.
    """
    metadata = Rows(read_metadata(raw / options.metadata), "IMG_ID")
    urls = Rows(_urls(raw / options.urls), "IMG_ID") if options.urls else None
    captions = _read_if_there(raw, options.captions, ("IMG_ID",))
    clash = sorted(set(_texts(captions)) & set(metadata.columns))
    if clash:
        raise UserError(f"{raw / str(options.captions)}: column {clash[0]} is in the metadata too; rename one of them")
    gone = _read_if_there(raw, options.gone, ("IMG_ID", "url", "reason", "detail"))
    tables = _Tables(metadata, Members(metadata), urls, captions, gone)
    stream = _from_shards if options.shards else _from_images
    items = stream(options, raw, tables)

    def every() -> Iterator[Photo | Refusal]:
        for number, row in metadata.again:
            where = f"{options.metadata} row {number}"
            yield Refusal(row["IMG_ID"], Reason.DUPLICATE, f"{where}: IMG_ID occurred before")
        yield from items

    schema = _attributes(metadata, captions)
    if options.masks and (folder := raw / options.masks).is_dir():
        import pyarrow as pa

        masks = Folder(folder)
        masked = (_with_mask(item, masks) for item in every())
        return Source(without(masked, options.takedown), schema.append(pa.field("mask", pa.binary())), metadata.total)
    return Source(without(every(), options.takedown), schema, metadata.total)


def _with_mask(item: Photo | Refusal, masks: Folder) -> Photo | Refusal:
    if isinstance(item, Refusal):
        return item
    mask = masks.load(_mask(item.image_id))
    return replace(item, attributes={**item.attributes, "mask": mask if isinstance(mask, bytes) else None})


def _mask(name: str) -> str:
    """The file of a photo's mask."""
    return f"{Path(name).stem}.png"


def read_metadata(path: Path) -> Iterator["pd.DataFrame"]:
    """The table, checked, in pieces.

    Yields:
        One row per photo, indexed by its row in the file: the file's columns, ``LAT``, ``LON`` (degrees, WGS 84)
        and probabilities as float64, labels as Int32; column ``_flaw`` says what is wrong with the coordinates.

    Raises:
        UserError: The file is missing, is not such a table, or a label is not a number.
    """
    for table in csv_chunks(path, COLUMNS, taken=(FLAW, URL)):
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
        yield table


def _urls(path: Path) -> Iterator["pd.DataFrame"]:
    for table in csv_chunks(path, ("IMG_ID", "url"), header=False):
        yield table[table["url"].str.contains("://", regex=False)]


def _read_if_there(raw: Path, name: str | None, columns: tuple[str, ...]) -> Rows | None:
    return Rows(csv_chunks(raw / name, columns), "IMG_ID") if name and (raw / name).exists() else None


def _texts(captions: Rows | None) -> list[str]:
    return [name for name in captions.columns if name != "IMG_ID"] if captions is not None else []


def _attributes(metadata: Rows, captions: Rows | None) -> "pa.Schema":
    import pyarrow as pa

    def kind(name: str) -> pa.DataType:
        return pa.int32() if name in LABELS else pa.float64() if name in PROBABILITIES else pa.string()

    names = [*metadata.columns, *_texts(captions)]
    return pa.schema([(name, kind(name)) for name in names if name not in OWN])


def _from_shards(options: Options, raw: Path, tables: _Tables) -> Iterator[Photo | Refusal]:
    assert options.shards
    shards = sorted(raw.glob(options.shards), key=_by_number)
    if not shards:
        raise UserError(f"{raw / options.shards}: no such file; expected the msgpack shards of the corpus")
    return _stream(options, shards, tables)


def _stream(options: Options, shards: list[Path], tables: _Tables) -> Iterator[Photo | Refusal]:
    met = bytearray(tables.metadata.last + 1)
    for shard in shards:
        for chunk in in_chunks(records(shard), CHUNK):
            known = tables.find({name for name, _ in chunk})
            for name, data in chunk:
                if name not in known:
                    where = f"in {shard.name}, not in {options.metadata}{tables.members.hint(name)}"
                    yield Refusal(name, Reason.NO_METADATA, where)
                    continue
                row, cells = known[name]
                if met[row]:
                    yield Refusal(name, Reason.DUPLICATE, f"in {shard.name}: IMG_ID occurred before")
                else:
                    met[row] = True
                    yield _photo(cells, data, options)
    absent = (row["IMG_ID"] for number, row in tables.metadata if not met[number])
    missing = Reason.MISSING, f"in {options.metadata}, in none of {len(shards)} shards"
    for names in in_chunks(absent, CHUNK):
        gone = tables.why_gone(names, options)
        for name in names:
            yield Refusal(name, *gone.get(name, missing))


def records(shard: Path) -> Iterator[tuple[str, bytes]]:
    """The readable records of a shard; what follows a broken one is lost, and one line says so.

    Raises:
        OSError: Of the machine, not of the file.
    """
    import msgpack

    count, end, size, problem = 0, 0, 0, ""
    # Few entries: an array's declared length alone would be made room for.
    few = dict.fromkeys(("max_array_len", "max_map_len"), MAX_ENTRIES)
    try:
        with shard.open("rb") as stream:
            size = shard.stat().st_size
            # raw: published shards were packed both with and without the distinction of text and bytes.
            unpacker = msgpack.Unpacker(stream, raw=True, max_buffer_size=MAX_RECORD_BYTES, **few)
            for record in unpacker:
                name, data = record[b"id"], record[b"image"]
                if not isinstance(name, bytes) or not isinstance(data, bytes):
                    raise TypeError("id and image are not bytes")
                yield name.decode("utf-8", "backslashreplace"), data
                count += 1
            end = unpacker.tell()
    except OSError as error:
        if is_of_the_machine(error):
            raise named(error, shard) from None
        problem = error.strerror or type(error).__name__
    except (ValueError, TypeError, KeyError, OverflowError, msgpack.UnpackException) as error:
        problem = f"not a record {{id, image}}: {type(error).__name__} {error}"
    if problem or end < size or not count:
        problem = problem or ("ends within a record" if end < size else "no records")
        lost = "the photos after that point are refused as missing"
        say(f"{shard.name}: broken after {count:,} photos ({problem}); {lost}")


def _from_images(options: Options, raw: Path, tables: _Tables) -> Iterator[Photo | Refusal]:
    assert options.images
    folder = raw / options.images
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected the image files of the corpus")
    return listed(_rows(options, tables), Folder(folder), options.metadata, alias=published)


def _rows(options: Options, tables: _Tables) -> Iterator[Row]:
    for names in in_chunks((row["IMG_ID"] for _, row in tables.metadata), CHUNK):
        known, gone = tables.find(names), tables.why_gone(names, options)
        for name in names:
            number, cells = known[name]
            where = f"{options.metadata} row {number}"
            yield Row(_photo(cells, b"", options), _paths(name), where, absent=gone.get(name))


def _paths(name: str) -> tuple[str, ...]:
    """The places where mirrors of these corpora keep a photo."""
    return name, name.replace("/", "_"), base(name)


def published(path: str) -> str:
    """The IMG_ID that a file's name ends with: IM2GPS' own archive has ``<place>_<five digits>_<IMG_ID>``."""
    return NUMBERED.sub("", base(path))


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
        flaw=as_flaw(row[FLAW]),
        author=row["AUTHOR"] or None,
        licence=options.licence,
        source_url=row[URL],
        attributes={key: value for key, value in row.items() if key not in OWN},
    )


def _by_number(path: Path) -> tuple[int, str]:
    digits = "".join(re.findall("[0-9]", path.name))
    return int(digits or 0), path.name


def write(world: Simulation, folder: Path, options: Options) -> None:
    """Write rendered photos as this family is published.

    The list of addresses has no header line, as the readers of the published one name its two columns themselves.
    In addition to the published files, it writes ``captions.csv``, titles and what photos show, and for corpora in
    shards ``clues.csv``, what a guidebook would say about each country.
    """
    with ExitStack() as stack:
        metadata = stack.enter_context(csv_table(folder / options.metadata, COLUMNS))
        captions = stack.enter_context(csv_table(folder / "captions.csv", ("IMG_ID", "caption", "seen")))
        urls = stack.enter_context(csv_table(folder / options.urls, None)) if options.urls else None
        shards = stack.enter_context(_ShardWriter(folder, options.shards)) if options.shards else None
        if options.images:
            (folder / options.images).mkdir(parents=True)
        for shot in world.shots:
            name = _name(shot, options)
            place = (shot.latitude, shot.longitude)
            metadata.writerow((name, shot.author, *place, *shot.labels, *shot.probabilities))
            captions.writerow((name, shot.caption, shot.seen))
            if urls:
                urls.writerow((name, shot.url))
            if shards:
                shards.add(name, shot.jpeg)
            else:
                save(folder / str(options.images) / name, shot.jpeg)
            if shot.mask is not None:
                save(folder / (options.masks or "masks") / _mask(name), shot.mask)
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
