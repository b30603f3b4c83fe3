"""The leaderboard as data: sections of rows, all formats are drawn from it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from geoloc_core.contracts.metrics import COUNTRY_LEVEL, COUNTS, Column, column, lower_is_better, rounded
from geoloc_core.errors import UserError
from geoloc_core.evaluation import bootstrap, published
from geoloc_core.evaluation.published import Tables
from geoloc_core.params import Profile
from geoloc_core.plugins import Strict
from geoloc_core.sets import Split

HELD_OUT = (Split.VALIDATION, Split.TEST)
"""Splits of a variant's own corpus that it is scored on, by the names of benchmarks."""
BANNER = "Demo: rendered photos. Not a result on real photos; the paper's numbers stand beside only to show the table."


Draws = Callable[[str, str, str], np.ndarray]
"""The bootstrap's draws of a variant, a benchmark and a metric."""
NO_PAPERS = Tables(tables=())
OVER_MAJORITY = "accuracy"
"""The metric in which a variant has to beat always answering its most frequent class."""


class Gain(Strict):
    """A paired difference on the same photos; positive is better, whichever way its metric goes.

    Attributes:
        value: By how much.
        low: End of the 95 % interval; None where nobody can tell.
        high: The other end.
        p: Of as large a difference if there were none.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None

    @property
    def sure(self) -> bool:
        """Whether all of the interval is on the better side."""
        return self.low is not None and self.low > 0


class Comparison(Gain):
    """How far the best of a section is ahead of another variant, on the same photos.

    Attributes:
        variant: The best one.
        other: The variant that it is compared with.
        metric: In what.
        p_corrected: ``p``, corrected for how many were compared (Holm).
    """

    variant: str
    other: str
    metric: str
    p_corrected: float | None


class Interval(Strict):
    """The 95 % interval of a figure.

    Attributes:
        low: One end.
        high: The other end.
        widening: How many times as wide as if each row were independent; None where that is not known.
    """

    low: float
    high: float
    widening: float | None = None


class Spread(Strict):
    """How far a figure spreads over trainings with different seeds.

    Attributes:
        mean: Of all of them.
        sd: Standard deviation, with one less than trainings below.
        trainings: How many.
    """

    mean: float
    sd: float
    trainings: int


class Clean(Strict):
    """The rows that share nothing with what a model has learned from: no figures where all are such.

    Attributes:
        n: How many.
        leaked: How many others.
        figures: By metric.
        intervals: By metric, both ends.
    """

    n: int
    leaked: int
    figures: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None]


class Row(Strict):
    """One line of a table.

    Attributes:
        name: The variant, or the baseline.
        baseline: Whether it is what always answering the most frequent classes scores.
        family: Model family.
        encoders: What it looks at photos with; of an ensemble, its members.
        labels: Kind of its label space.
        parameters: Numbers in the model's own weights; None where it has none.
        values: Our figures by metric.
        intervals: Of these.
        spreads: Of these, where it was trained with several seeds; the figures are those of the first.
        over_majority: How much better than always answering the most frequent class, in the share of right classes.
        beats_majority: Whether it is by more than its 95 % interval; None where nobody can tell.
        clean: The figures without the rows that leak into what it has learned from; None where nobody has looked.
        paper: The paper's figures by metric.
        source: Where the paper prints them.
    """

    name: str
    baseline: bool = False
    family: str = ""
    encoders: tuple[str, ...] = ()
    labels: str
    parameters: int | None = None
    values: dict[str, float]
    intervals: dict[str, Interval] = Field(default_factory=dict)
    spreads: dict[str, Spread] = Field(default_factory=dict)
    over_majority: Gain | None = None
    beats_majority: bool | None = None
    clean: Clean | None = None
    paper: dict[str, float] = Field(default_factory=dict)
    source: str = ""


class Groups(Strict):
    """How many groups of rows there are, that are not independent within, and how many rows the largest has."""

    count: int
    largest: int


class Section(Strict):
    """One benchmark: n of the ``published`` rows were scored, by every variant alike.

    Attributes:
        name: The benchmark, or the split.
        corpus: Whose photos they are.
        limited: Which photos of a split they are, where the variants learn some countries alone, or answer places
            instead of photos; empty for all photos.
        n: Rows scored.
        published: Rows that there are.
        groups: Of the rows that were scored.
        selected: Whether the best variant was selected on it: its figures here are then too good to be reported.
        rows: The best first.
        comparisons: The best with each of the others.
    """

    name: str
    corpus: str
    limited: str = ""
    n: int
    published: int
    groups: Groups
    selected: bool
    rows: list[Row]
    comparisons: list[Comparison] = Field(default_factory=list)

    @property
    def title(self) -> str:
        """What stands above the table."""
        return self.name if self.name == self.corpus else f"{self.name} split of {self.corpus}{self.limited}"

    @property
    def count(self) -> str:
        """How many rows the figures stand on, and how sure they are."""
        parts = [f"{self.n:,} of {self.published:,} published rows"]
        if self.groups.count < self.n:
            parts.append(f"in {self.groups.count:,} groups, the largest of {self.groups.largest:,}")
            if (wider := self.widening()) is not None:
                parts.append(f"intervals {wider:.1f} times as wide as of independent rows")
        return "; ".join([*parts, *(["variants were selected on these"] if self.selected else [])])

    def widening(self) -> float | None:
        """How many times as wide the first variant's interval of right classes is."""
        of = [row.intervals[OVER_MAJORITY] for row in self.rows if OVER_MAJORITY in row.intervals]
        return next((found.widening for found in of if found.widening is not None), None)

    def comparison(self, row: Row) -> Comparison | None:
        """That of the best with a row."""
        return next((found for found in self.comparisons if found.other == row.name and not row.baseline), None)

    def columns(self) -> list[Column]:
        """The metrics that any row has, in the order of the field's tables."""
        names = {name for row in self.rows for name in (*row.values, *row.paper)}
        if all(row.labels == "country" for row in self.rows):
            names = {name for name in names if not COUNTRY_LEVEL.fullmatch(name)}
        return sorted(filter(None, map(column, names)), key=lambda found: found.order)

    def peers(self, found: Column, row: Row) -> list[float]:
        """Our figures that a row's compares with: a right class means another thing in another label space."""
        rows = [other for other in self.rows if found.shared or other.labels == row.labels]
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
    parameters: int | None
    majority: Majority
    convention: str
    demo: bool
    sha256: dict[str, str]
    benchmarks: dict[str, dict[str, int | float | None]]
    groups: dict[str, Groups]
    intervals: dict[str, dict[str, Interval | None]]
    over_majority: dict[str, dict[str, Gain | None]]
    clean: dict[str, Clean | None]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for name, figures in self.benchmarks.items():
            if name not in self.sha256 or not figures.keys() >= {"n", "published"}:
                raise ValueError(f"benchmarks.{name}: no sha256, n or published")
            if any(name not in part for part in (self.groups, self.intervals, self.over_majority, self.clean)):
                raise ValueError(f"benchmarks.{name}: no groups, intervals, over_majority or clean")
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
        """The variants that stand for rows of each paper, by the paper and its tables."""
        tables: dict[str, list[str]] = {}
        names: dict[str, dict[str, None]] = {}
        for row in (row for section in self.sections for row in section.rows if row.source):
            for source, paper in published.papers_of(row.source.split("; ")).items():
                tables.setdefault(paper, []).append(source)
                names.setdefault(paper, {})[row.name] = None
        return {published.cited(found): list(names[paper]) for paper, found in tables.items()}


