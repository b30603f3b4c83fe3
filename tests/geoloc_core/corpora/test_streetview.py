"""Against a server of this machine that imitates the API."""

import base64
import hashlib
import hmac
import json
import re
import time
import traceback
from collections import Counter
from datetime import datetime
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import Reply, serving
from made_photos import encoded
from pydantic import ValidationError

from geoloc_core.corpora import places as plans
from geoloc_core.corpora.answers import Address
from geoloc_core.corpora.fetch.streetview import Options, fetch
from geoloc_core.corpora.photo import Photo, Reason
from geoloc_core.corpora.sources import streetview
from geoloc_core.corpora.streetview import Credentials, View, estimate, signature
from geoloc_core.errors import UserError
from geoloc_core.files import files_under, remove

TOKEN = "AIza-very-private"
SECRET = base64.urlsafe_b64encode(b"sign with this?>").decode()
GRID = {"plan": "grid", "south": 50, "west": 0, "north": 54, "east": 2, "step": 1}
VIEW = {"headings": [0, 90.5], "budget": 1, "price_per_1000": 10}
SOURCE = streetview.Options(kind="streetview")


def pano_of(query):
    """Each square has a panorama but those of 52°; those of one row of squares share theirs."""
    if "pano" in query:
        return query["pano"]
    latitude, longitude = map(float, query["location"].split(","))
    return (
        None
        if 52 < latitude < 53
        else f"pano_{latitude:g}".replace(".", "-") + ("" if latitude < 51 else f"_{longitude:g}".replace(".", "-"))
    )


class Api:
    """What the official endpoints answer; ``say`` replaces statuses of the metadata, ``pictures`` answers to images."""

    def __init__(self):
        self.say, self.pictures, self.queries, self.token = {}, {}, [], TOKEN

    def __call__(self, path, n):
        parts = urlsplit(path)
        query = {key: value[0] for key, value in parse_qs(parts.query).items()}
        self.queries.append((parts.path, query))
        if query.pop("key", None) != self.token:
            return self.json(status="REQUEST_DENIED", error_message=f"The key {TOKEN} is invalid.")
        return self.metadata(query) if parts.path == "/api/metadata" else self.picture(query)

    def metadata(self, query):
        pano = pano_of(query)
        status = self.say.pop(0, None) if self.say.get(0) else self.say.get(pano)
        if status or pano is None:
            return self.json(status=status or "ZERO_RESULTS")
        return self.json(
            status="OK", pano_id=pano, location={"lat": 50.1, "lng": 0.2}, date="2019-07", copyright="© Google"
        )

    def picture(self, query):
        name = (query["pano"], query["heading"])
        return self.pictures.get(name) or Reply(body=encoded(len(self.queries)))

    def json(self, **answer):
        return Reply(body=json.dumps(answer).encode(), headers={"Content-Type": "application/json"})

    def asked(self, path):
        return [query for where, query in self.queries if where == path]


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setenv("GOOGLE_MAPS_API_KEY", TOKEN)
    monkeypatch.delenv("GOOGLE_MAPS_SIGNING_SECRET", raising=False)
    made = Api()
    with serving(made) as server:
        made.base = f"{server.url}/api"
        yield made


def crawl(tmp_path, api, plan=GRID, path="", **view):
    limits = {"wait_s": 0.01, "tries": 2, "per_host": 2}
    options = Options(
        kind="streetview", path=path or tmp_path, places=plan, view={**VIEW, "base": api.base, **view}, limits=limits
    )
    return fetch(options, name="uk", source=None, seed=3, out=tmp_path / "out", partial=tmp_path / "partial")


