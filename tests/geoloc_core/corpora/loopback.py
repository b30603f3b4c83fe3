"""Real servers of this machine that do what a test tells them to."""

import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    """An answer; ``length`` is what it announces (-1: nothing) and ``then`` what happens after the body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "image/jpeg"})
    length: int | None = None
    before: Callable[[], object] = lambda: None
    trickle: Callable[[], object] | None = None
    reset: bool = False
    raw: bool = False


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, answer: Callable[[str, int], Reply], host: str) -> None:
        super().__init__((host, 0), Handler)
        self.answer, self.asked, self.log = answer, Counter(), []
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_) -> None:
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.asked[self.path] += 1
            server.log.append(self.path)
            time = server.asked[self.path]
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            reply = server.answer(self.path, time)
            reply.before()
        finally:
            with server.lock:
                server.now -= 1
        self.send(reply)

    def send(self, reply: Reply) -> None:
        if reply.raw:
            self.wfile.write(reply.body)
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        length = len(reply.body) if reply.length is None else reply.length
        if length >= 0:
            self.send_header("Content-Length", str(length))
        if length != len(reply.body):
            self.close_connection = True
        self.end_headers()
        if reply.trickle:
            for byte in reply.body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                reply.trickle()
        else:
            self.wfile.write(reply.body)
        self.wfile.flush()
        if reply.reset:
            self.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: close with a reset
            self.close_connection = True


@contextmanager
def serving(answer: Callable[[str, int], Reply], host: str = "127.0.0.1") -> Iterator[Server]:
    with Server(answer, host) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def talking(answer: Callable[[str], Iterable[bytes]]) -> Iterator[str]:
    """A server that need not speak HTTP: what it sends to each path, until the client hangs up; yields its address."""

    class Talk(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            path = self.rfile.readline().split()[1].decode()
            while self.rfile.readline().strip():
                pass
            try:
                for part in answer(path):
                    self.wfile.write(part)
            except OSError:
                pass

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 256

        def handle_error(self, *_) -> None:
            """Clients that hang up are part of the tests."""

    with Server(("127.0.0.1", 0), Talk) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
