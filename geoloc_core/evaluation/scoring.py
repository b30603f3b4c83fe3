"""From answers and truth to figures: what is known of every row, what became of it, and the scores.

What cannot be measured for a row is left out of that figure alone: of a photo whose country is all that is known the
distance is not, and neither is its subdivision. A photo at a known place that lies in no class is always missed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geoloc_core.contracts.metrics import column, names
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.evaluation import metrics
from geoloc_core.geo.labelspace import LabelSpace


@dataclass(frozen=True)
class Outcomes:
    """What became of N rows: all that the scores need.

    Attributes:
        ranks: (N,) where the truth stands among all classes, from 0; −1 where the model does not know the true class.
        classed: (N,) whether the true class can be told: it is known, or the place is, which then is in no class.
        countries: (N,) int8: 1 where the country of the first candidate is right, 0 where it is not, −1 where nobody
            can tell.
        placed: (N,) whether the row has coordinates.
        errors_km: (N,) distance between answer and truth; NaN where the row has no coordinates.
    """

    ranks: np.ndarray
    classed: np.ndarray
    countries: np.ndarray
    placed: np.ndarray
    errors_km: np.ndarray

    def __len__(self) -> int:
        return len(self.ranks)


@dataclass(frozen=True)
class Truth:
    """What is true of N rows.

    Attributes:
        latitudes: (N,) degrees; NaN where unknown.
        longitudes: (N,) degrees; NaN where unknown.
        classes: (N,) ids of the true classes; None where there is none.
        countries: (N,) ids of the true countries; None where unknown.
    """

    latitudes: np.ndarray
    longitudes: np.ndarray
    classes: np.ndarray
    countries: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def placed(self) -> np.ndarray:
        """(N,) whether there are coordinates."""
        placed: np.ndarray = np.isfinite(self.latitudes) & np.isfinite(self.longitudes)
        return placed


def outcomes(
    latitude: np.ndarray,
    longitude: np.ndarray,
    ranks: np.ndarray,
    countries: np.ndarray,
    truth: Truth,
    convention: metrics.Convention = metrics.DEFAULT,
) -> Outcomes:
    """Compare the answers to N rows with the truth.

    Args:
        latitude: (N,) of the answers, degrees.
        longitude: (N,) of the answers, degrees.
        ranks: (N,) of the true class, from 0; −1 where the model does not know it.
        countries: (N,) ids of the answered countries, "" where the answer is in none.
        truth: What is true of them.
        convention: How errors are measured.
    """
    placed = truth.placed
    errors = np.full(len(truth), np.nan)
    errors[placed] = convention.errors_km(
        latitude[placed], longitude[placed], truth.latitudes[placed], truth.longitudes[placed]
    )
    known = np.array([name is not None for name in truth.classes], bool)
    right = np.array([mine == theirs for mine, theirs in zip(countries, truth.countries, strict=True)], np.int8)
    named = np.array([name is not None for name in truth.countries], bool)
    return Outcomes(ranks, known | placed, np.where(named | placed, right, -1), placed, errors)


def majority(space: LabelSpace, frequencies: np.ndarray, truth: Truth) -> Outcomes:
    """What always answering the classes in the order of their training rows would come to.

    Args:
        space: The C classes.
        frequencies: (C,) training rows of each.
        truth: Of the N rows.
    """
    answer = most_frequent(space, frequencies, len(space))
    order = answer.classes[0]
    place = np.empty(len(space), np.int64)
    place[order] = np.arange(len(space))
    found = space.index(list(truth.classes))
    n, first = len(truth), order[0]
    return outcomes(
        np.full(n, answer.latitude[0]),
        np.full(n, answer.longitude[0]),
        np.where(found >= 0, place[found], -1),
        np.full(n, space.countries[first], dtype=object),
        truth,
    )


def most_frequent(space: LabelSpace, frequencies: np.ndarray, k: int) -> Prediction:
    """One row: the k most frequent classes with their shares; equally frequent ones keep the label space's order.

    Args:
        space: The C classes.
        frequencies: (C,) training rows of each.
        k: How many.
    """
    shares = frequencies / max(int(frequencies.sum()), 1)
    return Prediction.of_probabilities(shares[None], space, k)


@dataclass(frozen=True)
class Told:
    """The outcomes of the rows that each metric can be told of."""

    outcomes: Outcomes
    convention: metrics.Convention

    @property
    def ranks(self) -> np.ndarray:
        """See :class:`~geoloc_core.contracts.metrics.Measured`, as of all that follow."""
        return self.outcomes.ranks[self.outcomes.classed]

    @property
    def countries(self) -> np.ndarray:
        """Of rows whose country can be told."""
        return self.outcomes.countries[self.outcomes.countries >= 0] == 1

    @property
    def errors_km(self) -> np.ndarray:
        """Of rows with coordinates."""
        return self.outcomes.errors_km[self.outcomes.placed]

    def within(self, km: float) -> np.ndarray:
        """By the convention."""
        return self.convention.within(self.errors_km, km)

    def points(self) -> np.ndarray:
        """By the convention."""
        return metrics.geoguessr_score(self.errors_km, self.convention)


def score(
    found: Outcomes,
    ks: Sequence[int],
    thresholds_km: Sequence[float],
    convention: metrics.Convention = metrics.DEFAULT,
) -> dict[str, float | None]:
    """The figures of a table's row, with how many rows have coordinates; None where no row can be measured.

    Args:
        found: What became of the N rows, N > 0.
        ks: The k of top-k.
        thresholds_km: The km of "% @ km".
        convention: What counts as within.
    """
    told = Told(found, convention)
    values = {name: column(name).measure(told) for name in names(ks, thresholds_km)}  # type: ignore[union-attr]
    return {"located": len(told.errors_km)} | {n: None if np.isnan(value) else value for n, value in values.items()}
