"""Addresses, redirects and answers made to end a crawl: each costs its own file, with a reason, and no other."""

import csv
import gzip
import itertools
import socket
import zlib
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from loopback import Reply, serving, talking
from made_photos import encoded

from geoloc_core import web
from geoloc_core.corpora import downloads
from geoloc_core.corpora.answers import Address, photo_fault
from geoloc_core.corpora.downloads import Limits, download
from geoloc_core.corpora.fetch import urls
from geoloc_core.corpora.sources import places365
from geoloc_core.web import Fault, Gone, is_private, parsed

JPEG = encoded(1)
LIMITS = {"wait_s": 0.001, "tries": 2, "silence_s": 60, "max_bytes": 100_000, "max_redirects": 3}

NO_ADDRESSES = [
    "",
    " ",
    "http://[bad",
    "http://[::1",
    "//[x",
    "http:",
    "http://",
    "http:///a",
    "http://a..b/",
    "http://.a/",
    "http://-/..//\x00",
    "http://a b/",
    "http://" + "a" * 64 + "/",
    "http://" + "a." * 200 + "/",
    "http://\xad/",
    "http://\u2100/",
    "http://é" + "é" * 80 + "/",
    "http://a%00b/",
    "http://h:0/",
    "http://h:65536/",
    "http://h:-1/",
    "http://h:x/",
    "http://h:" + "9" * 5000 + "/",
    "http://1.2.3.400/",
    "http://h/\n\r\tX: y",
    "http://h/\ud800",
    "http://\ud800/",
    "http://h/" + "a" * 70_000,
    "file:///etc/passwd",
    "ftp://127.0.0.1/a",
    "javascript:alert(1)",
    "data:image/png;base64,AAAA",
    "gopher://127.0.0.1:1/",
    "\x1b[31m",
]


def bring(addresses, **limits):
    """Results by key."""
    results = {}
    download(addresses, lambda address, result: results.update({address.key: result}), Limits(**{**LIMITS, **limits}))
    return results


def reason(result):
    return result.reason if isinstance(result, Fault) else result


@pytest.mark.parametrize("url", NO_ADDRESSES)
def test_what_is_no_address_is_known_before_anyone_is_asked(url):
    assert parsed(url) == Fault(Gone.BAD_ADDRESS, "expected http:// or https://, a host and perhaps a port")
    assert photo_fault(Address("a", url), JPEG, "") is None


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "https://h:8443/a b?c#d",
        "http://[fe80::1%25eth0]:8/",
        "http://xn--a/",
        "http://a_b.c./",
        "HTTP://EXAMPLE.org/é",
        "http://bücher.example/",
        "http://1.2.3.4",
    ],
)
def test_what_may_be_one_is_asked(url):
    assert not isinstance(parsed(url), Fault)


@given(st.text() | st.text(max_size=20).map("http://{}".format) | st.text(max_size=20).map("https://h/{}".format))
def test_any_text_is_an_address_or_a_reason(url):
    found = parsed(url)
    assert isinstance(found, Fault) or found.scheme in ("http", "https")
    assert photo_fault(Address("a", url), b"\xff\xd8\xff", "") is None


@settings(max_examples=40)
@given(st.text(max_size=30), st.sampled_from(["{}", "http://{}", "http://127.0.0.1:1/{}", "http://127.0.0.1:1{}/"]))
@example("xn--a", "http://{}.invalid/")  # a name that IDNA cannot spell
def test_any_text_in_a_list_costs_its_own_file_alone(text, pattern):
    wanted = [Address("odd", pattern.format(text)), Address("even", "http://127.0.0.1:1/"), Address("no", "")]
    # Nobody answers at that port, and no name is looked up that may be someone's.
    if not isinstance(found := parsed(wanted[0].url), Fault) and found.raw_host != b"127.0.0.1":
        name = found.raw_host.decode().rstrip(".")
        wanted[0] = Address("odd", "" if ":" in name else f"http://{name}.invalid/")
    results = bring(wanted, tries=1)
    assert set(results) == {"odd", "even", "no"}
    assert all(isinstance(result, Fault) and result.detail.isprintable() for result in results.values())


