"""The leaderboard in plain text: Markdown for files, tables for the terminal."""

from typing import TYPE_CHECKING

from geoloc_core import escape
from geoloc_core.evaluation.board import Board, Column, Row, Section, column
from geoloc_core.progress import plain

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

CROWN = "★"


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
        f"Errors run from the answer to where the photo was taken ({board.convention}).",
        *([f"{where}, the papers' numbers: {'; '.join(sources)}."] if sources else []),
    ]


def markdown(board: Board) -> str:
    """The leaderboard as Markdown."""
    lines = ["# Leaderboard", "", *([f"> **{escape.markdown(board.banner)}**", ""] if board.banner else [])]
    lines += [f"{CROWN} Best: **{escape.markdown(verdict(board))}**", ""]
    for section in board.sections:
        title = escape.markdown(section.title)
        lines += [f"## {title}", "", f"{section.count}.", "", *_markdown_table(board, section), ""]
    lines += [f"- {escape.markdown(note)}" for note in notes(board)]
    return "\n".join(lines) + "\n"


def _markdown_table(board: Board, section: Section) -> list[str]:
    columns = section.columns()
    heads = ["variant", "family", "encoders", "labels", *(found.label for found in columns)]
    rules = ["---"] * 4 + ["---:"] * len(columns)
    rows = []
    for row in section.rows:
        about = [_title(board, row), row.family, ", ".join(row.encoders), row.labels]
        rows.append([*about, *(_cell(found, row) for found in columns)])
    return escape.markdown_table(heads, rules, rows)


def _title(board: Board, row: Row) -> str:
    return f"{CROWN} {row.name}" if row.name == board.best.variant else row.name


def _cell(found: Column, row: Row) -> str:
    ours = found.show(row.values.get(found.name))
    return f"{ours} ({found.show(row.paper[found.name])})" if found.name in row.paper else ours


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
    crown = Text.assemble((f"{CROWN} Best ", "bold green"), plain(verdict(board)), "\n")
    lines = [*notes(board), "All columns stand in leaderboard.html beside its Markdown."]
    foot = Text("\n", style="dim").join(plain(line, "dim") for line in lines)
    return Group(*head, crown, *(_terminal_table(board, section, width) for section in board.sections), foot)


def _terminal_table(board: Board, section: Section, width: int) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = Text.assemble(plain(section.title, "bold"), f"  {section.count}; right and within ≤ km in %")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    names = [f"{row.name} ({row.labels})" if row.baseline else _title(board, row) for row in section.rows]
    table.add_column("variant", overflow="fold", min_width=12)
    columns = _fitting(board, section, width - max(map(len, names)) - 2)
    for found in columns:
        table.add_column(_head(found), justify="right", no_wrap=True)
    for name, row in zip(names, section.rows, strict=True):
        style = "dim" if row.baseline else "green" if row.name == board.best.variant else ""
        table.add_row(plain(name), *(_terminal_cell(section, found, row) for found in columns), style=style)
    return table


def _head(found: Column) -> str:
    return found.label if found.falling else found.label.removesuffix(" km")


def _fitting(board: Board, section: Section, width: int) -> list[Column]:
    """The columns that fit into a width: first the deciding one, then right classes and errors, then the rest."""
    columns = section.columns()
    rank = [board.best.metric, "accuracy", "median_km", "mean_km", "country_accuracy"]
    kept = set()
    for found in sorted(columns, key=lambda c: rank.index(c.name) if c.name in rank else len(rank)):
        figures = [found.show(row.values.get(found.name)) for row in section.rows]
        figures += [f"({found.show(row.paper[found.name])})" for row in section.rows if found.name in row.paper]
        width -= max(map(len, [_head(found), *figures])) + 2
        if width >= 0:
            kept.add(found.name)
    return [found for found in columns if found.name in kept]


def _terminal_cell(section: Section, found: Column, row: Row) -> "Text":
    from rich.text import Text

    ours = row.values.get(found.name)
    cell = Text(found.show(ours), style="bold" if section.is_best(found, row) else "")
    if found.name in row.paper:
        cell.append(f"\n({found.show(row.paper[found.name])})", style="dim not bold")
    return cell
