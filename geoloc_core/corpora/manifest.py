"""A corpus as this project keeps it: one row per photo, the photos in shards, and a table of the refused photos.

``data/corpora/<name>/`` holds

- ``manifest.parquet``: :data:`MANIFEST`, one row per kept photo;
- ``attributes.parquet``: what else the corpus publishes (scene labels, captions), row-aligned with the manifest;
- ``rejects.parquet``: :data:`REJECTS`, one row per refused photo with the reason;
- ``shards/00000.parquet`` …: :data:`SHARD`, the encoded photos in the layout Hugging Face ``datasets`` reads.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from geoloc_core import parquet
from geoloc_core.errors import UserError
from geoloc_core.project import maker

if TYPE_CHECKING:
    import pandas as pd

VERSION = b"2"
SHARD_BYTES = 256 * 2**20
"""Size after which a new shard begins: few files, so that DVC and cloud stores stay fast."""
ROW_GROUP = 250
"""Photos per row group: small enough to read one photo cheaply."""
TABLE_GROUP = 50_000
"""Rows per row group of the tables."""
PENDING = 1_000
"""Rows that are kept as Python objects before they go to Arrow, where they take a tenth of the memory."""


def _field(name: str, kind: pa.DataType, meaning: str, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning})


MANIFEST = pa.schema(
    [
        _field("image_id", pa.string(), "unique and stable within the corpus", nullable=False),
        _field("corpus", pa.string(), "name of the corpus", nullable=False),
        _field("shard", pa.int32(), "number of the shard that holds the photo", nullable=False),
        _field("row", pa.int32(), "row within the shard", nullable=False),
        _field("latitude", pa.float64(), "degrees, WGS 84; null where unknown"),
        _field("longitude", pa.float64(), "degrees, WGS 84; null where unknown"),
        _field(
            "group_id",
            pa.string(),
            "must not straddle a split: photographer, place",
            nullable=False,
        ),
        _field("heading", pa.float32(), "degrees clockwise from north; null where unknown"),
        _field("captured_at", pa.timestamp("ms"), "when the photo was taken; null where unknown"),
        _field("width", pa.int32(), "pixels", nullable=False),
        _field("height", pa.int32(), "pixels", nullable=False),
        _field("author", pa.string(), "photographer as published; null where unknown"),
        _field("licence", pa.string(), "licence as published; null where unknown"),
        _field("source_url", pa.string(), "where the photo was published; null where unknown"),
        _field("sha256", pa.string(), "SHA-256 of the encoded photo", nullable=False),
        _field("phash", pa.uint64(), "perceptual hash, near for near-duplicates; null where the picture is flat"),
    ],
    metadata={"geoloc.schema": "manifest", "geoloc.version": VERSION},
)

REJECTS = pa.schema(
    [
        _field("image_id", pa.string(), "as the corpus names the photo", nullable=False),
        _field("reason", pa.string(), "one of the few reasons of `ingest`", nullable=False),
        _field("detail", pa.string(), "what exactly was wrong", nullable=False),
    ],
    metadata={"geoloc.schema": "rejects", "geoloc.version": VERSION},
)

LABELS = pa.schema(
    [
        _field("image_id", pa.string(), "as in the manifest, row by row", nullable=False),
        _field("gid_0", pa.string(), "country; null where the place is unknown or far from all units"),
        _field("gid_1", pa.string(), "first-level unit; null where there is none"),
        _field("gid_2", pa.string(), "second-level unit; null where there is none"),
        _field("name_0", pa.string(), "name of gid_0"),
        _field("name_1", pa.string(), "name of gid_1"),
        _field("name_2", pa.string(), "name of gid_2"),
        _field("distance_km", pa.float64(), "great-circle distance to the unit, 0 inside; null without one"),
        _field("split", pa.string(), "train, validation or benchmark", nullable=False),
    ],
    metadata={"geoloc.schema": "labels", "geoloc.version": VERSION},
)
"""Row-aligned with the manifest: one table per corpus under ``data/labels/``."""

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SHARD = pa.schema(
    [
        _field("image_id", pa.string(), "as in the manifest", nullable=False),
        # never null; a field that promises so is no image to `datasets`, which compares types to the letter
        _field("image", _IMAGE, "the encoded photo"),
    ],
    metadata={
        "geoloc.schema": "shard",
        "geoloc.version": VERSION,
        "huggingface": '{"info": {"features": {"image_id": {"dtype": "string", "_type": "Value"}, '
        '"image": {"_type": "Image"}}}}',
    },
)


def write_table(table: pa.Table, path: Path, schema: pa.Schema) -> None:
    """Write a table that has exactly the schema's columns, types and non-null promises.

    Raises:
        ValueError: The table breaks the schema: the caller's mistake, not the user's.
    """
    table = table.select(schema.names)
    _check_nulls(table, schema)
    parquet.write(table.cast(schema).replace_schema_metadata(schema.metadata), path)


def _check_nulls(table: pa.Table, schema: pa.Schema) -> None:
    for field in schema:
        if not field.nullable and table[field.name].null_count:
            raise ValueError(f"column {field.name} has {table[field.name].null_count} nulls; it promises none")


class TableWriter:
    """A table written row by row, in constant memory.

    Args:
        path: The file to write.
        schema: Its columns; a null where it promises none is the caller's mistake.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._schema = schema
        self._pending: list[Mapping[str, Any]] = []
        self._group: list[pa.Table] = []
        self._stack = ExitStack()
        self._writer = self._stack.enter_context(parquet.writer(path, schema))

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; a key it lacks is null."""
        self._pending.append(row)
        self.rows += 1
        if self.rows % TABLE_GROUP == 0:
            self._write_group()
        elif len(self._pending) == PENDING:
            self._convert()

    def _convert(self) -> None:
        table = pa.Table.from_pylist(self._pending, schema=self._schema)
        _check_nulls(table, self._schema)
        self._group.append(table)
        self._pending.clear()

    def _write_group(self) -> None:
        self._convert()
        table = pa.concat_tables(self._group)
        if table.num_rows:
            self._writer.write_table(table, row_group_size=TABLE_GROUP)
        self._group.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is not None:
                raise error
            self._write_group()


class ShardWriter:
    """The photos of a corpus, written in shards of bounded size.

    Args:
        folder: The corpus' folder.
        limit: Bytes of photos after which a new shard begins; a photo larger than that has its own.
    """

    def __init__(self, folder: Path, limit: int = SHARD_BYTES) -> None:
        (folder / "shards").mkdir(parents=True)
        self._folder, self._limit = folder, limit
        self._shard, self._row, self._size = -1, 0, 0
        self._pending: list[tuple[str, bytes, str]] = []
        self._stack = ExitStack()

    def add(self, image_id: str, data: bytes, path: str) -> tuple[int, int]:
        """Append a photo.

        Returns:
            Its shard and its row there.
        """
        if self._shard < 0 or self._size + len(data) > self._limit:
            self._begin()
        elif len(self._pending) == ROW_GROUP:
            self._flush()
        self._pending.append((image_id, data, path))
        self._size += len(data)
        self._row += 1
        return self._shard, self._row - 1

    def _begin(self) -> None:
        self.close()
        self._shard, self._row, self._size = self._shard + 1, 0, 0
        path = shard_path(self._folder, self._shard)
        options = {"compression": "none", "use_dictionary": False, "write_statistics": ["image_id"]}
        self._writer = self._stack.enter_context(parquet.writer(path, SHARD, **options))

    def _flush(self) -> None:
        if self._pending:
            ids, data, paths = zip(*self._pending, strict=True)
            images = pa.StructArray.from_arrays([pa.array(data, pa.binary()), pa.array(paths)], fields=list(_IMAGE))
            self._writer.write_table(pa.Table.from_arrays([pa.array(ids), images], schema=SHARD))
            self._pending.clear()

    def close(self) -> None:
        """Finish the last shard."""
        with self._stack:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is not None:
                raise error
            self._flush()


def again(path: Path) -> str:
    """The command that rebuilds a table or a shard."""
    command = maker(path)
    return f"run `{command}` again" if command else "run the command that wrote it again"


def read_table(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read a table that :func:`write_table` wrote, and check that it is one.

    Raises:
        UserError: The file is missing or damaged, is another table or has another version.
    """
    expected = schema.metadata[b"geoloc.schema"].decode()
    remedy = f"expected the {expected}; {again(path)}"
    found = parquet.schema(path, remedy)
    if not found.equals(schema) or (found.metadata or {}).get(b"geoloc.version") != VERSION:
        has = ", ".join(found.names)
        raise UserError(f"{path}: not a {expected} of version {VERSION.decode()} (columns {has}); {remedy}")
    return parquet.read(path, remedy, columns)


