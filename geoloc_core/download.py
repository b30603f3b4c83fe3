"""Large files from the network: resumed, checked, and either whole or not there."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core import progress, web
from geoloc_core.errors import UserError, in_a_line
from geoloc_core.files import sha256_of
from geoloc_core.web import Client, Fault, InsideError, Trail

if TYPE_CHECKING:
    import httpx

CHUNK = 1 << 20
TIMEOUT = 60
"""Seconds without a byte after which a connection counts as lost."""
TRIES = 5
"""Failures in a row, without a byte gained, after which to give up."""
MAX_BYTES = 100 * 2**30
"""A file of no stated size may have as many: a server that never ends would fill the disk."""
REMEDY = "expected an address that leads to a file"


class LostError(Exception):
    """A request failed in a way that may pass.

    Attributes:
        wait_s: Seconds that the server asks to wait; None where it says nothing.
    """

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True)
class _Part:
    """The unfinished file beside its target, and what the server said identifies the whole (for ``If-Range``)."""

    path: Path
    tag: Path

    @classmethod
    def of(cls, target: Path) -> "_Part":
        return cls(target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.tag"))

    @property
    def size(self) -> int:
        """Bytes that may be kept: none where nothing tells whether the server still has the same file."""
        return self.path.stat().st_size if self.path.exists() and self.tag.exists() else 0

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)


def download(url: str, target: Path, size: int | None = None, sha256: str | None = None, wait_s: float = 1.0) -> str:
    """Bring a file from the network, once.

    A file that is there and has the right checksum is not asked for again. A download that stops goes on where it
    stopped, in this call or in the next, as long as the server's file is the same.

    Args:
        url: An ``http`` or ``https`` address.
        target: Where the file goes; it appears there only when it is whole and right.
        size: Its bytes, where known; else at most :data:`MAX_BYTES`.
        sha256: Its checksum, where known.
        wait_s: Seconds before the second try; twice that before the next, and so on.

    Returns:
        The checksum of the file.

    Raises:
        UserError: The server refuses, keeps failing, or has another file than the one expected.
    """
    address = web.parsed(url)
    if isinstance(address, Fault):
        raise UserError(f"{url}: cannot be downloaded; {address.detail}")
    if target.exists():
        digest = sha256_of(target)
        if sha256 in (None, digest) and size in (None, target.stat().st_size):
            return digest
    part = _Part.of(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _persist(Client(TIMEOUT), address, part, size, wait_s)
    except OSError as error:
        raise UserError(f"{part.path}: {error.strerror or error}; expected a place to write {url} to") from None
    digest = sha256_of(part.path)
    got = part.path.stat().st_size
    if size not in (None, got) or sha256 not in (None, digest):
        part.remove()
        expected = [f"{size:,} bytes" if size else "", f"sha256 {sha256}" if sha256 else ""]
        raise UserError(
            f"{url}: {got:,} bytes with sha256 {digest}; expected {' with '.join(filter(None, expected))}: "
            "the file is a different one, or was changed on the way"
        )
    os.replace(part.path, target)
    part.remove()
    return digest


def _persist(client: Client, url: "httpx.URL", part: _Part, size: int | None, wait_s: float) -> None:
    """Try until the part is the whole file, or until :data:`TRIES` tries in a row gained nothing."""
    failures = 0
    while True:
        before = part.size
        try:
            _continue(client, url, part, size)
            return
        except LostError as lost:
            failures = 0 if part.size > before else failures + 1
            kept = f"{part.size:,} bytes are kept: run the command again later"
            if failures == TRIES:
                raise UserError(f"{url}: {lost}, {TRIES} times; {kept}") from None
            if lost.wait_s is not None and lost.wait_s > web.MAX_WAIT_S:
                raise UserError(f"{url}: {lost} and asks to wait {lost.wait_s:,.0f} s; {kept}") from None
            progress.say(f"download: {url}: {lost}; going on at byte {part.size:,}")
            time.sleep(web.pause_s(failures + 1, wait_s) if lost.wait_s is None else lost.wait_s)


def _continue(client: Client, url: "httpx.URL", part: _Part, size: int | None) -> None:
    """One request for what is missing, and all its bytes onto the part.

    Raises:
        LostError: It is worth another try.
        UserError: It is not.
    """
    start = part.size
    resumed = {"Range": f"bytes={start}-", "If-Range": part.tag.read_text()} if start else {}
    with _answer(client, url, resumed) as response:
        if response.status_code == 416:
            # Nothing is left to send, or the part is longer than the file: the checks tell which.
            if response.headers.get("Content-Range") == f"bytes */{start}":
                return
            part.remove()
            raise LostError("the server has a shorter file than before")
        if response.status_code not in (200, 206):
            _refuse(url, response)
        if response.status_code != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0
        _check(url, response, start, size)
        _note(part, response, start)
        left = web.announced(response)
        total = None if left is None else start + left
        with part.path.open("r+b" if start else "wb") as out:
            out.seek(start)
            what, whole = f"download {part.path.name[1:-5]}", total and (total - start) // CHUNK
            for chunk in progress.track(_chunks(client, url, response), what, whole, "MiB"):
                out.write(chunk)
                if out.tell() > (MAX_BYTES if size is None else size):
                    part.remove()
                    said = _too_many() if size is None else f"more than {size:,} bytes: this is a different file"
                    raise UserError(f"{url}: the server sends {said}")


@contextmanager
def _answer(client: Client, url: "httpx.URL", headers: Mapping[str, str]) -> "Iterator[httpx.Response]":
    """The answer to a request, after any redirects; its body is read in the block.

    Raises:
        LostError: There is none, and there may be one later.
        UserError: A redirect leads where none is followed.
    """
    import httpx

    trail = Trail(url)
    while True:
        with client.transport(trail.url, httpx.HTTPTransport) as transport:
            try:
                response = transport.handle_request(_request(client, trail, headers))
            except (httpx.HTTPError, httpx.InvalidURL, InsideError, ValueError) as error:
                raise _told(url, client.fault(error)) from None
            try:
                location = web.location_of(response)
                if location is None:
                    yield response
                    return
            finally:
                response.close()
        if fault := trail.follow(location, web.MAX_REDIRECTS):
            raise _told(url, fault)


def _request(client: Client, trail: Trail, headers: Mapping[str, str]) -> "httpx.Request":
    """A request for where a trail leads now, given up at once where that is none of its business."""
    direct = client.proxy(trail.url) is None

    def watch(event: str, info: dict[str, Any]) -> None:
        if direct and event == web.CONNECTED:
            try:
                trail.meet(web.is_private(web.peer(info)))
            except InsideError:
                info["return_value"].close()
                raise

    trail.meet(web.is_private(web.host_of(trail.url)))
    return client.request(trail.url, watch, headers)


def _told(url: "httpx.URL", fault: Fault) -> Exception:
    """What to raise for a fault."""
    return LostError(fault.detail) if fault.transient else UserError(f"{url}: {fault.detail}; {REMEDY}")


def _refuse(url: "httpx.URL", response: "httpx.Response") -> None:
    said = in_a_line(f"the server says {response.status_code} {response.reason_phrase}", 200)
    fault = web.status_fault(response.status_code)
    if fault and fault.transient:
        raise LostError(said, web.retry_after_s(response.headers.get("Retry-After")))
    raise UserError(f"{url}: {said}; expected a file")


def _check(url: "httpx.URL", response: "httpx.Response", start: int, size: int | None) -> None:
    """Refuse at once what cannot be the file."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "text/html" and not url.path.endswith((".html", ".htm")):
        raise UserError(f"{url}: the server sends a web page; expected a file: look at the address in a browser")
    left = web.announced(response)
    if size and left is not None and start + left != size:
        raise UserError(f"{url}: the server has {start + left:,} bytes; expected {size:,}: this is a different file")
    if size is None and left is not None and start + left > MAX_BYTES:
        raise UserError(f"{url}: the server sends {_too_many()}")


def _too_many() -> str:
    return f"more than {MAX_BYTES:,} bytes; expected no more of a file whose size is not stated: state it"


def _note(part: _Part, response: "httpx.Response", start: int) -> None:
    """Keep what identifies the server's file; a weak tag does not promise the same bytes, an odd one cannot be sent."""
    tag = response.headers.get("ETag") or ""
    tag = response.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag
    if start == 0:
        part.remove()
    if tag and tag.isascii() and tag.isprintable():
        part.tag.write_text(tag)


def _chunks(client: Client, url: "httpx.URL", response: "httpx.Response") -> Iterator[bytes]:
    """The bytes of an answer as the server sends them, all that come before an error too."""
    import httpx

    held = bytearray()
    try:
        for piece in response.iter_raw():
            held += piece
            if len(held) >= CHUNK:
                yield bytes(held)
                held.clear()
    except httpx.HTTPError as error:
        yield bytes(held)
        raise _told(url, client.fault(error)) from None
    yield bytes(held)
