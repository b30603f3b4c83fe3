"""The command ``geoloc locate``: the units of the points of a table, which streams through."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core import files, progress
from geoloc_core.errors import UserError
from geoloc_core.geo.locate import LEVELS, NAMES, Locator, source_of

if TYPE_CHECKING:
    import pyarrow as pa
    from geopandas import GeoDataFrame

LIMITS = {"latitude": 90, "longitude": 180}
"""The columns a table must have, and how far from zero their values may be."""
ADDED = [*(f"gid_{level}" for level in LEVELS), *(f"name_{level}" for level in LEVELS), "distance_km"]
"""The columns that are put behind the table's own."""
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


def locate_file(points: Path, boundaries: Path, out: Path, limit_km: float, index: Path | None) -> None:
    """Write the rows of a table, in order, with the units of their points.

    Args:
        points: CSV or Parquet with the columns ``latitude`` and ``longitude``, degrees.
        boundaries: A boundaries folder, or a file with polygons in GADM's schema.
        out: CSV or Parquet to write: the table's columns and :data:`ADDED`.
        limit_km: How far a point may lie outside its unit.
        index: Where to keep the index of a file.

    Raises:
        UserError: A file is missing or broken, or a coordinate is none; nothing is written then.
    """
    _kind(out)
    table = _read(points)
    _check_columns(table)
    locator = _locator(boundaries, limit_km, index)
    rows = inside = located = 0
    with files.replacing(out) as aside, _writer(aside, _kind(out), _schema(table.schema)) as writer:
        parts = progress.track(table.parts, f"locate {points.name}", table.total, table.unit, table.weight)
        for part in parts:
            coordinates = [_degrees(part, name, table.path, table.first + rows) for name in LIMITS]
            found = locator.locate(*coordinates)
            writer.write_batch(_with_units(part, found, _schema(table.schema)))
            rows += len(found)
            inside += int((found.distance_km == 0).sum())
            located += int((found.unit >= 0).sum())
    progress.say(
        f"locate: {rows:,} points, {inside:,} inside a unit, {located - inside:,} within {limit_km:g} km of one, "
        f"{rows - located:,} without; wrote {out}"
    )


def _kind(path: Path) -> str:
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise UserError(f"{path}: not a name of a table; expected .csv or .parquet")
    return kind


def _read(path: Path) -> Table:
    if _kind(path) == ".csv" and path.is_file():
        return _read_csv(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a table of points, CSV or Parquet")
    return _read_parquet(path)


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


def _check_columns(table: Table) -> None:
    names = table.schema.names
    missing = [name for name in LIMITS if name not in names]
    if missing:
        raise UserError(f"{table.path}: no column {', '.join(missing)}; found {', '.join(names)}")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{table.path}: {names.count(name)} columns {name}; expected one")
        if name in ADDED:
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


def _schema(schema: "pa.Schema") -> "pa.Schema":
    import pyarrow as pa

    for name in ADDED:
        schema = schema.append(pa.field(name, pa.float64() if name == "distance_km" else pa.string()))
    return schema


def _with_units(part: "pa.RecordBatch", found: Any, schema: "pa.Schema") -> "pa.RecordBatch":
    import pyarrow as pa

    codes = pa.array(found.unit, mask=found.unit < 0)
    tables = [found.units.gids[:, level] for level in LEVELS] + [found.units.names[:, level] for level in LEVELS]
    columns = [pa.array(table, pa.string()).take(codes) for table in tables]
    distance = pa.array(found.distance_km, from_pandas=True)
    return pa.RecordBatch.from_arrays([*part.columns, *columns, distance], schema=schema)


@contextmanager
def _writer(path: Path, kind: str, schema: "pa.Schema") -> "Iterator[Any]":
    import pyarrow.parquet as pq
    from pyarrow import csv

    with csv.CSVWriter(path, schema) if kind == ".csv" else pq.ParquetWriter(path, schema) as writer:
        yield writer


def _locator(boundaries: Path, limit_km: float, index: Path | None) -> Locator:
    """The locator of a folder or a file, from the index that is kept where that is of the same file."""
    if boundaries.is_dir():
        return Locator.open(boundaries, limit_km)
    if index is None:
        progress.say(f"locate: indexing {boundaries}; --index FOLDER would keep the index for the next time")
        return Locator.of_levels(_levels(boundaries), limit_km)
    if index.exists() and not source_of(index):
        raise UserError(f"--index {index}: exists and is no index of a file; expected a new folder or such an index")
    source = files.digest(boundaries) if boundaries.is_file() else ""
    if source != source_of(index) or not source:
        progress.say(f"locate: indexing {boundaries} in {index}")
        made = Locator.of_levels(_levels(boundaries), limit_km)
        with files.replacing(index) as aside:
            made.save(aside, source)
    return Locator.load(index, limit_km)


def _levels(path: Path) -> "dict[int, GeoDataFrame]":
    """The units of a file in GADM's schema: a layer per level, or one layer of units with all their ids."""
    from geoloc_core.geo import vectors

    layers = vectors.layers(path)
    levels = {level: f"ADM_{level}" for level in LEVELS if f"ADM_{level}" in layers}
    if levels:
        return {level: _level(path, level, layer) for level, layer in levels.items()}
    level = _finest_column(path)
    return {level: _level(path, level, None)}


def _finest_column(path: Path) -> int:
    import pyogrio

    columns = {str(name).upper() for name in pyogrio.read_info(path)["fields"]}
    found = [level for level in LEVELS if f"GID_{level}" in columns]
    if not found:
        raise UserError(f"{path}: no layer ADM_0 and no column GID_0; expected units in GADM's schema")
    return found[-1]


def _level(path: Path, level: int, layer: str | None) -> "GeoDataFrame":
    from geoloc_core.geo import vectors

    upper = range(level + 1)
    columns = [*(f"GID_{n}" for n in upper), *(NAMES[n] for n in upper)]
    frame = vectors.read(path, columns, layer)
    text = frame[columns].replace({"NA": None, "": None})
    frame[columns] = text
    return frame[text[f"GID_{level}"].notna()].reset_index(drop=True)
