import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import msgpack
import pytest
from loopback import Reply, serving
from made_photos import encoded

from geoloc_core.corpora.again import due
from geoloc_core.corpora.fetch import urls
from geoloc_core.corpora.fetch.urls import Options, addresses, choose
from geoloc_core.corpora.photo import Photo, Reason
from geoloc_core.corpora.sources import places365
from geoloc_core.errors import UserError
from geoloc_core.files import digest

SOURCE = places365.Options(kind="places365", metadata="mp16_places365.csv", urls="mp16_urls.csv", shards="shard_*.msg")
QUICK = {"wait_s": 0.01, "silence_s": 60, "tries": 2}


def photo(number):
    return encoded(number)


def published(folder, url, count, name=lambda n: f"a{n % 7}/{n}.jpg"):
    """A folder as MP-16 publishes it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "mp16_places365.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(places365.COLUMNS)
        writer.writerows((name(n), "me", n % 80 + 0.5, 1.5, 1, 2, 3, 0.1, 0.8, 0.1) for n in range(count))
    with (folder / "mp16_urls.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows((name(n), f"{url}/{n}.jpg") for n in range(count))
    return folder


def fetch(tmp_path, given, limits=None, source=SOURCE, seed=1, **options):
    made = Options(kind="urls", path=given, limits={**QUICK, **(limits or {})}, **options)
    out, partial = tmp_path / "out", tmp_path / "partial"
    return urls.fetch(made, name="c", source=source, seed=seed, out=out, partial=partial)


def answer(path, n):
    number = int(path[1:-4])
    if number % 10 == 3:
        return Reply(404)
    if number % 10 == 5:
        return Reply(body=b"<html>", headers={"Content-Type": "text/html"})
    return Reply(body=photo(number))


def test_a_list_becomes_a_corpus_that_ingest_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(urls, "SHARD", 16)
    with serving(answer) as server:
        summary = fetch(tmp_path, published(tmp_path / "given", server.url, 40))
        assert set(server.asked.values()) == {1}
    assert summary["photos"] == 32
    assert summary["gone_by_reason"] == {"not_a_photo": 4, "not_found": 4}
    assert summary["shards"] == 3
    items = {item.image_id: item for item in places365.read(SOURCE, tmp_path / "out").items}
    assert len(items) == 40
    for n in range(40):
        item = items[f"a{n % 7}/{n}.jpg"]
        if n % 10 in (3, 5):
            assert item.reason is Reason.GONE
            assert item.detail == "gone.csv: " + ("not_found, status 404" if n % 10 == 3 else "not_a_photo, a web page")
        else:
            assert isinstance(item, Photo)
            assert item.data == photo(n)
            assert item.source_url == f"{server.url}/{n}.jpg"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(f"shard_{n}.msg" for n in range(3)), "gone.csv", "mp16_urls.csv", "mp16_places365.csv"
    }  # fmt: skip


def test_the_same_answers_make_the_same_bytes(tmp_path):
    def slow(path, n):
        reply = answer(path, n)
        reply.before = lambda: time.sleep(hash(path) % 5 / 500)
        return reply

    found = set()
    for run in range(2):
        with serving(slow if run else answer) as server:
            given = published(tmp_path / str(run), "http://elsewhere", 30)
            text = (given / "mp16_urls.csv").read_text().replace("http://elsewhere", server.url)
            (given / "mp16_urls.csv").write_text(text)
            fetch(tmp_path / str(run), given)
        found.add(digest(tmp_path / str(run) / "out" / "shard_0.msg"))
    assert len(found) == 1


def test_a_sample_is_drawn_by_id_and_grows(tmp_path):
    given = published(tmp_path, "http://h", 300) / "mp16_urls.csv"
    drawn = {size: {a.key for a in addresses(given, choose(given, size, 1))} for size in (10, 50, 1000, None)}
    assert [len(keys) for keys in drawn.values()] == [10, 50, 300, 300]
    assert drawn[10] < drawn[50] < drawn[None]
    assert {a.key for a in addresses(given, choose(given, 50, 2))} != drawn[50]
    lines = given.read_text().splitlines()
    given.write_text("\n".join(["IMG_ID,url", *lines[::-1], lines[0].replace("http", "https")]))
    assert {a.key for a in addresses(given, choose(given, 50, 1))} == drawn[50]
    places = list(addresses(given, choose(given, None, 1)))
    assert [a.place for a in places] == list(range(300))
    assert all(a.url.startswith("http://") for a in places)  # of ids that occur twice the first counts


def test_a_sample_lacks_nothing(tmp_path):
    with serving(lambda path, n: Reply(body=photo(int(path[1:-4])))) as server:
        given = published(tmp_path / "given", server.url, 60)
        (given / "captions.csv").write_text(
            "IMG_ID,caption\n" + "".join(f"a{n % 7}/{n}.jpg,é {n}\n" for n in range(60))
        )
        assert fetch(tmp_path, given, sample=12)["photos"] == len(server.log) == 12
    items = list(places365.read(SOURCE, tmp_path / "out").items)
    assert len(items) == 12
    assert all(isinstance(item, Photo) and item.attributes["caption"].startswith("é") for item in items)


def test_failures_that_may_pass_stop_the_stage_and_only_they_are_asked_for_again(tmp_path):
    broken = [True]

    def shaky(path, n):
        return Reply(503) if broken and path in ("/3.jpg", "/4.jpg") else Reply(body=photo(1 + n))

    with serving(shaky) as server:
        given = published(tmp_path / "given", server.url, 20)
        with pytest.raises(UserError, match="2 of 20 addresses failed with errors that may be temporary"):
            fetch(tmp_path, given)
        assert not (tmp_path / "out").exists()
        server.log.clear()
        broken.clear()
        assert fetch(tmp_path, given)["photos"] == 20
        assert sorted(server.log) == ["/3.jpg", "/4.jpg"]


def test_failures_that_are_few_count_as_gone(tmp_path):
    with serving(lambda path, n: Reply(503) if path == "/3.jpg" else Reply(body=photo(1))) as server:
        summary = fetch(tmp_path, published(tmp_path / "given", server.url, 20), max_failed_share=0.05)
    assert summary["gone_by_reason"] == {"server_error": 1}
    assert "a3/3.jpg" in (tmp_path / "out" / "gone.csv").read_text()


def test_what_was_gone_is_asked_for_again_after_a_time_and_nothing_else_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(urls, "SHARD", 16)
    parts, back = tmp_path / "state" / "partial" / "fetch" / "c", False

    def reply(path, n):
        return Reply(body=photo(int(path[1:-4]))) if back else answer(path, n)

    def crawl(days):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        made = Options(kind="urls", path=tmp_path / "given", limits=QUICK, look_again_days=days)
        urls.fetch(made, name="c", source=SOURCE, seed=1, out=tmp_path / "out", partial=parts)

    with serving(reply) as server:
        published(tmp_path / "given", server.url, 40)
        crawl(30)
        assert due(tmp_path / "state") == {}
        server.asked.clear()
        crawl(30)
        assert not server.asked, "all is kept, and it is not the time yet"
        for path in (parts / "parts").glob("*.csv"):
            os.utime(path, (0, time.time() - 31 * 86400))
        crawl(60)
        assert not server.asked
        crawl(None)
        assert not (parts / "again.json").exists(), "never"
        crawl(31.5)
        assert due(tmp_path / "state") == {}
        os.utime(parts / "parts" / "000001.csv", (0, time.time() - 32 * 86400))
        crawl(31.5)
        assert set(server.asked) == {"/23.jpg"}, "of the second shard alone; the page is no photo for ever"
        assert "c: 1 addresses that were gone 31.5 days ago are asked again" in capsys.readouterr().err
        lacking = (whole := parts / "parts" / "000002.csv").read_text()
        whole.write_text("")  # all photos of this shard came, long ago
        os.utime(whole, (0, 1))
        crawl(31.5)
        assert due(tmp_path / "state") == {}, "a shard that lacks nothing waits for nothing"
        whole.write_text(lacking)
        crawl(31.5)
        back = True
        server.asked.clear()
        for path in (parts / "parts").glob("*.csv"):
            os.utime(path, (0, 1))
        note = json.loads((parts / "again.json").read_text())
        (parts / "again.json").write_text(json.dumps(note | {"at": 1}))
        assert due(tmp_path / "state") == {"c": 4}
        (parts / "parts" / "000000.jsonl").write_text("left by a kill")
        crawl(30)
        assert set(server.asked) == {f"/{number}.jpg" for number in (3, 13, 23, 33)}
        assert not (parts / "again.json").exists(), "nothing is left that may come back"
    items = {item.image_id: item for item in places365.read(SOURCE, tmp_path / "out").items}
    for n in range(40):
        item = items[f"a{n % 7}/{n}.jpg"]
        assert (item.reason is Reason.GONE) if n % 10 == 5 else item.data == photo(n)


def test_flickr_is_asked_by_so_many_at_a_time_and_its_picture_for_lost_photos_is_none(tmp_path):
    def flickr(path, n):
        lost = {"Location": "https://combo.staticflickr.com/pw/images/en-us/photo_unavailable.png"}
        reply = Reply(302, headers=lost) if path in ("/3.jpg", "/9.jpg") else Reply(body=photo(1))
        reply.before = lambda: time.sleep(0.01)
        return reply

    with serving(flickr) as server:
        summary = fetch(tmp_path, published(tmp_path / "given", server.url, 30), {"per_host": 2, "connections": 30})
        assert server.most <= 2
        assert set(server.asked.values()) == {1}
    assert summary["gone_by_reason"] == {"placeholder": 2}
    assert "a3/3.jpg" in (tmp_path / "out" / "gone.csv").read_text()


def test_another_list_starts_anew(tmp_path):
    with serving(lambda path, n: Reply(503) if path == "/1.jpg" else Reply(body=photo(1))) as server:
        with pytest.raises(UserError):
            fetch(tmp_path, published(tmp_path / "given", server.url, 4))
        assert fetch(tmp_path, published(tmp_path / "given", server.url, 1))["photos"] == 1
        assert server.asked["/0.jpg"] == 2


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("mp16_urls.csv", None, "no such file"),
        ("mp16_urls.csv", "", "empty; expected a CSV with columns IMG_ID, url"),
        ("mp16_urls.csv", "IMG_ID,url\n", "no addresses"),
        ("mp16_urls.csv", "a.jpg,http://h/a\nonly one\n", "row 2: 1 cell; expected 2"),
        ("mp16_urls.csv", "a.jpg,http://h/a\n\n\nonly one\n", "row 4: 1 cell; expected 2"),
        ("mp16_urls.csv", "a.jpg,http://h/a\n\n ,http://h/b\n", "row 3: no id beside 'http://h/b'"),
        ("mp16_urls.csv", "\na.jpg;http://h/a\n", "row 2: semicolons between the columns; expected commas"),
        ("mp16_urls.csv", b"a\xff,http://h/a\n", "row 1 is not UTF-8"),
        ("mp16_urls.csv", "a,http://h/a\n".encode("utf-16"), "its encoding is UTF-16"),
        ("mp16_places365.csv", "IMG_ID;LAT\n", "row 1 looks like its header, semicolons"),
        ("captions.csv", "name,caption\n", "no column IMG_ID"),
        ("mp16_places365.csv", None, "no such file"),
    ],
)
def test_mistakes_are_named(tmp_path, file, text, said):
    given = published(tmp_path / "given", "http://127.0.0.1:1", 2)
    (given / file).unlink(missing_ok=True)
    if text is not None:
        (given / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=said):
        fetch(tmp_path, given)


def test_a_header_may_follow_blank_lines(tmp_path):
    listed = tmp_path / "u.csv"
    listed.write_text('\ufeff\n\nIMG_ID,url\n\na,http://h/a\n"b\nc", http://h/b \n,\n')
    assert list(urls.rows(listed)) == [("a", "http://h/a"), ("b\nc", "http://h/b")]


def test_a_list_is_read_as_it_is_asked_for(tmp_path):
    """What is wrong far down is met there alone."""
    listed = tmp_path / "u.csv"
    listed.write_text("".join(f"{n},http://h/{n}\n" for n in range(200_000)) + "one\n")
    found = urls.rows(listed)
    assert [next(found) for _ in range(10_000)][-1] == ("9999", "http://h/9999")
    with pytest.raises(UserError, match="row 200001: 1 cell"):
        list(found)


def test_a_source_without_shards_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"run\.corpora\.c\.source: expected `urls`, the list of addresses, and `shards`"
    ):
        fetch(tmp_path, tmp_path, source=SimpleNamespace(urls="u.csv", shards=None))


SCRIPT = """
import sys
from pathlib import Path
from geoloc_core.corpora.again import due
from geoloc_core.corpora.fetch import urls
sys.path.insert(0, {tests!r})
from test_urls import fetch
urls.SHARD = 64
fetch(Path({folder!r}), Path({given!r}), {{"per_host": 8, "window": 128}})
"""


@pytest.mark.slow
def test_killed_again_and_again_it_loses_nothing_and_fetches_nothing_twice(tmp_path):
    count, gate = 400, [80]

    def slow(path, n):
        reply = answer(path, n)
        # The server holds still where the client is to be killed, so that the kill meets work in progress.
        reply.before = lambda: [time.sleep(0.01) for _ in range(3000) if len(server.log) > gate[0]]
        return reply

    with serving(slow) as server:
        given = published(tmp_path / "given", server.url, count)
        script = SCRIPT.format(tests=os.path.dirname(__file__), folder=str(tmp_path), given=str(given))
        kept, asked = set(), {}
        for _ in range(3):
            client = subprocess.Popen([sys.executable, "-c", script])
            while len(server.log) <= gate[0] and client.poll() is None:
                time.sleep(0.005)
            assert client.poll() is None
            os.kill(client.pid, signal.SIGKILL)
            client.wait()
            kept_now = settled(tmp_path / "partial" / "parts")
            assert kept <= kept_now
            kept = kept_now
            for path in (f"/{place}.jpg" for place in kept):
                asked.setdefault(path, server.asked[path])
            before = len(server.log)
            gate[0] = before + 80
        assert len(kept) > 150
        gate[0] = 10**9
        assert subprocess.run([sys.executable, "-c", script], check=True, timeout=300).returncode == 0
        assert {path: server.asked[path] for path in asked} == asked
        # At each of three kills, at most the eight files on their way are asked for again.
        again = {path for path, times in server.asked.items() if times > 1}
        assert sum(server.asked[path] - 1 for path in again) <= 3 * 8
        assert len(server.asked) == count
    items = list(places365.read(SOURCE, tmp_path / "out").items)
    assert sum(isinstance(item, Photo) for item in items) == count * 8 // 10
    assert all(item.data == photo(int(item.image_id[3:-4])) for item in items if isinstance(item, Photo))


def settled(folder):
    """The places that the journals and the sealed shards of an unfinished run vouch for."""
    found = set()
    for path in folder.glob("*.jsonl"):
        lines = path.read_bytes().split(b"\n")[:-1]
        found |= {json.loads(line)["place"] for line in lines}
    for path in folder.glob("[0-9]*.msg"):
        with path.open("rb") as stream:
            ids = [record["id"] for record in msgpack.Unpacker(stream)]
        gone = [row[0] for row in csv.reader(path.with_suffix(".csv").open())]
        found |= {int(key[3:-4]) for key in ids + gone}
    return found
