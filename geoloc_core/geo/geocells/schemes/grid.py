"""Squares of latitude and longitude over one country (geoguessrLSTM 2020, released code).

The land in each square is a piece. A piece no larger than a share of the largest one joins a neighbour with which it
makes one polygon, the largest such; where there is none, as on an island, the nearest piece. Published: 2° over the
contiguous United States, 243 cells. A place of the country outside all squares with land belongs to the nearest cell.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from geoloc_core.errors import UserError
from geoloc_core.geo import sphere
from geoloc_core.geo.geocells.ground import Ground, Points
from geoloc_core.geo.geocells.partition import Made, units_of
from geoloc_core.plugins import Strict

CONTIGUOUS = (24.0, -125.0, 50.0, -66.0)
WORLD = (-90.0, -180.0, 90.0, 180.0)


Latitude = Annotated[float, Field(ge=-90, le=90)]
Longitude = Annotated[float, Field(ge=-180, le=180)]


class Options(Strict):
    """Which country, and how large the squares are."""

    kind: Literal["grid"]
    country: str = "USA"
    """GID_0 of the country, such as ``GBR`` for the grid of the United Kingdom."""
    degrees: float = Field(2.0, gt=0, le=90)
    """Side of a square."""
    bounds: tuple[Latitude, Longitude, Latitude, Longitude] | None = None
    """South, west, north, east of the part of the country to take; for the USA the contiguous states, else all."""
    merge_share: float = Field(0.1, ge=0, lt=1)
    """A piece of at most this share of the largest piece's area joins another."""

    @field_validator("bounds")
    @classmethod
    def _bounds_enclose_something(cls, bounds: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if bounds is not None and not (bounds[0] < bounds[2] and bounds[1] < bounds[3]):
            raise ValueError(f"{list(bounds)}; expected south, west, north, east: south < north and west < east")
        return bounds


@dataclass(frozen=True)
class Squares:
    """C cells made of B squares.

    Attributes:
        ground: The country's boundaries.
        country: (1,) its id.
        bounds: (4,) south, west, north, east of what is covered.
        degrees: (1,) side of a square.
        rows: (B,) of squares with land, from the south.
        columns: (B,) from the west.
        cells: (B,) the cell of each square.
    """

    ground: Ground
    country: np.ndarray
    bounds: np.ndarray
    degrees: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    cells: np.ndarray

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        south, west, side = self.bounds[0], self.bounds[1], self.degrees[0]
        return cKDTree(sphere.unit_vectors(south + (self.rows + 0.5) * side, west + (self.columns + 0.5) * side))

    def assign(self, points: Points) -> np.ndarray:
        """Cells (N,) int64 of points; −1 outside the country or the bounds."""
        lat, lon = points.latitudes, points.longitudes
        south, west, north, east = self.bounds
        inside = (lat >= south) & (lat <= north) & (lon >= west) & (lon <= east)
        inside &= points.gids[:, 0] == self.country[0]
        row, column = (np.floor(v / self.degrees[0]).astype(np.int64) for v in (lat - south, lon - west))
        wide = int(np.ceil(360 / self.degrees[0])) + 1
        keys = self.rows * wide + self.columns
        order = np.argsort(keys)
        at = np.minimum(np.searchsorted(keys[order], row * wide + column), len(keys) - 1)
        cells = np.where(inside, self.cells[order][at], -1)
        left = np.flatnonzero(inside & (keys[order][at] != row * wide + column))
        if len(left):
            _, square = self._tree.query(sphere.unit_vectors(lat[left], lon[left]))
            cells[left] = self.cells[square]
        return cells

    def arrays(self) -> dict[str, np.ndarray]:
        """All fields but the ground."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    def shapes(self) -> np.ndarray:
        """Polygons (C,): the country within the squares."""
        import shapely

        pieces = _pieces(_land(self.ground, str(self.country[0]), self.bounds), self.bounds, self.degrees[0])[2]
        return np.array([shapely.union_all(pieces[self.cells == n]) for n in range(self.cells.max() + 1)], dtype=object)


def _land(ground: Ground, country: str, bounds: np.ndarray) -> Any:
    import shapely

    if country not in ground.table.index:
        raise UserError(f"country {country!r}: not in the boundaries; expected a GID_0 such as GBR")
    south, west, north, east = bounds
    return shapely.intersection(ground.layer(0, [country])[0], shapely.box(west, south, east, north))


def _pieces(land: Any, bounds: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns (B,) and land (B,) of the squares that have any."""
    import shapely

    south, west, north, east = bounds
    high, wide = (int(np.ceil(span / degrees)) for span in (north - south, east - west))
    row, column = (axis.ravel() for axis in np.mgrid[:high, :wide])
    x, y = west + column * degrees, south + row * degrees
    shapely.prepare(land)
    pieces = shapely.intersection(shapely.box(x, y, x + degrees, y + degrees), land)
    kept = shapely.area(pieces) > 0
    return row[kept], column[kept], pieces[kept]


def _merged(pieces: np.ndarray, share: float) -> np.ndarray:
    """The cell (B,) of each piece, small ones merged, the smallest first."""
    import shapely

    shapes, cell = pieces.copy(), np.arange(len(pieces))
    limit = share * shapely.area(pieces).max()
    for piece in np.argsort(shapely.area(pieces), kind="stable"):
        own = cell[piece]
        others = np.unique(cell[cell != own])
        if shapely.area(shapes[own]) > limit or not len(others):
            continue
        near = others[shapely.intersects(shapes[others], shapes[own])]
        unions = shapely.union(shapes[near], shapes[own])
        one = shapely.get_num_geometries(unions) == 1
        if one.any():
            host = near[one][np.argmax(shapely.area(shapes[near[one]]))]
        else:
            host = others[np.argmin(shapely.distance(shapes[others], shapes[own]))]
        shapes[host] = shapely.union(shapes[host], shapes[own])
        cell[cell == own] = host
    return np.unique(cell, return_inverse=True)[1]


def build(options: Options, points: Points) -> Made:
    """The squares of a country."""
    import shapely

    from geoloc_core.geo.boundaries import sphere_areas

    ground = points.ground
    frame = options.bounds or (CONTIGUOUS if options.country == "USA" else None)
    land = _land(ground, options.country, np.array(frame or WORLD))
    west, south, east, north = land.bounds
    bounds = np.array(frame or (south, west, north, east))
    rows, columns, pieces = _pieces(land, bounds, options.degrees)
    cells = _merged(pieces, options.merge_share)
    shapes = np.array([shapely.union_all(pieces[cells == n]) for n in range(cells.max() + 1)], dtype=object)
    _, latitudes, longitudes = sphere_areas(shapes)
    partition = Squares(ground, np.array([options.country]), bounds, np.array([options.degrees]), rows, columns, cells)
    units = units_of(partition, points, Points(latitudes, longitudes, ground))
    ids = [f"{options.country}-{n:04d}" for n in range(1, len(shapes) + 1)]
    names = [f"{y:.1f}°, {x:.1f}°" for y, x in zip(latitudes, longitudes, strict=True)]
    return Made(partition, ids, names, latitudes, longitudes, units)


def load(arrays: dict[str, np.ndarray], ground: Ground) -> Squares:
    """The partition of saved arrays."""
    return Squares(ground, **arrays)