def build(
    profile: Profile,
    reports: dict[str, dict[str, Any]],
    draws: Draws | None = None,
    papers: Tables = NO_PAPERS,
) -> Board:
    """The leaderboard of a profile.

    Args:
        profile: Says what makes a variant the best.
        reports: Per variant, its ``scores.json``, in the profile's order.
        draws: The bootstrap's draws, by which variants are compared; without them, they are not.
        papers: What is printed beside our figures.

    Raises:
        UserError: There is nothing to compare, scores disagree, or the deciding metric is unknown.
    """
    if not reports:
        raise UserError("variants: none in params.yaml; expected at least one to compare")
    again = {name: [reports[other] for other in others if other in reports] for name, others in profile.repeats.items()}
    repeated = {other for others in profile.repeats.values() for other in others}
    reports = {name: report for name, report in reports.items() if name not in repeated}
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
    places = {place: found for whole, mixed in places.items() for place, found in _by_unit(profile, whole, mixed)}
    first = [profile.registry.benchmark, *profile.benchmarks]
    order = sorted(places, key=lambda place: first.index(place[0]) if place[0] in first else len(first))
    return Board(
        banner=BANNER if profile.demo else "",
        convention=next(iter(reports.values()))["convention"],
        best=best,
        sections=[_section(profile, *place, places[place], again, draws, papers) for place in order],
    )


