"""One table, in every format: the cells come back as they were, and whatever they say does nothing."""

import csv
import io
import json
import math
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import jinja2.meta
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import geoloc_core
from geoloc_core import escape, progress
from geoloc_core.report import render
from geoloc_core.report.table import BEST, MISSING, Cell, Column, Link, Row, Table
from tests.geoloc_core.hostile import HOSTILE, MARKDOWN, is_quiet, texts

PACKAGE = Path(geoloc_core.__file__).parent
TEMPLATES = [str(path.relative_to(PACKAGE)) for ending in ("md", "html") for path in PACKAGE.rglob(f"*.{ending}")]
figures = st.none() | st.integers() | st.floats()
values = texts | figures | st.builds(Link, texts, texts | st.sampled_from(["https://h/a_b?c=1&d", "a (b).html"]))
cells = st.builds(Cell, values, interval=texts, note=texts, hint=texts, best=st.booleans(), shade=st.floats(0, 1))
headings = st.builds(
    Column, texts, group=texts, label=texts, align=st.sampled_from(["left", "right"]), rank=st.integers(0, 3)
)


@st.composite
def tables(draw):
    columns = draw(st.lists(headings, min_size=1, max_size=3))
    row = st.tuples(*[cells] * len(columns))
    tones = st.sampled_from(["", "best", "strong", "quiet", "bad"])
    rows = draw(st.lists(st.builds(Row, row, tones), max_size=3))
    return Table(tuple(columns), tuple(rows), draw(texts), draw(texts), draw(st.sampled_from(columns)))


def hostile(text):
    row = Row.of(Cell(text, interval=text, note=text, hint=text, best=True), Link(text, text), None, tone="best")
    return Table((Column(text, text), Column(text, text, text), Column(text)), (row,), text, text)


EMPTY = Table((Column("a"), Column("b")), (Row.of("", Cell(Link("", "0"), note="0")),))
"""A link of which nothing is seen, with something behind it."""
every_text = [*(example(hostile(text)) for text in HOSTILE), example(EMPTY)]


def with_every_text(test):
    for one in every_text:
        test = one(test)
    return test


