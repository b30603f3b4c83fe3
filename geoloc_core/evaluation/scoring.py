"""From answers and truth to figures: what is known of every row, what became of it, and the scores.

What cannot be measured for a row is left out of that figure alone: of a photo whose country is all that is known the
distance is not, and neither is its subdivision. A photo at a known place that lies in no class is always missed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from geoloc_core.contracts.metrics import DENSITY, Column, column, names
from geoloc_core.contracts.prediction import OfTruth, Prediction
from geoloc_core.corpora.countries import continents
from geoloc_core.evaluation import bootstrap, metrics
from geoloc_core.evaluation.bootstrap import Groups, Sample
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.sphere import haversine_km

UNTOLD, NONE = -2, -1
"""Of ranks and places: nobody can tell; and it is none of those known."""
CONFIDENCE_BINS = 15
LEAST = float(np.finfo(np.float32).tiny)
"""The lowest probability that is told from none: the surprise stays finite."""


@dataclass(frozen=True)
class Outcomes:
    """What became of N rows: all that the scores need.

    Attributes:
        ranks: (N,) int32 where the truth stands among all classes, from 0; −1 where the model does not know the true
            class; −2 where nobody can tell, neither the class nor the place being known.
        country_ranks: (N,) int32 where the true country stands among the countries of the candidates.
        subdivision_ranks: (N,) int32 the same of subdivisions; −2 of all where the classes lie in none.
        probability: (N,) float32 of the true class; NaN where the model does not know it.
        before: (N,) float32 of the classes that rank before it; NaN where the model does not know it.
        confidence: (N,) float32 of the first class.
        true_country: (N,) int32 position in :attr:`Places.ids`; −1 where unknown.
        country: (N,) int32 of the answer; −1 where it is in none.
        errors_km: (N,) distance between answer and truth; NaN where the row has no coordinates.
        geodesic_km: (N,) the same along the WGS 84 ellipsoid.
        spread_km: (N,) float32 mean distance of the candidates from the answer, by their probabilities.
        log_density: (N,) at the true place, per steradian; NaN where the model has none, or the place is not known.
        candidate_within: (N, T) int16 the first candidate, from 0, within each threshold of the truth; −1 for none and
            −2 where the row has no coordinates.
        candidates: k, how many are kept of each answer.
    """

    ranks: np.ndarray
    country_ranks: np.ndarray
    subdivision_ranks: np.ndarray
    probability: np.ndarray
    before: np.ndarray
    confidence: np.ndarray
    true_country: np.ndarray
    country: np.ndarray
    errors_km: np.ndarray
    geodesic_km: np.ndarray
    spread_km: np.ndarray
    log_density: np.ndarray
    candidate_within: np.ndarray
    candidates: int

    def __len__(self) -> int:
        return len(self.ranks)

    @property
    def placed(self) -> np.ndarray:
        """(N,) whether the row has coordinates."""
        placed: np.ndarray = ~np.isnan(self.errors_km)
        return placed

    @property
    def classed(self) -> np.ndarray:
        """(N,) whether the true class can be told: it is known, or the place is, which then is in no class."""
        classed: np.ndarray = self.ranks != UNTOLD
        return classed

    def take(self, rows: np.ndarray) -> "Outcomes":
        """Some of the rows."""
        if np.array_equal(rows, np.arange(len(self))):
            return self
        return Outcomes(**{name: _taken(getattr(self, name), rows) for name in COLUMNS}, candidates=self.candidates)


COLUMNS = tuple(field.name for field in fields(Outcomes) if field.name != "candidates")
"""What :class:`Outcomes` says of each row."""


class Gathered:
    """Outcomes of N rows, given some rows at a time and written where they stay: kept in parts, they take more room."""

    def __init__(self, count: int) -> None:
        self._count, self._filled = count, 0
        self._columns: dict[str, np.ndarray] = {}
        self._candidates = 0

    def __len__(self) -> int:
        """How many rows have been given."""
        return self._filled

    def add(self, part: Outcomes) -> None:
        """Take in the next rows, of as many candidates as all others."""
        if not self._columns:
            self._candidates = part.candidates
            for name in COLUMNS:
                values = getattr(part, name)
                self._columns[name] = np.empty((self._count, *values.shape[1:]), values.dtype)
        end = self._filled + len(part)
        for name, values in self._columns.items():
            values[self._filled : end] = getattr(part, name)
        self._filled = end

    def whole(self) -> Outcomes:
        """All N rows; nothing is left here. A column of one value takes the room of one row."""
        return Outcomes(**{name: _once(self._columns.pop(name)) for name in COLUMNS}, candidates=self._candidates)


def _once(values: np.ndarray) -> np.ndarray:
    """A column (N, …), held as one row where all are alike."""
    first = values[:1].copy()
    alike = (values == first) | ((values != values) & (first != first))  # NaN is like NaN
    return np.broadcast_to(first, values.shape) if alike.all() else values


def _taken(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows of a column, held as one where it is."""
    return np.broadcast_to(values[:1], (len(rows), *values.shape[1:])) if values.strides[0] == 0 else values[rows]


