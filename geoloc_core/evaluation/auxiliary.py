"""Scores of what models tell beside the place: mean absolute errors of quantities, shares of right classes.

The columns of PIGEON's second table (Haas et al. 2024). A photo of which a fact is not known counts nowhere in its
figure. A month's season is that of the same hemisphere, so that only the month decides whether it is right.
"""

import numpy as np
import pyarrow as pa

from geoloc_core.contracts.facts import CATEGORIES, QUANTITIES
from geoloc_core.evaluation.bootstrap import Sample


def samples(table: pa.Table) -> dict[str, Sample]:
    """What each figure of one benchmark measures of its N rows.

    Args:
        table: Of :data:`geoloc_core.variants.answers.AUXILIARY`.
    """
    found: dict[str, Sample] = {}
    for name in QUANTITIES:
        told, true = _both(table, name)
        found[f"{name}_mae"] = Sample(np.abs(told - true))
    for category in CATEGORIES:
        told, true = _both(table, category)
        known = np.isfinite(told) & np.isfinite(true)
        found[f"{category}_accuracy"] = _right(told == true, known)
        if category == "month":
            found["season_accuracy"] = _right(season(told) == season(true), known)
    return found


def season(months: np.ndarray) -> np.ndarray:
    """(N,) from 0, December to February, to 3, of months (N,) from 1; of NaN anything."""
    found: np.ndarray = np.nan_to_num(months).astype(np.int64) % 12 // 3
    return found


def _right(hits: np.ndarray, known: np.ndarray) -> Sample:
    return Sample(np.where(known, 100.0 * hits, np.nan))


def _both(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """What was told and what is true (N,), NaN where it is not known."""
    told, true = (table[column].to_numpy().astype(np.float64) for column in (name, f"true_{name}"))
    return told, true
