"""What an address and a server's response contain: a photo, or the reason why there is none.

All of it is untrusted. A :class:`Fault` keeps a bounded part of it, and never the address.
"""

import hashlib
import ipaddress
import re
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

PLACEHOLDER = "photo_unavailable"
"""In the address that Flickr redirects to where a photo was deleted or made private."""
PLACEHOLDER_BYTES = 16 * 2**10
"""Flickr's JPEG addresses serve JPEGs; a GIF or PNG up to this size is the picture that says so."""
FLICKR = ("flickr.com", "staticflickr.com")
BUSY = frozenset({408, 425, 429})
"""Statuses below 500 after which the same request may succeed."""
COMPRESSED = frozenset({"gzip", "x-gzip", "deflate"})
"""Encodings that are undone though none was asked for; bytes of any other one are judged as they are."""
HOST = re.compile(r"(?=.{1,254}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|[0-9a-f:.]*:[0-9a-f:.]*(%.+)?")
"""A name as resolvers take it, or an address of IPv6."""
EMBEDDING = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
"""Addresses of IPv6 that end in one of IPv4: NAT64's (RFC 6052) and those once called IPv4-compatible."""
LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
"""What a network translates for itself alone (RFC 8215)."""
MEDIA_TYPE = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}")


class Gone(StrEnum):
    """Why there is no photo at an address."""

    NOT_FOUND = "not_found"
    """404."""
    REMOVED = "removed"
    """410."""
    FORBIDDEN = "forbidden"
    """401, 403 or 451."""
    REFUSED = "refused"
    """Another status that brings no photo."""
    PLACEHOLDER = "placeholder"
    """The picture that a site shows in place of a photo it no longer has."""
    NOT_A_PHOTO = "not_a_photo"
    """A web page, or bytes of no known picture format."""
    EMPTY = "empty"
    """Zero bytes."""
    TOO_LARGE = "too_large"
    """More bytes than allowed."""
    CHECKSUM = "checksum"
    """The bytes do not match the published checksum, at every try."""
    REDIRECTS = "redirects"
    """Redirected too often, or in a circle."""
    BAD_ADDRESS = "bad_address"
    """Not an address of the web."""
    PRIVATE = "private"
    """Redirected from a public host to this machine or its own network."""
    TIMEOUT = "timeout"
    """No answer, or not its end, in time."""
    UNREACHABLE = "unreachable"
    """No connection, or one that was reset."""
    BROKEN_OFF = "broken_off"
    """The response ended before its announced length, or was not HTTP."""
    SERVER_ERROR = "server_error"
    """A 5xx status."""
    BUSY = "busy"
    """408, 425 or 429."""


TRANSIENT = frozenset({Gone.TIMEOUT, Gone.UNREACHABLE, Gone.BROKEN_OFF, Gone.SERVER_ERROR, Gone.BUSY})
"""Reasons that may pass: worth another try, now and in a later run."""


@dataclass(frozen=True)
class Address:
    """A file to bring.

    Attributes:
        key: What it is called here.
        url: Where it is; may hold a secret, and is never repeated in messages. Any text: the first to look is
            :func:`parsed`.
        place: Its position in the list.
        sha256: Its checksum in hexadecimal digits, where known.
    """

    key: str
    url: str = field(repr=False)
    place: int = 0
    sha256: str | None = None


@dataclass(frozen=True)
class Fault:
    """Why a file could not be had.

    Attributes:
        reason: In a word.
        detail: In a line, without the address.
    """

    reason: Gone
    detail: str

    @property
    def transient(self) -> bool:
        """Whether it may pass."""
        return self.reason in TRANSIENT


def parsed(url: str) -> "httpx.URL | Fault":
    """An address of the web in parts, or the fault that it is not one."""
    import httpx

    try:
        found = httpx.URL(url)
    # The latter of lone surrogates and of numbers without end.
    except (httpx.InvalidURL, ValueError):
        found = httpx.URL()
    is_host = HOST.fullmatch(found.raw_host.decode("ascii"))
    if found.scheme in ("http", "https") and is_host and (found.port is None or 0 < found.port < 2**16):
        return found
    return Fault(Gone.BAD_ADDRESS, "expected http:// or https://, a host and perhaps a port")


