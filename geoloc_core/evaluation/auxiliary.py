"""Scores of what models tell beside the place: mean absolute errors of quantities, shares of right classes.

The columns of PIGEON's second table (Haas et al. 2024). A photo of which a fact is not known counts nowhere in its
figure. A month's season is that of the same hemisphere, so that only the month decides whether it is right.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from geoloc_core.contracts.facts import CATEGORIES, QUANTITIES
from geoloc_core.evaluation.bootstrap import Sample


def samples(read: Callable[[list[str]], pa.Table]) -> Iterator[tuple[str, Sample]]:
    """What each figure of one benchmark measures of its N rows, by name: one after the other, for memory.

    Args:
        read: Gives columns of :data:`geoloc_core.variants.answers.AUXILIARY`.
    """
    for name in QUANTITIES:
        told, true = _both(read, name)
        yield f"{name}_mae", Sample(np.abs(told - true))
    for category in CATEGORIES:
        told, true = _both(read, category)
        known = np.isfinite(told) & np.isfinite(true)
        yield f"{category}_accuracy", _right(told == true, known)
        if category == "month":
            yield "season_accuracy", _right(season(told) == season(true), known)


def season(months: np.ndarray) -> np.ndarray:
    """(N,) from 0, December to February, to 3, of months (N,) from 1; of NaN anything."""
    found: np.ndarray = np.nan_to_num(months).astype(np.int64) % 12 // 3
    return found


def _right(hits: np.ndarray, known: np.ndarray) -> Sample:
    return Sample(np.where(known, 100.0 * hits, np.nan))


def _both(read: Callable[[list[str]], pa.Table], name: str) -> tuple[np.ndarray, np.ndarray]:
    """What was told and what is true (N,), NaN where it is not known."""
    told, true = (column.to_numpy().astype(np.float64) for column in read([name, f"true_{name}"]).columns)
    return told, true
