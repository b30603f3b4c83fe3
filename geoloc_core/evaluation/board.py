"""The leaderboard as data: sections of rows, all formats are drawn from it."""

from collections.abc import Iterable
from typing import Any, Self

from pydantic import Field, model_validator

from geoloc_core.contracts.metrics import COUNTS, RIGHT, Column, column, lower_is_better, rounded, within_name
from geoloc_core.errors import UserError
from geoloc_core.params import Profile
from geoloc_core.params.paper import Paper
from geoloc_core.plugins import Strict
from geoloc_core.sets import Split

HELD_OUT = (Split.VALIDATION, Split.TEST)
"""Splits of a variant's own corpus that it is scored on, by the names of benchmarks."""
BANNER = "Demo: rendered photos. Not a result on real photos; the paper's numbers stand beside only to show the table."


class Row(Strict):
    """One line of a table.

    Attributes:
        name: The variant, or the baseline.
        baseline: Whether it is what always answering the most frequent classes scores.
        family: Model family.
        encoders: What it looks at photos with; of an ensemble, its members.
        labels: Kind of its label space.
        values: Our figures by metric.
        paper: The paper's figures by metric.
        source: Where the paper prints them.
    """

    name: str
    baseline: bool = False
    family: str = ""
    encoders: tuple[str, ...] = ()
    labels: str
    values: dict[str, float]
    paper: dict[str, float] = Field(default_factory=dict)
    source: str = ""


class Section(Strict):
    """One benchmark: n of the ``published`` rows were scored, by every variant alike.

    Attributes:
        name: The benchmark, or the split.
        corpus: Whose photos they are.
        limited: Which countries of a split they are of, where the variants learn some alone; empty for all.
        n: Rows scored.
        published: Rows there are.
        rows: Variants and baselines.
    """

    name: str
    corpus: str
    limited: str = ""
    n: int
    published: int
    rows: list[Row]

    @property
    def title(self) -> str:
        """What stands above the table."""
        return self.name if self.name == self.corpus else f"{self.name} split of {self.corpus}{self.limited}"

    @property
    def count(self) -> str:
        """How many rows the figures stand on."""
        return f"{self.n:,} of {self.published:,} published rows"

    def columns(self) -> list[Column]:
        """The metrics that any row has, in the order of the field's tables."""
        names = {name for row in self.rows for name in (*row.values, *row.paper)}
        if all(row.labels == "country" for row in self.rows):
            names.discard("country_accuracy")
        return sorted(filter(None, map(column, names)), key=lambda found: found.order)

    def peers(self, found: Column, row: Row) -> list[float]:
        """Our figures that a row's compares with: a right class means another thing in another label space."""
        shared = found.group != RIGHT or found.name == "country_accuracy"
        rows = [other for other in self.rows if shared or other.labels == row.labels]
        return [other.values[found.name] for other in rows if found.name in other.values]

    def is_best(self, found: Column, row: Row) -> bool:
        """Whether no peer has a better figure than a variant."""
        if row.baseline or found.name not in row.values:
            return False
        return row.values[found.name] == (min if found.falling else max)(self.peers(found, row))


class Majority(Strict):
    """The most frequent class of the training rows."""

    id: str
    name: str


class Report(Strict):
    """The scores of a variant, as ``geoloc score`` writes them: figures by benchmark and metric."""

    variant: str
    family: str
    encoders: tuple[str, ...]
    corpus: str
    labels: str
    classes: int
    majority: Majority
    convention: str
    demo: bool
    sha256: dict[str, str]
    benchmarks: dict[str, dict[str, int | float | None]]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for name, figures in self.benchmarks.items():
            if name not in self.sha256 or not figures.keys() >= {"n", "published"}:
                raise ValueError(f"benchmarks.{name}: no sha256, n or published")
        if len({frozenset(figures) for figures in self.benchmarks.values()}) > 1:
            raise ValueError("benchmarks: not the same metrics on all")
        return self


class Best(Strict):
    """Who wins, and by what rule: the candidate for promotion.

    Attributes:
        variant: The best variant.
        benchmark: Where.
        metric: In what.
        value: How good, in full precision.
        higher_is_better: Which way the metric goes.
        benchmark_sha256: On which photos: values on others do not compare.
    """

    variant: str
    benchmark: str
    metric: str
    value: float
    higher_is_better: bool
    benchmark_sha256: str


class Board(Strict):
    """The whole leaderboard."""

    banner: str
    """What must stand above the tables, or nothing."""
    convention: str
    best: Best
    sections: list[Section] = Field(min_length=1)

    @property
    def sources(self) -> dict[str, list[str]]:
        """The variants that stand for rows of each paper."""
        found: dict[str, list[str]] = {}
        for row in (row for section in self.sections for row in section.rows if row.source):
            names = found.setdefault(row.source, [])
            if row.name not in names:
                names.append(row.name)
        return found


