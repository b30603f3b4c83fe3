"""The borders of units as short segments on the sphere: how far is the nearest, and whose is it?"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from geoloc_core.geo import sphere

LENGTH_KM = 5.0
"""Longest segment: so short that chord, arc and a straight line in degrees are the same."""
TIE_KM = 1e-6
"""Units nearer to each other than this are equally near."""


@dataclass(frozen=True)
class Borders:
    """S segments.

    Attributes:
        starts: (S, 3) unit vectors.
        ends: (S, 3) unit vectors.
        unit: (S,) the unit whose border it is.
    """

    starts: np.ndarray
    ends: np.ndarray
    unit: np.ndarray

    @classmethod
    def of(cls, shapes: np.ndarray) -> "Borders":
        """The borders of polygons (U,) in degrees."""
        import shapely

        parts, part_of = shapely.get_parts(shapes, return_index=True)
        rings, ring_of = shapely.get_rings(parts, return_index=True)
        # A degree is nowhere longer than at the equator, so this spacing is never too wide.
        spacing = np.degrees(LENGTH_KM / sphere.EARTH_KM)
        xy, at = shapely.get_coordinates(shapely.segmentize(rings, spacing), return_index=True)
        vectors = sphere.unit_vectors(xy[:, 1], xy[:, 0])
        edge = np.flatnonzero(at[1:] == at[:-1])
        return cls(vectors[edge], vectors[edge + 1], part_of[ring_of[at[edge]]])

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree((self.starts + self.ends) / 2)

    def nearest(self, latitudes: np.ndarray, longitudes: np.ndarray, limit_km: float) -> tuple[np.ndarray, np.ndarray]:
        """The nearest unit of N points and the great-circle distance to it.

        Args:
            latitudes: (N,) degrees.
            longitudes: (N,) degrees.
            limit_km: How far to look.

        Returns:
            (N,) units, −1 where none is within the limit; of units equally near, the first.
            (N,) kilometres, NaN where there is no unit.
        """
        points = sphere.unit_vectors(latitudes, longitudes)
        unit = np.full(len(points), -1, dtype=np.int64)
        distance = np.full(len(points), np.inf)
        rows, count = np.arange(len(points)), min(8, len(self.unit))
        slack = float(sphere.chord(LENGTH_KM))
        reach = float(sphere.chord(limit_km)) + slack
        while len(rows):
            far, segment = self._tree.query(points[rows], k=np.arange(1, count + 1), distance_upper_bound=reach)
            unit[rows], distance[rows] = self._best(points[rows], segment)
            # A segment that was not returned is at most half its length nearer than its middle.
            beaten = sphere.chord(distance[rows]) <= far[:, -1] - slack
            rows = rows[~beaten & np.isfinite(far[:, -1]) & (count < len(self.unit))]
            count = min(2 * count, len(self.unit))
        found = distance <= limit_km
        return np.where(found, unit, -1), np.where(found, distance, np.nan)

    def _best(self, points: np.ndarray, segment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nearest unit and kilometres of points (N, 3) among candidate segments (N, K); S is none."""
        there = segment < len(self.unit)
        at = np.where(there, segment, 0)
        start, step = self.starts[at], self.ends[at] - self.starts[at]
        length = np.maximum(np.einsum("nkd,nkd->nk", step, step), 1e-30)
        along = np.einsum("nkd,nkd->nk", points[:, None] - start, step) / length
        foot = start + np.clip(along, 0, 1)[..., None] * step
        foot /= np.linalg.norm(foot, axis=-1, keepdims=True)
        km = np.where(there, sphere.arc_km(np.linalg.norm(points[:, None] - foot, axis=-1)), np.inf)
        distance = km.min(axis=1)
        tied = km <= (distance + TIE_KM)[:, None]
        unit = np.where(tied & there, self.unit[at], np.iinfo(np.int64).max).min(axis=1)
        return np.where(np.isfinite(distance), unit, -1), distance