@dataclass(frozen=True)
class Truth:
    """What is true of N rows.

    Attributes:
        latitudes: (N,) degrees; NaN where unknown.
        longitudes: (N,) degrees; NaN where unknown.
        classes: (N,) ids of the true classes; None where there is none.
        countries: (N,) ids of the true countries; None where unknown.
        subdivisions: (N,) ids of the true subdivisions; None where unknown.
    """

    latitudes: np.ndarray
    longitudes: np.ndarray
    classes: np.ndarray
    countries: np.ndarray
    subdivisions: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def placed(self) -> np.ndarray:
        """(N,) whether there are coordinates."""
        placed: np.ndarray = np.isfinite(self.latitudes) & np.isfinite(self.longitudes)
        return placed


@dataclass(frozen=True)
class Places:
    """The countries and subdivisions that answers and truth may name, numbered, and what holds each class.

    Attributes:
        ids: (P,) of the countries, sorted.
        of_class: (C,) position of each class' country; −1 where it is in none.
        subdivision_ids: (S,) of the classes' subdivisions; empty where they lie in none.
        subdivision_of_class: (C,) position of each class' subdivision; −1 where it is in none.
        kind: What the classes are: the ranks of countries or subdivisions that are classes are those of the classes.
    """

    ids: tuple[str, ...]
    of_class: np.ndarray
    subdivision_ids: tuple[str, ...]
    subdivision_of_class: np.ndarray
    kind: str

    @classmethod
    def of(cls, space: LabelSpace, countries: Sequence[str]) -> "Places":
        """Of a label space, and of the true countries, in whatever order."""
        ids = tuple(sorted({*space.countries, *countries} - {""}))
        subdivisions = space.ids if space.kind == "subdivision" else space.levels.get("subdivision", [])
        known = tuple(sorted(set(subdivisions) - {""}))
        at = _positions(known, subdivisions) if known else np.full(len(space), NONE, np.int32)
        return cls(ids, _positions(ids, space.countries), known, at, space.kind)

    @cached_property
    def _continents(self) -> list[str]:
        """(P,) name of each country's continent, "" where there is none."""
        known = continents()
        return [known.get(country, "") for country in self.ids]

    @cached_property
    def continents(self) -> tuple[str, ...]:
        """Those that hold a country, in the order of the alphabet."""
        return tuple(sorted({*self._continents} - {""}))

    @cached_property
    def continent_of(self) -> np.ndarray:
        """(P + 1,) int8 position of each country's continent; −1 where there is none, as of country −1, the last."""
        return np.append(_positions(self.continents, self._continents), NONE).astype(np.int8)


def _positions(known: Sequence[str], ids: Sequence[str | None] | np.ndarray) -> np.ndarray:
    """Positions (N,) int32 of ids among known ones; −1 where one is not."""
    import pandas as pd

    named = pd.Index(np.array([*known, None], dtype=object)[:-1])
    found: np.ndarray = named.get_indexer(pd.Index(np.asarray(ids, dtype=object))).astype(np.int32)
    return found


def outcomes(
    prediction: Prediction, places: Places, truth: Truth, thresholds_km: Sequence[float] = (1, 25, 200, 750, 2500)
) -> Outcomes:
    """Compare the answers to N rows with the truth.

    Args:
        prediction: The answers, with what the model thinks of the true classes.
        places: What holds the classes.
        truth: What is true of the rows.
        thresholds_km: Distances at which candidates are looked for.
    """
    thought = prediction.truth
    assert thought is not None
    placed = truth.placed
    known = np.array([name is not None for name in truth.classes], bool)
    unknown = thought.rank < 0
    of_candidates = places.of_class[prediction.classes]
    of_subdivisions = places.subdivision_of_class[prediction.classes]
    true_subdivision = _positions(places.subdivision_ids, truth.subdivisions)
    true_country = _positions(places.ids, truth.countries)
    named = np.array([name is not None for name in truth.countries], bool)
    subdivided = np.array([name is not None for name in truth.subdivisions], bool) | placed
    return Outcomes(
        ranks=np.where(unknown, np.where(known | placed, NONE, UNTOLD), thought.rank).astype(np.int32),
        country_ranks=_among(
            named | placed,
            thought.rank if places.kind == "country" else _ranks(of_candidates, true_country),
        ),
        subdivision_ranks=_among(
            subdivided & bool(places.subdivision_ids),
            thought.rank if places.kind == "subdivision" else _ranks(of_subdivisions, true_subdivision),
        ),
        probability=np.where(unknown, np.nan, thought.probability).astype(np.float32),
        before=np.where(unknown, np.nan, thought.before).astype(np.float32),
        confidence=prediction.probabilities[:, 0].astype(np.float32),
        true_country=true_country,
        country=of_candidates[:, 0],
        log_density=np.full(len(known), np.nan) if prediction.log_density is None else prediction.log_density,
        candidates=prediction.classes.shape[1],
        **_distances(prediction, truth, thresholds_km),
    )


