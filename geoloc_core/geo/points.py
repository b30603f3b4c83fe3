"""Tables of points, CSV or Parquet, that stream through: columns in, the same rows with more columns out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core import files, progress
from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

LIMITS = {"latitude": 90, "longitude": 180}
"""The columns a table must have, and how far from zero their values may be."""
ROWS = 1 << 18
"""Rows of Parquet read at once."""
MEGABYTES = 16
"""Of CSV read at once."""


@dataclass(frozen=True)
class Table:
    """A table that is read in parts.

    Attributes:
        path: Where it is.
        schema: Its columns.
        parts: Its rows.
        first: Number of the first row: that of a spreadsheet in a CSV, 0 in Parquet.
        total: How much there is to read.
        unit: Of what.
        weight: Of which a part is so much.
    """

    path: Path
    schema: "pa.Schema"
    parts: "Iterator[pa.RecordBatch]"
    first: int
    total: int
    unit: str
    weight: int


def annotate(
    points: Path,
    out: Path,
    added: "pa.Schema",
    find: "Callable[[np.ndarray, np.ndarray], list[pa.Array]]",
    what: str,
) -> None:
    """Write the rows of a table, in order, with columns about their points behind their own.

    Args:
        points: CSV or Parquet with the columns ``latitude`` and ``longitude``, degrees.
        out: CSV or Parquet to write.
        added: The new columns.
        find: The new columns' values for latitudes (N,) and longitudes (N,).
        what: Names the work in the progress.

    Raises:
        UserError: A file is missing or broken, or a coordinate is none; nothing is written then.
    """
    import pyarrow as pa

    table = _read(points, added.names)
    schema = pa.schema([*table.schema, *added])
    with files.replacing(out) as aside, _writer(aside, _kind(out), schema) as writer:
        for part, latitudes, longitudes in _coordinates(table, what):
            columns = [*part.columns, *find(latitudes, longitudes)]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def check(points: Path, out: Path, added: Sequence[str]) -> None:
    """Find out what can be known before long work starts: that the table can be read and the new columns are new.

    Raises:
        UserError: It cannot, or they are not.
    """
    _kind(out)
    files.check_file(out)
    _read(points, added)


def read(points: Path, what: str) -> tuple[np.ndarray, np.ndarray]:
    """All latitudes (N,) and longitudes (N,) of a table, degrees.

    Raises:
        UserError: The file is missing or broken, or a coordinate is none.
    """
    found = [pair for _, *pair in _coordinates(_read(points), what)]
    latitudes, longitudes = zip(*found, strict=True) if found else ([np.empty(0)], [np.empty(0)])
    return np.concatenate(latitudes), np.concatenate(longitudes)


def _coordinates(table: Table, what: str) -> "Iterator[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]":
    """The parts of a table, with their points."""
    rows = table.first
    for part in progress.track(table.parts, f"{what} {table.path.name}", table.total, table.unit, table.weight):
        latitudes, longitudes = (_degrees(part, name, table.path, rows) for name in LIMITS)
        yield part, latitudes, longitudes
        rows += part.num_rows


def _kind(path: Path) -> str:
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise UserError(f"{path}: not a name of a table; expected .csv or .parquet")
    return kind


def _read(path: Path, taken: Sequence[str] = ()) -> Table:
    kind = _kind(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a table of points, CSV or Parquet")
    table = _read_csv(path) if kind == ".csv" else _read_parquet(path)
    _check_columns(table, taken)
    return table


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Pyarrow would keep all that it has read until the end.
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(path, "Parquet file", error) from None
    parts = _caught(file.iter_batches(ROWS), path, "Parquet file")
    return Table(path, file.schema_arrow, parts, 0, file.metadata.num_rows, "points", ROWS)


def _read_csv(path: Path) -> Table:
    """A CSV whose cells stay the text that they are."""
    import pyarrow as pa
    from pyarrow import csv

    read = csv.ReadOptions(block_size=MEGABYTES << 20)
    try:
        with csv.open_csv(path, read_options=read) as file:
            names = file.schema.names
        text = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
        file = csv.open_csv(path, read_options=read, convert_options=text)
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(path, "CSV", error) from None
    size = -(-path.stat().st_size // (1 << 20))
    return Table(path, file.schema, _caught(file, path, "CSV"), 2, size, "MB", MEGABYTES)


def _caught(parts: "Iterator[pa.RecordBatch]", path: Path, kind: str) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    try:
        yield from parts
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(path, kind, error) from None


def _broken(path: Path, kind: str, error: Exception) -> UserError:
    return UserError(f"{path}: not a {kind} that can be read: {' '.join(str(error).split())}")


def _check_columns(table: Table, taken: Sequence[str]) -> None:
    names = table.schema.names
    missing = [name for name in LIMITS if name not in names]
    if missing:
        raise UserError(f"{table.path}: no column {', '.join(missing)}; found {', '.join(names)}")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{table.path}: {names.count(name)} columns {name}; expected one")
        if name in taken:
            raise UserError(f"{table.path}: has a column {name} already, which is to be added; rename it")


def _degrees(part: "pa.RecordBatch", name: str, path: Path, first: int) -> np.ndarray:
    """A column of coordinates, once it is sure that it is one."""
    import pyarrow as pa

    column = part.column(name)
    try:
        values = column.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        values = pa.array([_number(value) for value in column.to_pylist()], pa.float64())
    values = values.to_numpy(zero_copy_only=False)
    wrong = ~(np.abs(values) <= LIMITS[name])
    if wrong.any():
        row = int(wrong.argmax())
        shown = column[row].as_py()
        swapped = name == "latitude" and 90 < abs(values[row]) <= 180
        hint = "; are latitude and longitude swapped?" if swapped else ""
        raise UserError(
            f"{path}: column {name}, row {first + row}: {'empty' if shown in (None, '') else shown}; "
            f"expected −{LIMITS[name]} … {LIMITS[name]} degrees{hint}"
        )
    return np.ascontiguousarray(values, dtype=np.float64)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


@contextmanager
def _writer(path: Path, kind: str, schema: "pa.Schema") -> "Iterator[Any]":
    import pyarrow.parquet as pq
    from pyarrow import csv

    from geoloc_core.parquet import closing

    with closing(csv.CSVWriter(path, schema) if kind == ".csv" else pq.ParquetWriter(path, schema)) as writer:
        yield writer
