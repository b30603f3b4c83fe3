"""The tables of the papers, each cell with ours beside it."""

import statistics
from decimal import Decimal

from geoloc_core.contracts.metrics import column
from geoloc_core.evaluation.details import Figure, Region
from geoloc_core.evaluation.published import COSTS, TOPS, Column, Row, Table, figure
from geoloc_core.evaluation.report.gathered import Gathered
from geoloc_core.evaluation.tables import span, sure
from geoloc_core.report import table as report

ONLY = "only published"
ABSENT = "not trained here"
FEW = "not among the most frequent"
GADM = "gadm"
"""The boundaries whose subdivisions the papers name."""
STYLES = {"parameters": ",.2f", "seconds_per_epoch": ",.1f"}
"""How costs are written."""
AVERAGES = {"mean": statistics.mean, "median": statistics.median}
"""Keys of units that are none."""


def table(gathered: Gathered, printed: Table) -> report.Table:
    """A table of a paper: of each column the paper's figure and ours, and what ours stand on."""
    heads = [report.Column("row")]
    for one in printed.columns:
        heads += [_column(one, "paper", 1), _column(one, "ours", 2)]
    heads += [report.Column("here", "ours", "here"), report.Column("its data", "ours", "its data")]
    return report.Table(
        tuple(heads),
        tuple(_row(gathered, printed, row) for row in printed.rows),
        f"{printed.source}: {printed.caption}",
        f"Theirs: {printed.data}. Ours: {gathered.board.convention}.",
    )


def _column(one: Column, whose: str, rank: int) -> report.Column:
    found = column(one.metric)
    style = found.format if found else STYLES.get(one.metric, ",")
    first = "ascending" if (found and found.falling) or one.metric in COSTS else "descending"
    return report.Column(whose, one.head, f"{one.head}: {whose}", "right", style, first, rank)  # type: ignore[arg-type]


def _row(gathered: Gathered, printed: Table, row: Row) -> report.Row:
    variant = standing(gathered, printed, row)
    cells = [report.Cell(row.name, note=row.note)]
    for text, one in zip(row.cells, printed.columns, strict=True):
        ours = of_units(gathered, printed, row) if printed.kind == "units" else report.Cell()
        if variant is not None:
            ours = _of_variant(gathered, printed, row, one, variant)
        cells += [_printed(text, one), ours]
    return report.Row((*cells, *_here(gathered, printed, row, variant)), "" if _is_here(printed, variant) else "quiet")


def _is_here(printed: Table, variant: str | None) -> bool:
    return printed.kind == "units" or variant is not None


def standing(gathered: Gathered, printed: Table, row: Row) -> str | None:
    """The variant that stands for a row; None where there is none in this profile."""
    return next((name for name in printed.standing(row) if name in gathered.reports), None)


def _printed(text: str, one: Column) -> report.Cell:
    value = figure(text, one)
    return report.Cell(text) if value is None else report.Cell(_number(value), shown=f"{value:,f}")


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _here(gathered: Gathered, printed: Table, row: Row, variant: str | None) -> tuple[report.Cell, report.Cell]:
    """What stands for a row here, and what its figures stand on."""
    if printed.kind == "units":
        counts = gathered.units(printed.corpus, printed.level)
        return report.Cell(printed.corpus), report.Cell(f"{sum(counts.values()):,} photos" if counts else ABSENT)
    wanted = printed.standing(row)
    if variant is None:
        return report.Cell(ABSENT if wanted else ONLY, note=", ".join(wanted)), report.Cell()
    told, note = gathered.reports[variant], gathered.notes[variant]
    on = dict.fromkeys(printed.place(row, one) for one in printed.columns if one.metric not in COSTS)
    scored = [f"{told.benchmarks[name]['n']:,} of {name}" for name in on if name in told.benchmarks]
    learned = f"learned from {sum(note.frequencies):,} photos of {told.corpus}, {told.classes:,} classes"
    parts = [learned, *([f"scored on {', '.join(scored)}"] if scored else [])]
    return report.Cell(report.Link(variant, f"#{anchor(variant)}")), report.Cell("; ".join(parts))


def anchor(variant: str) -> str:
    """Where the report tells all about a variant."""
    return f"variant-{variant}"


def of_units(gathered: Gathered, printed: Table, row: Row) -> report.Cell:
    """Photos of a unit, or the mean or median over units that have any."""
    counts = gathered.units(printed.corpus, printed.level)
    if row.key in AVERAGES:
        return report.Cell(round(AVERAGES[row.key](counts.values())) if counts else None)
    if printed.level == "subdivision" and gathered.project.profile.boundaries.kind != GADM:
        return report.Cell(note="other units")
    return report.Cell(counts.get(row.key, 0) if counts else None)


def _of_variant(gathered: Gathered, printed: Table, row: Row, one: Column, variant: str) -> report.Cell:
    """Our figure of a cell, with its interval."""
    told = gathered.reports[variant]
    if one.metric == "parameters":
        return _parameters(gathered.training(variant).get("trainable_parameters"), told.parameters)
    if one.metric == "seconds_per_epoch":
        seconds = gathered.seconds_per_epoch(variant)
        return report.Cell(seconds) if seconds is not None else report.Cell(note="not trained on this machine")
    place = printed.place(row, one)
    if place not in told.benchmarks:
        return report.Cell(note=f"not scored on {place}")
    if printed.kind == "scores":
        found, row_of = column(one.metric), gathered.row(variant, place)
        return report.Cell(told.benchmarks[place].get(one.metric), interval=sure(found, row_of) if found else "")
    known = gathered.details[variant][place]
    if printed.kind == "pairs":
        pair = set(row.key.split())
        counts = [found.n for found in known.confusions if {found.true, found.answered} == pair]
        return report.Cell(sum(counts)) if counts else report.Cell(note=FEW)
    regions = known.four_groups if printed.kind == "regions" else known.countries
    return _of_region(next((found for found in regions if found.name == row.key), None), one)


def _parameters(trained: int | None, whole: int | None) -> report.Cell:
    """Millions of parameters that are trained, and of all that the model has."""
    if trained is None:
        return report.Cell(note="not noted")
    return report.Cell(trained / 1e6, note="" if whole is None else f"of {whole / 1e6:,.2f}")


def _of_region(region: Region | None, one: Column) -> report.Cell:
    found = region.top.get(TOPS[one.metric]) if region else None
    return report.Cell(note="no photo of it") if found is None or found.value is None else figure_cell(found)


def figure_cell(found: Figure, style: str = ".1f") -> report.Cell:
    """A figure with its interval."""
    return report.Cell(found.value, interval=span(found.low, found.high, style))
