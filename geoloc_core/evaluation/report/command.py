"""The stage ``geoloc report``: one page of everything that is known of all variants, and the same as Markdown."""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePath
from typing import Any

from geoloc_core.contracts.metrics import column
from geoloc_core.evaluation import published, tables
from geoloc_core.evaluation.board import Section
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
class Printed:
    """A table of a paper on the page, with its stairs where it is a ladder of which some steps are trained here."""

    anchor: str
    source: str
    table: Table
    ladder: Plot | None


@dataclass(frozen=True)
class Compared:
    """A section of the leaderboard: its table, and the distances of its variants."""

    anchor: str
    table: Table
    distances: Plot | None


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
    compared = [_compared(gathered, section, at) for at, section in enumerate(board.sections, start=1)]
    return {
        "board": board,
        "mark": gathered.mark,
        "verdict": tables.verdict(board),
        "figure": tables.phrase(board),
        "notes": tables.notes(board, "In small print"),
        "compared": compared,
        "papers": [_printed(gathered, one) for one in published.tables().tables],
        "pages": pages,
        "best": next(page for page in pages if page.best),
        "outlines": world.outlines(),
        "made_of": world.outlines().made_of,
        "size": charts.SIZE,
    }


def _compared(gathered: Gathered, section: Section, number: int) -> Compared:
    curves = {row.name: gathered.curve(row.name, section.name) for row in section.rows if not row.baseline}
    known = {name: curve for name, curve in curves.items() if curve is not None}
    plot = charts.distances(f"Photos of {section.title} within a distance", known) if known else None
    return Compared(f"board-{number}", tables.table(gathered.board, section), plot)


def _printed(gathered: Gathered, one: published.Table) -> Printed:
    stairs = _ladder(gathered, one) if one.ladder else None
    return Printed(f"paper-{one.id}", one.source, papers.table(gathered, one), stairs)


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
