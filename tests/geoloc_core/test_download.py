"""Against a real server of this machine that misbehaves as servers do."""

import hashlib
import itertools
import socket
import socketserver
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from geoloc_core import download as module
from geoloc_core import web
from geoloc_core.download import download
from geoloc_core.errors import UserError

CONTENT = bytes(range(256)) * 12_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves :data:`CONTENT`; ``faults`` are taken one per request, ``asked`` keeps each request's Range."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.asked, self.content, self.headers = [], [], CONTENT, {"ETag": '"one"'}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/levels.zip"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        fault = server.faults.pop(0) if server.faults else None
        if isinstance(fault, int):
            self.send_error(fault)
            return
        content, start = server.content, self.start(fault)
        if start >= len(content) > 0 and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for name, value in server.headers.items():
            self.send_header(name, value)
        if fault != "no length":
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        self.wfile.write(body[: len(body) // 2] if fault in ("truncate", "reset") else body)
        if fault == "reset":
            self.wfile.flush()
            self.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: close with a reset
        self.close_connection = True

    def start(self, fault):
        asked = self.headers.get("Range")
        unchanged = self.headers.get("If-Range") in (None, *self.server.headers.values())
        return int(asked[len("bytes=") : -1]) if asked and unchanged and fault != "ignore range" else 0


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "downloads" / "levels.zip"


def fetch(server, target, **options):
    return download(server.url, target, wait_s=0.001, **options)


def test_a_file_arrives_whole_and_is_asked_for_once(server, target):
    assert fetch(server, target, size=len(CONTENT), sha256=DIGEST) == DIGEST
    assert target.read_bytes() == CONTENT
    assert fetch(server, target, sha256=DIGEST) == fetch(server, target) == DIGEST
    assert server.asked == [None]
    assert [path.name for path in target.parent.iterdir()] == ["levels.zip"]


@pytest.mark.parametrize("fault", ["truncate", "reset"])
def test_a_lost_connection_is_resumed(server, target, fault):
    server.faults = [fault]
    assert fetch(server, target) == DIGEST
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 2
    if fault == "truncate":
        assert server.asked[1] == f"bytes={len(CONTENT) // 2}-"


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(server, target, code):
    server.faults = [code]
    assert fetch(server, target) == DIGEST


def test_a_killed_download_goes_on_in_the_next_run(server, target):
    server.faults = ["truncate", *[500] * module.TRIES]
    with pytest.raises(UserError, match=r"500.*5 times; 1,536,000 bytes are kept"):
        fetch(server, target)
    assert not target.exists()
    server.asked.clear()
    assert fetch(server, target) == DIGEST
    assert server.asked == ["bytes=1536000-"]


def test_each_gain_starts_the_count_of_failures_anew(server, target):
    server.faults = ["truncate"] * (module.TRIES + 2)
    assert fetch(server, target) == DIGEST


def test_a_server_that_ignores_range_sends_it_all_again(server, target):
    server.faults = ["truncate", "ignore range"]
    assert fetch(server, target) == DIGEST
    assert target.read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_not_mixed(server, target):
    server.faults = ["truncate", *[500] * module.TRIES]
    with pytest.raises(UserError):
        fetch(server, target)
    server.content, server.headers = CONTENT[::-1], {"ETag": '"two"'}
    fetch(server, target)
    assert target.read_bytes() == CONTENT[::-1]


def test_without_a_tag_nothing_is_resumed(server, target):
    server.headers = {}
    server.faults = ["truncate"]
    assert fetch(server, target) == DIGEST
    assert server.asked == [None, None]


def test_a_part_that_was_whole_already_is_taken(server, target):
    target.parent.mkdir()
    target.with_name(".levels.zip.part").write_bytes(CONTENT)
    target.with_name(".levels.zip.tag").write_text('"one"')
    assert fetch(server, target) == DIGEST


def test_a_part_longer_than_the_file_is_thrown_away(server, target):
    target.parent.mkdir()
    target.with_name(".levels.zip.part").write_bytes(CONTENT + b"more")
    target.with_name(".levels.zip.tag").write_text('"one"')
    assert fetch(server, target) == DIGEST
    assert target.read_bytes() == CONTENT


def test_a_length_need_not_be_known(server, target):
    server.faults = ["no length"]
    assert fetch(server, target, sha256=DIGEST) == DIGEST


def test_another_file_is_refused_and_the_old_one_stays(server, target):
    fetch(server, target)
    server.content = CONTENT[:-1]
    with pytest.raises(UserError, match=f"levels.zip: .*expected sha256 {'0' * 64}") as error:
        fetch(server, target, sha256="0" * 64)
    assert "\n" not in str(error.value)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["levels.zip"]


def test_another_size_is_refused_before_the_bytes_come(server, target):
    with pytest.raises(UserError, match=r"the server has 3,072,000 bytes; expected 7"):
        fetch(server, target, size=7)
    server.faults = ["no length"]
    with pytest.raises(UserError, match=r"sends more than 7 bytes: it is a different file"):
        fetch(server, target, size=7)
    assert not list(target.parent.iterdir())


def test_a_web_page_is_no_file(server, target):
    server.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(UserError, match=r"sends a web page; expected a file"):
        fetch(server, target)


def test_a_refusal_is_said_at_once(server, target):
    server.faults = [404]
    with pytest.raises(UserError, match=r"levels.zip: the server says 404 Not Found; expected a file"):
        fetch(server, target)
    assert len(server.asked) == 1


def test_nobody_there_is_one_line(target):
    with pytest.raises(UserError, match=r"refused, 5 times; 0 bytes are kept") as error:
        download("http://127.0.0.1:9/levels.zip", target, wait_s=0.001)
    assert "\n" not in str(error.value)


def test_only_the_web_is_asked(target):
    with pytest.raises(UserError, match="expected http:// or https://, a host"):
        download("file:///etc/hosts", target)


def test_a_place_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*expected a folder where"):
        fetch(server, tmp_path / "file" / "levels.zip")


@contextmanager
def talking(*lines: str, body: bytes = b""):
    """A server that says the same to everyone, whatever it is."""
    said = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body

    class Talk(socketserver.StreamRequestHandler):
        def handle(self):
            while self.rfile.readline().strip():
                pass
            self.wfile.write(said)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Talk) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/levels.zip"
        server.shutdown()


REDIRECTS = [
    "http://[bad",
    "//[x",
    "http://a..b/",
    "http://" + "a" * 70 + "/",
    "http://xn--a..é/",
    "http://h:x/",
    "file:///etc/passwd",
    "ftp://127.0.0.1/a",
    "javascript:alert(1)",
    "/levels.zip",
]


@pytest.mark.parametrize("location", REDIRECTS)
def test_a_hostile_redirect_is_one_line_at_once(target, location):
    with (
        talking("HTTP/1.1 302 Found", f"Location: {location}", "Content-Length: 0") as url,
        pytest.raises(UserError, match=f"^{url}: .*; expected a") as caught,
    ):
        download(url, target, wait_s=0)
    assert "\n" not in str(caught.value)
    assert "5 times" not in str(caught.value)
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize(
    "lines",
    [
        ("SSH-2.0-x",),
        ("HTTP/1.1 OK 200",),
        ("HTTP/1.1 200 OK", "X: " + "x" * 200_000),
        ("HTTP/1.1 200 OK", *["X: y"] * 40_000),
        ("HTTP/1.1 200 OK", "Content-Length: many"),
        ("HTTP/1.1 200 OK", "Content-Length: -5"),
        ("HTTP/1.1 200 OK", "Content-Length: " + "9" * 5000),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", "zz"),
        ("HTTP/1.1 503 \x1b[31m\x9b" + "x" * 9000,),
    ],
)
def test_what_is_no_answer_is_one_line(target, lines):
    with talking(*lines) as url, pytest.raises(UserError, match="5 times; 0 bytes are kept") as caught:
        download(url, target, wait_s=0)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("tag", ['"é"', '"\x1b"'])
def test_a_tag_that_cannot_be_sent_back_is_none(server, target, tag):
    server.headers = {"ETag": tag}
    server.faults = ["truncate"]
    assert fetch(server, target) == DIGEST
    assert server.asked == [None, None]


FROM_HERE_TO = {
    "less safety": ("https://example.org/a", "http://example.org/a", "redirected from https to http"),
    "another scheme": ("https://example.org/a", "ftp://example.org/a", "redirected; expected http:// or https://"),
    "a relative place": ("https://example.org/a", "/b", None),
    "more safety": ("http://8.8.8.8/a", "https://1.1.1.1/b", None),
}


@pytest.mark.parametrize("case", FROM_HERE_TO)
def test_a_redirect_leads_to_no_less_safety(case):
    old, new, said = FROM_HERE_TO[case]
    trail = web.Trail(web.parsed(old))
    fault = trail.follow(new, most=1)
    assert (fault.detail[: len(said)] if fault else None) == said
    assert fault or str(trail.url) in (new, "https://example.org/b")
    assert trail.follow("/c", most=1) == web.Fault(web.Gone.REDIRECTS, "2 redirects")


@pytest.fixture
def network(monkeypatch):
    """127.0.0.1 plays the public Internet, 127.0.0.2 the network within; yields both, and what was asked for."""
    monkeypatch.setattr(web, "is_private", lambda ip: ip == "127.0.0.2")
    asked = []

    class Redirecting(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            asked.append((self.connection.getsockname()[0], self.path))
            to = self.path.partition("?to=")[2]
            self.send_response(302 if to else 200)
            self.send_header("Location" if to else "X", to)
            self.send_header("Content-Length", "0" if to else "6")
            self.end_headers()
            self.wfile.write(b"" if to else b"secret")

    with ThreadingHTTPServer(("0.0.0.0", 0), Redirecting) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", f"http://127.0.0.2:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize("way", ["{public}/1?to={private}/secret", "{public}/1?to={public}/2?to={private}/secret"])
def test_a_public_host_redirects_to_no_private_one(network, target, way):
    public, private, asked = network
    with pytest.raises(UserError, match="redirected from a public host to this machine or its network"):
        download(way.format(public=public, private=private), target, wait_s=0)
    assert "/secret" not in {path for _, path in asked}


@pytest.mark.parametrize("way", ["{private}/a", "{private}/1?to={private}/a", "{public}/1?to={public}/a"])
def test_a_host_may_redirect_to_its_own_kind(network, target, way):
    public, private, _ = network
    download(way.format(public=public, private=private), target, wait_s=0)
    assert target.read_bytes() == b"secret"


@pytest.mark.parametrize("answers", [("127.0.0.1", "127.0.0.2"), ("127.0.0.2", "127.0.0.1")])
def test_the_address_that_is_judged_is_the_one_connected_to(network, target, monkeypatch, answers):
    """A name that leads elsewhere each time it is looked up."""
    public, _, asked = network
    looked_up, answers = socket.getaddrinfo, itertools.cycle(answers)

    def rebinding(host, *more, **named):
        return looked_up(next(answers) if host in ("odd.test", b"odd.test") else host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    for number in range(2):
        way = f"{public}/1?to={public.replace('127.0.0.1', 'odd.test')}/secret"
        with suppress(UserError):
            download(way, target.with_name(str(number)), wait_s=0)
    assert {ip for ip, path in asked if path == "/secret"} == {"127.0.0.1"}


def test_a_redirect_in_a_circle_has_an_end(target):
    with (
        talking("HTTP/1.1 302 Found", "Location: /levels.zip", "Content-Length: 0") as url,
        pytest.raises(UserError, match=f"^{url}: {web.MAX_REDIRECTS + 1} redirects; expected an address"),
    ):
        download(url, target, wait_s=0)


def test_a_server_that_asks_for_too_much_time_gets_none(target):
    with (
        talking("HTTP/1.1 503 Busy", "Retry-After: 9000", "Content-Length: 0") as url,
        pytest.raises(UserError, match=r"503 Busy and asks to wait 9,000 s; 0 bytes are kept: run the command again"),
    ):
        download(url, target, wait_s=0)


@pytest.mark.parametrize("fault", [None, "no length"])
def test_a_file_of_no_stated_size_has_an_end(server, target, monkeypatch, fault):
    monkeypatch.setattr(module, "MAX_BYTES", len(CONTENT) - 1)
    server.faults = [fault]
    with pytest.raises(
        UserError, match=r"sends more than [0-9,]+ bytes; expected no more where the size is not stated"
    ):
        download(server.url, target, wait_s=0)
    assert not target.exists()
    server.faults = [fault]
    download(server.url, target, size=len(CONTENT), wait_s=0)