RELATIVE = ("", " ", "http:", "http://", "http:///a", "\x1b[31m")
"""No addresses by themselves, but where a redirect may lead that says what differs from where it came from."""
LOCATIONS = {
    **{url: Gone.BAD_ADDRESS for url in NO_ADDRESSES if url not in RELATIVE and not set(url) & {"\n", "\0", "\ud800"}},
    "http://127.0.0.1:1/": Gone.UNREACHABLE,
    "/round": Gone.REDIRECTS,
    "/" + "x" * 200_000: Gone.BROKEN_OFF,
}  # fmt: skip


def test_hostile_redirects_are_one_row_each_and_the_crawl_goes_on():
    places = list(LOCATIONS)

    def answer(path):
        name = path.strip("/")
        if name == "good":
            yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(JPEG), JPEG)
        else:
            location = "/round" if name == "round" else places[int(name)]
            yield f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()

    with talking(answer) as url:
        wanted = [Address(place, f"{url}/{n}") for n, place in enumerate(places)]
        results = bring([*wanted, Address("good", f"{url}/good")])
    assert results.pop("good") == JPEG
    assert {place: reason(result) for place, result in results.items()} == LOCATIONS
    assert all(len(result.detail) <= 200 and result.detail.isprintable() for result in results.values())


def chunked(*chunks):
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def headed(body=b"", **headers):
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    return [b"HTTP/1.1 200 OK\r\n" + "".join(lines).encode() + b"\r\n" + body]


def endless(part):
    return lambda: itertools.chain(headed(Connection="close"), itertools.repeat(part))


