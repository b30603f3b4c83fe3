"""Polygons as flat arrays: what the compiled loops read."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rings:
    """The R rings of U units with V vertices in all, in the order of the units.

    Attributes:
        xy: (V, 2) longitudes and latitudes, degrees; the last vertex of a ring is its first.
        starts: (R + 1,) where each ring begins in ``xy``.
        unit: (R,) whose ring it is.
    """

    xy: np.ndarray
    starts: np.ndarray
    unit: np.ndarray

    @classmethod
    def of(cls, shapes: np.ndarray) -> "Rings":
        """The rings of (U,) polygons, or collections of them: shells and holes alike."""
        import shapely

        parts, part_of = shapely.get_parts(shapes, return_index=True)
        # A collection may hold multipolygons.
        polygons, polygon_of = shapely.get_parts(parts, return_index=True)
        rings, ring_of = shapely.get_rings(polygons, return_index=True)
        starts = np.concatenate([[0], np.cumsum(shapely.get_num_coordinates(rings))])
        return cls(fixed(shapely.get_coordinates(rings)), starts, part_of[polygon_of[ring_of]])


def fixed(array: np.ndarray) -> np.ndarray:
    """The array, not to be written to: to a compiler the same thing as one that is mapped from a file."""
    array.setflags(write=False)
    return array