def test_a_grid_becomes_a_corpus_that_ingest_reads(tmp_path, api, capsys):
    api.pictures["pano_51-5_0-5", "90.5"] = Reply(404)
    assert crawl(tmp_path, api) == {
        "places": 8,
        "places_without": {"same_panorama": 1, "zero_results": 2},
        "panoramas": 5,
        "pictures": 9,
        "pictures_missing": {"not_found": 1},
        "requests_charged_at_most": 10,
        "cost_at_most": 0.1,
    }
    assert len(api.asked("/api/metadata")) == 8
    look = {"size": "640x640", "fov": "90", "pitch": "0", "return_error_code": "true"}
    names = ("pano_50-5", "pano_51-5_0-5", "pano_51-5_1-5", "pano_53-5_0-5", "pano_53-5_1-5")
    expected = [{"pano": pano, "heading": heading, **look} for pano in names for heading in ("0", "90.5")]
    assert sorted(api.asked("/api"), key=str) == sorted(expected, key=str)
    items = list(streetview.read(SOURCE, tmp_path / "out").items)
    assert len(items) == 10
    assert [item.reason for item in items if not isinstance(item, Photo)] == [Reason.MISSING]
    first = items[0]
    assert (first.path, first.group_id, first.place_id) == ("images/pano_50-5/0.jpg", "pano_50-5", "pano_50-5")
    assert (first.latitude, first.longitude) == (50.1, 0.2)
    assert (first.heading, first.captured_at) == (0, datetime(2019, 7, 1))
    assert first.attributes == {"pano_id": "pano_50-5", "month": 7, "copyright": "© Google"}
    said = capsys.readouterr().err.splitlines()
    assert "8 places: 8 requests for metadata, free of charge, then at most 16 pictures" in said[0]
    assert "at most 0.16 at 10 per 1,000; the budget is 1.00" in said[0]


def test_the_estimate_comes_before_the_key_is_needed(tmp_path, api, capsys, monkeypatch):
    monkeypatch.setenv("GOOGLE_MAPS_API_KEY", " ")
    with pytest.raises(UserError, match="GOOGLE_MAPS_API_KEY: not set"):
        crawl(tmp_path, api)
    assert "at most 16 pictures" in capsys.readouterr().err
    assert not api.queries


@pytest.mark.parametrize("budget", [0, 0.099])
def test_no_picture_is_asked_for_that_the_budget_does_not_cover(tmp_path, api, budget):
    with pytest.raises(UserError, match=r"10 pictures would bring the cost to 0.10; the budget is .*no picture was"):
        crawl(tmp_path, api, budget=budget)
    assert not api.asked("/api")
    api.queries.clear()
    assert crawl(tmp_path, api, budget=0.1)["pictures"] == 10
    assert not api.asked("/api/metadata")


def test_pictures_asked_for_again_stop_at_the_budget_too(tmp_path, api):
    api.pictures["pano_50-5", "0"] = Reply(body=encoded(1), length=10**6)
    with pytest.raises(UserError, match=r"budget: 10 requests may have cost 0.10 of 0.10"):
        crawl(tmp_path, api, budget=0.1)
    # Ten were admitted and count as charged; the last two may have been called back before the server saw them.
    assert 8 <= len(api.asked("/api")) <= 10
    api.pictures.clear()
    with pytest.raises(UserError, match="would bring the cost"):
        crawl(tmp_path, api, budget=0.1)
    assert len(api.asked("/api")) <= 10
    assert crawl(tmp_path, api)["pictures"] == 10
    pictures = Counter((query["pano"], query["heading"]) for query in api.asked("/api"))
    assert len(pictures) == 10
    # Besides the broken one, at most the two that were on their way when the budget ended it.
    assert sum(times > 1 for times in pictures.values()) <= 3


def test_a_quota_that_is_used_up_stops_and_what_came_is_kept(tmp_path, api):
    api.say["pano_53-5_1-5"] = "OVER_QUERY_LIMIT"
    with pytest.raises(UserError, match=r"quota is used up .OVER_QUERY_LIMIT.*run the command again later"):
        crawl(tmp_path, api)
    assert not api.asked("/api")
    api.say.clear()
    api.queries.clear()
    api.pictures["pano_53-5_1-5", "0"] = Reply(429)
    with pytest.raises(UserError, match="quota is used up"):
        crawl(tmp_path, api)
    # The one that was refused, and the one that was on its way then.
    assert len({query["location"] for query in api.asked("/api/metadata")}) <= 2
    api.pictures.clear()
    before = set(files_under(tmp_path / "partial" / "made"))
    api.queries.clear()
    assert crawl(tmp_path, api)["pictures"] == 10
    assert not before & {f"images/{query['pano']}/{query['heading']}.jpg" for query in api.asked("/api")}


