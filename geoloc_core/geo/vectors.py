"""Vector files of others: read with clear errors, repaired, dissolved."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core.errors import UserError, in_a_line
from geoloc_core.geo.catchments import fold

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from pandas import DataFrame, Series

CRS = "EPSG:4326"
POLYGONAL = (3, 6)
"""Shapely's types of a polygon and of several."""

COLUMNS = {
    0: ["GID_0", "COUNTRY"],
    1: ["GID_1", "GID_0", "COUNTRY", "NAME_1", "TYPE_1", "ENGTYPE_1"],
    2: ["GID_2", "GID_0", "COUNTRY", "GID_1", "NAME_1", "NAME_2", "TYPE_2", "ENGTYPE_2"],
}
"""By level, the columns of GADM's schema."""


def layers(path: Path) -> list[str]:
    """The layers of a vector file.

    Raises:
        UserError: The file is missing or cannot be read.
    """
    import pyogrio

    if not path.exists():
        raise UserError(f"{path}: no such file; expected a vector file (GeoPackage, GeoJSON or shapefile)")
    try:
        return [str(name) for name in pyogrio.list_layers(path)[:, 0]]
    except pyogrio.errors.DataSourceError as error:
        raise _broken(path, error) from None


def read(path: Path, columns: Sequence[str], layer: str | None = None, optional: Sequence[str] = ()) -> "GeoDataFrame":
    """Read a layer's columns and polygons.

    Args:
        path: GeoPackage, GeoJSON or shapefile.
        columns: What it must have, in whatever case.
        layer: Name of the layer; the first one when not given.
        optional: Columns that come empty where the layer lacks them.

    Returns:
        The columns as named here, and the repaired geometry in :data:`CRS`.

    Raises:
        UserError: File, layer or column is missing, the file is broken, or it is not in degrees.
    """
    import pyogrio

    found = layers(path)
    if not found or layer not in (None, *found):
        raise UserError(f"{path}: no layer {layer or ''}; expected one of: {', '.join(found) or 'none'}")
    where = f"{path}, layer {layer or found[0]}"
    try:
        info = pyogrio.read_info(path, layer=layer, force_feature_count=True)
        names = _match(columns, info["fields"], where, optional)
        frame = pyogrio.read_dataframe(path, layer=layer, columns=list(names))
    except RuntimeError as error:
        raise _broken(path, error) from None
    if not info["features"]:
        raise UserError(f"{where}: no rows; expected polygons")
    if len(frame) != info["features"]:
        raise UserError(f"{where}: {len(frame)} of {info['features']} rows can be read; fetch the file again")
    if "geometry" not in frame or frame.geometry.isna().all():
        raise UserError(f"{where}: no geometry; expected polygons")
    if not _is_wgs84(frame):
        system = "an unknown system" if frame.crs is None else frame.crs.name
        raise UserError(f"{where}: coordinates are in {system}; expected {CRS}: reproject the file")
    wanted = [*columns, *optional]
    frame = frame.rename(columns=names).reindex(columns=[*wanted, "geometry"]).to_crs(CRS)
    # A column without a single value has no type of its own.
    frame[wanted] = frame[wanted].astype(object).where(frame[wanted].notna(), None)
    return frame.set_geometry(repair(frame.geometry.array, where))


def _match(columns: Sequence[str], fields: Sequence[str], where: str, optional: Sequence[str]) -> dict[str, str]:
    """A file's own names of columns, and ours."""
    own = {str(field).upper(): str(field) for field in fields}
    missing = [column for column in columns if column.upper() not in own]
    if missing:
        raise UserError(f"{where}: no column {', '.join(missing)}; found {', '.join(own.values()) or 'none'}")
    return {own[column.upper()]: column for column in [*columns, *optional] if column.upper() in own}


def repair(geometry: np.ndarray, where: str) -> np.ndarray:
    """The same shapes (N,): valid, two-dimensional, polygons only, and cut at the antimeridian.

    Raises:
        UserError: A shape has no area, or is not in degrees; the first row is named.
    """
    import shapely

    shapes = shapely.force_2d(np.asarray(geometry, dtype=object))
    west, _, east, _ = shapely.bounds(shapes).T
    wide = east - west > 180
    shapes[wide] = [_uncrossed(shape) for shape in shapes[wide]]
    mixed = ~np.isin(shapely.get_type_id(shapes), POLYGONAL)
    broken = ~shapely.is_valid(shapes) | mixed & ~shapely.is_missing(shapes)
    shapes[broken] = [_polygons(shape) for shape in shapely.make_valid(shapes[broken])]
    flat = ~(shapely.area(shapes) > 0)
    if flat.any():
        raise UserError(f"{where}, row {int(flat.argmax())}: shape without area; expected a polygon")
    west, south, east, north = shapely.bounds(shapes).T
    out = (west < -360) | (east > 360) | (south < -90.001) | (north > 90.001)
    if out.any():
        raise UserError(f"{where}, row {int(out.argmax())}: shape beyond ±180° or ±90°; expected degrees, {CRS}")
    # Rounding to hundreds of metres beyond the edge is left alone: a cut would split off slivers.
    across = (west < -180.001) | (east > 180.001)
    # A shape that only touches the edge leaves a line there.
    shapes[across] = [_polygons(shape) for shape in fold(shapes[across])]
    return shapes


