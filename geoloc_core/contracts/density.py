"""What a model offers that says how probable any place is, not only which class."""

from typing import Protocol, runtime_checkable

import numpy as np

from geoloc_core.contracts.batch import Batch
from geoloc_core.geo import sphere


@runtime_checkable
class HasDensity(Protocol):
    """A model of a family with a density over the sphere."""

    def log_density(self, batch: Batch, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        """The logarithm (N,) of the density of each of N units at a place of its own, per steradian.

        Args:
            batch: The N units.
            latitudes: (N,) degrees; NaN where unknown, of which nothing is said: NaN.
            longitudes: (N,) degrees.
        """

    def region(self, batch: Batch, share: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """The smallest regions that hold a share of the probability: where the density is above a level.

        Returns:
            (N,) logarithm of the level, per steradian; (N,) area in km².
        """


def region_of(log_densities: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The smallest region that holds a share of the probability (Hyndman 1996), from draws.

    Args:
        log_densities: (N, P) of N densities, each at P places drawn from it.
        share: Of the probability.

    Returns:
        (N,) logarithm of the level, per steradian; (N,) area in km².
    """
    level = np.quantile(log_densities, 1 - share, axis=1)
    inside = np.where(log_densities >= level[:, None], np.exp(-log_densities), 0)
    return level, inside.mean(axis=1) * sphere.EARTH_KM**2