def test_a_moment_of_trouble_passes(tmp_path, api):
    api.say[0] = "UNKNOWN_ERROR"
    assert crawl(tmp_path, api)["panoramas"] == 5
    assert len(api.asked("/api/metadata")) == 9


def test_trouble_that_stays_is_asked_for_again_next_time_only(tmp_path, api):
    api.say["pano_53-5_1-5"] = "UNKNOWN_ERROR"
    with pytest.raises(UserError, match="1 of 8 requests for metadata failed with errors that may be temporary"):
        crawl(tmp_path, api)
    api.say.clear()
    api.queries.clear()
    assert crawl(tmp_path, api)["panoramas"] == 5
    assert len(api.asked("/api/metadata")) == 1


def test_a_refused_key_is_said_and_never_shown_or_kept(tmp_path, api, monkeypatch, capsys, caplog):
    monkeypatch.setenv("GOOGLE_MAPS_SIGNING_SECRET", SECRET)
    api.say["pano_53-5_1-5"] = "REQUEST_DENIED"
    with caplog.at_level("DEBUG"), pytest.raises(UserError, match="GOOGLE_MAPS_API_KEY: the API refuses it") as denied:
        crawl(tmp_path, api)
    api.say.clear()
    api.pictures["pano_50-5", "0"] = Reply(403)
    with caplog.at_level("DEBUG"), pytest.raises(UserError, match=r"refuses it .status 403") as forbidden:
        crawl(tmp_path, api)
    api.pictures.clear()
    with caplog.at_level("DEBUG"):
        crawl(tmp_path, api)
    kept = b"".join((tmp_path / path).read_bytes() for path in files_under(tmp_path)).decode("latin-1")
    shown = f"{denied.value} {forbidden.value} {capsys.readouterr()} {caplog.text} {Credentials.of()}"
    for hidden in (TOKEN, SECRET):
        assert hidden not in kept
        assert hidden not in shown


def test_a_key_that_the_api_repeats_is_not_shown(tmp_path, api):
    api.token = "another"
    with pytest.raises(UserError, match=r"The key … is invalid"):
        crawl(tmp_path, api)


def plain(data: bytes) -> str:
    """Bytes with all that may disguise a key undone."""
    text = data.decode("latin-1") + data.decode("utf-16-le", "replace") + data.decode("utf-16-be", "replace")
    for _ in range(4):
        text = unquote(text)
    return re.sub(r"\\\\?u(00[0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text).lower()


def escaped(text: str) -> str:
    return "".join(f"%{ord(character):02X}" for character in text)


SPELLINGS = {
    "as it is": TOKEN,
    "in capitals": TOKEN.upper(),
    "percent-encoded": escaped(TOKEN),
    "half of it percent-encoded": TOKEN[:5] + escaped(TOKEN[5:]).lower(),
    "percent-encoded twice": escaped(TOKEN).replace("%", "%25"),
    "within a longer text": f"http://h/?q=1&key={TOKEN}&z=\u00e9",
}
ECHOES = {
    "copyright": lambda said: {"status": "OK", "copyright": f"© {said}"},
    "date": lambda said: {"status": "OK", "date": said},
    "pano_id": lambda said: {"status": "OK", "pano_id": said},
    "status": lambda said: {"status": said},
    "status of capitals": lambda said: {"status": "A_" + said.upper()},
    "error_message": lambda said: {"status": "REQUEST_DENIED", "error_message": f"no: {said}"},
    "a name": lambda said: {"status": "OK", said: said},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("where", ECHOES)
def test_a_key_that_the_metadata_repeat_is_nowhere(tmp_path, api, capsys, caplog, where, spelling):
    said = ECHOES[where](SPELLINGS[spelling])

    def metadata(query):
        pano = {"pano_id": f"p{query['location']}".translate(str.maketrans(".,", "-_"))}
        answer = {"location": {"lat": 50, "lng": 0}, "date": "2019-07", "copyright": "©", **pano, **said}
        text = json.dumps(answer, ensure_ascii=query["location"].startswith("50"))
        # As JSON may say it: no letter as it is, and in another encoding.
        text = text.replace("AI", "\\u0041\\u0049") if query["location"].startswith("51") else text
        return Reply(body=text.encode("utf-16" if query["location"].startswith("52") else "utf-8"))

    api.metadata = metadata
    errors = []
    with caplog.at_level("INFO"):
        try:
            crawl(tmp_path, api)
        except UserError as error:
            errors += traceback.format_exception(error)
    shown = "".join([*errors, *capsys.readouterr(), caplog.text])
    kept = {path: (tmp_path / path).read_bytes() for path in files_under(tmp_path)}
    assert TOKEN.lower() not in plain(shown.encode())
    assert not [path for path, data in kept.items() if TOKEN.lower() in plain(path.encode()) + plain(data)]
    if where in ("copyright", "date"):
        assert "…" in (tmp_path / "out" / "panoramas.csv").read_text()
    else:
        assert "…" in shown or "odd_metadata" in shown or (where, errors) == ("a name", [])


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=encoded(1) + TOKEN.encode()),
        Reply(body=encoded(1) + escaped(TOKEN).lower().encode()),
        Reply(body=b"no photo", headers={"Content-Type": f"image/{TOKEN}"}),
        Reply(raw=True, body=f"HTTP/1.1 {TOKEN}\r\n\r\n".encode()),
        Reply(429, headers={"Retry-After": "99999", "X-Key": TOKEN}),
        Reply(302, headers={"Location": f"http://127.0.0.1:1/?key={TOKEN}"}),
        Reply(302, headers={"Location": f"http://{TOKEN}/"}),
    ],
)
def test_a_key_that_the_pictures_repeat_is_nowhere(tmp_path, api, capsys, reply):
    api.pictures = {(pano_of(query), heading): reply for query in [{"pano": "pano_50-5"}] for heading in ("0", "90.5")}
    try:
        crawl(tmp_path, api)
        said = ""
    except UserError as error:
        said = "".join(traceback.format_exception(error))
    assert TOKEN.lower() not in plain("".join([said, *capsys.readouterr()]).encode())
    assert not [path for path in files_under(tmp_path) if TOKEN.lower() in plain((tmp_path / path).read_bytes())]


