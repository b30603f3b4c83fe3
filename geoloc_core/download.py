"""Large files from the network: resumed, verified, and either complete or absent."""

import http.client
import os
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from geoloc_core import progress
from geoloc_core.corpora.answers import is_private
from geoloc_core.errors import UserError
from geoloc_core.files import sha256_of

CHUNK = 1 << 20
TIMEOUT = 60
"""Seconds without a byte after which a connection counts as lost."""
TRIES = 5
"""Failures in a row, without a byte gained, after which to give up."""
MAX_BYTES = 100 * 2**30
"""The limit for a file whose size is not stated: a server that never stops would fill the disk."""
WEB = ("https://", "http://")


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
        """Bytes that can be kept: none if nothing shows that the server still has the same file."""
        return self.path.stat().st_size if self.path.exists() and self.tag.exists() else 0

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects within the web, never to a less secure address: the library would even follow them to FTP."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not newurl.startswith(WEB):
            raise ValueError(f"redirected to {newurl}")
        if req.full_url.startswith("https://") and not newurl.startswith("https://"):
            raise ValueError(f"redirected from https to {newurl}")
        if _is_inside(newurl) and not _is_inside(req.full_url):
            raise ValueError(f"redirected from a public host to this machine or its network: {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_inside(url: str) -> bool:
    """Whether a host is, or may be found at, an address of this machine or its own network."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # whoever connects will say so
        return is_private(host)
    return any(is_private(str(address[0])) for *_, address in found)


def download(url: str, target: Path, size: int | None = None, sha256: str | None = None, wait_s: float = 1.0) -> str:
    """Download a file, once.

    An existing file with the right checksum is not requested again. A download that was interrupted continues where it
    stopped, in this call or the next, as long as the file on the server is the same.

    Args:
        url: An ``http`` or ``https`` address.
        target: Where the file goes; it appears there only once it is complete and verified.
        size: Its bytes, where known; else at most :data:`MAX_BYTES`.
        sha256: Its checksum, where known.
        wait_s: Seconds before the second try; twice that before the next, and so on.

    Returns:
        The checksum of the file.

    Raises:
        UserError: The server refuses, keeps failing, or has another file than the one expected.
    """
    if not url.startswith(WEB):
        raise UserError(f"{url}: cannot be downloaded; expected an address with http:// or https://")
    if target.exists():
        digest = sha256_of(target)
        if sha256 in (None, digest) and size in (None, target.stat().st_size):
            return digest
    part = _Part.of(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _persist(url, part, size, wait_s)
    except OSError as error:
        raise UserError(f"{part.path}: {error.strerror or error}; expected a folder where {url} can be saved") from None
    digest = sha256_of(part.path)
    got = part.path.stat().st_size
    if size not in (None, got) or sha256 not in (None, digest):
        part.remove()
        expected = [f"{size:,} bytes" if size else "", f"sha256 {sha256}" if sha256 else ""]
        raise UserError(
            f"{url}: {got:,} bytes with sha256 {digest}; expected {' with '.join(filter(None, expected))}: "
            "it is a different file, or was damaged on the way"
        )
    os.replace(part.path, target)
    part.remove()
    return digest


def _persist(url: str, part: _Part, size: int | None, wait_s: float) -> None:
    """Try until the part is the whole file, or until :data:`TRIES` tries in a row gained nothing."""
    failures = 0
    while True:
        before = part.size
        try:
            _continue(url, part, size)
            return
        except (http.client.HTTPException, urllib.error.URLError, ssl.SSLError, ConnectionError, TimeoutError) as error:
            failures = 0 if part.size > before else failures + 1
            if failures == TRIES:
                raise UserError(
                    f"{url}: {_reason(error)}, {TRIES} times; {part.size:,} bytes are kept: run the command again later"
                ) from None
            progress.say(f"download: {url}: {_reason(error)}; continuing at byte {part.size:,}")
            time.sleep(wait_s * 2**failures)


def _continue(url: str, part: _Part, size: int | None) -> None:
    """One request for what is missing, and all its bytes onto the part."""
    start = part.size
    headers = {"User-Agent": "geoloc", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": part.tag.read_text()}
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310
        response = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)
    except (ValueError, http.client.InvalidURL) as error:
        # Of this address or of one that it redirects to: a name that cannot be spelt, brackets that do not close.
        said = f"it, or what it redirects to, cannot be requested ({_reason(error)})"
        raise UserError(f"{url}: {said}; expected an address that leads to a file") from None
    except urllib.error.HTTPError as error:
        if error.code == 416:
            # Nothing is left to send, or the part is longer than the file: the checks tell which.
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return
            part.remove()
            raise ConnectionError("the server has a shorter file than before") from None
        if error.code < 500 and error.code not in (408, 429):
            raise UserError(f"{url}: {_reason(error)}; expected a file") from None
        raise
    with response:
        if response.status != 206 or not str(response.headers.get("Content-Range")).startswith(f"bytes {start}-"):
            start = 0
        _check(url, response, start, size)
        _note(part, response, start)
        left = _length(response)
        total = None if left is None else start + left
        with part.path.open("r+b" if start else "wb") as out:
            out.seek(start)
            what, whole = f"download {part.path.name[1:-5]}", total and (total - start) // CHUNK
            for chunk in progress.track(_chunks(response), what, whole, "MiB"):
                out.write(chunk)
                if out.tell() > (MAX_BYTES if size is None else size):
                    part.remove()
                    said = _too_many() if size is None else f"more than {size:,} bytes: it is a different file"
                    raise UserError(f"{url}: the server sends {said}")
    if total is not None and part.path.stat().st_size != total:
        raise ConnectionError(f"the connection ended after {part.path.stat().st_size:,} of {total:,} bytes")


def _length(response: Any) -> int | None:
    """How many bytes the server announces; None where it says no number."""
    said = str(response.headers.get("Content-Length"))
    return int(said) if said.isascii() and said.isdigit() and len(said) < 19 else None


def _check(url: str, response: Any, start: int, size: int | None) -> None:
    """Refuse at once what cannot be the file."""
    kind = response.headers.get_content_type()
    if kind == "text/html" and not url.endswith((".html", ".htm")):
        raise UserError(f"{url}: the server sends a web page; expected a file: look at the address in a browser")
    left = _length(response)
    if size and left is not None and start + left != size:
        raise UserError(f"{url}: the server has {start + left:,} bytes; expected {size:,}: it is a different file")
    if size is None and left is not None and start + left > MAX_BYTES:
        raise UserError(f"{url}: the server sends {_too_many()}")


def _too_many() -> str:
    return f"more than {MAX_BYTES:,} bytes; expected no more where the size is not stated: state the size"


def _note(part: _Part, response: Any, start: int) -> None:
    """Store what identifies the server's file. A weak tag, or one that cannot be sent, is not kept."""
    tag = response.headers.get("ETag") or ""
    tag = response.headers.get("Last-Modified") if not tag or tag.startswith("W/") else tag
    if start == 0:
        part.remove()
    if tag and tag.isascii() and tag.isprintable():
        part.tag.write_text(tag)


def _chunks(response: Any) -> Iterator[bytes]:
    while chunk := response.read(CHUNK):
        yield chunk


def _reason(error: Exception) -> str:
    """What went wrong, in a line; the words may be the server's."""
    said = " ".join(str(getattr(error, "reason", error)).split())[:200] or type(error).__name__
    return f"the server says {error.code} {said}" if isinstance(error, urllib.error.HTTPError) else said
