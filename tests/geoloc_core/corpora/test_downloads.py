"""Against a real server of this machine that misbehaves as servers do."""

import hashlib
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import Reply, serving
from made_photos import encoded

from geoloc_core.corpora.answers import Address, format_of, photo_fault
from geoloc_core.corpora.downloads import Limits, download
from geoloc_core.errors import UserError
from geoloc_core.web import Fault, Gone, retry_after_s

JPEG = encoded(1)
GIF = b"GIF89a" + bytes(2045)
QUICK = {"wait_s": 0.01}
HOLD_S = 60
"""Seconds for which a server waits for what must come; a test that waits so long has failed."""


def bring(server, *paths, sha256=None, check=None, admit=None, **limits):
    """Results by path."""
    results = {}

    def settle(address, result):
        assert address.key not in results
        results[address.key] = result

    wanted = [Address(path, path if "://" in path else server.url + path, n, sha256) for n, path in enumerate(paths)]
    counts = download(wanted, settle, Limits(**{**QUICK, **limits}), check, admit)
    assert counts.total() == len(results) == len(paths)
    return results


def one(reply, path="/a.jpg", **limits):
    """What became of one address, and how often it was asked for: a server may be told so only later."""
    asked = []
    with serving(reply if callable(reply) else lambda path, n: reply) as server:
        result = bring(server, path, admit=asked.append, **limits)[path]
        return (result.reason if isinstance(result, Fault) else result), len(asked)


def test_bytes_arrive_as_they_came():
    assert one(Reply(body=JPEG)) == (JPEG, 1)
    assert one(Reply(body=JPEG, length=-1, headers={"Connection": "close"})) == (JPEG, 1)


FINAL = {
    "404": (Reply(404), Gone.NOT_FOUND),
    "410": (Reply(410), Gone.REMOVED),
    "401": (Reply(401), Gone.FORBIDDEN),
    "403": (Reply(403), Gone.FORBIDDEN),
    "451": (Reply(451), Gone.FORBIDDEN),
    "418": (Reply(418), Gone.REFUSED),
    "206": (Reply(206, JPEG), Gone.REFUSED),
    "redirect to nowhere": (Reply(302), Gone.REFUSED),
    "page": (Reply(body=b"\n <!doctype html><p>Log in", headers={"Content-Type": "text/html"}), Gone.NOT_A_PHOTO),
    "page that claims to be a photo": (Reply(body=b"<html>sorry"), Gone.NOT_A_PHOTO),
    "text": (Reply(body=b"no such photo"), Gone.NOT_A_PHOTO),
    "empty": (Reply(body=b""), Gone.EMPTY),
    "too large": (Reply(body=JPEG + bytes(20_000)), Gone.TOO_LARGE),
    "too large, unannounced": (Reply(body=JPEG + bytes(20_000), length=-1), Gone.TOO_LARGE),
    "redirect off the web": (Reply(302, headers={"Location": "file:///etc/passwd"}), Gone.BAD_ADDRESS),
}


@pytest.mark.parametrize("case", FINAL)
def test_what_will_not_change_is_asked_for_once(case):
    reply, reason = FINAL[case]
    assert one(reply, max_bytes=10_000) == (reason, 1)


