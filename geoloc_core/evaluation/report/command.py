"""The stage ``geoloc report``: one page of everything that is known of all variants, and the same as Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePath
from typing import Any

from geoloc_core.contracts.metrics import Column, column
from geoloc_core.evaluation import published, tables
from geoloc_core.evaluation.metrics import alike
from geoloc_core.evaluation.report import charts, papers, variants, world
from geoloc_core.evaluation.report.charts import Plot
from geoloc_core.evaluation.report.gathered import Gathered, gather
from geoloc_core.files import check_folder, replacing_folder, write_json
from geoloc_core.progress import say, track
from geoloc_core.project import Project
from geoloc_core.report import render
from geoloc_core.report.table import Table

NAME = "report"
TEMPLATES = ("evaluation/report/report.md", "evaluation/report/report.html")
"""Of the two files; each stands here in full, since a stage knows its templates by their names."""


@dataclass(frozen=True)
class Restated:
    """A table whose distances are measured as other projects' code does: the first of them, and the table."""

    convention: str
    table: Table


@dataclass(frozen=True)
class Printed:
    """A table of a paper on the page, with its stairs where it is a ladder of which some steps are trained here."""

    anchor: str
    source: str
    table: Table
    ladder: Plot | None
    restated: tuple[Restated, ...]


@dataclass(frozen=True)
class Compared:
    """A section of the leaderboard: its table, and the distances of its variants."""

    anchor: str
    table: Table
    distances: Plot | None
    restated: tuple[Restated, ...]


def report(project: Project) -> None:
    """Write the report.

    Raises:
        UserError: There are no scores or no leaderboard, or something is damaged.
    """
    check_folder(project.report, NAME)
    gathered = gather(project)
    filled = _filled(gathered)
    with replacing_folder(project.report, NAME) as aside:
        aside.mkdir()
        for template in TEMPLATES:
            text = render.document(template, **filled)
            (aside / PurePath(template).name).write_text(text, encoding="utf-8")
        size = (aside / "report.html").stat().st_size
    summary = {
        "variants": len(filled["pages"]),
        "paper_tables": len(filled["papers"]),
        "rows_of_papers": sum(len(one.table.rows) for one in filled["papers"]),
        "rows_trained_here": sum(row.tone == "" for one in filled["papers"] for row in one.table.rows),
    }
    write_json(project.summary(NAME, NAME), summary)
    say(f"report: {project.report / 'report.html'}, {size / 1e6:.1f} MB, opens in any browser without a network")


def _filled(gathered: Gathered) -> dict[str, Any]:
    """All that the templates name."""
    board = gathered.board
    pages = [variants.page(gathered, name) for name in track(list(gathered.reports), "report", unit="variants")]
    conventions = [(names, str(convention)) for convention, names in alike().items()]
    others = {names[0]: gathered.under(names[0]) for names, _ in conventions[1:]}
    compared = [_compared(gathered, others, at) for at in range(len(board.sections))]
    return {
        "conventions": conventions,
        "board": board,
        "mark": gathered.mark,
        "verdict": tables.verdict(board),
        "figure": tables.phrase(board),
        "notes": tables.notes(board, "In small print"),
        "compared": compared,
        "papers": [_printed(gathered, others, one) for one in published.tables().tables],
        "pages": pages,
        "best": next(page for page in pages if page.best),
        "outlines": world.outlines(),
        "made_of": world.outlines().made_of,
        "size": charts.SIZE,
    }


def _compared(gathered: Gathered, others: Mapping[str, Gathered], at: int) -> Compared:
    section = gathered.board.sections[at]
    curves = {row.name: gathered.curve(row.name, section.name) for row in section.rows if not row.baseline}
    known = {name: curve for name, curve in curves.items() if curve is not None}
    plot = charts.distances(f"Photos of {section.title} within a distance", known) if known else None
    boards = ((name, other.board) for name, other in others.items())
    restated = tuple(Restated(name, tables.distances(board, board.sections[at])) for name, board in boards)
    return Compared(f"board-{at + 1}", tables.table(gathered.board, section), plot, restated)


def _printed(gathered: Gathered, others: Mapping[str, Gathered], one: published.Table) -> Printed:
    stairs = _ladder(gathered, one) if one.ladder else None
    depends = one.kind == "scores" and any(found and found.is_distance for found in map(_metric, one.columns))
    restated = tuple(Restated(name, papers.table(other, one)) for name, other in others.items() if depends)
    return Printed(f"paper-{one.id}", one.source, papers.table(gathered, one), stairs, restated)


def _metric(head: published.Column) -> Column | None:
    return column(head.metric)


def _ladder(gathered: Gathered, one: published.Table) -> Plot | None:
    standing = [papers.standing(gathered, one, row) for row in one.rows]
    if len([name for name in standing if name]) < 2:
        return None
    theirs: charts.Stairs = {}
    ours: charts.Stairs = {}
    for at, head in enumerate(one.columns):
        found = column(head.metric)
        name = found.head if found else head.head
        theirs[name] = [_number(published.figure(row.cells[at], head)) for row in one.rows]
        ours[name] = [
            gathered.reports[variant].benchmarks.get(one.place(row, head), {}).get(head.metric) if variant else None
            for variant, row in zip(standing, one.rows, strict=True)
        ]
    return charts.ladder(f"{one.source}: what each step adds", [row.name for row in one.rows], theirs, ours)


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)
