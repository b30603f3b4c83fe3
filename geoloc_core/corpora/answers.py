"""What a server's answer says: a photo, or why there is none."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from urllib.parse import urlsplit

PLACEHOLDER = "photo_unavailable"
"""In the address that Flickr redirects to where a photo was deleted or made private."""
PLACEHOLDER_BYTES = 16 * 2**10
"""Flickr's JPEG addresses serve JPEGs; a GIF or PNG up to this size is the picture that says so."""
FLICKR = ("flickr.com", "staticflickr.com")
BUSY = frozenset({408, 425, 429})
"""Statuses below 500 after which the same request may succeed."""


class Gone(StrEnum):
    """Why there is no photo at an address."""

    NOT_FOUND = "not_found"
    """404."""
    REMOVED = "removed"
    """410."""
    FORBIDDEN = "forbidden"
    """401, 403 or 451."""
    REFUSED = "refused"
    """Another status that is no photo."""
    PLACEHOLDER = "placeholder"
    """The picture that a site shows in place of a photo it no longer has."""
    NOT_A_PHOTO = "not_a_photo"
    """A web page, or bytes of no known picture format."""
    EMPTY = "empty"
    """Zero bytes."""
    TOO_LARGE = "too_large"
    """More bytes than allowed."""
    CHECKSUM = "checksum"
    """Other bytes than the published checksum says, at every try."""
    REDIRECTS = "redirects"
    """Redirected too often, or in a circle."""
    BAD_ADDRESS = "bad_address"
    """No address of the web."""
    TIMEOUT = "timeout"
    """No answer, or not its end, in time."""
    UNREACHABLE = "unreachable"
    """No connection, or one that was reset."""
    BROKEN_OFF = "broken_off"
    """The answer ended before its announced length, or was no HTTP."""
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
        url: Where it is; may hold a secret, and is never repeated in messages.
        place: Its position in the list.
        sha256: Its checksum in hexadecimal digits, where known.
    """

    key: str
    url: str
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


def photo_fault(address: Address, data: bytes, kind: str) -> Fault | None:
    """Why bytes are no photo, by their first ones; whether they decode to the last is asked at ingest."""
    if not data:
        return Fault(Gone.EMPTY, "0 bytes")
    found = format_of(data)
    if found is None:
        page = kind.startswith("text/html") or data.lstrip()[:1] == b"<"
        return Fault(Gone.NOT_A_PHOTO, "a web page" if page else f"{len(data):,} bytes of {kind or 'no stated type'}")
    host = urlsplit(address.url).hostname or ""
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
    """Why a status is no photo's; None where it is 200."""
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
