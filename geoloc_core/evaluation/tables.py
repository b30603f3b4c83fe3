"""The leaderboard as tables, and in Markdown and for the terminal."""

from typing import TYPE_CHECKING

from geoloc_core.evaluation.board import Board, Clean, Column, Row, Section, column
from geoloc_core.progress import plain
from geoloc_core.report import render
from geoloc_core.report import table as report

if TYPE_CHECKING:
    from rich.console import Group

CROWN = report.BEST
NARROW = ("accuracy", "median_km", "over majority", "mean_km", "labels", "country_accuracy")
"""What a narrow terminal keeps, beside the deciding metric: the first of these, and then shares within a distance."""
LAST = 99
MODEL = "model"
EVIDENCE = "paired differences"


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
    unsure = [
        f"{row.name} on {section.name}"
        for section in board.sections
        for row in section.rows
        if row.beats_majority is False
    ]
    trained = dict.fromkeys(
        f"{row.name}, {next(iter(row.spreads.values())).trainings} trainings"
        for section in board.sections
        for row in section.rows
        if row.spreads
    )
    leaked = [
        f"{row.name} on {section.name}: {_clean(board, row.clean)}"
        for section in board.sections
        for row in section.rows
        if row.clean and row.clean.leaked
    ]
    return [
        f"{CROWN} marks the best {board.best.metric} on {board.best.benchmark}, the candidate for promotion.",
        f"The best was selected on {board.best.benchmark}: its figures there are too good to be reported.",
        "Beneath a figure or in square brackets is its 95 % interval, by a bootstrap over groups of photos, such as "
        "those of one photographer, since photos are not independent.",
        "“over majority”: how much more often the class is right than by always answering the most frequent one; "
        + (f"within its interval: {', '.join(unsure)}." if unsure else "all are beyond their interval."),
        "“behind the best”: a paired difference on the same photos, p corrected for how many were compared (Holm).",
        *(
            [
                "“m ± s”: mean and standard deviation over trainings with different seeds; the figure is of the first "
                f"({'; '.join(trained)})."
            ]
            if trained
            else []
        ),
        *([f"Without photos that share something with training ones: {'; '.join(leaked)}."] if leaked else []),
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
            report.Column(
                "over majority", EVIDENCE, align="right", format="+.1f", first="descending", rank=_rank("over majority")
            ),
            report.Column("behind the best", EVIDENCE, align="right", format=_behind(section), rank=LAST - 1),
            report.Column("labels", MODEL, rank=_rank("labels")),
            report.Column("family", MODEL, rank=LAST),
            report.Column("encoders", MODEL, rank=LAST),
            report.Column("parameters", MODEL, align="right", format=",", rank=LAST),
        ),
        tuple(_row(board, section, found, row) for row in section.rows),
        section.title,
        section.count,
        columns.get(board.best.metric),
    )


def distances(board: Board, section: Section) -> report.Table:
    """The distances of a section alone, as the board's convention measures them."""
    found = [metric for metric in section.columns() if metric.is_distance]
    columns = {metric.name: _column(board, metric) for metric in found}
    rows = (
        report.Row.of(
            report.Cell(row.name, note=row.labels if row.baseline else ""),
            *(_cell(section, metric, row) for metric in found),
            tone="quiet" if row.baseline else "",
        )
        for row in section.rows
    )
    heads = (report.Column("variant"), *columns.values())
    return report.Table(heads, tuple(rows), section.title, board.convention, columns.get(board.best.metric))


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
    if name in NARROW:
        return 2 + NARROW.index(name)
    return 2 + len(NARROW) + (not name.startswith("within_"))


def _row(board: Board, section: Section, columns: list[Column], row: Row) -> report.Row:
    cells = [_cell(section, found, row) for found in columns]
    tone: report.Tone = "quiet" if row.baseline else "best" if row.name == board.best.variant else ""
    # The same class may be the most frequent one of several label spaces.
    name = report.Cell(row.name, note=row.labels if row.baseline else "")
    evidence = (_over_majority(row), _behind_the_best(section, row))
    about = (row.labels, row.family, ", ".join(row.encoders), row.parameters)
    return report.Row.of(name, *cells, *evidence, *about, tone=tone)


def _over_majority(row: Row) -> report.Cell:
    gain = row.over_majority
    if gain is None:
        return report.Cell()
    return report.Cell(gain.value, interval=span(gain.low, gain.high, ".1f"), note="" if gain.sure else "not sure")


def _behind(section: Section) -> str:
    found = column(section.comparisons[0].metric) if section.comparisons else None
    return found.format if found else ".1f"


def _behind_the_best(section: Section, row: Row) -> report.Cell:
    found = section.comparison(row)
    if found is None:
        return report.Cell()
    p = "" if found.p_corrected is None else f"p {found.p_corrected:.2f}" if found.p_corrected >= 0.005 else "p < 0.005"
    return report.Cell(found.value, interval=span(found.low, found.high, _behind(section)), note=p, hint=found.metric)


def _clean(board: Board, clean: Clean) -> str:
    found = column(board.best.metric)
    value = clean.figures.get(board.best.metric)
    figure = f"{found.label} {found.show(value)}" if found and value is not None else "no figure"
    return f"{figure} of {clean.n:,} photos, {clean.leaked:,} left out"


def span(low: float | None, high: float | None, style: str) -> str:
    """The ends of an interval as text; nothing where there is none."""
    if low is None or high is None:
        return ""
    return f"{low:{style}}{' to ' if low < 0 else '–'}{high:{style}}"


def sure(found: Column, row: Row) -> str:
    """How sure a figure of a row is: its interval, and its spread over trainings where there were several."""
    ends, spread = row.intervals.get(found.name), row.spreads.get(found.name)
    parts = [span(ends.low, ends.high, found.format)] if ends and found.name in row.values else []
    if spread is not None:
        parts.append(f"{spread.mean:{found.format}} ± {spread.sd:{found.format}}")
    return "; ".join(parts)


def _cell(section: Section, found: Column, row: Row) -> report.Cell:
    ours, theirs = row.values.get(found.name), row.paper.get(found.name)
    return report.Cell(
        ours,
        interval=sure(found, row),
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
