"""A quadtree of latitude and longitude (OSV-5M, Astruc et al. 2024): boxes split in four while they hold many points.

Boxes without points are no cells; a place in one belongs to the cell whose middle is nearest.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field

from geoloc_core.geo import sphere
from geoloc_core.geo.geocells.ground import Ground, Points
from geoloc_core.geo.geocells.partition import Made, units_of
from geoloc_core.plugins import Strict


class Options(Strict):
    """When a box is split (published: 11,399 cells)."""

    kind: Literal["quadtree"]
    depth: int = Field(10, ge=1, le=26)
    """How often a box may be split."""
    split_points: int = Field(1000, ge=1)
    """A box with as many points is split."""


@dataclass(frozen=True)
class Boxes:
    """C boxes: at level l the world is 2^l columns of longitude by 2^l rows of latitude.

    Attributes:
        levels: (C,) ascending.
        columns: (C,) from the west.
        rows: (C,) from the south.
    """

    levels: np.ndarray
    columns: np.ndarray
    rows: np.ndarray

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """South, west, north and east (C,) in degrees."""
        high, wide = 180 / 2.0**self.levels, 360 / 2.0**self.levels
        south, west = self.rows * high - 90, self.columns * wide - 180
        return south, west, south + high, west + wide

    @cached_property
    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitudes and longitudes (C,) of the boxes' middles."""
        south, west, north, east = self.bounds
        return (south + north) / 2, (west + east) / 2

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(sphere.unit_vectors(*self.centres))

    def assign(self, points: Points) -> np.ndarray:
        """Cells (N,) int64 of points."""
        cells = np.full(len(points), -1, dtype=np.int64)
        for level in np.unique(self.levels):
            own = np.flatnonzero(self.levels == level)
            keys = _key(self.columns[own], self.rows[own], level)
            order = np.argsort(keys)
            wanted = _key(*_box(points.latitudes, points.longitudes, level), level)
            at = np.minimum(np.searchsorted(keys[order], wanted), len(own) - 1)
            cells = np.where(keys[order][at] == wanted, own[order][at], cells)
        left = np.flatnonzero(cells < 0)
        if len(left):
            _, cells[left] = self._tree.query(sphere.unit_vectors(points.latitudes[left], points.longitudes[left]))
        return cells

    def arrays(self) -> dict[str, np.ndarray]:
        """All fields."""
        return {"levels": self.levels, "columns": self.columns, "rows": self.rows}

    def shapes(self) -> np.ndarray:
        """The boxes (C,) in degrees."""
        import shapely

        south, west, north, east = self.bounds
        boxes: np.ndarray = shapely.box(west, south, east, north)
        return boxes


def _box(latitudes: np.ndarray, longitudes: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Column and row (N,) of points at a level; the north pole and 180° east belong to the last."""
    side = 1 << int(level)
    return tuple(  # type: ignore[return-value]
        np.minimum((share * side).astype(np.int64), side - 1)
        for share in ((longitudes + 180) / 360, (latitudes + 90) / 180)
    )


def _key(columns: np.ndarray, rows: np.ndarray, level: int) -> np.ndarray:
    return columns << int(level) | rows


def build(options: Options, points: Points) -> Made:
    """Split the world while a box holds enough points and the depth allows."""
    left = np.arange(len(points))
    found = []
    for level in range(options.depth + 1):
        column, row = _box(points.latitudes[left], points.longitudes[left], level)
        keys, back, counts = np.unique(_key(column, row, level), return_inverse=True, return_counts=True)
        done = (counts < options.split_points) | (level == options.depth)
        found.append(np.stack([np.full(done.sum(), level), keys[done] >> level, keys[done] & ((1 << level) - 1)]))
        left = left[~done[back]]
    partition = Boxes(*np.concatenate(found, axis=1))
    units = units_of(partition, points, Points(*partition.centres, points.ground))
    names = [f"{south:.4g}…{north:.4g}°, {west:.4g}…{east:.4g}°" for south, west, north, east in zip(*partition.bounds)]  # noqa: B905
    ids = [f"{z}/{x}/{y}" for z, x, y in zip(partition.levels, partition.columns, partition.rows, strict=True)]
    return Made(partition, ids, names, *partition.centres, units)


def load(arrays: dict[str, np.ndarray], ground: Ground) -> Boxes:
    """The partition of saved arrays."""
    return Boxes(**arrays)
