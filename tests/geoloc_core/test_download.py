"""Against a real server of this machine that misbehaves as servers do."""

import hashlib
import io
import socketserver
import threading
import urllib.request
from contextlib import contextmanager
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from geoloc_core import download as module
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
    with pytest.raises(UserError, match="expected an address with http"):
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
        ("HTTP/1.1 200 OK", "X: " + "x" * 100_000),
        ("HTTP/1.1 200 OK", *["X: y"] * 200),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", "zz"),
        ("HTTP/1.1 503 \x1b[31m\x9b" + "x" * 9000,),
    ],
)
def test_what_is_no_answer_is_one_line(target, lines):
    with talking(*lines) as url, pytest.raises(UserError, match="5 times; 0 bytes are kept") as caught:
        download(url, target, wait_s=0)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("length", ["many", "-5", "9" * 5000, "²", "3, 3"])
def test_a_length_that_is_no_number_says_nothing(target, length):
    with (
        talking("HTTP/1.1 200 OK", f"Content-Length: {length}", body=b"abc") as url,
        pytest.raises(UserError, match=r"3 bytes with sha256 .*; expected sha256 0"),
    ):
        download(url, target, wait_s=0, sha256="0" * 64)


@pytest.mark.parametrize("tag", ['"a\r\n b"', '"é"', '"\x1b"'])
def test_a_tag_that_cannot_be_sent_back_is_none(server, target, tag):
    server.headers = {"ETag": tag}
    server.faults = ["truncate"]
    assert fetch(server, target) == DIGEST
    assert server.asked == [None, None]


FROM_HERE_TO = {
    "less safety": ("https://example.org/a", "http://example.org/a", "from https to"),
    "this machine": ("http://8.8.8.8/a", "http://127.0.0.1/a", "from a public host"),
    "this machine by name": ("http://8.8.8.8/a", "http://localhost/a", "from a public host"),
    "this machine by NAT64": ("https://8.8.8.8/a", "https://[64:ff9b::7f00:1]/a", "from a public host"),
    "a public host": ("http://8.8.8.8/a", "https://1.1.1.1/b", None),
    "this machine from itself": ("http://127.0.0.1/a", "http://localhost/b", None),
}


@pytest.mark.parametrize("case", FROM_HERE_TO)
def test_a_redirect_leads_to_no_less_safety(case):
    old, new, said = FROM_HERE_TO[case]
    request, headers = urllib.request.Request(old), HTTPMessage()
    if said is None:
        assert module._Redirects().redirect_request(request, io.BytesIO(), 302, "", headers, new).full_url == new
        return
    with pytest.raises(ValueError, match=f"redirected {said}"):
        module._Redirects().redirect_request(request, io.BytesIO(), 302, "", headers, new)


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
