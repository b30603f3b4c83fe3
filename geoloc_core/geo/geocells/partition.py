"""What every scheme makes: a partition that says which cell holds a point, and what its cells are called."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from geoloc_core.geo.geocells.ground import Points, majority


class Partition(Protocol):
    """Places belong to cells 0 … C − 1, or to none."""

    def assign(self, points: Points) -> np.ndarray:
        """Cells (N,) int64 of points; −1 outside."""

    def arrays(self) -> dict[str, np.ndarray]:
        """All that assignment needs beside the boundaries, as plain arrays; strings as NumPy's own."""

    def shapes(self) -> np.ndarray:
        """Polygons (C,) in degrees, for maps and areas."""


@dataclass(frozen=True)
class Made:
    """A partition with its C cells.

    Attributes:
        partition: Where the cells are.
        ids: (C,) unique.
        names: (C,) for people.
        latitudes: (C,) degrees, where a cell without training points has its centre.
        longitudes: (C,) degrees.
        gids: (C, 3) units of levels 0, 1, 2 that hold most of each cell, None where none does.
    """

    partition: Partition
    ids: list[str]
    names: list[str]
    latitudes: np.ndarray
    longitudes: np.ndarray
    gids: np.ndarray


def units_of(partition: Partition, points: Points, centres: Points) -> np.ndarray:
    """Units (C, 3) that hold most points of each cell; where there are none, those of its centre."""
    units = majority(partition.assign(points), points.gids, len(centres))
    bare = np.flatnonzero([gid is None for gid in units[:, 0]])
    if len(bare):
        units[bare] = Points(centres.latitudes[bare], centres.longitudes[bare], centres.ground).gids
    return units
