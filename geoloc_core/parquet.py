"""Parquet as it is written and read here: every page with a checksum, and every error one that names the file."""

import errno
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geoloc_core.errors import OF_THE_MACHINE, UserError, in_a_line

SUM = b"geoloc.crc32"
"""Key of a schema's metadata: the checksum of the rest of it, which is in no page."""
NOT_OF_THE_FILE = OF_THE_MACHINE | {errno.EACCES, errno.EPERM}
"""Errors of reading that say nothing about what is in a file."""
VERIFIED = 250
"""Rows verified in one go: each may hold a photo of some megabytes."""


@contextmanager
def writer(path: Path, schema: pa.Schema, **options: Any) -> Iterator[pq.ParquetWriter]:
    """A writer that is closed when the block ends. Compressed with zstd unless ``options`` of Arrow's say otherwise.

    Raises:
        OSError: The disk is full, or the file may not be written: the first error, not one of closing it.
    """
    summed = schema.with_metadata({**(schema.metadata or {}), SUM: _sum(schema)})
    options = {"compression": "zstd", "write_page_checksum": True, **options}
    with closing(pq.ParquetWriter(path, summed, **options)) as out:
        yield out


@contextmanager
def closing(out: Any) -> Iterator[Any]:
    """One of Arrow's writers, closed when the block ends: an error on closing it does not hide the one in the block."""
    try:
        yield out
    except BaseException:  # any: the first error is raised again
        with suppress(OSError, ValueError, pa.ArrowException):
            out.close()
        raise
    out.close()


def write(table: pa.Table, path: Path, **options: Any) -> None:
    """Write a table with its own schema; ``options`` as of :func:`writer`."""
    with writer(path, table.schema, **options) as out:
        out.write_table(table)


@contextmanager
def opened(path: Path, remedy: str, **options: Any) -> Iterator[pq.ParquetFile]:
    """A file to read from in the block.

    Args:
        path: The file.
        remedy: What rebuilds it, for messages.
        options: Of Arrow's ``ParquetFile``.

    Raises:
        UserError: It is missing, damaged or not a Parquet file, even if that is only noticed while the block reads.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder; expected a file; {remedy}")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, **options) as file:
            _check(file)
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; {remedy}") from None
    except (OSError, ValueError, LookupError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno in NOT_OF_THE_FILE:
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise UserError(f"{path}: damaged: {in_a_line(error)}; {remedy}") from None


def read(path: Path, remedy: str, columns: list[str] | None = None) -> pa.Table:
    """A table, or some of its columns in their order.

    Raises:
        UserError: The file is missing or damaged, or lacks a column.
    """
    with opened(path, remedy) as file:
        lacking = [name for name in columns or () if name not in file.schema_arrow.names]
        if lacking:
            has = ", ".join(file.schema_arrow.names)
            raise UserError(f"{path}: no column {', '.join(lacking)}; found {has}; {remedy}")
        table = file.read(columns)
    return (table if columns is None else table.select(columns)).replace_schema_metadata(_said(table.schema))


def batches(path: Path, remedy: str, rows: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a file, so many at a time, in memory that does not grow with the file.

    Arrow's default is to read ahead, and to keep until the end what it has read. Pages of a mapped file count too.

    Raises:
        UserError: It is missing or damaged.
    """
    with opened(path, remedy, pre_buffer=False) as file:
        yield from file.iter_batches(rows, columns=columns)


def schema(path: Path, remedy: str) -> pa.Schema:
    """The schema of a file.

    Raises:
        UserError: It is missing or damaged.
    """
    with opened(path, remedy) as file:
        return file.schema_arrow.with_metadata(_said(file.schema_arrow))


def count(path: Path, remedy: str) -> int:
    """Rows of a file, without reading them.

    Raises:
        UserError: It is missing or damaged.
    """
    with opened(path, remedy) as file:
        return int(file.metadata.num_rows)


def verify(path: Path, remedy: str) -> None:
    """Read all of a file and drop it, in memory that does not grow with the file.

    Raises:
        UserError: It is missing or damaged.
    """
    stated, rows = count(path, remedy), sum(batch.num_rows for batch in batches(path, remedy, VERIFIED))
    if rows != stated:
        raise UserError(f"{path}: damaged: {rows:,} of {stated:,} rows; {remedy}")


def _said(schema: pa.Schema) -> dict[bytes, bytes]:
    """The metadata of a schema but for what is of the file."""
    return {key: value for key, value in (schema.metadata or {}).items() if key not in (SUM, b"ARROW:schema")}


def _sum(schema: pa.Schema) -> bytes:
    columns = [(field.name, field.type.id, field.nullable) for field in schema]
    return str(zlib.crc32(repr((sorted(_said(schema).items()), columns)).encode())).encode()


def _check(file: pq.ParquetFile) -> None:
    """The footer contains the metadata twice: as it is, and within Arrow's own schema."""
    for said in (file.metadata.metadata, file.schema_arrow.metadata):
        expected = (said or {}).get(SUM)
        if expected is not None and expected != _sum(file.schema_arrow.with_metadata(said)):
            raise ValueError("the description of its columns has changed since it was written")
