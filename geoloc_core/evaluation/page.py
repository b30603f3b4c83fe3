"""The leaderboard as one page: a single file that needs no network."""

from importlib.resources import files
from itertools import groupby
from string import Template

from geoloc_core.escape import html as escape
from geoloc_core.evaluation.board import Board, Column, Row, Section
from geoloc_core.evaluation.tables import notes, phrase


def html(board: Board) -> str:
    """The leaderboard as a self-contained HTML page."""
    template = Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        banner=f'<p class="banner" role="note">{escape(board.banner)}</p>' if board.banner else "",
        variant=escape(board.best.variant),
        figure=escape(phrase(board)),
        benchmark=escape(board.best.benchmark),
        sections="\n".join(_section(board, section) for section in board.sections),
        notes="\n".join(f"<li>{escape(note)}</li>" for note in notes(board, "In small print")),
    )


def _section(board: Board, section: Section) -> str:
    columns = section.columns()
    rows = "\n".join(_row(board, section, columns, row) for row in section.rows)
    small = "; in small print, the paper's numbers" if any(row.paper for row in section.rows) else ""
    return (
        f'<section class="card"><div class="head"><h2>{escape(section.title)}</h2>'
        f'<span class="quiet">{escape(section.count + small)}</span></div>\n<div class="scroll"><table>\n'
        f"<thead>{_heads(columns, board.best.metric)}</thead>\n"
        f"<tbody>\n{rows}\n</tbody></table></div></section>"
    )


def _heads(columns: list[Column], sorted_by: str) -> str:
    groups = [(name, len(list(found))) for name, found in groupby(columns, key=lambda c: c.group)]
    above = "".join(f'<th class="group" scope="colgroup" colspan="{n}">{escape(name)}</th>' for name, n in groups)
    heads = ['<th scope="col" data-first="ascending"><button type="button">variant</button></th>']
    for found in columns:
        order = "ascending" if found.falling else "descending"
        state = f' aria-sort="{order}"' if found.name == sorted_by else ""
        heads.append(
            f'<th scope="col" class="number{_first(columns, found)}" data-first="{order}"{state}>'
            f'<button type="button">{escape(found.head)}</button></th>'
        )
    return f'<tr><td class="group"></td>{above}</tr>\n<tr>{"".join(heads)}</tr>'


def _first(columns: list[Column], found: Column) -> str:
    """The class of a group's first column: a line sets it off."""
    return " first" if found == next(other for other in columns if other.group == found.group) else ""


def _row(board: Board, section: Section, columns: list[Column], row: Row) -> str:
    about = " · ".join(filter(None, [row.family, ", ".join(row.encoders), row.labels]))
    kind = "baseline" if row.baseline else "best-row" if row.name == board.best.variant else ""
    cells = "".join(_cell(section, columns, found, row) for found in columns)
    name = f'<th scope="row" data-value="{escape(row.name)}">{escape(row.name)}<small>{escape(about)}</small></th>'
    return f'<tr class="{kind}">{name}{cells}</tr>'


def _cell(section: Section, columns: list[Column], found: Column, row: Row) -> str:
    ours, theirs = row.values.get(found.name), row.paper.get(found.name)
    shade = "" if ours is None else f' style="--s:{_goodness(found, ours, section.peers(found, row)):.2f}"'
    value = "" if ours is None else str(ours)
    paper = "" if theirs is None else f'<small title="{escape(row.source)}">{found.show(theirs)}</small>'
    classes = f"number{_first(columns, found)}{' best' if section.is_best(found, row) else ''}"
    return f'<td class="{classes}" data-value="{value}"{shade}>{found.show(ours)}{paper}</td>'


def _goodness(found: Column, value: float, peers: list[float]) -> float:
    """From 0, the worst of the peers, to 1, the best; 0 where all are alike."""
    low, high = min(peers), max(peers)
    if low == high:
        return 0.0
    return (high - value if found.falling else value - low) / (high - low)