def is_table(path: Path, schema: pa.Schema) -> bool:
    """Whether a file is a table of that schema, of this or another version."""
    try:
        found = parquet.schema(path, "").metadata or {}
    except UserError:
        return False
    return bool(found.get(b"geoloc.schema") == schema.metadata[b"geoloc.schema"])


def read_manifest(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """The manifest of a corpus folder, in shard order.

    Raises:
        UserError: The corpus has not been ingested, or was ingested by another version.
    """
    return read_table(folder / "manifest.parquet", MANIFEST, columns)


def read_labels(path: Path, image_ids: pa.ChunkedArray, columns: list[str] | None = None) -> pa.Table:
    """The labels of a corpus, or some columns, row by row.

    Args:
        path: The table, named like the corpus.
        image_ids: Those of its manifest.
        columns: All if left out.

    Raises:
        UserError: The corpus has not been labelled or was labelled by another version, or the labels belong to another
            manifest.
    """
    wanted = columns if columns is None else list(dict.fromkeys(["image_id", *columns]))
    table = read_table(path, LABELS, wanted)
    if not table["image_id"].equals(image_ids):
        raise UserError(f"{path}: does not match the manifest; run `geoloc label {path.stem}` again")
    return table if columns is None else table.select(columns)


def shard_path(folder: Path, shard: int) -> Path:
    """The file of one shard."""
    return folder / "shards" / f"{shard:05d}.parquet"


def shards(folder: Path) -> list[Path]:
    """All shards of a corpus folder, in order."""
    return sorted((folder / "shards").glob("*.parquet"))


def read_photos(shard: Path, batch: int = ROW_GROUP) -> Iterator[list[bytes]]:
    """The encoded photos of one shard, in row order, ``batch`` at a time.

    Raises:
        UserError: The shard is missing or damaged.
    """
    for group in parquet.batches(shard, again(shard), batch, ["image"]):
        yield group.column("image").field("bytes").to_pylist()


def read_batches(folder: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The manifest of a corpus folder that has just been written, in shard order, a row group at a time."""
    path = folder / "manifest.parquet"
    return parquet.batches(path, again(path), TABLE_GROUP, columns)


def read_whole(folder: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Each photo of a corpus folder that has just been written: its row, its attributes, and bytes and path."""
    stored = (photo["image"] for shard in shards(folder) for photo in _rows(shard, ROW_GROUP))
    tables = (_rows(folder / name, PENDING) for name in ("manifest.parquet", "attributes.parquet"))
    yield from zip(*tables, stored, strict=True)


def _rows(path: Path, batch: int) -> Iterator[dict[str, Any]]:
    for rows in parquet.batches(path, "run it again", batch):
        yield from rows.to_pylist()


def count(path: Path) -> int:
    """Rows of a Parquet file, without reading them.

    Raises:
        UserError: The file is missing or damaged.
    """
    return parquet.count(path, again(path))


def read_ids(path: Path) -> list[str]:
    """The column ``image_id`` of a shard, or of a Parquet file beside the manifest, such as its attributes.

    Raises:
        UserError: The file is missing or damaged.
    """
    ids: list[str] = parquet.read(path, again(path), ["image_id"])["image_id"].to_pylist()
    return ids


def read_attribute(folder: Path, column: str) -> list[Any] | None:
    """A column of what a corpus publishes beside its photos, row by row of the manifest; None where it has none.

    Raises:
        UserError: The attributes are missing or damaged.
    """
    path = folder / "attributes.parquet"
    if column not in parquet.schema(path, again(path)).names:
        return None
    values: list[Any] = parquet.read(path, again(path), [column])[column].to_pylist()
    return values


def read_published(folder: Path) -> "pd.Series | None":
    """The attribute ``gid_0``, the country that a corpus without coordinates states; None where it has none.

    Raises:
        UserError: The attributes are damaged.
    """
    import pandas as pd

    if not (folder / "attributes.parquet").exists():
        return None
    found = read_attribute(folder, "gid_0")
    return None if found is None else pd.Series(found, dtype=object)
