"""Sets that hold the truth as often as promised: classes, and caps around the answer (split conformal prediction).

What is promised is learned from the answers to half of the validation groups, and what comes of it is measured on the
other half and on every benchmark, which are rows of other groups, or of another world. A whole group is on one side,
and the level is raised by a group's worth: rows of new groups are what coverage is promised of (Dunn, Wasserman and
Ramdas 2022, "Distribution-free prediction sets for two-layer hierarchical models", with all rows pooled).
"""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from geoloc_core.evaluation.bootstrap import Groups, Ids, Sample, coded
from geoloc_core.evaluation.details import Figure, figure
from geoloc_core.evaluation.scoring import Told
from geoloc_core.plugins import Strict

COVERAGE = 0.9
"""Of the rows whose truth a set is to hold."""
LEAST_GROUPS = 10
"""That a promise can be learned from: with fewer, no level below all rows is told apart from it."""


NOBODY = "nan"
"""Stands for the group of rows without one: all of them are on one side."""


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


def half(ids: Ids) -> np.ndarray:
    """(N,) whether a row's group, by its id, is in the half that promises are learned from: always the same."""
    codes, known = coded(ids)
    names = [*known.to_pylist(), NOBODY]  # the last is that of −1
    mine = np.array([blake2b(f"conformal:{name}".encode(), digest_size=1).digest()[0] < 128 for name in names], bool)
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


def sizes(promise: Promise, probabilities: np.ndarray) -> np.ndarray:
    """Classes (N,) int16 in the set of each row; 0 where there are more than candidates, or nothing is promised.

    The first class is in, and each one before whose probability no more ranks than was promised.

    Args:
        promise: What was learned.
        probabilities: (N, k) of the candidates.
    """
    if promise.classes is None:
        return np.zeros(len(probabilities), np.int16)
    more = np.cumsum(probabilities, axis=1, dtype=np.float32) <= promise.classes
    return np.where(more.all(axis=1), 0, 1 + more.sum(axis=1)).astype(np.int16)


def covered(promise: Promise, told: Told, groups: Groups, sizes: np.ndarray) -> dict[str, Covered]:
    """What a promise comes to on N rows: of ``classes`` and of ``caps``, each where it is known and can be measured.

    Args:
        promise: What was learned.
        told: What became of the rows.
        groups: Which belong together.
        sizes: (N,) as of :func:`sizes`.
    """
    found = {}
    if promise.classes is not None and told.outcomes.classed.any():
        held = 100.0 * (np.nan_to_num(told.outcomes.before, nan=np.inf) <= promise.classes)
        held[~told.outcomes.classed] = np.nan
        counted = sizes[told.outcomes.classed]
        median = float(np.median(np.where(counted > 0, counted, np.inf)))
        found["classes"] = _covered(held, groups, told).model_copy(
            update={"size": median if np.isfinite(median) else None}
        )
    if promise.caps is not None and told.outcomes.placed.any():
        radius = promise.caps * (told.outcomes.spread_km.astype(np.float64) + promise.easiest_km)
        held = np.where(told.outcomes.placed, 100.0 * (told.errors_km <= radius), np.nan)
        median = float(np.median(radius[told.outcomes.placed]))
        found["caps"] = _covered(held, groups, told).model_copy(
            update={"radius_km": median if np.isfinite(median) else None}
        )
    return found


def _covered(held: np.ndarray, groups: Groups, told: Told) -> Covered:
    continent = told.places.continent_of[told.outcomes.true_country]
    within = {
        name: figure(Sample(np.where(continent == at, held, np.nan)), groups)
        for at, name in enumerate(told.places.continents)
    }
    return Covered(
        coverage=figure(Sample(held), groups), continents={name: found for name, found in within.items() if found.n}
    )
