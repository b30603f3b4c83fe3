"""The table of administrative units, ``units.parquet`` of a boundaries folder: written by one stage, read by many."""

from pathlib import Path
from typing import TYPE_CHECKING

from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from pandas import DataFrame

FILE = "units.parquet"
UNITS = {
    "gid": "unique id, such as KEN.05_1",
    "level": "0 country, 1 and 2 subdivisions",
    "name": "for people",
    "parent": "id of the unit that holds it; empty for a country",
    "gid_0": "id of its country, ISO 3166-1 alpha-3 where there is one",
    "iso_3166": "alpha-2 code of a country, ISO 3166-2 code of a subdivision where the source says it; else empty",
    "continent": "of its country",
    "latitude": "degrees, of the area's centroid on the sphere: it may lie outside a concave unit or between islands",
    "longitude": "degrees",
    "area_km2": "on the WGS 84 ellipsoid",
}
"""Columns of ``units.parquet`` and what they mean."""
VERSION = b"2"


def _schema() -> "pa.Schema":
    import pyarrow as pa

    kinds = {
        "level": pa.int32(),
        "latitude": pa.float64(),
        "longitude": pa.float64(),
        "area_km2": pa.float64(),
    }
    columns = [
        pa.field(name, kinds.get(name, pa.string()), nullable=False, metadata={"meaning": meaning})
        for name, meaning in UNITS.items()
    ]
    return pa.schema(columns, metadata={"geoloc.schema": "units", "geoloc.version": VERSION})


def write_units(units: "DataFrame", folder: Path) -> None:
    """Write the table of units, :data:`UNITS`, of a boundaries folder."""
    import pyarrow as pa

    from geoloc_core import parquet

    parquet.write(pa.Table.from_pandas(units, _schema(), preserve_index=False, safe=True), folder / FILE)


def read_units(folder: Path) -> "DataFrame":
    """The table of units of a boundaries folder: see :data:`UNITS`.

    Raises:
        UserError: The folder has no such table, or one that is damaged or of another version.
    """
    from geoloc_core import parquet

    path = folder / FILE
    table = parquet.read(path, "expected the units; run `geoloc boundaries`")
    if (table.schema.metadata or {}).get(b"geoloc.version") != VERSION or table.column_names != list(UNITS):
        raise UserError(f"{path}: not a units table of version {VERSION.decode()}; run `geoloc boundaries` again")
    return table.to_pandas()