def squeezed(times):
    """As much as a bomb of 10 GB would, if only it were unpacked: a megabyte of it at a time, in a few bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    yield from headed(Content_Encoding="gzip", Connection="close")
    zeros = bytes(2**20)
    for _ in range(times):
        yield packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)


ANSWERS = {
    "no status": (lambda: [b"\r\n\r\n\0\xff"], Gone.BROKEN_OFF),
    "SSH": (lambda: [b"SSH-2.0-x\r\n"], Gone.BROKEN_OFF),
    "TLS": (lambda: [b"\x15\x03\x01\0\x02\x02\x28"], Gone.BROKEN_OFF),
    "a status of words": (lambda: [b"HTTP/1.1 OK 200\r\n\r\n"], Gone.BROKEN_OFF),
    "a status that is none": (lambda: [b"HTTP/1.1 099 No\r\n\r\n"], Gone.BROKEN_OFF),
    "status 999": (lambda: [b"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n"], Gone.SERVER_ERROR),
    "another protocol": (lambda: [b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"], Gone.BROKEN_OFF),
    "a header without end": (
        lambda: itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], itertools.repeat(b"x" * 4096)),
        Gone.BROKEN_OFF,
    ),
    "headers without end": (
        lambda: itertools.chain([b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"X: y\r\n" * 512)),
        Gone.BROKEN_OFF,
    ),
    "a header that is none": (lambda: [b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"], Gone.BROKEN_OFF),
    "lengths that differ": (
        lambda: [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"],
        Gone.BROKEN_OFF,
    ),
    "a length of words": (lambda: headed(JPEG, Content_Length="many"), Gone.BROKEN_OFF),
    "a length of 5,000 digits": (lambda: headed(JPEG, Content_Length="9" * 5000), Gone.BROKEN_OFF),
    "more announced": (lambda: headed(JPEG, Content_Length=len(JPEG) + 9), Gone.BROKEN_OFF),
    "chunks of garbage": (lambda: headed(b"zz\r\n\xff\xff", Transfer_Encoding="chunked"), Gone.BROKEN_OFF),
    "a chunk without end": (lambda: headed(b"f" * 30 + b"\r\n", Transfer_Encoding="chunked"), Gone.BROKEN_OFF),
    "half of the chunks": (lambda: headed(chunked(JPEG), Transfer_Encoding="chunked"), Gone.BROKEN_OFF),
    "an unknown transfer": (lambda: headed(JPEG, Transfer_Encoding="magic"), Gone.BROKEN_OFF),
    "a body without end": (endless(JPEG), Gone.TOO_LARGE),
    "chunks without end": (
        lambda: itertools.chain(headed(Transfer_Encoding="chunked"), itertools.repeat(chunked(JPEG))),
        Gone.TOO_LARGE,
    ),
    "a bomb": (lambda: squeezed(10_000), Gone.TOO_LARGE),
    "a bomb in one piece": (
        lambda: headed(gzip.compress(bytes(2**24)), Content_Encoding="gzip", Connection="close"),
        Gone.TOO_LARGE,
    ),
    "a bomb in a bomb": (
        lambda: headed(gzip.compress(gzip.compress(bytes(2**24))), Content_Encoding="gzip, gzip", Connection="close"),
        Gone.NOT_A_PHOTO,
    ),
    "half of a gzip": (
        lambda: headed(gzip.compress(JPEG)[:-20], Content_Encoding="gzip", Connection="close"),
        Gone.BROKEN_OFF,
    ),
    "no gzip": (lambda: headed(JPEG, Content_Encoding="x-gzip", Connection="close"), Gone.BROKEN_OFF),
    "gzip": (lambda: headed(gzip.compress(JPEG), Content_Encoding="gzip", Connection="close"), JPEG),
    "deflate": (lambda: headed(zlib.compress(JPEG), Content_Encoding="Deflate", Connection="close"), JPEG),
    "an unknown encoding": (lambda: headed(JPEG, Content_Encoding="none", Content_Length=len(JPEG)), JPEG),
    "a type of escapes": (
        lambda: headed(b"no photo", Content_Type="\x1b]0;x\x07" + "t" * 9000, Connection="close"),
        Gone.NOT_A_PHOTO,
    ),
    "a wait of words": (
        lambda: [b"HTTP/1.1 503 X\r\nRetry-After: Fri, 99 \xff 0000\r\nContent-Length: 0\r\n\r\n"],
        Gone.SERVER_ERROR,
    ),
}


def test_hostile_answers_are_one_row_each_and_the_crawl_goes_on():
    cases = list(ANSWERS)
    with talking(lambda path: ANSWERS[cases[int(path[1:])]][0]()) as url:
        results = bring([Address(case, f"{url}/{n}") for n, case in enumerate(cases)])
    # What a client hangs up on may be a reset to it.
    found = {case: Gone.BROKEN_OFF if reason(result) is Gone.UNREACHABLE else reason(result)
             for case, result in results.items()}  # fmt: skip
    assert found == {case: expected for case, (_, expected) in ANSWERS.items()}
    details = [result.detail for result in results.values() if isinstance(result, Fault)]
    assert all(len(detail) <= 200 and detail.isprintable() for detail in details), details


def test_an_answer_of_nothing_but_announcements_has_an_end():
    with talking(lambda path: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n")) as url:
        assert bring([Address("a", url)], total_s=0.3, tries=1)["a"].reason is Gone.TIMEOUT


@pytest.mark.slow
@settings(max_examples=60)
@given(st.binary(max_size=60), st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 302 X\r\n", b"HTTP/1.1 200 OK\r\n"]))
def test_any_bytes_are_an_answer_or_a_reason(data, start):
    with talking(lambda path: [start, data]) as url:
        results = bring([Address("a", url)], tries=1)
    assert isinstance(results["a"], Fault)


PRIVATE = (
    "127.0.0.1 10.1.2.3 192.168.0.1 172.16.0.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 ::1 :: fe80::1%eth0 "
    "fc00::1 ::ffff:10.0.0.1 2002:7f00:1:: 64:ff9b::7f00:1 64:ff9b::10.0.0.1 64:ff9b:1::808:808 ::7f00:1 "
    "2001:0:808:808:0:0:80ff:fffe"
)


@pytest.mark.parametrize("ip", PRIVATE.split())
def test_addresses_of_this_machine_and_its_network_are_private(ip):
    assert is_private(ip)


@pytest.mark.parametrize(
    "ip", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "2002:808:808::", "64:ff9b::808:808", "a name", ""]
)
def test_other_addresses_are_public(ip):
    assert not is_private(ip)


@pytest.fixture
def network(monkeypatch):
    """127.0.0.1 plays the public Internet, 127.0.0.2 the network within."""
    monkeypatch.setattr(web, "is_private", lambda ip: ip == "127.0.0.2")
    asked = Counter()

    def answer(path, n):
        where = path.partition("?to=")[2]
        asked[path] += 1
        return Reply(302, headers={"Location": where}) if where else Reply(body=JPEG)

    # The same server listens at both: only the address differs.
    with serving(answer, "0.0.0.0") as server:
        yield server.url, server.url.replace("127.0.0.1", "127.0.0.2"), asked


def test_a_public_host_redirects_to_no_private_one(network):
    public, private, asked = network
    results = bring([
        Address("straight", f"{public}/1?to={private}/secret"),
        Address("round", f"{public}/2?to={public}/3?to={private}/secret"),
        Address("within the public", f"{public}/5?to={public}/photo"),
    ])  # fmt: skip
    assert results.pop("within the public") == JPEG
    said = "redirected from a public host to this machine or its network"
    assert set(results.values()) == {Fault(Gone.PRIVATE, said)}
    assert not asked["/secret"]


def test_what_the_list_itself_names_is_brought_and_may_redirect_within(network):
    public, private, asked = network
    results = bring([
        Address("named", f"{private}/photo"),
        Address("within", f"{private}/1?to={private}/photo"),
        Address("out and in", f"{private}/2?to={public}/3?to={private}/photo"),
        Address("from outside", f"{public}/4?to={private}/secret"),
    ], connections=1)  # fmt: skip
    # The last finds a connection that the others have opened.
    assert reason(results.pop("from outside")) is Gone.PRIVATE
    assert set(results.values()) == {JPEG}
    assert not asked["/secret"]


def test_a_name_is_what_it_leads_to(network, monkeypatch):
    public, private, asked = network
    found = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **named: found(
        "127.0.0.2" if host in ("inside.test", b"inside.test") else host, *more, **named))  # fmt: skip
    inside = private.replace("127.0.0.2", "inside.test")
    results = bring([Address("a", f"{public}/1?to={inside}/secret"), Address("b", f"{inside}/photo")], connections=1)
    assert reason(results["a"]) is Gone.PRIVATE
    assert results["b"] == JPEG
    assert not asked["/secret"]


def test_a_connection_without_tls_is_none_for_an_address_with_it():
    plain, secure = (downloads._host_of(parsed(f"{scheme}://h:8443/a")) for scheme in ("http", "https"))
    assert plain != secure


@pytest.mark.parametrize("name", ["a\nb", "", " geoloc", "é", "\x1b"])
def test_a_user_agent_that_no_header_can_hold_is_refused_with_the_parameters(name):
    with pytest.raises(ValueError, match="user_agent"):
        Limits(user_agent=name)


def test_a_list_of_hostile_addresses_becomes_a_corpus_with_reasons(tmp_path):
    source = places365.Options(kind="places365", metadata="m.csv", urls="u.csv", shards="shard_*.msg")
    hostile = [url for url in NO_ADDRESSES if "\ud800" not in url]
    with serving(lambda path, n: Reply(body=JPEG)) as server:
        listed = {f"{n}.jpg": url for n, url in enumerate([f"{server.url}/a", *hostile])}
        with (tmp_path / "m.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([places365.COLUMNS, *((k, "me", 1, 2, 1, 2, 3, 0, 0, 1) for k in listed)])
        with (tmp_path / "u.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(listed.items())
        options = urls.Options(kind="urls", path=tmp_path, limits=LIMITS)
        made = urls.fetch(options, name="c", source=source, seed=1, out=tmp_path / "o", partial=tmp_path / "p")
    assert (made["photos"], made["gone"]) == (1, len(hostile))
    assert made["gone_by_reason"] == {"bad_address": len(hostile)}