@given(st.text(), st.text(), st.lists(st.integers(0, 4), min_size=len(TOKEN), max_size=len(TOKEN)))
def test_no_spelling_of_the_key_stays(before, after, how):
    ways = [str, str.upper, escaped, lambda c: escaped(c).lower(), lambda c: escaped(c).replace("%", "%2525")]
    spelt = "".join(ways[way](character) for way, character in zip(how, TOKEN, strict=True))
    assert TOKEN.lower() not in plain(Credentials(TOKEN).hidden(before + spelt + after).encode("utf-8", "replace"))


@given(st.text())
def test_text_without_the_key_stays(text):
    assert Credentials(TOKEN, SECRET).hidden(text) == text


def test_an_address_never_shows_itself():
    assert TOKEN not in repr(Address("a", f"http://h/?key={TOKEN}"))


@pytest.mark.parametrize("key", ["a b", "k\x1b", "k%41", "kéy", 'k"'])
def test_a_key_that_is_none_is_said_and_not_shown(key):
    with pytest.raises(UserError, match="GOOGLE_MAPS_API_KEY: not a key") as caught:
        Credentials.of({"GOOGLE_MAPS_API_KEY": key})
    assert key not in str(caught.value)


def test_a_base_that_is_no_address_is_refused_with_the_parameters():
    with pytest.raises(ValidationError, match="expected http://"):
        View(budget=1, base="http://[bad")


def stopped(tmp_path, api):
    """An unfinished run: all metadata, and three pictures at least."""
    api.pictures["pano_53-5_0-5", "0"] = Reply(403)
    with pytest.raises(UserError, match="refuses it"):
        crawl(tmp_path, api)
    api.pictures.clear()
    # a request that the stopped crawl had sent may reach the server after it
    sent = (tmp_path / "partial" / "images.jsonl").read_bytes().count(b'"asked"')
    late = time.monotonic() + 1
    while len(api.asked("/api")) < sent and time.monotonic() < late:
        time.sleep(0.01)
    api.queries.clear()
    made = tmp_path / "partial" / "made"
    brought = [path for path in files_under(made) if path.startswith("images/")]
    assert len(brought) >= 3
    return brought


