"""Where a model is right and where it fails: by country and continent, confusions, calibration, what it leaves out.

Everything here is measured of :class:`~geoloc_core.evaluation.scoring.Told`, so that no model runs for it.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from geoloc_core.contracts.metrics import DISTANCES, first
from geoloc_core.evaluation import bootstrap, scoring
from geoloc_core.evaluation.bootstrap import Groups, Sample
from geoloc_core.evaluation.metrics import alike
from geoloc_core.evaluation.scoring import Told
from geoloc_core.geo.sphere import EARTH_KM
from geoloc_core.plugins import Strict

FOUR_GROUPS = {
    "Europe": "Europe",
    "Asia": "Asia",
    "Africa": "Africa",
    "North America": "South & North America",
    "South America": "South & North America",
}
"""The continents of Siński et al. 2024, who leave out Oceania and Antarctica."""
PAIRS = 20
"""Confusions that are kept."""
SHARES = tuple(percent / 100 for percent in range(5, 101, 5))
"""Of the rows answered, in the curve of selective prediction."""


class Figure(Strict):
    """A figure, its 95 % interval where one can be told, and the rows that it stands on.

    Attributes:
        n: Rows that count.
        value: None where none does.
        low: End of the interval.
        high: The other end.
    """

    n: int
    value: float | None
    low: float | None = None
    high: float | None = None


class Region(Strict):
    """A continent or a country: how often the country is right there, and how far answers are from the truth.

    Attributes:
        name: Of the region, or the country's id.
        top: By k, the percent of its rows whose true country is among the first k.
        macro: Mean over its countries of the percent that is right.
        median_km: Of the errors.
    """

    name: str
    top: dict[int, Figure]
    macro: float | None = None
    median_km: Figure


class Confusion(Strict):
    """Photos of one country that were taken for another's."""

    true: str
    answered: str
    n: int


class Bin(Strict):
    """Rows of about the same confidence.

    Attributes:
        confidence: Their mean, in percent.
        accuracy: Percent that is right.
    """

    confidence: float
    accuracy: Figure


class Answered(Strict):
    """What comes of answering the surest rows alone.

    Attributes:
        coverage: Share of the rows that is answered, in percent.
        confidence: The least that is.
        accuracy: Percent of these that is right.
        median_km: Of their errors.
    """

    coverage: float
    confidence: float
    accuracy: float | None
    median_km: float | None


class Reach(Strict):
    """How often the truth lies in the caps around the first candidates.

    Attributes:
        radius_km: Of each cap.
        candidates: How many.
        area_km2: Of the caps; where they overlap, they cover less.
        recall: Percent of the rows with coordinates.
    """

    radius_km: float
    candidates: int
    area_km2: float
    recall: float


class Restated(Strict):
    """The distances on one benchmark as other projects' code measures them: by convention and metric.

    Attributes:
        ours: Of the variant.
        majority: Of always answering the most frequent class.
    """

    ours: dict[str, dict[str, Figure]]
    majority: dict[str, dict[str, Figure]]


class Details(Strict):
    """All of that on one benchmark."""

    continents: list[Region]
    four_groups: list[Region]
    countries: list[Region]
    confusions: list[Confusion]
    reliability: list[Bin]
    selective: list[Answered]
    risk_coverage_area: float | None = Field(description="mean error rate, percent, over all coverages; less is better")
    recall_area: list[Reach]


def details(told: Told, groups: Groups, ks: Sequence[int], thresholds_km: Sequence[float]) -> Details:
    """Everything about N rows.

    Args:
        told: What became of them.
        groups: Which belong together.
        ks: The k of top-k.
        thresholds_km: Radii of caps.
    """
    names = told.places.continents
    continent = told.places.continent_of[told.outcomes.true_country]
    four_names = sorted(set(FOUR_GROUPS.values()))
    # the last is that of −1
    four = np.array(
        [*(four_names.index(FOUR_GROUPS[name]) if name in FOUR_GROUPS else -1 for name in names), -1], np.int8
    )
    curve, area = selective(told)
    return Details(
        continents=regions(told, groups, names, continent, ks),
        four_groups=regions(told, groups, four_names, four[continent], ks),
        countries=countries(told, ks),
        confusions=confusions(told),
        reliability=reliability(told, groups),
        selective=curve,
        risk_coverage_area=area,
        recall_area=recall_area(told, thresholds_km),
    )


def figure(sample: Sample, groups: Groups, percentage: bool = True) -> Figure:
    """A figure with its interval."""
    n = int(sample.told.sum())
    if not n:
        return Figure(n=0, value=None)
    ends = bootstrap.interval(sample.draws(groups), groups, sample.told, percentage)
    return Figure(n=n, value=sample.figure, low=ends[0] if ends else None, high=ends[1] if ends else None)


def regions(told: Told, groups: Groups, names: Sequence[str], at: np.ndarray, ks: Sequence[int]) -> list[Region]:
    """The regions that rows are in, by their positions (N,) among the names, −1 for none; in the order of the names."""
    ranks, errors = told.country_ranks, told.errors_km
    found = []
    for position, name in enumerate(names):  # of continents there are seven
        here = at == position
        if not here.any():
            continue
        top = {k: figure(Sample(100 * np.where(here, first(ranks, k), np.nan)), groups) for k in ks}
        macro = Sample(100 * np.where(here, first(ranks, 1), np.nan), "macro", told.true_countries).figure
        median = figure(Sample(np.where(here, errors, np.nan), "median"), groups, percentage=False)
        found.append(Region(name=name, top=top, macro=None if np.isnan(macro) else macro, median_km=median))
    return found


