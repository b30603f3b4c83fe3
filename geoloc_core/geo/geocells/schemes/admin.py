"""The administrative units themselves: countries, or subdivisions of the first or second level.

A country without subdivisions of the level is a cell itself. All units are cells, with or without points.
"""

from typing import Literal

import numpy as np

from geoloc_core.geo.geocells.ground import Points, finest
from geoloc_core.geo.geocells.partition import Made
from geoloc_core.geo.geocells.unitcells import UnitCells, load
from geoloc_core.plugins import Strict

__all__ = ["Options", "build", "load"]


class Options(Strict):
    """Which units."""

    kind: Literal["admin"]
    level: Literal[0, 1, 2] = 1
    """0 countries, 1 and 2 subdivisions."""


def build(options: Options, points: Points) -> Made:
    """A cell per unit of the level."""
    import pandas as pd

    ground = points.ground
    gids = ground.gids.copy()
    gids[:, options.level + 1 :] = None
    groups, ids = pd.factorize(finest(gids), sort=True)
    first = np.unique(groups, return_index=True)[1]
    rows = ground.table.loc[list(ids)]
    latitudes, longitudes = (rows[axis].to_numpy(dtype=np.float64) for axis in ("latitude", "longitude"))
    partition = UnitCells.of_groups(ground, ground.units, groups.astype(np.int64))
    return Made(partition, list(ids), rows["name"].tolist(), latitudes, longitudes, gids[first])
