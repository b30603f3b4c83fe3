"""The leaderboard as tables, and in Markdown and for the terminal."""

from typing import TYPE_CHECKING

from geoloc_core.evaluation.board import Board, Column, Row, Section, column
from geoloc_core.progress import plain
from geoloc_core.report import render
from geoloc_core.report import table as report

if TYPE_CHECKING:
    from rich.console import Group

CROWN = report.BEST
NARROW = ("accuracy", "median_km", "mean_km", "labels", "country_accuracy")
"""What a narrow terminal keeps, beside the deciding metric: the first of these."""
LAST = 99
MODEL = "model"


def phrase(board: Board) -> str:
    """How good the best is, in words."""
    found = column(board.best.metric)
    return found.phrase(board.best.value) if found else f"{board.best.metric} {board.best.value:g}"


def verdict(board: Board) -> str:
    """Who wins and why, in one line."""
    return f"{board.best.variant}: {phrase(board)} on {board.best.benchmark}"


def notes(board: Board, where: str = "In brackets") -> list[str]:
    """What the figures mean.

    Args:
        board: The leaderboard.
        where: How this format sets the paper's numbers off.
    """
    sources = [f"{source} ({', '.join(names)})" for source, names in board.sources.items()]
    return [
        f"{CROWN} marks the best {board.best.metric} on {board.best.benchmark}, the candidate for promotion.",
        "“always …” never looks at the photo: it answers the most frequent classes of the training rows.",
        "“top-k” counts classes of the variant's own label space; the other columns compare across them.",
        "Right classes and photos within a distance are in %.",
        f"Errors run from the answer to where the photo was taken ({board.convention}).",
        *([f"{where}, the papers' numbers: {'; '.join(sources)}."] if sources else []),
    ]


def table(board: Board, section: Section) -> report.Table:
    """A section as a table, the best row first."""
    found = section.columns()
    columns = {metric.name: _column(board, metric) for metric in found}
    return report.Table(
        (
            report.Column("variant"),
            *columns.values(),
            report.Column("labels", MODEL, rank=_rank("labels")),
            report.Column("family", MODEL, rank=LAST),
            report.Column("encoders", MODEL, rank=LAST),
        ),
        tuple(_row(board, section, found, row) for row in section.rows),
        section.title,
        section.count,
        columns.get(board.best.metric),
    )


def _column(board: Board, found: Column) -> report.Column:
    return report.Column(
        found.head,
        found.group,
        found.label,
        align="right",
        format=found.format,
        first="ascending" if found.falling else "descending",
        rank=1 if found.name == board.best.metric else _rank(found.name),
    )


def _rank(name: str) -> int:
    return 2 + (NARROW.index(name) if name in NARROW else len(NARROW))


def _row(board: Board, section: Section, columns: list[Column], row: Row) -> report.Row:
    cells = [_cell(section, found, row) for found in columns]
    tone: report.Tone = "quiet" if row.baseline else "best" if row.name == board.best.variant else ""
    # The same class may be the most frequent one of several label spaces.
    name = report.Cell(row.name, note=row.labels if row.baseline else "")
    return report.Row.of(name, *cells, row.labels, row.family, ", ".join(row.encoders), tone=tone)


def _cell(section: Section, found: Column, row: Row) -> report.Cell:
    ours, theirs = row.values.get(found.name), row.paper.get(found.name)
    return report.Cell(
        ours,
        note="" if theirs is None else found.show(theirs),
        hint="" if theirs is None else row.source,
        best=section.is_best(found, row),
        shade=0.0 if ours is None else _goodness(found, ours, section.peers(found, row)),
    )


def _goodness(found: Column, value: float, peers: list[float]) -> float:
    """From 0, the worst of the peers, to 1, the best; 0 where all are alike."""
    low, high = min(peers), max(peers)
    if low == high:
        return 0.0
    return (high - value if found.falling else value - low) / (high - low)


def markdown(board: Board) -> str:
    """The leaderboard as Markdown."""
    return render.document(
        "evaluation/leaderboard.md",
        board=board,
        verdict=verdict(board),
        tables=[table(board, section) for section in board.sections],
        notes=notes(board),
    )


def render_terminal(board: Board, width: int = 120) -> "Group":
    """The leaderboard for a terminal, best first.

    Args:
        board: The leaderboard.
        width: Characters per line; where not all columns fit, those that decide least are left out.
    """
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    head = [Panel(plain(board.banner, "bold yellow"), border_style="yellow")] if board.banner else []
    crown = Text.assemble((f"{CROWN} Best ", "bold green"), plain(verdict(board)))
    sections = (render.terminal(table(board, section), width) for section in board.sections)
    lines = [*notes(board), "All columns stand in leaderboard.html beside its Markdown."]
    foot = Text("\n", style="dim").join(plain(line, "dim") for line in lines)
    return Group(*head, crown, *sections, "", foot)