def test_pictures_stay_until_the_stage_has_ended_well(tmp_path, api):
    crawl(tmp_path, api)
    remove(tmp_path / "out")  # the disk was full when the corpus was drawn, or the machine was lost
    api.queries.clear()
    assert crawl(tmp_path, api)["pictures"] == 10
    assert not api.queries


DAMAGE = {
    "torn": lambda lines: [*lines[:-1], lines[-1][:9]],
    "garbage within": lambda lines: [lines[0], b"\0\xff\n", *lines[1:]],
    "a line garbled": lambda lines: [lines[0], b"{" + lines[1], *lines[2:]],
    "another version": lambda lines: [b'{"version": 9}\n', *lines],
    "other types": lambda lines: [
        b'{"query": 1, "reason": 2}\n',
        b'{"asked": null}\n',
        b'{"gone": []}\n',
        b"[]\n",
        *lines,
    ],
    "a path for an id": lambda lines: [
        b'{"query": "q", "pano_id": "../../x", "latitude": 1, "longitude": 2, "date": "", "copyright": ""}\n',
        *lines,
    ],
    "nested without end": lambda lines: [b"[" * 100_000 + b"\n", *lines],
    "gone": lambda lines: [],
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["metadata.jsonl", "images.jsonl"])
def test_a_damaged_journal_is_said_and_what_is_paid_for_is_not_paid_again(tmp_path, api, capsys, name, damage):
    brought = stopped(tmp_path, api)
    path = tmp_path / "partial" / name
    before = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(DAMAGE[damage](before)))
    found = crawl(tmp_path, api)
    assert (found["pictures"], found["requests_charged_at_most"] >= 10) == (10, True)
    said = capsys.readouterr().err
    again = {f"images/{query['pano']}/{query['heading']}.jpg" for query in api.asked("/api")}
    assert not again & set(brought)
    assert ("damaged lines were moved to" in said) == (damage not in ("torn", "gone"))
    assert ("may be requests that were charged" in said) == (damage not in ("torn", "gone") and name == "images.jsonl")


def test_damaged_lines_count_as_charged(tmp_path, api):
    stopped(tmp_path, api)
    path = tmp_path / "partial" / "images.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], *(b"?" + line for line in lines[1:])]))
    asked = sum(b"asked" in line for line in lines)
    found = crawl(tmp_path, api)
    assert found["requests_charged_at_most"] == asked + len(api.asked("/api"))


@pytest.mark.parametrize("note", [None, b"", b"{", b"\xff", b'{"width": 1}', b"[]"])
def test_paid_pictures_of_who_knows_what_view_are_neither_used_nor_lost(tmp_path, api, note):
    brought = stopped(tmp_path, api)
    path = tmp_path / "partial" / "request.json"
    path.unlink()
    if note is not None:
        path.write_bytes(note)
    # what is asked for is written down before, while the server may still meet a request of the crawl that was stopped
    journal = (tmp_path / "partial" / "images.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"paid pictures in .*made were taken with an(other|) .*view.* or remove"):
        crawl(tmp_path, api)
    assert (tmp_path / "partial" / "images.jsonl").read_bytes() == journal
    assert set(brought) <= set(files_under(tmp_path / "partial" / "made"))


def test_another_view_does_not_drop_what_is_paid_for(tmp_path, api):
    brought = stopped(tmp_path, api)
    with pytest.raises(
        UserError, match=r'another view; set run\.corpora\.uk\.fetch\.view back to \{.*"pitch": 0.*\}, or remove'
    ):
        crawl(tmp_path, api, pitch=10)
    assert set(brought) <= set(files_under(tmp_path / "partial" / "made"))
    assert crawl(tmp_path, api)["pictures"] == 10


def test_requests_are_signed(tmp_path, api, monkeypatch):
    monkeypatch.setenv("GOOGLE_MAPS_SIGNING_SECRET", SECRET)
    crawl(tmp_path, api)
    for path, query in api.queries:
        assert re.fullmatch(r"[A-Za-z0-9_-]{27}=", query["signature"]), path
    # The example of Google's documentation on digital signatures.
    url = "https://maps.googleapis.com/maps/api/geocode/json?address=New+York&client=clientID"
    assert signature(url, "vNIXE0xscrmjlyV-12Nj_BvUPaw=") == "chaRF2hTJKOScPr-RQCEhZbSzIE="
    address = Credentials(TOKEN, SECRET).address("http://h/api?pano=a")
    unsigned, _, given = address.partition("&signature=")
    mac = hmac.new(b"sign with this?>", unsigned.removeprefix("http://h").encode(), hashlib.sha1)
    assert base64.urlsafe_b64decode(given) == mac.digest()


def test_a_secret_that_is_none_is_said(monkeypatch):
    with pytest.raises(UserError, match="GOOGLE_MAPS_SIGNING_SECRET: not url-safe base64"):
        Credentials.of({"GOOGLE_MAPS_API_KEY": "k", "GOOGLE_MAPS_SIGNING_SECRET": "no!"})


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "OK"},
        {"status": "OK", "pano_id": "../up", "location": {"lat": 1, "lng": 2}},
        {"status": "OK", "pano_id": "a/b", "location": {"lat": 1, "lng": 2}},
        {"status": "OK", "pano_id": "a", "location": {"lat": "1", "lng": 2}},
        {"status": "OK", "pano_id": "a", "location": [1, 2]},
        {"status": 7},
        {"status": "\x1b[31mred"},
        {"status": "OK", "pano_id": ["a"], "location": {"lat": 1, "lng": 2}},
        {"status": "OK", "pano_id": "a", "location": {"lat": float("nan"), "lng": 2}},
        [],
        None,
    ],
)
def test_odd_metadata_is_no_panorama(tmp_path, api, answer):
    api.metadata = lambda query: Reply(body=json.dumps(answer).encode())
    with pytest.raises(UserError, match=r"no panorama at any of 8 places .(odd_metadata|refused) 8"):
        crawl(tmp_path, api)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 100_000, b'{"status": ' + b"9" * 5000 + b"}", b"{" * 2_000_000])
