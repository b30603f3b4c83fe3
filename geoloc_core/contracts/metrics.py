"""The metrics, by name: what each is called, where it stands in a table, and which way it goes.

All that prints, compares or chooses by a metric asks here; :mod:`geoloc_core.evaluation.scoring` computes them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

RIGHT, WITHIN, ERROR, POINTS = "right class, %", "photos within, %", "error, km", "points"
COUNTS = ("n", "located", "published")
"""What stands beside the metrics: rows scored, those of them with coordinates, and rows published."""


@dataclass(frozen=True)
class Column:
    """A metric as a column.

    Attributes:
        name: In files and parameters, such as ``within_750km``.
        group: What stands above it together with its neighbours.
        head: What stands above it.
        order: Where it stands.
    """

    name: str
    group: str
    head: str
    order: tuple[int, float]

    @property
    def falling(self) -> bool:
        """Whether smaller is better: errors are, shares and points are not."""
        return self.group == ERROR

    @property
    def label(self) -> str:
        """The head where there is no group above it."""
        return f"≤{self.head}" if self.group == WITHIN else self.head + (" km" if self.falling else "")

    def phrase(self, value: float) -> str:
        """A figure in words."""
        if self.falling:
            return f"{self.head} error {self.show(value)} km"
        if self.group == POINTS:
            return f"{self.show(value)} {self.head} points"
        what = f"of photos within {self.head}" if self.group == WITHIN else f"with the right class ({self.head})"
        return f"{self.show(value)} % {what}"

    def show(self, value: float | None) -> str:
        """A figure as the papers print it: one decimal for percent, whole kilometres and points."""
        return "–" if value is None else f"{value:.1f}" if self.group in (RIGHT, WITHIN) else f"{value:,.0f}"


def top_name(k: int) -> str:
    """The name of the top-k score."""
    return "accuracy" if k == 1 else f"top_{k}"


def within_name(km: float) -> str:
    """The name of the share within so many kilometres."""
    return f"within_{km:g}km"


FIXED = {
    found.name: found
    for found in (
        Column("accuracy", RIGHT, "top-1", (0, 1)),
        Column("country_accuracy", RIGHT, "country", (1, 0)),
        Column("mean_km", ERROR, "mean", (3, 0)),
        Column("median_km", ERROR, "median", (3, 1)),
        Column("geoguessr", POINTS, "GeoGuessr", (4, 0)),
    )
}
"""The metrics without a number in their name."""


def column(name: str) -> Column | None:
    """The column of a metric; None where there is no such metric."""
    if match := re.fullmatch(r"top_(\d+)", name):
        return Column(name, RIGHT, f"top-{match[1]}", (0, int(match[1])))
    if match := re.fullmatch(r"within_(\d+(?:\.\d+)?(?:e[+-]\d+)?)km", name):
        return Column(name, WITHIN, f"{float(match[1]):,g} km", (2, float(match[1])))
    return FIXED.get(name)


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
