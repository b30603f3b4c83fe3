"""Untrusted text, shown everywhere that text is shown: it means what it says and does nothing."""

import ast
import io
import json
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geoloc_core import cli, escape, progress
from geoloc_core.corpora import checks
from geoloc_core.encoders import listing
from geoloc_core.errors import UserError
from geoloc_core.evaluation import board, page, tables
from geoloc_core.files import read_json, write_json
from geoloc_core.report import render
from geoloc_core.report.table import Column, Row, Table
from geoloc_core.serving import answer
from tests.geoloc_core.hostile import HOSTILE, MARKDOWN, Page, is_quiet, texts

ROOT = Path(__file__).parents[2]


@given(texts)
def test_a_terminal_is_shown_one_quiet_line(text):
    shown = escape.terminal(text)
    assert is_quiet(shown)
    assert "\n" not in shown
    assert escape.terminal(shown) == shown
    assert shown == text or not is_quiet(text) or "\n" in text


def test_what_is_hidden_is_shown():
    assert escape.terminal("a\x1b[1m\n\u202e\x9b\0\ud800é [x]") == r"a\x1b[1m\n\u202e\x9b\x00\ud800é [x]"
    assert escape.terminal("خانه\u200cها\u00a0日本\u3000") == "خانه\u200cها\u00a0日本\u3000"


def inside(tokens):
    return [token.type for token in tokens for token in (token.children or [token])]


@given(texts)
def test_markdown_means_what_the_text_says(text):
    said = " ".join(escape.terminal(text).split())
    written = escape.markdown(text)
    paragraph = MARKDOWN.parse(f"x {written} y")
    assert [token.type for token in paragraph] == ["paragraph_open", "inline", "paragraph_close"]
    assert [child.type for child in paragraph[1].children] == ["text"]
    assert paragraph[1].children[0].content == f"x {said} y"
    assert not re.search(r"(?<!\\)://|www[.]", written, re.IGNORECASE)


@given(texts | texts.map("https://h/{}?a=[(*)]&b;c".format) | texts.map("javascript:{}".format))
@example("java\nscript:alert(1)")
@example("\x01javascript:alert(1)")
@example("JavaScript:alert(1)")
@example("data:text/html,<script>alert(1)</script>")
def test_an_address_leads_to_pages_alone(text):
    found = escape.address(text)
    if found is None:
        assert not text.startswith("http")
        return
    assert found.isascii()
    assert not re.search(r"[\s<>\"`\\|^{}]", found)
    assert urlsplit(found).scheme in ("", "http", "https")
    assert escape.address(found) == found
    assert unquote(found, errors="replace") == unquote(text.encode(errors="replace").decode(), errors="replace")


@given(st.dictionaries(texts, texts | st.integers() | st.none(), max_size=3))
def test_json_says_the_same_and_is_quiet(value):
    shown = escape.json(json.dumps(value, indent=2, ensure_ascii=False))
    assert json.loads(shown) == value
    assert is_quiet(shown)


@given(st.dictionaries(texts, texts, max_size=3))
@example({"<!--<script>": "</script>"})
def test_data_within_a_script_says_the_same_and_holds_no_tag(value):
    shown = escape.script(json.dumps(value, ensure_ascii=False))
    assert json.loads(shown) == value
    assert "<" not in shown
    assert is_quiet(shown)


@pytest.mark.parametrize("text", HOSTILE)
def test_any_name_is_written_and_read_again(tmp_path, text):
    write_json(tmp_path / "a.json", {text: [text]})
    assert read_json(tmp_path / "a.json") == {text: [text]}


def board_of(text):
    rows = [board.Row(name=text, family=text, encoders=(text,), labels=text, values={"accuracy": 1.0},
                      paper={"accuracy": 2.0}, source=text),
            board.Row(name=f"always {text}", baseline=True, labels=text, values={"accuracy": 0.5})]  # fmt: skip
    best = board.Best(
        variant=text, benchmark=text, metric="accuracy", value=1, higher_is_better=True, benchmark_sha256="0"
    )
    groups = board.Groups(count=1, largest=1)
    section = board.Section(
        name=text, corpus=text, limited=text, n=1, published=1, groups=groups, selected=True, rows=rows
    )
    return board.Board(banner=text, convention=text, best=best, sections=[section])


def show_answer(text):
    row = {"photo": text, "rank": 1, "id": text, "name": text, "probability": 1.0, "latitude": 0.0, "longitude": 0.0}
    piece = {"photo": text, "kind": "clue", "id": text, "text": text, "weight": 0.5}
    answer.show([row], {"name": text, "version": text, "variant": text, "demo": True}, [piece])


