"""What the bytes of a server's answer are: a photo, or why there is none."""

import hashlib
import re
import zlib
from dataclasses import dataclass, field

from geoloc_core.web import Fault, Gone, parsed

PLACEHOLDER = "photo_unavailable"
"""In the address that Flickr redirects to where a photo was deleted or made private."""
PLACEHOLDER_BYTES = 16 * 2**10
"""Flickr's JPEG addresses serve JPEGs; a GIF or PNG up to this size is the picture that says so."""
FLICKR = ("flickr.com", "staticflickr.com")
COMPRESSED = frozenset({"gzip", "x-gzip", "deflate"})
"""Encodings that are undone though none was asked for; bytes of any other one are judged as they are."""
MEDIA_TYPE = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}")


@dataclass(frozen=True)
class Address:
    """A file to bring.

    Attributes:
        key: What it is called here.
        url: Where it is; may hold a secret, and is never repeated in messages. Any text: the first to look is
            :func:`geoloc_core.web.parsed`.
        place: Its position in the list.
        sha256: Its checksum in hexadecimal digits, where known.
    """

    key: str
    url: str = field(repr=False)
    place: int = 0
    sha256: str | None = None


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
    form = format_of(data)
    if form is None:
        page = kind.startswith("text/html") or data.lstrip()[:1] == b"<"
        named = MEDIA_TYPE.match(kind)
        what = named[0] if named else "an odd type" if kind else "no stated type"
        return Fault(Gone.NOT_A_PHOTO, "a web page" if page else f"{len(data):,} bytes of {what}")
    url = parsed(address.url)
    host = "" if isinstance(url, Fault) else url.raw_host.decode("ascii")
    flickr = any(host == name or host.endswith(f".{name}") for name in FLICKR)
    if flickr and form in ("GIF", "PNG") and len(data) <= PLACEHOLDER_BYTES:
        return Fault(Gone.PLACEHOLDER, f"a {form} of {len(data):,} bytes in place of the photo")
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


def sum_fault(address: Address, data: bytes) -> Fault | None:
    """Why bytes are not those of the published checksum; None where they are, or where there is none."""
    if address.sha256 is None:
        return None
    digest = hashlib.sha256(data).hexdigest()
    return None if digest == address.sha256.lower() else Fault(Gone.CHECKSUM, f"{len(data):,} bytes, sha256 {digest}")
