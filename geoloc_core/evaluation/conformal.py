"""Sets that hold the truth as often as promised: classes, and caps around the answer (split conformal prediction).

What is promised is learned from the answers to half of the validation groups, and what comes of it is measured on the
other half and on every benchmark, which are rows of other groups, or of another world. A whole group is on one side,
and the level is raised by a group's worth: rows of new groups are what coverage is promised of (Dunn, Wasserman and
Ramdas 2022, "Distribution-free prediction sets for two-layer hierarchical models", with all rows pooled).
"""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from geoloc_core.evaluation.bootstrap import Groups, Sample
from geoloc_core.evaluation.details import Figure, figure
from geoloc_core.evaluation.scoring import Told
from geoloc_core.plugins import Strict

COVERAGE = 0.9
"""Of the rows whose truth a set is to hold."""
LEAST_GROUPS = 10
"""That a promise can be learned from: with fewer, no level below all rows is told apart from it."""


class Covered(Strict):
    """What the sets come to on one benchmark.

    Attributes:
        coverage: Percent of the rows whose truth is in the set.
        continents: The same by continent.
        size: Median number of classes in a set; None of caps, and where it exceeds the candidates that are kept.
        radius_km: Median radius of a cap; None of classes.
    """

    coverage: Figure
    continents: dict[str, Figure]
    size: float | None = None
    radius_km: float | None = None


@dataclass(frozen=True)
class Promise:
    """What is learned on one half of validation.

    Attributes:
        classes: A set has the classes before which no more than this probability ranks; None where it is not known.
        caps: A cap's radius is this many times the row's difficulty; None where it is not known.
        easiest_km: What is added to the spread of the candidates to give the difficulty.
    """

    classes: float | None
    caps: float | None
    easiest_km: float


def half(ids: np.ndarray) -> np.ndarray:
    """(N,) whether a row's group, by its id, is in the half that promises are learned from: always the same."""
    import pandas as pd

    codes, known = pd.factorize(np.asarray(ids, dtype=object), use_na_sentinel=False)
    mine = np.array([blake2b(f"conformal:{name}".encode(), digest_size=1).digest()[0] < 128 for name in known], bool)
    return mine[codes]


def learn(told: Told, groups: Groups, coverage: float = COVERAGE) -> Promise:
    """Calibrate on N rows.

    Args:
        told: What became of them.
        groups: Which belong together.
        coverage: What is to be promised.
    """
    spread = told.outcomes.spread_km.astype(np.float64)
    placed = told.outcomes.placed
    easiest = max(1.0, float(np.median(spread[placed]))) if placed.any() else 1.0
    classed = told.outcomes.classed
    before = np.where(np.isnan(told.outcomes.before), np.inf, told.outcomes.before)
    with np.errstate(invalid="ignore"):
        ratio = told.errors_km / (spread + easiest)
    return Promise(
        _level(before[classed], groups.codes[classed], coverage),
        _level(ratio[placed], groups.codes[placed], coverage),
        easiest,
    )


def _level(scores: np.ndarray, codes: np.ndarray, coverage: float) -> float | None:
    """The least score that so many of the rows do not exceed, and a group's worth more; None of too few groups.

    Where that many rows do not have a finite score, it is infinite: the set is everything.
    """
    count = len(np.unique(codes))
    if count < LEAST_GROUPS:
        return None
    share = coverage * (count + 1) / count
    wanted = int(np.ceil(share * len(scores)))
    return float(np.inf) if wanted > len(scores) else float(np.sort(scores)[wanted - 1])


def covered(promise: Promise, told: Told, groups: Groups) -> dict[str, Covered]:
    """What a promise comes to on N rows: of ``classes`` and of ``caps``, each where it is known and can be measured."""
    found = {}
    continent = np.array([*told.places.continents, ""], dtype=object)[told.outcomes.true_country]
    continent = np.where(told.outcomes.true_country >= 0, continent, "")
    if promise.classes is not None and told.outcomes.classed.any():
        held = 100.0 * (np.nan_to_num(told.outcomes.before, nan=np.inf) <= promise.classes)
        held[~told.outcomes.classed] = np.nan
        # the first class is in, and each one before whose probability no more ranks than was promised
        more = told.outcomes.mass <= promise.classes
        sizes = np.where(more.all(axis=1), np.inf, 1.0 + more.sum(axis=1))
        median = float(np.median(sizes[told.outcomes.classed]))
        found["classes"] = _covered(held, groups, continent).model_copy(
            update={"size": median if np.isfinite(median) else None}
        )
    if promise.caps is not None and told.outcomes.placed.any():
        radius = promise.caps * (told.outcomes.spread_km.astype(np.float64) + promise.easiest_km)
        held = np.where(told.outcomes.placed, 100.0 * (told.errors_km <= radius), np.nan)
        median = float(np.median(radius[told.outcomes.placed]))
        found["caps"] = _covered(held, groups, continent).model_copy(
            update={"radius_km": median if np.isfinite(median) else None}
        )
    return found


def _covered(held: np.ndarray, groups: Groups, continent: np.ndarray) -> Covered:
    names = sorted({str(name) for name in continent[~np.isnan(held)]} - {""})
    within = {name: np.where(continent == name, held, np.nan) for name in names}
    return Covered(
        coverage=figure(Sample(held), groups),
        continents={name: figure(Sample(values), groups) for name, values in within.items()},
    )