def test_what_is_no_metadata_is_a_reason(tmp_path, api, body):
    api.metadata = lambda query: Reply(body=body)
    with pytest.raises(UserError, match=r"no panorama at any of 8 places .(refused|too_large) 8"):
        crawl(tmp_path, api)


def test_what_no_file_can_hold_is_replaced(tmp_path, api):
    api.metadata = lambda query: Reply(
        body=b'{"status": "OK", "pano_id": "a", "location": {"lat": 1, "lng": 2}, "copyright": "\\ud800"}'
    )
    assert crawl(tmp_path, api)["panoramas"] == 1
    assert (tmp_path / "out" / "panoramas.csv").read_text().count("?") == 2


def test_a_plan_that_changes_keeps_what_is_paid_for(tmp_path, api):
    with pytest.raises(UserError, match="no picture was requested"):
        crawl(tmp_path, api, budget=0.05)
    api.pictures["pano_50-5", "0"] = Reply(403)
    with pytest.raises(UserError, match="refuses"):
        crawl(tmp_path, api)
    api.pictures.clear()
    api.queries.clear()
    smaller = {**GRID, "north": 51}
    assert crawl(tmp_path, api, smaller, headings=[0])["panoramas"] == 1
    assert not api.asked("/api/metadata")
    assert files_under(tmp_path / "out") == ["images/pano_50-5/0.jpg", "panoramas.csv"]


