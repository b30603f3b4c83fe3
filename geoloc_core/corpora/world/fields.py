"""Smooth random fields over the sphere: what differs by place without anyone knowing a rule for it."""

from functools import cache

import numpy as np

from geoloc_core.corpora.world.rng import stable_hash

WAVES = 24


@cache
def _waves(name: str, scale_km: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(np.random.SeedSequence([stable_hash(name)]))
    directions = rng.standard_normal((WAVES, 3)) * (6371.0 / scale_km)
    return directions, rng.uniform(0, 2 * np.pi, WAVES)


def unit_vectors(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Points on the unit sphere.

    Args:
        latitude: Degrees, shape (n,).
        longitude: Degrees, shape (n,).

    Returns:
        Shape (n, 3).
    """
    lat, lon = np.radians(latitude), np.radians(longitude)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def field(name: str, scale_km: float, points: np.ndarray) -> np.ndarray:
    """The field called ``name``: mean 0, variance 1, alike within about ``scale_km``.

    Args:
        name: Which field; the world has one of each name.
        scale_km: Distance over which it changes.
        points: Unit vectors, shape (..., 3).

    Returns:
        Shape (...).
    """
    directions, phases = _waves(name, scale_km)
    return np.sqrt(2 / WAVES) * np.cos(points @ directions.T + phases).sum(axis=-1)
