"""Whatever was left behind, damaged or in the way: `geoloc fetch` goes on, or says why not in one line."""

import json
import os
import resource
import shutil
import sys

import pytest
import yaml
from loopback import Reply, serving
from made_photos import encoded
from test_urls import published

from geoloc_core import cli
from geoloc_core.corpora import journal
from geoloc_core.corpora.fetch import urls
from tests.conftest import PHOTOS

pytestmark = pytest.mark.slow

COUNT = 20
BODY = encoded(1) + bytes(10_000)


class Crawl:
    """A project with a list of addresses, and what its command line says."""

    def __init__(self, folder, server, monkeypatch, capsys):
        self.folder, self.server, self.capsys = folder, server, capsys
        self.partial, self.raw = folder / ".state/partial/fetch/c", folder / "data/raw/c"
        self.parts = self.partial / "parts"
        fetch = {"kind": "urls", "path": "given", "limits": {"tries": 1, "wait_s": 0}}
        source = {"kind": "places365", "metadata": "mp16_places365.csv", "urls": "mp16_urls.csv", "shards": "s_*.msg"}
        corpora = {**PHOTOS["corpora"], "c": {"role": "train", "fetch": fetch, "source": source}}
        (folder / "params.yaml").write_text(yaml.safe_dump({"run": {**PHOTOS, "corpora": corpora}}))
        published(folder / "given", server.url, COUNT)
        monkeypatch.setattr(urls, "SHARD", 8)
        monkeypatch.setattr(sys, "argv", ["geoloc", "--params", str(folder / "params.yaml"), "fetch", "c"])

    def run(self):
        """The exit code, the lines that were said, and the mistake if it was one."""
        self.server.log.clear()
        self.capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        said = self.capsys.readouterr().err
        return code, said, [line for line in said.splitlines() if line.startswith("geoloc: error: ")]

    def is_whole(self):
        summary = json.loads((self.folder / "data/summaries/fetch/c.json").read_text())
        return summary["photos"] == COUNT and not self.partial.exists()


@pytest.fixture
def crawl(tmp_path, monkeypatch, capsys):
    """Stopped in its third part: two are sealed."""
    broken = [True]
    answer = lambda path, n: Reply(503) if broken and path in ("/17.jpg", "/18.jpg") else Reply(body=BODY)  # noqa: E731
    with serving(answer) as server:
        made = Crawl(tmp_path, server, monkeypatch, capsys)
        code, said, _ = made.run()
        assert (code, "2 of 20 addresses failed with errors that may be temporary" in said) == (2, True)
        broken.clear()
        yield made


