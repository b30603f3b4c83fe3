"""The metrics: what each is called, where it stands in a table, which way it goes, and what it measures of a row.

All that computes, prints, compares or chooses by a metric asks here: a new one is an entry of this module. A metric
says what it measures of each row and what is made of that (a mean, a median …), so that whatever is done with figures,
such as intervals and paired tests, is done with all of them alike.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from geoloc_core.contracts.facts import UNITS

RIGHT, WITHIN, ERROR, POINTS, BELIEF = "right class, %", "photos within, %", "error, km", "points", "probabilities"
DISTANCES = (WITHIN, ERROR, POINTS)
TOLD_ERROR, TOLD_RIGHT = "error of what else is told", "right in what else is told, %"
COUNTS = ("n", "located", "published")
"""What stands beside the metrics: rows scored, those of them with coordinates, and rows published."""

DENSITY = "density_nll"
"""The metric of models that have a density over the sphere."""

Statistic = Literal["mean", "median", "macro", "gap"]
"""What is made of the values of rows: their mean, their median, the mean over the strata of each one's mean, or the
mean over rows of how far each stratum's mean is from zero."""
Values = Callable[["Measured"], np.ndarray]


class Measured(Protocol):
    """What became of N rows, as far as it can be told."""

    @property
    def ranks(self) -> np.ndarray:
        """(N,) where the true class stands, from 0; −1 where it is none of the model's; NaN where nobody can tell."""

    @property
    def country_ranks(self) -> np.ndarray:
        """(N,) where the true country stands among the countries of the candidates; −1 and NaN as above."""

    @property
    def subdivision_ranks(self) -> np.ndarray:
        """(N,) the same of subdivisions; NaN of all where the model does not name any."""

    @property
    def continents(self) -> np.ndarray:
        """(N,) 1 where the continent is right, 0 where it is not; NaN where nobody can tell."""

    @property
    def true_countries(self) -> np.ndarray:
        """(N,) number of the true country; −1 where unknown."""

    @property
    def errors_km(self) -> np.ndarray:
        """(N,) NaN without coordinates."""

    @property
    def surprise(self) -> np.ndarray:
        """(N,) −log of the true class' probability; NaN where it is none of the model's."""

    @property
    def density_surprise(self) -> np.ndarray:
        """(N,) −log of the density at the true place, per steradian; NaN where there is none, or no coordinates."""

    @property
    def overconfidence(self) -> np.ndarray:
        """(N,) the first class' probability, less 1 where it is right; NaN where nobody can tell."""

    @property
    def confidence_bins(self) -> np.ndarray:
        """(N,) number of the bin of the first class' probability; −1 where nobody can tell whether it is right."""

    def within(self, km: float) -> np.ndarray:
        """(N,) 1 where the error counts as within a distance, 0 where not; NaN without coordinates."""

    def points(self) -> np.ndarray:
        """(N,) that the game gives for each error; NaN without coordinates."""


@dataclass(frozen=True)
class Column:
    """A metric as a column.

    Attributes:
        name: In files and parameters, such as ``within_750km``.
        group: What stands above it together with its neighbours.
        head: What stands above it.
        order: Where it stands.
        values: What it measures of N rows, (N,); NaN where it cannot be told of a row.
        statistic: What is made of them.
        strata: What the statistic goes by, (N,) numbers from 0, −1 for none.
        shared: Whether it compares across label spaces.
    """

    name: str
    group: str
    head: str
    order: tuple[int, float]
    values: Values = field(compare=False)
    statistic: Statistic = "mean"
    strata: Values | None = field(default=None, compare=False)
    shared: bool = True

    @property
    def falling(self) -> bool:
        """Whether smaller is better: errors are, shares and points are not."""
        return self.group in (ERROR, BELIEF, TOLD_ERROR)

    @property
    def is_distance(self) -> bool:
        """Whether it depends on how distances are measured."""
        return self.group in DISTANCES

    @property
    def percentage(self) -> bool:
        """Whether it is a share of rows, in percent."""
        return self.group in (RIGHT, WITHIN, TOLD_RIGHT)

    @property
    def format(self) -> str:
        """How a figure is written: one decimal for percent, whole kilometres and points."""
        if self.name in ("nll", DENSITY) or (self.group == TOLD_ERROR and not self.head.endswith((" m", "km²"))):
            return ".2f"
        return ".1f" if self.percentage or self.group == BELIEF else ",.0f"

    @property
    def label(self) -> str:
        """The head where there is no group above it."""
        return f"≤{self.head}" if self.group == WITHIN else self.head + (" km" if self.group == ERROR else "")

    def phrase(self, value: float) -> str:
        """A figure in words."""
        if self.group == TOLD_ERROR:
            quantity, _, unit = self.head.partition(", ")
            return f"{quantity} error {self.show(value)} {unit}"
        if self.group == ERROR:
            return f"{self.head} error {self.show(value)} km"
        if self.group == POINTS:
            return f"{self.show(value)} {self.head} points"
        if self.group == BELIEF:
            return f"{self.head} {self.show(value)}"
        if self.group == TOLD_RIGHT:
            return f"{self.show(value)} % with the right {self.head}"
        what = f"of photos within {self.head}" if self.group == WITHIN else f"with the right class ({self.head})"
        return f"{self.show(value)} % {what}"

    def show(self, value: float | None) -> str:
        """A figure as the papers print it: one decimal for percent, whole kilometres and points."""
        return "–" if value is None else format(value, self.format)

    def improvement(self, difference: float) -> float:
        """A difference with the sign of what is better: positive is."""
        return -difference if self.falling else difference


