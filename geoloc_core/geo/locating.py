"""The command ``geoloc locate``: the units of the points of a table, from a boundaries folder or any file of units."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geoloc_core import files, progress
from geoloc_core.errors import UserError
from geoloc_core.geo import points as tables
from geoloc_core.geo.locate import LEVELS, NAMES, Located, Locator, source_of

if TYPE_CHECKING:
    import pyarrow as pa
    from geopandas import GeoDataFrame

ADDED = [*(f"gid_{level}" for level in LEVELS), *(f"name_{level}" for level in LEVELS), "distance_km"]
"""The columns that are put behind the table's own."""


def locate_file(points: Path, boundaries: Path, out: Path, limit_km: float, index: Path | None) -> None:
    """Write the rows of a table, in order, with the units of their points.

    Args:
        points: CSV or Parquet with the columns ``latitude`` and ``longitude``, degrees.
        boundaries: A boundaries folder, or a file with polygons in GADM's schema.
        out: CSV or Parquet to write: the table's columns and :data:`ADDED`.
        limit_km: Maximum distance from a point to its unit.
        index: Where to keep the index of a file.

    Raises:
        UserError: A file is missing or broken, or a coordinate is invalid; nothing is written then.
    """
    import pyarrow as pa

    added = pa.schema([(name, pa.float64() if name == "distance_km" else pa.string()) for name in ADDED])
    tables.check(points, out, added)
    locator = _locator(boundaries, limit_km, index)
    rows = inside = located = 0

    def find(latitudes: np.ndarray, longitudes: np.ndarray) -> "list[pa.Array]":
        nonlocal rows, inside, located
        found = locator.locate(latitudes, longitudes)
        rows += len(found)
        inside += int((found.distance_km == 0).sum())
        located += int((found.unit >= 0).sum())
        return _columns(found)

    tables.annotate(points, out, added, find, "locate")
    progress.say(
        f"locate: {rows:,} points, {inside:,} inside a unit, {located - inside:,} within {limit_km:g} km of one, "
        f"{rows - located:,} without; wrote {out}"
    )


def _columns(found: Located) -> "list[pa.Array]":
    import pyarrow as pa

    codes = pa.array(found.unit, mask=found.unit < 0)
    units = [found.units.gids[:, level] for level in LEVELS] + [found.units.names[:, level] for level in LEVELS]
    return [
        *(pa.array(table, pa.string()).take(codes) for table in units),
        pa.array(found.distance_km, from_pandas=True),
    ]


def _locator(boundaries: Path, limit_km: float, index: Path | None) -> Locator:
    """The locator of a folder or a file, from the index that is kept where that is of the same file."""
    if boundaries.is_dir():
        return Locator.open(boundaries, limit_km)
    if index is None:
        progress.say(f"locate: indexing {boundaries}; --index FOLDER would keep the index for the next time")
        return Locator.of_levels(_levels(boundaries), limit_km)
    source = files.digest(boundaries) if boundaries.is_file() else ""
    if source != source_of(index) or not source:
        files.check_folder(index, "index")
        progress.say(f"locate: indexing {boundaries} in {index}")
        made = Locator.of_levels(_levels(boundaries), limit_km)
        with files.replacing_folder(index, "index") as aside:
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