def in_the_way(path, kind):
    """Something else than is expected there."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        (path / "mine").mkdir(parents=True)
    elif kind == "link":
        path.symlink_to(path)
    else:
        path.write_bytes(b"mine")


PLACES = {
    "the raw folder is a file": (lambda made: made.raw, "file"),
    "the raw folder is a link to itself": (lambda made: made.raw, "link"),
    "its parent is a file": (lambda made: made.raw.parent, "file"),
    "data is a file": (lambda made: made.folder / "data", "file"),
    "the partial folder is a file": (lambda made: made.partial, "file"),
    "the state is a file": (lambda made: made.folder / ".state", "file"),
    "parts is a file": (lambda made: made.parts, "file"),
    "a journal is a folder": (lambda made: made.parts / "000002.jsonl", "folder"),
    "data of photos is a folder": (lambda made: made.parts / "000002.data", "folder"),
    "a list is a folder": (lambda made: made.parts / "000001.csv", "folder"),
    "the request is a folder": (lambda made: made.partial / "request.json", "folder"),
    "the summaries are a file": (lambda made: made.folder / "data/summaries", "file"),
}


@pytest.mark.parametrize("case", PLACES)
def test_what_is_in_the_way_is_named_in_one_line(crawl, case):
    where, kind = PLACES[case]
    path = where(crawl)
    in_the_way(path, kind)
    code, said, mistakes = crawl.run()
    assert (code, len(mistakes)) == (2, 1), said
    assert str(path) in mistakes[0]
    assert path.is_dir() if kind == "folder" else kind == "link" or path.read_bytes() == b"mine"


@pytest.mark.parametrize("case", ["the raw folder is a file", "its parent is a file"])
def test_no_address_is_asked_for_where_there_is_no_place_for_what_comes(crawl, case):
    in_the_way(PLACES[case][0](crawl), "file")
    assert crawl.run()[0] == 2
    assert not crawl.server.log


LINES = {
    "torn": lambda data: data[:-5],
    "garbage": lambda data: b"\0\xff" * 400,
    "garbage within": lambda data: data.replace(b"\n", b"\n\x1b[31m\xff\n", 1),
    "another version": lambda data: b'{"version": 2}\n[1]\n' + data,
    "other places": lambda data: data.replace(b'"place": 1', b'"place": -1'),
    "no such reason": lambda data: data.replace(b"server_error", b"bad_luck"),
    "spans that end before they start": lambda data: data.replace(b'"start": 0', b'"start": 99999999'),
    "texts for numbers": lambda data: data.replace(b'"start": 0', b'"start": "0"'),
    "nested without end": lambda data: b"[" * 100_000 + b"\n" + data,
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("case", LINES)
def test_a_damaged_journal_costs_what_its_damaged_lines_say(crawl, case):
    path = crawl.parts / "000002.jsonl"
    before = path.read_bytes()
    path.write_bytes(LINES[case](before))
    damaged = path.read_bytes()
    code, said, _ = crawl.run()
    assert code == 0, said
    assert crawl.is_whole()
    lost = sum(line not in damaged.split(b"\n") for line in before.splitlines())
    assert len(crawl.server.log) <= 2 + lost  # two had failed in a way that may pass
    assert ("damaged lines were moved to 000002.jsonl.damaged" in said) == (case not in ("torn", "empty"))


@pytest.mark.parametrize("size", [0, 1, 10_000])
def test_photos_that_the_disk_lost_are_asked_for_again(crawl, size):
    os.truncate(crawl.parts / "000002.data", size)
    assert crawl.run()[0] == 0
    assert crawl.is_whole()


@pytest.mark.parametrize("data", [None, b"\xff", b"a,b\n", b"a,b,bad_luck,d\n", b'"a', b"\0,\0,\0,\0\n"])
def test_a_damaged_list_of_what_is_gone_is_named_with_the_remedy(crawl, data):
    path = crawl.parts / "000001.csv"
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    code, said, mistakes = crawl.run()
    assert (code, len(mistakes)) == (2, 1), said
    assert f"remove {path.with_suffix('.msg')} and run the command again" in mistakes[0]
    path.with_suffix(".msg").unlink()
    assert crawl.run()[0] == 0
    assert crawl.is_whole()


@pytest.mark.parametrize("note", [b"", b"{", b"\xff\xfe", b"[]", b'{"urls": 1}'])
def test_unfinished_work_of_who_knows_what_is_begun_anew(crawl, note):
    (crawl.partial / "request.json").write_bytes(note)
    assert crawl.run()[0] == 0
    assert crawl.is_whole()


def test_files_of_others_among_the_parts_are_left_alone(crawl):
    for name in ("1x.msg", "x.msg", "000001.msg.bak", ".msg"):
        (crawl.parts / name).write_bytes(b"?")
    assert crawl.run()[0] == 0
    assert crawl.is_whole()


def test_a_full_disk_is_one_line_and_what_came_is_kept(crawl):
    shutil.rmtree(crawl.partial)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond that: what a full disk is to the program.
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * len(BODY), hard))
    try:
        code, said, mistakes = crawl.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (code, len(mistakes)) == (2, 1), said
    assert "File too large; allow larger files" in mistakes[0]
    assert crawl.run()[0] == 0
    assert crawl.is_whole()
    assert len(crawl.server.log) < COUNT


def test_journal_names_its_records(tmp_path):
    with journal.Journal(tmp_path / "j", lambda record: "mine" in record) as made:
        made.add({"mine": 1})
        made.add({"theirs": 2})
        made.add({"mine": 3})
    for damaged in (1, 0):
        with journal.Journal(tmp_path / "j", lambda record: "mine" in record) as made:
            assert made.records == [{"mine": 1}, {"mine": 3}]
            assert made.damaged == damaged
    assert (tmp_path / "j.damaged").read_bytes() == b'{"theirs": 2}\n'