def countries(told: Told, ks: Sequence[int]) -> list[Region]:
    """Recall of each true country, the highest first; without intervals, which few rows allow."""
    known = told.outcomes.true_country >= 0
    at, count = told.outcomes.true_country[known], len(told.places.ids)
    ranks, errors = told.country_ranks[known], told.errors_km[known]
    counts = np.bincount(at, minlength=count)
    recall = {k: np.bincount(at, first(ranks, k), count) for k in ks}
    located = np.bincount(at, ~np.isnan(errors), count)
    ordered = errors[np.argsort(at, kind="stable")]
    ends = np.cumsum(counts)
    found = [
        Region(
            name=told.places.ids[i],
            top={k: Figure(n=int(counts[i]), value=float(100 * recall[k][i] / counts[i])) for k in ks},
            median_km=Figure(n=int(located[i]), value=_median(ordered[ends[i] - counts[i] : ends[i]])),
        )
        for i in np.flatnonzero(counts)
    ]
    least = min(ks)
    return sorted(found, key=lambda region: (-(region.top[least].value or 0.0), region.name))


def _median(errors: np.ndarray) -> float | None:
    errors = errors[~np.isnan(errors)]
    return float(np.median(errors)) if len(errors) else None


def confusions(told: Told) -> list[Confusion]:
    """The pairs of countries that are confused most often; each way counts apart."""
    true, answered, ids = told.outcomes.true_country, told.outcomes.country, told.places.ids
    wrong = (true >= 0) & (answered >= 0) & (true != answered)
    pairs, counts = np.unique(true[wrong].astype(np.int64) * len(ids) + answered[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:PAIRS]
    return [
        Confusion(true=ids[pair // len(ids)], answered=ids[pair % len(ids)], n=int(n))
        for pair, n in zip(pairs[order], counts[order], strict=True)
    ]


def reliability(told: Told, groups: Groups) -> list[Bin]:
    """Accuracy by confidence, in the bins of the calibration error."""
    bins = told.confidence_bins
    right = 100.0 * (told.outcomes.ranks == 0)
    found = []
    for at in np.unique(bins[bins >= 0]):
        here = bins == at
        confidence = float(100 * told.outcomes.confidence[here].astype(np.float64).mean())
        accuracy = figure(Sample(np.where(here, right, np.nan)), groups)
        found.append(Bin(confidence=confidence, accuracy=accuracy))
    return found


def selective(told: Told) -> tuple[list[Answered], float | None]:
    """Accuracy where the least sure rows are left out (El-Yaniv and Wiener 2010), and the area under the risk.

    Rows of equal confidence are answered together: a coverage takes in all that are as sure as its last one.
    """
    classed = told.outcomes.classed
    confidence = told.outcomes.confidence[classed]
    n = len(confidence)
    if not n:
        return [], None
    order = np.argsort(-confidence, kind="stable")
    confidence, errors = confidence[order], told.errors_km[classed][order]
    right = np.cumsum(told.outcomes.ranks[classed][order] == 0)
    last = np.searchsorted(-confidence, -confidence, side="right")  # rows at least as sure as each
    found = []
    for share in SHARES:
        kept = int(last[max(0, int(np.ceil(share * n)) - 1)])
        accuracy = float(100 * right[kept - 1] / kept)
        found.append(
            Answered(
                coverage=100 * kept / n,
                confidence=float(confidence[kept - 1]),
                accuracy=accuracy,
                median_km=_median(errors[:kept]),
            )
        )
    return found, float(100 * (1 - right[last - 1] / last).mean())


def recall_area(told: Told, thresholds_km: Sequence[float]) -> list[Reach]:
    """Recall against the area that is searched: caps around the first candidates."""
    within = told.outcomes.candidate_within
    placed = told.outcomes.placed
    if not placed.any():
        return []
    found = []
    most = told.outcomes.candidates
    for at, km in enumerate(thresholds_km):
        hits = np.bincount(within[placed, at][within[placed, at] >= 0], minlength=most)[:most]
        cap = 2 * np.pi * EARTH_KM**2 * (1 - np.cos(min(km / EARTH_KM, np.pi)))
        recall = 100 * np.cumsum(hits) / int(placed.sum())
        found += [
            Reach(radius_km=float(km), candidates=k, area_km2=float(k * cap), recall=float(recall[k - 1]))
            for k in sorted({1, 2, 3, 5, most} & set(range(1, most + 1)))
        ]
    return found


def conventions(told: Told, groups: Groups, thresholds_km: Sequence[float]) -> dict[str, dict[str, Figure]]:
    """Distances restated as other projects' code measures them: by convention and metric, figure and interval."""
    found: dict[str, dict[str, Figure]] = {}
    for convention, names in alike().items():
        other = Told(told.outcomes, told.places, convention)
        some = scoring.samples(other, (), thresholds_km, DISTANCES)
        figures = {metric: figure(sample, groups, percentage=metric.startswith("within_")) for metric, sample in some}
        found |= dict.fromkeys(names, figures)
    return found