def show_encoders(text):
    listing.show([listing.Row(text, text, text, text, 1, 1.0, text, text, text, text, False, text, text)])


def show_bar(text):
    list(progress.track([1], text, 1, text))


PRINTERS = {
    "say": progress.say,
    "table": lambda text: progress.table((text, "b"), [(text, text)], text),
    "bar": show_bar,
    "record": lambda text: progress.show(Table((Column(text),), (Row.of(text),), text, text)),
    "checks": lambda text: progress.show(checks.Report(text, (checks.Row(text, text, 1, (text,), False),)).table()),
    "answer": show_answer,
    "encoders": show_encoders,
    "leaderboard": lambda text: progress.output(width=1000).print(tables.render_terminal(board_of(text), 1000)),
}


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("name", PRINTERS)
def test_whatever_is_printed_is_quiet_and_whole(monkeypatch, name, terminal):
    for text in HOSTILE:
        out, error = io.StringIO(), io.StringIO()
        monkeypatch.setenv("COLUMNS", "1000")
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", error)
        monkeypatch.setattr(progress.console, "_width", 1000)
        if terminal:
            monkeypatch.setenv("FORCE_COLOR", "1")
            monkeypatch.setenv("TERM", "xterm")
            monkeypatch.setattr(progress.console, "_force_terminal", True)
            monkeypatch.setattr(progress.console, "is_interactive", True)
        PRINTERS[name](text)
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue() + error.getvalue()).replace("\r", "")
        assert is_quiet(shown), (text, shown)
        assert escape.terminal(text) in shown or (name, terminal) == ("bar", False), (text, shown)


@pytest.mark.slow
def test_consoles_are_made_in_one_place():
    made = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "geoloc_core").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "Console"
    }
    assert made == {"geoloc_core/progress.py"}


@pytest.mark.parametrize("text", HOSTILE)
def test_pages_hold_hostile_names_as_text(text):
    made = board_of(text)
    found, plain = Page(page.html(made)), Page(page.html(board_of("plain")))
    assert found.tags == plain.tags
    assert [name for name, _ in found.attributes] == [name for name, _ in plain.attributes]
    assert escape.terminal(text) in found.text
    assert is_quiet(page.html(made))
    types = [inside(MARKDOWN.parse(tables.markdown(one))) for one in (made, board_of("plain"))]
    assert types[0] == types[1]
    assert is_quiet(tables.markdown(made))


def datasheet_of(text):
    table = Table((Column("licence"), Column.of_numbers("photos")), (Row.of(text, 1),), text)
    words = {"name": text, "photos": text, "role": text, "kind": "photos", "demo": True, "picture": "c.png"}
    return render.document("corpora/datasheet.md", **words, tables=[table])


WRITERS = {
    "datasheet": datasheet_of,
    "checks": lambda text: checks.Report("t", (checks.Row(text, text, 1, (text, text), False),)).markdown(),
}


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", WRITERS)
def test_reports_in_markdown_hold_hostile_names_as_text(name, text):
    found = MARKDOWN.parse(WRITERS[name](text))
    assert inside(found) == inside(MARKDOWN.parse(WRITERS[name]("plain")))
    shown = [child.content for token in found for child in token.children or []]
    assert " ".join(escape.terminal(text).split()) in shown


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
def test_a_mistake_with_a_hostile_name_is_one_quiet_line(monkeypatch, capsys, text):
    name = text.replace("\0", "").replace("\ud800", "").replace("/", "")
    monkeypatch.setattr(sys, "argv", ["geoloc", "--params", str(ROOT / "params.yaml"), "predict", f"nowhere {name}"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    shown = capsys.readouterr()
    assert stop.value.code == 2
    assert shown.err == f"geoloc: error: nowhere {escape.terminal(name)}: no such file; expected a photo\n"
    assert is_quiet(shown.err)


def test_the_lines_of_a_mistake_are_its_own(monkeypatch, capsys):
    def fail(**_):
        raise UserError("two errors", "  one\x1b", "  two\ngeoloc: error: forged")

    monkeypatch.setattr(cli, "geoloc", fail)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == ("geoloc: error: two errors\n  one\\x1b\n  two\\ngeoloc: error: forged\n")


@given(texts)
@example("=1+1")
def test_names_in_an_answer_stay_as_they_are_for_programs(text):
    import csv

    row = {"photo": text, "rank": 1, "id": "a", "name": text, "probability": 1.0, "latitude": 0.0, "longitude": 0.0}
    assert json.loads(answer.as_json([row], {"name": text}, []))["places"] == [row]
    read = list(csv.DictReader(io.StringIO(answer.as_csv([row]), newline="")))
    assert [(line["photo"], line["name"]) for line in read] == [(text, text)]