def _among(told: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Ranks (N,), and where nobody can tell."""
    return np.where(told, ranks, UNTOLD).astype(np.int32)


def _ranks(of_candidates: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Where the true place (N,) stands among those of the candidates (N, k), each counted once; −1 for nowhere."""
    right = (of_candidates == true[:, None]) & (true >= 0)[:, None]
    at = right.argmax(axis=1)
    rank = np.zeros(len(true), np.int32)
    for j in range(of_candidates.shape[1]):  # over candidates, of which there are few
        new = ~(of_candidates[:, :j] == of_candidates[:, j : j + 1]).any(axis=1) & (of_candidates[:, j] >= 0)
        rank += new & (j < at)
    return np.where(right.any(axis=1), rank, NONE)


def _distances(prediction: Prediction, truth: Truth, thresholds_km: Sequence[float]) -> dict[str, np.ndarray]:
    placed = truth.placed
    n = len(truth)
    true = (truth.latitudes[placed], truth.longitudes[placed])
    answer = (prediction.latitude[placed], prediction.longitude[placed])
    errors, geodesic = np.full(n, np.nan), np.full(n, np.nan)
    errors[placed] = metrics.DEFAULT.errors_km(*answer, *true)
    geodesic[placed] = metrics.CONVENTIONS["geoclip"].errors_km(*answer, *true)
    places = (prediction.latitudes, prediction.longitudes)
    apart = haversine_km(*places, prediction.latitude[:, None], prediction.longitude[:, None])
    weights = prediction.probabilities.astype(np.float64)
    total = np.maximum(weights.sum(axis=1), LEAST)
    within = np.full((n, len(thresholds_km)), UNTOLD, np.int16)
    if thresholds_km:
        away = haversine_km(*(axis[placed] for axis in places), *(axis[:, None] for axis in true))
    for at, km in enumerate(thresholds_km):
        hits = away <= km
        within[placed, at] = np.where(hits.any(axis=1), hits.argmax(axis=1), NONE)
    spread = ((apart * weights).sum(axis=1) / total).astype(np.float32)
    return {"errors_km": errors, "geodesic_km": geodesic, "spread_km": spread, "candidate_within": within}


def most_frequent(space: LabelSpace, frequencies: np.ndarray, k: int) -> Prediction:
    """One row: the k most frequent classes with their shares; equally frequent ones keep the label space's order.

    Args:
        space: The C classes.
        frequencies: (C,) training rows of each.
        k: How many.
    """
    shares = frequencies / max(int(frequencies.sum()), 1)
    return Prediction.of_probabilities(shares[None], space, k)


def majority(space: LabelSpace, frequencies: np.ndarray, truth: Truth, k: int) -> Prediction:
    """What always answering the classes in the order of their training rows comes to, for N rows.

    Args:
        space: The C classes.
        frequencies: (C,) training rows of each.
        truth: Of the N rows.
        k: How many candidates.
    """
    order = most_frequent(space, frequencies, len(space))
    shares = order.probabilities[0]
    place = np.empty(len(space), np.int64)
    place[order.classes[0]] = np.arange(len(space))
    found = space.index(list(truth.classes))
    known = found >= 0
    at = place[found]
    before = np.cumsum(shares) - shares
    n = len(truth)
    wide = (n, min(k, len(space)))
    return Prediction(
        np.broadcast_to(order.classes[0, :k], wide),
        np.broadcast_to(order.probabilities[0, :k], wide),
        np.broadcast_to(order.latitudes[0, :k], wide),
        np.broadcast_to(order.longitudes[0, :k], wide),
        np.full(n, order.latitude[0]),
        np.full(n, order.longitude[0]),
        truth=OfTruth(np.where(known, at, -1), np.where(known, shares[at], 0), np.where(known, before[at], 1)),
    )


@dataclass(frozen=True)
class Told:
    """The outcomes of N rows under a convention, as metrics measure them.

    All properties are those of :class:`~geoloc_core.contracts.metrics.Measured`.
    """

    outcomes: Outcomes
    places: Places
    convention: metrics.Convention = metrics.DEFAULT

    @property
    def ranks(self) -> np.ndarray:
        """Of the true class."""
        return _known(self.outcomes.ranks)

    @property
    def country_ranks(self) -> np.ndarray:
        """Of the true country."""
        return _known(self.outcomes.country_ranks)

    @property
    def subdivision_ranks(self) -> np.ndarray:
        """Of the true subdivision."""
        return _known(self.outcomes.subdivision_ranks)

    @property
    def continents(self) -> np.ndarray:
        """Whether the continent is right."""
        of = self.places.continent_of
        true, answered = of[self.outcomes.true_country], of[self.outcomes.country]
        return np.where(true < 0, np.nan, true == answered)

    @property
    def true_countries(self) -> np.ndarray:
        """Numbers of the true countries."""
        return self.outcomes.true_country

    @cached_property
    def errors_km(self) -> np.ndarray:
        """By the convention."""
        if self.convention.radius_km is None:
            return self.outcomes.geodesic_km
        radius = metrics.DEFAULT.radius_km
        assert radius is not None
        if self.convention.radius_km == radius:
            return self.outcomes.errors_km
        return self.outcomes.errors_km * (self.convention.radius_km / radius)

    @property
    def surprise(self) -> np.ndarray:
        """In nats."""
        shown: np.ndarray = -np.log(np.maximum(self.outcomes.probability.astype(np.float64), LEAST))
        return shown

    @property
    def density_surprise(self) -> np.ndarray:
        """In nats, per steradian."""
        return -self.outcomes.log_density

    @property
    def overconfidence(self) -> np.ndarray:
        """Confidence less whether it is right."""
        right = np.where(self.outcomes.classed, self.outcomes.ranks == 0, np.nan)
        return self.outcomes.confidence - right

    @cached_property
    def confidence_bins(self) -> np.ndarray:
        """Of about as many rows each, int8; equal confidences share one."""
        classed = self.outcomes.classed
        bins = np.full(len(classed), NONE, np.int8)
        confidence = self.outcomes.confidence[classed]
        if len(confidence):
            edges = np.unique(np.quantile(confidence, np.arange(1, CONFIDENCE_BINS) / CONFIDENCE_BINS))
            bins[classed] = np.searchsorted(edges, confidence)
        return bins

    def within(self, km: float) -> np.ndarray:
        """By the convention."""
        return np.where(self.outcomes.placed, self.convention.within(self.errors_km, km), np.nan)

    def points(self) -> np.ndarray:
        """By the convention."""
        return metrics.geoguessr_score(self.errors_km, self.convention)


def _known(ranks: np.ndarray) -> np.ndarray:
    return np.where(ranks == UNTOLD, np.nan, ranks)


def columns(
    told: Told, ks: Sequence[int], thresholds_km: Sequence[float], only: Sequence[str] | None = None
) -> list[Column]:
    """The metrics of the rows, in the order of tables.

    Args:
        told: What became of the N rows.
        ks: The k of top-k.
        thresholds_km: The km of "% @ km".
        only: Groups of columns that are wanted; all if not given.
    """
    known = [*names(ks, thresholds_km), *([DENSITY] if np.isfinite(told.outcomes.log_density).any() else [])]
    wanted: list[Column] = [column(name) for name in known]  # type: ignore[misc]
    return [found for found in sorted(wanted, key=lambda found: found.order) if only is None or found.group in only]


def samples(
    told: Told, ks: Sequence[int], thresholds_km: Sequence[float], only: Sequence[str] | None = None
) -> Iterator[tuple[str, Sample]]:
    """What each of the metrics of :func:`columns` measures of the rows, by name: one after the other, for memory."""
    for found in columns(told, ks, thresholds_km, only):
        yield found.name, bootstrap.sample(found, told)


def figures(found: Iterable[tuple[str, Sample]]) -> dict[str, float | None]:
    """The figures of a table's row; None where no row can be measured."""
    return {name: figure(sample) for name, sample in found}


def figure(sample: Sample) -> float | None:
    """A figure; None where no row can be measured."""
    return None if np.isnan(sample.figure) else sample.figure


def interval(name: str, sample: Sample, groups: Groups, draws: np.ndarray | None = None) -> tuple[float, float] | None:
    """The 95 % interval of a metric, of draws where they are known; None where nobody can tell."""
    found = column(name)
    percentage = found is not None and found.percentage
    return bootstrap.interval(sample.draws(groups) if draws is None else draws, groups, sample.told, percentage)
