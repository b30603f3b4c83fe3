"""The true class of a row: how a label space reads what is known of photos."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from geoloc_core.geo.geocells import Geocells

UNITS = {"country": "gid_0", "subdivision": "gid_1"}
"""The label spaces of administrative units, and the column of the labels that holds a row's class."""
ATTRIBUTE = "attribute"
"""The column that holds a row's class where the label space is an attribute of the corpus."""


def class_ids(known: Any, labels: str, cells: "Geocells | None" = None) -> np.ndarray:
    """Ids (N,) of the true classes, as objects; None where a row has none.

    Args:
        known: Columns ``gid_0``, ``gid_1``, ``latitude`` and ``longitude`` of N rows, as a table of pandas; and
            :data:`ATTRIBUTE`, where the label space is one.
        labels: Name of the label space.
        cells: The cells, where it is one of cells: a row without coordinates is in none.
    """
    if cells is None:
        ids = known[UNITS.get(labels, ATTRIBUTE)].to_numpy(dtype=object)
        named = np.array([gid is not None and gid == gid for gid in ids], bool)
        return np.where(named, ids, np.array(None, dtype=object))
    found = np.full(len(known), None, dtype=object)
    placed = np.flatnonzero((known["latitude"].notna() & known["longitude"].notna()).to_numpy())
    at = cells.assign(known["latitude"].to_numpy()[placed], known["longitude"].to_numpy()[placed])
    names = np.array(cells.space.ids)
    found[placed[at >= 0]] = names[at[at >= 0]]
    return found