PASSING = {
    "500": (Reply(500), Gone.SERVER_ERROR),
    "503": (Reply(503), Gone.SERVER_ERROR),
    "429": (Reply(429), Gone.BUSY),
    "408": (Reply(408), Gone.BUSY),
    "announces more than it sends": (Reply(body=JPEG, length=len(JPEG) + 100), Gone.BROKEN_OFF),
    "announces less than nothing": (
        Reply(raw=True, body=b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"),
        Gone.BROKEN_OFF,
    ),
    "no HTTP": (Reply(raw=True, body=b"SSH-2.0-OpenSSH\r\n\r\n"), Gone.BROKEN_OFF),
    "hangs up": (Reply(raw=True), Gone.BROKEN_OFF),
    "resets": (Reply(body=JPEG, length=len(JPEG) + 5, reset=True), Gone.UNREACHABLE),
    "garbled compression": (Reply(body=JPEG, headers={"Content-Encoding": "gzip"}), Gone.BROKEN_OFF),
}


@pytest.mark.parametrize("case", PASSING)
def test_what_may_pass_is_tried_again(case):
    reply, reason = PASSING[case]
    found, asked = one(reply, tries=2)
    assert asked == 2
    assert found is reason or {found, reason} == {Gone.BROKEN_OFF, Gone.UNREACHABLE}  # a reset may overtake the bytes
    assert one(lambda path, n: reply if n == 1 else Reply(body=JPEG), tries=2) == (JPEG, 2)


@pytest.mark.slow
def test_silence_and_trickling_have_an_end():
    over = threading.Event()
    silent = Reply(body=JPEG, before=lambda: over.wait(HOLD_S))
    trickling = Reply(body=JPEG, trickle=lambda: over.wait(0.1))  # a byte at a time: more than a minute
    try:
        with serving(lambda path, n: silent if path == "/silent" else trickling) as server:
            quiet = bring(server, "/silent", tries=2, silence_s=0.1)["/silent"]
            slow = bring(server, "/slow", tries=2, silence_s=HOLD_S, total_s=0.5)["/slow"]
            assert quiet == Fault(Gone.TIMEOUT, "0.1 s without any data")
            assert slow == Fault(Gone.TIMEOUT, "not finished within 0.5 s")
            assert one(lambda path, n: silent, tries=3, silence_s=0.1) == (Gone.TIMEOUT, 3)
            found, asked = one(lambda path, n: silent if n == 1 else Reply(body=JPEG), silence_s=2)
            assert found == JPEG
            assert asked >= 2
    finally:
        over.set()


def test_less_announced_than_sent_leaves_the_rest_and_the_connection():
    with serving(lambda path, n: Reply(body=JPEG, length=100)) as server:
        results = bring(server, "/a.jpg", "/b.jpg", per_host=1)
    assert results == {"/a.jpg": JPEG[:100], "/b.jpg": JPEG[:100]}  # cut photos are found when they are decoded


def test_nobody_there():
    with serving(lambda path, n: Reply()) as server:
        url = server.url
    assert bring(None, f"{url}/a.jpg", tries=2)[f"{url}/a.jpg"].reason is Gone.UNREACHABLE


@pytest.mark.parametrize("url", ["ftp://x/a.jpg", "http:///a.jpg", "http://[::1/a", "http://h:99999/a", "http://h:x/a"])
def test_addresses_that_are_none(url):
    assert bring(None, url)[url].reason is Gone.BAD_ADDRESS


def test_redirects_are_followed_but_not_for_ever():
    def answer(path, n):
        to = {"/a": "/b", "/b": "c/d?e=1", "/loop": "/pool", "/pool": "/loop", "/self": "/self"}.get(path)
        return Reply(302, headers={"Location": to}) if to else Reply(body=JPEG)

    with serving(answer) as server:
        results = bring(server, "/a", "/loop", "/self", max_redirects=3)
        assert results["/a"] == JPEG
        assert results["/loop"].reason is results["/self"].reason is Gone.REDIRECTS
        assert server.asked == {"/a": 1, "/b": 1, "/c/d?e=1": 1, "/loop": 2, "/pool": 2, "/self": 4}


def test_the_picture_that_stands_for_a_lost_photo():
    where = "/pw/images/en-us/photo_unavailable.png"
    with serving(lambda path, n: Reply(302, headers={"Location": where})) as server:
        assert bring(server, "/a.jpg")["/a.jpg"].reason is Gone.PLACEHOLDER
        assert server.log == ["/a.jpg"]
    flickr, other = Address("a", "http://farm3.staticflickr.com/1.jpg"), Address("a", "http://example.org/1.gif")
    assert photo_fault(flickr, GIF, "image/gif").reason is Gone.PLACEHOLDER
    assert photo_fault(flickr, GIF + bytes(16_384), "image/gif") is None
    assert photo_fault(flickr, JPEG, "image/jpeg") is None
    assert photo_fault(other, GIF, "image/gif") is None
    assert photo_fault(Address("a", "http://notflickr.com/1.gif"), GIF, "image/gif") is None


def test_a_checksum_is_held_and_another_try_is_given():
    good = hashlib.sha256(JPEG).hexdigest()
    answer = lambda path, n: Reply(body=JPEG if n == 2 else JPEG[:-1])  # noqa: E731
    assert one(answer, sha256=good.upper(), tries=3) == (JPEG, 2)
    assert one(Reply(body=JPEG), sha256="0" * 64, tries=3) == (Gone.CHECKSUM, 3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_host_that_asks_for_time_gets_it(kind, status):
    times = []

    def answer(path, n):
        times.append(time.time())
        if len(times) > 1:
            return Reply(body=JPEG)
        until = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        return Reply(status, headers={"Retry-After": "1" if kind == "seconds" else until})

    with serving(answer) as server:
        # All of the host waits, not the refused photo alone.
        assert set(bring(server, "/a", "/b", "/c", per_host=1).values()) == {JPEG}
    assert len(times) == 4
    assert times[1] - times[0] > 0.9


def test_a_host_that_asks_for_too_much_time_is_left_alone():
    with serving(lambda path, n: Reply(429, headers={"Retry-After": "86400"})) as server:
        results = bring(server, *(f"/{n}" for n in range(50)), per_host=1)
        assert len(server.log) == 1
    assert {fault.reason for fault in results.values()} == {Gone.BUSY}
    assert all("86,400 s" in fault.detail for fault in results.values())


def test_a_dead_host_is_left_alone_and_the_living_one_is_not():
    with serving(lambda path, n: Reply(500)) as dead, serving(lambda path, n: Reply(body=JPEG)) as alive:
        paths = [f"{server.url}/{n}" for n in range(40) for server in (dead, alive)]
        results = bring(None, *paths, patience=10, per_host=2, window=16)
        assert 10 <= len(dead.log) <= 12
    assert sum(result == JPEG for result in results.values()) == 40


def together(number):
    """An answer that comes once so many are asked for at a time, and leaves more of them the time to show."""
    there, reached = [], threading.Event()

    def wait():
        there.append(None)
        if len(there) >= number:
            reached.set()
        assert reached.wait(HOLD_S)
        time.sleep(0.01)

    return lambda path, n: Reply(body=JPEG, before=wait)


def test_limits_per_host_and_over_all_are_kept():
    with serving(together(3)) as one, serving(together(3)) as two:
        bring(None, *(f"{server.url}/{n}" for n in range(40) for server in (one, two)), per_host=3)
        assert one.most == two.most == 3
    with serving(together(2)) as server:
        bring(server, *(f"/{n}" for n in range(40)), per_host=8, connections=2)
        assert server.most == 2


def test_a_slow_host_does_not_hold_up_a_fast_one():
    order, gate = [], threading.Event()

    def settle(address, _):
        order.append(int(address.key))
        if len(order) == 30:
            gate.set()

    def slow(path, n):
        return Reply(body=JPEG, before=lambda: gate.wait(HOLD_S))

    with serving(slow) as first, serving(lambda path, n: Reply(body=JPEG)) as second:
        wanted = [Address(str(n), f"{first.url}/{n}") for n in range(10)]
        wanted += [Address(str(n), f"{second.url}/{n}") for n in range(10, 40)]
        download(wanted, settle, Limits(per_host=1, silence_s=2 * HOLD_S))
    assert sorted(order[:30]) == list(range(10, 40))


def test_no_more_addresses_are_read_than_the_window():
    drawn, settled = [], []

    def wanted(url):
        for n in range(200):
            drawn.append(n)
            assert len(drawn) - len(settled) <= 9
            yield Address(str(n), f"{url}/{n}")

    with serving(lambda path, n: Reply(body=JPEG)) as server:
        download(wanted(server.url), lambda address, _: settled.append(address), Limits(window=8))
    assert len(settled) == 200


def test_connections_are_used_again():
    ports = set()

    def answer(path, n):
        return Reply(body=JPEG)

    with serving(answer) as server:
        finish = server.finish_request
        server.finish_request = lambda request, client: (ports.add(client), finish(request, client))
        bring(server, *(f"/{n}" for n in range(100)), per_host=4)
    assert len(ports) == 4


@pytest.mark.parametrize("hook", ["settle", "admit", "addresses"])
def test_the_caller_can_stop_everything(hook):
    def stop(*_):
        raise UserError("enough")

    def wanted(url):
        for n in range(1000):
            yield Address(str(n), f"{url}/{n}") if hook != "addresses" or n < 100 else stop()

    with serving(lambda path, n: Reply(body=JPEG)) as server:
        settle = stop if hook == "settle" else lambda *_: None
        with pytest.raises(UserError, match="enough"):
            download(wanted(server.url), settle, Limits(window=50), admit=stop if hook == "admit" else None)
        assert len(server.log) < 150


def test_no_message_holds_an_address_or_its_secrets(caplog):
    with caplog.at_level("DEBUG"), serving(lambda path, n: Reply(int(path[1:4]), b"x")) as server:
        paths = [f"/{status}?key=SECRET" for status in (200, 302, 404, 429, 500)]
        results = bring(server, *paths, "http://127.0.0.1:1/?key=SECRET", "http://h:x/?key=SECRET", tries=1)
    assert all("SECRET" not in fault.detail for fault in results.values())
    assert "SECRET" not in caplog.text


@pytest.mark.slow
@given(st.one_of(st.text(), st.none(), st.integers().map(str)))
def test_any_retry_after_is_understood_or_ignored(value):
    wait = retry_after_s(value)
    assert wait is None or wait >= 0


@given(st.integers(0, 10**6))
def test_retry_after_in_both_forms(seconds):
    now = datetime(2024, 2, 29, 12, tzinfo=UTC)
    assert retry_after_s(str(seconds)) == seconds
    assert retry_after_s(format_datetime(now + timedelta(seconds=seconds), usegmt=True), now) == seconds
    assert retry_after_s(format_datetime(now - timedelta(seconds=seconds + 1), usegmt=True), now) == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000"])
def test_formats_are_known_by_their_first_bytes(kind):
    assert format_of(encoded(2, kind)) == kind


@given(st.binary(max_size=40))
def test_other_bytes_are_no_photo(data):
    if format_of(data) is None:
        assert isinstance(photo_fault(Address("a", "http://h/a"), data, ""), Fault)