def test_panoramas_by_id(tmp_path, api):
    listed = tmp_path / "ids.csv"
    listed.write_text("IMG_ID,LAT\nabcdefghijklmnopq_stuv_0.png,1\nabcdefghijklmnopq_stuv_1.png,1\nshort_1,1\n")
    summary = crawl(tmp_path, api, {"plan": "panoramas"}, listed)
    assert summary["panoramas"] == 2
    assert {query["pano"] for query in api.asked("/api/metadata")} == {"abcdefghijklmnopq_stuv", "short_1"}
    assert all("radius" not in query for query in api.asked("/api/metadata"))


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("abc\n\n def \nabc\n", ["abc", "def"]),
        ("\ufeffPano_ID\nabc\n", ["abc"]),
        ("\nLAT,panoid\n1,abc\n\n2,def\n", ["abc", "def"]),
    ],
)
def test_a_list_of_panoramas_is_a_list_or_a_table(tmp_path, text, ids):
    (tmp_path / "ids.csv").write_text(text)
    assert [place.pano_id for place in made({"plan": "panoramas"}, tmp_path / "ids.csv")] == ids


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("", "empty; expected a CSV"),
        ("pano_id\n", "no ids; expected one per line"),
        ("pano_id;LAT\nabc;1\n", "row 1 looks like its header, semicolons"),
        ("name,LAT\nabc,1\n", "no column pano_id"),
        ("abc\n\ndef,1\n", "row 3: 2 cells; expected 1"),
        ("abc\n".encode("utf-16"), "its encoding is UTF-16"),
        (b"abc\n\xff\n", "row 2 is not UTF-8"),
    ],
)
def test_a_list_of_panoramas_is_judged_as_every_table(tmp_path, text, said):
    if text is not None:
        (tmp_path / "ids.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=said):
        made({"plan": "panoramas"}, tmp_path / "ids.csv")


def made(plan, path=None, seed=1):
    options = Options(kind="streetview", path=path or "x", places=plan, view={"budget": 0})
    return plans.places(options.places, options.path, seed)


def test_a_grid_is_the_centres_of_its_squares():
    found = made({"plan": "grid", "south": -1, "west": 179, "north": 1, "east": -179, "step": 1})
    assert [(p.latitude, p.longitude) for p in found] == [(-0.5, 179.5), (-0.5, -179.5), (0.5, 179.5), (0.5, -179.5)]
    assert len(made({"plan": "grid", "south": -90, "west": -180, "north": 90, "east": 180, "step": 10})) == 18 * 36
    for wrong in ({"north": 50}, {"step": 0.0001}, {"east": 0}, {"step": 0}, {"west": 200}):
        with pytest.raises(ValidationError):
            made({**GRID, **wrong})


@pytest.mark.slow
def test_towns_are_the_most_populous_of_each_country():
    found = made({"plan": "towns", "countries": ["GB", "NL"], "per_country": 3})
    assert len(found) == 6
    assert min(abs(p.latitude - 51.5085) + abs(p.longitude + 0.1257) for p in found) < 0.01  # London
    assert len(made({"plan": "towns", "per_country": 1})) > 200
    with pytest.raises(UserError, match="countries: XX"):
        made({"plan": "towns", "countries": ["XX"]})


@pytest.mark.slow
def test_random_places_lie_around_towns(tmp_path):
    from geoloc_core.geo.towns import Towns

    plan = {"plan": "random", "places": 500, "countries": ["NL"], "reach_km": 10}
    found = made(plan)
    assert found == made(plan)
    assert found != made(plan, seed=2)
    _, far = Towns.load().nearest([p.latitude for p in found], [p.longitude for p in found])
    assert far.max() <= 10
    assert far.max() > 5


@pytest.mark.slow
def test_random_places_lie_in_the_units_of_a_boundaries_folder(tmp_path):
    import numpy as np
    from shapely import box

    from geoloc_core.geo.locate import FOLDER, Locator, Units

    gids = np.array([["NLD", None, None], ["FRA", None, None]], dtype=object)
    Locator.build(np.array([box(0, 40, 20, 60), box(40, 40, 60, 60)]), Units(gids, gids)).save(tmp_path / FOLDER)
    found = made({"plan": "random", "places": 300, "countries": ["NL"]}, tmp_path)
    assert len(found) == 300
    assert all(40 <= p.latitude <= 60 and 0 <= p.longitude <= 20 for p in found)
    # Evenly by area: more in the south of the box than in its north.
    assert sum(p.latitude < 50 for p in found) > 150
    every = made({"plan": "random", "places": 300}, tmp_path)
    assert {p.longitude > 30 for p in every} == {True, False}
    with pytest.raises(UserError, match=r"0 of .* random points are in DE"):
        made({"plan": "random", "places": 1, "countries": ["DE"]}, tmp_path)


@pytest.mark.parametrize("text", [None, "", "IMG_ID,LAT\n"])
def test_a_list_without_ids_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "ids").write_text(text)
    with pytest.raises(UserError, match="ids"):
        made({"plan": "panoramas"}, tmp_path / "ids")


def test_the_estimate_counts_headings():
    view = View(headings=(0, 90, 180, 270), budget=5)
    assert "at most 4,000 pictures (4 per panorama), at most 28.00 at 7 per 1,000; the budget is 5.00" in estimate(
        1000, view
    )
