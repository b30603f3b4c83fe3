"""Scores of what models tell beside the place: mean absolute errors of quantities, shares of right classes.

The columns of PIGEON's second table (Haas et al. 2024). A photo of which a fact is not known counts nowhere in its
figure. A month's season is that of the same hemisphere, so that only the month decides whether it is right.
"""

import numpy as np
import pyarrow as pa

from geoloc_core.contracts.facts import CATEGORIES, QUANTITIES
from geoloc_core.contracts.metrics import percent


def figures(table: pa.Table) -> dict[str, float | None]:
    """The figures of one benchmark; None where nothing is known, or a fact is not told.

    Args:
        table: Of :data:`geoloc_core.variants.answers.AUXILIARY`.
    """
    found: dict[str, float | None] = {}
    for name in QUANTITIES:
        told, true = _known(table, name)
        found[f"{name}_mae"] = float(np.abs(told - true).mean()) if len(true) else None
    for category in CATEGORIES:
        told, true = _known(table, category)
        found[f"{category}_accuracy"] = percent(told == true) if len(true) else None
        if category == "month":
            found["season_accuracy"] = percent(season(told) == season(true)) if len(true) else None
    return found


def season(months: np.ndarray) -> np.ndarray:
    """(N,) from 0, December to February, to 3, of months (N,) from 1."""
    found: np.ndarray = months.astype(np.int64) % 12 // 3
    return found


def _known(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """What was told and what is true, of rows with both."""
    told, true = (table[column].to_numpy() for column in (name, f"true_{name}"))
    both = np.isfinite(told) & np.isfinite(true)
    return told[both], true[both]
