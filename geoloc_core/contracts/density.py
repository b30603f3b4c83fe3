"""What a model offers that says how probable any place is, not only which class."""

from typing import Protocol, runtime_checkable

import numpy as np

from geoloc_core.contracts.batch import Batch


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