class Shown(HTMLParser):
    """A table in HTML: what is in each cell and what beneath it in small print, and where links lead."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.links, self.hints, self.tags, self.at = [], [], [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.links += [value for name, value in attrs if name == "href"]
        self.hints += [value for name, value in attrs if name == "title"]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append(["", "", ""])
            self.at = 0
        elif tag in ("small", "span"):
            self.at = 1 if tag == "small" else 2

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.at = None

    def handle_data(self, data):
        if self.at is not None:
            self.rows[-1][-1][self.at] += data
        else:
            assert not data.strip()


def said(table, row):
    return [column.text(cell) for column, cell in table.pairs(row)]


def in_a_line(text):
    return " ".join(escape.terminal(text).split())


@pytest.mark.slow
@given(tables())
@with_every_text
def test_html_gives_the_cells_back(table):
    text = render.html(table)
    found = Shown(text)
    assert is_quiet(text)
    heads, rows = found.rows[: len(found.rows) - len(table.rows)], found.rows[len(found.rows) - len(table.rows) :]
    names = [column.heading if table.groups else column.alone for column in table.columns]
    assert [head for head, *_ in heads[-1]] == [escape.terminal(name) for name in names]
    assert [name for name, *_ in heads[0]] == [escape.terminal(name) for name, _ in table.groups] or not table.groups
    for row, shown in zip(table.rows, rows, strict=True):
        beside = [[escape.terminal(text) for text in (cell.note, cell.interval)] for cell in row.cells]
        assert shown == [[escape.terminal(text), *rest] for text, rest in zip(said(table, row), beside, strict=True)]
    every = [cell for row in table.rows for cell in row.cells]
    assert found.links == [cell.address for cell in every if cell.address]
    assert found.hints == [escape.terminal(cell.hint) for cell in every if cell.note and cell.hint]
    allowed = {"div", "table", "thead", "tbody", "tr", "td", "th", "button", "small", "span", "a", "wbr"}
    assert {tag for tag, _ in found.tags} <= allowed
    breakable = [text + cell.note for row in table.rows for text, cell in zip(said(table, row), row.cells, strict=True)]
    assert sum(tag == "wbr" for tag, _ in found.tags) == "".join(breakable).count("_")
    assert not any(name.startswith("on") for _, names in found.tags for name in names)


@given(tables())
@with_every_text
def test_markdown_gives_the_cells_back(table):
    text = render.markdown(table)
    assert is_quiet(text)
    found = MARKDOWN.parse(text)
    kinds = [token.type for token in found]
    assert kinds.count("tr_open") == len(table.rows) + 1
    assert kinds.count("table_open") == 1
    assert {kind.removesuffix("_open").removesuffix("_close") for kind in kinds} <= {
        "table", "thead", "tbody", "tr", "th", "td", "inline"
    }  # fmt: skip
    inner = [token.children or [] for token in found if token.type == "inline"]
    shown = ["".join(child.content for child in children).strip() for children in inner]
    expected = [in_a_line(column.alone) for column in table.columns]
    for row in table.rows:
        for at, (column, cell) in enumerate(table.pairs(row)):
            mark = f"{BEST} " if at == 0 and row.tone == "best" else ""
            interval = f" [{in_a_line(cell.interval)}]" if cell.interval else ""
            note = f" ({in_a_line(cell.note)})" if cell.note else ""
            expected.append((mark + in_a_line(column.text(cell)) + interval + note).strip())
    assert shown == expected
    every = [cell for row in table.rows for cell in row.cells]
    links = [child.attrs["href"] for children in inner for child in children if child.type == "link_open"]
    assert len(links) == sum(cell.address is not None for cell in every)
    assert {child.type for children in inner for child in children} <= {
        "text", "strong_open", "strong_close", "link_open", "link_close"
    }  # fmt: skip
    assert sum(child.type == "strong_open" for children in inner for child in children) <= sum(
        cell.best for cell in every
    )


@given(tables())
@with_every_text
def test_csv_gives_the_values_back(table):
    found = list(csv.reader(io.StringIO(render.csv(table), newline="")))
    assert found[0] == [column.alone for column in table.columns]
    for row, shown in zip(table.rows, found[1:], strict=True):
        for cell, text in zip(row.cells, shown, strict=True):
            match cell.value:
                case None:
                    assert text == ""
                case str():
                    assert text == cell.value
                case Link():
                    assert text == cell.value.text
                case number:
                    assert float(text) == number or math.isnan(number)


@given(tables())
@with_every_text
def test_the_terminal_shows_the_cells(table):
    stream = io.StringIO()
    progress.output(stream, width=20_000).print(render.terminal(table))
    lines = stream.getvalue()
    assert is_quiet(lines)
    for row in table.rows:
        for text, cell in zip(said(table, row), row.cells, strict=True):
            assert escape.terminal(text).strip() in lines
            assert f"({escape.terminal(cell.note)})" in lines or not cell.note
    assert all(escape.terminal(column.alone).strip() in lines for column in table.columns)
    assert escape.terminal(table.title).strip() in lines


@pytest.mark.parametrize("width", range(1, 60))
def test_a_narrow_terminal_gets_the_columns_that_count_and_no_broken_ones(width):
    columns = (Column("name"), *(Column(f"figure {n}", align="right", format=".1f", rank=n) for n in (2, 1, 3)))
    table = Table(columns, (Row.of("a name", 12345.6, 2.0, 3.0),))
    found = [column.header.plain for column in render.terminal(table, width).columns]
    expected = ["name", "figure 2", "figure 1", "figure 3"]
    kept = 1 + (width >= 16) + (width >= 26) + (width >= 36)
    assert found == [name for name in expected if name in ["name", "figure 1", "figure 2", "figure 3"][:kept]]
    if width >= 8:
        stream = io.StringIO()
        progress.output(stream, width).print(render.terminal(table, width))
        shown = stream.getvalue()
        assert ("12345.6" in shown) == (width >= 26)
        assert "…" not in shown


def test_numbers_are_written_in_the_columns_way_and_nothing_is_a_dash():
    count, share, text = Column.of_numbers("a"), Column.of_numbers("b", ".1%"), Column("c")
    assert count.text(Cell(12345)) == "12,345"
    assert share.text(Cell(0.0476)) == "4.8%"
    assert [column.text(Cell()) for column in (count, share, text)] == [MISSING] * 3
    assert text.text(Cell("")) == ""
    assert text.text(Cell(Link("a", "b"))) == "a"


def test_the_best_are_set_off_in_every_format():
    table = Table((Column("n"), Column.of_numbers("x")), (Row.of("a", Cell(1, best=True), tone="best"), Row.of("b", 2)))
    assert "| ★ a | **1** |\n| b | 2 |" in render.markdown(table)
    assert '<tr class="best">' in render.html(table)
    assert 'class="right best" data-key="1">1</td>' in render.html(table)
    drawn = render.terminal(table)
    assert next(iter(drawn.columns[0].cells)).plain == "★ a"
    assert [str(span.style) for span in next(iter(drawn.columns[1].cells)).spans] == ["bold"]
    assert [row.style for row in drawn.rows] == ["green", ""]


def test_groups_stand_above_their_columns():
    heads = (Column("n"), Column("x", "g"), Column("y", "g", "g y"), Column("z", "h"))
    table = Table(heads, ())
    assert table.groups == [("", 1), ("g", 2), ("h", 1)]
    assert '<th class="group" scope="colgroup" colspan="2">g</th>' in render.html(table)
    assert render.html(table).count(" begins") == 2
    assert render.markdown(table).startswith("| n | x | g y | z |\n")
    assert Table(heads[:1], ()).groups == []


@pytest.mark.parametrize("rows", [(Row.of(),), (Row.of(1, 2),)])
def test_a_row_has_a_cell_for_every_column(rows):
    with pytest.raises(ValueError, match="expected a cell for every column"):
        Table((Column("a"),), rows, "t")


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_prints_what_is_undefined(name):
    parsed = render.environment(Path(name).suffix).parse((PACKAGE / name).read_text(encoding="utf-8"))
    if jinja2.meta.find_undeclared_variables(parsed):
        with pytest.raises((jinja2.UndefinedError, TypeError), match="ndefined"):
            render.document(name)
    else:
        assert "ndefined" not in render.document(name).partition("<script>")[0]


@pytest.mark.parametrize("value", [None, 1.5, ["a"], {}, object()])
@pytest.mark.parametrize("ending", [".md", ".html"])
def test_no_template_prints_what_is_no_text(ending, value):
    template = render.environment(ending).from_string("{{ value }}")
    with pytest.raises(TypeError, match="expected text or a whole number"):
        template.render(value=value)
    with pytest.raises(jinja2.UndefinedError):
        template.render()


def test_markup_is_written_by_templates_alone():
    written = re.compile(r"<t[dhr]\b|</?table|\|\s*-{2,}")
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "orchestration").rglob("*.py")]:
        assert not written.search(path.read_text(encoding="utf-8")), path


def shown_by_a_browser(path, table, script, *flags):
    """The title that a script gives to a page with a table."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not on PATH")
    page = render.environment(".html").from_string(
        "{% extends 'report/page.html' %}{% block main %}{% include 'report/table.html' %}{% endblock %}"
    )
    path.write_text(f"{page.render(table=table)}<script>{script}</script>", encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", *flags, f"file://{path}"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=180)
    return unescape(re.search(r"<title>(.*?)</title>", shown.stdout)[1])


@pytest.mark.slow
def test_on_a_phone_a_long_name_breaks_between_its_words_and_stays_one_word(tmp_path):
    name = "guidebook_attention_softmax"
    table = Table((Column("variant"), Column("about")), (Row.of(Link(name, "#a"), "a long line " * 9),))
    script = """
      const parts = [...document.querySelector("tbody a").childNodes].filter(one => one.nodeType === Node.TEXT_NODE);
      const lines = parts.map(part => {
        const range = document.createRange(); range.selectNodeContents(part);
        return range.getClientRects().length;
      });
      const tops = new Set([...document.querySelector("tbody a").getClientRects()].map(line => line.top));
      document.title = JSON.stringify([lines, tops.size > 1, window.find("guidebook_attention_softmax"),
        getSelection().toString()]);
    """
    found = json.loads(shown_by_a_browser(tmp_path / "page.html", table, script, "--window-size=400,800"))
    assert found == [[1, 1, 1], True, True, name]


@pytest.mark.slow
def test_a_click_on_a_heading_orders_the_rows(tmp_path):
    values = [3.0, None, -20.0, 100.0, math.nan, 1e-3]
    names = ["b", "é", "<i>", "a", "Z", "10"]
    heads = (Column("name"), Column.of_numbers("x", "g"))
    table = Table(heads, tuple(Row.of(*pair) for pair in zip(names, values, strict=True)), ordered_by=heads[1])
    clicks = """
      const order = () => [...document.querySelectorAll("tbody th")].map(cell => cell.textContent).join();
      const buttons = document.querySelectorAll("thead button"), seen = [];
      for (const at of [1, 1, 0, 0, 1]) { buttons[at].click(); seen.push(order()); }
      seen.push([...document.querySelectorAll("thead th")].map(head => head.getAttribute("aria-sort")));
      document.title = JSON.stringify(seen);
    """
    assert shown_by_a_browser(tmp_path / "page.html", table, clicks) == (
        '["<i>,10,b,a,é,Z","a,b,10,<i>,é,Z","<i>,10,a,b,é,Z","Z,é,b,a,10,<i>","a,b,10,<i>,Z,é",[null,"descending"]]'
    )
