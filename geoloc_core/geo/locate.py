"""From points to administrative units: the unit that holds a point, or the nearest one within a limit."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from geoloc_core.errors import UserError
from geoloc_core.geo import boundaries, sphere
from geoloc_core.geo.borders import Borders

if TYPE_CHECKING:
    from pandas import DataFrame

LEVELS = (0, 1, 2)
BATCH = 1_000_000
"""Points worked on at once."""


@dataclass(frozen=True)
class Located:
    """The units of N points.

    Attributes:
        gid_0: (N,) country ids; None where there is no unit within the limit.
        gid_1: (N,) ids of first-level units; None where the country has none.
        gid_2: (N,) ids of second-level units; None where the country or the source has none.
        distance_km: (N,) great-circle distance to the unit: 0 inside, NaN without a unit.
    """

    gid_0: np.ndarray
    gid_1: np.ndarray
    gid_2: np.ndarray
    distance_km: np.ndarray

    def __len__(self) -> int:
        return len(self.distance_km)


@dataclass(frozen=True)
class Locator:
    """Finds the units of points. The finest unit decides and brings its parents, so the levels always agree.

    Attributes:
        shapes: (U,) polygons of the finest units, in degrees: no unit here holds another.
        gids: (U, 3) their ids at each level; None below their own.
        limit_km: How far a point may lie outside its unit.
    """

    shapes: np.ndarray
    gids: np.ndarray
    limit_km: float

    @classmethod
    def open(cls, folder: Path, limit_km: float = 100.0) -> "Locator":
        """Read the units of a boundaries folder.

        Raises:
            UserError: The boundaries are missing or broken.
        """
        frames = {level: boundaries.read_layer(folder, level) for level in LEVELS}
        shapes, gids = [], []
        for level, frame in frames.items():
            if frame is None:
                continue
            finer = frames.get(level + 1)
            divided = [] if finer is None else finer[f"GID_{level}"]
            finest = frame[~frame[f"GID_{level}"].isin(divided)]
            columns = [finest[f"GID_{n}"] if n <= level else np.full(len(finest), None) for n in LEVELS]
            shapes.append(finest.geometry.to_numpy())
            gids.append(np.stack([np.asarray(column, dtype=object) for column in columns], axis=1))
        if not shapes:
            raise UserError(f"{folder / 'boundaries.gpkg'}: no layer ADM_0; run `geoloc boundaries`")
        return cls(np.concatenate(shapes), np.concatenate(gids), limit_km)

    @cached_property
    def borders(self) -> Borders:
        """The units' borders, made when the first point lies outside all units."""
        return Borders.of(self.shapes)

    def locate(self, latitudes: ArrayLike, longitudes: ArrayLike) -> Located:
        """The units of N points.

        Args:
            latitudes: (N,) degrees.
            longitudes: (N,) degrees, −180 … 180.

        Returns:
            Their units. A point on a border, or in units that overlap, is in the first of them.

        Raises:
            UserError: A coordinate is not a number or out of range; its row is named.
        """
        lat, lon = sphere.check(latitudes, longitudes)
        unit = np.full(len(lat), -1, dtype=np.int64)
        for start in range(0, len(lat), BATCH):
            rows = slice(start, start + BATCH)
            unit[rows] = self._inside(lat[rows], lon[rows])
        distance = np.where(unit >= 0, 0.0, np.nan)
        outside = np.flatnonzero(unit < 0)
        if len(outside) and self.limit_km > 0:
            unit[outside], distance[outside] = self.borders.nearest(lat[outside], lon[outside], self.limit_km)
        gids = self.gids[unit]
        gids[unit < 0] = None
        return Located(gids[:, 0], gids[:, 1], gids[:, 2], distance)

    def _inside(self, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        """The first unit (N,) that holds each point; −1 where none does."""
        import shapely

        # Points go in the tree and polygons ask: each polygon is prepared once, and a test is then
        # logarithmic in its vertices.
        tree = shapely.STRtree(shapely.points(longitudes, latitudes))
        unit, point = tree.query(self.shapes, predicate="intersects")
        first: np.ndarray = np.full(len(latitudes), -1, dtype=np.int64)
        # Pairs come by unit; written from the last, the first unit of a point is what remains.
        first[point[::-1]] = unit[::-1]
        return first


def names(units: "DataFrame", gids: np.ndarray) -> np.ndarray:
    """Names (N,) of unit ids (N,) by the table of units; None where the id is."""
    found: np.ndarray = units.drop_duplicates("gid").set_index("gid")["name"].reindex(gids).to_numpy(dtype=object)
    found[[not isinstance(name, str) for name in found]] = None
    return found