def build(profile: Profile, reports: dict[str, dict[str, Any]]) -> Board:
    """The leaderboard of a profile.

    Args:
        profile: Says what makes a variant the best, and what the papers print.
        reports: Per variant, its ``scores.json``, in the profile's order.

    Raises:
        UserError: There is nothing to compare, scores disagree, or the deciding metric is unknown.
    """
    if not reports:
        raise UserError("variants: none in params.yaml; expected at least one to compare")
    best = _best(profile, reports)
    places: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for variant, report in reports.items():
        for name in (*HELD_OUT, *profile.benchmarks):
            if name not in report["benchmarks"]:
                continue
            held_out = name in HELD_OUT
            corpus = report["corpus"] if held_out else name
            limited = _limited(profile.variants[variant].countries) if held_out else ""
            places.setdefault((name, corpus, limited), {})[variant] = report
    first = [profile.registry.benchmark, *profile.benchmarks]
    order = sorted(places, key=lambda place: first.index(place[0]) if place[0] in first else len(first))
    return Board(
        banner=BANNER if profile.demo else "",
        convention=next(iter(reports.values()))["convention"],
        best=best,
        sections=[_section(profile, *place, places[place]) for place in order],
    )


def _limited(countries: tuple[str, ...] | int | None) -> str:
    """What a variant that learns some countries alone adds to the title of its split: others see other photos."""
    match countries:
        case None:
            return ""
        case int():
            return f", its {countries} most frequent countries"
        case _:
            return f", {', '.join(countries)} alone"


def _best(profile: Profile, reports: dict[str, dict[str, Any]]) -> Best:
    rule = profile.registry
    asked = {variant: report for variant, report in reports.items() if rule.benchmark in report["benchmarks"]}
    if not asked:
        raise UserError(f"registry.benchmark: no variant is scored on {rule.benchmark}; run `geoloc score` again")
    values = {}
    for variant, report in asked.items():
        figures = report["benchmarks"][rule.benchmark]
        if figures.get(rule.metric) is None:
            known = ", ".join(name for name, value in figures.items() if value is not None)
            raise UserError(
                f"registry.metric: {variant} has no {rule.metric!r} on {rule.benchmark}; expected one of: {known}"
            )
        values[variant] = figures[rule.metric]
    _check_same_photos(rule.benchmark, asked)
    falling = lower_is_better(rule.metric)
    best = (min if falling else max)(values, key=lambda variant: values[variant])
    return Best(
        variant=best,
        benchmark=rule.benchmark,
        metric=rule.metric,
        value=values[best],
        higher_is_better=not falling,
        benchmark_sha256=reports[best]["sha256"][rule.benchmark],
    )


def _check_same_photos(name: str, reports: dict[str, dict[str, Any]]) -> None:
    if len({report["sha256"][name] for report in reports.values()}) > 1:
        raise UserError(
            f"{name}: {', '.join(reports)} were scored on different photos and do not compare; "
            f"run `geoloc answer` again, or name a benchmark they share under registry.benchmark"
        )


def _section(profile: Profile, name: str, corpus: str, limited: str, reports: dict[str, dict[str, Any]]) -> Section:
    _check_same_photos(name, reports)
    figures = {variant: report["benchmarks"][name] for variant, report in reports.items()}
    metric = profile.registry.metric
    worst = float("inf") if lower_is_better(metric) else float("-inf")
    ranked = sorted(
        figures,
        key=lambda variant: worst if (value := figures[variant][metric]) is None else value,
        reverse=not lower_is_better(metric),
    )
    rows = [_row(profile, variant, name, reports[variant]) for variant in ranked]
    counts = {key: figures[ranked[0]][key] for key in ("n", "published")}
    return Section(name=name, corpus=corpus, limited=limited, rows=rows + _baselines(name, reports.values()), **counts)


def _row(profile: Profile, variant: str, name: str, report: dict[str, Any]) -> Row:
    paper = profile.papers.get(variant)
    printed = printed_in(paper, name) if paper else {}
    return Row(
        name=variant,
        family=report["family"],
        encoders=report["encoders"],
        labels=report["labels"],
        values=_values(report["benchmarks"][name]),
        paper=printed,
        source=paper.source if paper and printed else "",
    )


def printed_in(paper: Paper, benchmark: str) -> dict[str, float]:
    """The paper's figures by our metrics' names; its validation table belongs to ``validation``."""
    if benchmark == Split.VALIDATION:
        found = {name: getattr(paper, name) for name in ("accuracy", "top_5", "top_10", "mean_km")}
        return {name: value for name, value in found.items() if value is not None}
    printed = paper.benchmarks.get(benchmark, {})
    return {key if isinstance(key, str) else within_name(key): value for key, value in printed.items()}


def _values(figures: dict[str, float], prefix: str = "") -> dict[str, float]:
    """The figures whose metric, after the prefix, has a column or may decide, as people read them."""
    kept = {name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)}
    return {
        name: rounded(name, value)
        for name, value in kept.items()
        if value is not None and name not in COUNTS and not name.startswith("majority_")
    }


def _baselines(name: str, reports: Iterable[dict[str, Any]]) -> list[Row]:
    """One row per label space and most frequent class: variants that share both share the baseline."""
    found = {}
    for report in reports:
        values = _values(report["benchmarks"][name], "majority_")
        row = Row(name=f"always {report['majority']['name']}", baseline=True, labels=report["labels"], values=values)
        found[row.name, row.labels] = row
    return list(found.values())
