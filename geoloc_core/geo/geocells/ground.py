"""The ground of cells: the finest units of a boundaries folder, and which of them hold points."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from geoloc_core.errors import UserError
from geoloc_core.geo import boundaries, sphere
from geoloc_core.geo.units import read_units

if TYPE_CHECKING:
    from pandas import DataFrame

    from geoloc_core.geo.locate import Locator

LEVELS = (0, 1, 2)


@dataclass(frozen=True)
class Ground:
    """A boundaries folder, read as far as it is asked.

    Attributes:
        folder: Written by ``boundaries.write``.
        limit_km: Maximum distance from a point to its unit.
    """

    folder: Path
    limit_km: float = 100.0

    @cached_property
    def locator(self) -> "Locator":
        """Finds the units of points."""
        from geoloc_core.geo.locate import Locator

        return Locator.open(self.folder, self.limit_km)

    @cached_property
    def table(self) -> "DataFrame":
        """All units, by id: see :data:`geoloc_core.geo.units.UNITS`."""
        return read_units(self.folder).drop_duplicates("gid").set_index("gid")

    @cached_property
    def gids(self) -> np.ndarray:
        """The finest units' ids (U, 3) at each level, None below their own: no unit here holds another."""
        table = self.table
        leaves = table[~table.index.isin(table["parent"])].sort_values("level", kind="stable")
        found = np.full((len(leaves), 3), None, dtype=object)
        at, level = leaves.index.to_numpy(dtype=object), leaves["level"].to_numpy()
        for column in reversed(LEVELS):
            here = level >= column
            found[here, column] = at[here]
            at = np.where(here, table["parent"].reindex(at).to_numpy(dtype=object), at) if column else at
        return found

    @cached_property
    def units(self) -> np.ndarray:
        """Ids (U,) of the finest units themselves."""
        return finest(self.gids)

    @cached_property
    def vectors(self) -> np.ndarray:
        """Centroids (U, 3) of the finest units, as unit vectors."""
        rows = self.table.loc[list(self.units)]
        return sphere.unit_vectors(rows["latitude"], rows["longitude"])

    @cached_property
    def areas(self) -> np.ndarray:
        """Areas (U,) of the finest units in km²."""
        areas: np.ndarray = self.table.loc[list(self.units), "area_km2"].to_numpy(dtype=np.float64)
        return areas

    @cached_property
    def shapes(self) -> np.ndarray:
        """Polygons (U,) of the finest units, in degrees."""
        return np.concatenate([self.layer(level, self.gids[self._level == level, level]) for level in LEVELS])

    @cached_property
    def _level(self) -> np.ndarray:
        levels: np.ndarray = self.table.loc[list(self.units), "level"].to_numpy()
        return levels

    def layer(self, level: int, gids: ArrayLike) -> np.ndarray:
        """Polygons (G,) of units (G,) of one level."""
        wanted = np.asarray(gids, dtype=object)
        if not len(wanted):
            return wanted
        frame = boundaries.read_layer(self.folder, level)
        known = set() if frame is None else set(frame[f"GID_{level}"])
        if frame is None or (lacking := [gid for gid in wanted if gid not in known]):
            first = wanted[0] if frame is None else lacking[0]
            what = (
                f"{self.folder / 'boundaries.gpkg'}: layer ADM_{level} has no unit {first}, which is in units.parquet"
            )
            raise UserError(f"{what}; run `geoloc boundaries` again")
        found: np.ndarray = frame.set_index(f"GID_{level}").geometry.loc[list(wanted)].to_numpy(dtype=object)
        return found

    def locate(self, latitudes: ArrayLike, longitudes: ArrayLike) -> np.ndarray:
        """Ids (N, 3) of the units of points (N,) at each level; None where there is none."""
        located = self.locator.locate(latitudes, longitudes)
        return np.stack([located.gid_0, located.gid_1, located.gid_2], axis=1)

    def digest(self) -> str:
        """Identifies these units: cells built on other units would be silently wrong."""
        text = "\n".join(map(str, self.units))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Points:
    """N points on the ground.

    Attributes:
        latitudes: (N,) degrees.
        longitudes: (N,) degrees.
        ground: Their boundaries.
    """

    latitudes: np.ndarray
    longitudes: np.ndarray
    ground: Ground

    def __len__(self) -> int:
        return len(self.latitudes)

    @cached_property
    def gids(self) -> np.ndarray:
        """Ids (N, 3) of their units, found once and only if asked for."""
        return self.ground.locate(self.latitudes, self.longitudes)


def finest(gids: np.ndarray) -> np.ndarray:
    """The finest ids (N,) that points or units (N, 3) have; None without any."""
    import pandas as pd

    second = np.where(pd.notna(gids[:, 1]), gids[:, 1], gids[:, 0])
    found: np.ndarray = np.where(pd.notna(gids[:, 2]), gids[:, 2], second)
    return found


def majority(cells: np.ndarray, gids: np.ndarray, count: int, weights: np.ndarray | None = None) -> np.ndarray:
    """The units (C, 3) that hold most of each cell, level by level; None where none is known.

    Args:
        cells: (N,) cells of points or units, −1 for none.
        gids: (N, 3) their units.
        count: How many cells there are.
        weights: (N,) what each counts; 1 when not given.
    """
    import pandas as pd

    found = np.full((count, 3), None, dtype=object)
    inside = cells >= 0
    for level in LEVELS:
        codes, ids = pd.factorize(gids[:, level])
        kept = inside & (codes >= 0)
        if level:
            # A cell's subdivision must lie in the cell's country.
            kept &= gids[:, level - 1] == found[np.where(inside, cells, 0), level - 1]
        pairs, back = np.unique(cells[kept] * max(1, len(ids)) + codes[kept], return_inverse=True)
        votes = np.bincount(back, None if weights is None else weights[kept])
        order = np.lexsort([pairs, -votes])
        cell, first = np.unique(pairs[order] // max(1, len(ids)), return_index=True)
        found[cell, level] = np.asarray(ids, dtype=object)[pairs[order[first]] % max(1, len(ids))]
    return found