def top_name(k: int) -> str:
    """The name of the top-k score."""
    return "accuracy" if k == 1 else f"top_{k}"


def within_name(km: float) -> str:
    """The name of the share within so many kilometres."""
    return f"within_{km:g}km"


def _percent(values: np.ndarray) -> np.ndarray:
    return 100 * values


def first(ranks: np.ndarray, k: int) -> np.ndarray:
    """(N,) 1 where a rank is one of the first k, 0 where not, NaN where it is."""
    return np.where(np.isnan(ranks), np.nan, (ranks >= 0) & (ranks < k))


FIXED = {
    found.name: found
    for found in (
        Column("accuracy", RIGHT, "top-1", (0, 1), lambda met: _percent(first(met.ranks, 1)), shared=False),
        Column("country_accuracy", RIGHT, "country", (1, 1), lambda met: _percent(first(met.country_ranks, 1))),
        Column(
            "macro_country",
            RIGHT,
            "country, macro",
            (1, math.inf),  # behind every top-k
            lambda met: _percent(first(met.country_ranks, 1)),
            statistic="macro",
            strata=lambda met: met.true_countries,
        ),
        Column(
            "subdivision_accuracy",
            RIGHT,
            "subdivision",
            (2, 1),
            lambda met: _percent(first(met.subdivision_ranks, 1)),
        ),
        Column("continent_accuracy", RIGHT, "continent", (3, 0), lambda met: _percent(met.continents)),
        Column("mean_km", ERROR, "mean", (5, 0), lambda met: met.errors_km),
        Column("median_km", ERROR, "median", (5, 1), lambda met: met.errors_km, statistic="median"),
        Column("geoguessr", POINTS, "GeoGuessr", (6, 0), lambda met: met.points()),
        Column("nll", BELIEF, "NLL", (7, 0), lambda met: met.surprise, shared=False),
        Column(
            "ece",
            BELIEF,
            "ECE, %",
            (7, 1),
            lambda met: _percent(met.overconfidence),
            statistic="gap",
            strata=lambda met: met.confidence_bins,
            shared=False,
        ),
    )
}
"""The metrics without a number in their name."""
COUNTRY_LEVEL = re.compile(r"country_accuracy|country_top_\d+")
"""What is the same as the right class where the classes are countries."""


def _told(name: str, group: str, head: str, place: int) -> Column:
    return Column(name, group, head, (8, place), lambda met: np.full(len(met.errors_km), np.nan))


AUXILIARY = {
    found.name: found
    for found in (
        *(
            _told(f"{name}_mae", TOLD_ERROR, f"{name.replace('_', ' ')}, {unit}", place)
            for place, (name, unit) in enumerate(UNITS.items())
        ),
        _told("climate_accuracy", TOLD_RIGHT, "climate zone", 10),
        _told("month_accuracy", TOLD_RIGHT, "month", 11),
        _told("season_accuracy", TOLD_RIGHT, "season", 12),
    )
}
"""Those of what models tell beside the place, which :mod:`geoloc_core.evaluation.auxiliary` measures: of the models
that tell it alone."""

OF_DENSITY = Column(DENSITY, BELIEF, "density NLL", (7, 0.5), lambda met: met.density_surprise)
"""That of densities, of the models that have one alone."""


def column(name: str) -> Column | None:
    """The column of a metric; None where there is no such metric."""
    if match := re.fullmatch(r"(|country_|subdivision_)top_(\d+)", name):
        return _top(name, match[1].rstrip("_"), int(match[2]))
    if match := re.fullmatch(r"within_(\d+(?:\.\d+)?(?:e[+-]\d+)?)km", name):
        return _within(name, float(match[1]))
    return OF_DENSITY if name == DENSITY else FIXED.get(name) or AUXILIARY.get(name)


def _top(name: str, level: str, k: int) -> Column:
    if not level:
        return Column(name, RIGHT, f"top-{k}", (0, k), lambda met: _percent(first(met.ranks, k)), shared=False)
    at = 1 if level == "country" else 2
    return Column(
        name, RIGHT, f"{level}, top-{k}", (at, k), lambda met: _percent(first(getattr(met, f"{level}_ranks"), k))
    )


def _within(name: str, km: float) -> Column:
    return Column(name, WITHIN, f"{km:,g} km", (4, km), lambda met: _percent(met.within(km)))


def lower_is_better(name: str) -> bool:
    """Whether a smaller score wins."""
    found = column(name)
    return found is not None and found.falling


def names(top_k: Iterable[int], thresholds_km: Iterable[float]) -> list[str]:
    """All metrics that are computed, in the order of the tables."""
    ks = list(top_k)
    levels = [f"{level}_top_{k}" for level in ("country", "subdivision") for k in ks if k > 1]
    made = {*FIXED, *map(top_name, ks), *levels, *map(within_name, thresholds_km)}
    return sorted(made, key=lambda name: column(name).order)  # type: ignore[union-attr]


def rounded(name: str, value: float) -> float | int:
    """A score as people read it: counts whole, percent to two decimals, kilometres and points to one."""
    if name in COUNTS:
        return int(value)
    found = column(name.removeprefix("majority_"))
    return round(value, 1 if found and found.group in (ERROR, POINTS) else 2)
