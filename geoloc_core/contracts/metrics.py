"""The metrics: what each is called, where it stands in a table, which way it goes, and how it is measured.

All that computes, prints, compares or chooses by a metric asks here: a new one is an entry of this module.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from geoloc_core.contracts.facts import UNITS

RIGHT, WITHIN, ERROR, POINTS = "right class, %", "photos within, %", "error, km", "points"
TOLD_ERROR, TOLD_RIGHT = "error of what else is told", "right in what else is told, %"
COUNTS = ("n", "located", "published")
"""What stands beside the metrics: rows scored, those of them with coordinates, and rows published."""


class Measured(Protocol):
    """What became of some rows, as far as it can be told."""

    @property
    def ranks(self) -> np.ndarray:
        """(R,) where the true class stands, from 0, of rows whose class can be told; −1 where it is no class."""

    @property
    def countries(self) -> np.ndarray:
        """(S,) bool, whether the country is right, of rows whose country can be told."""

    @property
    def errors_km(self) -> np.ndarray:
        """(T,) of rows with coordinates."""

    def within(self, km: float) -> np.ndarray:
        """(T,) bool, whether each error counts as within a distance."""

    def points(self) -> np.ndarray:
        """(T,) that the game gives for each error."""


def percent(hits: np.ndarray) -> float:
    """Share of (N,) booleans that hold, in percent; of none, not a number."""
    return 100.0 * int(np.count_nonzero(hits)) / len(hits) if len(hits) else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


@dataclass(frozen=True)
class Column:
    """A metric as a column.

    Attributes:
        name: In files and parameters, such as ``within_750km``.
        group: What stands above it together with its neighbours.
        head: What stands above it.
        order: Where it stands.
        measure: Its value; not a number where no row can be measured.
    """

    name: str
    group: str
    head: str
    order: tuple[int, float]
    measure: Callable[[Measured], float] = field(compare=False)

    @property
    def falling(self) -> bool:
        """Whether smaller is better: errors are, shares and points are not."""
        return self.group in (ERROR, TOLD_ERROR)

    @property
    def format(self) -> str:
        """How a figure is written: one decimal for percent, whole kilometres and points."""
        if self.group == TOLD_ERROR and not self.head.endswith((" m", "km²")):
            return ".2f"
        return ".1f" if self.group in (RIGHT, WITHIN, TOLD_RIGHT) else ",.0f"

    @property
    def label(self) -> str:
        """The head where there is no group above it."""
        return f"≤{self.head}" if self.group == WITHIN else self.head + (" km" if self.group == ERROR else "")

    def phrase(self, value: float) -> str:
        """A figure in words."""
        if self.group == TOLD_ERROR:
            quantity, _, unit = self.head.partition(", ")
            return f"{quantity} error {self.show(value)} {unit}"
        if self.falling:
            return f"{self.head} error {self.show(value)} km"
        if self.group == POINTS:
            return f"{self.show(value)} {self.head} points"
        if self.group == TOLD_RIGHT:
            return f"{self.show(value)} % with the right {self.head}"
        what = f"of photos within {self.head}" if self.group == WITHIN else f"with the right class ({self.head})"
        return f"{self.show(value)} % {what}"

    def show(self, value: float | None) -> str:
        """A figure as the papers print it: one decimal for percent, whole kilometres and points."""
        return "–" if value is None else format(value, self.format)


def top_name(k: int) -> str:
    """The name of the top-k score."""
    return "accuracy" if k == 1 else f"top_{k}"


def within_name(km: float) -> str:
    """The name of the share within so many kilometres."""
    return f"within_{km:g}km"


FIXED = {
    found.name: found
    for found in (
        Column("accuracy", RIGHT, "top-1", (0, 1), lambda met: percent(met.ranks == 0)),
        Column("country_accuracy", RIGHT, "country", (1, 0), lambda met: percent(met.countries)),
        Column("mean_km", ERROR, "mean", (3, 0), lambda met: _mean(met.errors_km)),
        Column("median_km", ERROR, "median", (3, 1), lambda met: _median(met.errors_km)),
        Column("geoguessr", POINTS, "GeoGuessr", (4, 0), lambda met: _mean(met.points())),
    )
}
"""The metrics without a number in their name."""


def _told(name: str, group: str, head: str, place: int) -> Column:
    return Column(name, group, head, (5, place), lambda met: float("nan"))


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


def column(name: str) -> Column | None:
    """The column of a metric; None where there is no such metric."""
    if match := re.fullmatch(r"top_(\d+)", name):
        return _top(name, int(match[1]))
    if match := re.fullmatch(r"within_(\d+(?:\.\d+)?(?:e[+-]\d+)?)km", name):
        return _within(name, float(match[1]))
    return FIXED.get(name) or AUXILIARY.get(name)


def _top(name: str, k: int) -> Column:
    return Column(name, RIGHT, f"top-{k}", (0, k), lambda met: percent((met.ranks >= 0) & (met.ranks < k)))


def _within(name: str, km: float) -> Column:
    return Column(name, WITHIN, f"{km:,g} km", (2, km), lambda met: percent(met.within(km)))


def lower_is_better(name: str) -> bool:
    """Whether a smaller score wins."""
    found = column(name)
    return found is not None and found.falling


def names(top_k: Iterable[int], thresholds_km: Iterable[float]) -> list[str]:
    """All metrics that are computed, in the order of the tables."""
    made = {*FIXED, *map(top_name, top_k), *map(within_name, thresholds_km)}
    return sorted(made, key=lambda name: column(name).order)  # type: ignore[union-attr]


def rounded(name: str, value: float) -> float | int:
    """A score as people read it: counts whole, percent to two decimals, kilometres and points to one."""
    if name in COUNTS:
        return int(value)
    found = column(name.removeprefix("majority_"))
    return round(value, 1 if found and found.group in (ERROR, POINTS) else 2)