def largest_first(frame: "GeoDataFrame") -> "GeoDataFrame":
    """The same rows, the larger shape first (in square degrees; ties as they came)."""
    import shapely

    return frame.iloc[np.argsort(-shapely.area(frame.geometry.to_numpy()), kind="stable")]


def numbered(frame: "DataFrame", parent: str, name: str) -> "Series":
    """Ids (N,) as GADM makes them, such as ``KEN.1_1``: a unit's number among its parent's, in order of the names.

    They stay the same as long as the names do; rows of one parent and name are one unit, so are those without.
    """
    label = frame[name].fillna("").astype(str)
    number = label.groupby(frame[parent]).rank("dense").astype(int).astype(str)
    return frame[parent].str.removesuffix("_1") + "." + number + "_1"


def dissolve(frame: "GeoDataFrame", by: str) -> "GeoDataFrame":
    """One row per value of a column, sorted by it: the union of the shapes, else the first row's columns."""
    import geopandas
    import shapely

    rows = frame.groupby(by, sort=True).indices
    shapes = frame.geometry.to_numpy()
    unions = [shapes[at[0]] if len(at) == 1 else shapely.union_all(shapes[at]) for at in rows.values()]
    first = frame.drop(columns=frame.geometry.name).iloc[[at[0] for at in rows.values()]].reset_index(drop=True)
    return geopandas.GeoDataFrame(first, geometry=np.asarray(unions, dtype=object), crs=frame.crs)


def _polygons(shape: object) -> object:
    """What of a repaired shape has an area: repair may leave lines and points beside the polygons."""
    import shapely

    parts = shapely.get_parts(shapely.get_parts(shapely.get_parts(shape)))
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])


def _uncrossed(shape: object) -> object:
    """The same shape, rings that jump from one end of the world to the other laid out beyond ±180° instead."""
    import shapely

    parts = shapely.get_parts(shapely.get_parts(shape))
    polygons = [part for part in parts if part.geom_type == "Polygon"]
    laid_out = [_laid_out(polygon) for polygon in polygons]
    crossing = any(one is not other for one, other in zip(laid_out, polygons, strict=True))
    return shapely.multipolygons(laid_out) if crossing else shape


def _laid_out(polygon: Any) -> Any:
    import shapely

    shell = _unrolled(shapely.get_coordinates(polygon.exterior))
    if shell is None:
        return polygon
    holes = []
    for ring in polygon.interiors:
        hole = shapely.get_coordinates(ring)
        hole = hole if (unrolled := _unrolled(hole)) is None else unrolled
        hole[:, 0] += 360 * np.round((shell[:, 0].mean() - hole[:, 0].mean()) / 360)
        holes.append(hole)
    return shapely.Polygon(shell, holes)


def _unrolled(ring: np.ndarray) -> np.ndarray | None:
    """A ring (V, 2) without its jumps over the antimeridian; None where it has none, or goes around a pole.

    An edge of exactly 360° is no jump: shapes that reach a pole are closed along it.
    """
    step = np.diff(ring[:, 0])
    jump = (np.abs(step) > 180) & (np.abs(step) < 360 - 1e-6)
    turns = np.cumsum(np.where(jump, -np.sign(step), 0))
    if not jump.any() or turns[-1]:
        return None
    unrolled = ring.copy()
    unrolled[1:, 0] += 360 * turns
    return unrolled


def _is_wgs84(frame: "GeoDataFrame") -> bool:
    # Shapefiles name the system without its EPSG code.
    crs = frame.crs
    return bool(crs and crs.is_geographic and "WGS" in crs.name.upper() and "84" in crs.name)


def _broken(path: Path, error: Exception) -> UserError:
    detail = in_a_line(str(error).split(";")[0])
    return UserError(f"{path}: not a vector file that can be read ({detail}); fetch it again")
