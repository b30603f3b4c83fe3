"""The Earth as a sphere: distances, unit vectors, centroids. Degrees and kilometres, latitude first."""

import numpy as np
from numpy.typing import ArrayLike

from geoloc_core.errors import UserError

EARTH_KM = 6371.0
"""Radius of the sphere that the field measures on."""


def haversine_km(
    latitudes: ArrayLike,
    longitudes: ArrayLike,
    other_latitudes: ArrayLike,
    other_longitudes: ArrayLike,
    radius_km: float = EARTH_KM,
) -> np.ndarray:
    """Great-circle distance between points and other points, of any shapes that broadcast.

    Args:
        latitudes: Degrees.
        longitudes: Degrees.
        other_latitudes: Degrees.
        other_longitudes: Degrees.
        radius_km: Radius of the sphere.

    Returns:
        Kilometres, of the broadcast shape; NaN where a coordinate is.
    """
    lat, lon, other_lat, other_lon = (
        np.radians(np.asarray(v, dtype=np.float64)) for v in (latitudes, longitudes, other_latitudes, other_longitudes)
    )
    half_chord = (
        np.sin((other_lat - lat) / 2) ** 2 + np.cos(lat) * np.cos(other_lat) * np.sin((other_lon - lon) / 2) ** 2
    )
    return 2 * radius_km * np.arcsin(np.sqrt(np.clip(half_chord, 0, 1)))


def unit_vectors(latitudes: ArrayLike, longitudes: ArrayLike) -> np.ndarray:
    """Points (...) in degrees as unit vectors (..., 3): x to (0°, 0°), y to (0°, 90°), z to the pole."""
    lat = np.radians(np.asarray(latitudes, dtype=np.float64))
    lon = np.radians(np.asarray(longitudes, dtype=np.float64))
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def coordinates(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes (...) in degrees of the directions of vectors (..., 3) of any length."""
    x, y, z = np.moveaxis(np.asarray(vectors, dtype=np.float64), -1, 0)
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


def tangents(latitudes: ArrayLike, longitudes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (..., 3) that point east and north from points (...) in degrees."""
    lat = np.radians(np.asarray(latitudes, dtype=np.float64))
    lon = np.radians(np.asarray(longitudes, dtype=np.float64))
    east = np.stack([-np.sin(lon), np.cos(lon), np.zeros_like(lon)], axis=-1)
    north = np.stack([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)], axis=-1)
    return east, north


def chord(km: ArrayLike, radius_km: float = EARTH_KM) -> np.ndarray:
    """Straight distance between unit vectors whose points lie ``km`` apart on the sphere."""
    return 2 * np.sin(np.clip(np.asarray(km, dtype=np.float64) / radius_km, 0, np.pi) / 2)


def arc_km(chords: ArrayLike, radius_km: float = EARTH_KM) -> np.ndarray:
    """The inverse of :func:`chord`."""
    return 2 * radius_km * np.arcsin(np.clip(np.asarray(chords, dtype=np.float64) / 2, 0, 1))


def wrap(longitudes: ArrayLike) -> np.ndarray:
    """Longitudes brought to [−180, 180)."""
    return (np.asarray(longitudes, dtype=np.float64) + 180) % 360 - 180


def lattice(spacing_km: float) -> np.ndarray:
    """Unit vectors (N, 3) spread evenly over the sphere, about ``spacing_km`` apart; see :func:`evenly`."""
    return evenly(max(12, round(4 * np.pi * (EARTH_KM / spacing_km) ** 2)))


def evenly(count: int) -> np.ndarray:
    """Unit vectors (count, 3) spread evenly over the sphere: a Fibonacci lattice."""
    index = np.arange(count)
    latitudes = np.degrees(np.arcsin(1 - (2 * index + 1) / count))
    return unit_vectors(latitudes, wrap(index * 180 * (3 - np.sqrt(5))))


def check(latitudes: ArrayLike, longitudes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The same coordinates (N,) as float64, once it is sure that they are coordinates.

    Raises:
        UserError: A latitude or longitude is not a number or out of range; the first row is named.
    """
    lat, lon = np.asarray(latitudes, dtype=np.float64), np.asarray(longitudes, dtype=np.float64)
    if lat.shape != lon.shape or lat.ndim != 1:
        raise UserError(f"coordinates: shapes {lat.shape} and {lon.shape}; expected two columns of the same length")
    for name, values, limit in (("latitude", lat, 90), ("longitude", lon, 180)):
        wrong = ~(np.abs(values) <= limit)
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(f"coordinates: row {row}: {name} {values[row]}; expected −{limit} … {limit} degrees")
    return lat, lon
