"""Clusters of training photos that a model holds, for maps of them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Clustered:
    """M photos in P clusters of C cells. A family that has such clusters reads them with a function ``clusters``.

    Attributes:
        latitudes: (M,) degrees, cluster by cluster.
        longitudes: (M,) degrees.
        starts: (P + 1,) where the photos of each cluster begin.
        cells: (C + 1,) where the clusters of each cell begin.
    """

    latitudes: np.ndarray
    longitudes: np.ndarray
    starts: np.ndarray
    cells: np.ndarray