def _by_unit(
    profile: Profile, place: tuple[str, str, str], reports: dict[str, dict[str, Any]]
) -> Iterator[tuple[tuple[str, str, str], dict[str, dict[str, Any]]]]:
    """The reports of a table, and apart those on places of several photos, where others are on the photos."""
    name, corpus, limited = place
    photos = {report["sha256"][name] for variant, report in reports.items() if profile.unit(variant) == "photo"}
    apart = {
        variant: report
        for variant, report in reports.items()
        if photos and profile.unit(variant) == "place" and report["sha256"][name] not in photos
    }
    yield place, {variant: report for variant, report in reports.items() if variant not in apart}
    if apart:
        yield (name, corpus, f"{limited}, place by place"), apart


def _limited(countries: tuple[str, ...] | int | None) -> str:
    """What a variant adds to the title of its split, where others see other photos of it."""
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


def _section(
    profile: Profile,
    name: str,
    corpus: str,
    limited: str,
    reports: dict[str, dict[str, Any]],
    again: dict[str, list[dict[str, Any]]],
    draws: Draws | None,
    papers: Tables,
) -> Section:
    _check_same_photos(name, reports)
    figures = {variant: report["benchmarks"][name] for variant, report in reports.items()}
    metric = profile.registry.metric
    worst = float("inf") if lower_is_better(metric) else float("-inf")
    ranked = sorted(
        figures,
        key=lambda variant: worst if (value := figures[variant][metric]) is None else value,
        reverse=not lower_is_better(metric),
    )
    rows = [_row(papers, variant, name, reports[variant], again.get(variant, [])) for variant in ranked]
    counts = {key: figures[ranked[0]][key] for key in ("n", "published")}
    return Section(
        name=name,
        corpus=corpus,
        limited=limited,
        groups=reports[ranked[0]]["groups"][name],
        selected=name == profile.registry.benchmark,
        rows=rows + _baselines(name, reports.values()),
        comparisons=_comparisons(name, metric, {variant: reports[variant] for variant in ranked}, draws),
        **counts,
    )


def _comparisons(name: str, metric: str, reports: dict[str, dict[str, Any]], draws: Draws | None) -> list[Comparison]:
    """The best of a section with each other variant; in countries where not all have what decides."""
    if draws is None:
        return []
    figures = {variant: report["benchmarks"][name] for variant, report in reports.items()}
    known = [m for m in (metric, "country_accuracy") if all(values.get(m) is not None for values in figures.values())]
    if not known:
        return []
    found = column(known[0])
    assert found is not None
    best = max(figures, key=lambda variant: found.improvement(figures[variant][found.name]))
    ours, sign = draws(best, name, found.name), found.improvement(1.0)
    count = reports[best]["groups"][name]["count"]
    gains = {
        other: bootstrap.difference(
            sign * ours,
            sign * draws(other, name, found.name),
            sign * (figures[best][found.name] - figures[other][found.name]),
            count,
        )
        for other in figures
        if other != best
    }
    corrected = bootstrap.holm([gain.p for gain in gains.values()])
    return [
        Comparison(variant=best, other=other, metric=found.name, p_corrected=p, **vars(gain))
        for (other, gain), p in zip(gains.items(), corrected, strict=True)
    ]


def _row(papers: Tables, variant: str, name: str, report: dict[str, Any], again: list[dict[str, Any]]) -> Row:
    printed, source = papers.beside(variant, name)
    gain = report["over_majority"][name].get(OVER_MAJORITY)
    return Row(
        name=variant,
        family=report["family"],
        encoders=report["encoders"],
        labels=report["labels"],
        parameters=report["parameters"],
        values=_values(report["benchmarks"][name]),
        intervals={metric: found for metric, found in report["intervals"][name].items() if found is not None},
        spreads=_spreads([found["benchmarks"][name] for found in (report, *again)]) if again else {},
        over_majority=gain,
        beats_majority=None if gain is None or gain["low"] is None else gain["low"] > 0,
        clean=report["clean"][name],
        paper=printed,
        source=source,
    )


def _spreads(trainings: list[dict[str, Any]]) -> dict[str, Spread]:
    """Of the figures that a table has, those that all trainings have."""
    found = {}
    for metric in _values(trainings[0]):
        values = [value for figures in trainings if (value := figures.get(metric)) is not None]
        if len(values) == len(trainings):
            found[metric] = Spread(mean=float(np.mean(values)), sd=float(np.std(values, ddof=1)), trainings=len(values))
    return found


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
