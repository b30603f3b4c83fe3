"""Tables drawn, and templates filled in. All text is escaped here, and no caller need think of it.

A template is named by its path within the package, such as ``report/table.html``. In those that end in ``.md`` and
``.html`` whatever is printed is escaped for Markdown or HTML, and what is undefined or no text cannot be printed.
"""

import io
import json
from collections.abc import Callable
from functools import cache, partial
from itertools import accumulate
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from geoloc_core import escape
from geoloc_core.report.table import BEST, Cell, Link, Table
from geoloc_core.tables import CsvWriter

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from rich.console import RenderableType
    from rich.text import Text

ESCAPES = {".md": escape.markdown, ".html": escape.terminal}
"""By the ending of a template, what is done with text; in HTML Jinja escapes it after that."""
STYLES = {"": "", "best": "green", "strong": "bold", "quiet": "dim", "bad": "bold red"}
"""By the tone of a row."""
GAP = 2
"""Characters between columns on the terminal."""


def document(template: str, **values: Any) -> str:
    """A template, filled in.

    Args:
        template: Its path within the package.
        values: What it may name.
    """
    return environment(PurePath(template).suffix).get_template(template).render(values)


@cache
def environment(ending: str) -> "Environment":
    """Where the package's templates of an ending are found and filled in."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    found = Environment(
        loader=PackageLoader(__name__.partition(".")[0], "."),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        finalize=partial(_printed, ESCAPES[ending]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    found.filters["json"] = _in_script
    return found


def _in_script(value: Any) -> "Markup":
    """Data for a script."""
    from markupsafe import Markup

    return Markup(escape.script(json.dumps(value, ensure_ascii=False, separators=(",", ":"))))  # noqa: S704


def _printed(escaped: Callable[[str], str], value: Any) -> str:
    """What a template prints."""
    from jinja2 import Undefined
    from markupsafe import Markup

    if isinstance(value, Markup):
        return value
    if isinstance(value, str | int | Undefined):
        return escaped(str(value))  # what is undefined raises here
    raise TypeError(f"a template prints {value!r}; expected text or a whole number")


def markdown(table: Table) -> str:
    """A table in Markdown as GitHub reads it, without its title."""
    return document("report/table.md", table=table)


def html(table: Table) -> str:
    """A table in HTML, without its title, for a page that extends ``report/page.html``."""
    return document("report/table.html", table=table)


def csv(table: Table) -> str:
    """A table as CSV with a header, for programs: values in full, names as they are, and no notes.

    A spreadsheet may take a name that begins with ``=`` for a formula: import the columns as text there.
    """
    header: list[str | int | float | None] = [column.alone for column in table.columns]
    rows = [[_plain(cell) for cell in row.cells] for row in table.rows]
    text = io.StringIO()
    CsvWriter(text).writerows([header, *rows])
    return text.getvalue()


def _plain(cell: Cell) -> str | int | float | None:
    return cell.value.text if isinstance(cell.value, Link) else cell.value


def terminal(table: Table, width: int | None = None) -> "RenderableType":
    """A table for the terminal, under a blank line and its title if it has one.

    Args:
        table: What to draw.
        width: Characters of a line; where not all columns fit, those of the highest rank are left out. All are kept
            if it is not given.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold")
    texts = [_texts(table, at) for at in range(len(table.columns))]
    kept = _fitting(table, texts, width)
    for at in kept:
        column = table.columns[at]
        least = _widest(texts[at]) if column.align == "right" else None
        drawn.add_column(texts[at][0], justify=column.align, overflow="fold", min_width=least)
    for number, row in enumerate(table.rows, start=1):
        drawn.add_row(*(texts[at][number] for at in kept), style=STYLES[row.tone])
    head = ((table.title, "bold"), (table.about, ""))
    title = Text("  ").join(Text(escape.terminal(text), style) for text, style in head if text)
    return Group("", title, drawn) if title else drawn


def _texts(table: Table, at: int) -> list["Text"]:
    """The heading of a column and its cells."""
    from rich.style import Style
    from rich.text import Text

    column = table.columns[at]
    found = [Text(escape.terminal(column.alone))]
    for row in table.rows:
        cell = row.cells[at]
        text = Text(f"{BEST} " if row.tone == "best" and at == 0 else "")
        text.append(escape.terminal(column.text(cell)), Style(bold=cell.best or None, link=cell.address))
        if cell.interval:
            text.append(f"\n{escape.terminal(cell.interval)}", "dim not bold")
        found.append(text.append(f"\n({escape.terminal(cell.note)})", "dim not bold") if cell.note else text)
    return found


def _fitting(table: Table, texts: list[list["Text"]], width: int | None) -> list[int]:
    """The columns that fit into a width."""
    order = sorted(range(len(table.columns)), key=lambda at: table.columns[at].rank)
    ends = accumulate(_widest(texts[at]) + GAP for at in order)
    kept = [at for at, end in zip(order, ends, strict=True) if width is None or end - GAP <= width]
    return sorted({*kept, *(at for at, column in enumerate(table.columns) if column.rank == 0)})


def _widest(texts: list["Text"]) -> int:
    from rich.cells import cell_len

    return max(cell_len(line) for text in texts for line in text.plain.split("\n"))
