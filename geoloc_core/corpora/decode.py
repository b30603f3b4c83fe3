"""Does a photo really decode? Asked of every photo, once, before anything is trained on it."""

import hashlib
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING

from geoloc_core.corpora import exif, perceptual
from geoloc_core.corpora.photo import Flaw, Photo, Reason, Refusal

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".heic", ".heif"), "HEIF"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx"), "JPEG2000"),
    ".png": "PNG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".avif": "AVIF",
}
"""Format by suffix. Pillow opens much else, some of it by starting other programs: no photo needs that."""

GIANT = 25_000_000
"""Pixels from which photos are decoded one at a time, so that memory does not grow with the threads."""


@dataclass(frozen=True)
class Sound:
    """A photo that decodes.

    Attributes:
        width: Pixels as stored, before any EXIF orientation.
        height: Pixels as stored.
        sha256: Digest of the encoded bytes.
        phash: Hash of what it shows, turned upright (:mod:`~geoloc_core.corpora.perceptual`); None if it is flat.
        exif: What its EXIF says, if the source asked for it.
    """

    width: int
    height: int
    sha256: bytes
    phash: int | None
    exif: exif.Exif | None


@dataclass(frozen=True)
class Decoder:
    """Checks photos; safe to use from many threads.

    Attributes:
        max_pixels: A photo with more is refused without being decoded.
    """

    max_pixels: float
    _giants: threading.Lock = field(default_factory=threading.Lock)

    def check(self, photo: Photo) -> Sound | Refusal:
        """Decode a photo to its last byte; JPEG at an eighth of its size, which is three times as fast."""
        from PIL import Image

        if not photo.data:
            return Refusal(photo.image_id, Reason.EMPTY, "0 bytes")
        try:
            with Image.open(BytesIO(photo.data), formats=_openable()) as image:
                width, height = image.size
                flaw = self._header_flaw(image, photo.path)
                if flaw:
                    return Refusal(photo.image_id, *flaw)
                with self._giants if width * height > GIANT else nullcontext():
                    image.draft(None, (max(width // 8, perceptual.SIDE), max(height // 8, perceptual.SIDE)))
                    found = exif.read(image) if photo.exif else None
                    image.load()
                    seen = perceptual.upright(perceptual.small(image), exif.orientation(image))
        except Exception as error:  # decoders raise whatever a broken file leads to
            return Refusal(photo.image_id, *_flaw(error, photo))
        return Sound(width, height, hashlib.sha256(photo.data).digest(), perceptual.phash(seen), found)

    def _header_flaw(self, image: "Image", path: str) -> Flaw | None:
        found = _family(image.format)
        named = FORMATS.get(suffix(path), found)
        if named != found:
            return Reason.MISLABELLED, f"a {found} image named {suffix(path)}"
        if image.width * image.height > self.max_pixels:
            shown = f"{image.width} × {image.height} pixels"
            return Reason.TOO_LARGE, f"{shown}; max_megapixels is {self.max_pixels / 1e6:g}"
        return None


def suffix(path: str) -> str:
    """The suffix of a file's name, in lower case."""
    return os.path.splitext(path)[1].lower()


def not_a_photo(path: str) -> str | None:
    """Why a file's name is that of no photo; None where it may be one."""
    if any(part.startswith(".") for part in path.split("/")):
        return "a hidden file"
    if suffix(path) not in FORMATS:
        return f"suffix {suffix(path) or 'missing'}; photos are {', '.join(FORMATS)}"
    return None


@cache
def _openable() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    return tuple(name for name in sorted(set(FORMATS.values())) if name in Image.OPEN)


def _family(name: str | None) -> str:
    return "JPEG" if name == "MPO" else str(name)


def _flaw(error: Exception, photo: Photo) -> Flaw:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        named = FORMATS.get(suffix(photo.path), "image")
        return Reason.UNREADABLE, f"{len(photo.data):,} bytes that no decoder recognises as {named}"
    if isinstance(error, MemoryError):
        return Reason.TOO_LARGE, "does not fit in memory"
    detail = " ".join(str(error).split()) or type(error).__name__
    return (Reason.TRUNCATED if _ends_early(photo.data, detail) else Reason.UNREADABLE), detail


def _ends_early(data: bytes, message: str) -> bool:
    """Whether a photo that failed to decode breaks off, by its format's own end mark or length."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-16:]
    if data.startswith(b"RIFF"):
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return "truncated" in message.lower()


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow without its size limit and warnings: ingest has its own limit, and tells what was wrong."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