def is_private(host: str) -> bool:
    """Whether an IP address is not one of the public Internet, such as those of this machine; of names, never."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    judged = _inner(found) or found if isinstance(found, ipaddress.IPv6Address) else found
    return not judged.is_global or judged.is_multicast or found in LOCAL_NAT64


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The address of IPv4 that one of IPv6 leads to; None where it leads to none."""
    if address.teredo:
        return address.teredo[1]
    if any(address in network for network in EMBEDDING):
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour


class Unpacker:
    """Undoes a compression that was not requested, and never yields more bytes than allowed."""

    def __init__(self, encoding: str) -> None:
        """Of a ``Content-Encoding``."""
        # 32: gzip or zlib, whichever the bytes are.
        self._inner = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding.strip().lower() in COMPRESSED else None

    def unpack(self, data: bytes, most: int) -> bytes:
        """The next bytes, cut after ``most``.

        Raises:
            zlib.error: They are not compressed so.
        """
        return self._inner.decompress(data, most) if self._inner else data[:most]

    @property
    def whole(self) -> bool:
        """Whether the end was reached."""
        return self._inner is None or self._inner.eof


def photo_fault(address: Address, data: bytes, kind: str) -> Fault | None:
    """Why bytes are not a photo, judged by the first ones. Whether they decode completely is checked at ingest."""
    if not data:
        return Fault(Gone.EMPTY, "0 bytes")
    found = format_of(data)
    if found is None:
        page = kind.startswith("text/html") or data.lstrip()[:1] == b"<"
        named = MEDIA_TYPE.match(kind)
        what = named[0] if named else "an odd type" if kind else "no stated type"
        return Fault(Gone.NOT_A_PHOTO, "a web page" if page else f"{len(data):,} bytes of {what}")
    url = parsed(address.url)
    host = "" if isinstance(url, Fault) else url.raw_host.decode("ascii")
    flickr = any(host == name or host.endswith(f".{name}") for name in FLICKR)
    if flickr and found in ("GIF", "PNG") and len(data) <= PLACEHOLDER_BYTES:
        return Fault(Gone.PLACEHOLDER, f"a {found} of {len(data):,} bytes in place of the photo")
    return None


def format_of(data: bytes) -> str | None:
    """The picture format that the first bytes announce; None where they announce none."""
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis", b"heic", b"heix", b"heif", b"mif1", b"msf1"):
        return "HEIF"
    if data[:4] == b"RIFF":
        return "WEBP" if data[8:12] == b"WEBP" else None
    starts = {
        b"\xff\xd8\xff": "JPEG",
        b"\x89PNG\r\n\x1a\n": "PNG",
        b"GIF8": "GIF",
        b"BM": "BMP",
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
        b"\0\0\0\x0cjP  ": "JPEG2000",
        b"\xff\x4f\xff\x51": "JPEG2000",
    }
    return next((name for start, name in starts.items() if data.startswith(start)), None)


def retry_after_s(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds to wait by a ``Retry-After`` header (RFC 9110, 10.2.3): a number of seconds or a date; else None."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def status_fault(status: int) -> Fault | None:
    """Why a status brings no photo; None for 200."""
    if status == 200:
        return None
    known = {404: Gone.NOT_FOUND, 410: Gone.REMOVED, **dict.fromkeys((401, 403, 451), Gone.FORBIDDEN)}
    known |= dict.fromkeys(BUSY, Gone.BUSY)
    reason = Gone.SERVER_ERROR if status >= 500 else known.get(status, Gone.REFUSED)
    return Fault(reason, f"status {status}")


def sum_fault(address: Address, data: bytes) -> Fault | None:
    """Why bytes are not those of the published checksum; None where they are, or where there is none."""
    if address.sha256 is None:
        return None
    found = hashlib.sha256(data).hexdigest()
    return None if found == address.sha256.lower() else Fault(Gone.CHECKSUM, f"{len(data):,} bytes, sha256 {found}")
