"""Model cards: what a version is, how good, where it fails and what it is for, as its description in the registry.

After Mitchell et al. 2019, "Model Cards for Model Reporting": model, intended use, factors, metrics, data, limits.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from geoloc_core import escape, parquet
from geoloc_core.contracts.metrics import WITHIN, Column, column
from geoloc_core.corpora.countries import alpha3, names
from geoloc_core.evaluation import published
from geoloc_core.evaluation.board import Report
from geoloc_core.evaluation.details import Confusion, Region
from geoloc_core.files import read_json
from geoloc_core.project import Project
from geoloc_core.registry.decision import Decision
from geoloc_core.report import render
from geoloc_core.report.table import Cell, Row, Table
from geoloc_core.report.table import Column as Head

DECISIONS = "## Decisions"
"""The heading of the part that grows as decisions are taken."""
SHOWN = ("accuracy", "country_accuracy", "continent_accuracy", "median_km", "ece")
"""Metrics of a card, beside the shares within a distance and the one that decides."""
FEWEST = 5
"""Photos of a country before its recall is told."""
COUNTRIES, PAIRS, LAST, LICENCES = 5, 3, 10, 5
"""How many countries, confusions, decisions and licences are told."""


def model_card(project: Project, variant: str) -> str:
    """The card of a variant, in Markdown, without the decisions about it.

    Raises:
        UserError: Its scores are missing or damaged.
    """
    remedy = f"run `geoloc score {variant}`"
    report: Report = read_json(project.scores(variant) / "scores.json", remedy, Report)
    chosen = project.profile.registry.benchmark
    place = chosen if chosen in report.benchmarks else next(iter(report.benchmarks))
    found = read_json(project.scores(variant) / "details.json", remedy, dict[str, dict[str, Any]])[place]
    regions = [Region.model_validate(region) for region in found["continents"]]
    countries = [Region.model_validate(region) for region in found["countries"]]
    pairs = [Confusion.model_validate(pair) for pair in found["confusions"]]
    return render.document(
        "registry/card.md",
        variant=variant,
        family=report.family,
        corpus=report.corpus,
        classes=f"{report.classes:,} classes ({report.labels})",
        demo=report.demo,
        about=_markup(_about(project, report)),
        convention=report.convention[:1].upper() + report.convention[1:],
        selected=f"Variants were selected on {place}: its figures are too good to be reported.",
        scores=_markup(_scores(project, report)),
        failures=_failures(place, regions, countries, pairs),
        continents=_markup(_continents(place, regions)),
        data=_markup(_data(project, variant)),
        notes=_clean(report),
    )


def with_decisions(card: str, decisions: Sequence[Decision]) -> str:
    """A card, or a description that has one, with what was decided of the version, the last first."""
    lines = [
        f"- {found.at[:10]}, {escape.markdown(found.by)}: {escape.markdown(found.verdict)}"
        for found in decisions[: -LAST - 1 : -1]
    ]
    return "\n".join([card.partition(DECISIONS)[0].rstrip(), "", DECISIONS, "", *lines, ""])


def _markup(table: Table) -> Markup:
    return Markup(render.markdown(table))  # noqa: S704 - it is escaped as it is drawn


def _about(project: Project, report: Report) -> Table:
    facts = {
        "looks at photos with": ", ".join(report.encoders),
        "its own parameters": None if report.parameters is None else f"{report.parameters:,}",
        "stands for": published.tables().source(report.variant),
    }
    rows = tuple(Row.of(name, value) for name, value in facts.items() if value)
    return Table((Head("about it"), Head("")), rows)


def _scores(project: Project, report: Report) -> Table:
    asked = {*SHOWN, project.profile.registry.metric}
    figures = next(iter(report.benchmarks.values()))
    known = [found for found in map(column, figures) if found and (found.name in asked or found.group == WITHIN)]
    columns = sorted(dict.fromkeys(known), key=lambda found: found.order)
    heads = tuple(Head(_head(found), align="right", format=found.format) for found in columns)
    rows = [
        Row.of(name, int(values["n"] or 0), *(_figure(report, name, found) for found in columns))
        for name, values in report.benchmarks.items()
    ]
    return Table((Head("photos of"), Head.of_numbers("n"), *heads), tuple(rows))


def _head(found: Column) -> str:
    return f"{found.label}, %" if found.percentage else found.label


def _figure(report: Report, name: str, found: Column) -> Cell:
    ends = report.intervals[name].get(found.name)
    span = f"{found.show(ends.low)}, {found.show(ends.high)}" if ends else ""
    return Cell(report.benchmarks[name].get(found.name), interval=span)


def _right(region: Region) -> Any:
    return region.top[min(region.top)]


def _continents(place: str, regions: Sequence[Region]) -> Table:
    heads = (Head(f"photos of {place} in"), Head.of_numbers("n"), Head.of_numbers("right country, %", ".1f"))
    rows = [Row.of(region.name, _right(region).n, _with_ends(_right(region))) for region in regions]
    return Table(heads, tuple(rows))


def _with_ends(figure: Any) -> Cell:
    span = "" if figure.low is None else f"{figure.low:.1f}, {figure.high:.1f}"
    return Cell(figure.value, interval=span)


def _failures(
    place: str, regions: Sequence[Region], countries: Sequence[Region], pairs: Sequence[Confusion]
) -> list[str]:
    """The worst continent, the countries with the lowest recall and the most frequent confusions."""
    said = list[str]()
    if told := [(found.value, found.n, region.name) for region in regions if (found := _right(region)).n]:
        value, n, worst = min(told)
        said.append(f"Worst continent: {worst}, {value:.1f} % of {n:,} photos of {place}.")
    often = [region for region in countries if _right(region).n >= FEWEST]
    if lowest := often[: -COUNTRIES - 1 : -1]:
        listed = ", ".join(f"{_named(found.name)} {_right(found).value:.0f} %" for found in lowest)
        said.append(f"Lowest recall of countries with {FEWEST} photos or more: {listed}.")
    if pairs:
        listed = ", ".join(f"{_named(pair.true)} for {_named(pair.answered)} ({pair.n:,})" for pair in pairs[:PAIRS])
        said.append(f"Countries that it takes for others, and how often: {listed}.")
    return said or [f"Of no photo of {place} the country is known."]


def _named(country: str) -> str:
    """A country's name by its alpha-3 code; the code where boundaries name a territory that has none."""
    known = {alpha3()[code]: name for code, name in names().items() if code in alpha3()}
    return known.get(country, country)


def _data(project: Project, variant: str) -> Table:
    rows = [_corpus(project, name) for name in project.profile.learned_from(variant)]
    return Table((Head("learned from"), Head.of_numbers("photos"), Head("licences")), tuple(rows))


def _corpus(project: Project, name: str) -> Row:
    """A corpus, its photos and how often each licence occurs."""
    path = project.corpus(name) / "manifest.parquet"
    if not path.is_file():
        return Row.of(name, None, "not here")
    licences = parquet.read(path, f"run `geoloc ingest {name}`", ["licence"])["licence"]
    counts = Counter({found["values"]: found["counts"] for found in licences.value_counts().to_pylist()})
    shown = [f"{licence or 'none stated'} ({n:,})" for licence, n in counts.most_common(LICENCES)]
    more = [f"{len(counts) - LICENCES:,} more"] if len(counts) > LICENCES else []
    return Row.of(name, len(licences), ", ".join([*shown, *more]))


def _clean(report: Report) -> list[str]:
    return [
        f"{found.leaked:,} photos of {name} share something with what it learned from."
        for name, found in report.clean.items()
        if found is not None and found.leaked
    ]
