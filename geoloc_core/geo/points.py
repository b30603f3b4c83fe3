"""Tables of points, CSV or Parquet, that stream through: columns in, the same rows with more columns out."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core import files, progress, tables
from geoloc_core.errors import UserError
from geoloc_core.tables import Part

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
        schema: Its columns, and what it says of them.
        parts: Its rows: numbered as in a spreadsheet in a CSV, from 0 in Parquet.
        own: What it calls the columns of :data:`LIMITS`.
        total: How much there is to read.
        unit: Of what.
        weight: Of which a part is so much.
    """

    path: Path
    schema: "pa.Schema"
    parts: Iterator[Part]
    own: dict[str, str]
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

    What Parquet says of a table stays: the index of a data frame, the geometry of GeoParquet.

    Args:
        points: CSV or Parquet with the columns ``latitude`` and ``longitude``, degrees.
        out: CSV or Parquet to write.
        added: The new columns.
        find: The new columns' values for latitudes (N,) and longitudes (N,).
        what: Names the work in the progress.

    Raises:
        UserError: A file is missing or broken, or a coordinate is invalid; nothing is written then.
    """
    import pyarrow as pa

    table = _read(points, added.names)
    schema = _schema(table, out, added)
    with files.replacing(out) as aside, _writer(aside, _kind(out), schema) as writer:
        for part, latitudes, longitudes in _coordinates(table, what):
            columns = [*part.columns, *find(latitudes, longitudes)]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def check(points: Path, out: Path, added: "pa.Schema") -> None:
    """Check before long work starts that the table can be read, and written with new columns.

    Raises:
        UserError: It cannot.
    """
    files.check_file(out)
    _schema(_read(points, added.names), out, added)


def read(points: Path, what: str) -> tuple[np.ndarray, np.ndarray]:
    """All latitudes (N,) and longitudes (N,) of a table, degrees.

    Raises:
        UserError: The file is missing or broken, or a coordinate is invalid.
    """
    found = [pair for _, *pair in _coordinates(_read(points), what)]
    latitudes, longitudes = zip(*found, strict=True) if found else ([np.empty(0)], [np.empty(0)])
    return np.concatenate(latitudes), np.concatenate(longitudes)


def _coordinates(table: Table, what: str) -> "Iterator[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]":
    """The parts of a table, with their points."""
    for part in progress.track(table.parts, f"{what} {table.path.name}", table.total, table.unit, table.weight):
        latitudes, longitudes = (_degrees(part, name, table) for name in LIMITS)
        yield part.batch, latitudes, longitudes


def _kind(path: Path) -> str:
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise UserError(f"{path}: not a table; expected a name that ends in .csv or .parquet")
    return kind


def _read(path: Path, taken: Sequence[str] = ()) -> Table:
    kind = _kind(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {found}; expected a table of points, CSV or Parquet")
    table = _read_csv(path) if kind == ".csv" else _read_parquet(path)
    for name in table.schema.names:
        if name in taken:
            raise UserError(f"{path}: already has a column {name}, which this command adds; rename it")
    for name in table.own.values():
        _check_type(path, table.schema.field(name))
    return table


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Pyarrow would keep all that it has read until the end.
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        schema = file.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:  # the last for names of columns that are no text
        raise _broken(path, error) from None
    tables.check_names(path, schema.names)
    own = tables.columns_of(path, schema.names, LIMITS)
    return Table(path, schema, _parts(file, path, own), own, file.metadata.num_rows, "points", ROWS)


def _parts(file: Any, path: Path, own: dict[str, str]) -> Iterator[Part]:
    import pyarrow as pa

    first = 0
    try:
        for batch in file.iter_batches(ROWS):
            for name in own.values():
                batch.column(name).validate(full=True)
            yield Part(range(first, first + batch.num_rows), batch)
            first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: not a Parquet file that can be read: {' '.join(str(error).split())}")


def _read_csv(path: Path) -> Table:
    """A CSV. Its cells stay text."""
    import pyarrow as pa

    file = tables.read_csv(path, tuple(LIMITS), megabytes=MEGABYTES)
    schema = pa.schema([(name, pa.string()) for name in file.names])
    own = tables.columns_of(path, file.names, LIMITS)
    size = -(-path.stat().st_size // (1 << 20))
    return Table(path, schema, file.parts, own, size, "MB", MEGABYTES)


def _check_type(path: Path, field: "pa.Field") -> None:
    from pyarrow import types

    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    judges = (types.is_floating, types.is_integer, types.is_decimal, types.is_null, _is_text)
    if not any(judge(kind) for judge in judges):
        raise UserError(f"{path}: column {field.name}: its type is {field.type}; expected numbers, degrees")


def _is_text(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _degrees(part: Part, name: str, table: Table) -> np.ndarray:
    """A column of coordinates, once it is sure that it is one."""
    import pyarrow as pa
    from pyarrow import types

    column = part.batch.column(table.own[name])
    plain = column.cast(column.type.value_type) if types.is_dictionary(column.type) else column
    if _is_text(plain.type):
        values = tables.numbers(plain.cast(pa.string()))
    else:
        values = plain.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    wrong = ~(np.abs(values) <= LIMITS[name])
    if wrong.any():
        at = int(wrong.argmax())
        shown = column[at].as_py()
        shown = "empty" if shown is None or not str(shown).strip() else str(shown)
        swapped = name == "latitude" and 90 < abs(values[at]) <= 180
        hint = "; are latitude and longitude swapped?" if swapped else tables.advice(shown)
        raise UserError(
            f"{table.path}: column {table.own[name]}, row {part.numbers[at]}: {shown}; "
            f"expected −{LIMITS[name]} … {LIMITS[name]} degrees{hint}"
        )
    return np.ascontiguousarray(values, dtype=np.float64)


def _schema(table: Table, out: Path, added: "pa.Schema") -> "pa.Schema":
    """The table's columns and the new ones, as a file of that kind can hold them.

    Raises:
        UserError: It cannot.
    """
    import pyarrow as pa

    schema = pa.schema([*table.schema, *added])
    if _kind(out) == ".parquet":
        return schema.with_metadata(_described(table.schema.metadata, added))
    for field in schema:
        if not _fits_csv(field):
            raise UserError(
                f"{table.path}: column {field.name}: its type is {field.type}, which a CSV cannot hold; "
                "name a .parquet with --out, or leave the column out"
            )
    return schema


def _fits_csv(field: "pa.Field") -> bool:
    import pyarrow as pa
    from pyarrow import csv, types

    if types.is_binary(field.type) or types.is_large_binary(field.type) or types.is_fixed_size_binary(field.type):
        return False
    schema = pa.schema([pa.field("", field.type)])
    try:
        with csv.CSVWriter(BytesIO(), schema) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays([pa.nulls(1, field.type)], schema=schema))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True


def _described(metadata: dict[bytes, bytes] | None, added: "pa.Schema") -> dict[bytes, bytes] | None:
    """What a table says of itself, with the new columns where it lists them all."""
    from geoloc_core import parquet

    if not metadata:
        return None
    described = {key: value for key, value in metadata.items() if key != parquet.SUM}  # of the file it came from
    for key, listed in ((b"pandas", _pandas), (b"huggingface", _huggingface)):
        try:
            said = json.loads(metadata[key])
            listed(said, added)
            described[key] = json.dumps(said).encode()
        except KeyError:  # nothing is said, or nothing of columns
            pass
        except (ValueError, TypeError, AttributeError):
            del described[key]  # it would be read, and is no such thing
    return described


def _pandas(said: dict[str, Any], added: "pa.Schema") -> None:
    # The columns of the index are the last ones.
    end = len(said["columns"]) - sum(isinstance(index, str) for index in said["index_columns"])
    for place, field in enumerate(added, end):
        name = {"string": "unicode", "double": "float64"}.get(str(field.type), str(field.type))
        kind = {"string": "object", "double": "float64"}.get(str(field.type), str(field.type))
        about = {"name": field.name, "field_name": field.name, "pandas_type": name, "numpy_type": kind}
        said["columns"].insert(place, {**about, "metadata": None})


def _huggingface(said: dict[str, Any], added: "pa.Schema") -> None:
    for field in added:
        dtype = {"double": "float64"}.get(str(field.type), str(field.type))
        said["info"]["features"][field.name] = {"dtype": dtype, "_type": "Value"}


@contextmanager
def _writer(path: Path, kind: str, schema: "pa.Schema") -> "Iterator[Any]":
    import pyarrow.parquet as pq
    from pyarrow import csv

    from geoloc_core.parquet import closing

    with closing(csv.CSVWriter(path, schema) if kind == ".csv" else pq.ParquetWriter(path, schema)) as writer:
        yield writer
