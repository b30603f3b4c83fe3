"""Cells made of administrative units: whole ones, or their part that is nearest to some seeds.

Units form groups. A group is one cell, or it has seeds, each of one cell, and a place in it belongs to the cell of
the nearest seed (by great circle). So the cells cover the units' land without gap or overlap, whatever the units'
shapes, and no polygon is needed to find the cell of a point.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from geoloc_core.geo import sphere
from geoloc_core.geo.geocells.ground import Ground, Points, finest

APART = 4.0
"""Distance between groups on a fourth axis: more than the sphere's diameter, so that no seed of another is nearest."""


@dataclass(frozen=True)
class UnitCells:
    """C cells of U units in G groups with S seeds.

    Attributes:
        ground: The units' boundaries.
        units: (U,) ids of units.
        groups: (U,) group of each unit.
        whole: (G,) the cell of each group, −1 where seeds decide.
        seed_groups: (S,) group of each seed.
        seed_cells: (S,) cell of each seed.
        seed_latitudes: (S,) degrees.
        seed_longitudes: (S,) degrees.
    """

    ground: Ground
    units: np.ndarray
    groups: np.ndarray
    whole: np.ndarray
    seed_groups: np.ndarray
    seed_cells: np.ndarray
    seed_latitudes: np.ndarray
    seed_longitudes: np.ndarray

    @classmethod
    def of_groups(cls, ground: Ground, units: np.ndarray, groups: np.ndarray) -> "UnitCells":
        """Cells that are whole groups of units: the cell has the group's number."""
        none, where = np.empty(0, dtype=np.int64), np.empty(0)
        return cls(ground, units, groups, np.arange(groups.max() + 1), none, none, where, where)

    @property
    def count(self) -> int:
        """How many cells there are."""
        return int(max(self.whole.max(initial=-1), self.seed_cells.max(initial=-1))) + 1

    @cached_property
    def _index(self) -> Any:
        import pandas as pd

        return pd.Index(self.units.astype(object))

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(apart(self.seed_latitudes, self.seed_longitudes, self.seed_groups))

    def assign(self, points: Points) -> np.ndarray:
        """Cells (N,) int64 of points; −1 where no unit is within reach."""
        unit = self.unit_of(points.gids)
        group = np.where(unit >= 0, self.groups[unit], -1)
        cell = np.where(group >= 0, self.whole[group], -1)
        divided = np.flatnonzero((group >= 0) & (cell < 0))
        if len(divided):
            cell[divided] = self.seeded(points.latitudes[divided], points.longitudes[divided], group[divided])
        return cell

    def unit_of(self, gids: np.ndarray) -> np.ndarray:
        """Units (N,) of points by ids (N, 3); −1 where a point has none of these."""
        import pandas as pd

        codes, ids = pd.factorize(finest(gids))
        at = self._index.get_indexer(pd.Index(ids, dtype=object)) if len(ids) else np.empty(0, dtype=np.int64)
        found: np.ndarray = np.append(at, -1)[codes].astype(np.int64)
        return found

    def seeded(self, latitudes: np.ndarray, longitudes: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Cells (N,) of the seeds nearest to points in divided groups (N,)."""
        _, seed = self._tree.query(apart(latitudes, longitudes, groups), workers=-1)
        cells: np.ndarray = self.seed_cells[seed]
        return cells

    def arrays(self) -> dict[str, np.ndarray]:
        """All fields but the ground."""
        return {
            "units": self.units.astype(str),
            "groups": self.groups,
            "whole": self.whole,
            "seed_groups": self.seed_groups,
            "seed_cells": self.seed_cells,
            "seed_latitudes": self.seed_latitudes,
            "seed_longitudes": self.seed_longitudes,
        }

    def shapes(self) -> np.ndarray:
        """Polygons (C,): the groups' units, divided along the borders of the seeds' Voronoi cells."""
        import pandas as pd
        import shapely

        from geoloc_core.geo.geocells.voronoi import cut_up

        outlines = self._unit_shapes()
        cells = np.empty(self.count, dtype=object)
        seeds = pd.Series(self.seed_groups).groupby(self.seed_groups).indices
        units = pd.Series(self.groups).groupby(self.groups).indices
        for group in range(len(self.whole)):
            members = units[group]
            outline = shapely.union_all(outlines[members]) if len(members) > 1 else outlines[members[0]]
            if self.whole[group] >= 0:
                cells[self.whole[group]] = outline
                continue
            own = seeds[group]
            labels, numbers = np.unique(self.seed_cells[own], return_inverse=True)
            cells[labels] = cut_up(outline, self.seed_latitudes[own], self.seed_longitudes[own], numbers)
        return cells

    def _unit_shapes(self) -> np.ndarray:
        """Polygons (U,) of the units, whatever their level."""
        shapes = np.empty(len(self.units), dtype=object)
        levels = self.ground.table.loc[list(self.units), "level"].to_numpy()
        for level in np.unique(levels):
            rows = np.flatnonzero(levels == level)
            shapes[rows] = self.ground.layer(int(level), self.units[rows])
        return shapes


def apart(latitudes: np.ndarray, longitudes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Points (N, 4): unit vectors, and an axis on which the groups lie out of each other's reach."""
    return np.column_stack([sphere.unit_vectors(latitudes, longitudes), APART * groups])


def load(arrays: dict[str, np.ndarray], ground: Ground) -> UnitCells:
    """The partition of saved arrays."""
    return UnitCells(ground, **{**arrays, "units": arrays["units"].astype(object)})
